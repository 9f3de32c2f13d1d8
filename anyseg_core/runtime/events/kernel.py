"""Loops over the words of event streams, written so that numba can compile them.

numba is optional. Compiled, these loops are several times faster than the numpy form in codecs.py, which decodes
where numba is not installed; tests hold the two to the same result. Interpreted, they are plain Python, which is how
tests run them without numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

HELD, SINGLE, TIME_LOW, TIME_HIGH, BASE, VECTOR_8, VECTOR_12, TRIGGER, OTHER, UNDEFINED = range(10)
"""Roles of a 16-bit word. A format is a table uint8 [16] of them, by the upper four bits of the word."""

# Places in the state int64 [13] of a decoder: what decoding goes on from, ...
HIGH_AT, TIME_AT, TIME_KNOWN_AT, HELD_AT, BASE_AT, POLARITY_AT = range(6)
# ... and, from WRAPS_AT on, tallies.
WRAPS_AT, CORRECTIONS_AT, TRIGGERS_AT, OTHERS_AT, UNDEFINED_AT, UNSYNCHRONISED_AT, OUTSIDE_AT = range(6, 13)
STATE_SIZE = 13

UNKNOWN = 0xFFFF
"""A coordinate that was lost with earlier data or is yet to come."""
UNKNOWN_BASE = 1 << 27
"""The same for the base of a vector: out of reach from a known one."""
MAX_BASE = 1 << 15
"""Outside any sensor: a vector base grows no further in a damaged stream that never sets it anew."""
HIGH_BACKWARD = 10
"""Upper time bits step back a little at times; a step back by more than this means that they have wrapped around."""
MAX_WRAPS = 1 << 28
"""Keeps the nanoseconds of a stream of noise, which can fake a wrap with every word, within 64 bits."""
EVT2_BACKWARD = 640
"""In units of 64 us: the same 41 ms as for evt3."""
EVT2_MAX_WRAPS = 1 << 18

_FAR = (1 << 15) - 1
"""No sensor is so wide: the place of what lies further out."""
_SLACK = 8
"""Eight events are written at once and then cut to those that there are: room needed behind the last one."""
_OCTETS = np.arange(256)[:, None] >> np.arange(8) & 1  # [256, 8]
_NUMBER = _OCTETS.sum(1)
"""How many bits of an octet are set."""
_PLACES = (np.argsort(1 - _OCTETS, axis=1, kind="stable") << 8 * np.arange(8)).sum(1)
"""Which ones, from the lowest on: eight bits for each."""

# A record is an event in one number of three lanes: in bits 0 to 15 the word of a single event, in 16 to 31 the held
# coordinate, in 32 to 63 microseconds since an origin. A coordinate of more than 11 bits goes around the polarity.
_HELD_LANE, _TIME_LANE = np.uint64(16), np.uint64(32)
_COORDINATE, _TIME = np.uint64(0xFFFF), np.uint64(0xFFFFFFFF << 32)
_ALL_LANES = np.uint64(1 << 32 | 1 << 16 | 1)
"""Times a word: the word in each lane."""
_MOVING, _POLARITY, _FURTHER = np.uint64(0x7FF), np.uint64(0x800), np.uint64(0x7800)
_ONE, _CONTENT_BITS = np.uint64(1), np.uint64(12)
_FREQUENT = {SINGLE: (0xFFFF, 0xFFF), HELD: (0xFFFF << 16, 0x7FF << 16), TIME_LOW: (0xFFF << 32, 0xFFF << 32)}
"""Roles of the words that streams mostly consist of -> bits of a record that they replace, bits that they bring."""
_KEPT, _TAKEN, _EMITTED, _REFUSED = (np.uint64(16 * row) for row in range(4))
"""Where the rows of `lane_rules` begin."""
_MOST = 12
"""Records that one word can make."""

Outputs = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.bool_], NDArray[np.int64]]
"""x, y, polarity, t_ns of the events."""


def lane_rules(roles: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint64 [4 * 16]: what a word of each type [16] does to a record that is carried from word to word.

    Bits of the record that it keeps, bits that it brings, whether an event is emitted, and bits in which it must repeat
    the upper time bits told last, as that is all it does.
    """
    rules = np.zeros((4, 16), np.uint64)
    for kind, role in enumerate(roles.tolist()):
        replaced, brought = _FREQUENT.get(role, (0, 0))
        rules[:, kind] = ~np.uint64(replaced), brought, role == SINGLE, 0 if role in _FREQUENT else 0xFFFF
    return rules.reshape(-1)


