"""How late the computer itself is, so that no sensor is blamed for it. No ROS."""

from __future__ import annotations

import time
from collections.abc import Callable

from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S

BEAT_NS = NS_PER_S // 10
"""Between two beats of the executor: 10 a second cost next to nothing."""
OVERLOAD_NS = 100 * NS_PER_MS
"""A delay that says something: less is the scheduler's daily business, and the limits of the checks allow for it."""
MEMORY_NS = 2 * NS_PER_S
"""Messages that were held up arrive after the delay; for so long it explains them."""


class ComputerLag:
    """The executor beats, and what its beats are late is the computer's. `beat` on the executor, the rest anywhere."""

    def __init__(self, steady_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._steady_ns = steady_ns
        self._due_ns = steady_ns() + BEAT_NS
        self._worst_ns, self._worst_at_ns = 0, 0

    def beat(self) -> None:
        """The executor has come by."""
        now_ns = self._steady_ns()
        late_ns = now_ns - self._due_ns
        self._due_ns = now_ns + BEAT_NS
        if late_ns >= self.lag_ns():
            self._worst_ns, self._worst_at_ns = late_ns, now_ns

    def lag_ns(self) -> int:
        """The longest delay of the last seconds, one that goes on included; 0 where it is below `OVERLOAD_NS`."""
        now_ns = self._steady_ns()
        remembered_ns = self._worst_ns if now_ns - self._worst_at_ns <= MEMORY_NS else 0
        lag_ns = max(now_ns - self._due_ns, remembered_ns)
        return lag_ns if lag_ns >= OVERLOAD_NS else 0
