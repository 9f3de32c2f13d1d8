"""Steps of the system clock: NTP sets it when a robot whose clock has no battery finds a network. No ROS."""

from __future__ import annotations

import time
from collections.abc import Callable

from anyseg_core.runtime.health.monitor import CLOCK_JUMP_NS


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
