"""What is raised of a message that cannot be read."""

from __future__ import annotations

from anyseg_core.runtime.health.monitor import Fault


class ConversionError(ValueError):
    """A malformed message: what is wrong with it, and the fault it counts as."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
