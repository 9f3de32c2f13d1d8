"""ROS messages <-> arrays, without rclpy, cv_bridge or sensor_msgs_py.

Reading takes any object with the message's fields, so rosbags' messages are read by the same code. Arrays are views
of the message's bytes wherever the encoding allows it: never write to them.

| modality | message | encodings |
|---|---|---|
| camera | Image | every one of `pixel_formats.CAMERA_FORMATS`: colour, grey, 16 bits, YUV, Bayer |
| camera | CompressedImage | JPEG, PNG, also of a Bayer mosaic or of 16 bits |
| depth | Image | 16UC1 (mm), 32FC1 (m) |
| depth | CompressedImage | 16-bit PNG of 16UC1, with or without compressedDepth's header; of 32FC1 with it |
| event | Image | rgb8, bgr8 (red = positive, green = negative counts), 8UC2 (positive, negative) |
| lidar | PointCloud2 | any field order, offset and datatype of x, y, z and one of INTENSITY_FIELDS (0 without) |
"""

from __future__ import annotations

import array
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.full_scale import FullScale
from anyseg_core.runtime.geometry.distortion import Distortion
from anyseg_core.runtime.geometry.projection import PinholeCamera
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.image_files import ImageSizeError, announced_size, check_picture_size
from anyseg_core.runtime.sensors import Intensity, Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.messages.compressed_pictures import metres_of, rgb_of
from anyseg_ros.messages.conversion_error import ConversionError
from anyseg_ros.messages.pixel_formats import (
    CAMERA_FORMATS,
    DEPTH_FORMATS,
    EVENT_FORMATS,
    PIXEL_FORMATS,
    to_rgb,
)

Message = Any
"""A ROS message: of rclpy, of rosbags, or anything else with its fields."""

MAX_FOCAL_RATIO = 1000
"""Of focal length and image size, either way: fisheyes have 0.3, the longest telescopes on vehicles 20."""

MAX_BASELINE_M = 10.0
"""Of a stereo pair; the widest on vehicles have 2."""

INTENSITY_FIELDS = ("intensity", "reflectivity", "reflectance", "i", "signal", "remission")
"""Names of the field that tells how strong an echo was, in any case, the preferred one first."""
INTENSITIES_SEEN = 4096
"""Of a scan, by what learns their full scale."""
MAX_ALIGNMENT = 16
"""Bytes behind a row that need no explanation."""


def stamp_ns(header: Message) -> int:
    """The header's stamp in nanoseconds."""
    return int(header.stamp.sec) * NS_PER_S + int(header.stamp.nanosec)


def camera_frame(message: Message, sensor: Sensor = Sensor.CAMERA, scale: FullScale | None = None) -> SensorFrame:
    """sensor_msgs/Image -> RGB frame. Raises ConversionError.

    `scale` learns what pictures of 16 bits have for white; None: from this one alone.
    """
    pixels = image_view(message, CAMERA_FORMATS)
    return _frame(sensor, to_rgb(pixels, CAMERA_FORMATS[message.encoding], scale), message)


def compressed_camera_frame(
    message: Message, sensor: Sensor = Sensor.CAMERA, scale: FullScale | None = None
) -> SensorFrame:
    """sensor_msgs/CompressedImage (JPEG or PNG) -> RGB frame, `scale` as in `camera_frame`. Raises ConversionError."""
    return _frame(sensor, rgb_of(_bytes_of(message), message.format, scale), message)


def depth_frame(message: Message, sensor: Sensor = Sensor.DEPTH) -> SensorFrame:
    """sensor_msgs/Image (16UC1 in millimetres or 32FC1 in metres) -> depth frame. Raises ConversionError."""
    depth = image_view(message, DEPTH_FORMATS)
    return _frame(sensor, depth if depth.dtype == np.float32 else depth * np.float32(0.001), message)


def compressed_depth_frame(message: Message, sensor: Sensor = Sensor.DEPTH) -> SensorFrame:
    """sensor_msgs/CompressedImage with a 16-bit PNG -> depth frame. Raises ConversionError."""
    return _frame(sensor, metres_of(_bytes_of(message), message.format), message)


def event_frame(message: Message, sensor: Sensor = Sensor.EVENT) -> SensorFrame:
    """sensor_msgs/Image of event counts -> event frame, positive and negative. Raises ConversionError."""
    pixels = image_view(message, EVENT_FORMATS)
    if message.encoding == "8UC2":
        return _frame(sensor, pixels, message)
    counts = np.empty((*pixels.shape[:2], 2), np.uint8)  # adjacent: everything after this is twice as fast
    red = 2 if message.encoding == "bgr8" else 0
    cv2.mixChannels([pixels], [counts], [red, 0, 1, 1])
    return _frame(sensor, counts, message)


