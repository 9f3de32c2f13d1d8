"""Event-camera streams -> events -> count images.

Encodings (facts from docs.prophesee.ai "Data encoding formats" and from ros-event-camera/event_camera_codecs):

- `evt3`: 16-bit words; a word sets the row, the time or the base of a vector, or emits events at the state so far.
- `libcaer_cmp`: the same idea with rows and columns exchanged, times relative to the packet's `time_base`.
- `evt2`: 32-bit words, one event each; the upper 28 bits of the time come in words of their own.
- `mono`: 64-bit words, one event each, in nanoseconds since the packet's `time_base`.

The 16-bit formats are decoded by the compiled loop of event_kernel.py where numba is installed. Without it there is no
loop over words: the words that emit events are found, and every word that sets a state is repeated for as long as it
holds.
"""

from __future__ import annotations

import array
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, Union

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime import event_kernel as kernel

Buffer = Union[bytes, bytearray, memoryview, "array.array[int]", NDArray[np.uint8]]
"""What a bag, a raw subscription or a message's `uint8[]` field delivers."""

ENCODINGS = ("evt3", "libcaer_cmp", "evt2", "mono")


class EventDecodeError(ValueError):
    """Data that cannot be decoded at all; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Events:
    """N events in the order of their times, all inside the sensor.

    `x`, `y`: uint16 [N] pixels; `polarity`: bool [N], True = brighter; `t_ns`: int64 [N], never decreasing.
    The clock of `t_ns` is the sensor's (evt3, evt2: since power-up) or the host's (libcaer_cmp, mono, dvs_msgs).
    """

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    polarity: NDArray[np.bool_]
    t_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.t_ns)

    @classmethod
    def concatenate(cls, parts: Iterable[Events]) -> Events:
        """The events of all parts, one after the other."""
        parts = list(parts)
        if len(parts) == 1:
            return parts[0]
        parts.append(_NO_EVENTS)  # np.concatenate needs at least one array
        return cls(
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.polarity for part in parts]),
            np.concatenate([part.t_ns for part in parts]),
        )


_NO_EVENTS = Events(np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.bool_), np.empty(0, np.int64))


@dataclass
class DecodeCounts:
    """What a decoder has met so far; everything it left out is counted here."""

    packets: int = 0
    events: int = 0
    triggers: int = 0
    """External trigger words, skipped."""
    other_words: int = 0
    """Words for system information, skipped."""
    unknown_words: int = 0
    """Words of a type the format does not define: a sign of corruption."""
    out_of_bounds: int = 0
    """Events outside the sensor, dropped."""
    unsynchronised: int = 0
    """Events dropped because their time, row or vector base was lost with earlier data or is yet to come."""
    truncated_packets: int = 0
    """Packets that end inside a word."""
    lost_packets: int = 0
    """Packets missing by their sequence numbers."""
    time_wraps: int = 0
    time_corrections: int = 0
    """Times that would have run backwards; the latest time was used instead."""


class PacketLike(Protocol):
    """The fields of event_camera_msgs/EventPacket that decoding needs: a message or our `EventPacket`."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def time_base(self) -> int: ...
    @property
    def encoding(self) -> str: ...
    @property
    def is_bigendian(self) -> bool: ...
    @property
    def events(self) -> Buffer: ...


