"""Messages that no driver should send: what is sent at a node to see whether it lives."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField

from anyseg_ros.messages.conversions import byte_array
from anyseg_ros.messages.types import message_class

ABSURD = (0.0, -1.0, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 5e-324)
SIZES = (0, 1, 7, 480, 640, 65_535, 2**31, 2**32 - 1)
ENCODINGS = ("", "rgb8", "bgr16", "mono16", "16UC1", "32FC1", "bayer_rggb8", "yuv422", "nonsense", "x" * 1000)
FRAMES = ("", "/", "camera", "x" * 300)
HUGE_SIDE = 8192


def malformed_image(rng: Generator) -> Image:
    """Size, step, encoding and data have nothing to do with each other."""
    message = Image(encoding=_one(rng, ENCODINGS), height=_one(rng, SIZES), width=_one(rng, SIZES))
    message.step, message.is_bigendian = _one(rng, SIZES), int(rng.integers(2))
    message.header.frame_id = _one(rng, FRAMES)
    message.data = _noise(rng, _one(rng, (0, 1, 100, 4096)))
    return message


def malformed_cloud(rng: Generator) -> PointCloud2:
    """Fields that lie outside of the points, of types that there are not."""
    names = rng.permutation(["x", "y", "z", "intensity", "ring", ""])[: int(rng.integers(7))]
    fields = [
        PointField(
            name=str(name), offset=_one(rng, SIZES), datatype=int(rng.integers(12)), count=_one(rng, (0, 1, 2**32 - 1))
        )
        for name in names
    ]
    message = PointCloud2(height=_one(rng, SIZES), width=_one(rng, SIZES), fields=fields)
    message.point_step, message.row_step = _one(rng, (0, 1, 12, 16, 2**32 - 1)), _one(rng, SIZES)
    message.header.frame_id = _one(rng, FRAMES)
    message.data = _noise(rng, _one(rng, (0, 1, 100, 4096)))
    return message


def malformed_camera_info(rng: Generator) -> CameraInfo:
    """Intrinsics that no lens has."""
    message = CameraInfo(height=_one(rng, SIZES), width=_one(rng, SIZES), distortion_model=_one(rng, ENCODINGS))
    message.k, message.p = _absurd(rng, 9), _absurd(rng, 12)
    message.d = _absurd(rng, int(rng.integers(15)))
    message.binning_x = _one(rng, SIZES)
    message.header.frame_id = _one(rng, FRAMES)
    return message


def absurd_odometry(rng: Generator) -> Any:
    """Poses and twists at the ends of what a number may be. Needs nav_msgs."""
    message = message_class("nav_msgs/msg/Odometry")()  # type: ignore[misc]  # `ODOMETRY_IS_HERE` says so
    pose, twist = message.pose.pose, message.twist.twist
    pose.position.x, pose.position.y, pose.position.z = _absurd(rng, 3)
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = _absurd(rng, 4)
    twist.linear.x, twist.linear.y, twist.linear.z = _absurd(rng, 3)
    twist.angular.x, twist.angular.y, twist.angular.z = _absurd(rng, 3)
    message.header.frame_id, message.child_frame_id = _one(rng, FRAMES), _one(rng, FRAMES)
    return message


def far_odometry() -> Iterator[Any]:
    """A vehicle that is at 1e308 m and a moment later at -1e308 m, for ever: finite, and its motion is not."""
    for sign in itertools.cycle((1.0, -1.0)):
        message = message_class("nav_msgs/msg/Odometry")()  # type: ignore[misc]
        message.pose.pose.position.x, message.pose.pose.orientation.w = sign * 1e308, 1.0
        message.header.frame_id, message.child_frame_id = "odom", "base_link"
        yield message


ODOMETRY_IS_HERE = message_class("nav_msgs/msg/Odometry") is not None
MALFORMED: Mapping[type, Callable[[Generator], Any]] = MappingProxyType(
    {Image: malformed_image, PointCloud2: malformed_cloud, CameraInfo: malformed_camera_info}
)
"""By the class of message that a topic carries."""


def forged_jpeg(image: np.ndarray | None = None, side: int = HUGE_SIDE) -> CompressedImage:
    """A small JPEG whose header says `side` x `side`: some kilobytes that ask for hundreds of megabytes."""
    small = np.zeros((64, 64, 3), np.uint8) if image is None else image
    _, encoded = cv2.imencode(".jpg", small)
    data = encoded.tobytes()
    start = data.index(b"\xff\xc0") + 5  # SOF0: marker, length, precision, then height and width
    forged = data[:start] + struct.pack(">HH", side, side) + data[start + 4 :]
    return CompressedImage(format="jpeg", data=byte_array(np.frombuffer(forged, np.uint8)))


def jpeg_of(image: np.ndarray, header: Any) -> CompressedImage:
    """RGB uint8 [H, W, 3] as a camera with a compressed topic sends it."""
    _, encoded = cv2.imencode(".jpg", image[..., ::-1])
    return CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=byte_array(encoded.reshape(-1)))


def _one(rng: Generator, values: tuple) -> Any:
    return values[int(rng.integers(len(values)))]


def _absurd(rng: Generator, count: int) -> list[float]:
    return [_one(rng, ABSURD) for _ in range(count)]


def _noise(rng: Generator, size: int) -> Any:
    return byte_array(rng.integers(0, 256, size, np.uint8))
