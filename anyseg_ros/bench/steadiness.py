"""How steady the machine under a benchmark is: time that its hypervisor took, and the spread of a fixed piece of work.

On a shared host a virtual machine stands still now and then, for 50 ms or more. No program can do anything about that,
and every figure with a maximum is worse for it; so it is given beside them. Hosts differ in whether they admit it:
`steal` in proc_stat(5) may say nothing while a loop of 4 ms takes 50.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

STAT = Path("/proc/stat")
STEAL_FIELD = 8
"""Of the line `cpu`, all processors together; in ticks."""
PERIOD_S = 0.01
"""Between samples: one tick on most machines."""
FIXED_STEPS = 200_000
"""Of a loop: some milliseconds."""


def fixed_work_ms(repeats: int) -> list[float]:
    """Wall time of the same short loop again and again, with pauses, in milliseconds: all alike on a steady machine."""
    times = []
    for _ in range(repeats):
        time.sleep(PERIOD_S)
        begun_s = time.perf_counter()
        for _step in range(FIXED_STEPS):
            pass
        times.append(1e3 * (time.perf_counter() - begun_s))
    return times


def stolen_s(stat: Path = STAT) -> float | None:
    """Since the machine was started, of all its processors; None where the system does not tell."""
    try:
        total = stat.read_text().split("\n", 1)[0].split()
        return int(total[STEAL_FIELD]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


class StolenTime:
    """What was stolen when, by samples of the system's count."""

    def __init__(self) -> None:
        self._times_ns: list[int] = []
        self._totals_s: list[float] = []

    def sample(self, now_ns: int, total_s: float | None) -> None:
        """The count at a time of the system clock; times must not run backwards."""
        if total_s is not None:
            self._times_ns.append(now_ns)
            self._totals_s.append(total_s)

    def within_ms(self, begin_ns: int, end_ns: int) -> float:
        """Between two times, between samples in proportion; 0 where the system does not tell."""
        if not self._times_ns:
            return 0.0
        begin_s, end_s = np.interp([begin_ns, end_ns], self._times_ns, self._totals_s)
        return float(1e3 * (end_s - begin_s))


@contextmanager
def watched() -> Iterator[StolenTime]:
    """Sampled on a thread of its own, as long as it takes."""
    stolen, ended = StolenTime(), threading.Event()

    def watch() -> None:
        while not ended.wait(PERIOD_S):
            stolen.sample(time.time_ns(), stolen_s())

    thread = threading.Thread(target=watch, name="stolen_time", daemon=True)
    thread.start()
    try:
        yield stolen
    finally:
        ended.set()
        thread.join()
