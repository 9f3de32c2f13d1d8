"""Calibration out of a bag: camera_info and the transforms, else the parameters; as the node's rig_source.py does."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, Twist
from anyseg_core.runtime.geometry.rigid_transform import rigid_transform
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.messages.conversions import is_rectified, pinhole_camera
from anyseg_ros.messages.odometry import Odometer
from anyseg_ros.pipeline.calibration import Calibration
from anyseg_ros.pipeline.parameters import RigParameters


class TransformTree:
    """Coordinate frames and the newest transforms between them; no times, as sensors are bolted to the vehicle."""

    def __init__(self) -> None:
        self._edges: dict[str, dict[str, NDArray[np.float64]]] = {}  # target -> source -> target_from_source, 4x4

    def add(self, message: Any) -> None:
        """tf2_msgs/TFMessage. A transform that is no rotation (all zeros, NaN) is left out."""
        for stamped in message.transforms:
            parent, child = stamped.header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
            t, r = stamped.transform.translation, stamped.transform.rotation
            rotation = np.array([r.x, r.y, r.z, r.w])
            if not (np.isfinite([t.x, t.y, t.z, *rotation]).all() and np.linalg.norm(rotation) > 0.1):
                continue
            parent_from_child = rigid_transform((t.x, t.y, t.z), tuple(rotation))
            self._edges.setdefault(parent, {})[child] = parent_from_child
            self._edges.setdefault(child, {})[parent] = np.asarray(np.linalg.inv(parent_from_child), np.float64)

    def lookup(self, target: str, source: str) -> NDArray[np.float64] | None:
        """target_from_source as 4x4 along the shortest chain, or None where nothing connects the two."""
        target, source = target.lstrip("/"), source.lstrip("/")
        reached = {target: np.eye(4)}
        queue = deque([target])
        while queue and source not in reached:
            here = queue.popleft()
            for neighbour, here_from_neighbour in self._edges.get(here, {}).items():
                if neighbour not in reached:
                    reached[neighbour] = reached[here] @ here_from_neighbour
                    queue.append(neighbour)
        return reached.get(source) if target != source else np.eye(4)

    def trees(self) -> list[list[str]]:
        """The frames of each tree, in alphabetical order; more than one where nothing connects them."""
        trees: list[list[str]] = []
        for frame in sorted(self._edges):
            if not any(frame in tree for tree in trees):
                trees.append([other for other in sorted(self._edges) if self.lookup(frame, other) is not None])
        return trees


class BagRig:
    """The rig as far as the bag has told it."""

    def __init__(self, parameters: RigParameters, image_topics: Mapping[Sensor, str] = MappingProxyType({})) -> None:
        """`image_topics`: of the camera and of depth; their names say whether the pictures are rectified."""
        self._parameters = parameters
        self._image_topics = image_topics
        self._tree = TransformTree()
        self._odometer = Odometer()
        self._calibration = Calibration(parameters)

    @property
    def lidar_frame(self) -> str:
        """frame_id of the points."""
        return self._calibration.lidar_frame

    @lidar_frame.setter
    def lidar_frame(self, frame_id: str) -> None:
        self._calibration.lidar_frame = frame_id

    def on_camera_info(self, sensor: Sensor, message: Any) -> None:
        """sensor_msgs/CameraInfo of that sensor's pictures. Raises ConversionError."""
        camera = pinhole_camera(message, rectified=is_rectified(self._image_topics.get(sensor, "")))
        self._calibration.set_camera(sensor, camera, message.header.frame_id)

    def camera_of(self, sensor: Sensor) -> PinholeCamera | None:
        """The intrinsics that camera_info told of a sensor's pictures."""
        return self._calibration.camera_of(sensor)

    def aligned(self, frame: SensorFrame) -> SensorFrame:
        """The frame as it is to be used, aligned where the parameters say so. Raises ConversionError."""
        lookup = self._tree.lookup if self._parameters.use_tf else None
        return self._calibration.alignment.aligned(frame, self._calibration.cameras, lookup)

    @property
    def unregistered(self) -> Mapping[Sensor, str]:
        """As `Calibration.unregistered`."""
        return self._calibration.unregistered

    @property
    def events_note(self) -> str:
        """As `Alignment.events_note`."""
        return self._calibration.alignment.events_note

    def on_transforms(self, message: Any) -> None:
        """tf2_msgs/TFMessage, static or not."""
        if self._parameters.use_tf:
            self._tree.add(message)

    def lidar_twist(self, message: Any) -> tuple[int, Twist]:
        """nav_msgs/Odometry -> its stamp in nanoseconds, and the LiDAR's twist. Raises ConversionError."""
        stamp_ns, twist = self._odometer.read(message)
        lookup = self._tree.lookup if self._parameters.use_tf else None
        return stamp_ns, twist.seen_from(self._calibration.lidar_from_base(message.child_frame_id, lookup))

    @property
    def assumed_place(self) -> str:
        """As `Calibration.assumed_place`."""
        return self._calibration.assumed_place

    def changed(self) -> Rig | None:
        """The rig, where it is known and another than at the last call."""
        return self._calibration.changed_rig(self._tree.lookup if self._parameters.use_tf else None)
