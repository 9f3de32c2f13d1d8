"""What is done about sensors in dispute."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from anyseg_core.runtime.health.state import Dispute
from anyseg_core.runtime.ranges import Range, Ranges, check_ranges
from anyseg_core.runtime.sensors import Sensor

TRUST_ORDER, KEEP_BOTH, KEEP_NEITHER = "trust_order", "keep_both", "keep_neither"
UNDECIDED = (TRUST_ORDER, KEEP_BOTH, KEEP_NEITHER)


@dataclass(frozen=True)
class CrossExaminationConfig:
    """How sensors are compared with each other, and what follows. Raises ValueError that names the field.

    When a suspicion is one is a matter of the checks of its faults: `fail_count` looks that are sure of it.
    """

    RANGES: ClassVar[Ranges] = {
        "rate_hz": Range(0.1, 1000.0),
        "network_rate_hz": Range(0.0, 100.0),
        "network_false_alarms_per_h": Range(1e-4, 1000.0),
    }
    enabled: bool = True
    """Whether sensors are compared with each other and with odometry at all."""
    rate_hz: float = 10.0
    """Looks a second, at most one for each mask. Events are compared with successive pictures: less than the camera's
    rate is less sure."""
    network_rate_hz: float = 1.0
    """Looks a second at what the network makes of each sensor alone, while the engine is idle; 0 = never."""
    network_false_alarms_per_h: float = 0.05
    """That are accepted of these looks, were they independent of each other: less finds less, and later."""
    leave_out: bool = False
    """Whether a sensor that is found to be wrong is left out of the masks while another one is usable; false: it is
    only said. Switch it on when a drive on your roads has raised no false alarm."""
    undecided: str = TRUST_ORDER
    """Where two contradict each other and nothing tells which is wrong, one of `UNDECIDED`: the one that comes first in
    trust_order is kept, both are, or neither is, even if no mask can be made then."""
    trust_order: tuple[Sensor, ...] = (Sensor.LIDAR, Sensor.DEPTH, Sensor.CAMERA, Sensor.EVENT)
    """Sensors from the most trusted on; one that is not named comes last."""

    def __post_init__(self) -> None:
        check_ranges(self, self.RANGES)
        if self.undecided not in UNDECIDED:
            raise ValueError(f"undecided must be one of {', '.join(UNDECIDED)}, not {self.undecided!r}")
        if not self.trust_order or len(set(self.trust_order)) != len(self.trust_order):
            raise ValueError("trust_order must name at least one sensor, and none twice")

    def trusts(self, sensor: Sensor, other: Sensor) -> bool:
        """Whether the sensor comes before the other; of two that are not named, by their names."""
        order = self.trust_order
        return _rank(sensor, order) < _rank(other, order)


DEFAULT = CrossExaminationConfig()


def _rank(sensor: Sensor, order: tuple[Sensor, ...]) -> tuple[int, str]:
    return (order.index(sensor) if sensor in order else len(order)), sensor


def left_out(
    disputes: Mapping[Sensor, Dispute], alive: Collection[Sensor], config: CrossExaminationConfig
) -> dict[Sensor, str]:
    """Which of the living a mask is made without, and why.

    The last one is kept, however wrong: a mask that says so is better than none. Not so with `keep_neither`.
    """
    if not config.leave_out:
        return {}
    out = {s: f"in dispute: {d.fault}" for s, d in disputes.items() if s in alive and _is_out(s, d, alive, config)}
    spared = set(alive) - set(out)
    refused = config.undecided == KEEP_NEITHER and any(not disputes[s].is_blamed for s in out)
    return out if spared or refused else {}


def _is_out(sensor: Sensor, dispute: Dispute, alive: Collection[Sensor], config: CrossExaminationConfig) -> bool:
    if dispute.is_blamed or dispute.partner is None or dispute.partner not in alive:
        return dispute.is_blamed
    if config.undecided == TRUST_ORDER:
        return config.trusts(dispute.partner, sensor)
    return config.undecided == KEEP_NEITHER
