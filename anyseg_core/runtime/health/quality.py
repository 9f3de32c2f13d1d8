"""How far a live sensor can be relied on, from the same cheap statistics as its checks. Pure.

A quality is the least of a few headrooms, each 1 where nothing is wrong and 0 where the sensor shows nothing or its
fault check would take it out. A camera at night is not broken, but its picture is mostly noise; in fog it sees as far
as the fog lets it. What to do about it is the pipeline's decision (`min_quality`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.health.statistics import (
    CameraStatistics,
    DepthStatistics,
    EventStatistics,
    LidarStatistics,
    Statistics,
)
from anyseg_core.runtime.health.thresholds import DEFAULT_CHECKS, Fault

LIT_LEVEL = 120.0
"""Level that the brightest pixels reach in a picture with light in it; clean pictures reach 147 and more."""
CLEAR_LEVELS = 10.0
"""Standard deviation of the grey levels within half of the blocks, at least, when the air is clear: dense fog has 4 to
6, rain and cloud 6 to 13, a sunny street 7 to 20."""
LIVELY_SHARE = 0.02
"""Share of the pixels with events while something moves; parked in fog 0.001, driving 0.02 to 0.3."""


class Quality(NamedTuple):
    """A number in [0, 1], and what it is owed to."""

    value: float
    cause: str

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.cause})"


Usual: TypeAlias = "NDArray[np.float32] | None"
"""A sensor's usual profile, None until it is known."""


def quality_of(statistics: Statistics, usual: Usual) -> Quality:
    """The quality of a frame by its statistics and its sensor's usual profile (None where that is not known yet)."""
    headrooms = _HEADROOMS[type(statistics)](statistics, usual)
    cause = min(headrooms, key=lambda name: headrooms[name])
    return Quality(float(np.clip(headrooms[cause], 0, 1)), cause)


def _camera(statistics: CameraStatistics, _usual: Usual) -> Mapping[str, float]:
    darkest = DEFAULT_CHECKS[Fault.DARK].threshold
    return {
        "noise": _below(Fault.NOISY, statistics.noise / 255),
        "visibility": float(np.median(statistics.profile)) / CLEAR_LEVELS,
        "overexposure": _below(Fault.SATURATED, statistics.saturated),
        "darkness": (statistics.highlight - darkest) / (LIT_LEVEL - darkest),
    }


def _depth(statistics: DepthStatistics, _usual: Usual) -> Mapping[str, float]:
    return {"share of pixels with depth": 1 - statistics.invalid, "noise": _below(Fault.NOISY, statistics.noise)}


def _event(statistics: EventStatistics, _usual: Usual) -> Mapping[str, float]:
    return {"share of pixels with events": statistics.active / LIVELY_SHARE}


def _lidar(statistics: LidarStatistics, usual: Usual) -> Mapping[str, float]:
    points = 1.0 if usual is None else statistics.count / max(float(usual.sum()), 1.0)
    return {"share of the usual points": points, "noise": _below(Fault.NOISY, statistics.noise)}


_HEADROOMS: Mapping[type, Callable[[Any, Usual], Mapping[str, float]]] = MappingProxyType(
    {CameraStatistics: _camera, DepthStatistics: _depth, EventStatistics: _event, LidarStatistics: _lidar}
)


def _below(fault: Fault, value: float) -> float:
    """1 at 0, and 0 at the fault's default threshold."""
    return 1 - value / DEFAULT_CHECKS[fault].threshold


class SmoothQuality:
    """Average over about the last second, so that one frame decides nothing."""

    FRAMES = 10

    def __init__(self) -> None:
        self.newest: Quality | None = None
        """Averaged value, cause of the newest frame; None before the first frame."""
        self._frames = 0

    def learn(self, quality: Quality) -> None:
        """Take a good frame into account."""
        self._frames += 1
        before = self.newest.value if self.newest else quality.value
        value = before + (quality.value - before) / min(self._frames, self.FRAMES)
        self.newest = Quality(value, quality.cause)
