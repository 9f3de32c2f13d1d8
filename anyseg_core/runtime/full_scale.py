"""The number that a sensor's strongest echo or brightest pixel has: set, or learnt from what comes.

Intensity of a LiDAR has no unit in ROS: KITTI has 0 to 1, most drivers 0 to 255, Ouster counts of photons up to 65535.
A camera of 12 bits that sends 16 fills the lower ones or the upper ones. What a message says does not tell.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTENSITY_SCALES = (1.0, 255.0, *(2.0**bits for bits in range(9, 33)))
"""Of LiDAR intensity: a share, a byte, or a count without a top, of which the power of two above is taken."""
GREY_16_SCALES = (1023.0, 4095.0, 16383.0, 65535.0)
"""Of cameras with 10, 12, 14 and 16 bits."""
_FRAMES = 5
"""Whose median is believed: one torn message teaches nothing."""
INTENSITY_MEMORY = 100
"""Scans: 10 s of most LiDARs."""
FAR_TOO_LARGE = 16.0
"""A LiDAR that is wrong for some seconds must not empty its channel for good; less than this is another street."""


class FullScale:
    """Learns the full scale of one sensor: the smallest of `scales` that holds its values.

    It does not shrink, as a street without a bright thing is no reason, but for one that was learnt from a fault.

    Args:
        scales: those that are possible, ascending.
        share: of a frame's values that must lie within; 1 = all of them.
        known: the scale where it is known; 0 = learnt.
        memory: frames of which none needs a `FAR_TOO_LARGE`th of the scale, after which it was a fault's; 0 = never. A
            camera at night needs as little.
    """

    def __init__(self, scales: Sequence[float], share: float = 1.0, known: float = 0.0, memory: int = 0) -> None:
        self._scales = scales
        self._share = share
        self._tops: deque[float] = deque(maxlen=_FRAMES)
        self._needed: deque[float] = deque(maxlen=max(memory, 1))
        self._forgets = memory > 0
        self._known = known
        self.value = known
        """0 while nothing is known."""

    @property
    def is_learnt(self) -> bool:
        """Whether it follows from the data, and was not set."""
        return not self._known

    def learn(self, values: NDArray[Any]) -> float:
        """Look at a frame's values [n], of any numbers; returns `value`. Zeros, NaN and infinity teach nothing."""
        if self._known:
            return self.value
        top = self._top_of(values.ravel())
        if top > 0:
            self._tops.append(top)
            at = bisect_left(self._scales, median(self._tops))
            self._follow(self._scales[min(at, len(self._scales) - 1)])
        return self.value

    def _follow(self, needed: float) -> None:
        self._needed.append(needed)
        self.value = max(self.value, needed)
        lately = max(self._needed)
        if self._forgets and len(self._needed) == self._needed.maxlen and self.value > FAR_TOO_LARGE * lately:
            self.value = lately

    def _top_of(self, values: NDArray[Any]) -> float:
        if self._share == 1.0:
            return float(values.max(initial=0))
        seen = values[np.isfinite(values)]
        return float(np.quantile(seen, self._share)) if len(seen) else 0.0
