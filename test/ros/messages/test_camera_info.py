"""camera_info -> intrinsics of the picture that is published: P, K with its lens, binning, region of interest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from camera_infos import camera_info

from anyseg_core.runtime.geometry.distortion import Distortion
from anyseg_core.runtime.geometry.projection import Rig, in_optical_frame, points_in_view, project_points
from anyseg_ros.messages.conversions import ConversionError, is_rectified, pinhole_camera
from anyseg_ros.messages.default_topics import camera_info_topic

K = [500.0, 0, 320, 0, 500, 240, 0, 0, 1]
POINT = np.array([[3.0, 0.5, 5.0, 1.0]], np.float32)


def info(**changes: Any) -> SimpleNamespace:
    return camera_info(**{"p": [380.0, 0, 330, 0, 0, 380, 236, 0, 0, 0, 1, 0], **changes})


def drawn(
    message: SimpleNamespace, *, rectified: bool = False, point: np.ndarray = POINT
) -> tuple[float, float] | None:
    """Column and row of a point in the camera's axes, as far as whole pixels tell."""
    camera = pinhole_camera(message, rectified=rectified)
    rows, columns, *_ = project_points(point, Rig(camera), camera.height, camera.width)
    return (float(columns[0]), float(rows[0])) if len(rows) else None


def by_opencv(d: list[float], *, fisheye: bool = False) -> tuple[float, float]:
    k = np.reshape(K, (3, 3))
    project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    point = POINT[None, :, :3].astype(float)
    arguments = (point, np.zeros(3), np.zeros(3), k, np.array(d))
    found = project(*arguments)[0].ravel()
    return float(found[0]), float(found[1])


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", [-0.3, 0.1, 0.0, 0.0, 0.0]),
        ("plumb_bob", [-0.2, 0.05, 0.001, -0.002, 0.01]),
        ("plumb_bob", [-0.2, 0.05, 0.001, -0.002]),
        ("rational_polynomial", [0.5, 0.1, 0.001, 0.002, 0.01, 0.8, 0.2, 0.02]),
        ("rational_polynomial", [0.5, 0.1, 0.001, 0.002, 0.01, 0.8, 0.2, 0.02, 0.001, 0.0, 0.002, 0.001]),
        ("rational_polynomial", [0.5, 0.1, 0.001, 0.002, 0.01, 0.8, 0.2, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ("equidistant", [0.1, 0.02, -0.01, 0.003]),
    ],
)
def test_points_fall_where_opencv_draws_them(model: str, d: list[float]) -> None:
    expected = by_opencv(d, fisheye=model == "equidistant")
    assert drawn(info(d=d, distortion_model=model)) == pytest.approx(expected, abs=0.6)


