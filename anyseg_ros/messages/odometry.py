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


class Odometer:
    """Reads one topic. Where a publisher leaves the twist at zero, as some do, the last two poses tell it."""

    def __init__(self) -> None:
        self._last: tuple[int, NDArray[np.float64]] | None = None

    def read(self, message: Any) -> tuple[int, Twist]:
        """The stamp in nanoseconds, and the twist in the axes of `child_frame_id`. Raises ConversionError."""
        told = message.twist.twist
        try:
            twist = Twist(_vector(told.linear), _vector(told.angular))
        except ValueError as error:
            raise ConversionError(Fault.DECODE_ERROR, f"odometry: {error}") from None
        stamp, pose = stamp_ns(message.header), _pose(message.pose.pose)
        before, self._last = self._last, None if pose is None else (stamp, pose)
        if twist.linear.any() or twist.angular.any() or before is None or pose is None:
            return stamp, twist
        step_s = (stamp - before[0]) / NS_PER_S
        return stamp, Twist.between(before[1], pose, step_s) if 0 < step_s <= MAX_STEP_S else twist


def _vector(xyz: Any) -> NDArray[np.float64]:
    return np.array([xyz.x, xyz.y, xyz.z], np.float64)


def _pose(pose: Any) -> NDArray[np.float64] | None:
    """world_from_base as 4x4; None where there is none (zeros, NaN)."""
    position, q = _vector(pose.position), pose.orientation
    rotation = np.array([q.x, q.y, q.z, q.w], np.float64)
    if not np.isfinite([*position, *rotation]).all() or np.linalg.norm(rotation) < 0.1:
        return None
    return rigid_transform(tuple(position), tuple(rotation))
