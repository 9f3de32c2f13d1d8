"""By how much two sensors are turned or late against each other, from the outlines that both see, over many looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.judge import ALIGNMENT, LAG, TILT, Limits, Testimony
from anyseg_core.runtime.cross_examination.outlines import (
    COLUMN_DEG,
    DirectionGrid,
    Floats,
    are_alike,
    direction_grid,
    of_length_1,
)
from anyseg_core.runtime.cross_examination.own_turns import OwnTurns, Turn
from anyseg_core.runtime.cross_examination.small_arrays import median, shifted_products
from anyseg_core.runtime.cross_examination.tilt import TiltSum
from anyseg_core.runtime.cross_examination.views import EventView, View
from anyseg_core.runtime.geometry.projection import Rig, is_same_rig
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S

MOST_COLUMNS = 15
"""Cells by which outlines are moved against each other: +-6 degrees to the side."""
TILTED_EVERY = 2
"""Looks: one pair then is compared for how far it is turned up or rolled, which takes longer."""
TILT_LOOKS, LAG_LOOKS = 2.0, 2.0
"""That one testimony of each stands for."""
TURNED_TOO_FAR = 1.2
"""Degrees to the side, with which nothing is said of a tilt."""
TURNED_MEMORY_S = 8.0
"""After so long a look counts a third: what has changed is found when most of what counts is newer."""
LATE_MEMORY_S = 2.0
LEAST_S = 2.0
"""Of looks, before anything is said of an angle or a lag."""
MOST_LAG_NS = 5 * NS_PER_S // 4
_KEPT, _APART_NS = 18, 80 * NS_PER_MS
"""Outlines that are kept of a sensor, and how far apart they are."""
NEVER_NS = 2**61
_BIN_MS = 50.0
_MOST_BIN = 25
_LEAST_LAGS, _LEAST_WEIGHT = 8, 1.5
"""Bins in which there must be so many looks, before one of them stands out."""
TURNED_STANDS_OUT = 0.5
"""Share of its advantage over all angles, that the best one must have over the next best which is another one. Right
angles in simulated weathers: 0.4 to 0.9, in a real drive 0.6; of noise a quarter has more than 0.5."""
BESIDE_COLUMNS = 3
"""As near to the best one it is the same angle."""
TURNED_SURELY = 5.0
"""Standard errors by which an angle must fit better than none."""
LATE_SURELY = 6.0
"""Times the spread of all lags, that one must fit better than they do: of 25 lags of noise the best is at about 3."""
CLEARLY = 0.5
"""Share of its advantage over all others, that the best lag must have over none."""

NEARLY = 0.75
"""Share of its advantage from which on a lag beside the best one counts for the number."""


class Offset(NamedTuple):
    """How two sensors are set off against each other."""

    value: float
    """The angle in degrees, or the lag in milliseconds."""
    is_sure: bool
    """Whether it fits clearly better than none does."""
    fit: float
    """Correlation there, less the median of all."""


class TurnSum:
    """Correlation of two sensors' outlines over the columns by which they are moved, averaged over looks."""

    def __init__(self) -> None:
        columns = 2 * MOST_COLUMNS + 1
        self._fit, self._gain, self._gain_squared = (np.zeros(columns) for _ in range(3))
        self._weight = self._squares = 0.0
        self._since_ns: int | None = None
        self._at_ns = 0
        self._last: tuple[Floats, Floats] | None = None

    def learn(self, first: Floats, second: Floats, now_ns: int) -> bool:
        """Take the outlines of one moment into account; returns False where they are those of before."""
        if are_alike(self._last, (first, second)):
            return False
        self._last = first.copy(), second.copy()
        fit = _turn_fits(first, second)
        if self._since_ns is None:
            self._since_ns = self._at_ns = now_ns
        keep = float(np.exp(-(now_ns - self._at_ns) / (TURNED_MEMORY_S * NS_PER_S)))
        self._weight, self._squares, self._at_ns = self._weight * keep + 1.0, self._squares * keep**2 + 1.0, now_ns
        gain = fit - fit[MOST_COLUMNS]
        self._fit += (fit - self._fit) / self._weight
        self._gain += (gain - self._gain) / self._weight
        self._gain_squared += (gain**2 - self._gain_squared) / self._weight
        return True

    def offset(self) -> Offset | None:
        """The degrees by which the second sensor is turned to the right against the first, which fit best.

        None before there were enough looks, and where no angle stands out.
        """
        if self._since_ns is None or self._at_ns - self._since_ns < LEAST_S * NS_PER_S:
            return None
        best, above = int(self._fit.argmax()), self._fit - median(self._fit)
        others = np.concatenate([above[: max(best - BESIDE_COLUMNS, 0)], above[best + BESIDE_COLUMNS + 1 :]])
        if float(above[best] - others.max()) < max(TURNED_STANDS_OUT * float(above[best]), 1e-6):
            return None
        variance = float(self._gain_squared[best] - self._gain[best] ** 2)
        error = np.sqrt(max(variance, 1e-12) * self._squares) / self._weight
        degrees = (_between(self._fit, best) - MOST_COLUMNS) * COLUMN_DEG
        return Offset(degrees, bool(self._gain[best] > TURNED_SURELY * error), float(above[best]))


