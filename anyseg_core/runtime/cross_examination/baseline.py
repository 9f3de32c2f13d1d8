"""Whether a witness is fit to speak in this scene: what its number has been like, before what it judges now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.small_arrays import median, spread

LEAST = 10
"""Looks that a baseline needs, ..."""
LAG = 6
"""... all of them older than this many: a fault of the last second does not change what is usual."""
_KEPT = 200


class Baseline:
    """The newest values of a margin that is above 0 where all is well, and of the score that it is a margin of."""

    def __init__(self) -> None:
        self._values = np.zeros((2, _KEPT))  # margins and scores, the newest last
        self._count = 0
        self.is_frozen = False
        """While what it is the baseline of is suspicious, nothing is learnt."""

    def learn(self, margin: float, score: float) -> None:
        """Take a look into account."""
        if not self.is_frozen:
            self._values[:, :-1] = self._values[:, 1:]
            self._values[:, -1] = margin, score
            self._count = min(self._count + 1, _KEPT)

    def is_fit(self, least: float) -> bool:
        """Whether the margin used to be above 0, by `least` in the mean and by its standard deviation."""
        margins, _ = self._old
        return len(margins) >= LEAST and float(margins.sum()) / len(margins) > max(least, spread(margins))

    @property
    def usual(self) -> float | None:
        """The median score; None before it is known."""
        _, scores = self._old
        return median(scores) if len(scores) >= LEAST else None

    @property
    def spread(self) -> float:
        """Standard deviation of the score; 0 before it is known."""
        _, scores = self._old
        return spread(scores)

    @property
    def _old(self) -> NDArray[np.float64]:
        return self._values[:, _KEPT - self._count : max(_KEPT - LAG, _KEPT - self._count)]
