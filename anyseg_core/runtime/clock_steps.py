"""Clocks that are set: by NTP when a robot without a clock battery finds a network, by a bag that plays in a loop."""

from __future__ import annotations

import time
from collections.abc import Callable

from anyseg_core.runtime.time_units import NS_PER_S

CLOCK_JUMP_NS = NS_PER_S // 2
"""A clock that steps by more than this has been set; less is callbacks overtaking each other."""


def clock_was_set(before_ns: int, now_ns: int) -> bool:
    """Whether times before and after have nothing to do with each other: the clock was set back, or a simulated one,
    which reads 0 until somebody tells the time (ROS 2: `use_sim_time`), has just been told it."""
    return now_ns < before_ns - CLOCK_JUMP_NS or before_ns == 0 < now_ns


class ClockSteps:
    """Watches a clock beside the steady one, which nobody sets."""

    def __init__(self, steady_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._steady_ns = steady_ns
        self._ahead_ns: int | None = None

    def forward_ns(self, now_ns: int) -> int:
        """How far the clock was set forward since the last call, 0 where it was not; less than `CLOCK_JUMP_NS` is not.

        A machine that was suspended meanwhile looks the same, and is: nothing that was timed before it counts.
        """
        before_ns, self._ahead_ns = self._ahead_ns, now_ns - self._steady_ns()
        step_ns = 0 if before_ns is None else self._ahead_ns - before_ns
        return step_ns if step_ns > CLOCK_JUMP_NS else 0
