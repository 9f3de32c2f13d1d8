"""Where the calibration comes from: camera_info and TF, else parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo

from anyseg_core.runtime.geometry.poses import PoseHistory
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.geometry.rigid_transform import rigid_transform
from anyseg_ros.messages.conversions import ConversionError, pinhole_camera
from anyseg_ros.messages.default_topics import CAMERA_INFO, DEPTH_INFO, ODOMETRY
from anyseg_ros.messages.odometry import Odometer
from anyseg_ros.messages.types import install_command, message_class
from anyseg_ros.node.inference_worker import InferenceWorker
from anyseg_ros.node.sensor_input import WARN_PERIOD_S, sensor_qos
from anyseg_ros.pipeline.parameters import RigParameters

try:
    import tf2_ros
except ImportError:  # the wheels have none: the rig.* parameters give the extrinsics
    tf2_ros = None

ODOMETRY_QUEUE_DEPTH = 20


class RigSource:
    """Keeps the rig of the pipeline up to date.

    The depth camera's intrinsics stand in until the camera's arrive: students are trained on aligned images, so
    both look at the same view.
    """

    def __init__(
        self, node: Node, parameters: RigParameters, worker: InferenceWorker, *, has_lidar: bool = True
    ) -> None:
        """`has_lidar`: whether there are scans to compensate."""
        self._node = node
        self._parameters = parameters
        self._worker = worker
        self._cameras: dict[str, PinholeCamera] = {}
        self._optical_frame = self._lidar_frame = ""
        self._set: tuple[PinholeCamera, bytes] | None = None
        self._subscriptions = [self._subscribe(topic) for topic in (CAMERA_INFO, DEPTH_INFO)]
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

    def destroy(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        if self._tf is not None:
            self._tf.destroy()

    def refresh(self, lidar_frame: str) -> None:
        """Hand over the rig where it has changed; `lidar_frame` is the frame_id of the points."""
        self._lidar_frame = lidar_frame
        camera = self._cameras.get(CAMERA_INFO) or self._cameras.get(DEPTH_INFO) or self._parameters.camera()
        if camera is None:
            return
        extrinsics = self._extrinsics(lidar_frame)
        key = (camera, extrinsics.tobytes())
        if key != self._set:
            self._set = key
            self._worker.apply(lambda pipeline, _now_ns: pipeline.set_rig(Rig(camera, extrinsics)))

    def _extrinsics(self, lidar_frame: str) -> NDArray[np.float64]:
        found = self._tf.lookup(self._optical_frame, lidar_frame) if self._tf is not None else None
        return self._parameters.camera_from_lidar() if found is None else found

    def base_from(self, base_frame: str, frame_id: str, *, is_lidar: bool, rig: Rig) -> NDArray[np.float64] | None:
        """4x4, from a sensor's axes to the vehicle's base: by TF, else by the parameters; None where nobody knows it.

        A depth camera that TF does not know sits where the LiDAR's place and the rig's extrinsics put it.
        """
        if frame_id == base_frame:
            return np.eye(4)
        found = self._tf.lookup(base_frame, frame_id) if self._tf is not None else None
        if found is not None or not self._parameters.knows_base:
            return found
        base_from_lidar = self._parameters.base_from_lidar()
        return base_from_lidar if is_lidar else base_from_lidar @ np.linalg.inv(rig.camera_from_lidar)

    def _subscribe_odometry(self) -> str:
        odometry = message_class("nav_msgs/msg/Odometry")
        if odometry is None:
            why = f"nav_msgs is not installed ({install_command('nav_msgs')}, or pip install ros-nav-msgs)"
            self._node.get_logger().info(f"LiDAR scans are not compensated for the vehicle's motion: {why}")
            return why
        qos = sensor_qos("best_effort", ODOMETRY_QUEUE_DEPTH)
        subscription = self._node.create_subscription(odometry, ODOMETRY, self._on_odometry, qos)
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
        found = self._tf.lookup(self._lidar_frame, message.child_frame_id) if self._tf is not None else None
        lidar_twist = twist.seen_from(self._parameters.lidar_from_base() if found is None else found)
        self._worker.apply(lambda pipeline, _now_ns: pipeline.on_motion(stamp_ns, lidar_twist))

    def _subscribe(self, topic: str) -> Any:
        def on_info(message: CameraInfo) -> None:
            self._on_info(topic, message)

        return self._node.create_subscription(CameraInfo, topic, on_info, sensor_qos("best_effort"))

    def _on_info(self, topic: str, message: CameraInfo) -> None:
        try:
            camera = pinhole_camera(message)
        except ConversionError as error:
            self._node.get_logger().warning(f"{topic} is ignored: {error}", throttle_duration_sec=WARN_PERIOD_S)
            return
        if topic == CAMERA_INFO or not self._optical_frame:
            self._optical_frame = message.header.frame_id
        if self._cameras.get(topic) != camera:
            self._cameras[topic] = camera
            self.refresh(self._lidar_frame)


class _TransformSource:
    """The newest transform between two frames, by TF."""

    def __init__(self, node: Node) -> None:
        assert tf2_ros is not None
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def lookup(self, target: str, source: str) -> NDArray[np.float64] | None:
        """target_from_source as 4x4, or None where TF does not know it (yet)."""
        if tf2_ros is None or not target or not source:
            return None
        try:
            transform = self._buffer.lookup_transform(target, source, Time()).transform
        except tf2_ros.TransformException:
            return None
        t, r = transform.translation, transform.rotation
        return rigid_transform((t.x, t.y, t.z), (r.x, r.y, r.z, r.w))

    def destroy(self) -> None:
        """End the listener's subscriptions."""
        self._listener.unregister()
