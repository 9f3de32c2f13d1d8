"""Projection of LiDAR points into the camera image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from anyseg_core.runtime.projection import PinholeCamera, Rig, project_points

CAMERA = PinholeCamera(width=640, height=480, fx=400.0, fy=300.0, cx=319.5, cy=239.5)
FORWARD_LIDAR = np.array([[0, -1, 0, 0], [0, 0, -1, 0.2], [1, 0, 0, 0], [0, 0, 0, 1]], float)
"""Vehicle axes (x forward, y left, z up) to optical axes, mounted 0.2 m above the camera."""


def cloud(*points: tuple[float, float, float]) -> NDArray[np.float32]:
    return np.array([(*point, 1.0) for point in points], np.float32).reshape(-1, 4)


def test_a_point_falls_where_the_pinhole_equations_say() -> None:
    rows, cols, index, xyz = project_points(cloud((1.0, -0.5, 4.0)), Rig(CAMERA), 480, 640)
    assert (rows[0], cols[0], index[0]) == (round(239.5 - 300 / 8), round(319.5 + 400 / 4 + 1e-3), 0)
    np.testing.assert_allclose(xyz, [[1.0, -0.5, 4.0]])


def test_extrinsics_bring_points_into_the_camera_frame() -> None:
    _, _, _, xyz = project_points(cloud((10.0, 2.0, 1.0)), Rig(CAMERA, FORWARD_LIDAR), 480, 640)
    np.testing.assert_allclose(xyz, [[-2.0, -0.8, 10.0]], rtol=1e-6)


def test_points_come_far_to_near_and_keep_their_index() -> None:
    points = cloud((0, 0, 5.0), (0, 0, 50.0), (0, 0, 1.0))
    _, _, index, xyz = project_points(points, Rig(CAMERA), 480, 640)
    assert index.tolist() == [1, 0, 2]
    assert xyz[:, 2].tolist() == [50.0, 5.0, 1.0]


def test_what_the_camera_cannot_see_is_dropped() -> None:
    nan, inf = float("nan"), float("inf")
    unseen = cloud((0, 0, -5.0), (0, 0, 0.05), (50.0, 0, 1.0), (0, -50.0, 1.0), (nan, 0, 5.0), (0, 0, nan), (inf, 0, 5))
    rows, cols, index, xyz = project_points(unseen, Rig(CAMERA), 480, 640)
    assert rows.size == cols.size == index.size == 0
    assert xyz.shape == (0, 3)


@given(st.integers(8, 700), st.integers(8, 700), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_projection_follows_a_resize_of_the_image(height: int, width: int, u: float, v: float) -> None:
    """The point behind a place in the full image falls on the same place of the resized one."""
    x = (u * 640 - 0.5 - CAMERA.cx) / CAMERA.fx * 10
    y = (v * 480 - 0.5 - CAMERA.cy) / CAMERA.fy * 10
    rows, cols, _, _ = project_points(cloud((x, y, 10.0)), Rig(CAMERA), height, width)
    if rows.size:  # a place within rounding of the border may fall outside
        assert abs(rows[0] + 0.5 - v * height) <= 0.5 + 1e-2
        assert abs(cols[0] + 0.5 - u * width) <= 0.5 + 1e-2
    else:
        assert min(u, v, 1 - u, 1 - v) < 1e-4


@given(npst.arrays(np.float32, st.tuples(st.integers(0, 40), st.just(4)), elements=st.floats(width=32)))
def test_any_cloud_is_projected_inside_the_image(points: NDArray[np.float32]) -> None:
    rows, cols, index, xyz = project_points(points, Rig(CAMERA, FORWARD_LIDAR), 48, 64)
    assert ((rows >= 0) & (rows < 48) & (cols >= 0) & (cols < 64)).all()
    assert (np.diff(xyz[:, 2]) <= 0).all()
    assert len(set(index.tolist())) == len(index)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"width": 0}, "640|0x480"), ({"fx": float("nan")}, "fx"), ({"fy": -1.0}, "positive"), ({"cx": np.inf}, "finite")],
)
def test_impossible_intrinsics_are_refused(change: dict, named: str) -> None:
    good = {"width": 640, "height": 480, "fx": 400.0, "fy": 400.0, "cx": 320.0, "cy": 240.0}
    with pytest.raises(ValueError, match=named):
        PinholeCamera(**{**good, **change})


@pytest.mark.parametrize("transform", [np.eye(3), np.full((4, 4), np.nan)])
def test_impossible_extrinsics_are_refused(transform: NDArray) -> None:
    with pytest.raises(ValueError, match="camera_from_lidar"):
        Rig(CAMERA, transform)
