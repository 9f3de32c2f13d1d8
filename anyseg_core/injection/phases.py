"""The phases that a schedule of injections divides a drive into."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from anyseg_core.injection.schedule import ScheduledInjection
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor


@dataclass(frozen=True)
class Phase:
    """A stretch of the drive during which the same sensors are faulty."""

    start_s: float
    end_s: float
    injections: tuple[ScheduledInjection, ...]

    @property
    def name(self) -> str:
        """`camera drop, event drop`, or `all alive`."""
        return ", ".join(f"{entry.modality} {entry.kind}" for entry in self.injections) or "all alive"

    def healthy(self) -> tuple[Sensor, ...]:
        """The modalities without a fault."""
        faulty = {entry.modality for entry in self.injections}
        return tuple(m for m in DEFAULT_SENSORS if m not in faulty)


def phases_of(entries: Iterable[ScheduledInjection], duration_s: float) -> list[Phase]:
    """Cut `duration_s` seconds at every begin and end of a fault."""
    entries = tuple(entries)
    borders = {0.0, duration_s}
    for entry in entries:
        borders |= {min(entry.start_s, duration_s), min(entry.start_s + entry.duration_s, duration_s)}
    cuts = sorted(borders)
    phases = []
    for start, end in pairwise(cuts):
        active = tuple(e for e in entries if e.start_s <= start < e.start_s + e.duration_s)
        phases.append(Phase(start, end, active))
    return phases
