"""The pipeline and the health monitors under random histories: frames, rejections, clock jumps, reconfigurations."""

from __future__ import annotations

import numpy as np
from fuzz.byte_source import ByteSource
from fuzz.pipeline_target import run_pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from anyseg_core.runtime.health.monitor import CheckConfig, Fault, HealthConfig, HealthMonitor, State
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_ros.pipeline.pipeline import CATCH_UP_NS, Pipeline, SyncConfig

S = 1_000_000_000


@settings(max_examples=200)
@given(st.binary(min_size=20, max_size=400))
def test_every_message_is_counted_and_every_step_is_allowed(data: bytes) -> None:
    run_pipeline(ByteSource(data))


def test_long_random_histories() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        run_pipeline(ByteSource(rng.bytes(400)))


def test_a_sensor_that_never_speaks_fails_whatever_its_fail_count() -> None:
    """Found by fuzzing: with a fail_count above 1 it stayed SUSPECT, and its deadline stayed in the past."""
    checks = {Fault.NEVER_RECEIVED: CheckConfig(fail_count=3)}
    monitor = HealthMonitor(Sensor.DEPTH, HealthConfig(checks=checks), S)
    monitor.on_time(6 * S)
    assert monitor.status(6 * S).state is State.FAILED
    assert monitor.next_deadline_ns() is None


RNG = np.random.default_rng(0)
CAMERA, DEPTH = DEFAULT_SENSORS[:2]


def pipeline(**checks: CheckConfig) -> Pipeline:
    """Of camera and depth at 10 Hz."""
    config = HealthConfig(10.0, checks={Fault(name): check for name, check in checks.items()})
    return Pipeline({CAMERA: config, DEPTH: config}, SyncConfig(), 0)


def frame(modality: Sensor, stamp_ns: int) -> SensorFrame:
    if modality is CAMERA:
        return SensorFrame(modality, RNG.integers(0, 255, (24, 32, 3), np.uint8), stamp_ns)
    return SensorFrame(modality, RNG.uniform(4, 5, (24, 32)).astype(np.float32), stamp_ns)


def test_two_clocks_a_second_apart_do_not_take_turns_for_ever() -> None:
    """Found by fuzzing: without stamp checks each mask made the other sensor's last frame look new again."""
    off = CheckConfig(enabled=False)
    unchecked = pipeline(stale_stamp=off, future_stamp=off, stamp_regression=off)
    unchecked.on_frame(frame(CAMERA, 100 * S), 100 * S)
    unchecked.on_frame(frame(DEPTH, 95 * S), 100 * S)
    jobs = [unchecked.poll(100 * S + step * S // 10) for step in range(1, 3) for _ in range(5)]
    assert len([job for job in jobs if job is not None]) <= 2


def test_a_node_that_was_held_up_reads_what_has_come_before_it_calls_a_sensor_silent() -> None:
    held_up = pipeline()
    held_up.on_frame(frame(CAMERA, 10 * S), 10 * S)
    held_up.poll(10 * S)
    assert held_up.next_wakeup_ns(10 * S) is not None
    late_ns = 10 * S + S // 2  # frames came meanwhile, and wait unread
    held_up.poll(late_ns)
    assert held_up.statuses(late_ns)[0].state is State.ACTIVE
    wakeup_ns = held_up.next_wakeup_ns(late_ns)
    assert wakeup_ns is not None
    assert late_ns < wakeup_ns <= late_ns + CATCH_UP_NS


def test_a_node_that_is_always_late_finds_silence_too() -> None:
    slow = pipeline()
    slow.on_frame(frame(CAMERA, 10 * S), 10 * S)
    now_ns = 10 * S
    for _ in range(4):
        slow.poll(now_ns)
        slow.next_wakeup_ns(now_ns)
        now_ns += S // 2
    assert slow.statuses(now_ns)[0].fault is Fault.SILENT
