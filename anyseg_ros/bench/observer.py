"""What a node delivered, as somebody who only listens hears it, and whether it was true. The judgements need no ROS."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from anyseg_core.runtime.sensors import DEFAULT_SENSORS
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from rclpy.node import Node

PATIENCE_NS = round(2.5 * NS_PER_S)
"""A level speaks of the last second, or of three periods of a slow sensor, and is published once a second."""
RECENT_NS = NS_PER_S // 2
"""A mask that is younger when a level is published is known to it, but for the moment in which both are made."""
SAME_MOMENT_NS = 50 * NS_PER_MS
NO_MASK, SEGMENTING = "no label image", "segmenting"
EVERY = "segmenting with every modality"
OK_LEVEL = 0


class HeardMask(NamedTuple):
    """Times on the system clock, in nanoseconds."""

    stamp_ns: int
    written_ns: int
    """When the node gave it to the middleware, by the middleware's own account."""
    received_ns: int


class HeardLevel(NamedTuple):
    """What `/diagnostics` said of inference."""

    stamp_ns: int
    """Of which moment it speaks."""
    written_ns: int
    """When it went to the middleware: later, on a busy computer."""
    level: int
    message: str


@dataclass
class Heard:
    """Everything that one node and its drivers published."""

    masks: list[HeardMask] = field(default_factory=list)
    used: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """By stamp: the sensors that the mask claims to be made from."""
    sensor_stamps: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Of every message of every sensor, in the order of arrival."""
    levels: list[HeardLevel] = field(default_factory=list)
    transitions_ns: list[int] = field(default_factory=list)
    """When the node's lifecycle state changed."""

    def masks_between(self, begin_ns: int, end_ns: int) -> int:
        """Masks that were written then."""
        return sum(begin_ns <= mask.written_ns < end_ns for mask in self.masks)


def old_masks(heard: Heard, limit_ms: float) -> list[str]:
    """Masks that were older than `limit_ms` when they were written, in words."""
    ages_ms = ((mask, (mask.written_ns - mask.stamp_ns) / NS_PER_MS) for mask in heard.masks)
    return [f"a mask of {mask.stamp_ns} was {age_ms:.0f} ms old" for mask, age_ms in ages_ms if age_ms > limit_ms]


def untrue_claims(heard: Heard, max_age_ms: float) -> list[str]:
    """Masks that claim a sensor of which nothing was published within `max_age_ms` before or after their stamp."""
    stamps = {sensor: sorted(found) for sensor, found in heard.sensor_stamps.items()}
    reach_ns = round(max_age_ms * NS_PER_MS)
    return [
        f"the mask of {stamp_ns} claims {sensor}, which published nothing then"
        for stamp_ns, used in heard.used.items()
        for sensor in used
        if not _any_between(stamps.get(sensor, []), stamp_ns - reach_ns, stamp_ns + reach_ns)
    ]


def untrue_levels(heard: Heard) -> list[str]:
    """Levels that the masks of their time contradict.

    A mask from before the node was deactivated or activated says nothing of what it does now.
    """
    written = sorted(mask.written_ns for mask in heard.masks)
    changed = sorted(heard.transitions_ns)
    sensors_at = sorted((mask.written_ns, heard.used.get(mask.stamp_ns, ())) for mask in heard.masks)
    found = []
    for said in heard.levels:
        begin_ns, end_ns = said.stamp_ns - PATIENCE_NS, said.stamp_ns + SAME_MOMENT_NS
        recent_ns = max([said.stamp_ns - RECENT_NS, *changed[: bisect_right(changed, end_ns)][-1:]])
        if said.message.startswith(SEGMENTING) and not _any_between(written, begin_ns, end_ns):
            found.append(f"{said.message!r}, and there was no mask for {PATIENCE_NS / NS_PER_S:g} s")
        if said.message.startswith(NO_MASK) and _any_between(written, recent_ns, said.stamp_ns - SAME_MOMENT_NS):
            found.append(f"{said.message!r}, and there was a mask less than {RECENT_NS / NS_PER_S:g} s ago")
        if said.level == OK_LEVEL and said.message.startswith(EVERY):
            seen = {sensor for at, used in sensors_at if begin_ns <= at <= end_ns for sensor in used}
            missing = sorted({str(sensor) for sensor in DEFAULT_SENSORS} - seen)
            found += [f"{said.message!r}, and no mask had {sensor}" for sensor in missing]
    return found


def silent_s(heard: Heard) -> float:
    """The longest time between two of the levels that are due once a second."""
    return max((b.written_ns - a.written_ns for a, b in pairwise(heard.levels)), default=0) / NS_PER_S


def _any_between(sorted_ns: Sequence[int], begin_ns: int, end_ns: int) -> bool:
    return bisect_left(sorted_ns, begin_ns) < bisect_right(sorted_ns, end_ns)


class Observer:
    """Listens to a node and its sensors on a thread of its own, until `close`."""

    def __init__(self, node_name: str, sensor_topics: Mapping[str, tuple[type, str]]) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from lifecycle_msgs.msg import TransitionEvent
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import Image

        self.heard = Heard()
        self.node: Node = rclpy.create_node("observer")
        latched = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(Image, f"{node_name}/segmentation/mask", self._on_mask, 50)
        self.node.create_subscription(DiagnosticArray, f"{node_name}/modality_status", self._on_status, latched)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self.node.create_subscription(TransitionEvent, f"{node_name}/transition_event", self._on_transition, 50)
        for sensor, (kind, topic) in sensor_topics.items():
            self.node.create_subscription(kind, topic, self._on_sensor(sensor), 20)
        self._executor = SingleThreadedExecutor()  # rclpy 9's events executor gives no message its times
        self._executor.add_node(self.node)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="observer", daemon=True)
        self._thread.start()

    def forget(self) -> Heard:
        """What was heard until now; from here on it is heard anew."""
        before, self.heard = self.heard, Heard()
        return before

    def close(self) -> None:
        """End the thread and the node."""
        self._ended.set()
        self._thread.join()
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._executor.shutdown()

    def _spin(self) -> None:
        from rclpy.executors import InvalidHandle  # pyright: ignore[reportPrivateImportUsage]

        while not self._ended.is_set():
            with suppress(InvalidHandle):
                self._executor.spin_once(timeout_sec=0.1)

    def _on_mask(self, message: Any, info: Any) -> None:
        now_ns = self.node.get_clock().now().nanoseconds
        self.heard.masks.append(HeardMask(_stamp_ns(message), _written_ns(info), now_ns))

    def _on_status(self, message: Any) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if "anchor" in values:  # of a mask
                self.heard.used[_stamp_ns(message)] = tuple(values["used"].split(","))

    def _on_diagnostics(self, message: Any, info: Any) -> None:
        for status in message.status:
            if status.name.endswith(" inference"):
                self.heard.levels.append(
                    HeardLevel(_stamp_ns(message), _written_ns(info), ord(status.level), status.message)
                )

    def _on_transition(self, _message: Any, info: Any) -> None:
        self.heard.transitions_ns.append(_written_ns(info))

    def _on_sensor(self, sensor: str) -> Any:
        return lambda message: self.heard.sensor_stamps[sensor].append(_stamp_ns(message))


def _stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * NS_PER_S + message.header.stamp.nanosec


def _written_ns(info: Any) -> int:
    """rclpy gave a dictionary before it gave an object."""
    return int(info["source_timestamp"] if isinstance(info, dict) else info.source_timestamp)
