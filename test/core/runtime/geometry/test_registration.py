"""Lens distortion taken out of pictures, and depth brought into the camera's picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.distortion import EQUIDISTANT, PLUMB_BOB, RATIONAL, Distortion
from anyseg_core.runtime.geometry.projection import PinholeCamera
from anyseg_core.runtime.geometry.registration import Rectification, register_depth

K = np.array([[80.0, 0, 63.0], [0, 82.0, 47.0], [0, 0, 1]])
LENSES = {
    PLUMB_BOB: (-0.28, 0.07, 0.001, -0.0005, 0.0),
    RATIONAL: (-0.2, 0.05, 0.0, 0.001, 0.0, 0.1, 0.0, 0.0),
    EQUIDISTANT: (-0.01, 0.02, -0.01, 0.002),
}


def camera(model: str = "", width: int = 128, height: int = 96) -> PinholeCamera:
    lens = Distortion(model, LENSES[model]) if model else None
    return PinholeCamera(width, height, K[0, 0], K[1, 1], K[0, 2], K[1, 2], lens)


@pytest.mark.parametrize("model", LENSES)
def test_rectified_pictures_are_opencvs(model: str) -> None:
    raw = np.random.default_rng(3).integers(0, 256, (96, 128, 3), np.uint8)
    raw = np.asarray(cv2.GaussianBlur(raw, (0, 0), 2), np.uint8)
    coefficients = np.array(LENSES[model])
    maps = cv2.fisheye.initUndistortRectifyMap if model == EQUIDISTANT else cv2.initUndistortRectifyMap
    expected = cv2.remap(raw, *maps(K, coefficients, np.eye(3), K, (128, 96), cv2.CV_32FC1), cv2.INTER_LINEAR)
    difference = np.abs(Rectification(camera(model)).rectify(raw, averages=True).astype(int) - expected)
    assert np.percentile(difference, 99) <= 1


def test_a_lens_without_distortion_changes_nothing() -> None:
    raw = np.arange(96 * 128, dtype=np.float32).reshape(96, 128)
    made = Rectification(camera())
    assert np.array_equal(made.rectify(raw, averages=False), raw)
    assert made.camera == camera()


def test_distances_are_never_mixed() -> None:
    raw = np.where(np.arange(128) < 64, 2.0, 50.0).astype(np.float32) * np.ones((96, 1), np.float32)
    assert set(np.unique(Rectification(camera(PLUMB_BOB)).rectify(raw, averages=False))) <= {0.0, 2.0, 50.0}


def shifted(x_m: float = 0.0, z_m: float = 0.0) -> NDArray[np.float64]:
    transform = np.eye(4)
    transform[:3, 3] = x_m, 0.0, z_m
    return transform


def test_the_same_camera_at_the_same_place_sees_the_same() -> None:
    depth = np.random.default_rng(0).uniform(1, 30, (96, 128)).astype(np.float32)
    depth[10:20, 30:40] = 0.0
    registered = register_depth(depth, camera(), camera(), np.eye(4))
    assert np.isnan(registered[10:20, 30:40]).all()
    depth[10:20, 30:40] = np.nan
    np.testing.assert_allclose(registered, depth, rtol=1e-6)


def test_a_wall_is_shifted_by_its_disparity_and_seen_from_the_camera() -> None:
    wall = np.full((96, 128), np.nan, np.float32)
    wall[40:60, 50:70] = 4.0
    registered = register_depth(wall, camera(), camera(), shifted(x_m=0.5, z_m=1.0))
    rows, cols = np.nonzero(np.isfinite(registered))
    np.testing.assert_allclose(registered[rows, cols], 5.0, rtol=1e-6)
    # x = 0.5 m + 4 m (u - cx) / fx, seen from 5 m: u' - cx = 80 px * 0.5 / 5 + 0.8 (u - cx)
    assert (cols.min(), cols.max()) == (round(63 + 8 + 0.8 * (50 - 63)), round(63 + 8 + 0.8 * (69 - 63)))


def test_the_nearer_surface_hides_the_farther() -> None:
    depth = np.full((96, 128), 20.0, np.float32)
    depth[:, 64:] = 2.0  # 0.1 m to the left: the near half moves 4 pixels, the far one less than a pixel
    registered = register_depth(depth, camera(), camera(), shifted(x_m=-0.1))
    row = registered[48]
    assert row[61] == 2.0
    assert row[58] == 20.0


def test_a_finer_camera_has_no_holes() -> None:
    fine = PinholeCamera(320, 240, 200.0, 205.0, 159.5, 119.5)
    registered = register_depth(np.full((96, 128), 6.0, np.float32), camera(), fine, np.eye(4))
    assert np.isfinite(registered[10:-10, 10:-10]).all()
    np.testing.assert_allclose(registered[10:-10, 10:-10], 6.0)


def test_of_a_raw_camera_points_fall_where_the_lens_draws_them() -> None:
    depth = np.full((96, 128), np.nan, np.float32)
    depth[20, 110] = 3.0
    raw = camera(PLUMB_BOB)
    rows, cols = np.nonzero(np.isfinite(register_depth(depth, camera(), raw, np.eye(4))))
    point = np.array([[(110 - K[0, 2]) / K[0, 0] * 3, (20 - K[1, 2]) / K[1, 1] * 3, 3.0]])
    drawn, _ = cv2.projectPoints(point, np.zeros(3), np.zeros(3), K, np.array(LENSES[PLUMB_BOB]))
    assert (cols[0], rows[0]) == tuple(np.round(drawn.ravel()).astype(int))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    x_m=st.floats(-1, 1),
    z_m=st.floats(-1, 1),
    height=st.integers(2, 12),
    width=st.integers(2, 12),
)
def test_every_pixel_has_the_nearest_of_what_falls_on_it(
    seed: int, x_m: float, z_m: float, height: int, width: int
) -> None:
    depth = np.random.default_rng(seed).choice([0.0, np.nan, 1.5, 4.0, 9.0], (height, width)).astype(np.float32)
    own = PinholeCamera(width, height, 8.0, 8.0, (width - 1) / 2, (height - 1) / 2)
    registered = register_depth(depth, own, own, shifted(x_m, z_m))
    nearest: dict[tuple[int, int], float] = {}
    unsure = set()
    for row, col in zip(*np.nonzero(np.nan_to_num(depth) > 0), strict=True):
        distance = float(depth[row, col])
        z = distance + z_m
        if z <= 0.1:
            continue
        across = 8.0 * (x_m + distance * (col - own.cx) / 8.0) / z + own.cx + 0.5
        down = 8.0 * (distance * (row - own.cy) / 8.0) / z + own.cy + 0.5
        at = int(np.floor(down)), int(np.floor(across))
        if min(abs(down - round(down)), abs(across - round(across))) < 1e-4:  # on a pixel's border: rounding decides
            unsure |= {(at[0] + i, at[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
        nearest[at] = min(z, nearest.get(at, np.inf))
    for row, col in np.ndindex(registered.shape):
        if (row, col) not in unsure:
            assert registered[row, col] == pytest.approx(nearest.get((row, col), np.nan), nan_ok=True)
