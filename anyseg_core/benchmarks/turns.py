"""Times measured in turns, so that what else the machine does meets all that are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

WARM_UP = 2
"""Turns that are not counted: they prepare buffers."""
_Name = TypeVar("_Name", bound=Hashable)


def in_turns(work: Mapping[_Name, Callable[[], object]], turns: int) -> dict[_Name, list[float]]:
    """Milliseconds of each piece of work in each turn: one run of each, then the next of each."""
    times: dict[_Name, list[float]] = {name: [] for name in work}
    for turn in range(WARM_UP + turns):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            if turn >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - began))
    return times
