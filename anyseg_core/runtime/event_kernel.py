"""The loop over the 16-bit words of `evt3` and `libcaer_cmp`, written so that numba can compile it.

numba is optional. Compiled, this loop is many times faster than the numpy form in events.py, which decodes where
numba is not installed; a test holds the two to the same result. Interpreted, it is the plain Python loop that the
event benchmark compares with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

HELD, SINGLE, BASE, VECTOR_8, VECTOR_12, TIME_LOW, TIME_HIGH, TRIGGER, OTHER, UNDEFINED = range(10)
"""Roles of a word. A format is a table uint8 [16] of them, by the upper four bits of the word."""

HELD_AT, BASE_AT, POLARITY_AT, HIGH_AT, TIME_AT, WRAPS_AT, CORRECTIONS_AT, TRIGGERS_AT, OTHERS_AT, UNDEFINED_AT = range(
    10
)
"""Places in the state int64 [10], from which decoding goes on."""

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


SLACK = 12
"""A vector is written whole and then cut to the events it holds: room that the outputs need behind the last event."""


def capacity(words: NDArray[np.uint16]) -> int:
    """Room that `decode_words` needs for the words [n]: types 4 and 5 are the vectors of both formats."""
    vectors = np.count_nonzero(words & 0xE000 == 0x4000)
    return len(words) + (SLACK - 1) * vectors + SLACK


def decode_words(  # noqa: C901, PLR0912 (one loop with a branch for each type of word, as the format is)
    words: NDArray[np.uint16],
    roles: NDArray[np.uint8],
    state: NDArray[np.int64],
    time_base: int,
    held_out: NDArray[np.uint16],
    moving_out: NDArray[np.uint16],
    polarity_out: NDArray[np.bool_],
    t_ns_out: NDArray[np.int64],
) -> int:
    """Writes the events of the words into the last four arrays, of at least `capacity` items, and updates the state.

    `time_base` in nanoseconds is added to all times. Returns the number of events.
    """
    held, base, polarity, high, time = (
        state[HELD_AT],
        state[BASE_AT],
        state[POLARITY_AT],
        state[HIGH_AT],
        state[TIME_AT],
    )
    t_ns = time * 1000 + time_base
    n = 0
    for i in range(len(words)):
        word = int(words[i])
        role, content = roles[word >> 12], word & 0xFFF
        if role == SINGLE:
            held_out[n], moving_out[n], polarity_out[n], t_ns_out[n] = held, content & 0x7FF, content > 0x7FF, t_ns
            n += 1
        elif role == HELD:
            held = content & 0x7FF
        elif role in (TIME_LOW, TIME_HIGH):
            low = content
            if role == TIME_HIGH:
                # New upper bits put the lower ones to zero until their own word follows.
                before, low, epoch = high, 0, high >> 12
                if content - (high & 0xFFF) < -HIGH_BACKWARD:
                    epoch = min(epoch + 1, MAX_WRAPS)
                    state[WRAPS_AT] += 1
                high = epoch << 12 | content
                if high == before:  # sensors repeat the upper bits often
                    continue
            now = high << 12 | low
            if now < time:
                state[CORRECTIONS_AT] += 1
            time = max(time, now)
            t_ns = time * 1000 + time_base
        elif role in (VECTOR_8, VECTOR_12):
            length = 8 if role == VECTOR_8 else 12
            for bit in range(length):  # without a branch that depends on the bit: the next one is written over it
                moving = min(base + bit, UNKNOWN)
                held_out[n], moving_out[n], polarity_out[n], t_ns_out[n] = held, moving, polarity != 0, t_ns
                n += content >> bit & 1
            if base < MAX_BASE:
                base += length
        elif role == BASE:
            base, polarity = content & 0x7FF, content >> 11
        else:
            state[TRIGGERS_AT if role == TRIGGER else OTHERS_AT if role == OTHER else UNDEFINED_AT] += 1
    state[HELD_AT], state[BASE_AT], state[POLARITY_AT], state[HIGH_AT], state[TIME_AT] = (
        held,
        base,
        polarity,
        high,
        time,
    )
    return n


@lru_cache(maxsize=1)
def compiled() -> Callable[..., int] | None:
    """`decode_words` as machine code that releases the GIL; None where numba is not installed.

    The first call on a machine compiles for some seconds; the result is kept on disk.
    """
    try:
        from numba import njit, types
    except ImportError:
        return None
    words = types.Array(types.uint16, 1, "C", readonly=True)
    roles, state = types.Array(types.uint8, 1, "C", readonly=True), types.int64[::1]
    outputs = (types.uint16[::1], types.uint16[::1], types.boolean[::1], types.int64[::1])
    signature = types.int64(words, roles, state, types.int64, *outputs)
    try:
        return njit(signature, nogil=True, cache=True)(decode_words)
    except (RuntimeError, OSError):  # nowhere to write the cache
        return njit(signature, nogil=True)(decode_words)
