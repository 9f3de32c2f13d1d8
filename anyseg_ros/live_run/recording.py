"""What a drive produced, as heard over DDS, and the phases that its fault schedule divides it into."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from anyseg_core.injection import ScheduledInjection
from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.modality import MODALITIES, Modality

LabelImage = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ReceivedMask:
    """A label image, when it was made of (`stamp_ns`) and when it arrived, both on the system clock."""

    stamp_ns: int
    received_ns: int
    labels: LabelImage
    """uint8 [H, W]."""


@dataclass(frozen=True)
class StatusSample:
    """One modality's line of one `~/modality_status` message."""

    stamp_ns: int
    """That of the mask the line speaks of; of sending where there was none."""
    received_ns: int
    modality: Modality
    state: State
    fault: str
    """Empty where there is none."""
    used: bool
    """Whether the mask of this stamp was made with it."""
    frame_age_ms: float | None
    """Age of its frame when that mask was begun; None where it was not used."""
    engine_ms: float | None
    """Time in the engine of the mask of this stamp."""


@dataclass
class Recording:
    """Everything heard during a drive."""

    masks: list[ReceivedMask] = field(default_factory=list)
    statuses: list[StatusSample] = field(default_factory=list)
    truth: dict[int, LabelImage] = field(default_factory=dict)
    """Ground truth by stamp, nanoseconds."""
    engine: str = "an engine that was not heard of"
    """What the node runs, as its diagnostics say."""
    node_pid: int = 0
    """Process of the node that is heard."""

    @property
    def start_ns(self) -> int:
        """The stamp of the first ground truth: the drive's beginning."""
        return min(self.truth)

    def used_in(self, stamp_ns: int) -> tuple[Modality, ...]:
        """The modalities of the mask with that stamp."""
        used = {s.modality for s in self.statuses if s.stamp_ns == stamp_ns and s.used}
        return tuple(m for m in MODALITIES if m in used)


@dataclass(frozen=True)
class Phase:
    """A stretch of the drive during which the same sensors are faulty."""

    start_s: float
    end_s: float
    faults: tuple[ScheduledInjection, ...]

    @property
    def name(self) -> str:
        """`camera drop, event drop`, or `all alive`."""
        return ", ".join(f"{entry.modality} {entry.kind}" for entry in self.faults) or "all alive"

    def healthy(self) -> tuple[Modality, ...]:
        """The modalities without a fault."""
        faulty = {entry.modality for entry in self.faults}
        return tuple(m for m in MODALITIES if m not in faulty)


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
