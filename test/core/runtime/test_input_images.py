"""The uint8 network images: each channel against its definition, written out plainly in float64."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.input_images import camera_image, depth_image, encode_frame, event_image, lidar_image
from anyseg_core.runtime.model_card import ENCODINGS, DepthEncoding, EventEncoding, InputSpec, LidarEncoding
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

RIG = Rig(PinholeCamera(width=64, height=48, fx=50.0, fy=50.0, cx=31.5, cy=23.5))
SIZE = (48, 64)


def assert_levels(image: NDArray, expected: NDArray, tolerance: int = 1) -> None:
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - np.rint(expected)).max(initial=0) <= tolerance


def test_camera_is_area_averaged_when_it_shrinks() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    means = rgb.reshape(48, 2, 64, 2, 3).mean(axis=(1, 3))
    assert_levels(camera_image(rgb, SIZE), means)
    np.testing.assert_array_equal(camera_image(rgb, (96, 128)), rgb)
    assert camera_image(rgb[:20, :30], SIZE).shape == (*SIZE, 3)


@pytest.mark.parametrize("scale", ["log", "linear", "inverse"])
def test_depth_channels_follow_their_definition(scale: str) -> None:
    near, far = 0.5, 60.0
    depth = np.random.default_rng(0).uniform(0.1, 100, SIZE).astype(np.float32)
    d = np.clip(depth.astype(np.float64), near, far)
    scaled = {
        "log": np.log(d / near) / np.log(far / near),
        "linear": (d - near) / (far - near),
        "inverse": (1 / near - 1 / d) / (1 / near - 1 / far),
    }[scale]
    expected = 255 * np.stack([scaled, near / d, np.ones(SIZE)], axis=-1)
    assert_levels(depth_image(depth, SIZE, DepthEncoding.model_validate(_depth_encoding(scale, near, far))), expected)


def _depth_encoding(scale: str, near: float, far: float) -> dict:
    return {"scale": scale, "near_m": near, "far_m": far}


@pytest.mark.parametrize("missing", [0.0, -3.0, np.nan, np.inf, -np.inf])
def test_missing_depth_is_zero_in_every_channel(missing: float) -> None:
    depth = np.full(SIZE, 20.0, np.float32)
    depth[10:20] = missing
    image = depth_image(depth, SIZE, DepthEncoding())
    assert (image[10:20] == 0).all()
    assert (image[20:, :, 2] == 255).all()
    assert (image[20:, :, 0] > 0).all()


def test_depth_edges_are_not_averaged() -> None:
    depth = np.where(np.indices((96, 128))[1] < 65, 2.0, 40.0).astype(np.float32)
    assert len(np.unique(depth_image(depth, SIZE, DepthEncoding())[..., 0])) == 2


@given(npst.arrays(np.float32, (6, 8), elements=st.floats(width=32)))
def test_any_depth_gives_an_image_whose_invalid_pixels_are_black(depth: NDArray[np.float32]) -> None:
    image = depth_image(depth, (6, 8), DepthEncoding())
    valid = np.isfinite(depth) & (depth > 0)
    np.testing.assert_array_equal(image[..., 2], np.where(valid, 255, 0))
    assert (image[~valid] == 0).all()


@pytest.mark.parametrize("gain", [1.0, 12.5, 40.0, 300.0])
def test_events_are_amplified_and_averaged(gain: float) -> None:
    counts = np.random.default_rng(0).integers(0, 12, (96, 128, 2), np.uint8)
    amplified = np.minimum(counts * gain, 255.0)
    means = amplified.reshape(48, 2, 64, 2, 2).mean(axis=(1, 3))
    expected = np.concatenate([means, np.zeros((*SIZE, 1))], axis=-1)
    assert_levels(event_image(counts, SIZE, EventEncoding(gain=gain)), expected)


def test_no_events_give_a_black_image() -> None:
    assert not event_image(np.zeros((96, 128, 2), np.uint8), SIZE, EventEncoding()).any()


def reference_lidar(points: NDArray[np.float32], encoding: LidarEncoding) -> NDArray[np.float64]:
    """Squares drawn point by point, far to near."""
    image = np.zeros((*SIZE, 3))
    camera = RIG.camera
    for x, y, z, intensity in sorted(points.astype(np.float64).tolist(), key=lambda p: -p[2]):
        col, row = int(np.floor(50 * x / z + camera.cx + 0.5)), int(np.floor(50 * y / z + camera.cy + 0.5))
        if not (0 <= row < SIZE[0] and 0 <= col < SIZE[1]):
            continue
        distance = np.clip(np.sqrt(x * x + y * y + z * z), 1, encoding.max_range_m)
        up = encoding.camera_height_m - y
        value = [
            1 - np.log(distance) / np.log(encoding.max_range_m),
            intensity / encoding.max_intensity,
            (up - encoding.min_height_m) / (encoding.max_height_m - encoding.min_height_m),
        ]
        r = encoding.point_radius
        image[max(0, row - r) : row + r + 1, max(0, col - r) : col + r + 1] = 255 * np.clip(value, 0, 1)
    return image


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_lidar_draws_squares_and_the_nearest_point_wins(radius: int) -> None:
    # Coordinates on a grid that is offset from the pixel borders, so that rounding cannot move a point.
    rng = np.random.default_rng(radius)
    z = rng.permutation(np.linspace(2, 70, 300))
    pixels = rng.integers([-3, -3], [67, 51], (300, 2)) + 0.25
    xy = (pixels - [31.5, 23.5]) / 50.0 * z[:, None]
    points = np.column_stack([xy, z, rng.uniform(0, 300, 300)]).astype(np.float32)
    encoding = LidarEncoding(point_radius=radius)
    assert_levels(lidar_image(points, SIZE, encoding, RIG), reference_lidar(points, encoding))


@pytest.mark.parametrize("cloud", [np.zeros((0, 4)), np.full((9, 4), np.nan), np.full((9, 4), np.inf)])
def test_a_cloud_without_a_visible_point_gives_a_black_image(cloud: NDArray) -> None:
    assert not lidar_image(cloud.astype(np.float32), SIZE, LidarEncoding(), RIG).any()


@pytest.mark.parametrize(("intensity", "level"), [(np.nan, 0), (np.inf, 255), (-5.0, 0), (127.5, 128)])
def test_odd_intensities_are_clipped(intensity: float, level: int) -> None:
    image = lidar_image(np.array([[0, 0, 5, intensity]], np.float32), SIZE, LidarEncoding(), RIG)
    assert abs(int(image[..., 1].max()) - level) <= 1
    assert image[..., 0].max() > 0


def test_depth_and_lidar_of_the_same_scene_line_up() -> None:
    """A small near target falls on the same pixels by both ways into the network image."""
    depth = np.full((96, 128), 30.0, np.float32)
    depth[40:44, 90:94] = 3.0
    rig = Rig(PinholeCamera(width=128, height=96, fx=100.0, fy=100.0, cx=63.5, cy=47.5))
    rows, cols = np.indices(depth.shape)
    points = (
        np.stack([(cols - 63.5) / 100 * depth, (rows - 47.5) / 100 * depth, depth, depth], -1)
        .reshape(-1, 4)
        .astype(np.float32)
    )
    near_depth = depth_image(depth, SIZE, DepthEncoding())[..., 1] > 50
    near_lidar = lidar_image(points, SIZE, LidarEncoding(point_radius=0), rig)[..., 0] > 100
    np.testing.assert_array_equal(near_depth, near_lidar)
    assert near_depth[20:22, 45:47].all()
    assert near_depth.sum() == 4


@pytest.mark.parametrize("modality", DEFAULT_SENSORS)
def test_frames_are_never_written_to(modality: Sensor) -> None:
    rng = np.random.default_rng(0)
    shape = {"camera": (48, 64, 3), "depth": SIZE, "event": (48, 64, 2), "lidar": (50, 4)}[str(modality)]
    dtype = np.uint8 if modality in (Sensor.CAMERA, Sensor.EVENT) else np.float32
    data = rng.integers(1, 30, shape).astype(dtype)
    data.setflags(write=False)
    for size in (SIZE, (32, 32), (96, 128)):
        image = encode_frame(SensorFrame(modality, data, 0), _spec(modality), size, RIG)
        assert image.shape == (*size, 3)
        assert image.dtype == np.uint8


def _spec(modality: Sensor) -> InputSpec:
    return InputSpec(modality=modality, encoding=ENCODINGS[modality.kind][0]())


def test_one_thread_or_many_give_the_same_image() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    alone = camera_image(rgb, (256, 256))
    cv2.setNumThreads(before)
    np.testing.assert_array_equal(camera_image(rgb, (256, 256)), alone)
