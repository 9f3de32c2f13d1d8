"""Normals, gravity, heights and HHA, against scenes whose geometry is known."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.depth_geometry import (
    angles_with_gravity,
    camera_points,
    fitted_normals,
    gravity_direction,
    heights_m,
    surface_normals,
)
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.input_images import InputError, encode_frame, hha_image
from anyseg_core.runtime.model_card import HhaEncoding, InputSpec
from anyseg_core.runtime.sensors import Sensor, SensorFrame

CAMERA = PinholeCamera(width=160, height=120, fx=100.0, fy=110.0, cx=79.5, cy=59.5)
SIZE = (120, 160)
CAMERA_HEIGHT = 1.5


def plane(normal: NDArray, distance: float) -> NDArray[np.float32]:
    """Depth of the plane normal . P = -distance, 0 where a ray does not meet it in front of the camera."""
    rays = camera_points(np.ones(SIZE, np.float32), CAMERA).astype(float)
    with np.errstate(divide="ignore"):
        depth = -distance / (rays @ (normal / np.linalg.norm(normal)))
    return np.where((depth > 0) & (depth < 200), depth, 0).astype(np.float32)


def street(pitch_degrees: float = 0.0) -> NDArray[np.float32]:
    """Ground 1.5 m below a camera that looks down by `pitch_degrees`, and a wall across it 12 m ahead."""
    c, s = np.cos(np.radians(pitch_degrees)), np.sin(np.radians(pitch_degrees))
    ground, wall = plane(np.array([0, -c, -s]), CAMERA_HEIGHT), plane(np.array([0, s, -c]), 12.0)
    ground[ground == 0] = np.inf
    wall[wall == 0] = np.inf
    return np.minimum(ground, wall)


@settings(max_examples=30)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(1, 20), st.integers(1, 3))
def test_normals_of_a_plane_are_exact(x: float, y: float, distance: float, radius: int) -> None:
    normal = np.array([x, y, -1.0]) / np.linalg.norm([x, y, 1.0])
    depth = plane(normal, distance)
    normals = surface_normals(depth, CAMERA, radius)
    known = np.isfinite(normals).all(axis=-1)
    inside = np.zeros(SIZE, bool)
    inside[radius:-radius, radius:-radius] = True
    missing = cv2.dilate((depth == 0).astype(np.uint8), np.ones((2 * radius + 1,) * 2, np.uint8)) > 0
    np.testing.assert_array_equal(known, inside & ~missing)
    np.testing.assert_allclose(normals[known], np.broadcast_to(normal, normals[known].shape), atol=2e-3)


@settings(max_examples=30)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(1, 20), st.sampled_from([1, 3, 10]), st.floats(0, 0.9))
def test_fitted_normals_of_a_plane_with_holes_are_exact(
    x: float, y: float, distance: float, radius: int, missing: float
) -> None:
    normal = np.array([x, y, -1.0]) / np.linalg.norm([x, y, 1.0])
    depth = plane(normal, distance)
    depth[np.random.default_rng(0).random(SIZE) < missing] = 0
    normals = fitted_normals(depth, CAMERA, radius)
    known = np.asarray(np.isfinite(normals).all(axis=-1))
    measured = cv2.boxFilter((depth > 0).astype(np.float32), -1, (2 * radius + 1,) * 2, normalize=False)
    assert not known[measured < 2.5].any()
    enough = measured > 2.5 * (2 * radius + 1)  # they cannot all lie in a line
    assert known[enough].all()
    error = np.abs(normals - normal).max(axis=-1)
    assert error[enough].max(initial=0.0) < 5e-4
    assert error[known].max(initial=0.0) < 3e-2  # a few that nearly do


def test_measurements_in_a_line_give_no_normal() -> None:
    for rows, columns in ((slice(50, 51), slice(None)), (slice(None), slice(50, 51))):
        depth = np.zeros(SIZE, np.float32)
        depth[rows, columns] = 3.0
        assert np.isnan(fitted_normals(depth, CAMERA, 3)).all()
    assert np.isnan(fitted_normals(np.diag(np.full(120, 3.0, np.float32)), CAMERA, 3)).all()


def test_larger_windows_find_surfaces_in_noise() -> None:
    """1 mm at 2 m, as of a depth camera: over 3x3 pixels the floor cannot be told from a ramp."""
    noisy = plane(np.array([0.3, -1.0, -0.2]), 1.0) + np.random.default_rng(0).normal(0, 1e-3, SIZE).astype(np.float32)
    noisy[(noisy < 0.1) | (noisy > 3)] = 0
    normal = np.array([0.3, -1.0, -0.2]) / np.linalg.norm([0.3, -1.0, -0.2])

    def error(normals: NDArray[np.float32]) -> float:
        return float(np.degrees(np.arccos(np.clip(np.nanmedian(normals @ normal), -1, 1))))

    assert error(fitted_normals(noisy, CAMERA, 3)) < 0.25 * error(surface_normals(noisy, CAMERA))


def test_heights_and_angles_of_a_street() -> None:
    depth = street()
    gravity = np.array([0.0, 1.0, 0.0])
    heights = heights_m(camera_points(depth, CAMERA), gravity, CAMERA_HEIGHT)
    angles = angles_with_gravity(surface_normals(depth, CAMERA), gravity)
    ground = np.isclose(heights, 0.0, atol=1e-3)
    assert 0.2 < ground.mean() < 0.6
    assert np.nanmedian(angles[ground]) < 1.0
    assert abs(np.nanmedian(angles[~ground]) - 90.0) < 1.0
    assert abs(heights[0, 0] - (CAMERA_HEIGHT + 12.0 * 59.5 / 110.0)) < 1e-3


@pytest.mark.parametrize("pitch", [-20.0, 0.0, 5.0, 30.0])
def test_gravity_is_found_from_the_surfaces(pitch: float) -> None:
    noisy = street(pitch) * np.random.default_rng(0).normal(1, 1e-4, SIZE).astype(np.float32)
    gravity = gravity_direction(surface_normals(noisy, CAMERA))
    expected = [0.0, np.cos(np.radians(pitch)), np.sin(np.radians(pitch))]
    assert np.degrees(np.arccos(np.clip(gravity @ expected, -1, 1))) < 1.5


def test_gravity_of_an_image_without_depth_is_the_initial_one() -> None:
    normals = surface_normals(np.zeros(SIZE, np.float32), CAMERA)
    np.testing.assert_allclose(gravity_direction(normals, (0.0, 2.0, 0.0)), [0.0, 1.0, 0.0])


@pytest.mark.parametrize("normals", ["slopes", "fitted"])
@pytest.mark.parametrize(("pitch", "estimate"), [(0.0, False), (0.0, True), (15.0, True)])
def test_hha_channels_follow_their_definition(
    pitch: float, estimate: bool, normals: Literal["slopes", "fitted"]
) -> None:
    depth = street(pitch)
    depth[50:55, 60:65] = 0.0
    encoding = HhaEncoding(camera_height_m=CAMERA_HEIGHT, estimate_gravity=estimate, normals=normals)
    image = hha_image(depth, SIZE, encoding, CAMERA)
    measured = depth > 0
    disparity = np.divide(1.0, depth, out=np.zeros_like(depth), where=measured)
    assert np.abs(image[..., 0] - 255 * disparity.clip(0, 1)).max() <= 1
    ground = image[100, 80]
    assert abs(int(ground[1]) - 255 / 8) <= 2  # height 0 between -1 and 7 m
    assert ground[2] <= 2
    wall = image[20, 30]
    assert abs(int(wall[2]) - 255 / 2) <= 2
    assert not image[50:55, 60:65].any()


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["slopes", "fitted"]))
def test_any_depth_gives_an_image_that_is_black_where_nothing_was_measured(
    seed: int, estimate: bool, normals: Literal["slopes", "fitted"]
) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.choice([0.0, -1.0, np.nan, np.inf, 1e-30, 3.0, 1e30], (12, 16)).astype(np.float32)
    image = hha_image(depth, (12, 16), HhaEncoding(estimate_gravity=estimate, normals=normals), CAMERA)
    assert image.shape == (12, 16, 3)
    measured = np.isfinite(depth) & (depth > 0)
    assert not image[~measured].any()
    assert normals == "slopes" or (image[measured][:, :2] > 0).all()


def test_with_fitted_normals_a_floor_is_no_unknown_angle() -> None:
    depth = street()
    depth[100:110, 60:100] = 0  # a hole in the floor
    encoding = HhaEncoding(camera_height_m=CAMERA_HEIGHT, normals="fitted")
    image = hha_image(depth, SIZE, encoding, CAMERA)
    assert image[80, 80, 2] == 1
    assert not image[105, 80].any()
    alone = np.zeros(SIZE, np.float32)
    alone[60, 80] = 3.0
    assert (hha_image(alone, SIZE, encoding, CAMERA)[60, 80] > 0).tolist() == [True, True, False]


def test_a_card_that_does_not_say_how_normals_were_found_keeps_the_old_windows() -> None:
    said = InputSpec.model_validate({"modality": "depth", "encoding": {"kind": "hha", "normals": "fitted"}})
    unsaid = InputSpec.model_validate({"modality": "depth", "encoding": {"kind": "hha"}})
    assert (said.encoding, unsaid.encoding) == (HhaEncoding(normals="fitted"), HhaEncoding(normals="slopes"))


def test_hha_is_an_encoding_of_a_card() -> None:
    spec = InputSpec.model_validate(
        {"modality": "depth", "encoding": {"kind": "hha", "camera_height_m": CAMERA_HEIGHT}}
    )
    frame = SensorFrame(Sensor.DEPTH, street(), 0)
    image = encode_frame(frame, spec, (60, 80), Rig(CAMERA))
    assert abs(int(image[50, 40, 1]) - 255 / 8) <= 2
    with pytest.raises(InputError, match="camera_info"):
        encode_frame(frame, spec, (60, 80), None)
    with pytest.raises(ValueError, match="camera cannot be encoded as 'hha'"):
        InputSpec.model_validate({"modality": "camera", "encoding": {"kind": "hha"}})
    with pytest.raises(ValueError, match="min_height_m"):
        HhaEncoding(min_height_m=8.0)
