"""Calibration out of a bag: camera_info and the transforms, else the parameters; as the node's rig_source.py does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, Twist
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.bags.transforms import TransformTree
from anyseg_ros.messages.conversions import is_rectified, pinhole_camera
from anyseg_ros.messages.odometry import Odometer
from anyseg_ros.pipeline.alignment import Lookup
from anyseg_ros.pipeline.calibration import Calibration
from anyseg_ros.pipeline.parameters import RigParameters


class BagRig:
    """The rig as far as the bag has told it."""

    def __init__(self, parameters: RigParameters, image_topics: Mapping[Sensor, str] = MappingProxyType({})) -> None:
        """`image_topics`: of the camera and of depth; their names say whether the pictures are rectified."""
        self._parameters = parameters
        self._image_topics = image_topics
        self._tree = TransformTree()
        self._odometer = Odometer()
        self._calibration = Calibration(parameters)
        self._scan_ns = 0

    def on_scan(self, frame: SensorFrame) -> None:
        """A scan is about to be used: where the LiDAR was at its stamp."""
        self._calibration.lidar_frame, self._scan_ns = frame.frame_id, frame.stamp_ns

    def on_camera_info(self, sensor: Sensor, message: Any) -> None:
        """sensor_msgs/CameraInfo of that sensor's pictures. Raises ConversionError."""
        camera = pinhole_camera(message, rectified=is_rectified(self._image_topics.get(sensor, "")))
        self._calibration.set_camera(sensor, camera, message.header.frame_id)

    def camera_of(self, sensor: Sensor) -> PinholeCamera | None:
        """The intrinsics that camera_info told of a sensor's pictures."""
        return self._calibration.camera_of(sensor)

    def aligned(self, frame: SensorFrame) -> SensorFrame:
        """The frame as it is to be used, aligned where the parameters say so. Raises ConversionError."""
        return self._calibration.alignment.aligned(frame, self._calibration.cameras, self._lookup(frame.stamp_ns))

    @property
    def unregistered(self) -> Mapping[Sensor, str]:
        """As `Calibration.unregistered`."""
        return self._calibration.unregistered

    @property
    def events_note(self) -> str:
        """As `Alignment.events_note`."""
        return self._calibration.alignment.events_note

    def on_transforms(self, message: Any, *, is_static: bool) -> None:
        """tf2_msgs/TFMessage."""
        if self._parameters.use_tf:
            self._tree.add(message, is_static=is_static)

    def lidar_twist(self, message: Any) -> tuple[int, Twist]:
        """nav_msgs/Odometry -> its stamp in nanoseconds, and the LiDAR's twist. Raises ConversionError."""
        stamp_ns, twist = self._odometer.read(message)
        return stamp_ns, twist.seen_from(self._calibration.lidar_from_base(message.child_frame_id, self._lookup()))

    @property
    def assumed_place(self) -> str:
        """As `Calibration.assumed_place`."""
        return self._calibration.assumed_place

    def changed(self) -> Rig | None:
        """The rig, where it is known and another than at the last call."""
        return self._calibration.changed_rig(self._lookup(self._scan_ns))

    def _lookup(self, stamp_ns: int = 0) -> Lookup | None:
        """Transforms of that time, 0 = the newest; None without TF."""
        return partial(self._tree.lookup, stamp_ns=stamp_ns) if self._parameters.use_tf else None
