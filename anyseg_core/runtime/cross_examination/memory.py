"""What is remembered of each sensor: the grids of the last seconds, and how much they changed from frame to frame."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from statistics import median

from anyseg_core.runtime.cross_examination.views import CameraView, EventView, Floats, View
from anyseg_core.runtime.cross_examination.witnesses import change_between, step_between
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S

COMPARED_NS = (NS_PER_S // 4, 3 * NS_PER_S // 4)
"""Ages of the views that the newest one is compared with."""
JUMP_NS = (-NS_PER_S, NS_PER_S // 2)
"""About a time: where a jump of the view is looked for."""
_COMPARED = 3
"""Views, so that of two which take turns both are among them."""
_KEPT_NS = 3 * NS_PER_S // 2
_KEPT_STEPS = 300
_LEAST_STEPS = 10
_LEAST_STEPS_OF = (1e-3, 1e-2)
"""A view that changes by less from frame to frame stands still; no multiple of that is a jump."""


@dataclass(frozen=True, eq=False)
class Past:
    """What is kept of a view."""

    stamp_ns: int
    levels: Floats
    change: Floats | None = None
    """What became brighter since the frame before, [GRID]: of a camera, and of an event camera."""


class Memory:
    """Of all sensors."""

    def __init__(self) -> None:
        self._past: dict[Sensor, deque[Past]] = {}
        self._steps: dict[Sensor, deque[tuple[int, tuple[float, float]]]] = {}

    def is_new(self, frame: SensorFrame) -> bool:
        """Whether the frame comes after what is remembered of its sensor."""
        past = self._past.get(frame.modality)
        return not past or frame.stamp_ns != past[-1].stamp_ns

    def newest(self, sensor: Sensor) -> Past | None:
        """The view before the one that is looked at."""
        past = self._past.get(sensor)
        return past[-1] if past else None

    def compared(self, view: View) -> list[Past]:
        """The newest of the views that are `COMPARED_NS` older."""
        low, high = COMPARED_NS
        stamp_ns = view.frame.stamp_ns
        old = (p for p in reversed(self._past.get(view.frame.modality, ())) if low <= stamp_ns - p.stamp_ns <= high)
        return list(islice(old, _COMPARED))

    def changes(self, sensor: Sensor) -> list[Past]:
        """The views of which it is known what became brighter, the oldest first."""
        return [past for past in self._past.get(sensor, ()) if past.change is not None]

    def change(self, view: View, rows: slice = slice(None)) -> float | None:
        """The least change from the views of `COMPARED_NS` ago, so that two which take turns change by nothing.

        None: fewer than two of them can be compared.
        """
        same_shape = (p.levels for p in self.compared(view) if p.levels.shape == view.levels.shape)
        changes = [change_between(levels[rows], view.levels[rows]) for levels in same_shape]
        known = [change for change in changes if change is not None]
        return min(known) if len(known) > 1 else None

    def keep(self, view: View, now_ns: int) -> None:
        """Remember a view that was looked at, at `now_ns` of the caller's clock."""
        sensor, newest = view.frame.modality, self.newest(view.frame.modality)
        if newest is not None and newest.stamp_ns > view.frame.stamp_ns:  # its clock was set back
            self._past.pop(sensor)
        elif newest is not None and newest.levels.shape == view.levels.shape:
            steps = self._steps.setdefault(sensor, deque(maxlen=_KEPT_STEPS))
            steps.append((now_ns, step_between(newest.levels, view.levels)))
        past = self._past.setdefault(sensor, deque())
        past.append(Past(view.frame.stamp_ns, view.levels, _change_since(newest, view)))
        while past[-1].stamp_ns - past[0].stamp_ns > _KEPT_NS:
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


def _change_since(before: Past | None, view: View) -> Floats | None:
    """As `Past.change`; None of a sensor that has none, and without a frame before."""
    if isinstance(view, EventView):
        return view.change
    if not isinstance(view, CameraView) or before is None or before.levels.shape != view.levels.shape:
        return None
    return view.levels - before.levels
