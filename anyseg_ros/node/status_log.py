"""What the log says of the sensors: each fault once when it is confirmed, once when the sensor is back, and what a
person should mend whenever it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from anyseg_core.runtime.health.monitor import Fault, ModalityStatus, State
from anyseg_core.runtime.sensors import Sensor

OUT_OF_USE = (State.FAILED, State.RECOVERING, State.DISPUTED)


class StatusLog:
    """Takes every status, and logs what a person has not read yet.

    A sensor that fails again while it is recovering is still the same failure: it is not logged again, unless the fault
    is another one.
    """

    def __init__(self, warn: Callable[[str], object], inform: Callable[[str], object]) -> None:
        self._warn, self._inform = warn, inform
        self._logged: dict[Sensor, set[Fault | None]] = {}  # the faults that were logged of those out of use
        self._remarks: dict[Sensor, str] = {}

    def add(self, statuses: Iterable[ModalityStatus]) -> None:
        """The statuses at one moment."""
        for status in statuses:
            self._log_remark(status)
            if status.state in OUT_OF_USE:
                self._log_failure(status)
            elif status.modality in self._logged:
                del self._logged[status.modality]
                self._inform(f"{status.modality} is no longer failed, but {status.state}")

    def _log_remark(self, status: ModalityStatus) -> None:
        if status.remark and status.remark != self._remarks.get(status.modality):
            self._warn(f"{status.modality}: {status.remark}")
        self._remarks[status.modality] = status.remark

    def _log_failure(self, status: ModalityStatus) -> None:
        logged = self._logged.setdefault(status.modality, set())
        if status.fault not in logged:
            logged.add(status.fault)
            what = "in dispute" if status.state is State.DISPUTED else "failed"
            self._warn(f"{status.modality} {what}: {status.fault}: {status.reason}")
