"""Pairwise checks: each a pure function of two views that gives a number. None: these two frames show nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.outlines import DirectionGrid
from anyseg_core.runtime.cross_examination.small_arrays import correlation, median, shifted_products
from anyseg_core.runtime.cross_examination.views import CameraView, DepthView, Floats, LidarView

Doubles = NDArray[np.float64]

NEAR_M, FAR_M = 2.0, 40.0
"""Depth is compared with LiDAR within; farther away stereo errs by more than it measures."""
AGREES = 0.15
"""Of the logarithm of a ratio of two distances: they are the same surface."""
_LEAST_PAIRS = 60
_LEAST_CELLS = 150
"""Of a grid, in which both frames must show something."""
_ENOUGH_CELLS = 500
"""For a median."""
_BESIDE = 1, 2
"""Rows and columns of cells by which outlines may be moved: the optical axis is not the middle of every picture."""
_LIVELY = 0.02
"""Events of each pixel, the mean of a cell: with less nothing has changed there."""
_LEAST_LIVELY = 80
"""Cells that must have seen a change."""


class RangeAgreement(NamedTuple):
    """Depth image against LiDAR points, where both see."""

    ratio: float
    """Median of depth / LiDAR range along the optical axis; 1 is right."""
    same: float
    """Share of the points with the same distance, to 15 %."""
    same_scaled: float
    """The same after the depth was divided by `ratio`: near 1 where only the scale is wrong."""
    pairs: int
    in_view: int
    """LiDAR points in the picture."""


def range_agreement(depth: DepthView, lidar: LidarView) -> RangeAgreement | None:
    """How far a depth image and a scan agree in the picture. None: too few points to say."""
    row, col, far = lidar.seen
    image = depth.frame.data
    measured = image[(row * image.shape[0]).astype(np.intp), (col * image.shape[1]).astype(np.intp)]  # [K]
    with np.errstate(invalid="ignore"):
        known = (far > NEAR_M) & (far < FAR_M) & (measured > 0.01) & np.isfinite(measured)
    if np.count_nonzero(known) < _LEAST_PAIRS:
        return None
    log_ratio = np.log(measured[known] / far[known])
    middle = median(log_ratio)
    same, scaled = (float((np.abs(log_ratio - offset) < AGREES).mean()) for offset in (0.0, middle))
    return RangeAgreement(float(np.exp(middle)), same, scaled, int(known.sum()), len(row))


class Orientation(NamedTuple):
    """How well the outlines of a picture lie on those of a depth image or a scan, as it is and otherwise."""

    upright: float
    """Correlation, -1 to 1."""
    mirrored: float
    turned: float
    """By 180 degrees."""

    @property
    def other(self) -> tuple[float, str]:
        """The better of the wrong ones, and what it means."""
        return max((self.mirrored, "mirrored"), (self.turned, "upside down"))


def orientation(camera: CameraView, ranging: DepthView | LidarView, grid: DirectionGrid) -> Orientation | None:
    """Outlines against outlines. None: one of them has none."""
    picture, distance = camera.outlines(grid), ranging.outlines(grid)
    if not picture.any() or not distance.any() or min(distance.shape) <= 2 * max(_BESIDE):
        return None
    ways = (picture, picture[:, ::-1], picture[::-1, ::-1])
    return Orientation(*(float(products.max()) for products in shifted_products(ways, distance, *_BESIDE)))


def event_agreement(brighter: Floats, events: Floats) -> float | None:
    """Correlation of what became brighter in the picture with what the events say: 1 right, -1 with the signs
    exchanged, 0 unrelated. None: nothing has changed.

    Args:
        brighter: difference of the `levels` of two successive pictures, [GRID].
        events: `change` of the events between them, [GRID].
    """
    lively = np.abs(events) > _LIVELY
    if np.count_nonzero(lively) < _LEAST_LIVELY:
        return None
    brighter = np.clip(brighter - np.float32(median(brighter)), -1.0, 1.0)  # an exposure that changes is no event
    return correlation(brighter[lively], events[lively])


class Changes(NamedTuple):
    """How differently two grids are distributed: 0 the same scene from the same place, up to 2."""

    whole: float
    lower: float
    """Of the lower half of the rows alone; 1 where too little is known there."""


def comparable(levels: Floats) -> Doubles:
    """A grid, ready to be compared with that of another moment: cells that are 0 show nothing.

    [2, 3, N / 2], of the upper and the lower half: values less their mean, their squares, and 1 where there is one.
    """
    flat = levels.ravel()
    known = (flat != 0).astype(np.float64)
    values = flat - known * (float(flat.sum()) / max(float(known.sum()), 1.0))
    return np.ascontiguousarray(np.stack([values, values * values, known]).reshape(3, 2, -1).swapaxes(0, 1))


def changes_between(then: Doubles, now: Doubles) -> Changes | None:
    """Of two `comparable` grids: one less Pearson's correlation of the cells that both know. None: too few cells.

    What is added to all of them does not count.
    """
    upper, lower = then @ now.swapaxes(1, 2)  # sums of products, [3, 3] each
    whole = upper + lower
    least = max(min(_LEAST_CELLS, then.size // 12), 1)
    if whole[2, 2] < least:
        return None
    return Changes(_unlike(*whole.tolist()), _unlike(*lower.tolist()) if lower[2, 2] >= least else 1.0)


def _unlike(by_value: list[float], by_square: list[float], by_known: list[float]) -> float:
    """One less the correlation, from sums of the products of (value, square, known) with those of another grid."""
    (both, _, first), (second, _, count) = by_value, by_known
    spread = (by_square[2] - first * first / count) * (by_known[1] - second * second / count)
    return 1.0 - (both - first * second / count) / spread**0.5 if spread > 1e-18 else 1.0


def fits_turned(then: Doubles, now: Doubles, shape: tuple[int, ...]) -> float:
    """The best correlation of a `comparable` grid of that shape with another one that is mirrored or turned by 180
    degrees; of sectors of azimuth [N]: seen from behind, mirrored, or both."""
    first, second = (grid[:, 0].reshape(shape) for grid in (then, now))
    norm = float(np.sqrt(np.vdot(first, first) * np.vdot(second, second)))
    if len(shape) == 1:
        half = len(second) // 2
        behind = np.concatenate([second[half:], second[:half]])
        ways = behind, second[::-1], behind[::-1]
    else:
        ways = second[:, ::-1], second[::-1, ::-1]
    return max(float(np.vdot(first, way)) for way in ways) / norm if norm > 1e-9 else 0.0


def median_step(then: Floats, now: Floats) -> float:
    """Median absolute difference of the cells of two moments, which another scale shows in."""
    some = slice(None, None, max(1, then.size // _ENOUGH_CELLS))
    then, now = then.ravel()[some], now.ravel()[some]
    known = (then != 0) & (now != 0)
    return median(np.abs(now[known] - then[known])) if known.any() else 0.0
