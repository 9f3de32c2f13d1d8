"""Which check finds which fault of a frame, and in which order.

A check is a small function of (frame, history, threshold) that returns why the frame is bad, or None. To add one: write
the function in `timing_checks` or `content_checks`, enter it in `FRAME_CHECKS`, and give it its defaults in
`fault_catalogue.DEFAULT_CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from anyseg_core.runtime.health import content_checks as content
from anyseg_core.runtime.health import timing_checks as timing
from anyseg_core.runtime.health.history import History
from anyseg_core.runtime.health.thresholds import DEFAULT_CHECKS, CheckConfig, Fault
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, SensorFrame, SensorKind

__all__ = [
    "DEFAULT_CHECKS",
    "FRAME_CHECKS",
    "TIMING_FAULTS",
    "Check",
    "CheckConfig",
    "Failure",
    "Fault",
    "History",
    "applies_to",
    "failed_checks",
]

TIMING_FAULTS = frozenset(
    {
        Fault.NEVER_RECEIVED,
        Fault.INCOMPATIBLE_QOS,
        Fault.SILENT,
        Fault.LOW_RATE,
        Fault.STALE_STAMP,
    }
)
"""What says when a sensor speaks, not what it says: a frame that did come, and is young enough, may be believed."""

Check = Callable[[SensorFrame, History, float], "str | None"]

EVERY: tuple[SensorKind, ...] = ()
"""Of checks: every kind of sensor."""

FRAME_CHECKS: Mapping[Fault, tuple[tuple[SensorKind, ...], Check]] = MappingProxyType(
    {
        # A stamp that stands still or runs back grows stale as well: the cause comes first.
        Fault.STAMP_REGRESSION: (EVERY, timing.stamp_regression),
        Fault.DUPLICATE_STAMP: (EVERY, timing.duplicate_stamp),
        Fault.FUTURE_STAMP: (EVERY, timing.future_stamp),
        Fault.STALE_STAMP: (EVERY, timing.stale_stamp),
        # Content before `frozen`: two black pictures are alike, too. Of content, what explains most comes first.
        Fault.INVALID_DEPTH: ((DEPTH,), content.invalid_depth),
        Fault.DARK: ((CAMERA,), content.dark),
        Fault.SATURATED: ((CAMERA,), content.saturated),
        Fault.BLANK: ((CAMERA,), content.blank),
        Fault.FEW_POINTS: ((LIDAR,), content.few_points),
        Fault.NOISY: (EVERY, content.noisy),
        Fault.LIDAR_SECTOR_LOST: ((LIDAR,), content.lidar_sector_lost),
        Fault.EVENT_FLOOD: ((EVENT,), content.event_flood),
        Fault.FROZEN: (EVERY, content.frozen),
        # Last: such a frame is good in itself, only some before it are missing.
        Fault.EVENT_SEQUENCE_GAP: ((EVENT,), timing.sequence_gap),
        Fault.LOW_RATE: (EVERY, timing.low_rate),
    }
)
"""Checks on a frame and the kinds of sensor they apply to; the first that fails names the fault, one of
`TIMING_FAULTS` only where no other does."""


def applies_to(fault: Fault, kind: SensorKind) -> bool:
    """Whether a sensor of that kind can have that fault; silence, malformed messages and the transport's any can."""
    kinds = FRAME_CHECKS[fault][0] if fault in FRAME_CHECKS else EVERY
    return kinds is EVERY or kind.family in kinds


class Failure(NamedTuple):
    """A check that a frame fails, and why."""

    fault: Fault
    reason: str


def failed_checks(
    frame: SensorFrame, history: History, config_of: Callable[[Fault], CheckConfig]
) -> tuple[Failure | None, Failure | None]:
    """The first enabled check that says not to trust the frame, and the first that only says it is late or slow.

    None for either that no check says.
    """
    untimely: Failure | None = None
    for fault, (_, check) in FRAME_CHECKS.items():
        config = config_of(fault)
        if not config.enabled or not applies_to(fault, frame.kind):
            continue
        reason = check(frame, history, config.threshold)
        if reason is None:
            continue
        if fault not in TIMING_FAULTS:
            return Failure(fault, reason), untimely
        untimely = untimely or Failure(fault, reason)
    return None, untimely
