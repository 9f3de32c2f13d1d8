"""Which sensors are in another state than before. No ROS."""

from __future__ import annotations

from collections.abc import Iterable

from anyseg_core.runtime.health.monitor import Fault, ModalityStatus, State
from anyseg_core.runtime.sensors import Sensor


class StatusChanges:
    """Compares the statuses of one moment with those that it was given before."""

    def __init__(self) -> None:
        self._before: dict[Sensor, tuple[State, Fault | None]] = {}

    def among(self, statuses: Iterable[ModalityStatus]) -> list[ModalityStatus]:
        """Those whose state or fault is not that of the last call; all of them at the first."""
        changed = [s for s in statuses if self._before.get(s.modality) != (s.state, s.fault)]
        self._before |= {s.modality: (s.state, s.fault) for s in changed}
        return changed