class LagSum:
    """Correlation of two sensors' outlines over the lag of the first behind the second, averaged over looks."""

    def __init__(self) -> None:
        self._weight, self._fit, self._lag_ms = (np.zeros(2 * _MOST_BIN + 1) for _ in range(3))
        self._since_ns: int | None = None
        self._at_ns = 0

    def learn(self, lags_ms: Floats, fits: Floats, now_ns: int) -> None:
        """Take the correlations at some lags into account, [N] each."""
        if self._since_ns is None:
            self._since_ns = self._at_ns = now_ns
        self._weight *= float(np.exp(-(now_ns - self._at_ns) / (LATE_MEMORY_S * NS_PER_S)))
        self._at_ns = now_ns
        near = np.abs(lags_ms) < (_MOST_BIN + 0.5) * _BIN_MS
        lags_ms, fits = lags_ms[near], fits[near]
        place = np.rint(lags_ms / _BIN_MS).astype(np.intp) + _MOST_BIN  # of two in one bin the later one counts
        self._weight[place] += 1.0
        share = 1.0 / self._weight[place]
        self._fit[place] += (fits - self._fit[place]) * share
        self._lag_ms[place] += (lags_ms - self._lag_ms[place]) * share

    def offset(self) -> Offset | None:
        """The milliseconds by which the first sensor is late, which fit best; None where no lag stands out."""
        known = self._weight > _LEAST_WEIGHT
        if self._since_ns is None or self._at_ns - self._since_ns < LEAST_S * NS_PER_S or known.sum() < _LEAST_LAGS:
            return None
        fit, lag_ms = self._fit[known], self._lag_ms[known]
        above = fit - median(fit)
        best = float(above.max())
        if not _stands_out(above, LATE_SURELY):
            return None
        none = float(above[np.abs(lag_ms) <= _BIN_MS].max(initial=0.0))
        beside = np.abs(lag_ms - lag_ms[above.argmax()]) < 2.5 * _BIN_MS  # what was seen lies between the frames
        weight = np.where(beside, np.maximum(above - NEARLY * best, 0.0), 0.0)
        return Offset(float((weight * lag_ms).sum() / weight.sum()), none < CLEARLY * best, best)


