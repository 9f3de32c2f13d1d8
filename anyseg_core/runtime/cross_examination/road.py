"""The road under a sensor that measures distances: a plane, which it always sees from the same height.

It is found in a single frame, and traffic does not move it. A sensor whose distances are of another scale sees it
higher or deeper, one that is turned up or rolled sees it inclined, and what makes distances up sees things below it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.judge import ROAD, Testimony
from anyseg_core.runtime.cross_examination.own_turns import EVERY_NS, KEPT, OwnTurns, Turn
from anyseg_core.runtime.cross_examination.small_arrays import median
from anyseg_core.runtime.cross_examination.testimonies import sure
from anyseg_core.runtime.cross_examination.views import DepthView, Floats, LidarView, View
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, is_same_rig
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S

Doubles = NDArray[np.float64]

LOOKS = 4.0
"""That one testimony stands for."""
NEAREST_M, FARTHEST_M = 1.5, 18.0
"""Along the optical axis: farther away a road need not be the same plane."""
LEAST_BELOW_M = 0.1
"""Below the camera, where a road may be."""
WIDEST_M, WIDEST = 6.0, 0.5
"""To the left and right, in metres and as a share of the distance."""
SLICES, LEAST_IN_SLICE, LEAST_SLICES = 6, 9, 3
"""Of the distance, in equal steps of its logarithm."""
LOW = 0.85
"""Quantile of how far down the points of a slice are, that is the road and not what stands on it."""
NEAR_M = (0.3, 0.15, 0.1)
"""Distances from the plane of the points that it is fitted to, ever closer."""
LEAST_POINTS, LEAST_SHARE = 60, 0.3
"""That lie on the plane, and of all points. A crowded street (KITTI) has 0.36, the simulated ones 0.8."""
MOST_POINTS = 900
LEAST_KEPT = 3
"""Looks, before it is known what is usual."""
LAG_NS = 6 * NS_PER_S // 5
"""Looks that are younger do not count for what is usual: they may be wrong already."""
MOST_INCLINED_DEG = 1.5
"""More than usual: where a slope begins, a plane through both parts has another height. Clean: at most 0.9."""
OTHER_HEIGHT, OTHER_HEIGHT_SPREAD = 0.15, 0.04
"""Logarithm of a height over the usual one that is wrong. Clean: at most 0.03, and on a real drive (KITTI) in all."""
SAME_HEIGHT = 0.06
"""The same, of a scale that has not changed."""
HIGHEST_M = 4.0
"""Of a sensor over the road."""
BELOW_M, BELOW = 0.3, 0.05
"""Under the usual road, in metres and as a share of its distance: nothing is there."""
MUCH_BELOW, MUCH_BELOW_SPREAD = 0.15, 0.06
"""Share of what is seen in the directions of the road, that is below it: such a sensor makes distances up. Ranges that
are all 10 m, on KITTI: 0.24."""
LIFTED_NS = 6 * NS_PER_S
"""After so long at another height that fits odometry, it is the vehicle that is higher."""


class Road(NamedTuple):
    """A plane in the axes of the camera."""

    height_m: float
    """From the camera down to it, along the camera's axis."""
    up_deg: float
    """By which the sensor seems to be turned up: the road falls away ahead."""
    clockwise_deg: float
    """By which it seems to be rolled."""


def road_in(points: Floats) -> Road | None:
    """The road among points [3, N] in metres in the axes of the camera (right, down, forward); None where none lies.

    Its height is within 3 % in simulated drives and in a real one (KITTI, where it is known to be 1.65 m).
    """
    x, y, z = _where_a_road_may_be(points).astype(np.float64)
    if len(x) < LEAST_POINTS or (first := _along_slices(y, z)) is None:
        return None
    ground = np.stack([np.ones_like(x), x, z], axis=1)  # [N, 3]
    plane: Doubles = first
    for near_m in NEAR_M:
        near = np.abs(y - ground @ plane) < near_m
        if np.count_nonzero(near) < LEAST_POINTS:
            return None
        points_near = ground[near]
        plane = np.linalg.solve(points_near.T @ points_near + 1e-6 * np.eye(3), points_near.T @ y[near])
    if np.mean(np.abs(y - ground @ plane) < NEAR_M[-1]) < LEAST_SHARE or plane[0] <= 0:
        return None
    height, clockwise, up = plane
    return Road(float(height), float(np.rad2deg(np.arctan(up))), float(np.rad2deg(np.arctan(clockwise))))


