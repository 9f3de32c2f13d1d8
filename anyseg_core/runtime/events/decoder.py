"""Event-camera streams -> events -> count images: decoder, messages, files and the sliding window.

The encodings are in codecs.py; `EventDecoder` adds what they share: bounds, sequence numbers, counts.
"""

from __future__ import annotations

import array
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Protocol, Union

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.events import kernel
from anyseg_core.runtime.events.codecs import CODECS, Block, DecodeCounts

Buffer = Union[bytes, bytearray, memoryview, "array.array[int]", NDArray[np.uint8]]
"""What a bag, a raw subscription or a message's `uint8[]` field delivers."""

ENCODINGS = tuple(CODECS)


class EventDecodeError(ValueError):
    """Data that cannot be decoded at all; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Events:
    """N events in the order of their times, all inside the sensor.

    `x`, `y`: uint16 [N] pixels; `polarity`: bool [N], True = brighter; `t_ns`: int64 [N], never decreasing.
    The clock of `t_ns` is the sensor's (evt2, evt21, evt3: since power-up) or the host's (the others, dvs_msgs).
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
        if encoding not in CODECS:
            known = ", ".join(ENCODINGS)
            raise EventDecodeError(f"unknown event encoding {encoding!r}: set the driver to one of {known}")
        if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
            raise EventDecodeError(f"event sensor of {width}x{height} pixels: sides must be 1 to {_MAX_SIDE}")
        self.encoding, self.width, self.height, self.big_endian = encoding, width, height, big_endian
        self.counts = DecodeCounts()
        self._codec = CODECS[encoding](self.counts)
        self._next_seq: int | None = None

    @classmethod
    def for_packet(cls, packet: PacketLike) -> EventDecoder:
        """The decoder of the stream that this packet belongs to. Raises EventDecodeError as the constructor does."""
        return cls(packet.encoding, packet.width, packet.height, packet.is_bigendian)

    def decode(self, data: Buffer, time_base: int = 0) -> Events:
        """The events of the next packet.

        `time_base` in nanoseconds is used by libcaer_cmp, libcaer and mono only. A packet that ends inside a word
        loses that word, is counted and resynchronises the decoder. Raises EventDecodeError where `time_base` is
        impossible, and nothing else whatever the bytes are.
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
        blocks = self._codec.decode_compiled(words, time_base, self.width, self.height)
        if blocks is None:
            blocks = self._codec.decode(words, time_base)
        events = Events.concatenate(map(self._inside, blocks))
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
        return self.decode_packets([packet])

    def decode_packets(self, packets: Sequence[PacketLike]) -> Events:
        """`decode_packet` for all of them, faster: packets that follow each other are decoded in one piece.

        Raises EventDecodeError as `decode_packet` does, before any is decoded.
        """
        stranger = next((packet for packet in packets if not self.takes(packet)), None)
        if stranger is not None:
            expected = (self.encoding, self.width, self.height, self.big_endian)
            found = self._format_of(stranger)
            raise EventDecodeError(f"event packet is {found}, the stream was {expected}: start a new decoder for it")
        if not self._codec.joins_packets:
            return Events.concatenate([self._decode_run([packet]) for packet in packets])
        breaks = [i for i in range(1, len(packets)) if not self._joins(packets[i - 1], packets[i])]
        runs = (packets[first:end] for first, end in pairwise([0, *breaks, len(packets)]))
        return Events.concatenate([self._decode_run(run) for run in runs if run])

    def _joins(self, packet: PacketLike, following: PacketLike) -> bool:
        """Whether the two may be decoded as if they were one packet."""
        is_whole = len(packet.events) % self._codec.word.itemsize == 0
        return is_whole and following.seq == packet.seq + 1

    def _decode_run(self, packets: Sequence[PacketLike]) -> Events:
        first = packets[0]
        if self._next_seq is not None and first.seq != self._next_seq:
            self.counts.lost_packets += max(first.seq - self._next_seq, 0)
            self.resynchronise()
        self._next_seq = packets[-1].seq + 1
        self.counts.packets += len(packets) - 1  # `decode` counts one
        data = first.events if len(packets) == 1 else b"".join([packet.events for packet in packets])  # type: ignore[misc] (all have the buffer protocol)
        return self.decode(data, first.time_base)

    def takes(self, packet: PacketLike) -> bool:
        """Whether the packet has the encoding, byte order and size of this stream."""
        return (
            packet.encoding == self.encoding
            and packet.width == self.width
            and packet.height == self.height
            and bool(packet.is_bigendian) == self.big_endian
        )

    @staticmethod
    def _format_of(packet: PacketLike) -> tuple[str, int, int, bool]:
        return packet.encoding, packet.width, packet.height, bool(packet.is_bigendian)

    def resynchronise(self) -> None:
        """Data was lost: emit nothing until the stream has told its time and address again."""
        self._codec.resynchronise()

    def _inside(self, block: Block) -> Events:
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
        t_ns = seconds.astype(np.int64)
        t_ns *= 1_000_000_000
        t_ns += nanoseconds
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
        x: NDArray, y: NDArray, polarity: NDArray[np.bool_], t_ns: NDArray[np.int64],
    ) -> EventArray:  # fmt: skip
        count = len(x)
        if count and (int(x.max()) >= width or int(y.max()) >= height or np.any(t_ns[1:] < t_ns[:-1])):
            good = np.flatnonzero((x < width) & (y < height))
            good = good[np.argsort(t_ns[good], kind="stable")]
            x, y, polarity, t_ns = x[good], y[good], polarity[good], t_ns[good]
        events = Events(x.astype(np.uint16, copy=False), y.astype(np.uint16, copy=False), polarity, t_ns)
        return cls(stamp_ns, frame_id, width, height, events, count - len(events))


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
    """A Prophesee .raw file in EVT 2.0, 2.1 or 3.0; iterate over it for its Events, some megabytes at a time.

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


