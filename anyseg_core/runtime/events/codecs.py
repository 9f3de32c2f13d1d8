"""The encodings of event streams: words -> x, y, polarity, time.

Facts are from docs.prophesee.ai "Data encoding formats", from ros-event-camera/event_camera_codecs and libcaer's
`polarity.h`:

- `evt3`: 16-bit words; a word sets the row, the time or the base of a vector, or emits events at the state so far.
- `libcaer_cmp`: the same idea with rows and columns exchanged, times relative to the packet's `time_base`.
- `evt2`: 32-bit words, one event each; the upper 28 bits of the time come in words of their own.
- `evt21`: 64-bit words, a word of `evt2` in the upper half and 32 pixels of its row in the lower one; `evt21_legacy`
  has the halves exchanged.
- `libcaer`: 64-bit words, one event each, in microseconds of 31 bits since the packet's `time_base`.
- `mono`: 64-bit words, one event each, in nanoseconds since the packet's `time_base`.

Where numba is installed, the compiled loops of kernel.py decode all but the last two. Without it there is no loop
over words: the words that emit events are found, and every word that sets a state is repeated for as long as it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.events import kernel


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


_BLOCK = 1 << 15
"""Words at a time, to bound the memory of temporary arrays."""

_RECORDS = 1 << 16
"""Of `kernel.vector_words` at a time: half a megabyte, so that they are in the processor's cache when they are read."""

_Int = NDArray[np.int64]
Block = tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.bool_], NDArray[np.int64]]
"""x, y, polarity, t_ns of some events, not yet checked against the size of the sensor."""


class Codec(Protocol):
    """One encoding. `word` is its unit; `decode` gets whole, aligned words in the machine's byte order."""

    word: np.dtype
    joins_packets: bool
    """Whether packets that follow each other may be decoded as one: where no packet has a time base of its own."""

    def __init__(self, counts: DecodeCounts) -> None: ...
    def decode(self, words: NDArray, time_base: int) -> Iterator[Block]: ...
    def decode_compiled(self, words: NDArray, time_base: int, width: int, height: int) -> Iterable[Block] | None:
        """What `decode` gives; events outside may be dropped and counted. None where no loop is compiled for it."""
        ...

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
    if len(times) == 0 or (times[0] >= earliest and not (times[1:] < times[:-1]).any()):
        return times, 0
    monotonic = np.maximum(np.maximum.accumulate(times), earliest)
    return monotonic, int(np.count_nonzero(monotonic != times))


def _first(mask: NDArray[np.bool_]) -> int:
    """Index of the first True, or the length where there is none."""
    return int(mask.argmax()) if mask.any() else len(mask)


