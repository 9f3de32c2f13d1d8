"""The network is asked about each sensor alone: how often, when nothing waits for it, live and in replays alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from living_sensors import live_frame
from small_bags import drive, write_ros2
from toy_student import write_toy_student

from anyseg_core.runtime.cross_examination.agreement import Shown
from anyseg_core.runtime.cross_examination.policy import CrossExaminationConfig
from anyseg_core.runtime.engines.protocol import EngineError
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.health.monitor import HealthConfig
from anyseg_core.runtime.segmenter import Segmentation, Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_ros.node.inference_worker import InferenceWorker
from anyseg_ros.pipeline.engine_owner import EngineSettings
from anyseg_ros.pipeline.jobs import Job, NetworkLook, Result, segment
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.pipeline import Pipeline, SyncConfig
from anyseg_ros.replay.offline import ReplayOptions, replay
from anyseg_ros.replay.shared_inference import SharedInference

MS, S = 1_000_000, 1_000_000_000
CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS
RIG = Rig(PinholeCamera(40, 30, 20.0, 20.0, 19.5, 14.5))
Heard = list[tuple[Job, Mapping[Sensor, Shown]]]


@pytest.fixture
def segmenter(tmp_path: Path):
    opened = Segmenter.open(write_toy_student(tmp_path / "toy"), threads=1)
    yield opened
    opened.close()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """What every pipeline is told of the network."""
    told: Heard = []
    original: Callable[..., None] = Pipeline.hear_network

    def hear(pipeline: Pipeline, job: Job, shown_by: Mapping[Sensor, Shown]) -> None:
        told.append((job, shown_by))
        original(pipeline, job, shown_by)

    monkeypatch.setattr(Pipeline, "hear_network", hear)
    return told


def new_pipeline(now_ns: int, rate_hz: float = 1.0, sensors: tuple[Sensor, ...] = (CAMERA, DEPTH)) -> Pipeline:
    examination = CrossExaminationConfig(network_rate_hz=rate_hz)
    made = Pipeline({s: HealthConfig(10.0, 300.0) for s in sensors}, SyncConfig(), now_ns, examination=examination)
    made.set_rig(RIG)
    return made


def jobs_of(pipeline: Pipeline, seconds: float, sensors: tuple[Sensor, ...] = (CAMERA, DEPTH)) -> list[Job]:
    jobs: list[Job] = []
    for number in range(round(10 * seconds)):
        now_ns = 1000 * S + number * 100 * MS
        for sensor in sensors:
            pipeline.on_frame(live_frame(sensor, now_ns), now_ns + MS)
        jobs += [job for job in [pipeline.poll(now_ns + 2 * MS)] if job is not None]
    return jobs


@pytest.mark.parametrize(("rate_hz", "looks"), [(1.0, 3), (2.0, 6), (0.0, 0), (10.0, 30)])
def test_the_network_is_asked_at_its_rate(rate_hz: float, looks: int) -> None:
    jobs = jobs_of(new_pipeline(1000 * S, rate_hz), 3.0)
    assert sum(job.asks_network for job in jobs) == pytest.approx(looks, abs=1)


def test_of_one_sensor_nothing_is_asked() -> None:
    assert not any(job.asks_network for job in jobs_of(new_pipeline(1000 * S, 10.0, (CAMERA,)), 2.0, (CAMERA,)))


def test_the_next_frame_is_expected_a_period_after_the_last_one() -> None:
    pipeline = new_pipeline(1000 * S)
    *_, last = jobs_of(pipeline, 1.0)
    received_ns = last.anchor_frame.stamp_ns + MS
    assert pipeline.expected_ns(received_ns + 20 * MS) == received_ns + 100 * MS
    late_ns = received_ns + 120 * MS
    assert pipeline.expected_ns(late_ns) == late_ns  # it may come at any moment


def test_while_a_frame_waits_for_its_companions_nothing_is_idle() -> None:
    pipeline = new_pipeline(1000 * S)
    *_, last = jobs_of(pipeline, 1.0)
    now_ns = last.anchor_frame.stamp_ns + 101 * MS
    pipeline.on_frame(live_frame(CAMERA, now_ns - MS), now_ns)
    assert pipeline.expected_ns(now_ns) == now_ns


def test_each_sensor_is_asked_about_alone(segmenter: Segmenter) -> None:
    job = next(
        job
        for job in jobs_of(new_pipeline(1000 * S, 10.0, DEFAULT_SENSORS), 1.0, DEFAULT_SENSORS)
        if len(job.examined) == 4
    )
    asked: list[tuple[Sensor, ...]] = []

    def run(alone: Job) -> Segmentation:
        asked.append(tuple(alone.frames))
        return segment(segmenter, alone).segmentation

    look = NetworkLook(job)
    while not look.is_done:
        look.step(run)
    assert sorted(asked) == sorted((sensor,) for sensor in look.shown_by)
    assert {CAMERA, DEPTH, LIDAR} <= set(look.shown_by)


def test_a_sensor_on_its_way_back_is_compared_with_the_others_before_it_is_used_and_doubted() -> None:
    pipeline, jobs, now_ns = new_pipeline(1000 * S), [], 1000 * S
    frozen = live_frame(DEPTH, now_ns)
    for number in range(60):
        now_ns += 100 * MS
        depth = replace(frozen, stamp_ns=now_ns) if 10 <= number < 20 else live_frame(DEPTH, now_ns)
        for frame in (depth, live_frame(CAMERA, now_ns)):
            pipeline.on_frame(frame, now_ns + MS)
        jobs.append(pipeline.poll(now_ns + 2 * MS))
    said = [(DEPTH in job.frames, DEPTH in job.examined, DEPTH in job.doubted) for job in jobs if job is not None]
    course = [now for before, now in pairwise([None, *said]) if now != before]
    assert course == [
        (True, True, False),
        (False, False, False),  # suspect
        (False, False, True),  # failed
        (False, True, True),  # recovering
        (True, True, True),
        (True, True, False),
    ]


def test_points_without_a_rig_and_silent_events_are_not_asked_about(segmenter: Segmenter) -> None:
    nothing = SensorFrame(EVENT, np.zeros((30, 40, 2), np.uint8), 0)
    frames = {EVENT: nothing, LIDAR: live_frame(LIDAR, 0), CAMERA: live_frame(CAMERA, 0)}
    look = NetworkLook(Job(CAMERA, frames, None, 0, (), {}, examined=frames))
    look.step(lambda job: segment(segmenter, job).segmentation)
    assert look.is_done
    assert set(look.shown_by) == {CAMERA}


def test_a_frame_that_cannot_be_encoded_shows_nothing(segmenter: Segmenter) -> None:
    bad = SensorFrame(DEPTH, np.zeros((0, 0), np.float32), 0)
    frames = {DEPTH: bad, CAMERA: live_frame(CAMERA, 0)}
    look = SharedInference(segmenter, 0.0).look(Job(CAMERA, frames, RIG, 0, (), {}, examined=frames))
    assert set(look) == {CAMERA}


class Listener:
    """Counts what a worker makes."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.failures: list[Exception] = []

    def on_result(self, result: Result) -> None:
        self.results.append(result)

    def on_inference_failure(self, error: Exception) -> None:
        self.failures.append(error)

    def on_statuses(self, statuses: object) -> None: ...

    def on_clock_step(self, step_s: float) -> None: ...

    def on_too_old(self, age_ms: float) -> None: ...


