"""Speed of event decoding, encoding by encoding: with numba, with numpy alone, the obvious Python loop."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from anyseg_core.runtime.events import kernel as event_kernel
from anyseg_core.runtime.events.decoder import EventAccumulator, EventArray, EventDecoder, EventPacket, Events
from anyseg_core.runtime.events.stream import MESSAGE_READERS
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.bench.results import Benchmark

WIDTH, HEIGHT = 1280, 720
REPEATS = 9
LOOP_BYTES = 200_000
"""The Python loop decodes only so much of a stream."""
FRAME_NS = 33_000_000
"""Packets of so long a time are decoded together, as the node does for a frame."""
BAR = 50.0
"""Million events a second on one core."""
PACKET = "event_camera_msgs/msg/EventPacket"

Rows = list[tuple[int, int, int, int]]
DVS = "dvs_msgs"


@dataclass(frozen=True)
class Stream:
    """One thing to decode."""

    name: str
    encoding: str
    data: bytes
    """All of it in one piece."""
    groups: Sequence[Sequence[EventPacket]] = field(default=())
    """Recorded packets, in groups of `FRAME_NS`; empty for a synthetic stream."""


def run(console: Console, json_path: Path | None = None, bags: Sequence[Path] = ()) -> bool:
    """Measure synthetic streams and the packets of recorded bags; returns whether every bar was met."""
    bench = Benchmark("event decoding, one core; million events a second of processor time")
    for stream in [*synthetic_streams(), *(recorded for bag in bags for recorded in _recorded(bag))]:
        _measure(bench, stream)
    bench.notes.append("images: decoded and counted; of recorded packets an image every 33 ms")
    if event_kernel.compiled() is None:
        bench.notes.append("numba is not installed: it is the extra `events`")
    return bench.report(console, json_path)


def _measure(bench: Benchmark, stream: Stream) -> None:
    """Events and images, on every path that this installation has; the bar is for the one that it takes."""
    has_numba = event_kernel.compiled() is not None
    loop = LOOPS[stream.encoding]
    slow = _samples(lambda: len(loop(stream.data[:LOOP_BYTES])), 3)
    taken = 0.0
    for path in ("numba", "numpy") if has_numba else ("numpy",):
        with _numpy_only(path == "numpy"):
            for name, decode in (("events", _events_of), ("images", _images_of)):
                samples = _samples(lambda decode=decode: decode(stream), REPEATS)
                rate = float(np.median(samples))
                is_taken = path == "numba" or not has_numba
                bar = (f"p50 >= {BAR:g}", rate >= BAR) if is_taken else ("", None)
                bench.add(f"{stream.name}: {name}, {path}", "M/s", samples, *bar)
                taken = rate if is_taken and name == "events" else taken
    bench.add(f"{stream.name}: Python loop", "M/s", slow)
    bench.notes.append(f"{stream.name}: {taken / float(np.median(slow)):.0f} x the loop")


@contextmanager
def _numpy_only(wanted: bool) -> Iterator[None]:
    """As where numba is not installed."""
    compiled = event_kernel.compiled
    if wanted:
        event_kernel.compiled = lambda: None  # type: ignore[assignment]
    try:
        yield
    finally:
        event_kernel.compiled = compiled


def _parts(stream: Stream) -> Iterator[Events]:
    if stream.encoding == DVS:
        yield EventArray.from_cdr(stream.data).events
    elif stream.groups:
        decoder = EventDecoder.for_packet(stream.groups[0][0])
        yield from (decoder.decode_packets(group) for group in stream.groups)
    else:
        yield EventDecoder(stream.encoding, WIDTH, HEIGHT).decode(stream.data)


def _events_of(stream: Stream) -> int:
    return sum(map(len, _parts(stream)))


def _images_of(stream: Stream) -> int:
    """A synthetic stream in one image."""
    first = stream.groups[0][0] if stream.groups else None
    width, height = (first.width, first.height) if first else (WIDTH, HEIGHT)
    window = EventAccumulator(width, height, FRAME_NS if first else 1 << 62)
    events = 0
    for part in _parts(stream):
        window.add(part)
        window.image()
        events += len(part)
    return events


def _samples(decode: Callable[[], int], repeats: int) -> list[float]:
    """Million events a second of processor time, so that a busy machine counts less."""
    decode()
    samples = []
    for _ in range(repeats):
        start = time.process_time()
        events = decode()
        samples.append(events / (time.process_time() - start) / 1e6)
    return samples


# --- streams ---------------------------------------------------------------------------------------------------------


def synthetic_streams() -> list[Stream]:
    """Every encoding, half a million events and more each; of evt3 a dense and a sparse stream."""
    return [
        Stream("evt3, dense (vectors)", "evt3", synthetic_stream(25_000, 4)),
        Stream("evt3, sparse (single events)", "evt3", synthetic_stream(500_000, 0)),
        Stream("libcaer_cmp, sparse", "libcaer_cmp", _libcaer_cmp(500_000)),
        Stream("evt2", "evt2", _evt2(500_000)),
        Stream("evt21, half full vectors", "evt21", _evt21(50_000)),
        Stream("mono", "mono", _mono(500_000)),
        Stream("dvs_msgs/EventArray", DVS, _dvs(500_000)),
    ]


def synthetic_stream(rows: int, vectors: int, seed: int = 0) -> bytes:
    """EVT3 bytes: a time and a row address, then `vectors` vectors of 12 half full, or a single event where 0."""
    random = np.random.default_rng(seed)
    us = 5 * np.arange(rows)
    words = np.empty((rows, 4 + vectors), np.uint16)
    words[:, 0], words[:, 1] = 0x8000 | us >> 12 & 0xFFF, 0x6000 | us & 0xFFF
    words[:, 2] = random.integers(0, HEIGHT, rows)
    x, polarity = random.integers(0, WIDTH - 12 * vectors, rows), random.integers(0, 2, rows) << 11
    words[:, 3] = (0x3000 if vectors else 0x2000) | polarity | x
    words[:, 4:] = 0x4000 | random.integers(0, 1 << 12, (rows, vectors))
    has_changed = np.ones(words.shape, np.bool_)
    has_changed[1:, 0] = words[1:, 0] != words[:-1, 0]  # the upper time bits only where they change
    return words[has_changed].astype("<u2").tobytes()


def _libcaer_cmp(events: int) -> bytes:
    """A time, a column and a single event each, and the upper time bits where they change."""
    random = np.random.default_rng(0)
    us = np.arange(events)
    x, y = random.integers(0, WIDTH, events), random.integers(0, HEIGHT, events)
    words = np.stack([0x1000 | us & 0xFFF, 0x2000 | x, 0x3000 | y], axis=1)
    turns = us[4096::4096]
    return np.insert(words.reshape(-1), 3 * turns, turns >> 12).astype("<u2").tobytes()


def _evt2(events: int) -> bytes:
    random, us = np.random.default_rng(0), np.arange(events)
    words = random.integers(0, 2, events) << 28 | (us & 0x3F) << 22
    words |= random.integers(0, WIDTH, events) << 11 | random.integers(0, HEIGHT, events)
    highs = np.arange(0, events, 64)
    return np.insert(words, highs, 0x80000000 | highs >> 6).astype("<u4").tobytes()


def _evt21(words: int) -> bytes:
    random = np.random.default_rng(0)
    heads = random.integers(0, 2, words) << 28 | random.integers(0, WIDTH // 32, words) * 32 << 11
    heads |= random.integers(0, HEIGHT, words)
    stream = heads.astype(np.uint64) << np.uint64(32) | random.integers(0, 1 << 32, words, np.uint64)
    return np.insert(stream, 0, 0x80000000 << 32).astype("<u8").tobytes()


def _mono(events: int) -> bytes:
    random = np.random.default_rng(0)
    upper = random.integers(0, 2, events) << 31 | random.integers(0, HEIGHT, events) << 16
    upper |= random.integers(0, WIDTH, events)
    return (upper.astype(np.uint64) << np.uint64(32) | np.arange(events, dtype=np.uint64)).astype("<u8").tobytes()


def _dvs(events: int) -> bytes:
    """A serialized message. Alignment puts x and y of all events but the first two bytes before the rest."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, WIDTH, events), random.integers(0, HEIGHT, events)
    rows = np.zeros((events, 8), "<u2")  # y, padding, seconds (2), nanoseconds (2), polarity, next x
    rows[:, 0], rows[:-1, 7], rows[0, :2] = y, x[1:], (x[0], y[0])
    rows[:, 4:6] = (1000 * np.arange(events, dtype="<u4")).view("<u2").reshape(-1, 2)
    rows[:, 6] = random.integers(0, 2, events)
    return struct.pack("<IiII4sIII", 256, 0, 0, 4, b"cam", HEIGHT, WIDTH, events) + rows.tobytes()[:-3]