def lidar_frame(message: Message, sensor: Sensor = Sensor.LIDAR, scale: FullScale | None = None) -> SensorFrame:
    """sensor_msgs/PointCloud2 -> points float32 [N, 4] and their times; NaN points stay. Raises ConversionError.

    Rays without a return, which many drivers send as (0, 0, 0), are NaN points. A cloud without points is a scan that
    saw nothing. `scale` learns the range of intensity; None: it is taken for the student's.
    """
    shape = int(message.height), int(message.width)
    if 0 in shape:
        return replace(_frame(sensor, np.zeros((0, 4), np.float32), message), cloud_shape=shape)
    points = points_view(message)
    returned = np.asarray(points[:, :3].any(axis=1))
    if not returned.all():
        points = points.copy()
        points[~returned, :3] = np.nan
    return replace(
        _frame(sensor, points, message),
        point_times=_point_times(message),
        cloud_shape=shape,
        intensity=None if scale is None else _intensity(message, points, returned, scale),
    )


def _intensity(
    message: Message, points: NDArray[np.float32], returned: NDArray[np.bool_], scale: FullScale
) -> Intensity:
    """Rays without a return teach nothing: some drivers leave noise in them."""
    field = intensity_field(message)
    seen = slice(None, None, max(1, len(points) // INTENSITIES_SEEN))
    full_scale = scale.learn(points[seen, 3][returned[seen]]) if field else 0.0
    return Intensity(field, full_scale, scale.is_learnt)


def pinhole_camera(message: Message, *, rectified: bool = False) -> PinholeCamera:
    """sensor_msgs/CameraInfo -> intrinsics of the picture as it is published, binning and region of interest applied.

    Of a `rectified` picture those of `p` and the rotation `r`, of a raw one those of `k` and the lens' distortion. The
    fourth column of `p` says where the right camera of a stereo pair sits in the left one's frame, which it names; it
    is of rectified pictures, and not applied to raw ones.
    Raises ConversionError, also for a lens that nobody builds.
    """
    uses_p = rectified and float(message.p[0]) > 0
    numbers = [float(message.p[i]) for i in (0, 5, 2, 6)] if uses_p else [float(message.k[i]) for i in (0, 4, 2, 5)]
    try:
        fx, fy, cx, cy = numbers
        camera = _plausible(_cut(message, PinholeCamera(int(message.width), int(message.height), fx, fy, cx, cy)))
        if uses_p:
            return replace(camera, rectification=_rectification(message), center=_center(message))
        return camera if rectified else replace(camera, distortion=_distortion(message))
    except ConversionError:
        raise
    except ValueError as error:
        raise ConversionError(Fault.DECODE_ERROR, f"camera_info: {error}") from None


def picture_size(message: Message) -> tuple[int, int] | None:
    """(height, width) that an Image or CompressedImage announces; None of other messages, and where it is cut off."""
    if hasattr(message, "encoding"):
        return int(message.height), int(message.width)
    return announced_size(_bytes_of(message)) if hasattr(message, "format") else None


def require_affordable(message: Message, sensor: Sensor, camera: PinholeCamera | None, max_pixels: int) -> None:
    """Raises ConversionError where a picture would cost more than it may, before it is decoded.

    A compressed one is not larger than its `camera_info` says, as nothing else bounds what a forged header asks for; a
    raw one is here already, and where its camera_info is of another size only LiDAR cannot be drawn in it.
    """
    size = picture_size(message)
    if size is None:
        return
    is_compressed = not hasattr(message, "encoding")
    if is_compressed and camera is not None and (size[0] > camera.height or size[1] > camera.width):
        limit = f"camera_info says {camera.width}x{camera.height}"
    elif size[0] * size[1] > max_pixels:
        limit = f"modalities.{sensor}.max_pixels is {max_pixels}"
    else:
        return
    raise ConversionError(Fault.WRONG_SIZE, f"a picture of {size[1]}x{size[0]}, and {limit}")


def is_rectified(image_topic: str) -> bool:
    """Whether a topic's name says that its pictures are rectified, as image_proc names them: `image_rect`, ..."""
    return any(part.startswith("image_rect") for part in image_topic.split("/"))


def _cut(message: Message, camera: PinholeCamera) -> PinholeCamera:
    """Intrinsics of the full sensor -> of the region of interest that is published, after binning."""
    roi = message.roi
    width, height = int(roi.width) or camera.width, int(roi.height) or camera.height
    across, down = max(1, int(message.binning_x)), max(1, int(message.binning_y))
    part = replace(camera, width=width, height=height, cx=camera.cx - roi.x_offset, cy=camera.cy - roi.y_offset)
    return part.resized(height // down, width // across) if (across, down) != (1, 1) else part


def _plausible(camera: PinholeCamera) -> PinholeCamera:
    """The same camera. Raises ConversionError or ValueError for a lens that nobody builds."""
    _check_grid("camera_info", camera.height, camera.width)
    for size, focal, center in ((camera.width, camera.fx, camera.cx), (camera.height, camera.fy, camera.cy)):
        if not (size / MAX_FOCAL_RATIO <= focal <= size * MAX_FOCAL_RATIO and abs(center) <= size * MAX_FOCAL_RATIO):
            raise ValueError(f"focal length {focal:g} and centre {center:g} px do not belong to {size} px")
    return camera


def _distortion(message: Message) -> Distortion | None:
    coefficients = [float(value) for value in message.d]
    if not any(coefficients):
        return None
    if len(coefficients) == 14 and not any(coefficients[12:]):  # OpenCV's tilted sensor, not tilted
        coefficients = coefficients[:12]
    try:
        return Distortion(str(message.distortion_model), tuple(coefficients))
    except ValueError as error:
        raise ValueError(f"{error}; rectify the pictures (image_proc) and use image_rect") from None


def _rectification(message: Message) -> tuple[float, ...]:
    """`r` where it is a rotation other than none."""
    rotation = np.asarray(message.r, np.float64).reshape(3, 3)
    is_rotation = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
    return tuple(rotation.ravel().tolist()) if is_rotation and not np.allclose(rotation, np.eye(3)) else ()


def _center(message: Message) -> tuple[float, float]:
    """Metres to the right and down, of `p`. Raises ValueError for a place that no stereo pair has."""
    right, down = (-float(message.p[at]) / float(message.p[focal]) for at, focal in ((3, 0), (7, 5)))
    if not abs(right) + abs(down) <= MAX_BASELINE_M:
        raise ValueError(f"P puts the lens ({right:g}, {down:g}) m beside its frame: P[3] is -fx times the baseline")
    return right or 0.0, down or 0.0


def image_view(message: Message, encodings: Collection[str]) -> NDArray[Any]:
    """sensor_msgs/Image -> [h, w, channels], or [h, w] for one channel; native byte order, a view where possible.

    Where colour follows below the grey plane, as in nv12, h counts its rows, too.

    Raises ConversionError for an encoding that is not among `encodings`, and for sizes that do not fit together.
    """
    if message.encoding not in encodings:
        raise ConversionError(
            Fault.DECODE_ERROR,
            f"encoding {message.encoding!r} is not known; known here: {', '.join(encodings)}. "
            "Set the driver to one of them",
        )
    layout = PIXEL_FORMATS[message.encoding]
    dtype = np.dtype(layout.dtype).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = _bytes_of(message)
    _check_grid("image", height, width)
    if height % layout.block[0] or width % layout.block[1]:
        raise ConversionError(
            Fault.WRONG_SIZE, f"{width}x{height} {message.encoding}: pixels share their colours in twos, sizes are even"
        )
    rows, pixel_bytes = int(height * layout.planes), dtype.itemsize * layout.channels
    if step < width * pixel_bytes or step * rows != len(data):
        raise ConversionError(
            Fault.WRONG_SIZE,
            f"{width}x{height} {message.encoding} needs steps of at least {width * pixel_bytes} bytes and "
            f"step x {rows} bytes of data; the step is {step}, the data {len(data)} bytes",
        )
    if step % width == 0 and step - width * pixel_bytes > MAX_ALIGNMENT:
        raise ConversionError(
            Fault.WRONG_SIZE,
            f"{width} pixels in steps of {step} bytes have {step // width} bytes each, {message.encoding} has "
            f"{pixel_bytes}: the driver names another encoding than it sends",
        )
    shape, strides = (rows, width), (step, pixel_bytes)
    if layout.channels > 1:
        shape, strides = (*shape, layout.channels), (*strides, dtype.itemsize)
    pixels = np.ndarray(shape, dtype, buffer=data, strides=strides)
    # Aligned: OpenCV refuses rows that are no whole number of values apart, as a step of 13 bytes makes of floats.
    return np.require(pixels, dtype.newbyteorder("="), "A")


def intensity_field(message: Message) -> str:
    """The name of the field of a PointCloud2 that tells how strong the echoes were; empty where it has none."""
    by_word = {field.name.lower(): field.name for field in reversed(message.fields)}
    return next((by_word[word] for word in INTENSITY_FIELDS if word in by_word), "")


def points_view(message: Message) -> NDArray[np.float32]:
    """sensor_msgs/PointCloud2 -> float32 [N, 4]: x, y, z, intensity.

    A view where the four are float32, adjacent and in this order, as most drivers send them. Raises ConversionError.
    """
    fields = {field.name: field for field in message.fields}
    missing = [name for name in ("x", "y", "z") if name not in fields]
    if missing:
        present = ", ".join(fields) or "none"
        raise ConversionError(Fault.DECODE_ERROR, f"point cloud lacks {', '.join(missing)}; its fields: {present}")
    names = ("x", "y", "z", intensity_field(message))
    wanted = {name: field_type(fields[name], message) for name in names if name}
    points = _point_bytes(message)
    adjacent = _adjacent_float32(wanted)
    if adjacent is not None:
        return points[:, adjacent : adjacent + 16].view("<f4")
    columns = np.zeros((len(points), 4), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a double that float32 cannot hold is infinitely far
        for column, (dtype, offset) in enumerate(wanted.values()):
            columns[:, column] = points[:, offset : offset + dtype.itemsize].copy().view(dtype)[:, 0]
    return columns


def image_message(image: NDArray[np.uint8], encoding: str, header: Message) -> Message:
    """uint8 [h, w] or [h, w, 3] -> sensor_msgs/Image with that header."""
    from sensor_msgs.msg import Image  # deferred: reading needs no ROS

    message = Image(header=header, encoding=encoding, height=image.shape[0], width=image.shape[1])
    message.step = image.strides[0] if image.flags.c_contiguous else image[0].nbytes
    message.data = byte_array(image)
    return message


def byte_array(values: NDArray[Any]) -> array.array[int]:
    """The bytes of an array as rclpy takes them without a check of every element (a thousand times faster)."""
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


def _frame(sensor: Sensor, data: NDArray[Any], message: Message) -> SensorFrame:
    return SensorFrame(sensor, data, stamp_ns(message.header), message.header.frame_id)


def _bytes_of(message: Message) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(message.data, np.uint8)
    except (TypeError, ValueError) as error:  # ValueError: an empty array.array has no buffer in some versions
        raise ConversionError(Fault.DECODE_ERROR, f"the data cannot be read as bytes: {error}") from None


def _check_grid(what: str, height: int, width: int) -> None:
    try:
        check_picture_size(what, height, width)
    except ImageSizeError as error:
        raise ConversionError(Fault.WRONG_SIZE, str(error)) from None


# --- point clouds ----------------------------------------------------------------------------------------------------

_POINT_DATATYPES: Mapping[int, str] = MappingProxyType(
    {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
)


def field_type(field: Message, message: Message) -> tuple[np.dtype[Any], int]:
    """(dtype, offset in bytes) of a point's field."""
    code = _POINT_DATATYPES.get(int(field.datatype))
    if code is None:
        raise ConversionError(Fault.DECODE_ERROR, f"point field {field.name} has the unknown datatype {field.datatype}")
    dtype = np.dtype(code).newbyteorder(">" if message.is_bigendian else "<")
    if field.offset + dtype.itemsize > message.point_step:
        raise ConversionError(
            Fault.WRONG_SIZE,
            f"point field {field.name} at offset {field.offset} does not fit into point_step {message.point_step}",
        )
    return dtype, int(field.offset)


def _cloud_grid(message: Message) -> tuple[int, int, int]:
    """(height, width, row_step), checked against the data; a single row needs no row_step."""
    height, width, point_step = int(message.height), int(message.width), int(message.point_step)
    _check_grid("point cloud", height, width)
    row_step = width * point_step if height == 1 else int(message.row_step)
    size = len(message.data)
    if row_step < width * point_step or height * row_step > size:
        raise ConversionError(
            Fault.WRONG_SIZE,
            f"{width}x{height} points of {point_step} bytes with row_step {message.row_step} do not fit into "
            f"{size} bytes of data",
        )
    return height, width, row_step


def _point_bytes(message: Message) -> NDArray[np.uint8]:
    """[N, point_step]"""
    height, width, row_step = _cloud_grid(message)
    rows = np.ndarray((height, row_step), np.uint8, buffer=_bytes_of(message)[: height * row_step])
    return rows[:, : width * message.point_step].reshape(height * width, message.point_step)


_TIME_FIELDS = ("t", "time", "timestamp", "offset_time", "time_stamp")
"""Of Ouster, Velodyne, Hesai and RoboSense, Livox, Nebula and Autoware."""


def _point_times(message: Message) -> NDArray[Any] | None:
    """[N], a view of the time field; None where the cloud has none, or a damaged one: the points are good without."""
    field = next((field for field in message.fields if field.name in _TIME_FIELDS), None)
    if field is None:
        return None
    try:
        dtype, offset = field_type(field, message)
    except ConversionError:
        return None
    return _point_bytes(message)[:, offset : offset + dtype.itemsize].view(dtype)[:, 0]


def _adjacent_float32(wanted: Mapping[str, tuple[np.dtype[Any], int]]) -> int | None:
    """The offset of x where x, y, z and intensity are native float32, adjacent and in this order; else None."""
    start = wanted["x"][1]
    expected = [(np.dtype("<f4"), start + 4 * i) for i in range(4)]
    return start if list(wanted.values()) == expected else None
