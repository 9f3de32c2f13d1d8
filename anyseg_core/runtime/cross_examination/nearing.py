"""Distances against odometry: what stands comes nearer by as much as the vehicle moves towards it.

Each scan or depth image is reduced to the nearest distance in each direction around the vehicle. That of some metres
ago is moved by a multiple of what odometry says, and compared with that of now: the multiple that fits best is 1 where
all is right, 0 where a frozen frame is sent again, and another one where the scale is wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.judge import DRIVEN_SCALE, EVEN, NEARING, Testimony
from anyseg_core.runtime.cross_examination.small_arrays import median
from anyseg_core.runtime.cross_examination.testimonies import sure
from anyseg_core.runtime.cross_examination.views import DepthView, LidarView, View
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, Twist
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S

Floats = NDArray[np.float32]
Ranging: TypeAlias = "DepthView | LidarView"

COLUMNS = 720
"""Directions around the vehicle."""
BANDS: Floats = np.array([-0.04, 0.05, 0.15, 0.3], np.float32)
"""Limits of the slopes above the horizon: the road has the same distances wherever the vehicle is."""
MOST_ROWS = 30
"""Of a depth image in all bands."""
NEAREST_M, FARTHEST_M = 1.5, 60.0
EVERY_NS = 8 * NS_PER_S // 10
LEAST_DRIVEN_M = 2.5
"""Between two views that are compared, ..."""
MOST_APART_NS = 3 * NS_PER_S
"""... and how old the first may be."""
MOST_BETWEEN_NS = NS_PER_S
"""Of two frames of a sensor, between which the vehicle's motion is taken for constant."""
LEAST_CHANGE = 0.04
"""Share of a distance by which it must change by odometry, to be evidence."""
LEAST_CELLS, ENOUGH_CELLS = 40, 600
"""Directions that are compared."""
_MOST_MISFIT = 0.2
"""Of a logarithm of distance: what is behind an edge says no more than that."""
MULTIPLES: Floats = np.array(
    [0, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0, 2.5], np.float32
)
_ONE = 8
CLEAR = 0.85
"""Share of the usual misfit, that the best one must be below."""
FROZEN_FIT, FROZEN_SPREAD = 0.55, 0.15
"""Misfit of what has not moved, over that of what has, of a frozen view: below it. Clean: at least 0.74, and frozen
with noise: at most 0.35."""
WRONG_SCALE, WRONG_SCALE_ALONE, SCALE_SPREAD = 0.17, 0.22, 0.05
"""Logarithm of the multiple of a wrong scale, where another sensor fits odometry and where none does. Clean, in the
mean of `MEMORY_S`: at most 0.10, of a stereo camera in rain 0.16."""
SAME_MULTIPLE = 0.12
"""Of the logarithms of those of two sensors which agree, so that it is odometry that is wrong."""
MEMORY_S = 2.5
KNOWN_NS = 5 * NS_PER_S
"""For so long a sensor's multiple counts."""
LOOKS_NEARING, LOOKS_SCALE = 6.5, 4.0
"""That one of these testimonies stands for."""


