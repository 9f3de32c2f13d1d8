"""nav_msgs/Odometry -> how a vehicle's base moves. Messages of rclpy or of rosbags; needs neither."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import Twist
from anyseg_core.runtime.geometry.rigid_transform import rigid_transform
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.messages.conversions import ConversionError, stamp_ns

MAX_STEP_S = 0.5
"""Between two poses that tell a velocity."""
MAX_POSITION_M = 1e8
"""From the origin of the odometry: more is larger than the Earth (UTM coordinates reach 1e7)."""
MAX_SPEED = 1e3
"""In m/s and in rad/s: more is no vehicle, and would throw the points out of the picture."""
QUATERNION_NORMS = (0.1, 10.0)
"""Publishers that do not normalise stay within these."""


class Odometer:
    """Reads one topic. Where a publisher leaves the twist at zero, as some do, the last two poses tell it."""

    def __init__(self) -> None:
        self._last: tuple[int, NDArray[np.float64]] | None = None

    @property
    def pose(self) -> NDArray[np.float64] | None:
        """The last message's: 4x4, from the axes of `child_frame_id` to the header's frame; None where it has none."""
        return None if self._last is None else self._last[1]

    def read(self, message: Any) -> tuple[int, Twist]:
        """The stamp in nanoseconds, and the twist in the axes of `child_frame_id`. Raises ConversionError."""
        velocity = message.twist.twist
        try:
            twist = _plausible(Twist(_vector(velocity.linear), _vector(velocity.angular)))
        except ValueError as error:
            raise ConversionError(Fault.DECODE_ERROR, f"odometry: {error}") from None
        stamp, pose = stamp_ns(message.header), _pose(message.pose.pose)
        before, self._last = self._last, None if pose is None else (stamp, pose)
        if twist.linear.any() or twist.angular.any() or before is None or pose is None:
            return stamp, twist
        step_s = (stamp - before[0]) / NS_PER_S
        if not 0 < step_s <= MAX_STEP_S:
            return stamp, twist
        try:
            return stamp, _plausible(Twist.between(before[1], pose, step_s))
        except (ValueError, np.linalg.LinAlgError) as error:
            raise ConversionError(Fault.DECODE_ERROR, f"odometry, by its last two poses: {error}") from None


def _plausible(twist: Twist) -> Twist:
    """The same twist. Raises ValueError for one that no vehicle has."""
    speed, rate = (float(np.abs(part).max()) for part in (twist.linear, twist.angular))
    if max(speed, rate) > MAX_SPEED:
        raise ValueError(f"{speed:g} m/s and {rate:g} rad/s are no vehicle's")
    return twist


def _vector(xyz: Any) -> NDArray[np.float64]:
    return np.array([xyz.x, xyz.y, xyz.z], np.float64)


def _pose(pose: Any) -> NDArray[np.float64] | None:
    """world_from_base as 4x4; None where there is none (zeros, NaN, or numbers that are no place on Earth)."""
    position, q = _vector(pose.position), pose.orientation
    rotation = np.array([q.x, q.y, q.z, q.w], np.float64)
    if not np.isfinite([*position, *rotation]).all() or np.abs([*position, *rotation]).max() > MAX_POSITION_M:
        return None
    if not QUATERNION_NORMS[0] <= np.linalg.norm(rotation) <= QUATERNION_NORMS[1]:
        return None
    return rigid_transform(tuple(position), tuple(rotation))
