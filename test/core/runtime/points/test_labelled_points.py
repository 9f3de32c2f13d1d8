"""Labels of points: projection, occlusion, depth images."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.distortion import Distortion
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, points_in_view
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.points.labelled import label_depth, label_scan
from anyseg_core.runtime.points.occlusion import Occlusion
from anyseg_core.runtime.sensors import Sensor, SensorFrame

CAMERA = PinholeCamera(640, 480, 320.0, 320.0, 319.5, 239.5)
ROOF = np.array([[0, -1, 0, 0.1], [0, 0, -1, -0.5], [1, 0, 0, -0.5], [0, 0, 0, 1]], float)
"""Vehicle axes to optical axes; the LiDAR is half a metre above and behind the camera."""
RIG = Rig(CAMERA, ROOF)
RNG = np.random.default_rng(0)


def scan(points: NDArray, shape: tuple[int, int] = (0, 0)) -> SensorFrame:
    cloud = np.zeros((len(points), 4), np.float32)
    cloud[:, :3] = points
    return SensorFrame(Sensor.LIDAR, cloud, 7, "lidar", cloud_shape=shape)


def reference_pixels(points: NDArray, rig: Rig, height: int, width: int) -> tuple[NDArray, NDArray, NDArray]:
    """Row, column and depth of each point by plain float64 equations; not a number outside the picture."""
    camera = rig.camera.resized(height, width)
    x, y, z = (rig.camera_from_lidar @ np.c_[points[:, :3].astype(float), np.ones(len(points))].T)[:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        col, row = camera.fx * x / z + camera.cx + 0.5, camera.fy * y / z + camera.cy + 0.5
    seen = (z > 0.1) & (col >= 0) & (col < width) & (row >= 0) & (row < height)
    return np.where(seen, row, np.nan), np.where(seen, col, np.nan), z


def picture(height: int = 480, width: int = 640) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return RNG.integers(0, 25, (height, width), np.uint8), RNG.integers(1, 256, (height, width), np.uint16).astype(
        np.uint8
    )


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(480, 640), (256, 256), (31, 1000)]))
def test_labels_are_those_of_an_independent_projection(seed: int, size: tuple[int, int]) -> None:
    """999 of 1000 points; what falls within a thousandth of a pixel of an edge may go either way."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-50, 50, (4000, 3))
    labels, confidence = picture(*size)
    cloud = label_scan(scan(points), labels, confidence, RIG, Occlusion(bound_m=1e6))
    row, col, _ = reference_pixels(points, RIG, *size)
    seen = np.isfinite(row)
    tie = seen & ((np.abs(row - np.round(row)) < 1e-3) | (np.abs(col - np.round(col)) < 1e-3))
    expected = np.full(len(points), UNLABELLED, np.uint8)
    expected[seen] = labels[row[seen].astype(int), col[seen].astype(int)]
    assert (cloud.labels == expected)[~tie].mean() >= 0.999
    np.testing.assert_array_equal(cloud.confidence == 0, cloud.labels == UNLABELLED)


def wall_and_ground(hidden_z: float, wall_z: float = 10.0) -> tuple[NDArray, NDArray[np.bool_]]:
    """Points [N, 3] in LiDAR axes and which of them are behind: a dense wall, 2 m wide, and points behind it."""
    left, up = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1.4, 0.2, 50))
    wall = np.stack([np.full(left.size, wall_z), left.ravel(), up.ravel()], axis=1)
    behind = np.stack([np.full(9, hidden_z), np.linspace(-0.5, 0.5, 9), np.full(9, -0.4)], axis=1)
    scale = np.array([1, hidden_z / wall_z, hidden_z / wall_z])
    optical = np.r_[wall, behind * scale]  # x forward, y left, z up, from the camera
    in_lidar = np.linalg.inv(ROOF) @ np.c_[-optical[:, 1], -optical[:, 2], optical[:, 0], np.ones(len(optical))].T
    return in_lidar[:3].T, np.arange(len(optical)) >= len(wall)


@pytest.mark.parametrize("bound_m", [0.5, 1.0, 3.0])
def test_what_is_further_behind_than_the_bound_gets_no_label(bound_m: float) -> None:
    labels = np.full((480, 640), 9, np.uint8)
    for gap, expected in ((1.1 * bound_m, UNLABELLED), (0.5 * bound_m, 9)):
        points, behind = wall_and_ground(10.0 + gap)
        cloud = label_scan(scan(points), labels, labels, RIG, Occlusion(bound_m=bound_m))
        assert set(cloud.labels[behind]) == {expected}
        assert (cloud.labels[~behind] == 9).all()
    assert not cloud.confidence[cloud.labels == UNLABELLED].any()


def test_ground_and_slanted_walls_hide_nothing() -> None:
    """Rings of a LiDAR on the ground, metres apart in depth, and a wall along the road."""
    azimuth, elevation = np.meshgrid(np.deg2rad(np.arange(-45, 45, 0.35)), np.deg2rad(np.linspace(-25, -3, 18)))
    distance = 2.1 / np.tan(-elevation)  # the LiDAR stands 2.1 m high, the camera 1.6 m
    ground = np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth), np.full_like(distance, -2.1)], axis=-1)
    cloud = label_scan(scan(ground.reshape(-1, 3)), *picture(), RIG)
    row, _, _ = reference_pixels(ground.reshape(-1, 3), RIG, 480, 640)
    assert (cloud.labels[np.isfinite(row)] != UNLABELLED).mean() > 0.97