def test_a_raw_picture_has_k_and_its_lens_and_a_rectified_one_p() -> None:
    distorted = info(d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    raw, rectified = drawn(distorted), drawn(distorted, rectified=True)
    assert raw is not None
    assert rectified is not None
    assert (raw[0], rectified[0]) == (591, 558)


def test_a_rectified_picture_without_p_has_k_alone() -> None:
    assert drawn(info(p=[0.0] * 12, d=[-0.3, 0.1, 0, 0, 0]), rectified=True) == (620, 290)


def test_the_rotation_of_rectification_turns_the_points() -> None:
    angle = 0.02
    r = [np.cos(angle), 0, np.sin(angle), 0, 1, 0, -np.sin(angle), 0, np.cos(angle)]
    x, z = 3 * np.cos(angle) + 5 * np.sin(angle), -3 * np.sin(angle) + 5 * np.cos(angle)
    found = drawn(info(r=r), rectified=True)
    assert found is not None
    assert found[0] == int(380 * x / z + 330.5)


def test_the_right_camera_of_a_stereo_pair_sits_beside_the_left_one_s_frame() -> None:
    """P[3] = -fx * baseline, as sensor_msgs/CameraInfo has it: `P [X Y Z 1]'` is the pixel in both pictures."""
    p = np.array([[380.0, 0, 330, -380 * 0.12], [0, 380, 236, 380 * 0.01], [0, 0, 1, 0]])
    message = info(p=p.ravel().tolist())
    col, row, depth = p @ [*POINT[0, :3], 1.0]
    assert drawn(message, rectified=True) == (int(col / depth + 0.5), int(row / depth + 0.5))
    camera = pinhole_camera(message, rectified=True)
    assert camera.center == pytest.approx((0.12, -0.01))
    assert camera.resized(240, 320).center == camera.center
    assert pinhole_camera(message).center == (0.0, 0.0)  # P is of rectified pictures
    back = in_optical_frame(points_in_view(POINT, Rig(camera), camera.height, camera.width).xyz.T, camera)
    np.testing.assert_allclose(back, POINT[:, :3], atol=1e-6)


@pytest.mark.parametrize("column", [float("nan"), float("inf"), 380 * 1000.0])
def test_a_lens_far_beside_its_frame_is_refused(column: float) -> None:
    with pytest.raises(ConversionError, match=r"P puts the lens .* beside its frame"):
        pinhole_camera(info(p=[380.0, 0, 330, column, 0, 380, 236, 0, 0, 0, 1, 0]), rectified=True)


def test_binning_and_a_region_of_interest_move_the_pixels() -> None:
    roi = SimpleNamespace(x_offset=310, y_offset=200, width=320, height=240)
    assert drawn(info(roi=roi)) == (620 - 310, 290 - 200)
    camera = pinhole_camera(info(binning_x=2, binning_y=2))
    assert (camera.width, camera.height, camera.fx, camera.cx) == (320, 240, 250.0, 159.75)


@pytest.mark.parametrize("radius", np.linspace(1.2, 10, 8))
def test_points_beyond_the_reach_of_a_polynomial_are_not_folded_into_the_picture(radius: float) -> None:
    point = np.array([[radius * 5, 0.0, 5.0, 1.0]], np.float32)
    assert drawn(info(d=[-0.3, 0.0, 0.0, 0.0, 0.0]), point=point) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d": [0.1] * 4, "distortion_model": "thin_prism"}, "not known; known models"),
        ({"d": [0.1] * 3}, "none of distortion model"),
        ({"d": [float("nan")] * 5}, "must be finite"),
        ({"k": [0.0] * 9}, "must be finite, focal lengths positive"),
        ({"k": [float("inf"), 0, 1, 0, 1, 1, 0, 0, 1]}, "must be finite"),
        ({"k": [1e9, 0, 1, 0, 1e9, 1, 0, 0, 1]}, "do not belong"),
    ],
)
def test_what_cannot_be_applied_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        pinhole_camera(info(**changes))


def test_no_distortion_is_none_whatever_the_model_is_called() -> None:
    assert pinhole_camera(info(distortion_model="")).distortion is None


def test_a_distortion_at_the_axis_does_nothing() -> None:
    zero = np.zeros(1, np.float32)
    for model, d in (("equidistant", (0.1, 0, 0, 0)), ("plumb_bob", (0.1, 0, 0, 0, 0))):
        x, y = Distortion(model, d).apply(zero, zero)
        assert (x[0], y[0]) == (0, 0)


@pytest.mark.parametrize(
    ("image", "beside", "rectified"),
    [
        ("/camera/image_raw", "/camera/camera_info", False),
        ("/front/camera/image_rect/compressed", "/front/camera/camera_info", True),
        ("/depth/image_rect_raw/compressedDepth", "/depth/camera_info", True),
        ("image", "camera_info", False),
    ],
)
def test_camera_info_lies_beside_its_image(image: str, beside: str, rectified: bool) -> None:
    assert (camera_info_topic(image), is_rectified(image)) == (beside, rectified)
