"""Where the vehicle was between odometry's poses."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.poses import PoseHistory

MS = 1_000_000


def pose(x: float, yaw: float = 0.0) -> NDArray[np.float64]:
    found = np.eye(4)
    found[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    found[0, 3] = x
    return found


def at(poses: PoseHistory, stamp_ns: int) -> NDArray[np.float64]:
    found = poses.at(stamp_ns)
    assert found is not None
    return found


def test_a_pose_between_two() -> None:
    poses = PoseHistory()
    poses.add(0, pose(0.0))
    poses.add(100 * MS, pose(2.0, 0.4))
    np.testing.assert_allclose(at(poses, 25 * MS), pose(0.5, 0.1), atol=1e-9)
    np.testing.assert_allclose(at(poses, 100 * MS), pose(2.0, 0.4), atol=1e-9)


def test_the_nearest_pose_where_there_is_none_on_the_other_side() -> None:
    poses = PoseHistory()
    assert poses.at(0) is None
    poses.add(1000 * MS, pose(1.0))
    assert poses.at(1150 * MS) is not None
    assert poses.at(1250 * MS) is None
    assert poses.at(700 * MS) is None


@pytest.mark.parametrize(("back_ms", "expected"), [(50, 1.0), (5000, 9.0)])
def test_a_late_pose_is_dropped_and_a_clock_that_was_set_back_starts_anew(back_ms: int, expected: float) -> None:
    poses = PoseHistory()
    poses.add(10_000 * MS, pose(1.0))
    poses.add((10_000 - back_ms) * MS, pose(9.0))
    found = poses.at((10_000 - back_ms) * MS)
    assert found is not None
    assert found[0, 3] == expected