def _parts(words: NDArray[np.uint64], bits: int) -> NDArray[np.unsignedinteger]:
    """[n, 64 / bits]: the parts of 64-bit words, the least significant first, as a view."""
    return words.astype("<u8", copy=False).view(f"<u{bits // 8}").reshape(-1, 64 // bits)


def _roles(**types: int | tuple[int, ...]) -> NDArray[np.uint8]:
    """uint8 [16]: the role of each value of the upper four bits, from role names and their values."""
    table = np.full(16, kernel.UNDEFINED, np.uint8)
    for role, values in types.items():
        table[np.array(values)] = getattr(kernel, role)
    return table


class _Stateful:
    """A codec that goes on from the state of kernel.py."""

    def __init__(self, counts: DecodeCounts) -> None:
        self.counts = counts
        self.state = np.zeros(kernel.STATE_SIZE, np.int64)
        self.resynchronise()

    def resynchronise(self) -> None:
        raise NotImplementedError

    def _collect_counts(self) -> None:
        tally = self.state[kernel.WRAPS_AT :].tolist()
        if any(tally):
            for name, count in zip(_TALLIES, tally, strict=True):
                setattr(self.counts, name, getattr(self.counts, name) + count)
            self.state[kernel.WRAPS_AT :] = 0


_TALLIES = (
    "time_wraps", "time_corrections", "triggers", "other_words", "unknown_words", "unsynchronised", "out_of_bounds",
)  # fmt: skip
"""Of the state, from `kernel.WRAPS_AT` on."""


class _VectorWords(_Stateful):
    """`evt3` and `libcaer_cmp`: 16-bit words, four bits of type and twelve of content.

    One coordinate is held for many events, the other moves with every event.
    """

    word = np.dtype(np.uint16)
    joins_packets: bool
    roles: NDArray[np.uint8]
    rules: NDArray[np.uint64]
    """`kernel.lane_rules` of the roles."""
    held_is_x: bool

    def __init__(self, counts: DecodeCounts) -> None:
        super().__init__(counts)
        self._records = np.empty(_RECORDS, np.uint64)

    def resynchronise(self) -> None:
        self.state[kernel.HELD_AT], self.state[kernel.BASE_AT] = kernel.UNKNOWN, kernel.UNKNOWN_BASE
        self.state[kernel.POLARITY_AT] = 0
        self.high_known = self.time_known = False

    def decode(self, words: NDArray[np.uint16], time_base: int) -> Iterator[Block]:
        words = self._start_packet(words)
        if self.joins_packets:
            time_base = 0  # the stream has the sensor's own time
        for start in range(0, len(words), _BLOCK):
            held, moving, polarity, t_ns = _decode_vectorised(
                words[start : start + _BLOCK], self.roles, self.state, time_base
            )
            x, y = (held, moving) if self.held_is_x else (moving, held)
            yield x, y, polarity, t_ns
        self._collect_counts()

    def decode_compiled(
        self, words: NDArray[np.uint16], time_base: int, width: int, height: int
    ) -> Iterator[Block] | None:
        del width, height
        kernels = kernel.compiled()
        return None if kernels is None else self._decode_compiled(kernels, words, time_base)

    def _decode_compiled(self, kernels: kernel.Kernels, words: NDArray[np.uint16], time_base: int) -> Iterator[Block]:
        words = self._start_packet(words)
        time_base = 0 if self.joins_packets else time_base
        records = self._records
        while len(words):
            read, made, origin = kernels.vector_words(words, self.roles, self.rules, self.state, records)
            held, moving, polarity, t_ns = kernels.vector_events(records[:made], origin, time_base)
            x, y = (held, moving) if self.held_is_x else (moving, held)
            yield x, y, polarity, t_ns
            words = words[read:]
        self._collect_counts()

    def _start_packet(self, words: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The words from where the time is known."""
        raise NotImplementedError


_Decoded = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.bool_], NDArray[np.int64]]
"""Held coordinate, moving coordinate, polarity, t_ns, each [N]."""


def _decode_vectorised(words: NDArray[np.uint16], roles: NDArray[np.uint8], state: _Int, time_base: int) -> _Decoded:
    kinds = roles.take(words >> 12)  # [n]
    vectors = (kinds == kernel.VECTOR_8) | (kinds == kernel.VECTOR_12)
    is_emitting = (kinds == kernel.SINGLE) | vectors
    emitting = np.flatnonzero(is_emitting)  # [e]
    bases = np.flatnonzero(kinds == kernel.BASE)
    _count_skipped(kinds, state)
    t_ns = _times_us(words, kinds, is_emitting, state) * 1000 + time_base  # [e]
    held = _held_coordinates(words, kinds, is_emitting, state)  # [e]
    content = words.take(emitting)  # [e]
    if len(bases) == 0 and not vectors.any():
        return held, content & np.uint16(0x7FF), (content & 0x800) != 0, t_ns
    advance = _ADVANCE.take(kinds)  # [n]
    starts = _vector_starts(words, bases, advance, state).take(emitting)  # [e]
    number, moving, polarity = _expand(content, advance.take(emitting), starts)  # [e], [N], [N]
    return held.repeat(number), moving, polarity, t_ns.repeat(number)


_ADVANCE = np.zeros(10, np.uint8)  # pixels that a word of each role goes on by
_ADVANCE[[kernel.VECTOR_8, kernel.VECTOR_12]] = 8, 12


def _count_skipped(kinds: NDArray[np.uint8], state: _Int) -> None:
    if not (kinds >= kernel.TRIGGER).any():
        return
    for role, place in (
        (kernel.TRIGGER, kernel.TRIGGERS_AT),
        (kernel.OTHER, kernel.OTHERS_AT),
        (kernel.UNDEFINED, kernel.UNDEFINED_AT),
    ):
        state[place] += np.count_nonzero(kinds == role)


def _times_us(words: NDArray[np.uint16], kinds: NDArray[np.uint8], is_emitting: NDArray[np.bool_], state: _Int) -> _Int:
    """int64 [e]: the time at each emitting word. New upper bits put the lower ones to zero until their own follow."""
    is_low, is_high = kinds == kernel.TIME_LOW, kinds == kernel.TIME_HIGH
    highs, before = np.flatnonzero(is_high), int(state[kernel.HIGH_AT])
    unwrapped, wraps = _unwrap(
        (words[highs] & 0xFFF).astype(np.int64), before, 12, kernel.HIGH_BACKWARD, kernel.MAX_WRAPS
    )
    # Sensors repeat the upper bits often; only a change sets a time.
    changed = np.flatnonzero(unwrapped != np.concatenate([[before], unwrapped[:-1]])[: len(unwrapped)])
    changes = highs[changed]
    is_setting = is_low
    is_setting[changes] = True
    setting = np.flatnonzero(is_setting)  # [t]
    low = (words.take(setting) & 0xFFF).astype(np.int64)
    at_change = setting.searchsorted(changes)
    low[at_change] = 0
    high = _held(at_change, unwrapped[changed], before, len(setting))  # [t]
    times, corrections = _never_decreasing(high << 12 | low, int(state[kernel.TIME_AT]))
    at_emitting = _last_set(times, is_setting, is_emitting, int(state[kernel.TIME_AT]))
    state[kernel.HIGH_AT] = unwrapped[-1] if len(unwrapped) else before
    state[kernel.TIME_AT] = times[-1] if len(times) else state[kernel.TIME_AT]
    state[kernel.WRAPS_AT] += wraps
    state[kernel.CORRECTIONS_AT] += corrections
    return at_emitting


def _held_coordinates(
    words: NDArray[np.uint16], kinds: NDArray[np.uint8], is_emitting: NDArray[np.bool_], state: _Int
) -> NDArray[np.uint16]:
    """uint16 [e]: the held coordinate at each emitting word."""
    is_held = kinds == kernel.HELD
    values = words.take(np.flatnonzero(is_held)) & np.uint16(0x7FF)
    held = _last_set(values, is_held, is_emitting, int(state[kernel.HELD_AT]))
    state[kernel.HELD_AT] = values[-1] if len(values) else state[kernel.HELD_AT]
    return held


def _last_set(values: NDArray, is_setting: NDArray[np.bool_], is_emitting: NDArray[np.bool_], carried: int) -> NDArray:
    """[e]: at each emitting word the value [s] set last, `carried` before the first.

    Among the setting and the emitting words alone, an emitting one has as many setting ones before it as its place is
    greater than its number.
    """
    either = np.flatnonzero(is_setting | is_emitting)
    places = np.flatnonzero(is_emitting.take(either))
    settings = np.empty(len(values) + 1, values.dtype)
    settings[0], settings[1:] = carried, values
    return settings.take(places - np.arange(len(places)))


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
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.bool_]]:
    """Words with 1 (`length` 0), 8 or 12 events -> how many events each holds [e]; moving coordinate, polarity [N]."""
    is_vector = length != 0
    single_starts = (content & 0x7FF).astype(np.int32) << 1 | (content >> 11 & 1)
    starts = np.where(is_vector, starts, single_starts)  # [e]
    members = (np.uint16(1) << length.astype(np.uint16)) - np.uint16(1)  # [e], the bits that count
    fired = np.where(is_vector, content & members, 1).astype("<u2")
    number = _BITS_SET.take(fired)
    bits = np.flatnonzero(np.unpackbits(fired.view(np.uint8), bitorder="little"))  # [N], word * 16 + bit
    starts = starts.repeat(number)
    moving = (starts >> 1) + (bits & 15).astype(np.int32)
    if len(moving) and int(moving.max()) > kernel.MAX_BASE:
        moving = np.where(moving >= kernel.UNKNOWN_BASE, kernel.UNKNOWN, np.minimum(moving, kernel.MAX_BASE))
    return number, moving.astype(np.uint16), (starts & 1) != 0


_BITS_SET = np.array([bin(bits).count("1") for bits in range(1 << 12)], np.uint8)


_EVT3_TIME_LOW, _EVT3_TIME_HIGH = 0x6, 0x8


class _Evt3(_VectorWords):
    joins_packets = True
    roles = _roles(
        HELD=0x0, SINGLE=0x2, BASE=0x3, VECTOR_12=0x4, VECTOR_8=0x5, TIME_LOW=_EVT3_TIME_LOW,
        TIME_HIGH=_EVT3_TIME_HIGH, TRIGGER=0xA, OTHER=(0x7, 0xE, 0xF),
    )  # fmt: skip
    rules = kernel.lane_rules(roles)
    held_is_x = False

    def _start_packet(self, words: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Skips to the first lower time bits that come after upper ones."""
        if self.time_known:
            return words
        kinds = words >> 12
        first = 0 if self.high_known else _first(kinds == _EVT3_TIME_HIGH)
        start = first + _first(kinds[first:] == _EVT3_TIME_LOW)
        self.time_known = start < len(words)
        self._skip(words[:start], self.roles[kinds[:start]])
        return words[start:]

    def _skip(self, words: NDArray[np.uint16], kinds: NDArray[np.uint8]) -> None:
        """Words without a known time: only their upper time bits are used, the rest is counted."""
        is_high = kinds == kernel.TIME_HIGH
        if is_high.any():
            highs = np.flatnonzero(is_high)
            _times_us(words[highs], kinds[highs], np.zeros(len(highs), np.bool_), self.state)
            self.high_known = True
        is_8, is_12 = kinds == kernel.VECTOR_8, kinds == kernel.VECTOR_12
        fired = np.concatenate([words[is_8] & 0xFF, words[is_12] & 0xFFF])
        events = np.count_nonzero(kinds == kernel.SINGLE) + np.unpackbits(fired.view(np.uint8)).sum()
        self.counts.unsynchronised += int(events)
        _count_skipped(kinds, self.state)
        self._collect_counts()


class _LibcaerCmp(_VectorWords):
    joins_packets = False
    roles = _roles(TIME_HIGH=0x0, TIME_LOW=0x1, HELD=0x2, SINGLE=0x3, BASE=0x4, VECTOR_8=0x5)
    rules = kernel.lane_rules(roles)
    held_is_x = True

    def _start_packet(self, words: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """All of them: times begin anew at every packet's `time_base`."""
        self.state[[kernel.HIGH_AT, kernel.TIME_AT]] = 0
        return words


class _Evt2(_Stateful):
    """32-bit words: type 4, lower time 6, x 11, y 11 bits; or type 4, upper time 28 bits."""

    word = np.dtype(np.uint32)
    joins_packets = True

    def resynchronise(self) -> None:
        self.state[kernel.TIME_KNOWN_AT] = 0

    def decode(self, words: NDArray[np.unsignedinteger], time_base: int) -> Iterator[Block]:
        del time_base  # the stream has the sensor's own time
        for start in range(0, len(words), _BLOCK):
            content, t_ns, _, untimed = self._timed(words[start : start + _BLOCK])
            self.counts.unsynchronised += len(untimed)
            yield content >> 11 & 0x7FF, content & 0x7FF, content >> 28 == 1, t_ns

    def decode_compiled(self, words: NDArray, time_base: int, width: int, height: int) -> list[Block] | None:
        del time_base
        heads = words.view(np.int32)
        return self._run_kernel(heads, np.broadcast_to(np.int32(1), len(heads)), (width, height))

    def _run_kernel(
        self, heads: NDArray[np.int32], fired: NDArray[np.int32], size: tuple[int, int]
    ) -> list[Block] | None:
        kernels = kernel.compiled()
        if kernels is None:
            return None
        decoded = kernels.evt2_words(heads, fired, self.state, size)
        self._collect_counts()
        return [decoded]

    def _timed(self, words: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.unsignedinteger], _Int, _Int, _Int]:
        """The events with a known time [N], their times in ns [N] and positions [N]; the positions of the others."""
        state, kinds = self.state, words >> 28  # [n]
        events, highs = np.flatnonzero(kinds <= 1), np.flatnonzero(kinds == 0x8)
        self._count_skipped(kinds, len(words) - len(events) - len(highs))
        is_known = bool(state[kernel.TIME_KNOWN_AT])
        first = 0 if is_known else int(events.searchsorted(highs[0])) if len(highs) else len(events)
        timed, untimed = events[first:], events[:first]
        upper, before = (words[highs] & 0xFFFFFFF).astype(np.int64), int(state[kernel.HIGH_AT])
        upper, wraps = _unwrap(upper, before, 28, kernel.EVT2_BACKWARD, kernel.EVT2_MAX_WRAPS)
        high = _held(timed.searchsorted(highs), upper << 6, before << 6, len(timed))  # [N]
        content = words.take(timed)  # [N]
        times, corrections = _never_decreasing(high | content >> 22 & 0x3F, int(state[kernel.TIME_AT]))
        if len(upper):
            state[kernel.HIGH_AT], state[kernel.TIME_KNOWN_AT] = upper[-1], 1
        if len(times):
            state[kernel.TIME_AT] = times[-1]
        self.counts.time_wraps += wraps
        self.counts.time_corrections += corrections
        return content, times * 1000, timed, untimed

    def _count_skipped(self, kinds: NDArray[np.integer], skipped: int) -> None:
        if skipped == 0:
            return
        triggers, others = int(np.count_nonzero(kinds == 0xA)), int(np.count_nonzero(kinds >= 0xE))
        self.counts.triggers += triggers
        self.counts.other_words += others
        self.counts.unknown_words += skipped - triggers - others


class _Evt21(_Evt2):
    """64-bit words: a word of `evt2` whose x is that of the first of 32 pixels, and a bit for each of them."""

    word = np.dtype(np.uint64)
    halves = (1, 0)
    """Places of the `evt2` word and of the bits, counted from the least significant half."""

    def decode(self, words: NDArray[np.unsignedinteger], time_base: int) -> Iterator[Block]:
        del time_base
        heads, fired = self._parted(words)
        for start in range(0, len(words), _BLOCK):
            yield self._decode_vectors(heads[start : start + _BLOCK], fired[start : start + _BLOCK])

    def decode_compiled(self, words: NDArray, time_base: int, width: int, height: int) -> list[Block] | None:
        del time_base
        heads, fired = self._parted(words)
        return self._run_kernel(heads.view(np.int32), fired.view(np.int32), (width, height))

    def _parted(self, words: NDArray) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """The words of `evt2` and the bits, as strided views."""
        halves = _parts(words, 32)
        return halves[:, self.halves[0]], halves[:, self.halves[1]]

    def _decode_vectors(self, heads: NDArray[np.uint32], fired: NDArray[np.uint32]) -> Block:
        content, t_ns, timed, untimed = self._timed(heads)
        self.counts.unsynchronised += int(np.unpackbits(fired[untimed].view(np.uint8)).sum())
        fired = fired.take(timed)
        bits = np.flatnonzero(np.unpackbits(fired.view(np.uint8), bitorder="little"))  # [N], word * 32 + bit
        number = _bits_set(fired)
        content = content.repeat(number)
        x = (content >> 11 & 0x7FF) + (bits & 31).astype(np.uint32)
        return x, content & 0x7FF, content >> 28 == 1, t_ns.repeat(number)


def _bits_set(words: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """How many bits of each word are 1: first in pairs, then in fours, in bytes, and in the word."""
    pairs = words - (words >> 1 & 0x55555555)
    fours = (pairs & 0x33333333) + (pairs >> 2 & 0x33333333)
    octets = fours + (fours >> 4) & 0x0F0F0F0F
    return (octets * np.uint32(0x01010101) >> 24).astype(np.uint8)


class _Evt21Legacy(_Evt21):
    halves = (0, 1)


class _WholeWords:
    """64-bit words, each an event complete in itself."""

    word = np.dtype(np.uint64)
    joins_packets = False

    def __init__(self, counts: DecodeCounts) -> None:
        self.counts = counts

    def resynchronise(self) -> None:
        """Every word is complete in itself."""

    def decode_compiled(self, words: NDArray, time_base: int, width: int, height: int) -> list[Block] | None:
        """numpy is fast enough."""
        del words, time_base, width, height
        return None


class _Mono(_WholeWords):
    """64-bit words: time 32, x 16, y 15, polarity 1 bits, from the least significant bit."""

    def decode(self, words: NDArray[np.uint64], time_base: int) -> Iterator[Block]:
        times, corrections = _never_decreasing(_parts(words, 32)[:, 0].astype(np.int64), 0)
        self.counts.time_corrections += corrections
        times += time_base
        quarters = _parts(words, 16)  # [N, 4]
        yield quarters[:, 2].copy(), quarters[:, 3] & 0x7FFF, quarters[:, 3] >= 0x8000, times


class _Libcaer(_WholeWords):
    """64-bit words: valid 1, polarity 1, y 15, x 15 bits, then microseconds, from the least significant bit."""

    def decode(self, words: NDArray[np.uint64], time_base: int) -> Iterator[Block]:
        halves = _parts(words, 32)  # [N, 2]
        content, times = halves[:, 0], halves[:, 1].astype(np.int64)
        times &= _LIBCAER_TIME_MASK
        wraps = np.cumsum(times[1:] < times[:-1])  # within a packet; `time_base` has those before it
        times[1:] += wraps << 31
        self.counts.time_wraps += int(wraps[-1]) if len(wraps) else 0
        times *= 1000
        times += time_base
        yield content >> 17, content >> 2 & 0x7FFF, content & 2 != 0, times


_LIBCAER_TIME_MASK = (1 << 31) - 1

CODECS: dict[str, type[Codec]] = {
    "evt3": _Evt3,
    "libcaer_cmp": _LibcaerCmp,
    "evt2": _Evt2,
    "evt21": _Evt21,
    "evt21_legacy": _Evt21Legacy,
    "libcaer": _Libcaer,
    "mono": _Mono,
}
"""By the names of event_camera_msgs/EventPacket, and by those of Prophesee's files in lower case."""
