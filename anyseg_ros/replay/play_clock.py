"""When the messages of a bag are due on the wall clock: rate and pause. No ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MAX_RATE = 1000.0


class PlayClock:
    """Bag time beside wall time. Threads may pause it while another one waits in `wait_until`."""

    def __init__(
        self, rate: float = 1.0, *, paused: bool = False, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`rate` seconds of the bag pass in a second. Raises ValueError where it is not in (0, MAX_RATE]."""
        if not 0 < rate <= MAX_RATE:
            raise ValueError(f"rate must be greater than 0 and at most {MAX_RATE:g}, not {rate}")
        self._rate = rate
        self._monotonic_ns = monotonic_ns
        self._changed = threading.Condition()
        self._base_bag_ns = self._base_wall_ns = 0
        self._paused, self._stopped = paused, False

    @property
    def paused(self) -> bool:
        return self._paused

    def start_at(self, bag_ns: int) -> None:
        """It is `bag_ns` now: at the beginning, and again at every loop."""
        with self._changed:
            self._base_bag_ns, self._base_wall_ns = bag_ns, self._monotonic_ns()
            self._changed.notify_all()

    def set_paused(self, paused: bool) -> None:
        """Stop the time, or let it go on from where it was stopped."""
        with self._changed:
            self._base_bag_ns, self._base_wall_ns = self._now_ns(), self._monotonic_ns()
            self._paused = paused
            self._changed.notify_all()

    def stop(self) -> None:
        """Every wait ends."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def now_ns(self) -> int:
        """Bag time."""
        with self._changed:
            return self._now_ns()

    def wait_until(self, bag_ns: int, max_wait_s: float) -> bool:
        """Wait until it is `bag_ns`, but no longer than `max_wait_s` of wall time; whether it is."""
        end_ns = self._monotonic_ns() + int(max_wait_s * 1e9)
        with self._changed:
            while not self._stopped and (self._paused or self._now_ns() < bag_ns):
                left_ns = end_ns - self._monotonic_ns()
                if left_ns <= 0:
                    return False
                due_ns = left_ns if self._paused else int((bag_ns - self._now_ns()) / self._rate)
                self._changed.wait(max(min(due_ns, left_ns), 1000) / 1e9)
            return not self._stopped

    def _now_ns(self) -> int:
        passed_ns = 0 if self._paused else int((self._monotonic_ns() - self._base_wall_ns) * self._rate)
        return self._base_bag_ns + passed_ns
