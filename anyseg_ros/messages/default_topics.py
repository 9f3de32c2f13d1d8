"""The names of the topics that are used where nothing else is configured, relative to the node's namespace."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.messages.sensor_messages import default_topic

DEFAULT_TOPICS: Mapping[Sensor, str] = MappingProxyType({sensor: default_topic(sensor) for sensor in DEFAULT_SENSORS})

CAMERA_INFO = "camera/camera_info"
DEPTH_INFO = "depth/camera_info"
ODOMETRY = "odometry"


def camera_info_topic(image_topic: str) -> str:
    """Where the intrinsics of an image topic are, as image_transport has it: `camera_info` beside the raw image."""
    name = image_topic.removesuffix("/compressed").removesuffix("/compressedDepth")
    return f"{name.rpartition('/')[0]}/camera_info" if "/" in name else "camera_info"