def _recorded(bag: Path) -> list[Stream]:
    """The event topics of a bag."""
    reader = BagReader(bag)
    streams = []
    for choice in reader.topics:
        if MESSAGE_READERS.get(choice.msgtype) is not EventPacket:
            continue
        packets = [EventPacket.from_cdr(bytes(message.cdr)) for message in reader.messages([choice.topic])]
        groups: dict[int, list[EventPacket]] = {}
        for packet in packets:
            groups.setdefault((packet.stamp_ns - packets[0].stamp_ns) // FRAME_NS, []).append(packet)
        data = b"".join(packet.events.tobytes() for packet in packets)
        name = f"{packets[0].encoding}, recorded ({bag.name})"
        streams.append(Stream(name, packets[0].encoding, data, tuple(groups.values())))
    return streams


# --- the obvious Python loops ----------------------------------------------------------------------------------------


def _loop_16(stream: bytes, roles: dict[int, str], held_is_x: bool) -> Rows:  # noqa: C901 - as the format is
    """What the description of `evt3` or `libcaer_cmp` says, word by word."""
    events: Rows = []
    held = base = polarity = high = low = 0

    def add(moving: int, polarity: int) -> None:
        x, y = (held, moving) if held_is_x else (moving, held)
        events.append((x, y, polarity, (high << 12 | low) * 1000))

    for word in memoryview(stream).cast("H"):
        role, content = roles.get(word >> 12), word & 0xFFF
        if role == "held":
            held = content & 0x7FF
        elif role == "single":
            add(content & 0x7FF, content >> 11)
        elif role == "base":
            base, polarity = content & 0x7FF, content >> 11
        elif role in ("8", "12"):
            for i in range(int(role)):
                if content >> i & 1:
                    add(base + i, polarity)
            base += int(role)
        elif role == "low":
            low = content
        elif role == "high":
            high = content
    return events


def _loop_evt3(stream: bytes) -> Rows:
    roles = {0x0: "held", 0x2: "single", 0x3: "base", 0x4: "12", 0x5: "8", 0x6: "low", 0x8: "high"}
    return _loop_16(stream, roles, held_is_x=False)


def _loop_libcaer_cmp(stream: bytes) -> Rows:
    roles = {0x0: "high", 0x1: "low", 0x2: "held", 0x3: "single", 0x4: "base", 0x5: "8"}
    return _loop_16(stream, roles, held_is_x=True)


def _loop_evt2(stream: bytes) -> Rows:
    events: Rows = []
    high = 0
    for word in memoryview(stream).cast("I"):
        kind = word >> 28
        if kind <= 1:
            events.append((word >> 11 & 0x7FF, word & 0x7FF, kind, (high << 6 | word >> 22 & 0x3F) * 1000))
        elif kind == 8:
            high = word & 0xFFFFFFF
    return events


def _loop_evt21(stream: bytes) -> Rows:
    events: Rows = []
    high = 0
    for word in memoryview(stream[: len(stream) // 8 * 8]).cast("Q"):
        kind = word >> 60
        if kind <= 1:
            x, y, us = word >> 43 & 0x7FF, word >> 32 & 0x7FF, high << 6 | word >> 54 & 0x3F
            events += [(x + i, y, kind, us * 1000) for i in range(32) if word >> i & 1]
        elif kind == 8:
            high = word >> 32 & 0xFFFFFFF
    return events


def _loop_mono(stream: bytes) -> Rows:
    return [
        (word >> 32 & 0xFFFF, word >> 48 & 0x7FFF, word >> 63, word & 0xFFFFFFFF)
        for word in memoryview(stream).cast("Q")
    ]


def _loop_dvs(stream: bytes) -> Rows:
    events: Rows = []
    at = 32  # behind the header of `_dvs`
    while at + 13 <= len(stream):
        x, y = struct.unpack_from("<HH", stream, at)
        seconds, nanoseconds, polarity = struct.unpack_from("<iIB", stream, at + 4 + -at % 4)
        events.append((x, y, polarity, seconds * 1_000_000_000 + nanoseconds))
        at += -at % 4 + 14
    return events


LOOPS: dict[str, Callable[[bytes], Rows]] = {
    "evt3": _loop_evt3,
    "libcaer_cmp": _loop_libcaer_cmp,
    "evt2": _loop_evt2,
    "evt21": _loop_evt21,
    "mono": _loop_mono,
    DVS: _loop_dvs,
}