def driven(student: Path, frames: int, rate_hz: float = 5.0) -> tuple[Listener, InferenceWorker]:
    """A worker that was sent so many frames of camera and depth, ten a second."""
    listener = Listener()
    worker = InferenceWorker(time.time_ns, listener)
    worker.open(str(student), EngineSettings(threads=1))
    worker.start(new_pipeline(time.time_ns(), rate_hz))
    for _ in range(frames):
        stamp_ns = time.time_ns()
        for sensor in (CAMERA, DEPTH):
            worker.deliver(live_frame(sensor, stamp_ns))
        threading.Event().wait(0.1)
    return listener, worker


def test_a_live_worker_asks_while_it_is_idle_and_makes_every_mask(tmp_path: Path, heard: Heard) -> None:
    listener, worker = driven(write_toy_student(tmp_path / "toy"), 20)
    worker.close()
    assert any(set(shown_by) == {CAMERA, DEPTH} for _, shown_by in heard)
    assert not listener.failures
    assert len({result.job.anchor_frame.stamp_ns for result in listener.results}) == len(listener.results)


def test_an_engine_that_fails_while_it_is_asked_is_reported_and_the_masks_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    original = NetworkLook.step
    failed: list[int] = []

    def step(look: NetworkLook, run: Callable[[Job], Segmentation]) -> None:
        if not failed:
            failed.append(1)
            raise EngineError("lost for a moment")
        original(look, run)

    monkeypatch.setattr(NetworkLook, "step", step)
    listener, worker = driven(write_toy_student(tmp_path / "toy"), 20)
    worker.close()
    assert [str(error) for error in listener.failures] == ["lost for a moment"]
    assert heard  # the next look was made


def test_a_replay_asks_in_simulated_time_and_makes_the_same_masks(
    tmp_path: Path, heard: Heard, segmenter: Segmenter
) -> None:
    bag = write_ros2(tmp_path / "bag", drive(30))
    asked = replay(bag, tmp_path / "asked", ReplayOptions(), segmenter=segmenter)
    looks = len(heard)
    assert looks == 3
    assert {len(shown_by) for _, shown_by in heard} <= {3, 4}
    never = Parameters(cross_examination=CrossExaminationConfig(network_rate_hz=0.0))
    replay(bag, tmp_path / "never", ReplayOptions(parameters=never), segmenter=segmenter)
    assert len(heard) == looks
    assert asked.scores["all"].masks
    replay(bag, tmp_path / "asked", ReplayOptions(resume=True), segmenter=segmenter)
    assert len(heard) == 2 * looks  # decided again, looks and all
