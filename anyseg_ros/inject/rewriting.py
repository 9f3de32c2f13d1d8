"""A message with other content in the same encoding: what a fault does to a frame, done to the message it came in.

Messages are those of rosbags; every field that the fault does not touch keeps its value, a point's other fields too.
Only pictures of YUV and Bayer leave as rgb8: their neighbouring pixels share colours, and would spoil each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.injection.degradations import Generator
from anyseg_core.runtime.full_scale import GREY_16_SCALES, FullScale
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, Sensor, SensorFrame, SensorKind
from anyseg_ros.messages import conversions
from anyseg_ros.messages.compressed_pictures import parse_format
from anyseg_ros.messages.sensor_messages import COMPRESSED_IMAGE, IMAGE, POINT_CLOUD

Message = Any
Spoil = Callable[[SensorFrame], SensorFrame]
Bytes = NDArray[np.uint8]

JPEG_QUALITY = 95
PAYLOAD_FIELDS = ("data", "events")
"""Names of a message's bytes: images and clouds, event packets."""
FOREIGN_ENCODING = "nv24"
"""What a camera driver may publish, and no converter here reads."""
FOREIGN_FORMAT = "h264"
_H264_START = b"\0\0\0\1"
_POLAR = MappingProxyType({"x": "range", "y": "azimuth", "z": "elevation"})
_BLOCK = 64
"""Bytes that break together where a message has no rows or points."""

_COLORS: Mapping[str, int | None] = {
    "rgb": None,
    "bgr": cv2.COLOR_RGB2BGR,
    "rgba": cv2.COLOR_RGB2RGBA,
    "bgra": cv2.COLOR_RGB2BGRA,
    "mono": cv2.COLOR_RGB2GRAY,
}
_FROM_RGB: Mapping[str, int | None] = MappingProxyType(
    {
        **{f"{name}{bits}": conversion for name, conversion in _COLORS.items() for bits in (8, 16)},
        "8UC3": cv2.COLOR_RGB2BGR,
        "8UC4": cv2.COLOR_RGB2BGRA,
        "8UC1": cv2.COLOR_RGB2GRAY,
    }
)


def rewritten(message: Message, modality: Sensor, msgtype: str, spoil: Spoil) -> Message:
    """The message with its frame spoiled. Raises ConversionError where it cannot be read.

    JPEG stays JPEG, of quality 95. 16UC1 has no NaN: such a depth is 0 there; inverse depth becomes 16UC1. A cloud that
    lost points has one row.
    """
    return _REWRITERS[modality.kind.family, msgtype](message, spoil)


def is_rewritable(modality: Sensor, msgtype: str) -> bool:
    """Whether `rewritten` knows such messages of that sensor."""
    return (modality.kind.family, msgtype) in _REWRITERS


