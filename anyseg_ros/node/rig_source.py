"""Where the calibration comes from: camera_info and TF at the stamp of the scan, else parameters that a user set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo

from anyseg_core.runtime.extras import pip_install
from anyseg_core.runtime.geometry.poses import PoseHistory
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.geometry.rigid_transform import rigid_transform
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.messages.conversions import ConversionError, is_rectified, pinhole_camera
from anyseg_ros.messages.conversions import stamp_ns as message_stamp_ns
from anyseg_ros.messages.headers import STATE_QOS
from anyseg_ros.messages.odometry import Odometer
from anyseg_ros.messages.types import install_command, message_class
from anyseg_ros.node.inference_worker import InferenceWorker
from anyseg_ros.node.sensor_input import WARN_PERIOD_S, sensor_qos
from anyseg_ros.pipeline.alignment import REGISTERED_BY
from anyseg_ros.pipeline.calibration import MAX_TF_AGE_NS, Calibration
from anyseg_ros.pipeline.parameters import RigParameters

try:
    import tf2_ros
except ImportError:  # the wheels have none: the rig.* parameters give the extrinsics
    tf2_ros = None

ODOMETRY_QUEUE_DEPTH = 20


class RigSource:
    """Keeps the rig of the pipeline up to date. `on_scan` is for any thread, the rest for the executor's."""

    def __init__(
        self,
        node: Node,
        parameters: RigParameters,
        worker: InferenceWorker,
        image_topics: Mapping[Sensor, str],
        *,
        has_lidar: bool = True,
    ) -> None:
        """`image_topics`: resolved names, of which camera_info's follow; `has_lidar`: whether there are scans."""
        self._node = node
        self._parameters = parameters
        self._worker = worker
        self._changing = threading.Lock()
        self._calibration = Calibration(parameters)
        self._scan_ns = 0
        topics = parameters.info_topics(image_topics)
        self._infos = {s: self._listener(s, topic, image_topics[s]) for s, topic in topics.items()}
        """Topic and listener of every camera_info, but of those whose last message was asked for."""
        qos = sensor_qos("best_effort")
        self._subscriptions = [node.create_subscription(CameraInfo, *info, qos) for info in self._infos.values()]
        self._tf = _TransformSource(node) if parameters.use_tf and tf2_ros is not None else None
        self._odometer = Odometer()
        self._compensates = has_lidar and parameters.compensate_motion
        self.poses = PoseHistory()
        """Of the vehicle's base, in `odometry_frame`."""
        self.odometry_frame = self.base_frame = ""
        """As odometry names them; empty before it does."""
        without = self._subscribe_odometry()
        self.without_motion = without if self._compensates else "rig.compensate_motion is false"
        """Why LiDAR scans are not compensated, when they are not."""

    @property
    def assumed_place(self) -> str:
        """As `Calibration.assumed_place`."""
        return self._calibration.assumed_place

    def destroy(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        if self._tf is not None:
            self._tf.destroy()

    def on_clock_step(self) -> None:
        """The clock was set: TF's buffer refuses what is stamped long before its newest, as after a bag's end all is.

        On any thread. Static transforms stay; histories of motion and poses see by their own stamps that time ran back.
        """
        if self._tf is not None:
            self._tf.forget()

    def on_scan(self, frame: SensorFrame) -> None:
        """A scan is about to be used: where the LiDAR was at its stamp. On any thread."""
        with self._changing:
            self._calibration.lidar_frame, self._scan_ns = frame.frame_id, frame.stamp_ns
        self.refresh()

    def aligned(self, frame: SensorFrame) -> SensorFrame:
        """The frame as it is to be used, rectified or registered where the parameters say so. On its sensor's thread.

        Raises ConversionError where what that needs is not known.
        """
        with self._changing:
            alignment, cameras = self._calibration.alignment, self._calibration.cameras
        tf = self._tf

        def lookup(target: str, source: str) -> NDArray[np.float64] | None:
            return tf.lookup(target, source, frame.stamp_ns) if tf is not None else None

        before = alignment.events_note
        frame = alignment.aligned(frame, cameras, lookup if tf is not None else None)
        if frame.modality == Sensor.EVENT and alignment.events_note != before:
            self._node.get_logger().info(f"events are {alignment.events_note}")
        return frame

    def camera_of(self, sensor: Sensor) -> PinholeCamera | None:
        """The intrinsics that camera_info told of a sensor's pictures."""
        with self._changing:
            return self._calibration.camera_of(sensor)

    def refresh(self) -> None:
        """Hand over the rig where it has changed."""
        with self._changing:
            rig = self._calibration.changed_rig(self._lookup_at_scan if self._tf is not None else None)
        if rig is None:
            return
        self._worker.apply(lambda pipeline, _now_ns: pipeline.set_rig(rig))

    def _lookup_at_scan(self, target: str, source: str) -> NDArray[np.float64] | None:
        return self._tf.lookup(target, source, self._scan_ns) if self._tf is not None else None

    def base_from(self, base_frame: str, frame_id: str, *, is_lidar: bool, rig: Rig) -> NDArray[np.float64] | None:
        """4x4, from a sensor's axes to the vehicle's base: by TF, else by the parameters; None where nobody knows it.

        A depth camera that TF does not know sits where the LiDAR's place and the rig's extrinsics put it.
        """
        if frame_id == base_frame:
            return np.eye(4)
        found = self._tf.lookup(base_frame, frame_id) if self._tf is not None else None
        if found is not None or not self._parameters.knows_base:
            return found
        if rig.missing and not is_lidar:
            return None
        base_from_lidar = self._parameters.base_from_lidar()
        return base_from_lidar if is_lidar else base_from_lidar @ np.linalg.inv(rig.camera_from_lidar)

    def _subscribe_odometry(self) -> str:
        odometry = message_class("nav_msgs/msg/Odometry")
        if odometry is None:
            why = f"nav_msgs is not installed ({install_command('nav_msgs')}, or {pip_install('ros-nav-msgs')})"
            self._node.get_logger().info(f"LiDAR scans are not compensated for the vehicle's motion: {why}")
            return why
        qos = sensor_qos("best_effort", ODOMETRY_QUEUE_DEPTH)
        subscription = self._node.create_subscription(odometry, self._parameters.odometry_topic, self._on_odometry, qos)
        self._subscriptions.append(subscription)
        return f"no odometry of that time on {subscription.topic_name}"

    def _on_odometry(self, message: Any) -> None:
        try:
            stamp_ns, twist = self._odometer.read(message)
        except ConversionError as error:
            self._node.get_logger().warning(f"ignored: {error}", throttle_duration_sec=WARN_PERIOD_S)
            return
        self.odometry_frame, self.base_frame = message.header.frame_id, message.child_frame_id
        if self._odometer.pose is not None:
            self.poses.add(stamp_ns, self._odometer.pose)
        if not self._compensates:
            return
        lookup = self._tf.lookup if self._tf is not None else None
        lidar_twist = twist.seen_from(self._calibration.lidar_from_base(message.child_frame_id, lookup))
        self._worker.apply(lambda pipeline, _now_ns: pipeline.on_motion(stamp_ns, lidar_twist))

    def look_for_latched(self) -> None:
        """Ask for the last camera_info of a publisher that keeps it for those who come late, where none has come.

        To ask for it from the start would have every other driver warn of an incompatible QoS.
        """
        for sensor, (topic, on_info) in list(self._infos.items()):
            if self.camera_of(sensor) is not None:
                continue
            offers = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(topic))
            if any(_is_kept(offer.qos_profile) for offer in offers):
                self._subscriptions.append(self._node.create_subscription(CameraInfo, topic, on_info, STATE_QOS))
                del self._infos[sensor]

    def _listener(self, sensor: Sensor, topic: str, image_topic: str) -> tuple[str, Callable[[CameraInfo], None]]:
        """A camera_info's topic, and what takes its messages."""

        def on_info(message: CameraInfo) -> None:
            self._on_info(sensor, topic, message, rectified=is_rectified(image_topic))

        return topic, on_info

    def _on_info(self, sensor: Sensor, topic: str, message: CameraInfo, *, rectified: bool) -> None:
        try:
            camera = pinhole_camera(message, rectified=rectified)
        except ConversionError as error:
            self._node.get_logger().warning(f"{topic} is ignored: {error}", throttle_duration_sec=WARN_PERIOD_S)
            return
        with self._changing:
            before = self._calibration.unregistered
            self._calibration.set_camera(sensor, camera, message.header.frame_id)
            unregistered = self._calibration.unregistered
        for other in (s for s, why in unregistered.items() if why != before.get(s)):
            self._node.get_logger().warning(
                f"{other} is taken for aligned with the camera, and {unregistered[other]}: use the driver's aligned "
                f"topic, or set {REGISTERED_BY[other]}"
            )
        self.refresh()