class Nearing:
    """Of all sensors that measure distances."""

    def __init__(self) -> None:
        self._seen: dict[Sensor, _Seen] = {}

    def testimonies(
        self, views: Mapping[Sensor, View], rig: Rig | None, twist: Twist | None, confirmed: Collection[Sensor] = ()
    ) -> Iterator[Testimony]:
        """Of those whose turn it is, where the vehicle has moved far enough.

        Args:
            views: of one moment.
            rig: nobody knows without it in which direction a sensor looks: none.
            twist: of the LiDAR in its own axes, by odometry; None where there is none.
            confirmed: those whose distances another sensor measures alike now. They are of no other scale, whatever
                moves in what they see.
        """
        if rig is None or twist is None:
            self._seen.clear()
            return
        twist = twist.seen_from(rig.camera_from_lidar)
        for sensor, view in views.items():
            if isinstance(view, (DepthView, LidarView)):
                if sensor not in self._seen:
                    self._seen[sensor] = _Seen(next_ns=view.frame.stamp_ns + len(self._seen) * EVERY_NS // 2)
                for said in self._testimonies_of(sensor, view, rig, twist):
                    is_refuted = said.witness == DRIVEN_SCALE and sensor in confirmed
                    yield said._replace(against=-1.0) if is_refuted else said

    def _testimonies_of(self, sensor: Sensor, view: Ranging, rig: Rig, twist: Twist) -> Iterator[Testimony]:
        seen = self._seen[sensor]
        seen.move(twist, view.frame.stamp_ns)
        fit = seen.look(panorama(view, rig), view.frame.stamp_ns) if seen.is_due else None
        if fit is None:
            return
        share = float(fit[0] / max(fit[_ONE], 1e-6))
        text = f"what {sensor} sees has not come nearer, though odometry says {twist.speed_mps:.1f} m/s"
        against = sure(FROZEN_FIT - share, FROZEN_SPREAD)
        yield Testimony(NEARING, Fault.NOT_MOVING, (sensor,), against, share, "share", text, looks=LOOKS_NEARING)
        if (multiple := seen.multiple) is not None:
            yield self._scale(sensor, multiple, seen.known_ns)

    def _scale(self, sensor: Sensor, multiple: float, now_ns: int) -> Testimony:
        """Against odometry alone nobody knows who is wrong; where another sensor says the same, it is odometry."""
        others = {s: seen.multiple for s, seen in self._seen.items() if s != sensor and seen.is_known(now_ns)}
        apart = {s: abs(np.log(other / multiple)) for s, other in others.items() if other is not None}
        right = [s for s, other in others.items() if other is not None and abs(np.log(other)) < WRONG_SCALE]
        limit = WRONG_SCALE if right else WRONG_SCALE_ALONE
        against = sure(abs(np.log(multiple)) - limit, SCALE_SPREAD)
        if any(each < SAME_MULTIPLE for each in apart.values()):
            against = -1.0
        text = f"what {sensor} sees comes nearer {multiple:.2f} times as fast as odometry says"
        confidence, partner = (1.0, right[0]) if right else (EVEN, None)
        return Testimony(
            DRIVEN_SCALE, Fault.WRONG_SCALE, (sensor,), against, multiple, "x", text,
            partner=partner, confidence=confidence, looks=LOOKS_SCALE,
        )  # fmt: skip


class Place(NamedTuple):
    """Where a sensor was, by odometry."""

    driven_m: float = 0.0
    turned: float = 0.0
    """In radians to the left."""
    heading: float = 0.0
    """Of its motion, in radians to the left of the camera's axis."""


@dataclass
class _Seen:
    """What a sensor saw on the last metres, and how it fitted odometry."""

    next_ns: int
    """When it is looked at again."""
    _stamp_ns: int | None = None
    _place: Place = field(default_factory=Place)
    _past: deque[tuple[int, Place, Floats]] = field(default_factory=lambda: deque(maxlen=16))
    _fit: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(MULTIPLES)))
    _weight: float = 0.0
    known_ns: int = 0
    """When it last fitted at all."""

    @property
    def is_due(self) -> bool:
        """Whether the newest frame is to be looked at."""
        return self._stamp_ns is not None and self._stamp_ns >= self.next_ns

    def move(self, twist: Twist, stamp_ns: int) -> None:
        """The vehicle's motion up to a frame. Twist of the camera, in its own axes."""
        if self._stamp_ns is None or not 0 <= stamp_ns - self._stamp_ns <= MOST_BETWEEN_NS:
            self._past.clear()
            self._weight, self.next_ns = 0.0, min(self.next_ns, stamp_ns + EVERY_NS)
        else:
            seconds = (stamp_ns - self._stamp_ns) / NS_PER_S
            right, _, forward = twist.linear
            driven_m = self._place.driven_m + float(np.hypot(right, forward)) * seconds
            turned = self._place.turned - float(twist.angular[1]) * seconds
            self._place = Place(driven_m, turned, float(np.arctan2(-right, forward)))
        self._stamp_ns = stamp_ns

    def look(self, now: Floats | None, stamp_ns: int) -> Floats | None:
        """Misfit of each of `MULTIPLES` with what was seen some metres ago; None where that says nothing."""
        self.next_ns = stamp_ns + EVERY_NS
        if now is None:
            return None
        old = [past for past in self._past if stamp_ns - past[0] <= MOST_APART_NS]
        far = [past for past in old if self._place.driven_m - past[1].driven_m >= LEAST_DRIVEN_M]
        self._past.append((stamp_ns, self._place, now))
        found = misfits(far[-1][2], now, far[-1][1], self._place) if far else None
        if found is None:
            return None
        fit, cells = found
        if fit.min() > CLEAR * median(fit):
            return None
        keep = float(np.exp(-max(stamp_ns - self.known_ns, 0) / (MEMORY_S * NS_PER_S)))
        self._fit, self._weight, self.known_ns = self._fit * keep + fit * cells, self._weight * keep + cells, stamp_ns
        return fit

    def is_known(self, now_ns: int) -> bool:
        """Whether `multiple` is still worth something."""
        return abs(now_ns - self.known_ns) <= KNOWN_NS

    @property
    def multiple(self) -> float | None:
        """Of odometry's motion that fits best over the last seconds; None at the ends of what is tried."""
        best = int(self._fit.argmin())
        if self._weight == 0.0 or not 0 < best < len(MULTIPLES) - 1:
            return None
        places, misfit = MULTIPLES[best - 1 : best + 2], self._fit[best - 1 : best + 2]
        curve, slope, _ = np.polyfit(places, misfit, 2)
        return float(np.clip(-slope / max(2 * curve, 1e-9), places[0], places[2]))


