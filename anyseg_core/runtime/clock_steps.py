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
        self._before: tuple[int, int] | None = None  # (clock, steady)

    def step_ns(self, now_ns: int, *, is_simulated: bool = False) -> int:
        """How far the clock was set since the last call, back where negative; 0 where it was not, or by less than
        `CLOCK_JUMP_NS`.

        A simulated clock may run at any speed or rest: of it, only to run back is a step. A machine that was suspended
        meanwhile looks like a clock that was set forward, and is: nothing that was timed before it counts.
        """
        steady_ns = self._steady_ns()
        before, self._before = self._before, (now_ns, steady_ns)
        if before is None:
            return 0
        passed_ns = now_ns - before[0]
        step_ns = min(passed_ns, 0) if is_simulated else passed_ns - (steady_ns - before[1])
        return step_ns if abs(step_ns) > CLOCK_JUMP_NS else 0


def is_within(before_ns: int, now_ns: int, reach_ns: int) -> bool:
    """Whether `before_ns` was at most `reach_ns` ago. Not where the clock was set back since: nobody knows then."""
    return -CLOCK_JUMP_NS <= now_ns - before_ns <= reach_ns
