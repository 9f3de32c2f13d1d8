"""The rules of which frames make a mask, on an injected clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from living_sensors import live_frame

from anyseg_core.runtime.geometry.motion import LidarMotion
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, Twist
from anyseg_core.runtime.health.monitor import CheckConfig, Fault, HealthConfig, State
from anyseg_core.runtime.input_images import InputError
from anyseg_core.runtime.segmenter import Segmentation, Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_ros.pipeline.jobs import Job, encode_ahead, segment
from anyseg_ros.pipeline.pipeline import NO_RIG, Pipeline, SyncConfig

MS = 1_000_000
T0 = 1_000_000 * MS
CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS
RIG = Rig(PinholeCamera(40, 30, 20.0, 20.0, 19.5, 14.5))
RATE_HZ = 10.0


class EchoSegmenter:
    """A segmenter whose mask says which modalities it was given."""

    def segment(self, frames: Mapping[Sensor, SensorFrame], _rig: Rig | None = None) -> Segmentation:
        blank = np.zeros((4, 4), np.uint8)
        return Segmentation(blank, blank, tuple(m for m in DEFAULT_SENSORS if m in frames), 0.0, 0.0)


class CountingSegmenter(EchoSegmenter):
    """Notes what is encoded ahead; depth cannot be."""

    def __init__(self) -> None:
        self.encoded: list[Sensor] = []

    def network_image(self, frame: SensorFrame, _rig: Rig | None = None) -> None:
        if frame.modality is DEPTH:
            raise InputError("no depth today")
        self.encoded.append(frame.modality)


@dataclass
class World:
    """Sensors that deliver at their times, and a caller that polls as the node does."""

    sync: SyncConfig = field(default_factory=SyncConfig)
    checks: Mapping[Fault, CheckConfig] = field(default_factory=dict)
    max_age_ms: float = 300.0
    modalities: Sequence[Sensor] = DEFAULT_SENSORS
    jobs: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        health = {m: HealthConfig(RATE_HZ, self.max_age_ms, checks=self.checks) for m in self.modalities}
        self.pipeline = Pipeline(health, self.sync, T0)
        self.pipeline.set_rig(RIG)
        self.now_ns = T0

    def deliver(self, modality: Sensor, stamp_ms: float, at_ms: float | None = None) -> None:
        """A frame stamped `stamp_ms` arrives `at_ms` after the start (at once where not given)."""
        self.run_until(stamp_ms if at_ms is None else at_ms)
        self.pipeline.on_frame(live_frame(modality, T0 + int(stamp_ms * MS)), self.now_ns)
        self.poll()

    def drive(self, start_ms: float, end_ms: float, modalities: Sequence[Sensor], lag_ms: float = 3.0) -> None:
        """Synchronous sensors at 10 Hz whose messages arrive `lag_ms` apart."""
        for stamp_ms in np.arange(start_ms, end_ms, 1000.0 / RATE_HZ):
            for place, modality in enumerate(modalities):
                self.deliver(modality, float(stamp_ms), float(stamp_ms) + place * lag_ms)

    def run_until(self, end_ms: float) -> None:
        """Wake up when the pipeline asks for it, until then."""
        end_ns = T0 + int(end_ms * MS)
        while True:
            wakeup_ns = self.pipeline.next_wakeup_ns(self.now_ns)
            if wakeup_ns is None or wakeup_ns > end_ns:
                break
            assert wakeup_ns > self.now_ns, "a wakeup that changes nothing would be a busy loop"
            self.now_ns = wakeup_ns
            self.poll()
        self.now_ns = end_ns

    def poll(self) -> None:
        job = self.pipeline.poll(self.now_ns)
        if job is not None:
            self.jobs.append(job)

    def stamps_ms(self) -> list[float]:
        return [(job.anchor_frame.stamp_ns - T0) / MS for job in self.jobs]

    def state(self, modality: Sensor) -> State:
        return next(s.state for s in self.pipeline.statuses(self.now_ns) if s.modality is modality)


def test_synchronous_sensors_share_a_mask_though_their_messages_arrive_apart() -> None:
    world = World()
    world.drive(0, 1000, DEFAULT_SENSORS)
    assert all(set(job.frames) == set(DEFAULT_SENSORS) for job in world.jobs[3:])
    assert all(len({frame.stamp_ns for frame in job.frames.values()}) == 1 for job in world.jobs[3:])
    assert {job.anchor for job in world.jobs} == {CAMERA}
    assert world.stamps_ms() == [100.0 * i for i in range(10)]


def test_the_mask_is_made_the_moment_the_last_frame_is_there() -> None:
    world = World()
    world.drive(0, 500, DEFAULT_SENSORS, lag_ms=3.0)
    last = world.jobs[-1]
    assert last.created_ns - last.anchor_frame.stamp_ns == 9 * MS


def test_a_frame_that_does_not_come_is_awaited_for_join_wait_only() -> None:
    world = World()
    world.drive(0, 500, DEFAULT_SENSORS)
    world.drive(500, 510, [CAMERA, DEPTH, EVENT])
    world.run_until(560)
    last = world.jobs[-1]
    assert last.created_ns - last.anchor_frame.stamp_ns == 25 * MS
    assert set(last.frames) == {CAMERA, DEPTH, EVENT}


def test_without_join_wait_the_anchor_goes_at_once() -> None:
    world = World(SyncConfig(join_wait_ms=0.0))
    world.drive(0, 500, DEFAULT_SENSORS)
    assert all(job.created_ns == job.anchor_frame.stamp_ns for job in world.jobs)
    assert all(set(job.frames) == {CAMERA} for job in world.jobs)  # the others' last frames are 100 ms old


def test_sensors_out_of_phase_are_not_awaited() -> None:
    world = World(modalities=[CAMERA, DEPTH])
    for start in range(0, 1000, 100):
        world.deliver(CAMERA, start)
        world.deliver(DEPTH, start + 45)
    assert all(job.created_ns == job.anchor_frame.stamp_ns for job in world.jobs[3:])


def test_the_nearest_frame_joins_not_the_newest() -> None:
    world = World(SyncConfig(max_time_diff_ms=50.0), modalities=[CAMERA, DEPTH])
    for stamp in (0, 100, 200):
        world.deliver(DEPTH, stamp)
    world.deliver(CAMERA, 110, at_ms=205)
    assert not [job for job in world.jobs if job.anchor is CAMERA]  # the mask of depth at 200 is newer
    world.deliver(CAMERA, 210, at_ms=215)
    world.deliver(DEPTH, 300)
    world.deliver(CAMERA, 310, at_ms=395)
    assert world.jobs[-1].frames[DEPTH].stamp_ns == T0 + 300 * MS


def test_a_dead_camera_is_replaced_in_time() -> None:
    world = World()
    world.drive(0, 1000, DEFAULT_SENSORS)
    world.drive(1000, 2000, [DEPTH, EVENT, LIDAR])
    first_without = next(job for job in world.jobs if CAMERA not in job.frames)
    assert first_without.created_ns - (T0 + 900 * MS) <= 200 * MS  # two periods
    assert first_without.anchor is DEPTH
    assert set(world.jobs[-1].frames) == {DEPTH, EVENT, LIDAR}
    assert world.state(CAMERA) is State.FAILED


def test_a_late_anchor_is_replaced_at_the_deadline_for_this_mask() -> None:
    tolerant = {Fault.SILENT: CheckConfig(threshold=50.0)}
    world = World(SyncConfig(deadline_ms=40.0), tolerant, max_age_ms=600.0, modalities=[CAMERA, DEPTH])
    world.drive(0, 500, [CAMERA, DEPTH])
    world.drive(500, 700, [DEPTH])
    started = [job.created_ns for job in world.jobs]
    assert max(later - earlier for earlier, later in pairwise(started)) <= 140 * MS  # a period and the deadline
    assert world.jobs[-1].anchor is DEPTH
    world.drive(700, 800, [CAMERA, DEPTH])
    assert world.jobs[-1].anchor is CAMERA


def test_all_lost_no_mask_and_recovery() -> None:
    world = World()
    world.drive(0, 500, DEFAULT_SENSORS)
    count = len(world.jobs)
    world.run_until(3000)
    assert len(world.jobs) == count
    assert {s.state for s in world.pipeline.statuses(world.now_ns)} == {State.FAILED}
    assert world.pipeline.usable(world.now_ns) == ()
    world.drive(3000, 4500, DEFAULT_SENSORS)
    assert set(world.jobs[-1].frames) == set(DEFAULT_SENSORS)


def test_a_camera_that_is_trusted_again_between_two_frames_gives_no_old_mask() -> None:
    world = World()
    world.drive(0, 1000, DEFAULT_SENSORS)
    world.drive(1000, 3000, [DEPTH, EVENT, LIDAR])
    for number in range(10):  # 0.5 s after the first of them is not the time of a frame
        world.deliver(CAMERA, 3010 + 110 * number)
        world.drive(3100 + 100 * number, 3101 + 100 * number, [DEPTH, EVENT, LIDAR])
    back = [job for job in world.jobs if CAMERA in job.frames and job.created_ns > T0 + 3000 * MS]
    assert back
    assert all(frame.stamp_ns >= job.created_ns - 300 * MS for job in world.jobs for frame in job.frames.values())
    assert world.stamps_ms() == sorted(world.stamps_ms())


def test_a_frozen_camera_is_not_used_from_its_first_repeated_frame_on() -> None:
    world = World()
    world.drive(0, 500, DEFAULT_SENSORS)
    still = live_frame(CAMERA, 0).data
    for stamp in range(500, 1500, 100):
        world.run_until(stamp)
        world.pipeline.on_frame(SensorFrame(CAMERA, still, T0 + stamp * MS), world.now_ns)
        world.poll()
        for modality in (DEPTH, EVENT, LIDAR):
            world.deliver(modality, stamp, stamp + 3)
    frozen = [job for job in world.jobs if CAMERA in job.frames and job.anchor_frame.stamp_ns > T0 + 500 * MS]
    assert frozen == []
    assert world.stamps_ms()[-1] == 1400.0


def test_a_late_frame_is_not_an_anchor() -> None:
    world = World(checks={Fault.STAMP_REGRESSION: CheckConfig(enabled=False)}, modalities=[CAMERA])
    world.deliver(CAMERA, 0)
    world.deliver(CAMERA, 100)
    world.deliver(CAMERA, 50, at_ms=120)
    assert world.stamps_ms() == [0.0, 100.0]


def test_a_sensor_clock_that_was_set_back_does_not_end_the_masks() -> None:
    unchecked = {f: CheckConfig(enabled=False) for f in (Fault.STALE_STAMP, Fault.FUTURE_STAMP)}
    world = World(checks=unchecked, modalities=[CAMERA])
    world.deliver(CAMERA, 90_000, at_ms=0)
    for at in (100, 200, 300, 400, 500, 600, 700):
        world.deliver(CAMERA, at, at_ms=at)
    assert len(world.jobs) >= 5


def test_lidar_waits_for_the_calibration() -> None:
    world = World(modalities=[LIDAR])
    world.pipeline = Pipeline({LIDAR: HealthConfig()}, SyncConfig(), T0)
    world.deliver(LIDAR, 0)
    assert world.jobs == []
    assert world.pipeline.statuses(world.now_ns)[0].left_out == NO_RIG
    world.pipeline.set_rig(RIG)
    world.poll()
    assert segment(cast(Segmenter, EchoSegmenter()), world.jobs[0]).mask_size == (30, 40)


def test_the_mask_has_the_anchor_s_size() -> None:
    world = World(modalities=[CAMERA])
    world.deliver(CAMERA, 0)
    result = segment(cast(Segmenter, EchoSegmenter()), world.jobs[0])
    assert result.mask_size == (48, 64)
    assert result.segmentation.modalities == (CAMERA,)


def test_a_disabled_modality_is_not_used() -> None:
    world = World()
    world.drive(0, 500, DEFAULT_SENSORS)
    world.pipeline.set_enabled(CAMERA, False, world.now_ns)
    world.drive(500, 1000, DEFAULT_SENSORS)
    assert set(world.jobs[-1].frames) == {DEPTH, EVENT, LIDAR}
    world.pipeline.set_enabled(CAMERA, True, world.now_ns)
    world.drive(1000, 1500, DEFAULT_SENSORS)
    assert world.jobs[-1].anchor is CAMERA


def test_a_modality_outside_anchor_order_only_joins() -> None:
    world = World(SyncConfig(anchor_order=(DEPTH,)))
    world.drive(0, 500, DEFAULT_SENSORS)
    assert {job.anchor for job in world.jobs} == {DEPTH}
    assert set(world.jobs[-1].frames) == set(DEFAULT_SENSORS)


def test_a_clock_that_jumps_back_starts_anew() -> None:
    world = World()
    world.drive(0, 1000, DEFAULT_SENSORS)
    world.now_ns = T0 - 60_000 * MS
    count = len(world.jobs)
    for stamp in range(-60_000, -59_000, 100):
        world.now_ns = T0 + stamp * MS
        for modality in DEFAULT_SENSORS:
            world.pipeline.on_frame(live_frame(modality, world.now_ns), world.now_ns)
            world.poll()
    assert len(world.jobs) - count == 10
    assert {s.state for s in world.pipeline.statuses(world.now_ns)} == {State.ACTIVE}


def test_a_frame_of_before_the_clock_was_set_back_is_used_by_no_mask_and_fails_no_sensor() -> None:
    """It was on its way: a bag that plays in a loop tells the time on one topic and sends its pictures on others."""
    world = World()
    world.drive(0, 1000, DEFAULT_SENSORS)
    world.now_ns = T0 - 60_000 * MS
    for modality in DEFAULT_SENSORS:
        world.pipeline.on_frame(live_frame(modality, T0 + 1000 * MS), world.now_ns)
        world.poll()
    count = len(world.jobs)
    world.drive(-60_000 + 100, -59_000, DEFAULT_SENSORS)
    made = world.jobs[count:]
    assert len(made) >= 8
    assert all(job.anchor_frame.stamp_ns < T0 for job in made)
    assert set(made[-1].frames) == set(DEFAULT_SENSORS)
    assert {s.state for s in world.pipeline.statuses(world.now_ns)} == {State.ACTIVE}


@settings(max_examples=20)
@given(st.integers(-2000, 2000), st.booleans())
def test_no_age_is_negative_whatever_a_sensor_s_clock_says(ahead_ms: int, is_trusted: bool) -> None:
    checks = {} if is_trusted else {f: CheckConfig(enabled=False) for f in (Fault.STALE_STAMP, Fault.FUTURE_STAMP)}
    world = World(checks=checks, modalities=[CAMERA, DEPTH])
    for at in range(0, 1000, 100):
        world.deliver(CAMERA, at + ahead_ms, at_ms=at)
        world.deliver(DEPTH, at + ahead_ms, at_ms=at + 3)
    assert world.jobs or is_trusted
    assert all(0 <= age_ms <= 300 for job in world.jobs for age_ms in job.ages_ms().values())
    assert all((s.age_ms or 0) >= 0 for s in world.pipeline.statuses(world.now_ns))


def test_a_simulated_clock_that_is_told_starts_anew() -> None:
    """Before, it reads 0: no frame has an age then, and what is waited for is not years late afterwards."""
    world = World()
    health = {m: HealthConfig(RATE_HZ) for m in DEFAULT_SENSORS}
    world.pipeline = Pipeline(health, world.sync, 0)
    world.now_ns = 0
    for modality in DEFAULT_SENSORS:
        world.pipeline.on_frame(live_frame(modality, T0), 0)
        world.poll()
    assert not world.jobs
    world.now_ns = T0
    world.poll()
    assert {s.state for s in world.pipeline.statuses(world.now_ns)} == {State.WAITING}
    world.drive(0, 400, (DEPTH, EVENT))
    assert [set(job.frames) for job in world.jobs[2:]] == [{DEPTH, EVENT}] * 2
    assert world.state(CAMERA) is State.WAITING


@pytest.mark.parametrize("is_told", [False, True])
def test_a_clock_that_is_set_forward_blames_no_sensor_where_the_pipeline_is_told(is_told: bool) -> None:
    world = World()
    world.drive(0, 500, DEFAULT_SENSORS)
    hour_ms = 3.6e6
    world.now_ns += int(hour_ms * MS)
    if is_told:
        world.pipeline.restart(world.now_ns)
    world.poll()
    world.run_until(hour_ms + 580)  # the next frames come at 600
    expected = State.WAITING if is_told else State.FAILED
    assert {world.state(modality) for modality in DEFAULT_SENSORS} == {expected}
    made = len(world.jobs)
    world.drive(hour_ms + 600, hour_ms + 900, DEFAULT_SENSORS)
    assert len(world.jobs) - made == 3  # of sensors that are waited for, or better than none
    assert {world.state(modality) for modality in DEFAULT_SENSORS} == {State.ACTIVE if is_told else State.RECOVERING}


def test_rejected_messages_take_the_sensor_out() -> None:
    world = World()
    world.drive(0, 500, DEFAULT_SENSORS)
    for stamp in range(500, 1000, 100):
        world.run_until(stamp)
        world.pipeline.on_rejected(CAMERA, Fault.DECODE_ERROR, "truncated", world.now_ns)
        for modality in (DEPTH, EVENT, LIDAR):
            world.deliver(modality, stamp, stamp + 3)
    assert set(world.jobs[-1].frames) == {DEPTH, EVENT, LIDAR}
    camera = world.pipeline.statuses(world.now_ns)[0]
    assert (camera.state, camera.fault, camera.reason, camera.rejected) == (
        State.FAILED,
        Fault.DECODE_ERROR,
        "truncated",
        5,
    )


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(DEFAULT_SENSORS), st.integers(1, 60), st.integers(-400, 60), st.booleans()),
        max_size=120,
    ),
    st.sampled_from([0.0, 25.0]),
)
def test_whatever_arrives_masks_are_young_ordered_and_from_good_frames(
    events: list[tuple[Sensor, int, int, bool]], join_wait_ms: float
) -> None:
    world = World(SyncConfig(join_wait_ms=join_wait_ms))
    at_ms = 0.0
    for modality, gap_ms, stamp_lag_ms, malformed in events:
        at_ms += gap_ms
        if malformed:
            world.run_until(at_ms)
            world.pipeline.on_rejected(modality, Fault.DECODE_ERROR, "bad", world.now_ns)
            world.poll()
        else:
            world.deliver(modality, at_ms + stamp_lag_ms, at_ms)
    stamps = world.stamps_ms()
    assert all(later > earlier for earlier, later in pairwise(stamps))
    for job in world.jobs:
        assert job.anchor in job.frames
        for frame in job.frames.values():
            assert job.created_ns - frame.stamp_ns <= 300 * MS
            assert abs(frame.stamp_ns - job.anchor_frame.stamp_ns) <= 50 * MS


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"anchor_order": ()}, "anchor_order"),
        ({"anchor_order": (CAMERA, CAMERA)}, "anchor_order"),
        ({"max_time_diff_ms": -1.0}, "max_time_diff_ms"),
        ({"join_wait_ms": float("nan")}, "join_wait_ms"),
        ({"deadline_ms": 0.0}, "deadline_ms"),
    ],
)
def test_a_bad_sync_config_is_named(changes: dict, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        SyncConfig(**changes)


def test_the_frames_of_a_job_are_encoded_ahead_but_for_a_scan_that_is_going_to_be_moved() -> None:
    world = World()
    world.drive(0, 300, DEFAULT_SENSORS)
    segmenter = CountingSegmenter()
    encode_ahead(cast(Segmenter, segmenter), world.jobs[-1])
    assert segmenter.encoded == [CAMERA, EVENT, LIDAR]
    segmenter.encoded.clear()
    moving = Twist(np.array([10.0, 0, 0]), np.zeros(3))
    encode_ahead(cast(Segmenter, segmenter), replace(world.jobs[-1], motion=LidarMotion(world.now_ns, moving)))
    assert segmenter.encoded == [CAMERA, EVENT]


def test_a_frame_is_named_for_encoding_once_and_only_while_a_mask_may_need_it() -> None:
    world = World()
    world.drive(0, 300, DEFAULT_SENSORS)
    assert world.pipeline.take_frame_to_encode() is None  # all are older than the last mask, or in it
    frame = live_frame(DEPTH, T0 + 300 * MS)
    world.run_until(300)
    world.pipeline.on_frame(frame, world.now_ns)
    assert world.pipeline.take_frame_to_encode() == (frame, RIG)
    assert world.pipeline.take_frame_to_encode() is None


def test_a_sensor_faster_than_the_anchor_is_not_encoded_for_nothing() -> None:
    world = World()
    world.drive(0, 300, DEFAULT_SENSORS)
    for late_ms in (33, 66):  # a depth camera of 30 Hz beside a camera of 10 Hz
        world.run_until(200 + late_ms)
        world.pipeline.on_frame(live_frame(DEPTH, T0 + (200 + late_ms) * MS), world.now_ns)
    assert world.pipeline.take_frame_to_encode() is None
    camera = live_frame(CAMERA, T0 + 300 * MS)
    world.run_until(300)
    world.pipeline.on_frame(camera, world.now_ns)
    assert world.pipeline.take_frame_to_encode() == (camera, RIG)


class DoubtfulSegmenter(EchoSegmenter):
    """Sure of the left half of its picture only."""

    def segment(self, frames: Mapping[Sensor, SensorFrame], _rig: Rig | None = None) -> Segmentation:
        confidence = np.repeat(np.array([[250, 102]], np.uint8), 4, axis=0)
        return Segmentation(np.full((4, 2), 7, np.uint8), confidence, tuple(frames), 0.0, 0.0)


@pytest.mark.parametrize(("min_confidence", "right"), [(0.0, 7), (0.4, 7), (0.41, 255)])
def test_a_pixel_below_the_least_confidence_has_no_label(min_confidence: float, right: int) -> None:
    segmenter = cast(Segmenter, DoubtfulSegmenter())
    pipeline = Pipeline({CAMERA: HealthConfig()}, SyncConfig(join_wait_ms=0.0), T0)
    pipeline.on_frame(live_frame(CAMERA, T0), T0)
    job = pipeline.poll(T0)
    assert job is not None
    result = segment(segmenter, job, min_confidence).segmentation
    assert result.labels.tolist() == [[7, right]] * 4
    assert result.confidence[0].tolist() == [250, 102]  # which stays as it was
