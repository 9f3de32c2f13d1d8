"""What a check may know beside the frame: the frame before it, the clock, and what the sensor is usually like."""

from __future__ import annotations

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