def _where_a_road_may_be(points: Floats) -> Floats:
    x, y, z = points
    with np.errstate(invalid="ignore"):
        inside = (z > NEAREST_M) & (z < FARTHEST_M) & (np.abs(x) < WIDEST_M) & (np.abs(x) < WIDEST * z)
        chosen = np.flatnonzero(inside & (y > LEAST_BELOW_M))
    return points[:, chosen[:: 1 + len(chosen) // MOST_POINTS]]


def _along_slices(y: Doubles, z: Doubles) -> Doubles | None:
    """A first plane that does not roll, through what is lowest in each slice (Theil and Sen's median slope)."""
    slices = (np.log(z / NEAREST_M) * (SLICES / np.log(FARTHEST_M / NEAREST_M))).astype(np.intp)
    own = (np.flatnonzero(slices == number) for number in range(SLICES))
    places = [(median(z[some]), _low(y[some])) for some in own if len(some) >= LEAST_IN_SLICE]
    if len(places) < LEAST_SLICES:
        return None
    slope = median(np.array([(down - other) / (far - near) for (near, other), (far, down) in combinations(places, 2)]))
    height = median(np.array([down - slope * far for far, down in places]))
    return np.array([height, 0.0, slope])


def _low(y: Doubles) -> float:
    """The quantile `LOW`."""
    number = int(LOW * len(y))
    return float(np.partition(y, number)[number])


@dataclass
class _Seen:
    """What one sensor saw of the road."""

    next_ns: int
    """When it is looked at again."""
    _past: deque[tuple[int, Road]] = field(default_factory=lambda: deque(maxlen=KEPT))
    _fitted_m: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Heights while its distances fitted odometry."""
    newest: Road | None = None
    _odd_since_ns: int | None = None

    def usual(self, now_ns: int) -> Road | None:
        """Medians of what is not too new; None before it is known."""
        old = [road for at_ns, road in self._past if now_ns - at_ns > LAG_NS]
        if len(old) < LEAST_KEPT:
            return None
        return Road(*(median(np.array(values)) for values in zip(*old, strict=True)))

    def refutes(self, multiple: float) -> bool:
        """As `Roads.refutes`."""
        if self.newest is None:
            return False
        height_m = self.newest.height_m
        if height_m <= HIGHEST_M < height_m / max(multiple, 1e-6):
            return True
        if not self._fitted_m:  # of another scale they never fit
            return False
        return abs(float(np.log(height_m / median(np.array(self._fitted_m))))) < SAME_HEIGHT

    def learn(self, road: Road | None, now_ns: int, *, is_odd: bool, fits_odometry: bool) -> None:
        """Take a look into account, unless it is odd; where that lasts and fits odometry, begin anew."""
        if is_odd:
            self._odd_since_ns = now_ns if self._odd_since_ns is None or not fits_odometry else self._odd_since_ns
            if now_ns - self._odd_since_ns > LIFTED_NS:
                self._past.clear()
                self._fitted_m.clear()
            return
        self._odd_since_ns = None
        if road is not None:
            self._past.append((now_ns, road))
            if fits_odometry:
                self._fitted_m.append(road.height_m)


class Roads:
    """Of all sensors that measure distances."""

    def __init__(self, turns: OwnTurns) -> None:
        """`turns`: is told of how each sensor sees the road inclined."""
        self._turns = turns
        self._seen: dict[Sensor, _Seen] = {}
        self._rig: Rig | None = None

    def testimonies(
        self, views: Mapping[Sensor, View], rig: Rig | None, fitting: Collection[Sensor], now_ns: int
    ) -> Iterator[Testimony]:
        """Of those whose turn it is. `fitting`: those whose distances fit odometry."""
        if not is_same_rig(rig, self._rig):
            self._seen, self._rig = {}, rig
        for sensor, view in views.items():
            if rig is None or not isinstance(view, (DepthView, LidarView)):
                continue
            seen = self._seen.setdefault(sensor, _Seen(now_ns + len(self._seen) * EVERY_NS // 2))
            if now_ns >= seen.next_ns:
                seen.next_ns = now_ns + EVERY_NS
                yield from self._look(sensor, seen, points_of(view, rig), sensor in fitting, now_ns)

    def refutes(self, sensor: Sensor, multiple: float) -> bool:
        """Whether a sensor whose distances change by a multiple of what odometry says is not of that scale: it sees the
        road as far below as when it fitted odometry, or would have to be mounted higher than anything is."""
        return sensor in self._seen and self._seen[sensor].refutes(multiple)

    def _look(
        self, sensor: Sensor, seen: _Seen, points: Floats, fits_odometry: bool, now_ns: int
    ) -> Iterator[Testimony]:
        road, usual = road_in(points), seen.usual(now_ns)
        if road is not None:
            self._turns.level(sensor, Turn.UP, road.up_deg)
            self._turns.level(sensor, Turn.CLOCKWISE, road.clockwise_deg)
        said = _compared(sensor, road, usual, points) if usual is not None else None
        seen.learn(road, now_ns, is_odd=said is not None and said.against > 0, fits_odometry=fits_odometry)
        seen.newest = road
        if said is not None:
            yield said


def _compared(sensor: Sensor, road: Road | None, usual: Road, points: Floats) -> Testimony | None:
    """With what is usual. None where that says nothing: no road is in sight, or a slope begins."""
    if road is not None:
        if abs(road.up_deg - usual.up_deg) > MOST_INCLINED_DEG:
            return None
        ratio = road.height_m / usual.height_m
        text = f"{sensor} sees the road {road.height_m:.2f} m below, {ratio:.2f} times as far as it used to"
        against = sure(abs(float(np.log(ratio))) - OTHER_HEIGHT, OTHER_HEIGHT_SPREAD)
        return Testimony(ROAD, Fault.WRONG_SCALE, (sensor,), against, ratio, "x", text, looks=LOOKS)
    share = _share_below(points, usual)
    against = sure(share - MUCH_BELOW, MUCH_BELOW_SPREAD)
    if against <= 0:
        return None
    text = f"{share:.0%} of what {sensor} sees where the road is lies below it"
    return Testimony(ROAD, Fault.INCONSISTENT_GEOMETRY, (sensor,), against, share, "share", text, looks=LOOKS)


def _share_below(points: Floats, usual: Road) -> float:
    """Of what is measured in the directions of the usual road, the share that is farther away than it."""
    x, y, z = points
    right, down = (np.float32(np.tan(np.deg2rad(deg))) for deg in (usual.clockwise_deg, usual.up_deg))
    with np.errstate(invalid="ignore", divide="ignore"):
        steepness = (y - down * z - right * x) / z  # of the ray over the road
        there = usual.height_m / steepness  # along the optical axis
        inside = (z > NEAREST_M) & (there > NEAREST_M) & (there < FARTHEST_M) & (np.abs(x) < WIDEST * z)
    if np.count_nonzero(inside) < LEAST_POINTS:
        return 0.0
    z, steepness, there = z[inside], steepness[inside], there[inside]
    return float(np.mean((z - there) * steepness > BELOW_M + BELOW * there))


def points_of(view: DepthView | LidarView, rig: Rig) -> Floats:
    """Some points of a view in the axes of the camera, [3, N]."""
    if isinstance(view, LidarView):
        points = view.camera_xyz
        return points[:, :: 1 + points.shape[1] // (6 * MOST_POINTS)]
    image = view.frame.data
    place, rays = _rays(rig.camera, image.shape[0], image.shape[1])
    with np.errstate(invalid="ignore"):  # where nothing was measured
        return image.reshape(-1)[place].astype(np.float32) * rays


@lru_cache(maxsize=8)
def _rays(camera: PinholeCamera, height: int, width: int) -> tuple[NDArray[np.intp], Floats]:
    """Of a depth image of that size: pixels that look down, by their places in the flattened image [N], and the rays
    through them of depth 1, [3, N]."""
    camera = camera.undistorted.resized(height, width)
    step = max(1, int(np.sqrt(height * width / (2 * MOST_POINTS))) // 2)
    row, col = (places.ravel() for places in np.mgrid[0:height:step, 0:width:step])
    right, down = (col - camera.cx) / camera.fx, (row - camera.cy) / camera.fy
    chosen = (down > 0) & (np.abs(right) < WIDEST)
    rays = np.stack([right, down, np.ones_like(right)])[:, chosen].astype(np.float32)
    return (row * width + col)[chosen], rays
