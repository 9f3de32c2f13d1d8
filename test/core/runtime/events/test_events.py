"""Event decoding: every format against an encoder or a slow reference written here, damage, and recorded bags."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from event_messages import HEIGHT, WIDTH, Row, as_bytes, dvs_cdr, recorded_messages
from hypothesis import given, settings
from hypothesis import strategies as st

from anyseg_core.runtime.events import kernel as event_kernel
from anyseg_core.runtime.events.decoder import (
    ENCODINGS,
    EventAccumulator,
    EventArray,
    EventDecodeError,
    EventDecoder,
    EventPacket,
    Events,
    RawRecording,
)


@pytest.fixture(autouse=True, params=["vectorised", "loop", "compiled"])
def implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs with the numpy form, with the kernel interpreted, and with the kernel compiled."""
    if request.param == "compiled" and event_kernel.compiled() is None:
        pytest.skip("numba is not installed")
    chosen = {"vectorised": None, "loop": event_kernel.INTERPRETED}
    with pytest.MonkeyPatch.context() as patch:
        if request.param in chosen:
            patch.setattr(event_kernel, "compiled", lambda: chosen[request.param])
        yield


def rows(events: Events) -> list[Row]:
    columns = (events.x, events.y, events.polarity, events.t_ns)
    return list(zip(*(column.astype(int).tolist() for column in columns), strict=True))


