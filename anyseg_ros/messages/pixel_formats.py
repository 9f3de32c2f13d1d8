"""The encodings of sensor_msgs/Image that are read here: how pixels lie in memory, and how they become RGB.

Names are those of sensor_msgs/image_encodings.hpp, and `nv12` of Isaac ROS. `8UC3` and `8UC4` are blue first, as rviz
shows them and OpenCV has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.full_scale import GREY_16_SCALES, FullScale
from anyseg_core.runtime.health.monitor import Fault
from anyseg_ros.messages.conversion_error import ConversionError

FULL_16_BITS = 65535.0
MIN_BAYER_SIZE = 3
"""Pixels that a mosaic must have, each way: smaller ones have no colour."""


class PixelFormat(NamedTuple):
    """Memory layout of one image encoding."""

    dtype: str
    channels: int
    to_rgb: int | None = None
    """OpenCV's conversion; None where the values are RGB already, or no colour."""
    block: tuple[int, int] = (1, 1)
    """(rows, columns) of pixels that share a colour: sizes are multiples of it."""
    planes: float = 1.0
    """Rows in memory for each of the picture: colour may follow below the grey plane."""


_YUYV = PixelFormat("u1", 2, cv2.COLOR_YUV2RGB_YUYV, block=(1, 2))
_UYVY = PixelFormat("u1", 2, cv2.COLOR_YUV2RGB_UYVY, block=(1, 2))
_BGR8, _BGRA8, _MONO8 = (
    PixelFormat("u1", 3, cv2.COLOR_BGR2RGB),
    PixelFormat("u1", 4, cv2.COLOR_BGRA2RGB),
    PixelFormat("u1", 1, cv2.COLOR_GRAY2RGB),
)
BAYER_TO_RGB: Mapping[str, int] = MappingProxyType(
    {  # OpenCV names a pattern by its second row
        "rggb": cv2.COLOR_BayerBG2RGB,
        "bggr": cv2.COLOR_BayerRG2RGB,
        "gbrg": cv2.COLOR_BayerGR2RGB,
        "grbg": cv2.COLOR_BayerGB2RGB,
    }
)
CAMERA_FORMATS: Mapping[str, PixelFormat] = MappingProxyType(
    {
        "rgb8": PixelFormat("u1", 3),
        "bgr8": _BGR8,
        "8UC3": _BGR8,
        "rgba8": PixelFormat("u1", 4, cv2.COLOR_RGBA2RGB),
        "bgra8": _BGRA8,
        "8UC4": _BGRA8,
        "mono8": _MONO8,
        "8UC1": _MONO8,
        "rgb16": PixelFormat("u2", 3),
        "bgr16": _BGR8._replace(dtype="u2"),
        "rgba16": PixelFormat("u2", 4, cv2.COLOR_RGBA2RGB),
        "bgra16": _BGRA8._replace(dtype="u2"),
        "mono16": _MONO8._replace(dtype="u2"),
        "yuv422": _UYVY,
        "uyvy": _UYVY,
        "yuv422_yuy2": _YUYV,
        "yuyv": _YUYV,
        "nv12": PixelFormat("u1", 1, cv2.COLOR_YUV2RGB_NV12, block=(2, 2), planes=1.5),
        "nv21": PixelFormat("u1", 1, cv2.COLOR_YUV2RGB_NV21, block=(2, 2), planes=1.5),
        **{
            f"bayer_{pattern}{8 * size}": PixelFormat(f"u{size}", 1, code)
            for size in (1, 2)
            for pattern, code in BAYER_TO_RGB.items()
        },
    }
)
"""Of cameras."""
DEPTH_FORMATS: Mapping[str, PixelFormat] = MappingProxyType(
    {"16UC1": PixelFormat("u2", 1), "32FC1": PixelFormat("f4", 1)}
)
"""Of depth: millimetres, or metres."""
EVENT_FORMATS: Mapping[str, PixelFormat] = MappingProxyType(
    {"rgb8": PixelFormat("u1", 3), "bgr8": PixelFormat("u1", 3), "8UC2": PixelFormat("u1", 2)}
)
"""Of event counts."""
PIXEL_FORMATS: Mapping[str, PixelFormat] = MappingProxyType({**EVENT_FORMATS, **DEPTH_FORMATS, **CAMERA_FORMATS})


def to_rgb(pixels: NDArray[Any], layout: PixelFormat, scale: FullScale | None = None) -> NDArray[np.uint8]:
    """Pixels as they lie in memory, [h, w] or [h, w, c] -> RGB uint8 [H, W, 3].

    `scale` learns what pictures of 16 bits have for white; None: from this one alone. Raises ConversionError for a
    mosaic that is too small to have colours.
    """
    is_bayer = layout.to_rgb in BAYER_TO_RGB.values()
    if is_bayer and min(pixels.shape) < MIN_BAYER_SIZE:
        raise ConversionError(Fault.WRONG_SIZE, f"a Bayer mosaic of {pixels.shape[1]}x{pixels.shape[0]} has no colours")
    if pixels.dtype == np.uint16:
        pixels = _to_8_bits(pixels, (scale or FullScale(GREY_16_SCALES)).learn(pixels) or FULL_16_BITS)
    return pixels if layout.to_rgb is None else np.asarray(cv2.cvtColor(pixels, layout.to_rgb), np.uint8)


def _to_8_bits(pixels: NDArray[np.uint16], white: float) -> NDArray[np.uint8]:
    """`white` and more = 255."""
    if white == FULL_16_BITS:  # the upper 8 bits, as cv_bridge has it
        return (pixels >> 8).astype(np.uint8)
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255.0 / white), np.uint8)
