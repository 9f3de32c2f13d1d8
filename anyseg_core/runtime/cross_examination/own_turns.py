"""By how much each sensor has been turned on its mount, by what it alone sees: it tells whom an angle is blamed on.

A sensor that was turned sees itself jump: its scan is turned more than odometry says, or the road is inclined from then
on. One that looks where it always did sees nothing of the kind.
"""

from __future__ import annotations

from collections import defaultdict, deque
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.small_arrays import median
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S

EVERY_NS = 8 * NS_PER_S // 10
"""Between two looks of those who tell how a sensor is turned."""
KEPT, LEAST = 60 * NS_PER_S // EVERY_NS, 3
"""Looks: a minute of them, and as many as must be there before it was turned."""
LEAST_AFTER = 2
"""Levels, after which a step is one; after a single one where another sensor sees none."""
SUDDEN_DEG, SUDDEN = 1.0, 3.0
"""From look to look, and times the usual: it was turned. Clean, 0.8 s apart: at most 0.97 in fog, 0.74 else;
turned by 2: 1.2 and more."""
STEP_DEG, STEP_SURELY = 0.7, 4.0
"""Of the levels before and after, and in standard errors."""
EXPLAINS, LITTLE = 0.5, 0.25
"""Share of an angle between two sensors which explains it, and which is nothing beside it."""


class Turn(Enum):
    """About which axis, as seen from behind the sensor."""

    RIGHT, UP, CLOCKWISE = range(3)


class OwnTurns:
    """Of all sensors that can see it."""

    def __init__(self) -> None:
        self._steps: defaultdict[Sensor, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._levels: defaultdict[tuple[Sensor, Turn], deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))

    def turned_right(self, sensor: Sensor, degrees: float) -> None:
        """By so much more than odometry says, since it was looked at before."""
        self._steps[sensor].append(degrees)

    def level(self, sensor: Sensor, axis: Turn, degrees: float) -> None:
        """It is turned by so much against what does not turn; `axis` up or clockwise."""
        self._levels[sensor, axis].append(degrees)

    def change(self, sensor: Sensor, axis: Turn, least_after: int = LEAST_AFTER) -> float:
        """Degrees by which it has been turned at once in the last minute; 0 where nothing tells."""
        values = np.array(self._steps[sensor] if axis is Turn.RIGHT else self._levels[sensor, axis])
        if len(values) < LEAST + least_after:
            return 0.0
        if axis is not Turn.RIGHT:
            return _step(values, least_after)
        sudden = np.abs(values) > max(SUDDEN_DEG, SUDDEN * median(np.abs(values)))
        return float(values[sudden].sum())

    def suspect(self, pair: tuple[Sensor, Sensor], axis: Turn, degrees: float) -> Sensor | None:
        """Who was turned, where the second of two is turned by so much against the first; None: nobody knows."""
        first, second = (self.change(sensor, axis) for sensor in pair)
        side = 1.0 if degrees > 0 else -1.0
        ways = ((pair[0], -side * first, second), (pair[1], side * second, first))
        explain = [
            sensor
            for sensor, own, other in ways
            if own > EXPLAINS * abs(degrees) and abs(other) <= LITTLE * abs(degrees)
        ]
        return explain[0] if len(explain) == 1 else None

    def only_inclined(self, pair: tuple[Sensor, Sensor]) -> Sensor | None:
        """The one of two that was turned up or down, where the other was not."""
        changes = [abs(self.change(sensor, Turn.UP, least_after=1)) for sensor in pair]
        greatest = int(np.argmax(changes))
        return pair[greatest] if changes[1 - greatest] <= LITTLE * changes[greatest] > 0 else None


def _step(levels: NDArray[np.float64], least_after: int) -> float:
    """Mean after the place where the levels step most surely, less that before; 0 where none is sure."""
    count = len(levels)
    before = np.arange(LEAST, count - least_after + 1)  # levels before the step
    sums = np.cumsum(levels)
    step = (sums[-1] - sums[before - 1]) / (count - before) - sums[before - 1] / before
    shrunk = np.abs(step) * np.sqrt(before * (count - before) / count)
    best = int(shrunk.argmax())
    at = before[best]
    rest = np.concatenate([levels[:at] - levels[:at].mean(), levels[at:] - levels[at:].mean()])
    error = max(float(rest.std()), 0.1)
    return float(step[best]) if abs(step[best]) > STEP_DEG and shrunk[best] > STEP_SURELY * error else 0.0