def _is_kept(qos: QoSProfile) -> bool:
    """Whether a publisher gives its last message to those who come late and ask for it."""
    return qos.durability == DurabilityPolicy.TRANSIENT_LOCAL and qos.reliability == ReliabilityPolicy.RELIABLE


class _TransformSource:
    """Transforms between two frames, by TF."""

    def __init__(self, node: Node) -> None:
        assert tf2_ros is not None
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def lookup(self, target: str, source: str, stamp_ns: int = 0) -> NDArray[np.float64] | None:
        """target_from_source as 4x4 at that time, 0 = the newest; None where TF does not know it (yet).

        Of a transform that moves, the newest stands in for one that is not `MAX_TF_AGE_NS` younger.
        """
        if tf2_ros is None or not target or not source:
            return None
        source, target = source.lstrip("/"), target.lstrip("/")
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
        except tf2_ros.ExtrapolationException:
            found = self._newest(target, source, stamp_ns)
        except tf2_ros.TransformException:
            found = None
        if found is None:
            return None
        t, r = found.transform.translation, found.transform.rotation
        return rigid_transform((t.x, t.y, t.z), (r.x, r.y, r.z, r.w))

    def _newest(self, target: str, source: str, stamp_ns: int) -> Any:
        assert tf2_ros is not None
        try:
            found = self._buffer.lookup_transform(target, source, Time())
        except tf2_ros.TransformException:
            return None
        return found if abs(message_stamp_ns(found.header) - stamp_ns) <= MAX_TF_AGE_NS else None

    def forget(self) -> None:
        """Every transform that moves."""
        self._buffer.clear()

    def destroy(self) -> None:
        """End the listener's subscriptions."""
        self._listener.unregister()
