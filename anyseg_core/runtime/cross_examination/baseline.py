"""Whether a witness is fit to speak in this scene: what its number has been like, before what it judges now."""

from __future__ import annotations

from collections import deque
from itertools import islice

import numpy as np

LEAST = 10
"""Looks that a baseline needs, ..."""
LAG = 8
"""... all of them older than this many: a fault of the last second does not change what is usual."""
_KEPT = 200


class Baseline:
    """The newest values of a margin that is above 0 where all is well, and of the score that it is a margin of."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self.is_frozen = False
        """While what it is the baseline of is suspicious, nothing is learnt."""

    def learn(self, margin: float, score: float) -> None:
        """Take a look into account."""
        if not self.is_frozen:
            self._values.append((margin, score))

    def is_fit(self, least: float) -> bool:
        """Whether the margin used to be above 0, by `least` in the mean and by its standard deviation."""
        margins = [margin for margin, _ in self._old()]
        return len(margins) >= LEAST and float(np.mean(margins)) > max(least, float(np.std(margins)))

    @property
    def usual(self) -> float | None:
        """The median score; None before it is known."""
        scores = [score for _, score in self._old()]
        return float(np.median(scores)) if len(scores) >= LEAST else None

    @property
    def spread(self) -> float:
        """Standard deviation of the score; 0 before it is known."""
        return float(np.std([score for _, score in self._old()] or [0.0]))

    def _old(self) -> list[tuple[float, float]]:
        return list(islice(self._values, max(0, len(self._values) - LAG)))