def test_an_organised_cloud_stays_organised() -> None:
    points = RNG.uniform(-20, 20, (24, 3))
    assert label_scan(scan(points, (4, 6)), *picture(), RIG).shape == (4, 6)
    assert label_scan(scan(points, (4, 7)), *picture(), RIG).shape == (1, 24)  # points were taken away


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.full((5, 3), np.nan), np.full((5, 3), np.inf), -np.ones((1, 3))])
def test_clouds_without_a_visible_point_get_no_label(bad: NDArray) -> None:
    cloud = label_scan(scan(bad), *picture(), RIG)
    assert (cloud.labels == UNLABELLED).all()
    assert len(cloud.labels) == len(cloud.confidence) == len(bad)


@pytest.mark.parametrize(("mask", "stride"), [((48, 64), 1), ((96, 128), 4), ((30, 40), 3)])
def test_points_of_a_depth_image(mask: tuple[int, int], stride: int) -> None:
    """Each lies on the ray of its pixel and has the label of the same place; no measurement, no label."""
    depth = RNG.uniform(1, 30, (48, 64)).astype(np.float32)
    depth[::5] = [[0], [np.nan], [np.inf], [-1], [0], [np.nan], [np.inf], [0], [0], [0]]
    labels, confidence = picture(*mask)
    frame = SensorFrame(Sensor.DEPTH, depth, 3, "optical")
    cloud = label_depth(frame, labels, confidence, RIG, stride)
    rows, cols = cloud.shape
    camera = CAMERA.resized(48, 64)
    for at in range(0, rows * cols, 7):
        x, y, z = cloud.points[at]
        if not np.isfinite(z):
            assert cloud.labels[at] == UNLABELLED
            continue
        col, row = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        assert depth[round(row), round(col)] == z
        place = int((round(row) + 0.5) * mask[0] / 48), int((round(col) + 0.5) * mask[1] / 64)
        assert (cloud.labels[at], cloud.confidence[at]) == (labels[place], confidence[place])
    assert (cloud.labels == UNLABELLED).any()
    assert (cloud.source, cloud.stamp_ns, cloud.frame_id) == (Sensor.DEPTH, 3, "optical")


LENSES = {
    "barrel": ("plumb_bob", (-0.28, 0.07, 0.001, -0.002, 0.0)),
    "pincushion": ("plumb_bob", (0.2, 0.1, 0.0, 0.0)),
    "rational": ("rational_polynomial", (0.5, 0.1, 0.001, 0.002, 0.01, 0.8, 0.2, 0.02)),
    "fisheye": ("equidistant", (0.1, 0.02, -0.01, 0.003)),
}


@pytest.mark.parametrize("lens", LENSES)
def test_points_of_a_raw_depth_image_lie_where_its_lens_saw_them(lens: str) -> None:
    model, d = LENSES[lens]
    depth = RNG.uniform(2, 30, (480, 640)).astype(np.float32)
    rig = Rig(replace(CAMERA, distortion=Distortion(model, d)))
    cloud = label_depth(SensorFrame(Sensor.DEPTH, depth, 3, "optical"), *picture(), rig)
    x, y, z = cloud.points[np.isfinite(cloud.points[:, 2])].astype(float).T
    k = np.array([[CAMERA.fx, 0, CAMERA.cx], [0, CAMERA.fy, CAMERA.cy], [0, 0, 1]])
    points = np.stack([x, y, z], axis=-1)[:, None]
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    pixel = project(points, np.zeros(3), np.zeros(3), k, np.array(d))[0].reshape(-1, 2)
    rows, cols = np.mgrid[:480, :640]
    measured = np.isfinite(cloud.points[:, 2])
    assert measured.mean() > 0.95
    assert np.abs(pixel - np.stack([cols, rows], axis=-1).reshape(-1, 2)[measured]).max() < 0.05
    assert (cloud.labels[~measured] == UNLABELLED).all()


def test_points_of_a_rectified_depth_image_are_in_the_optical_frame() -> None:
    """`R` of camera_info turns the axes of its frame into those of the picture: it is undone."""
    turn = cv2.Rodrigues(np.array([0.0, np.radians(5.0), 0.0]))[0]
    rig = Rig(replace(CAMERA, rectification=tuple(turn.ravel().tolist())))
    depth = np.full((48, 64), 10, np.float32)
    cloud = label_depth(SensorFrame(Sensor.DEPTH, depth, 3, "optical"), *picture(48, 64), rig)
    view = points_in_view(cloud.points, rig, 48, 64)
    rows, cols = np.divmod(view.index, 64)
    assert len(rows) == 48 * 64
    assert np.abs(view.row - rows - 0.5).max() < 0.01
    assert np.abs(view.col - cols - 0.5).max() < 0.01
    assert np.allclose(view.xyz[2], 10, atol=1e-3)


def test_limits_of_occlusion_are_checked() -> None:
    with pytest.raises(ValueError, match="bound_m"):
        Occlusion(bound_m=0)
    with pytest.raises(ValueError, match="camera_height_m"):
        Occlusion(camera_height_m=float("nan"))
