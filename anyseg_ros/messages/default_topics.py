"""The names of the topics that are used where nothing else is configured, relative to the node's namespace."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from anyseg_core.runtime.modality import Modality

DEFAULT_TOPICS: Mapping[Modality, str] = MappingProxyType(
    {
        Modality.CAMERA: "camera/image_raw",
        Modality.DEPTH: "depth/image_rect",
        Modality.EVENT: "events",
        Modality.LIDAR: "lidar/points",
    }
)


CAMERA_INFO = "camera/camera_info"


DEPTH_INFO = "depth/camera_info"


ODOMETRY = "odometry"
