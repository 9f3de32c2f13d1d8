"""What a sensor's health is told in: its states, what is expected of it, and its status at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from anyseg_core.runtime.health.quality import Quality
from anyseg_core.runtime.health.thresholds import DEFAULT_CHECKS, CheckConfig, Fault, check_threshold
from anyseg_core.runtime.named import Named
from anyseg_core.runtime.ranges import Range, Ranges, check_ranges
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S

SILENCE_FLOOR_MS = 100.0
"""A fast sensor is not silent before this: below, the scheduler's hiccups would count as faults."""


ASSUMED_RATE_HZ = 10.0
"""Of a sensor whose rate is neither set nor learnt yet; that of most LiDARs."""


class State(Named):
    """The state of a sensor; ACTIVE is the one whose frames are used."""

    DISABLED = "disabled"
    WAITING = "waiting"
    ACTIVE = "active"
    SUSPECT = "suspect"
    FAILED = "failed"
    RECOVERING = "recovering"
    DISPUTED = "disputed"
    """Well by its own checks, and the other sensors contradict it; told by the pipeline, not by the monitor."""


ALIVE: frozenset[State] = frozenset({State.ACTIVE, State.SUSPECT, State.DISPUTED})
"""States of sensors whose frames may be used."""
ALLOWED_TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.DISABLED: frozenset({State.WAITING}),
        State.WAITING: frozenset({State.ACTIVE, State.SUSPECT, State.DISABLED}),
        State.ACTIVE: frozenset({State.SUSPECT, State.WAITING, State.DISABLED}),
        State.SUSPECT: frozenset({State.ACTIVE, State.FAILED, State.WAITING, State.DISABLED}),
        State.FAILED: frozenset({State.RECOVERING, State.WAITING, State.DISABLED}),
        State.RECOVERING: frozenset({State.ACTIVE, State.FAILED, State.WAITING, State.DISABLED}),
    }
)
"""Every step the monitor can take (one call may take several); to WAITING by a reset or cleared faults."""


@dataclass(frozen=True)
class HealthConfig:
    """What is expected of one sensor.

    `checks` overrides `DEFAULT_CHECKS`, fault by fault. Raises ValueError that names the field.
    """

    RANGES: ClassVar[Ranges] = {
        "expected_rate_hz": Range(0.0, 1000.0),
        "max_age_ms": Range(1.0, 60_000.0),
        "startup_grace_s": Range(0.1, 3600.0),
        "min_quality": Range(0.0, 1.0),
    }
    expected_rate_hz: float = 0.0
    """Frames a second; 0 = learnt from the first frames."""
    max_age_ms: float = 300.0
    """No older frame is used. A LiDAR that stamps the start of its sweep lives up to 290 ms at 10 Hz."""
    startup_grace_s: float = 5.0
    """Time for a driver to start before `never_received`."""
    checks: Mapping[Fault, CheckConfig] = field(default_factory=dict)
    min_quality: float = 0.0
    """Quality in [0, 1] below which the sensor is left out of the mask while enough others are there; 0 = never."""

    def __post_init__(self) -> None:
        check_ranges(self, self.RANGES)
        for fault, check in self.checks.items():
            if check.enabled:
                check_threshold(fault, check)
        period_ms = 1000.0 / self.expected_rate_hz if self.expected_rate_hz else 0.0
        if self.max_age_ms < period_ms:
            raise ValueError(
                f"max_age_ms {self.max_age_ms:g} is less than the period of expected_rate_hz "
                f"{self.expected_rate_hz:g} ({period_ms:.0f} ms): every frame would expire before the next one"
            )
        object.__setattr__(self, "checks", MappingProxyType({**DEFAULT_CHECKS, **self.checks}))

    def check(self, fault: Fault) -> CheckConfig:
        """The configuration of a fault's check."""
        return self.checks[fault]

    @property
    def period_ns(self) -> int:
        """Between two frames; what is assumed until it is learnt, where no rate is set."""
        return int(NS_PER_S / (self.expected_rate_hz or ASSUMED_RATE_HZ))

    def born_ns(self, received_ns: int, stamp_ns: int) -> int:
        """When a frame was acquired; when it was received, where the sensor's stamps are not trusted or run ahead."""
        return min(received_ns, stamp_ns) if self.check(Fault.STALE_STAMP).enabled else received_ns

    def is_fresh(self, born_ns: int, now_ns: int) -> bool:
        """Whether a frame that was born then may still be used."""
        return now_ns - born_ns <= self.max_age_ms * NS_PER_MS

    def silent_after_ns(self, period_ns: int) -> int:
        """Time without a message after which a sensor of that period counts as silent."""
        periods = self.check(Fault.SILENT).threshold
        return max(int(periods * period_ns), int(SILENCE_FLOOR_MS * NS_PER_MS))


@dataclass(frozen=True)
class Dispute:
    """What other sensors, or the vehicle's motion, say against a sensor that is well by its own checks."""

    fault: Fault
    reason: str
    """In words, with figures."""
    value: float
    unit: str
    partner: Sensor | None
    """The sensor that it disagrees with; None where only the sensor itself can be wrong."""
    confidence: float
    """That it is this one, 0.5 (of two, nobody knows which) to 1."""
    is_blamed: bool
    """False: of two that disagree, nothing tells which is wrong."""


@dataclass(frozen=True)
class ModalityStatus:
    """The health of one modality at one moment."""

    modality: Sensor
    state: State
    fault: Fault | None
    """The present fault; None while there is none."""
    reason: str
    """In words, with figures."""
    age_ms: float | None
    """Age of the newest well-formed frame, None before the first."""
    rate_hz: float | None
    """Measured rate of well-formed frames, None before the second."""
    received: int
    """Well-formed frames."""
    rejected: int
    """Malformed messages and transport faults."""
    fault_counts: Mapping[Fault, int]
    """How often each fault was seen since the start or the last `clear_faults`."""
    first_ns: int | None
    """When the present fault was first seen ..."""
    last_ns: int | None
    """... and last."""
    since_ns: int
    """When the present state began."""
    quality: Quality | None = None
    """Over about the last second of good frames, None before the first."""
    expected_rate_hz: float = 0.0
    left_out: str = ""
    """Why a sensor that is alive is not in the mask; the pipeline knows."""
    remark: str = ""
    """What a person should mend though the sensor is used."""
    details: Mapping[str, str] = field(default_factory=dict)
    """What else is known of the sensor, by name: where the extrinsics come from, the range of intensity."""
    recover_time_s: float | None = None
    """How long a failed sensor has to be good before it is used, doubled by each relapse; None while it is well."""

    @property
    def why(self) -> str:
        """Why it is not in the mask, else what its fault is, in words; empty where all is well."""
        return self.left_out or self.reason
