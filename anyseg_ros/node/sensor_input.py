"""One sensor's topic: subscribe, convert on a thread, hand over; and say what is wrong with the connection."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]  # where every distribution has it
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from anyseg_core.runtime.events.decoder import EventDecodeError
from anyseg_core.runtime.events.stream import MESSAGE_READERS, EventStream
from anyseg_core.runtime.geometry.projection import PinholeCamera
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.sensors import EVENT, Sensor, SensorFrame
from anyseg_ros.messages.conversions import ConversionError, require_affordable
from anyseg_ros.messages.sensor_messages import COMPRESSED_IMAGE, SENSOR_MESSAGES, reader_of
from anyseg_ros.messages.types import install_command, message_class, message_name
from anyseg_ros.node.decoding_thread import DecodingThread
from anyseg_ros.node.inference_worker import InferenceWorker
from anyseg_ros.pipeline.parameters import EventParameters, ModalityParameters

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

WARN_PERIOD_S = 5.0
MOST_REASONS = 20
"""Kinds of reasons that are logged of one sensor."""
_NUMBERS = re.compile(r"[0-9]+")
COMPRESSED_SUFFIXES = ("/compressed", "/compressedDepth")

EVENT_TYPE_PERIOD_S = 0.2
"""Between looks at the type of a topic of events."""
EVENT_QUEUE_DEPTH = 100
"""Packets that may wait."""

_Converter = Callable[[Any], "SensorFrame | None"]


def sensor_qos(reliability: str, depth: int = 1) -> QoSProfile:
    """Depth 1: of frames that wait, only the newest matters."""
    policy = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=depth, reliability=policy)


class CalibrationSource(Protocol):
    """What a sensor's input needs of the calibration; `RigSource` has it."""

    def on_scan(self, frame: SensorFrame) -> None:
        """A scan is about to be used."""

    def aligned(self, frame: SensorFrame) -> SensorFrame:
        """The frame as it is to be used. Raises ConversionError."""
        ...

    def camera_of(self, sensor: Sensor) -> PinholeCamera | None:
        """The intrinsics that camera_info told of a sensor's pictures."""


class SensorInput:
    """The subscription of one modality, and the thread that converts its messages."""

    _depth = 1
    """Messages that may wait: of frames only the newest matters."""

    def __init__(
        self,
        node: Node,
        modality: Sensor,
        parameters: ModalityParameters,
        worker: InferenceWorker,
        rig: CalibrationSource,
    ) -> None:
        self._node = node
        self.modality = modality
        self._parameters = parameters
        self._worker = worker
        self._rig = rig
        self._topic = node.resolve_topic_name(parameters.topic)
        self._type, self._convert = self._type_and_converter()
        self._logged_reasons: set[str] = set()
        self._thread = DecodingThread(str(modality), self._decode, self._on_slow, self._depth)
        self._subscription: Any = None

    def start(self) -> None:
        """Subscribe. Its messages are converted and handed over from now on."""
        self._subscription = self._subscribe()

    def _type_and_converter(self) -> tuple[type, _Converter]:
        """The usual message of such sensors, or a compressed one where the topic's name says so."""
        readers = SENSOR_MESSAGES[self.modality.kind].readers
        compressed = self._topic.endswith(COMPRESSED_SUFFIXES) and COMPRESSED_IMAGE in readers
        name = COMPRESSED_IMAGE if compressed else next(iter(readers))
        found = message_class(name)
        assert found is not None  # sensor_msgs, which this package depends on
        return found, self._reader(name)

    def _reader(self, name: str) -> _Converter:
        """Of messages that are a frame each."""
        return reader_of(self.modality, name, self._parameters.full_scale)

    @property
    def topic(self) -> str:
        """Its full name, namespace and remappings applied."""
        return self._topic

    def destroy(self) -> None:
        """End the subscription and the thread."""
        self._unsubscribe()
        self._thread.stop()

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def check_connection(self) -> None:
        """Have it in the status, and so once in the log, where nobody publishes the topic or it has another type."""
        complaint = self._connection_complaint()
        self._worker.apply(lambda pipeline, _now_ns: pipeline.set_remark(self.modality, complaint))

    def _subscribe(self, raw: bool = False) -> Any:
        # A compressed picture or a packet of events may take anything between a millisecond and a second.
        self._thread.alike = not raw and message_name(self._type) != COMPRESSED_IMAGE
        qos = sensor_qos(self._parameters.qos, self._depth)
        # Types are watched by `check_connection`, on every distribution; rclpy's own warnings name no remedy.
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos, use_default_callbacks=False)
        arguments = (self._type, self._parameters.topic, self._on_message, qos)
        try:
            return self._node.create_subscription(*arguments, event_callbacks=events, raw=raw)
        except UnsupportedEventTypeError:  # an RMW without QoS events
            return self._node.create_subscription(*arguments, raw=raw)

    def _on_message(self, message: Any) -> None:
        self._thread.put((self._convert, message))

    def _decode(self, waiting: tuple[_Converter, Any]) -> None:
        """On the sensor's thread: a message, with the converter of the type that was subscribed to when it came."""
        convert, message = waiting
        try:
            camera = self._rig.camera_of(self.modality)
            require_affordable(message, self.modality, camera, self._parameters.max_pixels)
            frame = convert(message)
            if frame is not None:
                frame = self._rig.aligned(frame)
                if frame.kind.is_points:
                    self._rig.on_scan(frame)
                self._worker.deliver(frame)
        except ConversionError as error:
            self._reject(error.fault, str(error))
        except Exception as error:  # a message that nobody foresaw must not stop the node: it is counted and named
            self._reject(Fault.DECODE_ERROR, f"{type(error).__name__}: {error}")

    def _on_slow(self, seconds: float) -> None:
        """On the sensor's thread: it rests now, so that the others get their share of the cores."""
        reason = f"decoding one message took {1e3 * seconds:.0f} ms: send smaller pictures, or fewer"
        self._reject(Fault.DECODE_ERROR, reason)

    def _reject(self, fault: Fault, reason: str) -> None:
        """Count it, and log it once for each kind of reason: the status says it as long as it lasts."""
        self._worker.reject(self.modality, fault, reason)
        kind = _NUMBERS.sub("", reason)
        if kind not in self._logged_reasons and len(self._logged_reasons) < MOST_REASONS:
            self._logged_reasons.add(kind)
            self._node.get_logger().warning(f"{self._topic}: malformed {self.modality} message: {reason}")

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
        wanted = message_name(self._type)
        others = {info.topic_type for info in publishers} - {wanted}
        if others and len(others) == len({info.topic_type for info in publishers}):
            return self._type_complaint(others, wanted, remedy)
        if len(publishers) > 1:
            names = ", ".join(sorted(f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in publishers))
            return f"{self._topic} ({self.modality}) has {len(publishers)} publishers ({names}): their frames are mixed"
        return ""

    def _type_complaint(self, found: set[str], wanted: str, remedy: str) -> str:
        missing = sorted(name.partition("/")[0] for name in found if name in MESSAGE_READERS)
        if self.modality.kind is EVENT and missing:
            remedy = f"its package is not installed: {install_command(missing[0])}"
        return f"{self._topic} ({self.modality}) is {', '.join(sorted(found))}, not {wanted}: {remedy}"


