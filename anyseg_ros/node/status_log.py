"""What the log says of the sensors: each fault once when it is confirmed, and once when the sensor is back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from anyseg_core.runtime.health.monitor import Fault, ModalityStatus, State
from anyseg_core.runtime.modality import Modality

OUT_OF_USE = (State.FAILED, State.RECOVERING, State.DISPUTED)


class StatusLog:
    """Told every status, it logs what is news to a person.

    A sensor that fails again while it is recovering is still the same failure: it is not logged again, unless the fault
    is another one.
    """

    def __init__(self, warn: Callable[[str], object], inform: Callable[[str], object]) -> None:
        self._warn, self._inform = warn, inform
        self._told: dict[Modality, set[Fault | None]] = {}  # the faults that were logged of those out of use

    def tell(self, statuses: Iterable[ModalityStatus]) -> None:
        """The statuses at one moment."""
        for status in statuses:
            if status.state in OUT_OF_USE:
                self._tell_failure(status)
            elif status.modality in self._told:
                del self._told[status.modality]
                self._inform(f"{status.modality} is no longer failed, but {status.state}")

    def _tell_failure(self, status: ModalityStatus) -> None:
        told = self._told.setdefault(status.modality, set())
        if status.fault not in told:
            told.add(status.fault)
            what = "in dispute" if status.state is State.DISPUTED else "failed"
            self._warn(f"{status.modality} {what}: {status.fault}: {status.reason}")
