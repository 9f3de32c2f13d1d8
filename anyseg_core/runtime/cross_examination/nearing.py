"""Distances against odometry: what stands comes nearer by as much as the vehicle moves towards it.

The panorama of some metres ago is moved by a multiple of what odometry says, and compared with that of now: the
multiple that fits best is 1 where all is right, 0 where a frozen frame is sent again, and another one where the scale
is wrong. Turned, it tells as well whether the sensor was turned on its mount.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.heading import turned_right
from anyseg_core.runtime.cross_examination.judge import COURSE, DRIVEN_SCALE, EVEN, NEARING, Testimony
from anyseg_core.runtime.cross_examination.own_turns import EVERY_NS, OwnTurns
from anyseg_core.runtime.cross_examination.panorama import Place, Ranging, azimuths, mean_misfits, panorama
from anyseg_core.runtime.cross_examination.small_arrays import median
from anyseg_core.runtime.cross_examination.testimonies import sure
from anyseg_core.runtime.cross_examination.views import DepthView, Floats, LidarView, View
from anyseg_core.runtime.geometry.projection import Rig, Twist
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S

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
MULTIPLES: Floats = np.array(
    [0, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0, 2.5], np.float32
)
_ONE = 8
STRAIGHT: Floats = np.zeros(1, np.float32)
BEARINGS: Floats = np.deg2rad(np.arange(-150, 181, 30)[np.arange(-150, 181, 30) != 0]).astype(np.float32)
"""Other ones than odometry's, in radians to the left: that of a sensor which is turned as far to the right."""
NEARLY_ONE = 0.25
"""A multiple of odometry's motion with which no other bearing is looked for."""
OTHER_COURSE, OTHER_COURSE_SPREAD = 0.8, 0.1
"""Misfit of the best other bearing over that of odometry's, of a sensor that looks elsewhere."""
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
LOOKS_NEARING, LOOKS_SCALE, LOOKS_SCALE_ALONE = 6.5, 4.0, 2.5
"""That one of these testimonies stands for; of a scale less where no other sensor fits odometry."""


