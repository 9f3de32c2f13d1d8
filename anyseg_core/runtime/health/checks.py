"""What is wrong with a frame, by the checks of the catalogue in `thresholds`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from anyseg_core.runtime.health.history import History
from anyseg_core.runtime.health.thresholds import CHECKS, CheckConfig, Fault
from anyseg_core.runtime.sensors import SensorFrame


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
    for fault, check in CHECKS.items():
        config = config_of(fault)
        if check.test is None or not config.enabled or not check.applies_to(frame.kind):
            continue
        reason = check.test(frame, history, config.threshold)
        if reason is None:
            continue
        if not check.is_timing:
            return Failure(fault, reason), untimely
        untimely = untimely or Failure(fault, reason)
    return None, untimely
