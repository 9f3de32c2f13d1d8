"""Sensors that all say the vehicle stands, though odometry says it moves: then odometry is wrong, and none of them."""

from __future__ import annotations

from collections.abc import Iterable

from anyseg_core.runtime.cross_examination.judge import Testimony
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S

KNOWN_NS = 3 * NS_PER_S // 2
"""For so long what a sensor has seen of movement counts."""
ENOUGH = 2
"""Sensors that stand still alike: one alone may be frozen."""


class OdometryDoubt:
    """What each sensor last showed of movement."""

    def __init__(self) -> None:
        self._moved_ns: dict[Sensor, int] = {}
        self._stood_ns: dict[Sensor, int] = {}

    def spared(self, testimonies: Iterable[Testimony], now_ns: int) -> list[Testimony]:
        """The testimonies of one moment, without those that a sensor does not move where it is odometry that lies."""
        heard = list(testimonies)
        for said in heard:
            if said.fault is Fault.NOT_MOVING:
                (self._stood_ns if said.against > 0 else self._moved_ns)[said.sensors[0]] = now_ns
        stood, moved = (self._lately(times, now_ns) for times in (self._stood_ns, self._moved_ns))
        if moved or len(stood) < ENOUGH:
            return heard
        return [said for said in heard if said.fault is not Fault.NOT_MOVING or said.against <= 0]

    @staticmethod
    def _lately(times: dict[Sensor, int], now_ns: int) -> set[Sensor]:
        return {sensor for sensor, at_ns in times.items() if 0 <= now_ns - at_ns <= KNOWN_NS}
