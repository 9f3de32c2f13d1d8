"""What a drive produced, as received over DDS."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.sensors import Sensor, in_order

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
    modality: Sensor
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

    def used_in(self, stamp_ns: int) -> tuple[Sensor, ...]:
        """The modalities of the mask with that stamp."""
        used = {s.modality for s in self.statuses if s.stamp_ns == stamp_ns and s.used}
        return in_order(used)
