"""What can be said of masks without any ground truth: do they flicker, and do they agree with those of all sensors?"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
SUCCESSIVE_NS = 500_000_000
"""Masks that are further apart than this are not compared: too much of the scene has moved."""


class TemporalChange(NamedTuple):
    """How a mask differs from the two before it; None where these are too old or missing."""

    changed: float | None
    """Share of the pixels whose label is another one than in the mask before."""
    flicker: float | None
    """Share of the pixels that changed in the mask before and have changed back in this one: motion seldom does."""


class FlickerMeter:
    """Compares the masks of one scenario, in their order."""

    def __init__(self) -> None:
        self._last: deque[tuple[int, Labels]] = deque(maxlen=2)

    def add(self, stamp_ns: int, labels: Labels) -> TemporalChange:
        """The next mask, uint8 [H, W], at any size that stays the same."""
        while self._last and not 0 < stamp_ns - self._last[-1][0] <= SUCCESSIVE_NS:
            self._last.clear()
        before = [mask for _, mask in self._last if mask.shape == labels.shape]
        self._last.append((stamp_ns, labels))
        changed = _share(labels != before[-1]) if before else None
        flicker = _share((labels == before[0]) & (labels != before[1])) if len(before) == 2 else None
        return TemporalChange(changed, flicker)


class ReferenceMasks:
    """The newest masks of the scenario with all sensors, by stamp."""

    def __init__(self, tolerance_ns: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._recent: deque[tuple[int, Labels]] = deque(maxlen=100)

    def add(self, stamp_ns: int, labels: Labels) -> None:
        """The next mask, at network size."""
        self._recent.append((stamp_ns, labels))

    def at(self, stamp_ns: int) -> Labels | None:
        """The mask whose stamp is nearest, None where none is within the tolerance."""
        near = [(abs(stamp - stamp_ns), labels) for stamp, labels in self._recent]
        distance, labels = min(near, key=lambda pair: pair[0], default=(self._tolerance_ns + 1, None))
        return labels if distance <= self._tolerance_ns else None

    def is_decided(self, stamp_ns: int) -> bool:
        """Whether no nearer mask is to come."""
        return any(stamp >= stamp_ns for stamp, _ in self._recent)


def agreement(labels: Labels, reference: Labels) -> float:
    """Share of the pixels with the same label in both, 0..1."""
    return _share(labels == reference)


def _share(mask: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(mask) / mask.size)