def vector_words(  # noqa: C901, PLR0912, PLR0915 (one loop with a branch for each type of word, as the format is)
    words: NDArray[np.uint16],
    roles: NDArray[np.uint8],
    rules: NDArray[np.uint64],
    state: NDArray[np.int64],
    records: NDArray[np.uint64],
) -> tuple[int, int, int]:
    """The words of `evt3` and `libcaer_cmp` -> `records`; how many were read and made, and the origin of their times.

    Not all words are read where the records are full or the time has left their 32 bits. `rules` are `lane_rules` of
    the roles. No processor can foresee which of the frequent words comes next, and a wrong guess costs more than the
    word: they pass through an inner loop without a branch between them, everything else through the outer one.
    """
    held, base, polarity = state[HELD_AT], state[BASE_AT], state[POLARITY_AT]
    high, time, high_type = state[HIGH_AT], state[TIME_AT], np.argmax(roles == TIME_HIGH)
    i, n, all_words, room = (
        np.uint64(0),
        np.uint64(0),
        np.uint64(len(words)),
        np.uint64(len(records) - _MOST - _SLACK),
    )
    origin = time >> 12 << 12
    while i < all_words and n < room and time - origin < 1 << 32:
        word = np.int64(words[i])
        role, content = roles[word >> 12], word & 0xFFF
        if role <= TIME_LOW and time >> 12 == high:
            first, end, repeated = i, min(all_words, i + room - n), np.uint64(high_type << 12 | high & 0xFFF)
            record = np.uint64(time - origin) << _TIME_LANE | np.uint64(held) << _HELD_LANE
            while i < end:
                frequent = np.uint64(words[i])
                kind = frequent >> _CONTENT_BITS
                if (frequent ^ repeated) & rules[kind + _REFUSED]:
                    break
                changed = record & rules[kind + _KEPT] | frequent * _ALL_LANES & rules[kind + _TAKEN]
                if changed < record & _TIME:  # the time runs backwards
                    break
                record = changed
                records[n] = record
                n += rules[kind + _EMITTED]
                i += _ONE
            held, time = np.int64(record >> _HELD_LANE & _COORDINATE), origin + np.int64(record >> _TIME_LANE)
            if i > first:
                continue
        i += _ONE
        if role == SINGLE:
            records[n] = np.uint64((time - origin) << 32 | held << 16 | content)
            n += _ONE
        elif role == HELD:
            held = content & 0x7FF
        elif role == TIME_HIGH and content == high & 0xFFF:
            pass  # sensors repeat the upper time bits often
        elif role in (TIME_LOW, TIME_HIGH):
            low = content
            if role == TIME_HIGH:
                # New upper bits put the lower ones to zero until their own word follows.
                low, epoch = 0, high >> 12
                if content - (high & 0xFFF) < -HIGH_BACKWARD:
                    epoch = min(epoch + 1, MAX_WRAPS)
                    state[WRAPS_AT] += 1
                high = epoch << 12 | content
            now = high << 12 | low
            state[CORRECTIONS_AT] += now < time
            time = max(time, now)
        elif role in (VECTOR_8, VECTOR_12):
            length = 8 if role == VECTOR_8 else 12
            fired = content & (1 << length) - 1
            # Without a base it has no place, in either coordinate.
            row, start = (held, base) if base < UNKNOWN_BASE else (UNKNOWN, 0)
            head = (time - origin) << 32 | row << 16 | polarity << 11
            while fired:
                places = _PLACES[fired & 0xFF]
                for k in range(8):
                    moving = min(start + (places >> 8 * k & 0xFF), _FAR)
                    records[n + np.uint64(k)] = np.uint64(head | (moving & 0x7800) << 1 | moving & 0x7FF)
                n += np.uint64(_NUMBER[fired & 0xFF])
                fired, start = fired >> 8, start + 8
            if base < MAX_BASE:
                base += length
        elif role == BASE:
            base, polarity = content & 0x7FF, content >> 11
        else:
            state[TRIGGERS_AT if role == TRIGGER else OTHERS_AT if role == OTHER else UNDEFINED_AT] += 1
    state[HELD_AT], state[BASE_AT], state[POLARITY_AT] = held, base, polarity
    state[HIGH_AT], state[TIME_AT] = high, time
    return int(np.int64(i)), int(np.int64(n)), origin


def vector_events(records: NDArray[np.uint64], origin: int, time_base: int) -> Outputs:
    """Records -> events, inside the sensor or not; the held coordinate first.

    `time_base` in nanoseconds is added to all times.
    """
    count = len(records)
    held, moving = np.empty(count, np.uint16), np.empty(count, np.uint16)
    polarity, t_ns = np.empty(count, np.bool_), np.empty(count, np.int64)
    for i in range(count):
        record = records[i]
        held[i] = record >> _HELD_LANE & _COORDINATE
        moving[i] = record & _MOVING | record >> _ONE & _FURTHER
        polarity[i] = (record & _POLARITY) != 0
        t_ns[i] = (origin + np.int64(record >> _TIME_LANE)) * 1000 + time_base
    return held, moving, polarity, t_ns