class EventInput(SensorInput):
    """The subscription of the event modality, made when a publisher has shown what it carries: an Image of counts,
    or single events.

    Packets that wait are all kept: of them the newest does not replace the others. They are taken in serialized form:
    objects for every event would cost a thousand times as much as decoding.
    """

    _depth = EVENT_QUEUE_DEPTH

    def __init__(
        self,
        node: Node,
        modality: Sensor,
        parameters: ModalityParameters,
        worker: InferenceWorker,
        rig: CalibrationSource,
        events: EventParameters,
    ) -> None:
        super().__init__(node, modality, parameters, worker, rig)
        self._events = events
        self._name = ""
        self._timer: Any = None

    def start(self) -> None:
        """Look for a publisher, now and again, and subscribe to what it publishes."""
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a simulated one may not run yet
        self._timer = self._node.create_timer(EVENT_TYPE_PERIOD_S, self._follow_type, clock=steady)
        self._follow_type()

    def destroy(self) -> None:
        """End the subscription."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        super().destroy()

    def _follow_type(self) -> None:
        """Subscribe where all publishers have one type, it is known, installed, and not subscribed to already."""
        offered = {info.topic_type for info in self._node.get_publishers_info_by_topic(self._topic)}
        name = offered.pop() if len(offered) == 1 else self._name
        found = message_class(name)
        if name == self._name or found is None or name not in {*MESSAGE_READERS, *SENSOR_MESSAGES[EVENT].readers}:
            return
        if self._subscription is not None:
            # DDS allows one type on a topic, and forgets the old one when the executor has let go of it: next time.
            self._unsubscribe()
            self._name = ""
            return
        self._name, self._type = name, found
        if name in MESSAGE_READERS:
            self._convert = self._frame_converter(name)
            self._subscription = self._subscribe(raw=True)
        else:
            self._convert = self._reader(name)
            self._subscription = self._subscribe()

    def _frame_converter(self, name: str) -> _Converter:
        period_ns = self._parameters.health({}).period_ns
        stream = EventStream(name, period_ns, self._events.window_ns, self.modality)

        def convert(cdr: bytes) -> SensorFrame | None:
            try:
                return stream.add(cdr)
            except EventDecodeError as error:
                raise ConversionError(Fault.DECODE_ERROR, str(error)) from None

        return convert
