"""Plays a fault schedule on serialized messages. What a fault does not touch leaves as the very bytes that came.

Stamps are patched in place in the CDR bytes; only faults of content and of the message itself decode it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, InjectionScheduleError, SchedulePlayer, Stage
from anyseg_core.injection.degradations import Generator
from anyseg_core.injection.kinds import Degradation, spoil
from anyseg_core.injection.player import REPEATING
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.inject import rewriting
from anyseg_ros.messages.conversions import ConversionError
from anyseg_ros.messages.header_stamp import header_stamp_ns, with_header_stamp
from anyseg_ros.messages.sensor_messages import EVENT_STREAMS

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

_HEADER = "std_msgs/msg/Header"
_EVENT_PACKET = """std_msgs/Header header
uint32 height
uint32 width
uint64 seq
uint64 time_base
string encoding
bool is_bigendian
uint8[] events
"""
"""event_camera_msgs/msg/EventPacket, of which ROS 2 itself knows nothing."""


@dataclass(frozen=True)
class SensorMessage:
    """A serialized message of a sensor."""

    modality: Sensor
    msgtype: str
    """`sensor_msgs/msg/Image`, for example."""
    cdr: bytes | memoryview
    """XCDR1 with its 4 bytes of encapsulation, as rclpy's raw subscriptions and rosbags' readers give it."""
    origin: Any = None
    """Whatever the player wants back with it: a bag's connection, a publisher."""


class MessageInjector(SchedulePlayer[SensorMessage]):
    """Plays a schedule on serialized messages, as `Injector` does on frames.

    Args:
        schedule: what to play.
        types: the message type of each sensor, as far as it is known; see `require_playable` for the others.
        typestore: rosbags' type store with those types; by default `sensor_types()`.
        stages: which faults to play; somebody else may play the rest.

    Raises InjectionScheduleError for a fault that such messages cannot have.
    """

    def __init__(
        self,
        schedule: InjectionSchedule,
        types: Mapping[Sensor, str] = MappingProxyType({}),
        typestore: Typestore | None = None,
        stages: Collection[Stage] = tuple(Stage),
    ) -> None:
        self._typestore = typestore or sensor_types()
        super().__init__(schedule, stages)
        for modality, msgtype in types.items():
            self.require_playable(modality, msgtype)
        self.unreadable: Counter[str] = Counter()
        """Messages that a fault would have changed, but that could not be decoded, by reason: they went through."""

    def require_playable(self, modality: Sensor, msgtype: str) -> None:
        """Raises InjectionScheduleError for a fault of that sensor that messages of this type cannot have.

        Played all the same, it leaves the messages as they are.
        """
        for kind in dict.fromkeys(entry.kind for entry in self.schedule.injections if entry.modality is modality):
            self._refuse_unplayable(kind, modality, msgtype)

    def _refuse_unplayable(self, kind: str, modality: Sensor, msgtype: str) -> None:
        stage = INJECTION_KINDS[kind].stage
        reason = ""
        if stage is Stage.STAMP or kind in REPEATING:
            reason = "" if self._starts_with_header(msgtype) else "has no header with a stamp to change"
        elif kind in _PAYLOAD_FAULTS:
            reason = "" if self._has_payload(msgtype) else "has no bytes here that this could break"
        elif stage is Stage.CONTENT and not self._is_content_changeable(kind, modality, msgtype):
            reason = "has a content that is not changed here: only loss, delay and stamps are"
        if reason:
            raise InjectionScheduleError(f"{kind} of {modality} cannot be played: {msgtype} {reason}")

    @staticmethod
    def _is_content_changeable(kind: str, modality: Sensor, msgtype: str) -> bool:
        if kind == "event_gap" and msgtype in EVENT_STREAMS:
            return True  # packets are lost whole
        return rewriting.is_rewritable(modality, msgtype)

    def _starts_with_header(self, msgtype: str) -> bool:
        fields = self._fields(msgtype)
        return msgtype in EVENT_STREAMS or (bool(fields) and fields[0][1][1] == _HEADER)

    def _has_payload(self, msgtype: str) -> bool:
        """Whether the type is known here and has a field of bytes."""
        names = {name for name, _ in self._fields(msgtype)}
        return bool(names & set(rewriting.PAYLOAD_FIELDS)) and bool(names & {"encoding", "format", "fields"})

    def _fields(self, msgtype: str) -> list[Any]:
        return self._typestore.fielddefs[msgtype][1] if msgtype in self._typestore.fielddefs else []

    def modality_of(self, item: SensorMessage) -> Sensor:
        return item.modality

    def stamp_ns_of(self, item: SensorMessage) -> int:
        return header_stamp_ns(item.cdr) or 0

    def with_stamp(self, item: SensorMessage, stamp_ns: int) -> SensorMessage:
        return replace(item, cdr=with_header_stamp(item.cdr, stamp_ns))

    def owned(self, item: SensorMessage) -> SensorMessage:
        return replace(item, cdr=bytes(item.cdr))

    def repeated(self, held: SensorMessage, item: SensorMessage) -> SensorMessage:
        return self.with_stamp(replace(held, origin=item.origin), self.stamp_ns_of(item))

    def spoiled(
        self,
        item: SensorMessage,
        kind: str,
        degradation: Degradation | None,
        rng: Generator,
        parameters: Mapping[str, float],
    ) -> SensorMessage | None:
        if kind == "event_gap" and item.msgtype in EVENT_STREAMS:
            return None if rng.random() < parameters["fraction"] else item
        try:
            message = self._typestore.deserialize_cdr(item.cdr, item.msgtype)
            changed = self._changed(item, message, kind, degradation, rng, parameters)
        except ConversionError as error:
            return self._let_through(item, str(error))
        except Exception as error:  # whatever a decoder says of bytes that are no such message
            return self._let_through(item, f"{item.msgtype} cannot be decoded: {type(error).__name__}")
        return replace(item, cdr=bytes(self._typestore.serialize_cdr(changed, item.msgtype)))

    @staticmethod
    def _changed(
        item: SensorMessage,
        message: Any,
        kind: str,
        degradation: Degradation | None,
        rng: Generator,
        parameters: Mapping[str, float],
    ) -> Any:
        if kind in _PAYLOAD_FAULTS:
            return _PAYLOAD_FAULTS[kind](message, rng, parameters)
        assert degradation is not None  # the other kinds are of timing, which the player itself does
        return rewriting.rewritten(
            message, item.modality, item.msgtype, lambda frame: spoil(frame, degradation, rng, parameters)
        )

    def _let_through(self, item: SensorMessage, reason: str) -> SensorMessage:
        self.unreadable[f"{item.modality}: {reason}"] += 1
        return item


_PayloadFault = Callable[[Any, Generator, Mapping[str, float]], Any]
_PAYLOAD_FAULTS: Mapping[str, _PayloadFault] = {
    "corrupt": lambda message, rng, parameters: rewriting.corrupted(message, rng, parameters["fraction"]),
    "truncate": lambda message, _rng, parameters: rewriting.truncated(message, parameters["keep"]),
    "wrong_encoding": lambda message, _rng, _parameters: rewriting.wrongly_encoded(message),
}


def sensor_types() -> Typestore:
    """The types of ROS 2 Humble, whose sensor messages are those of every later distribution, and EventPacket."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(_EVENT_PACKET, EVENT_STREAMS[0]))
    return store