def evt2_words(  # noqa: C901, PLR0912, PLR0915 (the same)
    heads: NDArray[np.int32],
    fired_pixels: NDArray[np.int32],
    state: NDArray[np.int64],
    size: tuple[int, int],
) -> Outputs:
    """The words of `evt2` and the 32 pixels of each -> events.

    An `evt2` word has its first pixel only, a word of `evt21` the bits that it came with. Events outside `size` (width,
    height) are counted and dropped.
    """
    width, height = size
    room = _SLACK
    for i in range(len(heads)):
        fired = int(fired_pixels[i])
        for _ in range(4):
            room += _NUMBER[fired & 0xFF]
            fired >>= 8
    x_out, y_out = np.empty(room, np.uint16), np.empty(room, np.uint16)
    polarity_out, t_ns_out = np.empty(room, np.bool_), np.empty(room, np.int64)
    high, time, is_known = state[HIGH_AT], state[TIME_AT], state[TIME_KNOWN_AT]
    n = 0
    for i in range(len(heads)):
        head = int(heads[i])
        kind = head >> 28 & 0xF
        if kind <= 1:
            fired = int(fired_pixels[i]) & 0xFFFFFFFF
            if not is_known:
                while fired:
                    state[UNSYNCHRONISED_AT] += fired & 1
                    fired >>= 1
                continue
            now = high << 6 | head >> 22 & 0x3F
            state[CORRECTIONS_AT] += now < time
            time = max(time, now)
            x, y = head >> 11 & 0x7FF, head & 0x7FF
            inside = max(min(width - x, 32), 0) if y < height else 0
            dropped, fired = fired >> inside, fired & (1 << inside) - 1
            while dropped:
                state[OUTSIDE_AT] += dropped & 1
                dropped >>= 1
            if fired == 1:
                x_out[n], y_out[n], polarity_out[n], t_ns_out[n] = x, y, kind != 0, time * 1000
                n += 1
                continue
            while fired:
                places = _PLACES[fired & 0xFF]
                for k in range(8):
                    x_out[n + k], y_out[n + k] = x + (places >> 8 * k & 0xFF), y
                    polarity_out[n + k], t_ns_out[n + k] = kind != 0, time * 1000
                n += _NUMBER[fired & 0xFF]
                fired, x = fired >> 8, x + 8
        elif kind == 0x8:
            upper = head & 0xFFFFFFF
            epoch = high >> 28
            if upper - (high & 0xFFFFFFF) < -EVT2_BACKWARD:
                epoch = min(epoch + 1, EVT2_MAX_WRAPS)
                state[WRAPS_AT] += 1
            high = epoch << 28 | upper
            is_known = 1
        else:
            state[TRIGGERS_AT if kind == 0xA else OTHERS_AT if kind >= 0xE else UNDEFINED_AT] += 1
    state[HIGH_AT], state[TIME_AT], state[TIME_KNOWN_AT] = high, time, is_known
    return x_out[:n], y_out[:n], polarity_out[:n], t_ns_out[:n]


def count_events(
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    polarity: NDArray[np.bool_],
    t_ns: NDArray[np.int64],
    after_ns: int,
    end_ns: int,
    counts: NDArray[np.uint8],
) -> None:
    """Add the events with after_ns < t <= end_ns to the positive and negative counts [H, W, 2], 255 at most."""
    flat, width = counts.reshape(-1), np.uint64(counts.shape[1])
    first = np.searchsorted(t_ns, after_ns, side="right")
    last = np.searchsorted(t_ns, end_ns, side="right")
    for i in range(first, last):
        at = np.uint64(2) * (np.uint64(y[i]) * width + np.uint64(x[i])) + np.uint64(not polarity[i])
        flat[at] += flat[at] < 255


class Kernels(NamedTuple):
    """The functions above."""

    vector_words: Callable[..., tuple[int, int, int]]
    vector_events: Callable[..., Outputs]
    evt2_words: Callable[..., Outputs]
    count_events: Callable[..., None]


INTERPRETED = Kernels(vector_words, vector_events, evt2_words, count_events)


@lru_cache(maxsize=1)
def compiled() -> Kernels | None:
    """The functions as machine code that releases the GIL; None where numba is not installed.

    The first call on a machine compiles for some seconds, the first one of a process loads what was kept on disk: make
    it before the first packet comes.
    """
    try:
        from numba import types
    except ImportError:
        return None
    integer, state = types.int64, types.int64[::1]
    roles, words, records = (
        types.Array(item, 1, "C", readonly=True) for item in (types.uint8, types.uint16, types.uint64)
    )
    halves = types.Array(types.int32, 1, "A", readonly=True)
    outputs = types.Tuple((types.uint16[::1], types.uint16[::1], types.boolean[::1], types.int64[::1]))
    triple, pair = types.UniTuple(integer, 3), types.UniTuple(integer, 2)
    events = [
        types.Array(item, 1, "A", readonly=True) for item in (types.uint16, types.uint16, types.boolean, types.int64)
    ]
    return Kernels(
        _compiled(vector_words, triple(words, roles, records, state, types.uint64[::1])),
        _compiled(vector_events, outputs(records, integer, integer)),
        _compiled(evt2_words, outputs(halves, halves, state, pair)),
        _compiled(count_events, types.void(*events, integer, integer, types.uint8[:, :, ::1])),
    )


def _compiled(function: Callable[..., Any], signature: Any) -> Callable[..., Any]:
    from numba import njit

    try:
        return njit(signature, nogil=True, cache=True)(function)
    except (RuntimeError, OSError):  # nowhere to write the cache
        return njit(signature, nogil=True)(function)
