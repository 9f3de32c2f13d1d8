"""What a check may know beside the frame: the frame before it, the clock, and what the sensor is usually like."""

from __future__ import annotations

from collections import deque
from statistics import mean, median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.health.statistics import Statistics
from anyseg_core.runtime.sensors import SensorFrame


class UsualProfile:
    """Slow average of a sensor's profile (block textures, sector counts) over its good frames.

    Slow, so that a fault shows against it; moving, so that another street becomes the usual one.
    """

    FIRST_FRAMES = 5
    """Unknown before so many: what is usual is not learnt from one frame."""
    MEMORY_FRAMES = 100
    """A change that stays is usual after about this many frames, 10 s at 10 Hz."""

    def __init__(self) -> None:
        self._mean: NDArray[np.float32] | None = None
        self._frames = 0

    @property
    def value(self) -> NDArray[np.float32] | None:
        """The average, None until it is known."""
        return self._mean if self._frames >= self.FIRST_FRAMES else None

    def learn(self, profile: NDArray[np.float32]) -> None:
        """Take a good frame into account."""
        self._frames += 1
        weight = np.float32(1 / min(self._frames, self.MEMORY_FRAMES))
        self._mean = profile if self._mean is None else self._mean + weight * (profile - self._mean)


class LearntPeriod:
    """The time between a sensor's frames, learnt from them, so that nobody has to know its rate.

    The mean of the first `GAPS` gaps, long outages left out. After that it only becomes shorter, when the sensor is set
    to a higher rate: one that slows down later is slow, not usual. A rate is higher where no gap is as long as the
    period for the time of `GAPS` periods: messages that were held up come in bursts, and a burst is no rate.
    """

    FIRST_GAPS = 5
    """Unknown before so many."""
    GAPS = 20
    """Arrivals may jitter by a third of a period: over so many gaps it is known to 2 %."""
    OUTAGE = 2.0
    """A gap of more than this many median gaps is an outage."""
    FASTER = 0.7
    """A period this much shorter is another rate, not jitter."""

    def __init__(self) -> None:
        self._gaps: deque[int] = deque(maxlen=self.GAPS)
        self._count = 0
        self._fast_ns = 0  # since the last gap that was no shorter than the period
        self.value_ns: int | None = None
        """Nanoseconds; None before it is known."""

    def learn(self, gap_ns: int) -> None:
        """Take the time between two frames into account."""
        self._gaps.append(gap_ns)
        self._count += 1
        if self._count < self.FIRST_GAPS:
            return
        longest_ns = self.OUTAGE * median(self._gaps)
        period_ns = max(1, round(mean(gap for gap in self._gaps if gap <= longest_ns)))
        if self.value_ns is None or self._count <= self.GAPS or self._is_faster(gap_ns, period_ns, self.value_ns):
            self.value_ns = period_ns

    def _is_faster(self, gap_ns: int, period_ns: int, known_ns: int) -> bool:
        self._fast_ns = self._fast_ns + gap_ns if gap_ns < known_ns else 0
        return self._fast_ns >= self.GAPS * known_ns and period_ns < self.FASTER * known_ns


class History(NamedTuple):
    """What a check may know beside the frame."""

    statistics: Statistics
    """Of the frame."""
    previous: SensorFrame | None
    """The frame before this one."""
    now_ns: int
    """When the frame was received."""
    gap_ns: float | None
    """Between this frame and the one before, or the median of the last gaps, whichever is less: one outage does not
    make a sensor slow, and one frame in time ends its slowness. None until it is known."""
    period_ns: int
    """The gap that is expected."""
    usual: NDArray[np.float32] | None
    """The sensor's usual profile, None until it is known."""
    lag_ns: int = 0
    """How late this computer itself is: nothing of it is the sensor's fault."""