def misfits(old: Floats, new: Floats, then: Place, now: Place) -> tuple[Floats, int] | None:
    """How badly what was seen then fits what is seen now, after it came nearer by each of `MULTIPLES` of what odometry
    says: mean difference of the logarithms of distance, and the directions that are compared. None: too few.

    Args:
        old, new: panoramas, [len(BANDS) - 1, COLUMNS].
        then, now: where each was seen.
    """
    band, column = np.nonzero(np.isfinite(old))
    log_distance, azimuth = old[band, column], _azimuths()[column]
    driven, turned = now.driven_m - then.driven_m, now.turned - then.turned
    heading = now.heading + 0.5 * turned  # on an arc: that of the chord, in the axes of then
    changes = np.abs(driven * np.cos(azimuth - heading)) > LEAST_CHANGE * np.exp(log_distance)
    compared = np.flatnonzero(changes)
    if len(compared) < LEAST_CELLS:
        return None
    compared = compared[:: 1 + len(compared) // ENOUGH_CELLS]
    band, azimuth, distance = band[compared], azimuth[compared], np.exp(log_distance[compared])
    ahead = (distance * np.cos(azimuth))[None] - np.float32(driven * np.cos(heading)) * MULTIPLES[:, None]  # [M, N]
    left = (distance * np.sin(azimuth))[None] - np.float32(driven * np.sin(heading)) * MULTIPLES[:, None]
    seen = new[band[None], _columns(np.arctan2(left, ahead) - np.float32(turned))]
    known = np.isfinite(seen)
    with np.errstate(invalid="ignore"):
        misfit = np.minimum(np.abs(seen - 0.5 * np.log(ahead * ahead + left * left)), np.float32(_MOST_MISFIT))
    counts = known.sum(axis=1)
    if counts.min() < LEAST_CELLS // 2:
        return None
    return (np.where(known, misfit, np.float32(0.0)).sum(axis=1) / counts).astype(np.float32), int(counts[_ONE])


def panorama(view: Ranging, rig: Rig) -> Floats | None:
    """Logarithm of the nearest distance over the ground in each band and direction, [len(BANDS) - 1, COLUMNS], not
    finite where nothing is; None where no pixel of the camera looks there."""
    if isinstance(view, LidarView):
        return _of_scan(view.camera_xyz)
    return _of_depth(view.frame.data, rig.camera)


def _of_scan(xyz: Floats) -> Floats:
    """Of points [3, N] in the camera's axes."""
    x, y, z = xyz
    with np.errstate(invalid="ignore", divide="ignore"):
        flat = np.sqrt(x * x + z * z)
        slope = -y / flat
        inside = (flat > NEAREST_M) & (flat < FARTHEST_M) & (slope >= BANDS[0]) & (slope < BANDS[-1])
    x, z, flat, slope = (values[inside] for values in (x, z, flat, slope))
    cell = (np.searchsorted(BANDS, slope, side="right") - 1) * COLUMNS + _columns(np.arctan2(-x, z))
    nearest = np.full((len(BANDS) - 1) * COLUMNS, np.inf, np.float32)
    np.minimum.at(nearest, cell, np.log(flat))
    return nearest.reshape(-1, COLUMNS)


class _Pixels(NamedTuple):
    """Pixels of a depth image in the order of the cells of the panorama that they look into."""

    place: NDArray[np.intp]
    """In the flattened picture."""
    stretch: Floats
    """Distance over the ground for a depth of 1."""
    first: NDArray[np.intp]
    """Where in `place` each cell begins, ..."""
    cell: NDArray[np.intp]
    """... and which it is."""


def _of_depth(depth_m: NDArray, camera: PinholeCamera) -> Floats | None:
    pixels = _pixels(camera, depth_m.shape[0], depth_m.shape[1])
    if not len(pixels.place):
        return None
    with np.errstate(invalid="ignore"):
        flat = depth_m.reshape(-1)[pixels.place].astype(np.float32) * pixels.stretch
        flat = np.where((flat > NEAREST_M) & (flat < FARTHEST_M), flat, np.float32(np.inf))
    nearest = np.full((len(BANDS) - 1) * COLUMNS, np.inf, np.float32)
    nearest[pixels.cell] = np.log(np.minimum.reduceat(flat, pixels.first))
    return nearest.reshape(-1, COLUMNS)


@lru_cache(maxsize=8)
def _pixels(camera: PinholeCamera, height: int, width: int) -> _Pixels:
    """Of a depth image of that size, which shows what the camera does: at most two of every column of the panorama."""
    camera = camera.undistorted.resized(height, width)
    across = max(1, int(camera.fx * np.deg2rad(360 / COLUMNS) / 2))
    down = max(1, int(camera.fy * float(BANDS[-1] - BANDS[0]) / MOST_ROWS))
    row, col = (places.ravel() for places in np.mgrid[0:height:down, 0:width:across])
    right, down = (col - camera.cx) / camera.fx, (row - camera.cy) / camera.fy
    stretch = np.sqrt(1 + right * right)
    slope = -down / stretch
    inside = np.flatnonzero((slope >= BANDS[0]) & (slope < BANDS[-1]))
    cell = (np.searchsorted(BANDS, slope[inside], side="right") - 1) * COLUMNS + _columns(np.arctan2(-right, 1)[inside])
    order = np.argsort(cell, kind="stable")
    cells, first = np.unique(cell[order], return_index=True)
    chosen = inside[order]
    return _Pixels((row * width + col)[chosen], stretch[chosen].astype(np.float32), first, cells)


@lru_cache(maxsize=1)
def _azimuths() -> Floats:
    """Of the middle of each column, in radians to the left of the camera's axis."""
    return ((np.arange(COLUMNS) + 0.5) * (2 * np.pi / COLUMNS) - np.pi).astype(np.float32)


def _columns(azimuth: NDArray) -> NDArray[np.intp]:
    return cast("NDArray[np.intp]", ((azimuth + np.pi) * (COLUMNS / (2 * np.pi))).astype(np.intp) % COLUMNS)
