"""The fields of the sensor_msgs messages that are read here: of rclpy, of rosbags, or of anything else that has them.

`data` is what a buffer can be made of: an `array.array` of rclpy, an array of rosbags, or bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Stamp(Protocol):
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(Protocol):
    """std_msgs/Header."""

    stamp: Stamp
    frame_id: str


class Stamped(Protocol):
    """Any message with a header."""

    header: Header


class Buffered(Protocol):
    """Any message with a field `data` of bytes."""

    data: Any


class Image(Stamped, Buffered, Protocol):
    """sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int


class CompressedImage(Stamped, Buffered, Protocol):
    """sensor_msgs/CompressedImage."""

    format: str


class PointField(Protocol):
    """sensor_msgs/PointField."""

    name: str
    offset: int
    datatype: int


class PointCloud2(Stamped, Buffered, Protocol):
    """sensor_msgs/PointCloud2."""

    height: int
    width: int
    fields: Sequence[PointField]
    is_bigendian: bool
    point_step: int
    row_step: int


class RegionOfInterest(Protocol):
    """sensor_msgs/RegionOfInterest."""

    x_offset: int
    y_offset: int
    height: int
    width: int


class CameraInfo(Stamped, Protocol):
    """sensor_msgs/CameraInfo; its arrays are lists, tuples or arrays of numbers."""

    height: int
    width: int
    distortion_model: str
    d: Any
    k: Any
    r: Any
    p: Any
    binning_x: int
    binning_y: int
    roi: RegionOfInterest