_RAW_FORMATS = {"EVT2": "evt2", "EVT21": "evt21", "EVT3": "evt3"}
_OLD_VERSIONS = {"2.0": "EVT2", "2.1": "EVT21", "3.0": "EVT3"}


def _raw_format(header: dict[str, str], path: Path) -> tuple[str, dict[str, str]]:
    """Encoding and options of a header: `format EVT3;height=720;width=1280`, or only `evt 3.0` in older files."""
    name, *options = header.get("format", "").split(";")
    name = name or _OLD_VERSIONS.get(header.get("evt", ""), f"EVT {header.get('evt', 'not given')}")
    if name not in _RAW_FORMATS:
        known = ", ".join(_RAW_FORMATS)
        raise EventDecodeError(
            f"{path}: event format is {name}; {known} can be read, convert others with Prophesee's tools first"
        )
    pairs = {key: value for key, _, value in (option.strip().partition("=") for option in options)}
    legacy = name == "EVT21" and (pairs.get("endianness") or header.get("endianness")) == "legacy"
    return _RAW_FORMATS[name] + ("_legacy" if legacy else ""), pairs


def _raw_size(header: dict[str, str], options: dict[str, str], path: Path) -> tuple[int, int]:
    """(width, height) from the format's options, from `geometry 1280x720`, or from `width` and `height`."""
    width, _, height = header.get("geometry", "").partition("x")
    width, height = options.get("width") or width, options.get("height") or height
    width, height = width or header.get("width", ""), height or header.get("height", "")
    if not (width.isdecimal() and height.isdecimal()):
        raise EventDecodeError(f"{path}: the header does not tell the size of the sensor: pass size=(width, height)")
    return int(width), int(height)


_MAX_PIXELS = 1 << 23


@dataclass
class EventAccumulator:
    """Counts the events of the last `window_ns` per pixel: a frame of kind `EVENT` (sensors.py)."""

    width: int
    height: int
    window_ns: int
    _parts: deque[Events] = field(default_factory=deque, init=False, repr=False)
    """The batches that the window still needs."""
    latest_ns: int = field(default=0, init=False)
    """Time of the latest event so far; 0 before the first."""

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0 or self.window_ns <= 0:
            raise ValueError(f"event window of {self.width}x{self.height} pixels, {self.window_ns} ns: all must be > 0")
        if self.width * self.height > _MAX_PIXELS:
            raise ValueError(f"event window of {self.width}x{self.height} pixels: larger than any sensor")

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
        if last_ns < self.latest_ns - self.window_ns:
            self._parts.clear()
            self.latest_ns = last_ns
        self._parts.append(events)
        self.latest_ns = max(self.latest_ns, last_ns)
        while int(self._parts[0].t_ns[-1]) <= self.latest_ns - self.window_ns:
            self._parts.popleft()

    def image(self, end_ns: int | None = None) -> NDArray[np.uint8]:
        """uint8 [H, W, 2]: positive and negative events with end_ns - window_ns < t <= end_ns, at most 255 each.

        `end_ns` is the time of the latest event unless given; events before the window of the latest one are gone.
        """
        end_ns = self.latest_ns if end_ns is None else end_ns
        counts = np.zeros((self.height, self.width, 2), np.uint8)
        kernels = kernel.compiled()
        add = _count_vectorised if kernels is None else kernels.count_events
        for part in self._parts:
            add(part.x, part.y, part.polarity, part.t_ns, end_ns - self.window_ns, end_ns, counts)
        return counts


def _count_vectorised(
    x: NDArray[np.uint16], y: NDArray[np.uint16], polarity: NDArray[np.bool_], t_ns: NDArray[np.int64],
    after_ns: int, end_ns: int, counts: NDArray[np.uint8],
) -> None:  # fmt: skip
    """What `event_kernel.count_events` does."""
    first, last = np.searchsorted(t_ns, [after_ns, end_ns], side="right")
    x, y, polarity = x[first:last], y[first:last], polarity[first:last]
    index = 2 * (y.astype(np.int32) * counts.shape[1] + x) + ~polarity
    flat = counts.reshape(-1)
    if len(index) < len(flat) // 16:  # sorting a few is faster than going through all pixels
        hit, added = np.unique(index, return_counts=True)
        flat[hit] = np.minimum(flat[hit] + added, 255)
    else:
        np.minimum(np.bincount(index, minlength=len(flat)) + flat, 255, out=flat, casting="unsafe")
