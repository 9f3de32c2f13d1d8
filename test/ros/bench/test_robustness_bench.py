"""Robustness: every fault is done to its own sensor, and told apart from going without it."""

from __future__ import annotations

import numpy as np
import pytest

from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.bench.robustness import SCORED, BrokenSensor, FaultScore, StudentScore, _ways, record, table

RANDOM = np.random.default_rng(0)
FRAMES = {
    Sensor.CAMERA: SensorFrame(Sensor.CAMERA, RANDOM.integers(0, 255, (24, 32, 3), np.uint8), 0),
    Sensor.LIDAR: SensorFrame(Sensor.LIDAR, RANDOM.uniform(2, 9, (50, 4)).astype(np.float32), 0),
}


def test_a_fault_changes_its_sensor_alone_and_the_same_way_again() -> None:
    scored = [fault for fault in SCORED if fault.sensor in FRAMES]
    ways = dict(_ways(FRAMES, scored, 3))
    assert len(ways) == 1 + 2 * len(FRAMES) + 2 * len(scored)
    for fault in scored:
        everything, (alone,) = ways[fault, "all"], ways[fault, "alone"].values()
        assert not np.array_equal(alone.data, FRAMES[fault.sensor].data)
        assert alone is everything[fault.sensor]
        assert all(everything[other] is FRAMES[other] for other in FRAMES if other is not fault.sensor)
        np.testing.assert_array_equal(alone.data, fault.of(FRAMES[fault.sensor], 3).data)
    assert set(ways[Sensor.CAMERA, "without"]) == {Sensor.LIDAR}


def test_a_student_with_one_sensor_has_nothing_to_go_without() -> None:
    camera = {Sensor.CAMERA: FRAMES[Sensor.CAMERA]}
    assert (Sensor.CAMERA, "without") not in dict(_ways(camera, SCORED[:1], 0))


def test_what_is_lost_is_beside_what_is_left() -> None:
    fault = BrokenSensor(Sensor.CAMERA, "blur", "sigma_px", 4.0)
    found = StudentScore(50.0, {fault: FaultScore(44.0, 20.0, 35.0, 46.0)})
    columns = [list(column.cells) for column in table("mine", found).columns]
    assert columns == [["camera: blur sigma_px=4"], ["44.0 (-6.0)"], ["46.0"], ["20.0 (-15.0)"], ["35.0"]]
    result = Benchmark("test")
    record(result, "mine", found)
    assert [figure.samples[0] for figure in result.figures if figure.listed] == pytest.approx([50.0, 44.0, 20.0])
