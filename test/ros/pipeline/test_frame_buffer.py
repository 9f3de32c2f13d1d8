"""Which frames belong together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.pipeline.frame_buffer import KEPT_FRAMES, FrameBuffer


def frame(stamp_ns: int, modality: Sensor = Sensor.DEPTH) -> SensorFrame:
    return SensorFrame(modality, np.zeros((1, 1), np.float32), stamp_ns)


def filled(stamps: list[int]) -> FrameBuffer:
    buffer = FrameBuffer()
    for received, stamp in enumerate(stamps):
        buffer.put(frame(stamp), received)
    return buffer


def test_an_empty_buffer_has_nothing() -> None:
    buffer = FrameBuffer()
    assert buffer.newest(Sensor.DEPTH) is None
    assert buffer.nearest(Sensor.DEPTH, 0, 10**9) is None
    assert buffer.period_ns(Sensor.DEPTH) is None


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8), st.integers(0, 100), st.integers(0, 50))
def test_nearest_is_the_best_of_the_kept(stamps: list[int], wanted: int, limit: int) -> None:
    found = filled(stamps).nearest(Sensor.DEPTH, wanted, limit)
    differences = [abs(stamp - wanted) for stamp in stamps[-KEPT_FRAMES:]]
    if min(differences) > limit:
        assert found is None
    else:
        assert found is not None
        assert abs(found.frame.stamp_ns - wanted) == min(differences)


def test_newest_is_the_last_received() -> None:
    newest = filled([10, 30, 20]).newest(Sensor.DEPTH)
    assert newest is not None
    assert (newest.frame.stamp_ns, newest.received_ns) == (20, 2)


def test_period_is_the_shortest_gap() -> None:
    assert filled([0, 100, 300]).period_ns(Sensor.DEPTH) == 100
    assert filled([50]).period_ns(Sensor.DEPTH) is None


def test_drop_and_clear() -> None:
    buffer = filled([1, 2])
    buffer.put(frame(1, Sensor.CAMERA), 0)
    buffer.drop(Sensor.DEPTH)
    assert buffer.newest(Sensor.DEPTH) is None
    assert buffer.newest(Sensor.CAMERA) is not None
    buffer.clear()
    assert buffer.newest(Sensor.CAMERA) is None