class EncoderEvt3:
    """Writes events as single words or as vectors of equal time, row and polarity."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.time = self.high = self.row = -1

    def set_time(self, us: int) -> None:
        if us >> 12 != self.high:
            self.high = us >> 12
            self.words.append(0x8000 | self.high & 0xFFF)
        if us != self.time:
            self.words.append(0x6000 | us & 0xFFF)
        self.time = us

    def set_row(self, y: int) -> None:
        if y != self.row:
            self.words.append(y)
        self.row = y

    def single(self, x: int, polarity: int) -> None:
        self.words.append(0x2000 | polarity << 11 | x)

    def vector(self, x: int, polarity: int, masks: list[tuple[int, int]]) -> None:
        """(length 8 or 12, bits) of each vector word."""
        self.words.append(0x3000 | polarity << 11 | x)
        self.words += [(0x4000 if length == 12 else 0x5000) | mask for length, mask in masks]


group = st.tuples(
    st.integers(0, 30_000_000),  # microseconds since the last group: over the wrap of 24 bits
    st.integers(0, HEIGHT - 1),
    st.integers(0, 1),
    st.integers(0, WIDTH - 1),
    st.lists(st.tuples(st.sampled_from([8, 12]), st.integers(1, 0xFF)), max_size=4),
)


def encode_groups(groups: list[tuple]) -> tuple[list[int], list[Row]]:
    """Words of EVT3, and the events they stand for. Steps are kept short enough for upper bits to be unambiguous."""
    encoder, expected, us = EncoderEvt3(), [], 5000
    for step, y, polarity, x, masks in groups:
        us += step % (0xFF0 << 12)  # a longer gap cannot be told from a shorter one by 24 bits
        encoder.set_time(us)
        encoder.set_row(y)
        encoder.vector(x, polarity, masks) if masks else encoder.single(x, polarity)
        start = x
        for length, mask in masks or [(1, 1)]:
            fired = [start + bit for bit in range(length) if mask >> bit & 1]
            expected += [(column, y, polarity, us * 1000) for column in fired if column < WIDTH]
            start += length
    return encoder.words, expected


@settings(max_examples=50)
@given(st.lists(group, max_size=20))
def test_evt3_round_trip(groups: list[tuple]) -> None:
    words, expected = encode_groups(groups)
    decoder = EventDecoder("evt3", WIDTH, HEIGHT)
    got = rows(decoder.decode(as_bytes(words)))
    start = expected[0][3] if expected else 0  # the first group may come after unseen wraps: compare relative times
    shift = start - got[0][3] if got else 0
    assert [(x, y, p, t + shift) for x, y, p, t in got] == expected
    assert decoder.counts.unsynchronised == decoder.counts.unknown_words == 0


@settings(max_examples=50)
@given(st.lists(st.integers(0, 0xFFFF), max_size=120), st.data())
@pytest.mark.parametrize("encoding", ["evt3", "evt2"])
def test_packet_borders_change_nothing(encoding: str, noise: list[int], data: st.DataObject) -> None:
    prefix = [0x8001, 0x6002, 0x0003] if encoding == "evt3" else [0x0001, 0x8000]
    stream = as_bytes(prefix + noise[: len(noise) // 2 * 2 - len(prefix) % 2])
    size = 2 if encoding == "evt3" else 4
    stream = stream[: len(stream) // size * size]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream) // size), max_size=6)))
    borders = [0, *(cut * size for cut in cuts), len(stream)]
    whole, split = EventDecoder(encoding, WIDTH, HEIGHT), EventDecoder(encoding, WIDTH, HEIGHT)
    expected = rows(whole.decode(stream))
    got = [row for a, b in pairwise(borders) for row in rows(split.decode(stream[a:b]))]
    assert got == expected
    split.counts.packets = whole.counts.packets
    assert split.counts == whole.counts


def reference(  # noqa: C901, PLR0912, PLR0915 (one branch for each type of word)
    words: list[int], encoding: str, width: int, height: int
) -> tuple[list[Row], dict[str, int]]:
    """The format read word by word, without any thought of speed."""
    tallies = ["events", "triggers", "other_words", "unknown_words", "out_of_bounds", "unsynchronised"]
    counts: dict[str, int] = {str(tally): 0 for tally in tallies}
    evt3 = encoding == "evt3"
    names = [
        "y",
        "",
        "single",
        "base",
        "v12",
        "v8",
        "low",
        "other",
        "high",
        "",
        "trigger",
        "",
        "",
        "",
        "other",
        "other",
    ]
    if not evt3:
        names = ["high", "low", "x", "single", "base", "v8"] + [""] * 10
    held = base = high = None
    polarity, time, timed, found = 0, 0, not evt3, []
    if not evt3:
        high = 0
    for word in words:
        name, content = names[word >> 12], word & 0xFFF
        emitted: list[tuple[int | None, int]] = []
        if name in ("x", "y"):
            held = content & 0x7FF if timed else held
        elif name == "base":
            base, polarity = (content & 0x7FF, content >> 11) if timed else (base, polarity)
        elif name == "single":
            emitted = [(content & 0x7FF, content >> 11)]
        elif name in ("v8", "v12"):
            length = int(name[1:])
            bits = [bit for bit in range(length) if content >> bit & 1]
            emitted = [(None if base is None else base + bit, polarity) for bit in bits]
            base = None if base is None else base + length
        elif name == "low":
            timed = timed or high is not None
            time = max(time, high * 4096 + content) if high is not None else time
        elif name == "high":
            last, epoch = (high or 0) % 4096, (high or 0) // 4096
            new = (epoch + (content < last - 10)) * 4096 + content
            time, high = (time if new == (high or 0) else max(time, new * 4096)), new
        else:
            counts[{"trigger": "triggers", "other": "other_words", "": "unknown_words"}[name]] += 1
        for moving, sign in emitted:
            if not timed or held is None or moving is None:
                counts["unsynchronised"] += 1
                continue
            x, y = (moving, held) if evt3 else (held, moving)
            if x < width and y < height:
                found.append((x, y, sign, time * 1000))
            else:
                counts["out_of_bounds"] += 1
    counts["events"] = len(found)
    return found, counts


def assert_same_as_reference(words: list[int], encoding: str, width: int, height: int) -> None:
    decoder = EventDecoder(encoding, width, height)
    expected, counts = reference(words, encoding, width, height)
    assert rows(decoder.decode(as_bytes(words))) == expected
    assert {name: getattr(decoder.counts, name) for name in counts} == counts


@pytest.mark.parametrize("encoding", ["evt3", "libcaer_cmp"])
@settings(max_examples=50)
@given(st.lists(st.integers(0, 0xFFFF), max_size=300))
def test_random_words_like_the_reference(encoding: str, words: list[int]) -> None:
    assert_same_as_reference(words, encoding, WIDTH, HEIGHT)


@pytest.mark.parametrize("encoding", ["evt3", "libcaer_cmp"])
def test_long_noise_like_the_reference(encoding: str) -> None:
    """Longer than a block, so that state goes from block to block; times leave 32 bits of microseconds."""
    words = np.random.default_rng(1).integers(0, 1 << 16, 110_000).tolist()
    assert_same_as_reference(words, encoding, 2048, 2048)


@settings(max_examples=50)
@given(st.binary(max_size=400), st.sampled_from(ENCODINGS), st.booleans(), st.integers(0, 1 << 61))
def test_any_bytes_give_valid_events(data: bytes, encoding: str, big_endian: bool, time_base: int) -> None:
    decoder = EventDecoder(encoding, 320, 240, big_endian)
    parts = [decoder.decode(data, time_base), decoder.decode(data[1:], time_base)]
    for events in parts:
        assert (events.x < 320).all()
        assert (events.y < 240).all()
        assert (np.diff(events.t_ns) >= 0).all()
        assert (events.x.dtype, events.y.dtype, events.polarity.dtype) == (np.uint16, np.uint16, np.bool_)
    if encoding.startswith("evt") and len(parts[0]) and len(parts[1]):
        assert parts[0].t_ns[-1] <= parts[1].t_ns[0]


FREQUENT_TYPES = {"evt3": (0x0, 0x2, 0x6, 0x8), "libcaer_cmp": (0x0, 0x1, 0x2, 0x3)}
"""Types of the words that a compiled loop takes a short way with."""


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """An encoding and packets in it: anything, mostly of frequent words in an order that no sensor has, and cut."""
    encoding = draw(st.sampled_from(ENCODINGS))
    kinds = st.sampled_from(FREQUENT_TYPES.get(encoding, range(16))) | st.integers(0, 15)
    content = st.integers(0, 15) | st.integers(0, 0xFFF)
    words = st.lists(st.tuples(kinds, content).map(lambda word: word[0] << 12 | word[1]), max_size=80)
    packet = st.tuples(words.map(as_bytes), st.sampled_from([b"", b"", b"\1"])).map(b"".join)
    return encoding, draw(st.lists(packet, max_size=4))


def whole_words(data: bytes, encoding: str, time_base: int) -> list[Row]:
    """`mono` and `libcaer` read word by word; events outside are left out."""
    found, last, wrapped = [], 0, 0
    for word in memoryview(data[: len(data) // 8 * 8]).cast("Q"):
        if encoding == "mono":
            x, y, polarity = word >> 32 & 0xFFFF, word >> 48 & 0x7FFF, word >> 63
            t_ns = last = max(last, word & 0xFFFFFFFF)
        else:
            x, y, polarity, us = word >> 17 & 0x7FFF, word >> 2 & 0x7FFF, word >> 1 & 1, word >> 32 & 0x7FFFFFFF
            wrapped, last = wrapped + (us < last) * (1 << 31), us
            t_ns = (us + wrapped) * 1000
        if x < WIDTH and y < HEIGHT:
            found.append((x, y, polarity, t_ns + time_base))
    return found


@settings(max_examples=100)
@given(streams())
def test_packets_of_every_encoding_like_the_plain_loop(stream: tuple[str, list[bytes]]) -> None:
    """Events, counts and state, over truncated packets too."""
    encoding, packets = stream
    fast, plain = EventDecoder(encoding, WIDTH, HEIGHT), EventDecoder(encoding, WIDTH, HEIGHT)
    for time_base, data in enumerate(packets):
        got = rows(fast.decode(data, time_base))
        if encoding in ("mono", "libcaer"):
            assert got == whole_words(data, encoding, time_base)
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(event_kernel, "compiled", lambda: event_kernel.INTERPRETED)
            assert got == rows(plain.decode(data, time_base))
        assert fast.counts == plain.counts


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.booleans(), st.integers(0, 30)), max_size=400),
    st.integers(1, 40),
)
def test_count_images_like_the_plain_loop(events: list[Row], window_ns: int) -> None:
    events.sort(key=lambda row: row[3])
    columns = np.array(events, np.int64).reshape(-1, 4).T
    window = EventAccumulator(3, 2, window_ns)
    window.add(Events(columns[0].astype(np.uint16), columns[1].astype(np.uint16), columns[2] != 0, columns[3]))
    expected = np.zeros((2, 3, 2), np.int64)
    for x, y, polarity, t_ns in events:
        expected[y, x, 0 if polarity else 1] += window.latest_ns - window_ns < t_ns
    np.testing.assert_array_equal(window.image(), np.minimum(expected, 255))


def test_truncated_packet_is_counted_and_resynchronises() -> None:
    decoder = EventDecoder("evt3", WIDTH, HEIGHT)
    start = as_bytes([0x8001, 0x6002, 0x0003, 0x2004])
    assert rows(decoder.decode(start + b"\x01")) == [(4, 3, 0, 4098_000)]
    lost_then_found = as_bytes([0x2005, 0x8001, 0x6003, 0x2006, 0x0007, 0x5001, 0x3008, 0x5001])
    assert rows(decoder.decode(lost_then_found)) == [(8, 7, 0, 4099_000)]
    assert decoder.counts.truncated_packets == 1
    assert decoder.counts.unsynchronised == 3  # no time, no row, no vector base


def packet(seq: int, words: list[int], **changes: object) -> EventPacket:
    fields: dict = {
        "stamp_ns": 0, "frame_id": "", "width": WIDTH, "height": HEIGHT, "seq": seq, "time_base": 0,
        "encoding": "evt3", "is_bigendian": False, "events": np.frombuffer(as_bytes(words), np.uint8),
    }  # fmt: skip
    return EventPacket(**{**fields, **changes})


def test_lost_packets_are_counted_and_resynchronise() -> None:
    first = packet(7, [0x8001, 0x6002, 0x0003, 0x2004])
    decoder = EventDecoder.for_packet(first)
    assert len(decoder.decode_packet(first)) == 1
    assert len(decoder.decode_packet(packet(8, [0x2004]))) == 1
    assert len(decoder.decode_packet(packet(11, [0x2004]))) == 0
    assert (decoder.counts.lost_packets, decoder.counts.unsynchronised) == (2, 1)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 0xFFFF), max_size=8), st.booleans(), st.booleans()), max_size=8),
    st.sampled_from(["evt3", "evt2", "evt21", "libcaer_cmp", "mono"]),
)
def test_packets_decoded_together_give_what_they_give_one_by_one(
    parts: list[tuple[list[int], bool, bool]], encoding: str
) -> None:
    """Whatever is lost between them or cut off in them."""
    start = packet(0, [0x8001, 0x6002, 0x0003, 0x2004], encoding=encoding)
    packets, seq = [start], 0
    for words, lost, cut in parts:
        seq += 2 if lost else 1
        events = np.frombuffer(as_bytes(words) + b"\1" * cut, np.uint8)
        packets.append(packet(seq, [], encoding=encoding, events=events, time_base=seq))
    together, one_by_one = EventDecoder.for_packet(start), EventDecoder.for_packet(start)
    expected = [row for p in packets for row in rows(one_by_one.decode_packet(p))]
    assert rows(together.decode_packets(packets)) == expected
    assert together.counts == one_by_one.counts


def test_time_goes_on_over_its_wraps() -> None:
    """The lower 12 bits wrap after 4.1 ms, all 24 after 16.8 s: an event every 4 ms over three of the latter."""
    encoder, times = EncoderEvt3(), range(0, 3 << 24, 4000)
    for us in times:
        encoder.set_time(us)
        encoder.set_row(1)
        encoder.single(2, 1)
    decoder = EventDecoder("evt3", WIDTH, HEIGHT)
    assert decoder.decode(as_bytes(encoder.words)).t_ns.tolist() == [us * 1000 for us in times]
    assert decoder.counts.time_wraps == 2


def test_time_wraps_and_small_steps_back() -> None:
    decoder = EventDecoder("evt3", WIDTH, HEIGHT)
    words = [0x8FFF, 0x6FFF, 0x0001, 0x2001, 0x8FFE, 0x6000, 0x2002, 0x8000, 0x2003, 0x6005, 0x2004]
    times = [t for *_, t in rows(decoder.decode(as_bytes(words)))]
    last = (1 << 24) - 1
    assert times == [last * 1000, last * 1000, (last + 1) * 1000, (last + 6) * 1000]
    assert decoder.counts.time_wraps == 1
    assert decoder.counts.time_corrections == 2


def test_padding_words_are_counted_and_cost_no_event() -> None:
    """Some sensors fill their packets with 0x9999, which is no word of EVT3."""
    words = [0x8001, 0x6002, 0x0003, *[0x9999] * 2, 0x2004, *[0x9999] * 2, 0x6003, 0x2005]
    decoder = EventDecoder("evt3", WIDTH, HEIGHT)
    assert rows(decoder.decode(as_bytes(words))) == [(4, 3, 0, 4098_000), (5, 3, 0, 4099_000)]
    assert decoder.counts.unknown_words == 4


def test_a_sensor_that_starts_anew_is_read_as_a_wrap() -> None:
    """24 bits of time that begin again at 0 after 16.4 s cannot be told from 16.8 s that are over."""
    decoder = EventDecoder("evt3", WIDTH, HEIGHT)
    encoder = EncoderEvt3()
    for us in range(0, 16_400_001, 400_000):
        encoder.set_time(us)
        encoder.set_row(1)
        encoder.single(2, 1)
    before = decoder.decode(as_bytes(encoder.words))
    restarted = EncoderEvt3()
    restarted.set_time(5_000)
    restarted.set_row(1)
    restarted.single(2, 0)
    after = decoder.decode(as_bytes(restarted.words))
    assert before.t_ns[-1] == 16_400_000_000
    assert after.t_ns.tolist() == [((1 << 24) + 5_000) * 1000]
    assert decoder.counts.time_wraps == 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 2047), st.booleans(), st.integers(0, 1 << 33))))
def test_evt2_round_trip(events: list[Row]) -> None:
    words, expected, us, high = [], [], 0, -1
    for x, y, polarity, step in events:
        us += step
        if us >> 6 != high:
            high = us >> 6
            words.append(0x80000000 | high & 0xFFFFFFF)
        words += [0xA0000000, polarity << 28 | (us & 0x3F) << 22 | x << 11 | y]
        expected.append((x, y, int(polarity), us * 1000))
    decoder = EventDecoder("evt2", 2048, 2048, big_endian=True)
    assert rows(decoder.decode(as_bytes(words, "I", ">"))) == expected
    assert decoder.counts.triggers == len(events)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 639), st.integers(0, 479), st.booleans(), st.integers(0, 1 << 24)), max_size=50)
)
def test_mono_round_trip(events: list[Row]) -> None:
    words, expected, dt = [], [], 0
    for x, y, polarity, step in events:
        dt += step
        words.append(polarity << 63 | y << 48 | x << 32 | dt)
        expected.append((x, y, int(polarity), dt + 10**18))
    assert rows(EventDecoder("mono", WIDTH, HEIGHT).decode(as_bytes(words, "Q"), 10**18)) == expected


@pytest.mark.parametrize("encoding", ["evt21", "evt21_legacy"])
@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 63), st.integers(0, 2047), st.booleans(), st.integers(0, 1 << 33), st.integers(0, 2**32 - 1)
        )
    )
)
def test_evt21_round_trip(encoding: str, vectors: list[tuple[int, int, bool, int, int]]) -> None:
    """Vectors of 32 pixels of a row, `x` counted in vectors; a trigger and an untimed vector before them."""
    words, expected, us, high = [0x5 << 32 | 0b101], [], 0, -1
    for column, y, polarity, step, fired in vectors:
        us += step
        if us >> 6 != high:
            high = us >> 6
            words.append((0x80000000 | high & 0xFFFFFFF) << 32)
        head = polarity << 28 | (us & 0x3F) << 22 | 32 * column << 11 | y
        words += [0xA0000000 << 32, head << 32 | fired]
        expected += [(32 * column + i, y, int(polarity), us * 1000) for i in range(32) if fired >> i & 1]
    if encoding == "evt21_legacy":
        words = [word >> 32 | (word & 0xFFFFFFFF) << 32 for word in words]
    decoder = EventDecoder(encoding, 2048, 2048)
    assert rows(decoder.decode(as_bytes(words, "Q"))) == expected
    assert (decoder.counts.triggers, decoder.counts.unsynchronised) == (len(vectors), 2)


@settings(max_examples=50)
@given(
    st.integers(0, (1 << 31) - 1),
    st.lists(st.tuples(st.integers(0, 639), st.integers(0, 479), st.booleans(), st.integers(0, 1 << 29)), max_size=12),
)
def test_libcaer_round_trip_over_the_wrap_of_31_bits(us: int, events: list[Row]) -> None:
    words, expected, high = [], [], us >> 31
    for x, y, polarity, step in events:
        us += step if words else 0
        words.append((us & 0x7FFFFFFF) << 32 | x << 17 | y << 2 | polarity << 1 | 1)
        expected.append((x, y, int(polarity), us * 1000 + 10**18))
    decoder = EventDecoder("libcaer", WIDTH, HEIGHT)
    assert rows(decoder.decode(as_bytes(words, "Q"), 10**18)) == expected
    assert decoder.counts.time_wraps == (us >> 31) - high


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: EventDecoder("evt4", 4, 4), "unknown event encoding 'evt4'.*evt3, libcaer_cmp"),
        (lambda: EventDecoder("evt3", 0, 4), "0x4"),
        (lambda: EventDecoder("mono", 4, 4).decode(b"", 1 << 63), "time_base"),
        (lambda: EventDecoder("evt3", 4, 4).decode_packet(packet(0, [])), "start a new decoder"),
        (lambda: EventPacket.from_cdr(b""), "nothing"),
        (lambda: EventPacket.from_cdr(b"\0\1\0\0\1"), "truncated"),
    ],
)
def test_errors_name_the_cause(action, message: str) -> None:
    with pytest.raises(EventDecodeError, match=message):
        action()


dvs_events = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 7), st.integers(0, 1), st.integers(0, 10**18)))


@given(dvs_events, st.sampled_from("<>"))
def test_dvs_event_array(events: list[Row], order: str) -> None:
    array = EventArray.from_cdr(dvs_cdr(events, order))
    inside = [row for row in events if row[0] < 8 and row[1] < 6]
    assert (array.width, array.height, array.frame_id, array.stamp_ns) == (8, 6, "cam", 5_000_000_006)
    assert rows(array.events) == sorted(inside, key=lambda row: row[3])
    assert array.out_of_bounds == len(events) - len(inside)

    def stamp(ns: int) -> SimpleNamespace:
        return SimpleNamespace(sec=ns // 10**9, nanosec=ns % 10**9)

    objects = [SimpleNamespace(x=x, y=y, polarity=bool(p), ts=stamp(t)) for x, y, p, t in events]
    header = SimpleNamespace(stamp=stamp(5_000_000_006), frame_id="cam")
    message: Any = SimpleNamespace(header=header, width=8, height=6, events=objects)
    assert rows(EventArray.from_message(message).events) == rows(array.events)


@given(st.binary(max_size=200), st.booleans())
def test_any_cdr_is_read_or_refused(data: bytes, plain: bool) -> None:
    for read in (EventArray.from_cdr, EventPacket.from_cdr):
        try:
            read(b"\0\1\0\0" + data if plain else data)
        except EventDecodeError as error:
            assert str(error)  # noqa: PT017 (either outcome is right)


HEADERS = {
    "format": b"% format EVT3;height=480;width=640\n% end\n",
    "geometry": b"% evt 3.0\n% geometry 640x480\n% end\n",
    "old, without end": b"% date 2020-09-14 14:18:29\n% evt 3.0\n% width 640\n% height 480\n",
    "big-endian": b"% format EVT3;height=480;width=640;endianness=big\n% end\n",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_raw_recording(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(
        header + as_bytes([0x8001, 0x6002, 0x0003, 0x2004], order=">" if b"big" in header else "<") + b"\7"
    )
    recording = RawRecording(path)
    assert rows(Events.concatenate(recording)) == [(4, 3, 0, 4098_000)]
    assert (recording.decoder.width, recording.decoder.height) == (WIDTH, HEIGHT)
    assert recording.decoder.counts.truncated_packets == 1


@pytest.mark.parametrize(
    ("header", "message"),
    [(b"% evt 3.0\n", "pass size"), (b"% format EVT4;height=4;width=4\n", "EVT4.*convert"), (b"", "given")],
)
def test_raw_recording_errors(header: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(header)
    with pytest.raises(EventDecodeError, match=message):
        RawRecording(path)


def events_at(times: list[int], x: int = 1, y: int = 2, polarity: bool = True) -> Events:
    n = len(times)
    column = np.ones(n, np.uint16)
    return Events(column * x, column * y, np.full(n, polarity), np.array(times, np.int64))


def test_accumulator_slides_and_separates_polarity() -> None:
    window = EventAccumulator(4, 3, window_ns=10)
    window.add(events_at([100, 101, 105]))
    window.add(events_at([110], polarity=False))
    expected = np.zeros((3, 4, 2), np.uint8)
    expected[2, 1] = 2, 1  # 100 is outside (100, 110]
    np.testing.assert_array_equal(window.image(), expected)
    assert window.image(end_ns=115).sum() == 1
    assert window.image(end_ns=104).sum() == 2


def test_accumulator_saturates() -> None:
    window = EventAccumulator(4, 3, window_ns=10)
    window.add(events_at([5] * 300))
    assert window.image()[2, 1].tolist() == [255, 0]


def test_accumulator_begins_anew_when_the_clock_jumps_back() -> None:
    window = EventAccumulator(4, 3, window_ns=10)
    window.add(events_at([1000]))
    window.add(events_at([5, 6]))
    assert window.image().sum() == 2


def test_accumulator_forgets_old_batches() -> None:
    window = EventAccumulator(4, 3, window_ns=10)
    for t in range(0, 1000, 5):
        window.add(events_at([t]))
    assert len(window._parts) <= 3


def test_accumulator_refuses_events_outside() -> None:
    with pytest.raises(ValueError, match="outside 4x3"):
        EventAccumulator(4, 3, window_ns=10).add(events_at([1], x=4))


def recorded(folder: Path) -> list[EventPacket]:
    return [EventPacket.from_cdr(data) for data in recorded_messages(folder)]


def test_recorded_evt3(recorded_data: Path) -> None:
    packets = recorded(recorded_data / "event_bags" / "test_events_1")
    decoder = EventDecoder.for_packet(packets[0])
    events = Events.concatenate([decoder.decode_packet(packet) for packet in packets])
    assert (len(packets), len(events), decoder.width, decoder.height) == (517, 343_474, WIDTH, HEIGHT)
    assert (int(events.x.max()), int(events.y.max())) == (WIDTH - 1, HEIGHT - 1)
    assert (np.diff(events.t_ns) >= 0).all()
    assert (decoder.counts.triggers, decoder.counts.lost_packets, decoder.counts.unknown_words) == (4157, 0, 0)
    assert decoder.counts.unsynchronised == decoder.counts.out_of_bounds == decoder.counts.time_corrections == 0


def test_recorded_evt3_like_the_reference(recorded_data: Path) -> None:
    data = b"".join(packet.events.tobytes() for packet in recorded(recorded_data / "event_bags" / "test_events_1")[:40])
    assert_same_as_reference(np.frombuffer(data, "<u2").tolist(), "evt3", WIDTH, HEIGHT)


def test_recorded_libcaer(recorded_data: Path) -> None:
    packets = recorded(recorded_data / "event_bags" / "test_events_2")
    decoder = EventDecoder.for_packet(packets[0])
    parts = [decoder.decode_packet(packet) for packet in packets]
    events = Events.concatenate(parts)
    assert (len(packets), decoder.encoding, decoder.width, decoder.height) == (100, "libcaer_cmp", 346, 260)
    assert len(events) > 100_000
    assert (np.diff(events.t_ns) >= 0).all()
    assert decoder.counts.unknown_words == decoder.counts.lost_packets == decoder.counts.time_corrections == 0
    for packet, part in list(zip(packets, parts, strict=True))[:10]:
        expected, _ = reference(np.frombuffer(packet.events, "<u2").tolist(), "libcaer_cmp", 346, 260)
        assert [(x, y, p, t - packet.time_base) for x, y, p, t in rows(part)] == expected
