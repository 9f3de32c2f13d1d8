"""The vehicle's own motion, as odometry tells it, taken out of a LiDAR scan: between its points, and between scan and
picture."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import Twist, compensate_motion
from anyseg_core.runtime.sensors import SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S

MAX_APART_NS = NS_PER_S // 5
"""Between an odometry message and the motion that it is taken for: an older one tells nothing of a car that brakes."""
MAX_SWEEP_S = 1.0
"""From a scan's stamp to a point of it. Times that are further away are of another clock than the stamp."""
_KEPT = 400
_RESTART_NS = NS_PER_S
_ABSOLUTE_S, _ABSOLUTE_NS = 1e6, 1e15
"""Greater times do not count from the scan's stamp, but from an epoch: in seconds, in nanoseconds."""
_STILL = 1e-4
"""Metres, and radians: less motion than this is not worth moving points for."""


@dataclass(frozen=True)
class LidarMotion:
    """How the LiDAR moved while the frames of a mask were taken."""

    to_ns: int
    """Stamp of the anchor: points are brought to where they were seen then."""
    twist: Twist
    """Of the LiDAR, in its own axes."""

    def __str__(self) -> str:
        rate = float(np.linalg.norm(self.twist.angular))
        return f"{self.twist.speed_mps:.2f} m/s, {rate:.3f} rad/s"

    def compensate(self, frame: SensorFrame) -> SensorFrame:
        """The scan as the LiDAR would have seen it at once, at `to_ns`; the same frame where that is no other."""
        late_s = (frame.stamp_ns - self.to_ns) / NS_PER_S
        within_s = point_seconds(frame.point_times, frame.stamp_ns)
        if within_s is None or len(within_s) != len(frame.data):  # a fault that was injected takes points away
            within_s = np.zeros(1, np.float32)
        seconds = within_s + np.float32(late_s)
        longest = float(np.abs(seconds).max(initial=0.0))
        if longest * max(self.twist.speed_mps, np.linalg.norm(self.twist.angular)) < _STILL:
            return frame
        points: NDArray[np.float32] = np.asarray(frame.data, np.float32)
        return replace(frame, data=compensate_motion(points, seconds, self.twist), stamp_ns=self.to_ns)


class MotionHistory:
    """The newest twists of the LiDAR."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, Twist]] = deque(maxlen=_KEPT)

    def __bool__(self) -> bool:
        return bool(self._recent)

    def add(self, stamp_ns: int, twist: Twist) -> None:
        """The next message of odometry; after a clock that jumped back those before it are forgotten."""
        if self._recent and stamp_ns < self._recent[-1][0] - _RESTART_NS:
            self._recent.clear()
        self._recent.append((stamp_ns, twist))

    def between(self, scan_ns: int, anchor_ns: int) -> LidarMotion | None:
        """The motion that brings a scan to the anchor's moment; None where odometry tells nothing of that time."""
        middle_ns = (scan_ns + anchor_ns) // 2
        stamp_ns, twist = min(self._recent, key=lambda entry: abs(entry[0] - middle_ns), default=(0, None))
        if twist is None or abs(stamp_ns - middle_ns) > MAX_APART_NS:
            return None
        return LidarMotion(anchor_ns, twist)


def point_seconds(times: NDArray[Any] | None, stamp_ns: int) -> NDArray[np.float32] | None:
    """A cloud's time field [N] -> seconds after the cloud's stamp [N]; None where there is none or it makes no sense.

    Integers are nanoseconds (Ouster's `t`, Livox' `offset_time`), floats seconds (Velodyne's `time`, Hesai's and
    RoboSense's `timestamp`), or nanoseconds where seconds would be in the far future (Livox' `timestamp`); all count
    from the stamp, or where they are large from the epoch. A point without a time is taken for one of the stamp.
    """
    if times is None or len(times) == 0:
        return None
    if times.dtype.kind in "iu":
        values = times.astype(np.int64)
        greatest, unit = float(values.max()), 1e-9
        epoch = stamp_ns if greatest > _ABSOLUTE_NS else 0
    else:
        values = np.nan_to_num(times.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        greatest = float(values.max())
        unit = 1e-9 if greatest > _ABSOLUTE_NS else 1.0
        epoch = stamp_ns * (1e-9 / unit) if greatest > _ABSOLUTE_S else 0
    seconds = np.where(values == 0, 0.0, (values - epoch) * unit)
    return seconds.astype(np.float32) if float(np.abs(seconds).max()) <= MAX_SWEEP_S else None