class Nearing:
    """Of all sensors that measure distances."""

    def __init__(self, turns: OwnTurns) -> None:
        """`turns`: is told of how each sensor was turned beyond what odometry says."""
        self._turns = turns
        self._seen: dict[Sensor, _Seen] = {}

    @property
    def fitting(self) -> set[Sensor]:
        """Those whose distances change as odometry says."""
        multiples = {s: seen.multiple for s, seen in self._seen.items() if seen.is_known(seen.newest_ns)}
        return {s for s, multiple in multiples.items() if multiple and abs(np.log(multiple)) < WRONG_SCALE}

    def testimonies(
        self,
        views: Mapping[Sensor, View],
        rig: Rig | None,
        twist: Twist | None,
        is_refuted: Callable[[Sensor, float], bool] = lambda _sensor, _multiple: False,
    ) -> Iterator[Testimony]:
        """Of those whose turn it is, where the vehicle has moved far enough.

        Args:
            views: of one moment.
            rig: nobody knows without it in which direction a sensor looks: none.
            twist: of the LiDAR in its own axes, by odometry; None where there is none.
            is_refuted: whether a sensor is not of another scale, though its distances change by such a multiple of
                what odometry says: traffic moves along.
        """
        if rig is None or twist is None:
            self._seen.clear()
            return
        twist = twist.seen_from(rig.picture_from_lidar)
        for sensor, view in views.items():
            if isinstance(view, (DepthView, LidarView)):
                if sensor not in self._seen:
                    self._seen[sensor] = _Seen(next_ns=view.frame.stamp_ns + len(self._seen) * EVERY_NS // 2)
                for said in self._testimonies_of(sensor, view, rig, twist):
                    is_no_scale = said.witness == DRIVEN_SCALE and is_refuted(sensor, said.value)
                    yield said._replace(against=-1.0) if is_no_scale else said

    def _testimonies_of(self, sensor: Sensor, view: Ranging, rig: Rig, twist: Twist) -> Iterator[Testimony]:
        seen = self._seen[sensor]
        now_ns = view.frame.stamp_ns
        seen.move(twist, now_ns)
        if not seen.is_due:
            return
        now = panorama(view, rig)
        if now is not None and (degrees := seen.turned(now, now_ns)) is not None:
            self._turns.turned_right(sensor, degrees)
        fit, course = seen.look(now, now_ns)
        if course is not None:
            yield self._course(sensor, *course, now_ns)
        if fit is None:
            return
        share = float(fit[0] / max(fit[_ONE], 1e-6))
        text = f"what {sensor} sees has not come nearer, though odometry says {twist.speed_mps:.1f} m/s"
        against = sure(FROZEN_FIT - share, FROZEN_SPREAD)
        yield Testimony(NEARING, Fault.NOT_MOVING, (sensor,), against, share, "share", text, looks=LOOKS_NEARING)
        if (multiple := seen.multiple) is not None:
            yield self._scale(sensor, multiple, seen.known_ns)

    def _course(self, sensor: Sensor, right_deg: float, share: float, now_ns: int) -> Testimony:
        """Against odometry alone nobody knows who is wrong, which says so of a vehicle that backs up, too."""
        others = [s for s in self.fitting if s != sensor and self._seen[s].is_known(now_ns)]
        side = "right" if right_deg > 0 else "left"
        text = f"what {sensor} sees passes as if it was turned by {abs(right_deg):.0f} degrees to the {side}"
        against = sure(OTHER_COURSE - share, OTHER_COURSE_SPREAD)
        confidence, partner = (1.0, others[0]) if others else (EVEN, None)
        return Testimony(
            COURSE, Fault.MISALIGNED, (sensor,), against, abs(right_deg), "degrees", text,
            partner=partner, confidence=confidence, looks=LOOKS_SCALE,
        )  # fmt: skip

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
        confidence, partner, looks = (1.0, right[0], LOOKS_SCALE) if right else (EVEN, None, LOOKS_SCALE_ALONE)
        return Testimony(
            DRIVEN_SCALE, Fault.WRONG_SCALE, (sensor,), against, multiple, "x", text,
            partner=partner, confidence=confidence, looks=looks,
        )  # fmt: skip


class _Look(NamedTuple):
    """How a view fits what was seen some metres ago."""

    fit: Floats | None = None
    """Misfit of each of `MULTIPLES`; None where that says nothing."""
    course: tuple[float, float] | None = None
    """The other bearing of the motion that fits best, as degrees that the sensor is turned to the right, and its misfit
    over that of odometry's; None where nothing tells."""


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
    def newest_ns(self) -> int:
        """Stamp of the newest frame."""
        return self._stamp_ns or 0

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

    def turned(self, now: Floats, stamp_ns: int) -> float | None:
        """Degrees to the right, beyond what odometry says, since the look before; None where nothing tells."""
        if not self._past or stamp_ns - self._past[-1][0] > MOST_APART_NS:
            return None
        _, place, before = self._past[-1]
        return turned_right(before, now, place, self._place)

    def look(self, now: Floats | None, stamp_ns: int) -> _Look:
        """A view that is due; what it says of the multiple counts from now on."""
        self.next_ns = stamp_ns + EVERY_NS
        if now is None:
            return _Look()
        old = [past for past in self._past if stamp_ns - past[0] <= MOST_APART_NS]
        far = [past for past in old if self._place.driven_m - past[1].driven_m >= LEAST_DRIVEN_M]
        self._past.append((stamp_ns, self._place, now))
        found = misfits(far[-1][2], now, far[-1][1], self._place) if far else None
        if found is None:
            return _Look()
        fit, cells = found
        course = self._course(fit, now, *far[-1][1:])
        if fit.min() > CLEAR * median(fit):
            return _Look(None, course)
        keep = float(np.exp(-max(stamp_ns - self.known_ns, 0) / (MEMORY_S * NS_PER_S)))
        self._fit, self._weight, self.known_ns = self._fit * keep + fit * cells, self._weight * keep + cells, stamp_ns
        return _Look(fit, course)

    def _course(self, fit: Floats, now: Floats, place: Place, before: Floats) -> tuple[float, float] | None:
        """As `_Look.course`, where the multiples of odometry's motion have these misfits."""
        if abs(float(MULTIPLES[int(fit.argmin())]) - 1.0) < NEARLY_ONE:
            return 0.0, 1.0
        found = misfits(before, now, place, self._place, np.ones(len(BEARINGS), np.float32), BEARINGS)
        if found is None:
            return None
        best = int(found[0].argmin())
        share = float(found[0][best] / max(float(fit[_ONE]), 1e-6))
        return float(np.rad2deg(BEARINGS[best])), share if found[0][best] < fit.min() else 1.0

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


def misfits(
    old: Floats, new: Floats, then: Place, now: Place, multiples: Floats = MULTIPLES, bearings: Floats = STRAIGHT
) -> tuple[Floats, int] | None:
    """How badly what was seen then fits what is seen now, after each of some motions: mean difference of the logarithms
    of distance, [motions], and the directions that are compared. None: too few.

    Args:
        old, new: panoramas, [len(BANDS) - 1, COLUMNS].
        then, now: where each was seen.
        multiples, bearings: each motion as a multiple of odometry's, and by how much to the left of it, in radians.
    """
    band, column = np.nonzero(np.isfinite(old))
    log_distance, azimuth = old[band, column], azimuths()[column]
    driven, turned, bearing = now.way_from(then)
    changes = np.abs(driven * np.cos(azimuth - bearing)) > LEAST_CHANGE * np.exp(log_distance)
    compared = np.flatnonzero(changes)
    if len(compared) < LEAST_CELLS:
        return None
    compared = compared[:: 1 + len(compared) // ENOUGH_CELLS]
    band, azimuth, distance = band[compared], azimuth[compared], np.exp(log_distance[compared])
    moved_ahead, moved_left = (np.float32(driven) * multiples * part(bearing + bearings) for part in (np.cos, np.sin))
    ahead = (distance * np.cos(azimuth))[None] - moved_ahead[:, None]  # [motions, N]
    left = (distance * np.sin(azimuth))[None] - moved_left[:, None]
    to, far = np.arctan2(left, ahead) - np.float32(turned), 0.5 * np.log(ahead * ahead + left * left)
    misfit, counts = mean_misfits(band, to, far, new)
    return (misfit, int(median(counts))) if counts.min() >= LEAST_CELLS // 2 else None
