"""Pairwise checks: each a pure function of two views that gives a number. None: these two frames show nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.views import CameraView, DepthView, Floats, LidarView

NEAR_M, FAR_M = 2.0, 40.0
"""Depth is compared with LiDAR within; farther away stereo errs by more than it measures."""
AGREES = 0.15
"""Of the logarithm of a ratio of two distances: they are the same surface."""
_LEAST_PAIRS = 60
_LEAST_CELLS = 150
"""Of a grid, in which both frames must show something."""
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
    middle = float(np.median(log_ratio))
    same, scaled = (float((np.abs(log_ratio - offset) < AGREES).mean()) for offset in (0.0, middle))
    return RangeAgreement(float(np.exp(middle)), same, scaled, int(known.sum()), len(row))


class Orientation(NamedTuple):
    """How well the edges of a picture lie on those of a depth image or a scan, as it is and otherwise."""

    upright: float
    """Correlation, -1 to 1."""
    mirrored: float
    turned: float
    """By 180 degrees."""

    @property
    def other(self) -> tuple[float, str]:
        """The better of the wrong ones, and what it means."""
        return max((self.mirrored, "mirrored"), (self.turned, "upside down"))


def orientation(camera: CameraView, ranging: DepthView | LidarView) -> Orientation | None:
    """Edges against edges. None: one of them has too few."""
    picture, distance = camera.edges, ranging.edges
    if np.count_nonzero(distance) < _LEAST_CELLS:
        return None
    found = (correlation(turned, distance) for turned in (picture, picture[:, ::-1], picture[::-1, ::-1]))
    return Orientation(*found)


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
    brighter = np.clip(brighter - np.median(brighter), -1.0, 1.0)  # an exposure that changes is no event
    return correlation(brighter[lively], events[lively])


def change_between(then: Floats, now: Floats) -> float | None:
    """How differently two grids are distributed: 0 the same scene from the same place, up to 2. None: too few cells.

    Cells that are 0 show nothing. What is added to all of them does not count.
    """
    known = (then != 0) & (now != 0)
    if np.count_nonzero(known) < min(_LEAST_CELLS, then.size // 4):
        return None
    return 1.0 - correlation(then[known], now[known])


def step_between(then: Floats, now: Floats) -> tuple[float, float]:
    """How much a view has changed from one frame to the next: median absolute difference of the cells, which another
    scale shows in, and `change_between`, which another arrangement shows in."""
    known = (then != 0) & (now != 0)
    level = float(np.median(np.abs(now[known] - then[known]))) if known.any() else 0.0
    return level, change_between(then, now) or 0.0


def correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Pearson's, of the values of two arrays of one shape; 0 where one of them is constant."""
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first * first).sum() * (second * second).sum()))
    return float((first * second).sum()) / norm if norm > 1e-9 else 0.0
