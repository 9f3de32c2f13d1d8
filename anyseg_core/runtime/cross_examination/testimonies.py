"""Numbers of the witnesses -> what they say of a sensor or a pair, and from when on it speaks against them.

"Clean" below is: simulated drives in five weathers, and a real drive (KITTI, camera and LiDAR); see docs/safety.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from types import MappingProxyType

import numpy as np

from anyseg_core.runtime.cross_examination.baseline import Baseline
from anyseg_core.runtime.cross_examination.judge import EDGES, EVENTS, LATENESS, MOVEMENT, RANGES, SIGNS, Testimony
from anyseg_core.runtime.cross_examination.memory import Memory, Past
from anyseg_core.runtime.cross_examination.outlines import DirectionGrid, direction_grid
from anyseg_core.runtime.cross_examination.own_turns import OwnTurns
from anyseg_core.runtime.cross_examination.views import (
    CameraView,
    DepthView,
    EventView,
    Floats,
    LidarView,
    View,
)
from anyseg_core.runtime.cross_examination.witnesses import Changes, event_agreement, orientation, range_agreement
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import CAMERA, DEPTH, LIDAR, Sensor, SensorKind
from anyseg_core.runtime.time_units import NS_PER_MS

Views = Mapping[Sensor, View]
Baselines = Mapping[tuple[Sensor, Sensor], Baseline]
"""By pair; of one that is not there yet an empty one is made."""

SAME_RANGE, SAME_RANGE_SPREAD = 0.65, 0.10
"""Share of the points where depth and LiDAR agree, and how far from it the witness is sure. Clean: at least 0.95; a
stereo camera of a short baseline has less, which is no fault."""
SAME_RANGE_DROP, SAME_RANGE_DROP_SPREAD = 0.06, 0.03
"""The same for a share that has fallen below its usual one by so much, and by three standard deviations."""
SAME_SCALED = 0.8
"""Share that agrees when the scale is taken out, from which on it is only the scale that is wrong."""
LEAST_SCALE = 0.08
"""Share by which distances must differ to be called another scale."""
EVENTS_AGREE, EVENTS_SPREAD = 0.40, 0.20
"""Correlation of events with what changes in the picture. Clean: at least 0.85."""
SEEN_BEFORE = 0.6
"""Correlation with an earlier change that is this one."""
OPPOSITE = -0.5
"""A correlation below this has its signs exchanged."""
EDGES_MARGIN = 0.03
"""Correlation by which outlines lie better on the distances when the picture is mirrored or turned. Clean, in the mean
of a second: below 0."""
LEAST_MARGIN = 0.02
"""What the mean of that correlation, less the better of the wrong ones, must have been for edges to be a witness."""
AS_WELL = 0.7
"""Share of the usual correlation that is as good."""
LOST = 0.75
"""Share of it that a picture which still fits as it is has at least: a symmetric street fits both ways."""
STILL: Mapping[SensorKind, float] = MappingProxyType({CAMERA: 0.0005, DEPTH: 0.0003, LIDAR: 0.0002})
"""Change of a view that is sent again and again with noise on it: less than this. Clean, driving: at least 0.007, 0.002
and 0.0009."""
STILL_HALF: Mapping[SensorKind, float] = MappingProxyType({CAMERA: 0.0005, DEPTH: 2e-6})
"""The same of the lower half of a picture. A road that is plane has the same depths all the time, but for noise."""
MOVED: Mapping[SensorKind, float] = MappingProxyType({CAMERA: 0.004, DEPTH: 0.002, LIDAR: 0.02})
"""Change of a view that certainly moves."""
MOVING_MPS = 2.0
"""Odometry that says more says that every view must change."""
SILENT_EVENTS = 1e-3
"""Events of each pixel between two frames: with less the sensor sees nothing. Clean, driving: at least 0.018."""


def event_testimonies(views: Views, memory: Memory) -> Iterator[Testimony]:
    """Of every camera and event camera."""
    for first, second in permutations(views.values(), 2):
        if isinstance(first, CameraView) and isinstance(second, EventView):
            yield from _events(first, second, memory)


def geometry_testimonies(views: Views, baselines: Baselines, rig: Rig | None, turns: OwnTurns) -> Iterator[Testimony]:
    """Of every two sensors of which one measures distances; `turns`: what each saw of its own turning."""
    grid = direction_grid(rig.camera) if rig is not None else None
    for first, second in permutations(views.values(), 2):
        if isinstance(first, DepthView) and isinstance(second, LidarView) and rig is not None:
            yield from _ranges(first, second, baselines, turns)
        elif isinstance(first, CameraView) and isinstance(second, (DepthView, LidarView)) and grid is not None:
            yield from _edges(first, second, grid, baselines)


def _ranges(depth: DepthView, lidar: LidarView, baselines: Baselines, turns: OwnTurns) -> Iterator[Testimony]:
    found = range_agreement(depth, lidar)
    if found is None:
        return
    pair = depth.frame.modality, lidar.frame.modality
    baseline = baselines[pair]
    against = sure(SAME_RANGE - found.same, SAME_RANGE_SPREAD)
    if (usual := baseline.usual) is not None:
        limit = usual - max(SAME_RANGE_DROP, 3 * baseline.spread)
        against = max(against, sure(limit - found.same, SAME_RANGE_DROP_SPREAD))
    baseline.learn(found.same, found.same)
    is_scale = abs(found.ratio - 1.0) > LEAST_SCALE and found.same_scaled > SAME_SCALED
    who = turns.only_inclined(pair) if against > 0 else None
    if is_scale:
        text = f"{pair[0]} is {found.ratio:.2f} times as far as {pair[1]} ({found.pairs} points)"
        yield Testimony(RANGES, Fault.WRONG_SCALE, pair, against, found.ratio, "x", text, who)
    else:
        text = f"{pair[0]} and {pair[1]} agree on {found.same:.0%} of {found.pairs} points only"
        yield Testimony(RANGES, Fault.INCONSISTENT_GEOMETRY, pair, against, found.same, "share", text, who)


def _edges(
    camera: CameraView, ranging: DepthView | LidarView, grid: DirectionGrid, baselines: Baselines
) -> Iterator[Testimony]:
    """By the outlines, where they have told left from right before: at night and in fog they do not.

    A picture that was mirrored fits the other way as well as it used to fit; one that fits less in every way is of
    another scene, and no evidence.
    """
    found = orientation(camera, ranging, grid)
    if found is None:
        return
    pair = camera.frame.modality, ranging.frame.modality
    other, how = found.other
    baseline = baselines[pair]
    is_fit, usual = baseline.is_fit(LEAST_MARGIN), baseline.usual
    baseline.learn(found.upright - other, found.upright)
    if is_fit and usual is not None:
        beyond = other - found.upright, other - AS_WELL * usual, LOST * usual - found.upright
        against = min(sure(each, EDGES_MARGIN) for each in beyond)
        if against <= 0 and found.upright < LOST * usual:
            return
        text = f"outlines of {pair[0]} fit {pair[1]} better {how} ({other:.2f}) than as they are ({found.upright:.2f})"
        yield Testimony(EDGES, Fault.INCONSISTENT_GEOMETRY, pair, against, other, "correlation", text)


def _events(camera: CameraView, events: EventView, memory: Memory) -> Iterator[Testimony]:
    """Whether they see the same change; where they do not, whether one of them shows what the other did before.

    Of two contents under one stamp the older one is wrong: nobody sends what is still to come.
    """
    before = memory.newest(camera.frame.modality)
    if before is None or before.levels.shape != camera.levels.shape:
        return
    brighter = camera.levels - before.levels
    found = event_agreement(brighter, events.change)
    if found is None:
        return
    seen, sensor = camera.frame.modality, events.frame.modality
    opposite = f"{sensor} says the opposite of what changes in the pictures of {seen} (correlation {found:.2f})"
    is_opposite = found < OPPOSITE
    wrong = 1.0 if is_opposite else -1.0
    yield Testimony(SIGNS, Fault.INCONSISTENT_CONTENT, (sensor,), wrong, found, "correlation", opposite)
    text = f"{sensor} does not see what changes in the pictures of {seen} (correlation {found:.2f})"
    against = -1.0 if is_opposite else sure(EVENTS_AGREE - found, EVENTS_SPREAD)
    yield Testimony(EVENTS, Fault.INCONSISTENT_CONTENT, (seen, sensor), against, found, "correlation", text)
    agrees = is_opposite or found > EVENTS_AGREE
    shown_ns, told_ns = camera.frame.stamp_ns, events.frame.stamp_ns
    yield _lateness(seen, sensor, None if agrees else _lag(shown_ns, brighter, memory.changes(sensor)))
    yield _lateness(sensor, seen, None if agrees else _lag(told_ns, events.change, memory.changes(seen)))


def _lag(now_ns: int, change: Floats, earlier: Sequence[Past]) -> tuple[float, float] | None:
    """How many milliseconds ago the other sensor saw this change, and the correlation then; None where it did not."""
    found = [(event_agreement(change, past.change), past.stamp_ns) for past in earlier if past.change is not None]
    known = [(correlation, stamp_ns) for correlation, stamp_ns in found if correlation is not None]
    best, stamp_ns = max(known, default=(0.0, now_ns))
    return ((now_ns - stamp_ns) / NS_PER_MS, best) if best > SEEN_BEFORE else None


def _lateness(late: Sensor, other: Sensor, lag: tuple[float, float] | None) -> Testimony:
    if lag is None:
        return Testimony(LATENESS, Fault.TIME_OFFSET, (late,), -1.0, 0.0, "ms", "")
    text = f"{late} shows what {other} saw {lag[0]:.0f} ms before (correlation {lag[1]:.2f})"
    return Testimony(LATENESS, Fault.TIME_OFFSET, (late,), 1.0, lag[0], "ms", text)


def movement_testimonies(views: Views, memory: Memory, speed_mps: float | None) -> Iterator[Testimony]:
    """Of every view that must change because the vehicle moves: by odometry, else by two others that do change."""
    changes = {s: memory.change(s) for s in views if s.kind.family in STILL}
    moved = {s for s, change in changes.items() if change is not None and change.whole > MOVED[s.kind.family]}
    for sensor, view in views.items():
        others = moved - {sensor}
        if speed_mps is None and len(others) > 1:
            why = f"{' and '.join(sorted(others))} see it move"
        elif speed_mps is not None and speed_mps > MOVING_MPS:
            why = f"odometry says {speed_mps:.1f} m/s"
        else:
            continue
        if isinstance(view, EventView):
            yield _silence(view, why)
        elif (change := changes[sensor]) is not None:
            yield _stillness(sensor, change, why)


def _stillness(sensor: Sensor, changes: Changes, why: str) -> Testimony:
    change, lower = changes
    what, still = str(sensor), STILL[sensor.kind.family]
    if change >= still and lower < STILL_HALF.get(sensor.kind.family, 0.0):  # not the upper one: it may be a sky
        what, change, still = f"the lower half of {sensor}", lower, STILL_HALF[sensor.kind.family]
    text = f"{what} shows the same scene as before, though {why}"
    against = 1.0 if change < still else -1.0
    return Testimony(MOVEMENT, Fault.NOT_MOVING, (sensor,), against, change, "1 - correlation", text)


def _silence(events: EventView, why: str) -> Testimony:
    sensor, rate = events.frame.modality, float(events.levels.mean())
    text = f"{sensor} sees no change, though {why}"
    against = 1.0 if rate < SILENT_EVENTS else -1.0
    return Testimony(MOVEMENT, Fault.NOT_MOVING, (sensor,), against, rate, "events per pixel", text)


def sure(beyond: float, spread: float) -> float:
    """How sure a witness is: -1 where a number is `spread` on the good side of its limit, 1 where on the bad side."""
    return float(np.clip(beyond / spread, -1.0, 1.0))
