"""Lens distortion taken out of pictures, and depth brought into the camera's picture."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.distortion import EQUIDISTANT, PLUMB_BOB, RATIONAL, Distortion
from anyseg_core.runtime.geometry.projection import PinholeCamera
from anyseg_core.runtime.geometry.registration import EventRegistration, Rectification, register_depth

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


@settings(max_examples=30)
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


def seen_by_events(at_m: float, x_m: float, event_camera: PinholeCamera) -> NDArray[np.uint8]:
    """Counts of a single thing, 9x9 pixels, that is that far ahead and to the side of the event camera."""
    counts = np.zeros((event_camera.height, event_camera.width, 2), np.uint8)
    col, row = round(event_camera.fx * x_m / at_m + event_camera.cx), round(event_camera.cy)
    counts[row - 4 : row + 5, col - 4 : col + 5, 1] = 7
    return counts


def centre_of(counts: NDArray[np.uint8]) -> tuple[float, float]:
    rows, cols = np.nonzero(counts[..., 1])
    return float(rows.mean()), float(cols.mean())


@pytest.mark.parametrize(("at_m", "beside_px"), [(10.0, 0.0), (5.0, 4.0), (20.0, 2.0), (1e6, 4.0)])
def test_events_are_in_place_at_the_chosen_distance_and_as_far_beside_it_elsewhere_as_said(
    at_m: float, beside_px: float
) -> None:
    # The event camera sits 0.5 m to the right: what is straight ahead of the camera is 0.5 m to its left.
    registration = EventRegistration(camera(), camera(), shifted(x_m=-0.5), 10.0)
    _, col = centre_of(registration.register(seen_by_events(at_m, -0.5, camera())))
    assert registration.error_px(at_m) == pytest.approx(beside_px, rel=1e-3)
    assert abs(col - K[0, 2]) == pytest.approx(beside_px, abs=0.51)


@pytest.mark.parametrize("width", [64, 128, 384])
def test_events_of_another_resolution_keep_their_place_and_number(width: int) -> None:
    other = camera().resized(width * 96 // 128, width)
    counts = seen_by_events(10.0, 0.0, other)
    found = EventRegistration(other, camera(), np.eye(4), 10.0).register(counts)
    assert found.shape == (96, 128, 2)
    row, col = centre_of(found)
    assert (row, col) == (pytest.approx(K[1, 2], abs=1.5), pytest.approx(K[0, 2], abs=1.5))
    assert found[..., 1].mean() == pytest.approx(counts[..., 1].mean(), rel=0.2)
    assert not found[..., 0].any()


def test_a_distorted_lens_of_the_event_camera_is_taken_out() -> None:
    raw = np.repeat(np.random.default_rng(5).integers(0, 9, (96, 128, 1), np.uint8), 2, axis=2)
    found = EventRegistration(camera(PLUMB_BOB), camera(), np.eye(4), 3.0).register(raw)
    expected = Rectification(camera(PLUMB_BOB)).rectify(raw, averages=False)
    assert (found == expected).mean() > 0.9  # of pixels between two, either may be taken


def test_events_outside_the_view_are_none_and_what_cannot_be_is_refused() -> None:
    behind = shifted(z_m=-20.0)
    assert not EventRegistration(camera(), camera(), behind, 10.0).register(np.ones((96, 128, 2), np.uint8)).any()
    for distance_m in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="distance_m is"):
            EventRegistration(camera(), camera(), np.eye(4), distance_m)
    with pytest.raises(ValueError, match="rectified pictures only"):
        EventRegistration(camera(), camera(PLUMB_BOB), np.eye(4), 10.0)


def test_depth_of_a_turned_rectified_picture_is_registered_by_its_optical_frame() -> None:
    angle = 0.1
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    turned = replace(camera(), rectification=tuple(turn.ravel()))
    depth = np.full((96, 128), np.nan, np.float32)
    depth[47, 63] = 10.0  # straight ahead in the rectified axes
    rows, cols = np.nonzero(np.isfinite(register_depth(depth, turned, camera(), np.eye(4))))
    straight = turn.T @ (0.0, 0.0, 10.0)
    assert cols.mean() == pytest.approx(K[0, 0] * straight[0] / straight[2] + K[0, 2], abs=0.6)
    assert rows.mean() == pytest.approx(47.0, abs=0.6)
