"""Time is kept in whole nanoseconds, as ROS stamps have it, and read by people in seconds and milliseconds."""

from __future__ import annotations

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