class EventDecoder:
    """Decodes one stream; what a packet leaves unfinished is carried over to the next one.

    Damaged data is decoded as far as it goes, and what was left out is in `counts`; see `decode` for the errors.
    """

    def __init__(self, encoding: str, width: int, height: int, big_endian: bool = False) -> None:
        """Sensor size in pixels. Raises EventDecodeError for an unknown encoding or an impossible size."""
        if encoding not in _CODECS:
            known = ", ".join(ENCODINGS)
            raise EventDecodeError(f"unknown event encoding {encoding!r}: set the driver to one of {known}")
        if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
            raise EventDecodeError(f"event sensor of {width}x{height} pixels: sides must be 1 to {_MAX_SIDE}")
        self.encoding, self.width, self.height, self.big_endian = encoding, width, height, big_endian
        self.counts = DecodeCounts()
        self._codec = _CODECS[encoding](self.counts)
        self._next_seq: int | None = None

    @classmethod
    def for_packet(cls, packet: PacketLike) -> EventDecoder:
        """The decoder of the stream that this packet belongs to. Raises EventDecodeError as the constructor does."""
        return cls(packet.encoding, packet.width, packet.height, packet.is_bigendian)

    def decode(self, data: Buffer, time_base: int = 0) -> Events:
        """The events of the next packet.

        `time_base` in nanoseconds is used by libcaer_cmp and mono only. A packet that ends inside a word loses that
        word, is counted and resynchronises the decoder. Raises EventDecodeError where `time_base` is impossible, and
        nothing else whatever the bytes are.
        """
        if not 0 <= time_base < _MAX_TIME_NS:
            raise EventDecodeError(
                f"event packet with time_base {time_base}: not a time in nanoseconds; drop the packet"
            )
        raw = np.frombuffer(data, np.uint8)
        dtype = self._codec.word.newbyteorder(">" if self.big_endian else "<")
        usable = len(raw) - len(raw) % dtype.itemsize
        # A view into a message can begin at any byte, the codecs need aligned words.
        words = np.require(raw[:usable].view(dtype), self._codec.word, "A")
        events = Events.concatenate(map(self._inside, self._codec.decode(words, time_base)))
        self.counts.packets += 1
        self.counts.events += len(events)
        if usable < len(raw):
            self.counts.truncated_packets += 1
            self.resynchronise()
        return events

    def decode_packet(self, packet: PacketLike) -> Events:
        """`decode` for a message; a gap in `seq` is counted and resynchronises.

        Raises EventDecodeError where encoding, byte order or size are not those of this stream.
        """
        found = (packet.encoding, packet.width, packet.height, bool(packet.is_bigendian))
        expected = (self.encoding, self.width, self.height, self.big_endian)
        if found != expected:
            raise EventDecodeError(f"event packet is {found}, the stream was {expected}: start a new decoder for it")
        if self._next_seq is not None and packet.seq != self._next_seq:
            self.counts.lost_packets += max(packet.seq - self._next_seq, 0)
            self.resynchronise()
        self._next_seq = packet.seq + 1
        return self.decode(packet.events, packet.time_base)

    def resynchronise(self) -> None:
        """Data was lost: emit nothing until the stream has told its time and address again."""
        self._codec.resynchronise()

    def _inside(self, block: _Block) -> Events:
        """The events of a block that are inside the sensor."""
        x, y, polarity, t_ns = block
        if len(x) and (int(x.max()) >= self.width or int(y.max()) >= self.height):
            unknown = (x == kernel.UNKNOWN) | (y == kernel.UNKNOWN)
            good = np.flatnonzero((x < self.width) & (y < self.height))
            self.counts.unsynchronised += int(np.count_nonzero(unknown))
            self.counts.out_of_bounds += len(x) - len(good) - int(np.count_nonzero(unknown))
            x, y, polarity, t_ns = x[good], y[good], polarity[good], t_ns[good]
        return Events(x.astype(np.uint16, copy=False), y.astype(np.uint16, copy=False), polarity, t_ns)


_MAX_SIDE = 1 << 15  # `mono` has 15 bits for y
_MAX_TIME_NS = 1 << 62
_BLOCK = 1 << 15
"""Words at a time, to bound the memory of temporary arrays."""

_Int = NDArray[np.int64]
_Block = tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.bool_], NDArray[np.int64]]
"""x, y, polarity, t_ns of some events, not yet checked against the size of the sensor."""


class _Codec(Protocol):
    """One encoding. `word` is its unit; `decode` gets whole, aligned words in the machine's byte order."""

    word: np.dtype

    def __init__(self, counts: DecodeCounts) -> None: ...
    def decode(self, words: NDArray, time_base: int) -> Iterator[_Block]: ...
    def resynchronise(self) -> None: ...


def _unwrap(values: _Int, last: int, bits: int, backward: int, max_wraps: int) -> tuple[_Int, int]:
    """Upper time bits int64 [n] after the unwrapped `last` -> the same without wraps, and how often they wrapped."""
    steps = values - np.concatenate([[last & (1 << bits) - 1], values[:-1]])[: len(values)]
    wrapped = np.cumsum(steps < -backward)
    unwrapped = np.minimum((last >> bits) + wrapped, max_wraps) << bits | values
    return unwrapped, int(wrapped[-1]) if len(values) else 0


def _held(positions: _Int, values: NDArray, carried: int, length: int) -> NDArray:
    """[length]: at each word the value set last, `carried` before the first of the increasing `positions`."""
    ends = np.empty(len(positions) + 2, np.int64)
    ends[0], ends[1:-1], ends[-1] = 0, positions, length
    settings = np.empty(len(values) + 1, values.dtype)
    settings[0], settings[1:] = carried, values
    return np.repeat(settings, ends[1:] - ends[:-1])


