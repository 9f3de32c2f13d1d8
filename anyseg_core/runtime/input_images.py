"""Raw arrays -> the uint8 image of each modality. Training and the robot call these same functions."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.modality import Modality, ModalityFrame
from anyseg_core.runtime.model_card import DepthEncoding, EventEncoding, InputSpec, LidarEncoding
from anyseg_core.runtime.projection import Rig, project_points

Image = NDArray[np.uint8]
Size = tuple[int, int]
"""(height, width) in pixels."""


class InputError(ValueError):
    """A frame that cannot be encoded; the message says why."""


def camera_image(rgb: Image, size: Size) -> Image:
    """RGB uint8 [h, w, 3] -> uint8 [H, W, 3], area-averaged when it shrinks."""
    return _resize(rgb, size, cv2.INTER_AREA if rgb.shape[0] > size[0] else cv2.INTER_LINEAR)


def depth_image(depth_m: NDArray[np.float32], size: Size, encoding: DepthEncoding) -> Image:
    """Depth float32 [h, w] in metres -> uint8 [H, W, 3]: scaled depth, inverse depth, 255 where valid.

    Zero, negative, NaN and infinite depths are "no measurement" and give 0 in every channel.
    """
    depth = _resize(depth_m, size, cv2.INTER_NEAREST)  # [H, W]; nearest: edges must not be averaged
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(depth) & (depth > 0)
    clipped = np.clip(np.where(valid, depth, encoding.far_m), encoding.near_m, encoding.far_m)
    if encoding.scale == "log":
        scaled = np.log(clipped / encoding.near_m) / np.log(encoding.far_m / encoding.near_m)
    else:
        scaled = (clipped - encoding.near_m) / (encoding.far_m - encoding.near_m)
    channels = np.stack([scaled, encoding.near_m / clipped, np.ones_like(clipped)], axis=-1)  # [H, W, 3]
    return _to_uint8(channels * valid[..., None])


def event_image(counts: Image, size: Size, encoding: EventEncoding) -> Image:
    """Event counts uint8 [h, w, 2] -> uint8 [H, W, 3]: positive, negative, 0 (the form of MUSES)."""
    amplified = np.minimum(counts.astype(np.float32) * encoding.gain, 255.0)  # [h, w, 2]
    resized = _resize(amplified, size, cv2.INTER_AREA if counts.shape[0] > size[0] else cv2.INTER_NEAREST)
    image = np.zeros((*size, 3), np.uint8)
    image[..., :2] = _rounded(resized)
    return image


def lidar_image(points: NDArray[np.float32], size: Size, encoding: LidarEncoding, rig: Rig) -> Image:
    """Points float32 [N, 4] (x, y, z, intensity) -> uint8 [H, W, 3]: range, intensity, height.

    The nearest point wins a pixel. Points are projected at network resolution, so none is lost to a resize.
    """
    height, width = size
    rows, cols, index, xyz = project_points(points, rig, height, width)
    distance = np.linalg.norm(xyz, axis=1)  # [K]
    up = encoding.camera_height_m - xyz[:, 1]
    span = encoding.max_height_m - encoding.min_height_m
    near_is_bright = 1.0 - np.log(np.clip(distance, 1.0, encoding.max_range_m)) / np.log(encoding.max_range_m)
    values = np.stack(
        [near_is_bright, points[index, 3] / encoding.max_intensity, (up - encoding.min_height_m) / span], axis=-1
    )  # [K, 3]
    return _splat(_to_uint8(np.nan_to_num(values)), rows, cols, size, encoding.point_radius)


def _splat(values: Image, rows: NDArray[np.int64], cols: NDArray[np.int64], size: Size, radius: int) -> Image:
    """Draw each value as a square; values come far to near, so later ones cover earlier ones."""
    height, width = size
    padded = np.zeros((height + 2 * radius, width + 2 * radius, 3), np.uint8)
    side = np.arange(2 * radius + 1)
    d_row, d_col = (offset.ravel() for offset in np.meshgrid(side, side, indexing="ij"))  # [S]
    target = (rows[:, None] + d_row) * padded.shape[1] + cols[:, None] + d_col  # [K, S]
    padded.reshape(-1, 3)[target.ravel()] = np.repeat(values, len(d_row), axis=0)
    return np.ascontiguousarray(padded[radius : radius + height, radius : radius + width])


def encode_frame(frame: ModalityFrame, spec: InputSpec, size: Size, rig: Rig | None = None) -> Image:
    """The uint8 [H, W, 3] network image of a frame.

    Raises InputError where the frame has no pixels, or LiDAR points come without a `rig`.
    """
    if frame.modality is not Modality.LIDAR and min(frame.data.shape[:2]) == 0:
        raise InputError(f"{frame.modality} frame is empty: shape {frame.data.shape}")
    return _ENCODERS[frame.modality](frame, spec, size, rig)


def _encode_lidar(frame: ModalityFrame, spec: InputSpec, size: Size, rig: Rig | None) -> Image:
    if rig is None:
        raise InputError("LiDAR points need camera intrinsics and extrinsics: publish camera_info or set the parameters")
    return lidar_image(frame.data, size, spec.encoding, rig)  # type: ignore[arg-type]


_Encoder = Callable[[ModalityFrame, InputSpec, Size, "Rig | None"], Image]
_ENCODERS: dict[Modality, _Encoder] = {
    Modality.CAMERA: lambda frame, spec, size, rig: camera_image(frame.data, size),  # type: ignore[arg-type]
    Modality.DEPTH: lambda frame, spec, size, rig: depth_image(frame.data, size, spec.encoding),  # type: ignore[arg-type]
    Modality.EVENT: lambda frame, spec, size, rig: event_image(frame.data, size, spec.encoding),  # type: ignore[arg-type]
    Modality.LIDAR: _encode_lidar,
}


def _resize(array: NDArray, size: Size, interpolation: int) -> NDArray:
    if array.shape[:2] == size:
        return array
    return cv2.resize(array, (size[1], size[0]), interpolation=interpolation)


def _to_uint8(unit: NDArray) -> Image:
    """[0, 1] -> 0..255, clipped and rounded."""
    return _rounded(np.clip(unit, 0.0, 1.0) * 255.0)


def _rounded(values: NDArray) -> Image:
    return (values + 0.5).astype(np.uint8)
