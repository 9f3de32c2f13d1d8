"""What a number of a configuration may be, from and to: checked where it is set, and shown to whoever sets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Range(NamedTuple):
    """From `low` to `high`, both included."""

    low: float
    high: float

    def check(self, name: str, value: float) -> None:
        """Raises ValueError that names what is out of range, NaN and infinity included."""
        if not self.low <= value <= self.high:
            raise ValueError(f"{name} must be in [{self.low:g}, {self.high:g}], not {value:g}")


Ranges = Mapping[str, Range]


def check_ranges(part: object, ranges: Ranges) -> None:
    """Check the attributes of `part` that `ranges` names. Raises ValueError that names the first out of range."""
    for name, allowed in ranges.items():
        allowed.check(name, getattr(part, name))