def _never_decreasing(times: _Int, earliest: int) -> tuple[_Int, int]:
    """Times int64 [n] with every step back replaced by the latest time so far, and how many were."""
    monotonic = np.maximum(np.maximum.accumulate(times), earliest)
    return monotonic, int(np.count_nonzero(monotonic != times))


def _first(mask: NDArray[np.bool_]) -> int:
    """Index of the first True, or the length where there is none."""
    return int(mask.argmax()) if mask.any() else len(mask)


def _roles(**types: int | tuple[int, ...]) -> NDArray[np.uint8]:
    """uint8 [16]: the role of each value of the upper four bits, from role names and their values."""
    table = np.full(16, kernel.UNDEFINED, np.uint8)
    for role, values in types.items():
        table[np.array(values)] = getattr(kernel, role)
    return table


class _VectorWords:
    """`evt3` and `libcaer_cmp`: 16-bit words, four bits of type and twelve of content.

    One coordinate is held for many events, the other moves with every event.
    """

    word = np.dtype(np.uint16)
    roles: NDArray[np.uint8]
    held_is_x: bool

    def __init__(self, counts: DecodeCounts) -> None:
        self.counts = counts
        self.state = np.zeros(10, np.int64)
        self.resynchronise()

    def resynchronise(self) -> None:
        self.state[kernel.HELD_AT], self.state[kernel.BASE_AT] = kernel.UNKNOWN, kernel.UNKNOWN_BASE
        self.state[kernel.POLARITY_AT] = 0
        self.high_known = self.time_known = False

    def decode(self, words: NDArray[np.uint16], time_base: int) -> Iterator[_Block]:
        words = self._start_packet(words)
        for held, moving, polarity, t_ns in _decoded(words, self.roles, self.state, time_base):
            x, y = (held, moving) if self.held_is_x else (moving, held)
            yield x, y, polarity, t_ns
        self._collect_counts()

    def _start_packet(self, words: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The words from where the time is known."""
        raise NotImplementedError

    def _collect_counts(self) -> None:
        tally = self.state[kernel.WRAPS_AT :]
        wraps, corrections, triggers, others, undefined = tally.tolist()
        self.counts.time_wraps += wraps
        self.counts.time_corrections += corrections
        self.counts.triggers += triggers
        self.counts.other_words += others
        self.counts.unknown_words += undefined
        tally[:] = 0


_Decoded = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.bool_], NDArray[np.int64]]
"""Held coordinate, moving coordinate, polarity, t_ns, each [N]."""


def _decoded(words: NDArray[np.uint16], roles: NDArray[np.uint8], state: _Int, time_base: int) -> Iterator[_Decoded]:
    """By the compiled loop in one piece, or without numba in blocks."""
    compiled = kernel.compiled()
    if compiled is None:
        for start in range(0, len(words), _BLOCK):
            yield _decode_vectorised(words[start : start + _BLOCK], roles, state, time_base)
        return
    count_events, decode_words = compiled
    n = count_events(words, roles)
    out = (np.empty(n, np.uint16), np.empty(n, np.uint16), np.empty(n, np.bool_), np.empty(n, np.int64))
    decode_words(words, roles, state, time_base, *out)
    yield out


def _decode_vectorised(words: NDArray[np.uint16], roles: NDArray[np.uint8], state: _Int, time_base: int) -> _Decoded:
    kinds = roles[words >> 12]  # [n]
    vector_8, vector_12 = kinds == kernel.VECTOR_8, kinds == kernel.VECTOR_12
    emitting = np.flatnonzero((kinds == kernel.SINGLE) | vector_8 | vector_12)  # [e]
    bases = np.flatnonzero(kinds == kernel.BASE)
    _count_skipped(kinds, state)
    t_ns = (_times_us(words, kinds, state) * 1000 + time_base)[emitting]  # [e]
    held = _held_coordinates(words, kinds, state)[emitting]  # [e]
    content = words[emitting]  # [e]
    if len(bases) == 0 and not vector_8.any() and not vector_12.any():
        return held, content & np.uint16(0x7FF), (content & 0x800) != 0, t_ns
    advance = vector_8 * np.uint8(8) + vector_12 * np.uint8(12)  # [n]
    starts = _vector_starts(words, bases, advance, state)[emitting]  # [e]
    source, moving, polarity = _expand(content, advance[emitting], starts)  # [N] each
    return held[source], moving, polarity, t_ns[source]


def _count_skipped(kinds: NDArray[np.uint8], state: _Int) -> None:
    for role, place in (
        (kernel.TRIGGER, kernel.TRIGGERS_AT),
        (kernel.OTHER, kernel.OTHERS_AT),
        (kernel.UNDEFINED, kernel.UNDEFINED_AT),
    ):
        state[place] += np.count_nonzero(kinds == role)


def _times_us(words: NDArray[np.uint16], kinds: NDArray[np.uint8], state: _Int) -> _Int:
    """int64 [n]: the time at each word. New upper bits put the lower ones to zero until their own word follows."""
    positions = np.flatnonzero((kinds == kernel.TIME_LOW) | (kinds == kernel.TIME_HIGH))  # [t]
    is_high, content = kinds[positions] == kernel.TIME_HIGH, (words[positions] & 0xFFF).astype(np.int64)
    highs, before = np.flatnonzero(is_high), int(state[kernel.HIGH_AT])
    unwrapped, wraps = _unwrap(content[highs], before, 12, kernel.HIGH_BACKWARD, kernel.MAX_WRAPS)
    high = _held(highs, unwrapped, before, len(positions))  # [t]
    content[highs] = 0
    # Sensors repeat the upper bits often; only a change sets a time.
    changed = np.concatenate([[before], high])[:-1] != high
    news = np.flatnonzero(~is_high | changed)
    times, corrections = _never_decreasing(high[news] << 12 | content[news], int(state[kernel.TIME_AT]))
    filled = _held(positions[news], times, int(state[kernel.TIME_AT]), len(words))  # [n]
    state[kernel.HIGH_AT], state[kernel.TIME_AT] = high[-1] if len(high) else before, filled[-1]
    state[kernel.WRAPS_AT] += wraps
    state[kernel.CORRECTIONS_AT] += corrections
    return filled


def _held_coordinates(words: NDArray[np.uint16], kinds: NDArray[np.uint8], state: _Int) -> NDArray[np.uint16]:
    """uint16 [n]: the held coordinate at each word."""
    positions = np.flatnonzero(kinds == kernel.HELD)
    held = _held(positions, words[positions] & 0x7FF, int(state[kernel.HELD_AT]), len(words))
    state[kernel.HELD_AT] = held[-1]
    return held


def _vector_starts(
    words: NDArray[np.uint16], bases: _Int, advance: NDArray[np.uint8], state: _Int
) -> NDArray[np.int32]:
    """int32 [n]: where a vector at each word begins, doubled, plus its polarity.

    A vector begins where the one before it on the same base has ended.
    """
    passed = 2 * np.cumsum(advance, dtype=np.int32)  # [n], doubled pixels up to and with this word
    content = words[bases].astype(np.int32)
    starts = ((content & 0x7FF) << 1 | content >> 11 & 1) - passed[bases]
    before = int(state[kernel.BASE_AT]) << 1 | int(state[kernel.POLARITY_AT])
    origin = _held(bases, starts, before, len(words)) + passed  # [n]
    base, state[kernel.POLARITY_AT] = divmod(int(origin[-1]), 2)
    # A damaged stream can go on from one base without end.
    state[kernel.BASE_AT] = kernel.UNKNOWN_BASE if base >= kernel.UNKNOWN_BASE else min(base, kernel.MAX_BASE)
    return origin - 2 * advance.astype(np.int32)


def _expand(
    content: NDArray[np.uint16], length: NDArray[np.uint8], starts: NDArray[np.int32]
) -> tuple[_Int, NDArray[np.uint16], NDArray[np.bool_]]:
    """Words with 1 (`length` 0), 8 or 12 events -> of each event: index of its word, moving coordinate, polarity."""
    is_vector = length != 0
    single_starts = (content & 0x7FF).astype(np.int32) << 1 | (content >> 11 & 1)
    starts = np.where(is_vector, starts, single_starts)  # [e]
    members = (np.uint16(1) << length.astype(np.uint16)) - np.uint16(1)  # [e], the bits that count
    fired = np.where(is_vector, content & members, 1).astype("<u2")
    bits = np.flatnonzero(np.unpackbits(fired.view(np.uint8), bitorder="little"))  # [N], word * 16 + bit
    source = bits >> 4
    starts = starts[source]
    moving = (starts >> 1) + (bits & 15)
    moving = np.where(moving >= kernel.UNKNOWN_BASE, kernel.UNKNOWN, np.minimum(moving, kernel.MAX_BASE))
    return source, moving.astype(np.uint16), (starts & 1) != 0


class _Evt3(_VectorWords):
    roles = _roles(
        HELD=0x0, SINGLE=0x2, BASE=0x3, VECTOR_12=0x4, VECTOR_8=0x5, TIME_LOW=0x6, TIME_HIGH=0x8, TRIGGER=0xA,
        OTHER=(0x7, 0xE, 0xF),
    )  # fmt: skip
    held_is_x = False

    def _start_packet(self, words: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Skips to the first lower time bits that come after upper ones."""
        if self.time_known:
            return words
        kinds = self.roles[words >> 12]
        first = 0 if self.high_known else _first(kinds == kernel.TIME_HIGH)
        start = first + _first(kinds[first:] == kernel.TIME_LOW)
        self.time_known = start < len(words)
        self._skip(words[:start], kinds[:start])
        return words[start:]

    def _skip(self, words: NDArray[np.uint16], kinds: NDArray[np.uint8]) -> None:
        """Words without a known time: only their upper time bits are used, the rest is counted."""
        is_high = kinds == kernel.TIME_HIGH
        if is_high.any():
            _times_us(words[is_high], kinds[is_high], self.state)
            self.high_known = True
        is_8, is_12 = kinds == kernel.VECTOR_8, kinds == kernel.VECTOR_12
        fired = np.concatenate([words[is_8] & 0xFF, words[is_12] & 0xFFF])
        events = np.count_nonzero(kinds == kernel.SINGLE) + np.unpackbits(fired.view(np.uint8)).sum()
        self.counts.unsynchronised += int(events)
        _count_skipped(kinds, self.state)
        self._collect_counts()


class _LibcaerCmp(_VectorWords):
    roles = _roles(TIME_HIGH=0x0, TIME_LOW=0x1, HELD=0x2, SINGLE=0x3, BASE=0x4, VECTOR_8=0x5)
    held_is_x = True

    def _start_packet(self, words: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """All of them: times begin anew at every packet's `time_base`."""
        self.state[[kernel.HIGH_AT, kernel.TIME_AT]] = 0
        return words


class _Evt2:
    """32-bit words: type 4, lower time 6, x 11, y 11 bits; or type 4, upper time 28 bits."""

    word = np.dtype(np.uint32)

    def __init__(self, counts: DecodeCounts) -> None:
        self.counts = counts
        self.high = self.time_us = 0
        self.resynchronise()

    def resynchronise(self) -> None:
        self.time_known = False

    def decode(self, words: NDArray[np.uint32], time_base: int) -> Iterator[_Block]:
        del time_base  # the stream has the sensor's own time
        for start in range(0, len(words), _BLOCK):
            yield self._decode_block(words[start : start + _BLOCK])

    def _decode_block(self, words: NDArray[np.uint32]) -> _Block:
        kinds = words >> 28  # [n]
        events, highs = np.flatnonzero(kinds <= 1), np.flatnonzero(kinds == 0x8)
        self._count_skipped(kinds, len(words) - len(events) - len(highs))
        events = self._timed(events, highs)  # [N]
        upper = (words[highs] & 0xFFFFFFF).astype(np.int64)
        upper, wraps = _unwrap(upper, self.high, 28, _EVT2_BACKWARD, _EVT2_MAX_WRAPS)
        high = _held(highs, upper, self.high, len(words))  # [n]
        content = words[events]
        times = high[events] << 6 | (content >> 22 & 0x3F).astype(np.int64)
        times, corrections = _never_decreasing(times, self.time_us)
        self.high, self.time_us = int(high[-1]), int(times[-1]) if len(times) else self.time_us
        self.counts.time_wraps += wraps
        self.counts.time_corrections += corrections
        return content >> 11 & 0x7FF, content & 0x7FF, content >> 28 == 1, times * 1000

    def _timed(self, events: _Int, highs: _Int) -> _Int:
        """The positions of the events whose upper time bits are known."""
        if self.time_known:
            return events
        self.time_known = len(highs) > 0
        timed = events[events > highs[0]] if len(highs) else events[:0]
        self.counts.unsynchronised += len(events) - len(timed)
        return timed

    def _count_skipped(self, kinds: NDArray[np.integer], skipped: int) -> None:
        triggers, others = int(np.count_nonzero(kinds == 0xA)), int(np.count_nonzero(kinds >= 0xE))
        self.counts.triggers += triggers
        self.counts.other_words += others
        self.counts.unknown_words += skipped - triggers - others


_EVT2_BACKWARD = 640
"""In units of 64 us: the same 41 ms as for evt3."""
_EVT2_MAX_WRAPS = 1 << 18


class _Mono:
    """64-bit words: time 32, x 16, y 15, polarity 1 bits, from the least significant bit."""

    word = np.dtype(np.uint64)

    def __init__(self, counts: DecodeCounts) -> None:
        self.counts = counts

    def resynchronise(self) -> None:
        """Every word is complete in itself."""

    def decode(self, words: NDArray[np.uint64], time_base: int) -> Iterator[_Block]:
        times = (words & np.uint64(0xFFFFFFFF)).astype(np.int64)
        upper = (words >> np.uint64(32)).astype(np.uint32)
        times, corrections = _never_decreasing(times, 0)
        self.counts.time_corrections += corrections
        yield upper & 0xFFFF, upper >> 16 & 0x7FFF, upper >> 31 != 0, times + time_base


_CODECS: dict[str, type[_Codec]] = {"evt3": _Evt3, "libcaer_cmp": _LibcaerCmp, "evt2": _Evt2, "mono": _Mono}


@dataclass(frozen=True, eq=False)
class EventPacket:
    """event_camera_msgs/EventPacket without ROS. `events` is a view of the message's bytes."""

    stamp_ns: int
    frame_id: str
    width: int
    height: int
    seq: int
    time_base: int
    encoding: str
    is_bigendian: bool
    events: NDArray[np.uint8]

    @classmethod
    def from_cdr(cls, data: Buffer) -> EventPacket:
        """Reads the serialized message of a bag or a raw subscription.

        Raises EventDecodeError where the bytes end early or are not plain CDR.
        """
        cdr = _CdrReader(data)
        stamp_ns, frame_id = cdr.header()
        height, width = cdr.scalar("I"), cdr.scalar("I")
        seq, time_base = cdr.scalar("Q"), cdr.scalar("Q")
        encoding, is_bigendian = cdr.string(), bool(cdr.scalar("B"))
        events = cdr.take(cdr.scalar("I"))
        return cls(stamp_ns, frame_id, width, height, seq, time_base, encoding, is_bigendian, events)


@dataclass(frozen=True, eq=False)
class EventArray:
    """dvs_msgs/EventArray without ROS; `events` are inside the sensor and in the order of their times."""

    stamp_ns: int
    frame_id: str
    width: int
    height: int
    events: Events
    out_of_bounds: int
    """Events outside width x height, dropped."""

    @classmethod
    def from_cdr(cls, data: Buffer) -> EventArray:
        """Reads the serialized message of a bag or a raw subscription, thousands of times faster than its objects.

        Raises EventDecodeError where the bytes end early or are not plain CDR.
        """
        cdr = _CdrReader(data)
        stamp_ns, frame_id = cdr.header()
        height, width = cdr.scalar("I"), cdr.scalar("I")
        x, y, seconds, nanoseconds, polarity = _dvs_fields(cdr)
        t_ns = seconds.astype(np.int64) * 1_000_000_000 + nanoseconds
        return cls._checked(stamp_ns, frame_id, width, height, x, y, polarity != 0, t_ns)

    @classmethod
    def from_message(cls, message: DvsEventArray) -> EventArray:
        """Reads a message object; prefer `from_cdr`, which needs no object for every event."""
        events, stamp = message.events, message.header.stamp
        x = np.fromiter((event.x for event in events), np.int64, len(events))
        y = np.fromiter((event.y for event in events), np.int64, len(events))
        polarity = np.fromiter((event.polarity for event in events), np.bool_, len(events))
        t_ns = np.fromiter((event.ts.sec * 1_000_000_000 + event.ts.nanosec for event in events), np.int64, len(events))
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        return cls._checked(stamp_ns, message.header.frame_id, message.width, message.height, x, y, polarity, t_ns)

    @classmethod
    def _checked(
        cls, stamp_ns: int, frame_id: str, width: int, height: int,
        x: NDArray, y: NDArray, polarity: NDArray[np.bool_], t_ns: _Int,
    ) -> EventArray:  # fmt: skip
        good = np.flatnonzero((x < width) & (y < height))
        if np.any(t_ns[1:] < t_ns[:-1]):
            good = good[np.argsort(t_ns[good], kind="stable")]
        events = Events(x[good].astype(np.uint16), y[good].astype(np.uint16), polarity[good], t_ns[good])
        return cls(stamp_ns, frame_id, width, height, events, len(x) - len(good))


class _Stamp(Protocol):
    sec: int
    nanosec: int


class _Header(Protocol):
    @property
    def stamp(self) -> _Stamp: ...
    @property
    def frame_id(self) -> str: ...


class DvsEvent(Protocol):
    """dvs_msgs/Event."""

    x: int
    y: int
    polarity: bool

    @property
    def ts(self) -> _Stamp: ...


class DvsEventArray(Protocol):
    """dvs_msgs/EventArray."""

    width: int
    height: int

    @property
    def header(self) -> _Header: ...
    @property
    def events(self) -> Sequence[DvsEvent]: ...


class _CdrReader:
    """Reads the fields of a CDR message (OMG XCDR1, what ROS 2 sends) in order; a field is aligned to its own size."""

    def __init__(self, data: Buffer) -> None:
        raw = np.frombuffer(data, np.uint8)
        if len(raw) < 4 or raw[0] != 0 or raw[1] not in (0, 1):
            raise EventDecodeError(f"not a plain CDR message: it begins with {bytes(raw[:4]).hex(' ') or 'nothing'}")
        self.order = "<" if raw[1] else ">"
        self.body = raw[4:]  # alignment counts from here
        self.at = 0

    def take(self, size: int) -> NDArray[np.uint8]:
        """The next bytes, as a view."""
        if size > len(self.body) - self.at:
            left = len(self.body) - self.at
            raise EventDecodeError(f"message is truncated: {size} bytes expected at {self.at}, {left} are left")
        self.at += size
        return self.body[self.at - size : self.at]

    def scalar(self, code: str) -> int:
        """The next number of a `struct` format."""
        size = struct.calcsize(self.order + code)
        self.at += -self.at % size
        return struct.unpack(self.order + code, self.take(size).tobytes())[0]

    def string(self) -> str:
        return self.take(self.scalar("I")).tobytes().rstrip(b"\0").decode("utf-8", "replace")

    def header(self) -> tuple[int, str]:
        """std_msgs/Header: stamp in nanoseconds, frame id."""
        return self.scalar("i") * 1_000_000_000 + self.scalar("I"), self.string()


def _dvs_fields(cdr: _CdrReader) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """x, y, seconds, nanoseconds, polarity, each [N], of dvs_msgs/Event[].

    An event is x, y (uint16), seconds (int32), nanoseconds (uint32) and polarity (uint8), 13 bytes. Alignment puts one
    byte before the next x and two before its seconds: events repeat every 16 bytes, but for x and y, which come two
    bytes earlier in every event after the first.
    """
    count = cdr.scalar("I")
    body = cdr.take(16 * count - 3 if count else 0)
    fields = ["x", "y", "seconds", "nanoseconds", "polarity"]
    formats = [cdr.order + code for code in ("u2", "u2", "i4", "u4", "u1")]
    whole = np.dtype({"names": fields, "formats": formats, "offsets": [0, 2, 4, 8, 12], "itemsize": 13})
    events = np.ndarray((count,), whole, body.data, 0, (16,))
    x, y = events["x"].copy(), events["y"].copy()
    if count > 1:
        pixel = np.dtype({"names": fields[:2], "formats": formats[:2]})
        pixels = np.ndarray((count - 1,), pixel, body.data, 14, (16,))
        x[1:], y[1:] = pixels["x"], pixels["y"]
    return x, y, events["seconds"], events["nanoseconds"], events["polarity"]


class RawRecording:
    """A Prophesee .raw file in EVT 2.0 or 3.0; iterate over it for its Events, some megabytes at a time.

    `decoder` tells the encoding, the size of the sensor and the counts; `header` is what the file says about itself.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None) -> None:
        """`size` is (width, height), needed where an old file does not tell it.

        Raises EventDecodeError for a header without encoding or size, and OSError where the file cannot be read.
        """
        self.path = path
        with path.open("rb") as file:
            self.header = _read_raw_header(file)
            self._data_start = file.tell()
        encoding, options = _raw_format(self.header, path)
        width, height = size or _raw_size(self.header, options, path)
        big_endian = (options.get("endianness") or self.header.get("endianness")) == "big"
        self.decoder = EventDecoder(encoding, width, height, big_endian)

    def __iter__(self) -> Iterator[Events]:
        with self.path.open("rb") as file:
            file.seek(self._data_start)
            while chunk := file.read(_RAW_CHUNK):
                yield self.decoder.decode(chunk)


_RAW_CHUNK = 1 << 22  # bytes, whole words of both formats
_MAX_HEADER_LINE = 4096


def _read_raw_header(file: BinaryIO) -> dict[str, str]:
    """The `% keyword value` lines; the file is left at the first byte of data."""
    header: dict[str, str] = {}
    while True:
        start = file.tell()
        line = file.readline(_MAX_HEADER_LINE)
        if not line.startswith(b"% ") or not line.endswith(b"\n"):
            file.seek(start)
            return header
        keyword, _, value = line[2:].decode("utf-8", "replace").strip().partition(" ")
        if keyword == "end":
            return header
        header[keyword] = value.strip()


def _raw_format(header: dict[str, str], path: Path) -> tuple[str, dict[str, str]]:
    """Encoding and options of a header: `format EVT3;height=720;width=1280`, or only `evt 3.0` in older files."""
    name, *options = header.get("format", "").split(";")
    name = name or {"2.0": "EVT2", "3.0": "EVT3"}.get(header.get("evt", ""), f"EVT {header.get('evt', 'not given')}")
    if name not in ("EVT2", "EVT3"):
        raise EventDecodeError(f"{path}: event format is {name}; EVT2 and EVT3 can be read, convert others first")
    pairs = (option.strip().partition("=") for option in options)
    return name.lower(), {key: value for key, _, value in pairs}


def _raw_size(header: dict[str, str], options: dict[str, str], path: Path) -> tuple[int, int]:
    """(width, height) from the format's options, from `geometry 1280x720`, or from `width` and `height`."""
    width, _, height = header.get("geometry", "").partition("x")
    width, height = options.get("width") or width, options.get("height") or height
    width, height = width or header.get("width", ""), height or header.get("height", "")
    if not (width.isdecimal() and height.isdecimal()):
        raise EventDecodeError(f"{path}: the header does not tell the size of the sensor: pass size=(width, height)")
    return int(width), int(height)


@dataclass
class EventAccumulator:
    """Counts the events of the last `window_ns` per pixel: the EVENT frame of modality.py."""

    width: int
    height: int
    window_ns: int
    _parts: deque[tuple[NDArray[np.int32], NDArray[np.int64]]] = field(default_factory=deque, init=False, repr=False)
    """(index into the flattened image, t_ns) of each batch that the window still needs."""
    _latest_ns: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0 or self.window_ns <= 0:
            raise ValueError(f"event window of {self.width}x{self.height} pixels, {self.window_ns} ns: all must be > 0")

    def add(self, events: Events) -> None:
        """Takes the next events. A clock that jumped back by more than the window begins anew (restart, bag loop).

        Raises ValueError for events outside the image.
        """
        if len(events) == 0:
            return
        if int(events.x.max()) >= self.width or int(events.y.max()) >= self.height:
            raise ValueError(
                f"events outside {self.width}x{self.height}: build the accumulator with the decoder's size"
            )
        last_ns = int(events.t_ns[-1])
        if last_ns < self._latest_ns - self.window_ns:
            self._parts.clear()
            self._latest_ns = last_ns
        pixel = events.y.astype(np.int32) * self.width + events.x
        self._parts.append((2 * pixel + ~events.polarity, events.t_ns))
        self._latest_ns = max(self._latest_ns, last_ns)
        while int(self._parts[0][1][-1]) <= self._latest_ns - self.window_ns:
            self._parts.popleft()

    def image(self, end_ns: int | None = None) -> NDArray[np.uint8]:
        """uint8 [H, W, 2]: positive and negative events with end_ns - window_ns < t <= end_ns, at most 255 each.

        `end_ns` is the time of the latest event unless given; events before the window of the latest one are gone.
        """
        end_ns = self._latest_ns if end_ns is None else end_ns
        inside = []
        for index, t_ns in self._parts:
            first, last = np.searchsorted(t_ns, [end_ns - self.window_ns, end_ns], side="right")
            inside.append(index[first:last])
        size = 2 * self.width * self.height
        counts = np.bincount(np.concatenate([*inside, np.empty(0, np.int32)]), minlength=size)
        return np.minimum(counts, 255).astype(np.uint8).reshape(self.height, self.width, 2)
