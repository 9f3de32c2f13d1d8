"""Which sensors are in another state than before. No ROS."""

from __future__ import annotations

from collections.abc import Iterable

from anyseg_core.runtime.health.monitor import Fault, ModalityStatus, State
from anyseg_core.runtime.sensors import Sensor


class StatusChanges:
    """Compares the statuses of one moment with those that it was given before: state, fault, whether it is left out."""

    def __init__(self, *, with_remarks: bool = False) -> None:
        """`with_remarks`: another remark counts as a change, too."""
        self._with_remarks = with_remarks
        self._before: dict[Sensor, tuple[State, Fault | None, bool, str]] = {}

    def among(self, statuses: Iterable[ModalityStatus]) -> list[ModalityStatus]:
        """Those for which that is not as at the last call; all of them at the first."""
        changed = [s for s in statuses if self._before.get(s.modality) != self._seen(s)]
        self._before |= {s.modality: self._seen(s) for s in changed}
        return changed

    def _seen(self, status: ModalityStatus) -> tuple[State, Fault | None, bool, str]:
        return status.state, status.fault, bool(status.left_out), status.remark if self._with_remarks else ""
