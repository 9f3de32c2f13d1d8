"""Obstacles among labelled points, and the map of where one can drive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.points.ground_grid import BLOCKED, FREE, UNKNOWN, GridLimits, GroundGrid
from anyseg_core.runtime.points.labelled import LabelledPoints
from anyseg_core.runtime.points.obstacles import ObstacleLimits, obstacle_index
from anyseg_core.runtime.sensors import Sensor

ROAD, CAR, WALL = 0, 1, 2
SECOND = 1_000_000_000
UP_2M = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2.0], [0, 0, 0, 1]], float)
"""A sensor 2 m above the base."""


def cloud(points: Sequence[tuple[float, float, float]], labels: list[int], stamp_ns: int = 0) -> LabelledPoints:
    xyz = np.zeros((len(points), 4), np.float32)
    xyz[:, :3] = np.array(points, np.float32).reshape(-1, 3)
    confidence = np.where(np.array(labels) == UNLABELLED, 0, 128).astype(np.uint8)
    return LabelledPoints(
        Sensor.LIDAR, xyz, np.array(labels, np.uint8), confidence, (1, len(points)), stamp_ns, "lidar"
    )


def table(*labels: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(256), labels)


def kept(points: LabelledPoints, base: NDArray | None = None, **limits: float) -> list[int]:
    return obstacle_index(points, table(CAR, WALL), ObstacleLimits(**limits), base).tolist()  # type: ignore[arg-type]


def test_obstacles_are_points_of_the_chosen_classes() -> None:
    points = cloud([(5, 0, 0), (6, 0, 0), (7, 0, 0), (8, 0, 0)], [ROAD, CAR, WALL, UNLABELLED])
    assert kept(points) == [1, 2]
    assert kept(points, unlabelled=True) == [1, 2, 3]


def test_obstacles_within_range_height_and_confidence() -> None:
    points = cloud([(0.2, 0, 0), (5, 0, -1), (5, 1, 2), (80, 0, 0), (np.nan, 0, 0)], [CAR] * 5)
    assert kept(points) == [1, 2]
    assert kept(points, UP_2M) == [1]  # 1 m and 4 m above the base
    assert kept(points, UP_2M, max_height_m=9.0) == [1, 2]
    assert kept(points, min_confidence=0.6) == []


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.3, 2.0]))
def test_one_obstacle_is_left_in_a_voxel(seed: int, voxel_m: float) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-4, 4, (300, 3))
    points = cloud([tuple(p) for p in xyz], [CAR] * 300)
    index = kept(points, voxel_m=voxel_m, min_range_m=0.0)
    voxels = np.floor(points.points[:, :3] * np.float32(1 / voxel_m)).astype(int)
    assert len({tuple(v) for v in voxels[index]}) == len(index) == len({tuple(v) for v in voxels})


@pytest.mark.parametrize(
    "limits",
    [
        {"min_range_m": 9, "max_range_m": 3},
        {"voxel_m": -1},
        {"voxel_m": 1e-5},
        {"min_confidence": 2},
        {"max_height_m": -5},
    ],
)
def test_limits_that_cannot_be_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        ObstacleLimits(**limits)  # type: ignore[arg-type]


LIMITS = GridLimits(seconds=2.0, resolution_m=1.0, size_m=20.0)


def value(grid: GroundGrid, x: float, y: float, stamp_ns: int = 0, position: tuple[float, float] = (0, 0)) -> int:
    values, origin = grid.at(stamp_ns, position)
    return int(values[int(np.floor(y - origin[1])), int(np.floor(x - origin[0]))])


def test_road_is_free_the_rest_blocked_and_what_nobody_saw_unknown() -> None:
    grid = GroundGrid(LIMITS)
    points = cloud([(3.5, 1.5, -2), (5.5, 1.5, -1), (7.5, 0.5, 0)], [ROAD, CAR, UNLABELLED])
    grid.add(points, table(ROAD), UP_2M, np.eye(4))
    assert [value(grid, 3.5, 1.5), value(grid, 5.5, 1.5), value(grid, 7.5, 0.5)] == [FREE, BLOCKED, UNKNOWN]
    values, _ = grid.at(0, (0, 0))
    assert values.shape == (20, 20)
    assert (values != UNKNOWN).sum() == 2


def test_a_little_of_an_obstacle_blocks_its_cell() -> None:
    grid = GroundGrid(LIMITS)
    grid.add(cloud([(3.5, 0.5, -2)] * 5 + [(3.5, 0.5, -1)] * 3, [ROAD] * 5 + [CAR] * 3), table(ROAD), UP_2M, np.eye(4))
    assert value(grid, 3.5, 0.5) == BLOCKED


def test_cells_age_and_newer_clouds_count_more() -> None:
    grid = GroundGrid(LIMITS)
    grid.add(cloud([(3.5, 0.5, -1)], [CAR], 0), table(ROAD), UP_2M, np.eye(4))
    assert value(grid, 3.5, 0.5, SECOND) == BLOCKED
    for tenth in range(1, 15):  # the car has gone
        grid.add(cloud([(3.5, 0.5, -2)], [ROAD], tenth * SECOND // 10), table(ROAD), UP_2M, np.eye(4))
    assert value(grid, 3.5, 0.5, 3 * SECOND // 2) == FREE
    assert value(grid, 3.5, 0.5, 4 * SECOND) == UNKNOWN


def test_what_hangs_above_the_vehicle_counts_neither_way() -> None:
    grid = GroundGrid(LIMITS)
    grid.add(cloud([(3.5, 0.5, 3)], [WALL]), table(ROAD), UP_2M, np.eye(4))
    assert value(grid, 3.5, 0.5) == UNKNOWN


def test_the_grid_moves_with_the_vehicle_and_its_cells_stay() -> None:
    """A point 5 m ahead of a vehicle at (100, 50) that looks along y is at (100, 55), wherever the grid's middle is."""
    pose = np.array([[0, -1, 0, 100.0], [1, 0, 0, 50.0], [0, 0, 1, 0], [0, 0, 0, 1]])
    grid = GroundGrid(LIMITS)
    grid.add(cloud([(5.5, 0, -2)], [ROAD]), table(ROAD), UP_2M, pose)
    for position in ((100.0, 50.0), (103.4, 52.7)):
        assert value(grid, 100, 55.5, 0, position) == FREE
        values, _ = grid.at(0, position)
        assert (values != UNKNOWN).sum() == 1


def test_a_clock_that_was_set_back_forgets_the_map() -> None:
    grid = GroundGrid(LIMITS)
    grid.add(cloud([(3.5, 0.5, -1)], [CAR], 9 * SECOND), table(ROAD), UP_2M, np.eye(4))
    grid.add(cloud([(4.5, 0.5, -2)], [ROAD], SECOND), table(ROAD), UP_2M, np.eye(4))
    assert [value(grid, 3.5, 0.5, SECOND), value(grid, 4.5, 0.5, SECOND)] == [UNKNOWN, FREE]


def test_an_empty_cloud_makes_nothing_free() -> None:
    grid = GroundGrid(LIMITS)
    grid.add(cloud([], []), table(ROAD), UP_2M, np.eye(4))
    assert (grid.at(0, (0, 0)).values == UNKNOWN).all()


@pytest.mark.parametrize("field", ["seconds", "resolution_m", "size_m"])
def test_grid_limits_that_cannot_be_are_refused(field: str) -> None:
    for bad in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=field):
            replace(LIMITS, **{field: bad})
    with pytest.raises(ValueError, match="cells"):
        GridLimits(resolution_m=0.001, size_m=1000.0)
