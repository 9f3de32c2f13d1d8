"""Projection of LiDAR points into the camera image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, Twist, compensate_motion, project_points

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


# --- motion ---

numbers = st.floats(-3, 3)
vectors = st.tuples(numbers, numbers, numbers).map(np.array)


def pose_after(twist: Twist, seconds: float, steps: int = 20_000) -> NDArray[np.float64]:
    """world_from_sensor after a motion that began at the identity, by many short steps."""
    generator = np.zeros((4, 4))
    x, y, z = twist.angular
    generator[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
    generator[:3, 3] = twist.linear
    return np.linalg.matrix_power(np.eye(4) + generator * seconds / steps, steps)


def seen_from(pose: NDArray[np.float64], world: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the world in the axes of a sensor."""
    return (np.linalg.inv(pose) @ np.column_stack([world, np.ones(len(world))]).T).T[:, :3]


@settings(max_examples=30)
@given(vectors, vectors, st.floats(-1, 1))
def test_a_scan_from_a_moving_sensor_becomes_one_from_a_standing_one(
    linear: NDArray, angular: NDArray, start_s: float
) -> None:
    """Each point is measured from another place; compensated, all are where the sensor saw them at the moment."""
    twist = Twist(linear, angular)
    world = np.random.default_rng(0).uniform(-20, 20, (6, 3))
    seconds = start_s + np.linspace(0, 0.1, len(world))
    scan = [seen_from(pose_after(twist, t), point[None])[0] for t, point in zip(seconds, world, strict=True)]
    points = np.column_stack([scan, np.arange(len(world))]).astype(np.float32)
    compensated = compensate_motion(points, seconds, twist)
    np.testing.assert_allclose(compensated[:, :3], world, atol=2e-2)
    np.testing.assert_array_equal(compensated[:, 3], points[:, 3])
    assert compensated.dtype == np.float32


def test_compensation_brings_a_scan_to_the_cameras_moment() -> None:
    """At 20 m/s a post 10 m ahead, scanned 50 ms before the picture, is a metre nearer in it, and higher."""
    post = cloud((10.0, 1.0, 1.0))
    compensated = compensate_motion(post, np.array([-0.05]), Twist(np.array([20.0, 0, 0]), np.zeros(3)))
    np.testing.assert_allclose(compensated[0, :3], [9.0, 1.0, 1.0], atol=1e-6)
    before, after = (project_points(points, Rig(CAMERA, FORWARD_LIDAR), 480, 640) for points in (post, compensated))
    assert (before[0][0], after[0][0]) == (216, 213)
    assert (before[1][0], after[1][0]) == (280, 275)


@settings(max_examples=30)
@given(vectors, vectors)
def test_the_twist_between_two_poses_is_that_of_the_motion(linear: NDArray, angular: NDArray) -> None:
    twist = Twist(linear, angular)
    first = pose_after(Twist(np.array([5.0, 2, 1]), np.array([0.3, -0.2, 1.0])), 1.0)
    found = Twist.between(first, first @ pose_after(twist, 0.5), 0.5)
    np.testing.assert_allclose(found.linear, linear, atol=2e-2)
    np.testing.assert_allclose(found.angular, angular, atol=2e-3)


def test_a_sensor_ahead_of_the_turning_axle_moves_sideways() -> None:
    """2 m ahead on a vehicle that turns left at 1 rad/s: 2 m/s to the left, also in optical axes."""
    optical_from_base = FORWARD_LIDAR.copy()
    optical_from_base[:3, 3] = optical_from_base[:3, :3] @ [-2.0, 0.0, 0.0]
    twist = Twist(np.array([10.0, 0, 0]), np.array([0, 0, 1.0])).seen_from(optical_from_base)
    np.testing.assert_allclose(twist.linear, [-2.0, 0.0, 10.0], atol=1e-12)
    np.testing.assert_allclose(twist.angular, [0.0, -1.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("bad", [np.zeros(2), np.array([0, 0, np.nan])])
def test_impossible_twists_are_refused(bad: NDArray) -> None:
    with pytest.raises(ValueError, match="3 finite numbers"):
        Twist(bad, np.zeros(3))
    with pytest.raises(ValueError, match="must be > 0"):
        Twist.between(np.eye(4), np.eye(4), 0.0)


# --- recorded scans ---


def kitti_rig(folder: Path, width: int, height: int) -> Rig:
    """P2, R0_rect and Tr_velo_to_cam of KITTI: the left colour camera's image is rectified."""
    lines = (folder / "calib_object_style.txt").read_text().splitlines()
    rows = {name: np.array(text.split(), float) for name, _, text in (line.partition(":") for line in lines) if name}
    p2, rectify, velodyne = rows["P2"].reshape(3, 4), np.eye(4), np.eye(4)
    rectify[:3, :3], velodyne[:3] = rows["R0_rect"].reshape(3, 3), rows["Tr_velo_to_cam"].reshape(3, 4)
    camera = PinholeCamera(width, height, p2[0, 0], p2[1, 1], p2[0, 2], p2[1, 2])
    shift = np.eye(4)
    shift[:3, 3] = np.linalg.solve(p2[:, :3], p2[:, 3])  # the colour camera beside the reference camera
    return Rig(camera, shift @ rectify @ velodyne)


def test_recorded_scan_lies_on_what_the_camera_shows(recorded_data: Path) -> None:
    """KITTI: the points are where the calibration puts them, and their jumps in depth are on the picture's edges.

    Shifted sideways by more than a few pixels they fit it worse.
    """
    folder = recorded_data / "kitti"
    if not folder.is_dir():
        pytest.skip(f"no KITTI frames at {folder}; set ANYSEG_DATA")
    picture = cv2.imread(str(folder / "0000000000.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    points = np.fromfile(folder / "0000000000.bin", np.float32).reshape(-1, 4)
    height, width = picture.shape
    rig = kitti_rig(folder, width, height)
    rows, cols, index, xyz = project_points(points, rig, height, width)
    assert len(rows) > 15_000
    direct = np.column_stack([points[index, :3].astype(float), np.ones(len(index))]) @ rig.camera_from_lidar.T
    np.testing.assert_allclose(xyz, direct[:, :3], atol=1e-3)

    depth = np.full((height, width), np.nan, np.float32)
    depth[rows, cols] = xyz[:, 2]
    assert np.nanmin(depth) > 0.1
    edges = cv2.GaussianBlur(np.abs(cv2.Sobel(picture, cv2.CV_32F, 1, 0)), (0, 0), 1.5)
    scan = np.argsort(rows * width + cols)
    same_row = (np.diff(rows[scan]) == 0) & (np.diff(cols[scan]) < 8)
    jump = same_row & (np.abs(np.diff(np.log(xyz[scan, 2]))) > 0.25)
    at = rows[scan][1:][jump], cols[scan][1:][jump]

    def fit(shift: int) -> float:
        return float(edges[at[0], np.clip(at[1] + shift, 0, width - 1)].mean())

    assert jump.sum() > 100
    best = max(range(-24, 25), key=fit)
    assert abs(best) <= 4
