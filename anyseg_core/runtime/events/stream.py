"""Serialized messages of an event camera -> EVENT frames at a steady rate, for the live node and the replay of bags.

A driver sends packets some hundred times a second. They are kept as they are until a frame is due and decoded together
then, which costs a fraction of decoding each by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from anyseg_core.runtime.events.codecs import DecodeCounts
from anyseg_core.runtime.events.decoder import (
    Buffer,
    EventAccumulator,
    EventArray,
    EventDecodeError,
    EventDecoder,
    EventPacket,
    Events,
)
from anyseg_core.runtime.sensors import Sensor, SensorFrame

MESSAGE_READERS: Mapping[str, type[EventPacket] | type[EventArray]] = MappingProxyType(
    {
        "event_camera_msgs/msg/EventPacket": EventPacket,
        "event_array_msgs/msg/EventArray": EventPacket,  # its name before it became event_camera_msgs
        "dvs_msgs/msg/EventArray": EventArray,
        "prophesee_event_msgs/msg/EventArray": EventArray,  # the same fields
    }
)
"""Message types that carry single events, and what reads their bytes."""

_NOT_BEGUN_NS = 1 << 63
_MAX_WAITING = 10_000
"""Messages that a frame may be made of; drivers send some hundred a second."""


class EventStream:
    """One event camera. Where its size or encoding changes, or its stamps run backwards, it begins anew."""

    def __init__(
        self, msgtype: str, period_ns: int, window_ns: int | None = None, sensor: Sensor = Sensor.EVENT
    ) -> None:
        """A frame every `period_ns`, of the events of the last `window_ns` (one period unless given).

        Raises EventDecodeError for a message type that carries no events, ValueError for times that are not > 0.
        """
        if msgtype not in MESSAGE_READERS:
            raise EventDecodeError(f"{msgtype} carries no events; {', '.join(MESSAGE_READERS)} do")
        if period_ns <= 0 or (window_ns is not None and window_ns <= 0):
            raise ValueError(f"event frames every {period_ns} ns of {window_ns} ns: both must be > 0")
        self._sensor = sensor
        self._read = MESSAGE_READERS[msgtype].from_cdr
        self._period_ns, self._window_ns = period_ns, window_ns or period_ns
        self._waiting: list[EventPacket | EventArray] = []
        self._decoder: EventDecoder | None = None
        self._window: EventAccumulator | None = None
        self._base_ns = _NOT_BEGUN_NS
        """What the time to the next frame counts from."""
        self._events_ns = 0
        """Stamp of the last message with events in it."""
        self._sequence = 0

    @property
    def counts(self) -> DecodeCounts:
        """What was met and left out so far, of the messages that have been decoded; dvs_msgs have nothing to count."""
        return self._decoder.counts if self._decoder is not None else DecodeCounts()

    def add(self, cdr: Buffer) -> SensorFrame | None:
        """Take the next message; returns the frame that is due with it, stamped and named as it is.

        Its `sequence` goes up by one, and by the packets that were lost since the frame before. Raises EventDecodeError
        for bytes that are no such message or cannot be decoded; the messages after it are.
        """
        message = self._read(cdr)
        if message.stamp_ns < self._base_ns:
            self._begin_at(message)
        self._waiting.append(message)
        late_ns = message.stamp_ns - self._base_ns - self._period_ns
        if late_ns >= 0:
            # Frames keep to their rate though messages do not end on it; after a gap they begin anew.
            self._base_ns = message.stamp_ns - (late_ns if late_ns < self._period_ns else 0)
            return self._frame(message)
        if len(self._waiting) > _MAX_WAITING:
            self._waiting.clear()
            raise EventDecodeError(f"{_MAX_WAITING} event messages within a frame: their stamps do not go on")
        return None

    def _begin_at(self, message: EventPacket | EventArray) -> None:
        self._waiting.clear()
        self._window = None
        self._base_ns = self._events_ns = message.stamp_ns

    def _frame(self, last: EventPacket | EventArray) -> SensorFrame:
        lost_before = self.counts.lost_packets
        waiting, self._waiting = self._waiting, []
        events = self._decoded(waiting)
        window = self._window_of(last.width, last.height)
        window.add(events)
        if len(events):
            self._events_ns = last.stamp_ns
        self._sequence += 1 + max(self.counts.lost_packets - lost_before, 0)
        # Without events the window moves on with the stamps: the sensor's own clock is told by its events only.
        counts = window.image(window.latest_ns + last.stamp_ns - self._events_ns)
        return SensorFrame(self._sensor, counts, last.stamp_ns, last.frame_id, self._sequence)

    def _decoded(self, messages: list[EventPacket | EventArray]) -> Events:
        """The events of the messages, from where the sensor has had its present size and encoding."""
        packets = [message for message in messages if isinstance(message, EventPacket)]
        if not packets:
            size = messages[-1].width, messages[-1].height
            arrays = [m for m in messages if isinstance(m, EventArray) and (m.width, m.height) == size]
            return Events.concatenate([array.events for array in arrays])
        decoder = self._decoder
        if decoder is None or not decoder.takes(packets[-1]):
            decoder = self._decoder = EventDecoder.for_packet(packets[-1])
        return decoder.decode_packets([packet for packet in packets if decoder.takes(packet)])

    def _window_of(self, width: int, height: int) -> EventAccumulator:
        window = self._window
        if window is None or (window.width, window.height) != (width, height):
            try:
                window = self._window = EventAccumulator(width, height, self._window_ns)
            except ValueError as error:
                raise EventDecodeError(str(error)) from None
        return window
