"""Raw arrays -> the uint8 image of each modality. Training and the robot call these same functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry import depth_geometry
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, project_points
from anyseg_core.runtime.model_card import DepthEncoding, EventEncoding, HhaEncoding, InputSpec, LidarEncoding
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, SensorFrame, SensorKind

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Size = tuple[int, int]
"""(height, width) in pixels."""


HHA_NORMAL_RADIUS, HHA_GRAVITY_RADIUS = 3, 10
"""Pixels around the middle one: windows of 7x7 and 21x21 (`patchSize` of Gupta's processDepthImage)."""


class InputError(ValueError):
    """A frame that cannot be encoded; the message says why."""


def camera_image(rgb: Image, size: Size) -> Image:
    """RGB uint8 [h, w, 3] -> uint8 [H, W, 3], area-averaged when it shrinks."""
    return _resize(rgb, size, cv2.INTER_AREA if rgb.shape[0] > size[0] else cv2.INTER_LINEAR)


def depth_image(depth_m: Floats, size: Size, encoding: DepthEncoding) -> Image:
    """Depth float32 [h, w] in metres -> uint8 [H, W, 3]: scaled depth, inverse depth, 255 where valid.

    Zero, negative, NaN and infinite depths are "no measurement" and give 0 in every channel.
    """
    depth = _resize(depth_m, size, cv2.INTER_NEAREST)  # [H, W]; nearest: edges must not be averaged
    measured = depth_geometry.measured_pixels(depth)
    near, far = encoding.near_m, encoding.far_m
    clipped = np.clip(np.where(measured, depth, far), near, far, dtype=np.float32)
    if encoding.scale == "log":
        scaled = _to_uint8(cv2.log(clipped / near), 1.0 / math.log(far / near))
    elif encoding.scale == "linear":
        scaled = _to_uint8(clipped - near, 1.0 / (far - near))
    else:
        scaled = _to_uint8(1.0 / near - 1.0 / clipped, 1.0 / (1.0 / near - 1.0 / far))
    inverse = _to_uint8(near / clipped)
    valid = measured.view(np.uint8) * np.uint8(255)
    return cast("Image", cv2.merge([scaled & valid, inverse & valid, valid]))


def hha_image(depth_m: Floats, size: Size, encoding: HhaEncoding, camera: PinholeCamera) -> Image:
    """Depth float32 [h, w] in metres -> uint8 [H, W, 3]: horizontal disparity, height above ground, angle with gravity.

    0 in all channels where there is no measurement, in the last one also where there is no normal. Fitted normals leave
    0 to what is not known; those of slopes need all neighbours, and give level floors 0, too.
    """
    depth = _resize(depth_m, size, cv2.INTER_NEAREST)  # [H, W]
    measured = depth_geometry.measured_pixels(depth)
    is_fitted = encoding.normals == "fitted"
    normals, gravity = _normals_and_gravity(depth, encoding, camera)
    angles = depth_geometry.angles_with_gravity(normals, gravity)
    safe = np.where(measured, depth, np.float32(1.0))
    heights = depth_geometry.heights_m(depth_geometry.camera_points(safe, camera), gravity, encoding.camera_height_m)
    span = encoding.max_height_m - encoding.min_height_m
    channels = [
        np.minimum(encoding.near_m / safe, 1.0),
        np.clip((heights - encoding.min_height_m) / span, 0.0, 1.0),
        np.nan_to_num(angles) / 180.0,
    ]
    known = [measured, measured, measured & np.isfinite(angles)]
    least = np.uint8(1 if is_fitted else 0)
    return cast(
        "Image",
        cv2.merge(
            [
                np.where(where, np.maximum(_to_uint8(channel.astype(np.float32)), least), np.uint8(0))
                for channel, where in zip(channels, known, strict=True)
            ]
        ),
    )


def _normals_and_gravity(
    depth: Floats, encoding: HhaEncoding, camera: PinholeCamera
) -> tuple[Floats, NDArray[np.float64]]:
    """Unit normals [H, W, 3] of the surfaces, and the unit vector of gravity."""
    if encoding.normals == "slopes":
        normals = surfaces = depth_geometry.surface_normals(depth, camera)
    else:
        normals = surfaces = depth_geometry.fitted_normals(depth, camera, HHA_NORMAL_RADIUS)
        if encoding.estimate_gravity:
            surfaces = depth_geometry.fitted_normals(depth, camera, HHA_GRAVITY_RADIUS)
    if encoding.estimate_gravity:
        return normals, depth_geometry.gravity_direction(surfaces)
    return normals, np.asarray(depth_geometry.LEVEL_GRAVITY)


def event_image(counts: Image, size: Size, encoding: EventEncoding) -> Image:
    """Event counts uint8 [h, w, 2] -> uint8 [H, W, 3]: positive, negative, 0 (the form of MUSES)."""
    amplified = cv2.convertScaleAbs(counts, alpha=encoding.gain)  # [h, w, 2], saturates at 255
    resized = _resize(amplified, size, cv2.INTER_AREA if counts.shape[0] > size[0] else cv2.INTER_NEAREST)
    return cast("Image", cv2.merge([*cv2.split(resized), np.zeros(size, np.uint8)]))


def lidar_image(points: Floats, size: Size, encoding: LidarEncoding, rig: Rig, full_scale: float = 0.0) -> Image:
    """Points float32 [N, 4] (x, y, z, intensity) -> uint8 [H, W, 3]: range, intensity, height.

    `full_scale` is the intensity of the strongest echo; 0 = `max_intensity` of the encoding. The nearest point wins a
    pixel. Points are projected at network resolution, so none is lost to a resize, unless the encoding says `drawn_at`.
    """
    drawn = _drawn_points(points, encoding.drawn_at or size, encoding, rig, full_scale or encoding.max_intensity)
    return cast("Image", _resize(drawn, size, cv2.INTER_NEAREST))


def _drawn_points(points: Floats, size: Size, encoding: LidarEncoding, rig: Rig, full_scale: float) -> Image:
    rows, cols, index, xyz = project_points(points, rig, *size)
    if len(rows) == 0:
        return np.zeros((*size, 3), np.uint8)
    x, y, z = xyz.T  # [K] each
    with np.errstate(over="ignore"):  # of torn points; infinitely far is clipped as well
        distance = np.clip(np.sqrt(x * x + y * y + z * z), 1.0, encoding.max_range_m)
    height = (encoding.camera_height_m - encoding.min_height_m) - y  # above the lowest height; y points down
    values = np.empty((len(rows), 3), np.float32)  # [K, 3]
    values[:, 0] = 1.0 - np.log(distance) / math.log(encoding.max_range_m)
    values[:, 1] = np.nan_to_num(points[index, 3]) / full_scale
    values[:, 2] = height / (encoding.max_height_m - encoding.min_height_m)
    return _splat(_to_uint8(np.clip(values, 0.0, 1.0)), rows, cols, size, encoding.point_radius)


def _splat(values: Image, rows: NDArray[np.int64], cols: NDArray[np.int64], size: Size, radius: int) -> Image:
    """Draw each value [K, 3] as a square; values come far to near, so later ones cover earlier ones.

    Ranks are drawn instead of values: the greatest rank within reach of a pixel is the nearest point whose
    square covers it, so one dilation draws all squares. float32 counts exactly up to 16 million points.
    """
    rank = np.zeros(size, np.float32)  # [H, W], 0 = no point
    rank[rows, cols] = np.arange(1, len(values) + 1, dtype=np.float32)
    side = 2 * radius + 1
    rank = cv2.dilate(rank, np.ones((side, side), np.uint8))
    packed = np.zeros((len(values) + 1, 4), np.uint8)  # 4 bytes a pixel: one 32-bit look-up instead of three
    packed[1:, :3] = values
    drawn = packed.view(np.uint32)[:, 0].take(rank.astype(np.intp))  # [H, W]
    return cast("Image", cv2.cvtColor(drawn.view(np.uint8).reshape(*size, 4), cv2.COLOR_BGRA2BGR))  # drops the padding


def encode_frame(frame: SensorFrame, spec: InputSpec, size: Size, rig: Rig | None = None) -> Image:
    """The uint8 [H, W, 3] network image of a frame.

    Raises InputError where the frame has no pixels, or points or depth for HHA come without a `rig`.
    """
    if not frame.kind.is_points and min(frame.data.shape[:2]) == 0:
        raise InputError(f"{frame.modality} frame is empty: shape {frame.data.shape}")
    try:
        return ENCODERS[frame.kind](frame, spec, size, rig)
    except InputError:
        raise
    except (ValueError, cv2.error) as error:  # nothing that a sensor sends may end the thread that makes the masks
        raise InputError(f"{frame.modality} frame of shape {frame.data.shape} cannot be encoded: {error}") from error


def _encode_camera(frame: SensorFrame, _spec: InputSpec, size: Size, _rig: Rig | None) -> Image:
    return camera_image(cast("Image", frame.data), size)


def _encode_depth(frame: SensorFrame, spec: InputSpec, size: Size, rig: Rig | None) -> Image:
    depth = cast("Floats", frame.data)
    if not isinstance(spec.encoding, HhaEncoding):
        return depth_image(depth, size, cast("DepthEncoding", spec.encoding))
    if rig is None:
        raise InputError("HHA of depth needs camera intrinsics: publish camera_info or set the parameters")
    return hha_image(depth, size, spec.encoding, rig.camera)


def _encode_events(frame: SensorFrame, spec: InputSpec, size: Size, _rig: Rig | None) -> Image:
    return event_image(cast("Image", frame.data), size, cast("EventEncoding", spec.encoding))


def _encode_lidar(frame: SensorFrame, spec: InputSpec, size: Size, rig: Rig | None) -> Image:
    if rig is None or rig.missing:
        raise InputError(
            "LiDAR points need camera intrinsics and extrinsics: publish camera_info or set the parameters"
        )
    full_scale = frame.intensity.full_scale if frame.intensity is not None else 0.0
    return lidar_image(cast("Floats", frame.data), size, cast("LidarEncoding", spec.encoding), rig, full_scale)


_Encoder = Callable[[SensorFrame, InputSpec, Size, "Rig | None"], Image]
ENCODERS: dict[SensorKind, _Encoder] = {
    CAMERA: _encode_camera,
    DEPTH: _encode_depth,
    EVENT: _encode_events,
    LIDAR: _encode_lidar,
}


def _resize(array: NDArray, size: Size, interpolation: int) -> NDArray:
    if array.shape[:2] == size:
        return array
    return cv2.resize(array, (size[1], size[0]), interpolation=interpolation)


def _to_uint8(values: Floats, scale: float = 1.0) -> Image:
    """values >= 0, of any shape: values * scale in [0, 1] -> 0..255, rounded and saturated."""
    return cast("Image", cv2.convertScaleAbs(values, alpha=255.0 * scale))
