"""One sensor's topic: subscribe, convert, hand over; and say what is wrong with the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from anyseg_core.runtime.health import Fault
from anyseg_core.runtime.modality import Modality, ModalityFrame
from anyseg_ros import conversions
from anyseg_ros.conversions import ConversionError
from anyseg_ros.inference_worker import InferenceWorker
from anyseg_ros.parameters import ModalityParameters

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

WARN_PERIOD_S = 5.0
COMPRESSED_SUFFIXES = ("/compressed", "/compressedDepth")

_Converter = Callable[[Any], ModalityFrame]
_RAW: Mapping[Modality, tuple[type, _Converter]] = MappingProxyType(
    {
        Modality.CAMERA: (Image, conversions.camera_frame),
        Modality.DEPTH: (Image, conversions.depth_frame),
        Modality.EVENT: (Image, conversions.event_frame),
        Modality.LIDAR: (PointCloud2, conversions.lidar_frame),
    }
)
_COMPRESSED: Mapping[Modality, tuple[type, _Converter]] = MappingProxyType(
    {
        Modality.CAMERA: (CompressedImage, conversions.compressed_camera_frame),
        Modality.DEPTH: (CompressedImage, conversions.compressed_depth_frame),
    }
)


def sensor_qos(reliability: str) -> QoSProfile:
    """Depth 1: of frames that wait, only the newest matters."""
    policy = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=1, reliability=policy)


class SensorInput:
    """The subscription of one modality."""

    def __init__(self, node: Node, modality: Modality, parameters: ModalityParameters, worker: InferenceWorker) -> None:
        self._node = node
        self.modality = modality
        self._worker = worker
        self._complaint = ""
        self.frame_id = ""
        compressed = parameters.topic.endswith(COMPRESSED_SUFFIXES) and modality in _COMPRESSED
        self._type, self._convert = (_COMPRESSED if compressed else _RAW)[modality]
        self._subscription = self._subscribe(parameters)
        self._topic = self._subscription.topic_name

    def destroy(self) -> None:
        """End the subscription."""
        self._node.destroy_subscription(self._subscription)

    def check_connection(self) -> None:
        """Warn, once a change, of a topic that nobody publishes or that has another type."""
        complaint = self._connection_complaint()
        if complaint and complaint != self._complaint:
            self._node.get_logger().warning(complaint)
        self._complaint = complaint

    def _subscribe(self, parameters: ModalityParameters) -> Any:
        qos = sensor_qos(parameters.qos)
        # Types are watched by `check_connection`, on every distribution; rclpy's own warnings name no remedy.
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos, use_default_callbacks=False)
        try:
            return self._node.create_subscription(
                self._type, parameters.topic, self._on_message, qos, event_callbacks=events
            )
        except UnsupportedEventTypeError:  # an RMW without QoS events
            return self._node.create_subscription(self._type, parameters.topic, self._on_message, qos)

    def _on_message(self, message: Any) -> None:
        try:
            frame = self._convert(message)
        except ConversionError as error:
            self._reject(error.fault, str(error))
        except Exception as error:  # a message that nobody foresaw must not stop the node: it is counted and named
            self._reject(Fault.DECODE_ERROR, f"{type(error).__name__}: {error}")
        else:
            self.frame_id = frame.frame_id
            self._worker.deliver(frame)

    def _reject(self, fault: Fault, reason: str) -> None:
        self._worker.reject(self.modality, fault, reason)
        self._node.get_logger().warning(
            f"{self._topic}: malformed {self.modality} message: {reason}", throttle_duration_sec=WARN_PERIOD_S
        )

    def _on_incompatible_qos(self, event: Any) -> None:
        policy = getattr(event.last_policy_kind, "name", event.last_policy_kind)
        reason = (
            f"a publisher of {self._topic} offers an incompatible QoS ({policy}): nothing of it arrives. "
            f"Set modalities.{self.modality}.qos to best_effort, or make the publisher reliable."
        )
        self._node.get_logger().warning(reason)
        self._worker.reject(self.modality, Fault.INCOMPATIBLE_QOS, reason)

    def _connection_complaint(self) -> str:
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        remedy = f"set modalities.{self.modality}.topic or remap it"
        if not publishers:
            return f"nobody publishes {self._topic} ({self.modality}): start its driver, or {remedy}"
        wanted = f"{self._type.__module__.split('.')[0]}/msg/{self._type.__name__}"
        others = {info.topic_type for info in publishers} - {wanted}
        if others and len(others) == len({info.topic_type for info in publishers}):
            return f"{self._topic} ({self.modality}) is {', '.join(sorted(others))}, not {wanted}: {remedy}"
        return ""
