"""What is remembered of each sensor: the grids of the last seconds, and how much they changed from look to look."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from statistics import median

from anyseg_core.runtime.cross_examination.views import CameraView, EventView, Floats, View
from anyseg_core.runtime.cross_examination.witnesses import (
    Changes,
    Doubles,
    changes_between,
    comparable,
    fits_turned,
    median_step,
)
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S

COMPARED_NS = (NS_PER_S // 4, 21 * NS_PER_S // 20)
"""Ages of the views that the newest one is compared with."""
JUMP_NS = (-NS_PER_S, NS_PER_S // 2)
"""About a time: where a jump of the view is looked for."""
_COMPARED = 4
"""Views, so that of two which take turns both are among them, at whole looks, too."""
TURNED_FIT = 0.5
"""Correlation of a view with the one before, mirrored or turned by half, that is no chance."""
LITTLE = 0.1
"""Missing to that correlation as they are, with which nobody has turned it."""
_KEPT_NS = 3 * NS_PER_S // 2
_KEPT_STEPS = 300
_LEAST_STEPS = 5
_LEAST_STEPS_OF = (1e-3, 1e-2, 0.02)
"""A view that changes by less from look to look stands still; no multiple of that is a jump. The last is of a
correlation: by as much more a view that was turned by half may be like the one before than one that was not."""
Step = tuple[float, float, float]
"""From look to look: what cells change by, what is missing to the correlation of a view with the one before, and by how
much less is missing where it is mirrored or turned by half."""


@dataclass(frozen=True, eq=False)
class Past:
    """What is kept of a view."""

    stamp_ns: int
    levels: Floats
    change: Floats | None = None
    """What became brighter since the frame before, [GRID]: of a camera, and of an event camera."""

    @cached_property
    def comparable(self) -> Doubles:
        """The levels, as `changes_between` takes them."""
        return comparable(self.levels)


class Memory:
    """Of all sensors."""

    def __init__(self) -> None:
        self._past: dict[Sensor, deque[Past]] = {}
        self._present: dict[Sensor, Past] = {}
        self._stepped: dict[Sensor, Past] = {}
        self._steps: defaultdict[Sensor, deque[tuple[int, Step]]]
        self._steps = defaultdict(lambda: deque(maxlen=_KEPT_STEPS))

    def is_new(self, frame: SensorFrame) -> bool:
        """Whether the frame comes after what is remembered of its sensor."""
        past = self._past.get(frame.modality)
        return not past or frame.stamp_ns != past[-1].stamp_ns

    def newest(self, sensor: Sensor) -> Past | None:
        """The view before the one that is looked at."""
        past = self._past.get(sensor)
        return past[-1] if past else None

    def see(self, views: Mapping[Sensor, View]) -> None:
        """The views of this look, of which the rest is asked."""
        self._present = {
            s: Past(v.frame.stamp_ns, v.levels, _change_since(self.newest(s), v)) for s, v in views.items()
        }

    def changes(self, sensor: Sensor) -> list[Past]:
        """The views of which it is known what became brighter, the oldest first."""
        return [past for past in self._past.get(sensor, ()) if past.change is not None]

    def change(self, sensor: Sensor) -> Changes | None:
        """The least changes from the views of `COMPARED_NS` ago, so that two which take turns change by nothing.

        None: fewer than two of them can be compared.
        """
        present, (low, high) = self._present[sensor], COMPARED_NS
        aged = ((present.stamp_ns - past.stamp_ns, past) for past in reversed(self._past.get(sensor, ())))
        old = islice((past for age_ns, past in aged if low <= age_ns <= high), _COMPARED)
        found = (_changes(past, present) for past in old)
        known = [changes for changes in found if changes is not None]
        return Changes(*map(min, zip(*known, strict=True))) if len(known) > 1 else None

    def measure_steps(self, now_ns: int) -> None:
        """How much each view has changed since this was last asked, at `now_ns` of the caller's clock.

        Where that is longer ago than the least of `COMPARED_NS`, as much of it as belongs to so long.
        """
        for sensor, present in self._present.items():
            before, self._stepped[sensor] = self._stepped.get(sensor), present
            if before is not None and (changes := _changes(before, present)) is not None:
                periods = max(abs(present.stamp_ns - before.stamp_ns) / COMPARED_NS[0], 1.0)
                turned = _fits_better_turned(before, present, changes.whole) if changes.whole > LITTLE else 0.0
                step = median_step(before.levels, present.levels) / periods, changes.whole / periods, turned
                self._steps[sensor].append((now_ns, step))

    def keep(self) -> None:
        """Remember the views of this look."""
        for sensor, present in self._present.items():
            past = self._past.setdefault(sensor, deque())
            if past and past[-1].stamp_ns > present.stamp_ns:  # its clock was set back
                past.clear()
            past.append(present)
            while present.stamp_ns - past[0].stamp_ns > _KEPT_NS:
                past.popleft()

    def jump(self, sensor: Sensor, time_ns: int) -> float:
        """How much more than usual the sensor's view changed between two frames about that time; 1 is usual."""
        steps = self._steps.get(sensor, ())
        near = [step for at, step in steps if JUMP_NS[0] <= at - time_ns <= JUMP_NS[1]]
        usual = [step for at, step in steps if at - time_ns < JUMP_NS[0]]
        if not near or len(usual) < _LEAST_STEPS:
            return 1.0
        kinds = zip(zip(*near, strict=True), zip(*usual, strict=True), _LEAST_STEPS_OF, strict=True)
        return max(max(now) / max(median(before), least) for now, before, least in kinds)


def _changes(then: Past, now: Past) -> Changes | None:
    """None: they cannot be compared."""
    return changes_between(then.comparable, now.comparable) if then.levels.shape == now.levels.shape else None


def _fits_better_turned(then: Past, now: Past, missing: float) -> float:
    """By how much more a view is like the one before mirrored or turned by half than as it is, with so much missing."""
    fit = fits_turned(then.comparable, now.comparable, now.levels.shape)
    return max(fit - (1.0 - missing), 0.0) if fit > TURNED_FIT else 0.0


def _change_since(before: Past | None, view: View) -> Floats | None:
    """As `Past.change`; None of a sensor that has none, and without a frame before."""
    if isinstance(view, EventView):
        return view.change
    if not isinstance(view, CameraView) or before is None or before.levels.shape != view.levels.shape:
        return None
    return view.levels - before.levels
