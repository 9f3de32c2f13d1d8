"""How the vehicle moves: speed with stops at crossings, and the nodding of its body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEP_S = 0.02
STOP_S = 6.0
"""How long the vehicle waits at a crossing."""
_BRAKING_S = 3.0
_WARM_UP_S = 1.0


@dataclass(frozen=True, eq=False)
class EgoMotion:
    """Distance driven, in metres, sampled each 0.02 s from 1 s before the start; and the stops on the way."""

    distance: NDArray[np.float64]
    speed: NDArray[np.float64]
    stop_times_s: tuple[float, ...]

    @property
    def distance_m(self) -> float:
        """Length of the whole drive."""
        return float(self.distance[-1])

    @property
    def stop_distances_m(self) -> tuple[float, ...]:
        return tuple(self.distance_at(t + _BRAKING_S) for t in self.stop_times_s)

    def distance_at(self, t: float) -> float:
        """Metres driven `t` seconds into the drive; negative before it."""
        return self._at(self.distance, t)

    def speed_at(self, t: float) -> float:
        """Metres per second."""
        return self._at(self.speed, t)

    def _at(self, samples: NDArray[np.float64], t: float) -> float:
        position = (t + _WARM_UP_S) / _STEP_S
        low = min(max(int(position), 0), len(samples) - 2)
        return float(samples[low] + (position - low) * (samples[low + 1] - samples[low]))

    def nod(self, t: float) -> tuple[float, float]:
        """Pitch and roll of the body in radians; a vehicle that stands does not nod."""
        swing = min(self.speed_at(t) / 8.0, 1.0)
        pitch = 0.006 * np.sin(5.1 * t) + 0.003 * np.sin(11.3 * t + 1.0)
        return float(swing * pitch), float(swing * 0.006 * np.sin(3.7 * t + 0.5))


def ego_motion(seed: int, duration_s: float, speed_mps: float) -> EgoMotion:
    """The motion of a drive: a cruising speed around `speed_mps`, and now and then a stop at a crossing."""
    rng = np.random.default_rng([seed, 2])
    t = np.arange(-_WARM_UP_S, duration_s + 2.0, _STEP_S)
    cruise = speed_mps * (1 + 0.15 * np.sin(2 * np.pi * t / 17 + rng.uniform(0, 6.28)))
    stops = []
    at = rng.uniform(4, 22)
    while at < duration_s:
        stops.append(float(at))
        at += _BRAKING_S + STOP_S + rng.uniform(14, 30)
    share = np.ones_like(t)
    for stop in stops:
        # Braking ends _BRAKING_S after the stop begins; pulling away takes as long.
        before = np.clip((stop + _BRAKING_S - t) / _BRAKING_S, 0, 1)
        after = np.clip((t - stop - _BRAKING_S - STOP_S) / _BRAKING_S, 0, 1)
        share = np.minimum(share, np.maximum(before, after))
    speed = cruise * share
    distance = np.cumsum(speed) * _STEP_S
    start = int(_WARM_UP_S / _STEP_S)
    return EgoMotion(distance - distance[start], speed, tuple(stops))
