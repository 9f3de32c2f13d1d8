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
from anyseg_core.runtime.modality import MODALITIES, Modality, ModalityFrame

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

Check = Callable[[ModalityFrame, History, float], "str | None"]

_CAMERA, _DEPTH, _EVENT, _LIDAR = ((modality,) for modality in MODALITIES)

FRAME_CHECKS: Mapping[Fault, tuple[tuple[Modality, ...], Check]] = MappingProxyType(
    {
        # A stamp that stands still or runs back grows stale as well: the cause comes first.
        Fault.STAMP_REGRESSION: (MODALITIES, timing.stamp_regression),
        Fault.DUPLICATE_STAMP: (MODALITIES, timing.duplicate_stamp),
        Fault.FUTURE_STAMP: (MODALITIES, timing.future_stamp),
        Fault.STALE_STAMP: (MODALITIES, timing.stale_stamp),
        # Content before `frozen`: two black pictures are alike, too. Of content, what explains most comes first.
        Fault.INVALID_DEPTH: (_DEPTH, content.invalid_depth),
        Fault.DARK: (_CAMERA, content.dark),
        Fault.SATURATED: (_CAMERA, content.saturated),
        Fault.BLANK: (_CAMERA, content.blank),
        Fault.FEW_POINTS: (_LIDAR, content.few_points),
        Fault.NOISY: (MODALITIES, content.noisy),
        Fault.LIDAR_SECTOR_LOST: (_LIDAR, content.lidar_sector_lost),
        Fault.EVENT_FLOOD: (_EVENT, content.event_flood),
        Fault.FROZEN: (MODALITIES, content.frozen),
        # Last: such a frame is good in itself, only some before it are missing.
        Fault.EVENT_SEQUENCE_GAP: (_EVENT, timing.sequence_gap),
        Fault.LOW_RATE: (MODALITIES, timing.low_rate),
    }
)
"""Checks on a frame and the modalities they apply to; the first that fails names the fault, one of
`TIMING_FAULTS` only where no other does."""


def applies_to(fault: Fault, modality: Modality) -> bool:
    """Whether a sensor of that modality can have that fault."""
    if fault in FRAME_CHECKS:
        return modality in FRAME_CHECKS[fault][0]
    return True  # silence, malformed messages and the transport's faults


class Failure(NamedTuple):
    """A check that a frame fails, and why."""

    fault: Fault
    reason: str


def failed_checks(
    frame: ModalityFrame, history: History, config_of: Callable[[Fault], CheckConfig]
) -> tuple[Failure | None, Failure | None]:
    """The first enabled check that says not to trust the frame, and the first that only says it is late or slow.

    None for either that no check says.
    """
    untimely: Failure | None = None
    for fault, (modalities, check) in FRAME_CHECKS.items():
        config = config_of(fault)
        if not config.enabled or frame.modality not in modalities:
            continue
        reason = check(frame, history, config.threshold)
        if reason is None:
            continue
        if fault not in TIMING_FAULTS:
            return Failure(fault, reason), untimely
        untimely = untimely or Failure(fault, reason)
    return None, untimely
