"""Sensor health: every fault, every transition, timing at the edge, and random histories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from living_sensors import live_data
from numpy.typing import NDArray

from anyseg_core.runtime.health.monitor import (
    ALLOWED_TRANSITIONS,
    DEFAULT_CHECKS,
    CheckConfig,
    Fault,
    HealthConfig,
    HealthMonitor,
    ModalityStatus,
    State,
)
from anyseg_core.runtime.health.state import SILENCE_FLOOR_MS
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

MS = 1_000_000
S = 1_000_000_000
START = 1_000 * S
"""Nodes do not start at zero."""
ALL_ON = {fault: replace(check, enabled=True) for fault, check in DEFAULT_CHECKS.items()}


class RecordingMonitor(HealthMonitor):
    """Remembers the states it went through and refuses a step that the table does not have."""

    def __init__(self, modality: Sensor, config: HealthConfig, now_ns: int) -> None:
        super().__init__(modality, config, now_ns)
        self.path = [State.WAITING]

    def _enter(self, state: State, now_ns: int) -> None:
        assert state is self._state or state in ALLOWED_TRANSITIONS[self._state], f"{self._state} -> {state}"
        if state is not self._state:
            self.path.append(state)
        super()._enter(state, now_ns)


class Drive:
    """A monitor, its clock, and a sensor that delivers what a test asks for."""

    def __init__(self, modality: Sensor = Sensor.CAMERA, config: HealthConfig | None = None) -> None:
        self.now = START
        self.modality = modality
        self.monitor = RecordingMonitor(modality, config or HealthConfig(10.0), START)
        self.rng = np.random.default_rng(0)

    @property
    def status(self) -> ModalityStatus:
        return self.monitor.status(self.now)

    @property
    def usable(self) -> bool:
        return self.monitor.usable(self.now)

    def wait(self, ms: float) -> None:
        """Let time pass; the timer calls on_time at every deadline, as the node does."""
        end = self.now + round(ms * MS)
        while (deadline := self.monitor.next_deadline_ns()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.monitor.on_time(self.now)
        self.now = end

    def frame(self, data: NDArray | None = None, late_ms: float = 10.0) -> None:
        """A frame now, by default a good one."""
        content = live_data(self.modality, self.rng) if data is None else data
        self.monitor.on_frame(SensorFrame(self.modality, content, self.now - round(late_ms * MS)), self.now)

    def run(self, seconds: float, period_ms: float = 100.0) -> None:
        """A healthy sensor for a while."""
        for _ in range(round(seconds * 1000 / period_ms)):
            self.wait(period_ms)
            self.frame()

    def reject(self, fault: Fault = Fault.DECODE_ERROR) -> None:
        self.monitor.on_rejected(fault, "truncated JPEG", self.now)


def active_drive(modality: Sensor = Sensor.CAMERA, config: HealthConfig | None = None) -> Drive:
    drive = Drive(modality, config)
    drive.run(1.0)
    assert drive.status.state is State.ACTIVE
    return drive


def with_check(fault: Fault, **changes: float) -> HealthConfig:
    return HealthConfig(10.0, checks={fault: replace(DEFAULT_CHECKS[fault], enabled=True, **changes)})


# ---------------------------------------------------------------------------------------------- life and death


@pytest.mark.parametrize("modality", DEFAULT_SENSORS)
def test_a_healthy_sensor_becomes_active_with_its_first_frame_and_stays(modality: Sensor) -> None:
    drive = Drive(modality, HealthConfig(10.0, checks={f: c for f, c in ALL_ON.items() if f is not Fault.DARK}))
    assert (drive.status.state, drive.usable) == (State.WAITING, False)
    drive.frame()
    assert (drive.status.state, drive.usable) == (State.ACTIVE, True)
    drive.run(5.0)
    assert drive.monitor.path == [State.WAITING, State.ACTIVE]
    status = drive.status
    assert (status.fault, status.fault_counts, status.received, status.rejected) == (None, {}, 51, 0)
    assert status.rate_hz == pytest.approx(10.0)
    assert status.age_ms == pytest.approx(10.0)
    assert status.since_ns == START


def test_a_sensor_that_never_speaks_fails_after_its_grace() -> None:
    drive = Drive(config=HealthConfig(10.0, startup_grace_s=3.0))
    drive.wait(2999.9)
    assert drive.status.state is State.WAITING
    drive.wait(0.1)
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.NEVER_RECEIVED)
    assert drive.monitor.next_deadline_ns() is None
    assert drive.status.age_ms is None
    drive.frame()
    assert (drive.status.state, drive.usable) == (State.ACTIVE, True)
    assert drive.monitor.path == [State.WAITING, State.SUSPECT, State.FAILED, State.RECOVERING, State.ACTIVE]


def test_silent_death_is_found_without_a_message() -> None:
    drive = active_drive()
    died = drive.now
    drive.wait(160)
    assert drive.status.state is State.ACTIVE
    drive.wait(1)
    status = drive.status
    assert (status.state, status.fault, drive.usable) == (State.FAILED, Fault.SILENT, False)
    assert "no message for 161 ms" in status.reason
    assert died < (status.first_ns or 0) <= drive.now
    drive.wait(10_000)
    assert drive.status.fault_counts == {Fault.SILENT: 1}
    assert drive.status.rate_hz == 0.0
    assert "no message for 10 s" in drive.status.reason


def test_a_silence_that_is_over_is_told_as_long_as_it_was_when_it_was_found() -> None:
    drive = active_drive()
    drive.wait(161)
    drive.wait(400)
    assert "no message for 561 ms" in drive.status.reason
    drive.frame()
    assert drive.status.state is State.RECOVERING
    assert "no message for 160 ms" in drive.status.reason


@given(st.floats(1.0, 60.0))
def test_silence_is_found_in_time_for_a_mask_without_the_sensor(rate_hz: float) -> None:
    """First mask without it within max(2 periods, 150 ms) of its last message: 30 ms remain to make it."""
    config = HealthConfig(expected_rate_hz=rate_hz, max_age_ms=3000)
    monitor = HealthMonitor(Sensor.CAMERA, config, START)
    monitor.on_frame(SensorFrame(Sensor.CAMERA, live_data(Sensor.CAMERA, np.random.default_rng(0)), START), START)
    deadline = monitor.next_deadline_ns()
    assert deadline is not None
    assert deadline - START <= max(2e9 / rate_hz, 150e6) - 29.9e6
    monitor.on_time(deadline - 2)
    assert monitor.usable(deadline - 2)
    monitor.on_time(deadline)
    assert not monitor.usable(deadline)


@given(st.sampled_from([5.0, 10.0, 20.0, 30.0]), st.lists(st.floats(-0.3, 0.3), min_size=5, max_size=40))
def test_jitter_of_30_percent_raises_no_alarm(rate_hz: float, jitter: list[float]) -> None:
    drive = Drive(Sensor.DEPTH, HealthConfig(expected_rate_hz=rate_hz))
    period = S / rate_hz
    for index, shift in enumerate(jitter, start=1):
        drive.wait((START + (index + shift) * period - drive.now) / MS)
        drive.frame()
    assert drive.monitor.path == [State.WAITING, State.ACTIVE]


def test_silence_may_be_debounced_by_missed_messages() -> None:
    drive = active_drive(config=with_check(Fault.SILENT, fail_count=3))
    drive.wait(161)
    assert (drive.status.state, drive.usable) == (State.SUSPECT, True)  # its newest frame is still good and young
    drive.wait(130)
    assert not drive.usable  # older than max_age_ms, whatever the state
    drive.wait(80)
    assert drive.status.state is State.FAILED
    assert drive.status.fault_counts == {Fault.SILENT: 3}


def test_one_late_message_of_a_debounced_sensor_is_forgiven() -> None:
    drive = active_drive(config=with_check(Fault.SILENT, fail_count=3))
    drive.wait(200)
    drive.frame()
    assert (drive.status.state, drive.status.fault) == (State.ACTIVE, None)
    drive.wait(161)
    assert drive.status.state is State.SUSPECT


# --------------------------------------------------------------------------------------------------- bad frames


def spoil(drive: Drive, fault: Fault) -> None:
    """One frame with that fault, right after a good one."""
    dark, bright = np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)
    newest = drive.monitor._newest
    assert newest is not None
    grey = (120 + drive.rng.integers(0, 3, (48, 64, 3))).astype(np.uint8)
    data = {Fault.FROZEN: newest.data, Fault.DARK: dark, Fault.SATURATED: bright, Fault.BLANK: grey}
    points = live_data(Sensor.LIDAR, drive.rng)[:20]
    data |= {Fault.INVALID_DEPTH: np.full((48, 64), np.nan, np.float32), Fault.FEW_POINTS: points}
    stamps = {Fault.STALE_STAMP: 105 * MS, Fault.FUTURE_STAMP: -60 * MS}
    stamps |= {
        Fault.STAMP_REGRESSION: drive.now - newest.stamp_ns + 1,
        Fault.DUPLICATE_STAMP: drive.now - newest.stamp_ns,
    }
    drive.frame(data.get(fault), late_ms=stamps.get(fault, 10 * MS) / MS)


SPOILED = {
    Fault.FUTURE_STAMP: Sensor.DEPTH,
    Fault.STAMP_REGRESSION: Sensor.CAMERA,
    Fault.DUPLICATE_STAMP: Sensor.CAMERA,
    Fault.FROZEN: Sensor.DEPTH,
    Fault.DARK: Sensor.CAMERA,
    Fault.SATURATED: Sensor.CAMERA,
    Fault.BLANK: Sensor.CAMERA,
    Fault.INVALID_DEPTH: Sensor.DEPTH,
    Fault.FEW_POINTS: Sensor.LIDAR,
}


@pytest.mark.parametrize("fault", SPOILED, ids=str)
def test_one_bad_frame_is_not_used_but_its_sensor_is_kept(fault: Fault) -> None:
    drive = active_drive(SPOILED[fault], with_check(fault))
    drive.wait(100)
    spoil(drive, fault)
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.SUSPECT, fault, False)
    drive.wait(100)
    drive.frame()
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.ACTIVE, None, True)
    assert drive.status.fault_counts == {fault: 1}


@pytest.mark.parametrize("points", [np.zeros((0, 4), np.float32), np.full((900, 4), np.nan, np.float32)])
def test_a_scan_that_saw_nothing_has_few_points(points: np.ndarray) -> None:
    drive = active_drive(Sensor.LIDAR, with_check(Fault.FEW_POINTS))
    drive.wait(100)
    drive.frame(points + np.float32(0))
    assert (drive.status.fault, drive.usable) == (Fault.FEW_POINTS, False)
    assert drive.status.reason.startswith("0 points")


@pytest.mark.parametrize("fault", SPOILED, ids=str)
def test_fail_count_bad_frames_fail_the_sensor(fault: Fault) -> None:
    config = with_check(fault)
    drive = active_drive(SPOILED[fault], config)
    count = config.check(fault).fail_count
    for index in range(1, count + 1):
        drive.wait(100)
        spoil(drive, fault)
        assert drive.status.state is (State.FAILED if index == count else State.SUSPECT)
        assert not drive.usable
    status = drive.status
    assert (status.fault, status.fault_counts) == (fault, {fault: count})
    assert (status.last_ns or 0) - (status.first_ns or 0) == (count - 1) * 100 * MS
    assert status.reason


@pytest.mark.parametrize("fault", SPOILED, ids=str)
def test_a_disabled_check_never_fires(fault: Fault) -> None:
    drive = active_drive(SPOILED[fault], with_check(fault))
    off = {other: replace(check, enabled=False) for other, check in DEFAULT_CHECKS.items()}
    drive.monitor.reconfigure(HealthConfig(10.0, checks=off), drive.now)
    for _ in range(12):
        drive.wait(100)
        spoil(drive, fault)
    assert drive.monitor.path == [State.WAITING, State.ACTIVE]


def test_a_static_scene_without_events_is_not_frozen_but_frozen_events_are() -> None:
    drive = active_drive(Sensor.EVENT)
    for _ in range(20):
        drive.wait(100)
        drive.frame(np.zeros((48, 64, 2), np.uint8))
    assert (drive.status.state, drive.usable) == (State.ACTIVE, True)
    stuck = live_data(Sensor.EVENT, drive.rng)
    for _ in range(4):
        drive.wait(100)
        drive.frame(stuck)
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.FROZEN)


def test_pictures_without_noise_of_a_vehicle_that_stands_are_frozen_as_documented() -> None:
    """Simulators without noise send such; a real sensor never does. `checks.frozen.enabled: false` lets them pass."""
    drive = active_drive(Sensor.CAMERA)
    picture = live_data(Sensor.CAMERA, drive.rng)
    for _ in range(4):
        drive.wait(100)
        drive.frame(picture.copy())
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.FROZEN)


def test_packets_of_a_static_scene_that_stop_are_found() -> None:
    drive = active_drive(Sensor.EVENT)
    drive.wait(161)
    assert drive.status.fault is Fault.SILENT


@pytest.mark.parametrize("modality", [Sensor.CAMERA, Sensor.DEPTH, Sensor.LIDAR])
def test_one_changed_value_is_enough_to_be_alive(modality: Sensor) -> None:
    drive = active_drive(modality)
    data = live_data(modality, drive.rng)
    for index in range(12):
        drive.wait(100)
        data = data.copy()
        data[-1, index % 4] += 1
        drive.frame(data)
    assert drive.monitor.path == [State.WAITING, State.ACTIVE]


def test_frozen_depth_with_missing_pixels_is_still_frozen() -> None:
    drive = active_drive(Sensor.DEPTH)
    stuck = live_data(Sensor.DEPTH, drive.rng)
    stuck[5:9] = np.nan
    for _ in range(4):
        drive.wait(100)
        drive.frame(stuck.copy())
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.FROZEN)


def test_a_night_drive_is_not_dark() -> None:
    """Almost all of the image is black; lamps and the lit road are one percent of it."""
    drive = Drive(config=HealthConfig(10.0, checks=ALL_ON))
    for _ in range(30):
        night = drive.rng.integers(0, 4, (100, 100, 3), np.uint8)
        night[60:70, 40:52] = drive.rng.integers(190, 200, (10, 12, 3))
        drive.wait(100)
        drive.frame(night)
    assert drive.monitor.path == [State.WAITING, State.ACTIVE]


def test_low_rate_is_found_where_single_gaps_are_tolerated() -> None:
    checks = {Fault.SILENT: replace(DEFAULT_CHECKS[Fault.SILENT], threshold=5.0)}
    checks[Fault.LOW_RATE] = replace(DEFAULT_CHECKS[Fault.LOW_RATE], enabled=True)
    drive = active_drive(config=HealthConfig(10.0, max_age_ms=1000, checks=checks))
    drive.run(5.0, period_ms=250)
    assert (drive.status.state, drive.status.fault) == (State.SUSPECT, Fault.LOW_RATE)
    assert drive.usable
    assert drive.status.rate_hz == pytest.approx(4.0)


def test_the_rate_of_a_slower_sensor_is_measured() -> None:
    drive = Drive(config=HealthConfig(expected_rate_hz=2.0, max_age_ms=600))
    drive.run(5.0, period_ms=500)
    assert drive.status.rate_hz == pytest.approx(2.0)


# --------------------------------------------------------------------------------------------- rejected messages


@pytest.mark.parametrize("fault", [Fault.DECODE_ERROR, Fault.WRONG_SIZE], ids=str)
def test_malformed_messages_are_counted_named_and_fail_the_sensor(fault: Fault) -> None:
    drive = active_drive()
    drive.wait(100)
    drive.reject(fault)
    assert (drive.status.state, drive.status.fault) == (State.SUSPECT, fault)
    assert drive.usable  # the frame before it is good and 110 ms old
    drive.wait(100)
    drive.reject(fault)
    status = drive.status
    assert (status.state, status.fault, status.reason) == (State.FAILED, fault, "truncated JPEG")
    assert (status.received, status.rejected, status.fault_counts) == (10, 2, {fault: 2})


def test_a_sensor_that_only_sends_garbage_is_not_called_silent() -> None:
    drive = Drive()
    for _ in range(30):
        drive.wait(100)
        drive.reject()
    assert drive.status.fault is Fault.DECODE_ERROR
    drive.wait(200)
    assert drive.status.fault is Fault.SILENT
    assert drive.status.state is State.FAILED


def test_alternating_faults_fail_the_sensor_too() -> None:
    drive = active_drive(config=HealthConfig(10.0, checks=ALL_ON))
    for fault in (Fault.DUPLICATE_STAMP, Fault.FROZEN, Fault.DUPLICATE_STAMP):
        drive.wait(100)
        spoil(drive, fault)
    assert drive.status.state is State.FAILED


def test_incompatible_qos_explains_a_sensor_nobody_has_heard() -> None:
    drive = Drive()
    drive.reject(Fault.INCOMPATIBLE_QOS)
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.INCOMPATIBLE_QOS)
    drive.wait(60_000)
    assert drive.status.fault is Fault.INCOMPATIBLE_QOS  # more to the point than never_received
    drive.frame()
    assert drive.status.state is State.ACTIVE


def test_incompatible_qos_of_a_second_publisher_does_not_fail_a_live_sensor() -> None:
    drive = active_drive()
    drive.reject(Fault.INCOMPATIBLE_QOS)
    assert (drive.status.state, drive.usable) == (State.ACTIVE, True)
    assert drive.status.fault_counts == {Fault.INCOMPATIBLE_QOS: 1}


def test_a_fault_without_a_check_of_its_own_is_debounced_by_default() -> None:
    drive = active_drive(Sensor.EVENT)
    for _ in range(3):
        drive.wait(50)
        drive.reject(Fault.EVENT_SEQUENCE_GAP)
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.EVENT_SEQUENCE_GAP)


# ------------------------------------------------------------------------------------------------------ recovery


def failed_drive(config: HealthConfig | None = None) -> Drive:
    drive = active_drive(config=config)
    drive.wait(1000)
    assert drive.status.state is State.FAILED
    return drive


def test_recovery_needs_good_frames_and_time() -> None:
    drive = failed_drive()
    usable = []
    for _ in range(7):
        drive.frame()
        usable.append(drive.usable)
        drive.wait(100)
    assert usable == [False] * 5 + [True] * 2  # 0.5 s after the first good frame
    assert drive.monitor.path[-3:] == [State.FAILED, State.RECOVERING, State.ACTIVE]
    assert drive.status.fault is None


def test_recovery_needs_the_count_where_time_is_short() -> None:
    drive = failed_drive(with_check(Fault.SILENT, recover_count=4, recover_time_s=0.0))
    states = []
    for _ in range(4):
        drive.frame()
        states.append(drive.status.state)
        drive.wait(100)
    assert states == [State.RECOVERING] * 3 + [State.ACTIVE]


def test_recovery_ends_on_time_and_not_with_the_next_frame() -> None:
    drive = failed_drive()
    drive.frame()
    well = drive.now
    for _ in range(4):
        drive.wait(110)  # the fifth frame comes after 440 ms, a sixth would after 550
        drive.frame()
    assert drive.monitor.next_deadline_ns() == well + 500 * MS
    drive.wait(60)
    assert (drive.now - well, drive.status.state, drive.usable) == (500 * MS, State.ACTIVE, True)


def test_stamps_that_were_ahead_may_go_back_once_they_are_right() -> None:
    drive = active_drive()
    for _ in range(5):
        drive.wait(100)
        drive.frame(late_ms=-400)
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.FUTURE_STAMP)
    drive.wait(100)
    drive.frame()
    assert drive.status.state is State.RECOVERING
    drive.wait(100)
    drive.frame(late_ms=350)  # another step back has no such excuse
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.STAMP_REGRESSION)


def test_the_fault_is_told_while_recovering() -> None:
    drive = failed_drive()
    drive.frame()
    assert (drive.status.state, drive.status.fault) == (State.RECOVERING, Fault.SILENT)


def test_a_relapse_while_recovering_fails_at_once_and_starts_over() -> None:
    drive = failed_drive()
    drive.run(0.4)
    assert drive.status.state is State.RECOVERING
    drive.wait(10)
    drive.reject()
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.DECODE_ERROR)
    drive.run(0.5)
    assert drive.status.state is State.RECOVERING
    drive.run(0.2)
    assert drive.status.state is State.ACTIVE


def usable_while_flapping(drive: Drive, off_ms: int, times: int) -> list[bool]:
    """At every moment of a sensor that is away for so long and then sends three frames, again and again."""
    usable = []
    for _ in range(times):
        drive.wait(off_ms)
        usable.append(drive.usable)
        for _ in range(3):
            drive.frame()
            usable.append(drive.usable)
            drive.wait(100)
    return usable


def test_a_flapping_sensor_stays_out() -> None:
    drive = active_drive()
    assert not any(usable_while_flapping(drive, off_ms=400, times=16))
    drive.run(1.0)
    assert drive.usable


def test_a_sensor_that_comes_and_goes_every_300_ms_goes_once() -> None:
    assert not any(usable_while_flapping(active_drive(), off_ms=300, times=50))


def test_every_relapse_doubles_the_time_that_a_sensor_is_kept_out() -> None:
    drive = active_drive()
    outages = []
    for _ in range(7):
        drive.wait(300)
        assert drive.status.state is State.FAILED
        came_back = drive.now
        while not drive.usable:
            drive.frame()
            if not drive.usable:
                drive.wait(100)
        outages.append((drive.now - came_back) / S)
    assert outages == pytest.approx([0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0], abs=0.11)


def test_a_failure_after_a_calm_time_is_no_relapse() -> None:
    drive = failed_drive()
    drive.run(0.7)
    assert drive.usable
    drive.run(1.6)
    drive.wait(300)
    assert drive.status.state is State.FAILED
    drive.run(0.7)
    assert drive.usable


def test_a_picture_that_is_dark_every_other_300_ms_fails_the_camera() -> None:
    drive = active_drive()
    black = np.zeros((48, 64, 3), np.uint8)
    states = []
    for index in range(24):
        drive.wait(100)
        drive.frame(black if index // 3 % 2 == 0 else None)
        states.append(drive.status.state)
    assert State.FAILED in states[:18]
    assert State.ACTIVE not in states[18:]


def test_a_slow_sensor_is_named_so_and_not_called_silent() -> None:
    drive = active_drive()
    drive.run(6.0, period_ms=300)
    assert (drive.status.state, drive.status.fault) == (State.SUSPECT, Fault.LOW_RATE)
    assert drive.usable
    assert drive.status.reason == "3.3 Hz instead of 10 Hz"
    drive.wait(481)
    assert drive.status.fault is Fault.SILENT
    drive.run(2.0)
    assert drive.usable


def test_an_outage_is_not_a_low_rate() -> None:
    drive = active_drive()
    drive.wait(1500)
    drive.run(0.7)
    assert drive.usable
    assert set(drive.status.fault_counts) == {Fault.SILENT}


def test_a_latched_fault_waits_for_a_person() -> None:
    drive = failed_drive(with_check(Fault.SILENT, latch=True))
    drive.run(5.0)
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.SILENT)
    drive.monitor.clear_faults(drive.now)
    assert (drive.status.state, drive.status.fault_counts) == (State.WAITING, {})
    drive.run(0.1)
    assert (drive.status.state, drive.usable) == (State.ACTIVE, True)


def test_a_latch_survives_a_clock_reset() -> None:
    drive = failed_drive(with_check(Fault.SILENT, latch=True))
    drive.now = START - 100 * S
    drive.run(5.0)
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.SILENT)


def test_clearing_the_faults_of_a_live_sensor_does_not_interrupt_it() -> None:
    drive = active_drive()
    drive.wait(50)
    drive.reject()
    drive.frame()
    drive.monitor.clear_faults(drive.now)
    assert (drive.status.state, drive.usable, drive.status.fault_counts) == (State.ACTIVE, True, {})


# ----------------------------------------------------------------------------------------- age, clock, switches


def test_an_old_frame_is_never_used_even_of_an_active_sensor() -> None:
    drive = Drive(config=HealthConfig(10.0, max_age_ms=120.0))
    drive.frame(late_ms=70)
    drive.wait(50)
    assert drive.usable
    drive.wait(0.01)
    assert (drive.status.state, drive.usable) == (State.ACTIVE, False)


@pytest.mark.parametrize(
    ("late_ms", "said"), [(56 * 8766 * 3.6e6, "before it was received"), (-7.2e6, "in the future")]
)
def test_a_stamp_of_another_clock_brings_the_word_that_mends_it(late_ms: float, said: str) -> None:
    drive = Drive()
    drive.frame(late_ms=late_ms)
    told = drive.status.reason
    assert told.endswith(f" h {said}: is a bag or a simulator playing (use_sim_time)?")


def test_a_clock_that_is_not_trusted_does_not_age_its_frames() -> None:
    drive = Drive(config=HealthConfig(10.0, checks={Fault.STALE_STAMP: CheckConfig(enabled=False, threshold=200.0)}))
    drive.frame(late_ms=1e6)
    assert (drive.usable, drive.status.age_ms) == (True, 0.0)
    drive.wait(300.1)
    assert not drive.usable


def test_a_future_stamp_does_not_keep_a_frame_young() -> None:
    drive = Drive()
    drive.frame(late_ms=-40)
    drive.wait(150)
    assert drive.status.age_ms == pytest.approx(150.0)


def test_a_clock_that_jumps_back_resets_the_monitor() -> None:
    drive = failed_drive()
    drive.now = START - 500 * S
    drive.frame()
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.ACTIVE, None, True)
    assert (drive.status.received, drive.status.since_ns) == (11, START - 500 * S)
    drive.run(2.0)
    assert drive.monitor.path[-2:] == [State.WAITING, State.ACTIVE]


def test_callbacks_that_overtake_each_other_do_not_reset() -> None:
    drive = active_drive()
    drive.monitor.on_time(drive.now - 20 * MS)
    drive.monitor.on_rejected(Fault.INCOMPATIBLE_QOS, "", drive.now - 400 * MS)
    assert drive.monitor.path == [State.WAITING, State.ACTIVE]
    assert drive.usable


def test_a_disabled_sensor_is_left_alone_until_it_is_enabled() -> None:
    drive = active_drive()
    drive.monitor.set_enabled(False, drive.now)
    drive.run(1.0)
    drive.reject()
    drive.wait(10_000)
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.DISABLED, None, False)
    assert drive.monitor.next_deadline_ns() is None
    drive.monitor.set_enabled(True, drive.now)
    assert drive.status.state is State.WAITING
    drive.run(0.1)
    assert (drive.status.state, drive.usable) == (State.ACTIVE, True)


def test_new_limits_hold_from_the_next_look() -> None:
    drive = active_drive()
    drive.monitor.reconfigure(HealthConfig(expected_rate_hz=5.0), drive.now)
    drive.wait(319)
    assert drive.status.state is State.ACTIVE
    drive.wait(2)
    assert drive.status.fault is Fault.SILENT


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"expected_rate_hz": -1.0}, "expected_rate_hz must be"),
        ({"expected_rate_hz": 3e9}, "expected_rate_hz must be"),
        ({"max_age_ms": 1e308}, "max_age_ms must be"),
        ({"max_age_ms": float("nan")}, "max_age_ms must be"),
        ({"startup_grace_s": -1.0}, "startup_grace_s must be"),
        ({"expected_rate_hz": 2.0, "max_age_ms": 300.0}, "max_age_ms 300 is less than the period"),
    ],
)
def test_impossible_expectations_are_refused_by_name(change: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        HealthConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": -1.0},
        {"threshold": float("inf")},
        {"fail_count": 0},
        {"recover_count": 0},
        {"recover_time_s": -0.1},
    ],
)
def test_impossible_checks_are_refused_by_name(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        CheckConfig(**change)  # type: ignore[arg-type]


def test_overridden_checks_leave_the_other_defaults() -> None:
    config = with_check(Fault.FROZEN, fail_count=9)
    assert config.check(Fault.FROZEN).fail_count == 9
    assert config.check(Fault.SILENT) == DEFAULT_CHECKS[Fault.SILENT]


# ---------------------------------------------------------------------------------------------- random histories


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens: allowed transitions only, no old or bad frame used, a fault told exactly when there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.config = HealthConfig(10.0, checks=ALL_ON)
        self.drive = Drive(Sensor.CAMERA, self.config)
        self.born: int | None = None
        """Acquisition of the newest frame as its age counts, None where it must not be used."""

    def _receive(self, data: NDArray | None, late_ms: float) -> None:
        self.drive.frame(data, late_ms)
        self.born = self.drive.now - max(0, round(late_ms * MS))

    @rule(late_ms=st.floats(0.0, 190.0))
    def good_frame(self, late_ms: float) -> None:
        self._receive(None, late_ms)

    @rule(late_ms=st.floats(201.0, 290.0))
    def late_frame(self, late_ms: float) -> None:
        self._receive(None, late_ms)

    @rule(late_ms=st.one_of(st.floats(301, 1e7), st.floats(-1e7, -51)))
    def misstamped_frame(self, late_ms: float) -> None:
        self._receive(None, late_ms)
        self.born = None

    @rule(level=st.sampled_from([0, 128, 255]))
    def worthless_frame(self, level: int) -> None:
        self._receive(np.full((48, 64, 3), level, np.uint8), 10.0)
        self.born = None

    @rule(fault=st.sampled_from(list(Fault)))
    def rejected(self, fault: Fault) -> None:
        self.drive.reject(fault)

    @rule(ms=st.floats(0.001, 400))
    def time_passes(self, ms: float) -> None:
        self.drive.wait(ms)

    @rule(ms=st.floats(0.001, 400))
    def time_passes_unwatched(self, ms: float) -> None:
        self.drive.now += round(ms * MS)

    @rule()
    def a_steady_second(self) -> None:
        for _ in range(10):
            self.drive.wait(100)
            self._receive(None, 10.0)

    @rule(back_s=st.floats(1, 1e4))
    def clock_jumps_back(self, back_s: float) -> None:
        self.drive.now -= round(back_s * S)
        self.drive.monitor.on_time(self.drive.now)
        self.born = None

    @rule(enabled=st.booleans())
    def switched(self, enabled: bool) -> None:
        self.drive.monitor.set_enabled(enabled, self.drive.now)

    @rule()
    def faults_cleared(self) -> None:
        self.drive.monitor.clear_faults(self.drive.now)

    @precondition(lambda self: self.drive.status.state is not State.DISABLED)
    @rule()
    def a_healthy_sensor_always_comes_back(self) -> None:
        for _ in range(90):  # longer than the longest time that a sensor which comes and goes is kept out
            self.drive.wait(100)
            self._receive(None, 10.0)
        assert self.drive.usable

    @invariant()
    def only_a_young_good_frame_is_used(self) -> None:
        if self.drive.usable:
            assert self.born is not None
            assert self.drive.now - self.born <= self.config.max_age_ms * MS

    @invariant()
    def the_status_is_consistent(self) -> None:
        status = self.drive.status
        assert (status.fault is not None) == (status.state in (State.SUSPECT, State.FAILED, State.RECOVERING))
        assert (status.fault is None) == (status.first_ns is None) == (status.last_ns is None)
        if status.fault is not None:
            assert status.reason
            assert (status.first_ns or 0) <= (status.last_ns or 0) <= self.drive.now
        assert status.state in (State.ACTIVE, State.SUSPECT) or not self.drive.usable

    @invariant()
    def the_next_deadline_lies_ahead_of_what_was_found(self) -> None:
        deadline = self.drive.monitor.next_deadline_ns()
        if deadline is not None:
            self.drive.monitor.on_time(max(deadline, self.drive.now))
            following = self.drive.monitor.next_deadline_ns()
            assert following is None or following > deadline
            self.drive.now = max(deadline, self.drive.now)


AnyHistory.TestCase.settings = settings(max_examples=25, stateful_step_count=25)
TestAnyHistory = AnyHistory.TestCase


# --- trust and timing ------------------------------------------------------------------------------------------------


def learning(hz: float, frames: int) -> Drive:
    """A sensor that nobody has set a rate for, after so many frames."""
    drive = Drive(config=HealthConfig())
    drive.run(frames / hz, 1000 / hz)
    return drive


@pytest.mark.parametrize("hz", [0.7, 3.0, 5.0, 10.0, 30.0, 120.0])
def test_a_rate_that_nobody_set_is_learnt(hz: float) -> None:
    drive = learning(hz, 40)
    assert (drive.status.state, drive.status.fault) == (State.ACTIVE, None)
    assert drive.status.expected_rate_hz == pytest.approx(hz, rel=0.01)
    drive.wait(max(1.6 * 1000 / hz, SILENCE_FLOOR_MS) + 2)
    assert (drive.status.state, drive.status.fault) == (State.FAILED, Fault.SILENT)


@pytest.mark.parametrize("hz", [1.5, 3.0, 10.0])
def test_a_sensor_with_a_rate_to_learn_is_not_called_silent_at_its_start(hz: float) -> None:
    drive = learning(hz, 20)
    assert drive.monitor.path == [State.WAITING, State.ACTIVE]


def test_a_sensor_that_becomes_slow_is_slow_and_one_that_becomes_fast_has_another_rate() -> None:
    drive = learning(10.0, 40)
    drive.run(20.0, period_ms=250)
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.SUSPECT, Fault.LOW_RATE, True)
    drive = learning(10.0, 40)
    drive.run(5.0, period_ms=33)
    assert drive.status.expected_rate_hz == pytest.approx(30.0, rel=0.05)
    assert drive.status.fault is None


def test_jitter_and_an_outage_do_not_change_what_was_learnt() -> None:
    drive = learning(10.0, 25)
    jitter = np.random.default_rng(1).uniform(-30, 30, 2000)
    for late_ms in np.diff(jitter):
        drive.wait(100 + late_ms)
        drive.frame()
    drive.wait(5000)
    drive.run(5.0)
    assert drive.status.expected_rate_hz == pytest.approx(10.0, rel=0.03)


@pytest.mark.parametrize(("held_up_ms", "every"), [(300, 4), (1000, 12), (5000, 60)])
def test_messages_that_come_in_bursts_are_no_higher_rate(held_up_ms: float, every: int) -> None:
    """As a loaded scheduler or a radio link delivers them: held up, then all at once."""
    drive = learning(10.0, 40)
    for number in range(4 * every):
        if number % every == 0:
            drive.wait(held_up_ms)
        burst = number % every < held_up_ms / 100
        drive.wait(2 if burst else 100)
        drive.frame()
    drive.run(10.0)
    assert drive.status.expected_rate_hz == pytest.approx(10.0, rel=0.03)
    assert (drive.status.state, drive.status.fault) == (State.ACTIVE, None)


@pytest.mark.parametrize("hz", [3.0, 4.0, 4.9])
def test_a_slow_sensor_where_a_rate_is_set_is_used_and_called_slow(hz: float) -> None:
    drive = Drive()
    drive.run(10.0, 1000 / hz)
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.SUSPECT, Fault.LOW_RATE, True)


@pytest.mark.parametrize("hz", [5.0, 6.0, 7.0])
def test_a_rate_that_is_tolerated_is_not_called_silence(hz: float) -> None:
    drive = Drive()
    drive.run(10.0, 1000 / hz)
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.ACTIVE, None, True)


def test_a_frame_that_is_late_and_young_is_used_and_said_to_be_late() -> None:
    drive = active_drive()
    for _ in range(20):
        drive.wait(100)
        drive.frame(late_ms=250)
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.SUSPECT, Fault.STALE_STAMP, True)
    for _ in range(5):
        drive.wait(100)
        drive.frame(late_ms=350)
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.FAILED, Fault.STALE_STAMP, False)


def test_a_late_frame_with_a_bad_picture_is_called_by_its_picture() -> None:
    drive = active_drive()
    for _ in range(10):
        drive.wait(100)
        drive.frame(np.zeros((48, 64, 3), np.uint8), late_ms=250)
    assert (drive.status.state, drive.status.fault, drive.usable) == (State.FAILED, Fault.DARK, False)


def test_what_timing_alone_has_failed_is_usable_in_need_and_what_content_has_is_not() -> None:
    drive = active_drive()
    drive.wait(1000)
    drive.frame()
    assert (drive.status.state, drive.usable) == (State.RECOVERING, False)
    assert drive.monitor.usable_in_need(drive.now)
    for _ in range(10):
        drive.wait(100)
        drive.frame(np.zeros((48, 64, 3), np.uint8))
    drive.wait(100)
    drive.frame()
    assert drive.status.state is State.RECOVERING
    assert not drive.monitor.usable_in_need(drive.now)


@pytest.mark.parametrize("lag_ms", [0, 800])
def test_no_sensor_is_blamed_for_a_computer_that_is_late(lag_ms: int) -> None:
    drive = active_drive()
    drive.monitor.set_lag(lag_ms * MS)
    drive.wait(700)
    drive.frame(late_ms=600)
    assert (drive.monitor.path == [State.WAITING, State.ACTIVE]) == (lag_ms == 800)
    drive.wait(2000)
    assert drive.status.fault is Fault.SILENT  # all the same
