"""Headers, stamps and quality of service of what the nodes publish."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header

from anyseg_core.runtime.sensors import SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S

STATE_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Reliable, and a late subscriber gets the last one."""


def header_of(frame: SensorFrame) -> Header:
    """The header of the message that the frame came from."""
    return Header(stamp=time_message(frame.stamp_ns), frame_id=frame.frame_id)


def time_message(time_ns: int) -> Time:
    """Nanoseconds -> builtin_interfaces/Time."""
    return Time(sec=time_ns // NS_PER_S, nanosec=time_ns % NS_PER_S)
