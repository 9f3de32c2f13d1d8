"""What a few repetitions say: 95 % intervals of Student's t, paired differences, and how many repetitions would tell.

A unit is what was repeated: a seed, or a drive that was left out of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
MOST_UNITS = 1000
"""More than this is not told apart."""


class Estimate(NamedTuple):
    """A mean with its 95 % interval, mean - half_width to mean + half_width."""

    mean: float
    std: float
    """Standard deviation of a sample; 0 of one unit, which says nothing of the spread."""
    half_width: float | None
    """None of one unit."""
    units: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.half_width is None else f" ± {self.half_width:.1f}")


class Difference(NamedTuple):
    """A paired difference of two variants over the units that both have."""

    estimate: Estimate
    p: float | None
    """Two-sided p of the paired t-test; None of fewer than two units."""

    @property
    def is_clear(self) -> bool:
        """Whether the 95 % interval leaves 0 out."""
        return self.p is not None and self.p < 1 - CONFIDENCE

    def __str__(self) -> str:
        mean, half_width = self.estimate.mean, self.estimate.half_width
        return f"{mean:+.2f}" + ("" if half_width is None else f" ± {half_width:.2f} (p = {self.p:.2g})")


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and t-interval of at least one value."""
    count = len(values)
    std = float(np.std(values, ddof=1)) if count > 1 else 0.0
    return Estimate(float(np.mean(values)), std, _half_width(std, count) if count > 1 else None, count)


def paired_difference(of: Mapping[str, float], against: Mapping[str, float]) -> Difference | None:
    """The difference `of` - `against` by unit; None where they share no unit."""
    shared = [unit for unit in of if unit in against]
    if not shared:
        return None
    found = estimate([of[unit] - against[unit] for unit in shared])
    return Difference(found, _p_value(found))


def units_needed(difference: Difference) -> int | None:
    """The least number of units whose interval would leave 0 out, were mean and spread those found.

    None where more than MOST_UNITS were needed, or the spread is unknown.
    """
    found = difference.estimate
    if found.half_width is None:
        return None
    return next((n for n in range(2, MOST_UNITS + 1) if _half_width(found.std, n) < abs(found.mean)), None)


def _half_width(std: float, count: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * std / count**0.5


def _p_value(found: Estimate) -> float | None:
    if found.units < 2:
        return None
    if found.std == 0:
        return 1.0 if found.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(found.mean) * found.units**0.5 / found.std, found.units - 1))