def corrupted(message: Message, rng: Generator, fraction: float) -> Message:
    """Random bytes in `fraction` of the image rows, points, or else blocks of 64 bytes of the payload."""
    name, payload = payload_of(message)
    block = max(1, int(getattr(message, "step", 0) or getattr(message, "point_step", 0) or _BLOCK))
    hit = np.repeat(rng.random(-(-len(payload) // block)) < fraction, block)[: len(payload)]  # [bytes]
    payload = payload.copy()
    payload[hit] = np.frombuffer(rng.bytes(int(hit.sum())), np.uint8)
    return replace(message, **{name: payload})


def truncated(message: Message, keep: float) -> Message:
    """Only the fraction `keep` of the payload, from its start."""
    name, payload = payload_of(message)
    return replace(message, **{name: payload[: int(keep * len(payload))]})


def wrongly_encoded(message: Message) -> Message:
    """As a driver sends it that is set to a format nobody here reads."""
    if hasattr(message, "fields"):
        fields = [replace(field, name=_POLAR.get(field.name, field.name)) for field in message.fields]
        return replace(message, fields=fields)
    if hasattr(message, "format"):
        payload = message.data.copy()
        payload[: len(_H264_START)] = np.frombuffer(_H264_START, np.uint8)[: len(payload)]
        return replace(message, format=FOREIGN_FORMAT, data=payload)
    return replace(message, encoding=FOREIGN_ENCODING)


def payload_of(message: Message) -> tuple[str, Bytes]:
    """The name and the content of the field that holds the message's bytes."""
    name = next(name for name in PAYLOAD_FIELDS if hasattr(message, name))
    return name, getattr(message, name)


# --- images ----------------------------------------------------------------------------------------------------------


def _camera_image(message: Message, spoil: Spoil) -> Message:
    scale = FullScale(GREY_16_SCALES)
    rgb = spoil(conversions.camera_frame(message, scale=scale)).data
    encoding = message.encoding if message.encoding in _FROM_RGB else "rgb8"
    conversion = _FROM_RGB[encoding]
    pixels = rgb if conversion is None else cv2.cvtColor(rgb, conversion)
    if encoding.endswith("16"):
        pixels = np.rint(pixels * (scale.value / 255)).astype(np.uint16)
    return _with_pixels(replace(message, encoding=encoding), pixels)


def _compressed_camera_image(message: Message, spoil: Spoil) -> Message:
    rgb = spoil(conversions.compressed_camera_frame(message)).data
    given = rgb if parse_format(message.format).is_rgb else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return replace(message, data=_encoded(given, bytes(message.data[:2])))


def _depth_image(message: Message, spoil: Spoil) -> Message:
    depth_m = spoil(conversions.depth_frame(message)).data
    return _with_pixels(message, depth_m if message.encoding == "32FC1" else _millimetres(depth_m))


def _compressed_depth_image(message: Message, spoil: Spoil) -> Message:
    depth_m = spoil(conversions.compressed_depth_frame(message)).data
    if parse_format(message.format).raw == "32FC1":
        message = replace(message, format="16UC1; compressedDepth png")
    start = bytes(message.data).index(b"\x89PNG")  # compressed_depth_image_transport puts a header before it
    picture = _encoded(_millimetres(depth_m), b"\x89P")
    return replace(message, data=np.concatenate([message.data[:start], picture]))


def _event_image(message: Message, spoil: Spoil) -> Message:
    counts = spoil(conversions.event_frame(message)).data
    if message.encoding == "8UC2":
        return _with_pixels(message, counts)
    pixels = conversions.image_view(message, (message.encoding,)).copy()  # the third channel stays
    positive = 2 if message.encoding == "bgr8" else 0
    pixels[..., positive], pixels[..., 1] = counts[..., 0], counts[..., 1]
    return _with_pixels(message, pixels)


def _with_pixels(message: Message, pixels: NDArray[Any]) -> Message:
    """Rows without padding, little-endian; the size is that of the pixels."""
    pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    step = pixels.nbytes // len(pixels) if len(pixels) else 0
    height, width = pixels.shape[:2]
    data = pixels.reshape(-1).view(np.uint8)
    return replace(message, height=height, width=width, is_bigendian=0, step=step, data=data)


def _encoded(pixels: NDArray[Any], magic: bytes) -> Bytes:
    """As PNG, or as JPEG, whichever starts like this."""
    suffix, options = (".png", []) if magic.startswith(b"\x89") else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return cv2.imencode(suffix, pixels, options)[1].reshape(-1)


def _millimetres(depth_m: NDArray[Any]) -> NDArray[np.uint16]:
    """uint16; 0 for NaN and for what is out of range."""
    with np.errstate(invalid="ignore", over="ignore"):
        millimetres = np.rint(depth_m * np.float32(1000.0))
        return np.where((millimetres > 0) & (millimetres < 65536), millimetres, 0).astype(np.uint16)


# --- point clouds ----------------------------------------------------------------------------------------------------


def _cloud(message: Message, spoil: Spoil) -> Message:
    frame = conversions.lidar_frame(message)
    # The index of its point travels in a fifth column, so the other fields of those that are left can be found.
    index = np.arange(len(frame.data), dtype=np.int32).view(np.float32)
    after = spoil(replace(frame, data=np.column_stack([frame.data, index]))).data
    records = _records(message)  # [N, point_step]
    if len(after) < len(records):
        return _with_records(message, records[np.ascontiguousarray(after[:, 4]).view(np.int32)])
    records = records.copy()
    for column, name in enumerate(("x", "y", "z", conversions.intensity_field(message))):
        _set_field(records, message, name, after[:, column])
    return _with_records(message, records)


def _records(message: Message) -> Bytes:
    """uint8 [N, point_step], a view where rows have no padding."""
    width, height, point_step = int(message.width), int(message.height), int(message.point_step)
    row_step = int(message.row_step) if height > 1 else width * point_step
    rows = message.data[: height * row_step].reshape(height, row_step)
    return rows[:, : width * point_step].reshape(-1, point_step)


def _set_field(records: Bytes, message: Message, name: str, values: NDArray[Any]) -> None:
    """Write a column of points, integers at most as large as their field holds; a field that the cloud lacks has
    nothing to be written."""
    for field in message.fields:
        if field.name == name:
            dtype, offset = conversions.field_type(field, message)
            if dtype.kind in "iu":
                values = np.clip(np.nan_to_num(values), np.iinfo(dtype).min, np.iinfo(dtype).max)
            with np.errstate(invalid="ignore", over="ignore"):
                raw = values.astype(dtype)[:, None].view(np.uint8)  # [N, itemsize]
            records[:, offset : offset + dtype.itemsize] = raw


def _with_records(message: Message, records: Bytes) -> Message:
    """The same rows where every point is left; one row of what is left otherwise."""
    height, width = int(message.height), int(message.width)
    if len(records) != height * width:
        height, width = 1, len(records)
    step = int(message.point_step)
    return replace(
        message, height=height, width=width, row_step=width * step, data=np.ascontiguousarray(records).reshape(-1)
    )


_REWRITERS: Mapping[tuple[SensorKind, str], Callable[[Message, Spoil], Message]] = MappingProxyType(
    {
        (CAMERA, IMAGE): _camera_image,
        (CAMERA, COMPRESSED_IMAGE): _compressed_camera_image,
        (DEPTH, IMAGE): _depth_image,
        (DEPTH, COMPRESSED_IMAGE): _compressed_depth_image,
        (EVENT, IMAGE): _event_image,
        (LIDAR, POINT_CLOUD): _cloud,
    }
)
