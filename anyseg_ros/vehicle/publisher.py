"""Frames -> the topics of a vehicle's drivers. Used by the simulated vehicle, the demo, the benchmark and tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.sensors import CAMERA, DEFAULT_SENSORS, DEPTH, EVENT, LIDAR, Sensor, SensorFrame, SensorKind
from anyseg_ros.messages.conversions import byte_array, image_message
from anyseg_ros.messages.default_topics import CAMERA_INFO, DEPTH_INFO
from anyseg_ros.messages.headers import header_of
from anyseg_ros.messages.sensor_messages import default_topic

GROUND_TRUTH = "ground_truth/labels"
QUEUE_DEPTH = 5
POINT_FIELDS = ("x", "y", "z", "intensity")


class VehiclePublisher:
    """Publishes frames as drivers do: reliable, relative topic names, camera_info beside each image.

    `log` is a CSV file to write: a message's stamp, its modality and the system time
    just before it went to the middleware, both in nanoseconds.
    """

    def __init__(self, node: Node, rig: Rig, sensors: Sequence[Sensor] = DEFAULT_SENSORS, log: str = "") -> None:
        self._rig = rig
        self._sensors = {
            sensor: node.create_publisher(_MESSAGES[sensor.kind][0], default_topic(sensor), QUEUE_DEPTH)
            for sensor in sensors
        }
        self._infos = {
            Sensor.CAMERA: node.create_publisher(CameraInfo, CAMERA_INFO, QUEUE_DEPTH),
            Sensor.DEPTH: node.create_publisher(CameraInfo, DEPTH_INFO, QUEUE_DEPTH),
        }
        self._labels = node.create_publisher(Image, GROUND_TRUTH, QUEUE_DEPTH)
        # Written line by line, until the process ends.
        self._log = Path(log).open("w", buffering=1) if log else None  # noqa: SIM115

    def is_heard(self, modalities: Collection[Sensor]) -> bool:
        """Whether these sensors, their camera_infos and the ground truth have a subscriber each."""
        publishers = [topics[m] for topics in (self._sensors, self._infos) for m in modalities if m in topics]
        publishers.append(self._labels)
        return all(publisher.get_subscription_count() for publisher in publishers)

    def publish(self, frame: SensorFrame, rewrite: Callable[[Sensor, bytes], bytes] | None = None) -> None:
        """One sensor's frame, with its camera_info before it; `rewrite` gets and gives the serialized message."""
        if frame.modality in self._infos:
            self._infos[frame.modality].publish(camera_info_message(self._rig.camera, header_of(frame)))
        message = _MESSAGES[frame.kind][1](frame)
        if rewrite is not None:
            message = rewrite(frame.modality, serialize_message(message))
        published_ns = time.time_ns()
        self._sensors[frame.modality].publish(message)
        if self._log is not None:
            self._log.write(f"{frame.stamp_ns},{frame.modality},{published_ns}\n")

    def publish_labels(self, labels: NDArray[np.uint8], header: Header) -> None:
        """The true labels uint8 [H, W] of the camera image with that header."""
        self._labels.publish(image_message(labels, "mono8", header))


def camera_info_message(camera: PinholeCamera, header: Header) -> CameraInfo:
    """Intrinsics of a rectified image."""
    k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    p = [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    message = CameraInfo(header=header, height=camera.height, width=camera.width, distortion_model="plumb_bob")
    message.d, message.k, message.r, message.p = [0.0] * 5, k, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], p
    return message


def camera_message(frame: SensorFrame) -> Image:
    """RGB uint8 [H, W, 3] -> rgb8; mono8 of a sensor beside the camera, which has no colours: a thermal one."""
    if frame.modality != Sensor.CAMERA:
        return image_message(np.ascontiguousarray(frame.data[..., 0]), "mono8", header_of(frame))  # type: ignore[arg-type]
    return image_message(frame.data, "rgb8", header_of(frame))  # type: ignore[arg-type]


def depth_message(frame: SensorFrame) -> Image:
    """Metres float32 [H, W] -> 32FC1."""
    height, width = frame.data.shape
    message = Image(header=header_of(frame), encoding="32FC1", height=height, width=width, step=4 * width)
    message.data = byte_array(frame.data)
    return message


def event_message(frame: SensorFrame) -> Image:
    """Counts uint8 [H, W, 2] -> rgb8: red = positive, green = negative, blue = 0."""
    counts = np.zeros((*frame.data.shape[:2], 3), np.uint8)
    cv2.mixChannels([frame.data], [counts], [0, 0, 1, 1])  # type: ignore[list-item]
    return image_message(counts, "rgb8", header_of(frame))


def lidar_message(frame: SensorFrame) -> PointCloud2:
    """Points float32 [N, 4] -> an unorganised cloud of x, y, z, intensity."""
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate(POINT_FIELDS)
    ]
    message = PointCloud2(header=header_of(frame), height=1, width=len(frame.data), fields=fields, point_step=16)
    message.row_step = 16 * len(frame.data)
    message.is_dense = bool(np.isfinite(frame.data[:, :3]).all())
    message.data = byte_array(np.asarray(frame.data, "<f4"))
    return message


_MESSAGES: Mapping[SensorKind, tuple[type, Callable[[SensorFrame], Any]]] = MappingProxyType(
    {
        CAMERA: (Image, camera_message),
        DEPTH: (Image, depth_message),
        EVENT: (Image, event_message),
        LIDAR: (PointCloud2, lidar_message),
    }
)