class Seen:
    """What a sensor saw lately: its outlines of the last `MOST_LAG_NS`."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._stamps_ns: NDArray[np.int64] = np.full(_KEPT, -NEVER_NS, np.int64)
        self._outlines: Floats = np.zeros((_KEPT, shape[0] * shape[1]), np.float32)
        self._newest = 0

    def keep(self, stamp_ns: int, outlines: Floats) -> None:
        """Remember what is seen now; what was seen just before that makes room for it."""
        before = int(self._stamps_ns[self._newest - 1])
        if stamp_ns < self._stamps_ns[self._newest]:  # its clock was set back
            self._stamps_ns[:] = -NEVER_NS
        elif self._stamps_ns[self._newest] - before >= _APART_NS:
            self._newest = (self._newest + 1) % _KEPT
        self._stamps_ns[self._newest] = stamp_ns
        self._outlines[self._newest] = outlines.ravel()

    @property
    def newest(self) -> tuple[int, Floats]:
        """Stamp and outlines [shape]."""
        return int(self._stamps_ns[self._newest]), self._outlines[self._newest].reshape(self._shape)

    def fits(self, stamp_ns: int, outlines: Floats) -> tuple[Floats, Floats]:
        """By how many milliseconds what was seen is older than the stamp, and its correlation with the outlines."""
        lags_ms = ((stamp_ns - self._stamps_ns) / NS_PER_MS).astype(np.float32)
        near = np.abs(lags_ms) <= MOST_LAG_NS / NS_PER_MS
        return lags_ms[near], self._outlines[near] @ outlines.ravel()


class Alignment:
    """Of all pairs of sensors that see outlines."""

    def __init__(self, limits: Limits, turns: OwnTurns) -> None:
        """`limits`: the degrees and milliseconds from which on an offset is a fault are their thresholds; `turns`: what
        each sensor saw of its own turning."""
        self._limits = limits
        self._turned = turns
        self._looks = 0
        self._forget()

    def _forget(self, rig: Rig | None = None) -> None:
        self._rig = rig
        self._seen: dict[Sensor, Seen] = {}
        self._turns: defaultdict[tuple[Sensor, Sensor], TurnSum] = defaultdict(TurnSum)
        self._lags: defaultdict[tuple[Sensor, Sensor], LagSum] = defaultdict(LagSum)
        self._tilts: defaultdict[tuple[Sensor, Sensor], TiltSum] = defaultdict(TiltSum)

    def testimonies(self, views: Mapping[Sensor, View], rig: Rig | None, now_ns: int) -> Iterator[Testimony]:
        """Of every two of them. Without a rig nobody knows in which direction a sensor looks: none."""
        if not is_same_rig(rig, self._rig):
            self._forget(rig)
        grid = direction_grid(rig.camera) if rig is not None else None
        if grid is None or grid.shape[1] <= 2 * MOST_COLUMNS:
            return
        self._looks += 1
        drawn = {s: view.outlines(grid) for s, view in sorted(views.items()) if not isinstance(view, EventView)}
        for sensor, outlines in drawn.items():
            coarse = _coarser(outlines)
            self._seen.setdefault(sensor, Seen(coarse.shape)).keep(views[sensor].frame.stamp_ns, coarse)
        pairs = list(combinations(drawn, 2))
        for pair in pairs:
            yield from self._lag(*pair, now_ns)
            yield from self._turn(*pair, now_ns)
        if pairs and self._looks % TILTED_EVERY == 0:
            yield from self._tilt(pairs[self._looks // TILTED_EVERY % len(pairs)], drawn, grid)

    def _lag(self, first: Sensor, second: Sensor, now_ns: int) -> Iterator[Testimony]:
        pair = first, second
        here, there = (self._seen[sensor] for sensor in pair)
        late, early = there.fits(*here.newest), here.fits(*there.newest)  # both have the newest two, in one bin
        self._lags[pair].learn(np.append(late[0], -early[0]), np.append(late[1], early[1]), now_ns)
        if (found := self._lags[pair].offset()) is None:
            return
        # A stamp that is written late is common, one that is written before the measurement is not.
        behind, ahead = pair if found.value > 0 else pair[::-1]
        text = f"{behind} is {abs(found.value):.0f} ms late against {ahead}"
        against = _against(found, self._limit(pair, Fault.TIME_OFFSET))
        if against == 1.0:  # outlines that are turned meet others now and then: is it that?
            turned = _turn_fits(here.newest[1], there.newest[1])
            against = None if float(turned.max()) - median(turned) > found.fit else against
        if against is not None:
            yield Testimony(
                LAG, Fault.TIME_OFFSET, pair, against, abs(found.value), "ms", text, behind, looks=LAG_LOOKS
            )

    def _turn(self, first: Sensor, second: Sensor, now_ns: int) -> Iterator[Testimony]:
        pair = first, second
        (_, here), (_, there) = (self._seen[sensor].newest for sensor in pair)
        is_new = self._turns[pair].learn(here, there, now_ns)
        if not is_new or (found := self._turns[pair].offset()) is None:
            return
        side = "right" if found.value > 0 else "left"
        text = f"{second} is turned by {abs(found.value):.1f} degrees to the {side} against {first}"
        against = _against(found, self._limit(pair, Fault.MISALIGNED))
        if against is not None:
            who = self._turned.suspect(pair, Turn.RIGHT, found.value)
            yield Testimony(ALIGNMENT, Fault.MISALIGNED, pair, against, abs(found.value), "degrees", text, who)

    def _tilt(
        self, pair: tuple[Sensor, Sensor], drawn: Mapping[Sensor, Floats], grid: DirectionGrid
    ) -> Iterator[Testimony]:
        sum_of_pair, turned = self._tilts[pair], self._turns[pair].offset()
        is_new = sum_of_pair.learn(drawn[pair[0]], drawn[pair[1]])
        if not is_new or turned is None or abs(turned.value) > TURNED_TOO_FAR:
            return
        if (found := sum_of_pair.tilt(grid, turned.value)) is None:
            return
        how, degrees = found.greatest
        text = f"{pair[1]} is {how} by {degrees:.1f} degrees against {pair[0]}"
        against = _against(Offset(degrees, found.is_sure, 0.0), self._limit(pair, Fault.MISALIGNED))
        if against is not None:
            who = self._turned.suspect(pair, found.axis, found.signed_deg)
            yield Testimony(TILT, Fault.MISALIGNED, pair, against, degrees, "degrees", text, who, looks=TILT_LOOKS)

    def _limit(self, pair: tuple[Sensor, Sensor], fault: Fault) -> float:
        return max(self._limits(sensor, fault).threshold for sensor in pair)


def _coarser(outlines: Floats) -> Floats:
    """Two rows as one, [rows // 2, cols], and of length 1 in all again: a scan has fewer rows than the grid."""
    rows = len(outlines) // 2
    return of_length_1(outlines[: 2 * rows : 2] + outlines[1 : 2 * rows : 2])


def _turn_fits(first: Floats, second: Floats) -> Floats:
    """Correlation of two sensors' outlines [rows, cols] by the columns that the second is moved, [columns]."""
    return shifted_products([first], second, 0, MOST_COLUMNS)[0][0]


def _against(found: Offset, limit: float) -> float | None:
    """What a judge is told of an offset; None where it is large and may be chance."""
    if abs(found.value) < limit:
        return -1.0
    return 1.0 if found.is_sure else None


def _stands_out(above_median: NDArray, times: float) -> bool:
    """Whether the greatest value is that many times the spread of all of them above their median."""
    spread = 1.4826 * median(np.abs(above_median))  # the standard deviation, whatever the greatest are
    return float(above_median.max()) > max(times * spread, 1e-6)


def _between(values: NDArray, best: int) -> float:
    """The place of the greatest value, between the samples (a parabola through three of them)."""
    if not 0 < best < len(values) - 1:
        return float(best)
    before, at, after = (float(v) for v in values[best - 1 : best + 2])
    return best + 0.5 * (before - after) / min(before - 2 * at + after, -1e-12)
