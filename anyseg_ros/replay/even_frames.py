"""Masks spread evenly over a bag, kept for the report's pictures: what the student sees there, without any score."""

from __future__ import annotations

from dataclasses import dataclass

from anyseg_ros.replay.mask_records import MaskRecord
from anyseg_ros.replay.mask_scoring import ScoredMask
from anyseg_ros.replay.scenarios import ALL_SENSORS

KEPT = 6
"""Two rows of the report; their frames stay in memory until it is written."""


@dataclass(frozen=True, eq=False)
class _Nearest:
    """The mask nearest to one of the moments."""

    record: MaskRecord
    mask: ScoredMask | None


class EvenFrames:
    """Keeps, of the scenario with all sensors, the mask nearest to each of a few moments.

    Which these are depends on the records alone: a run that is resumed makes the same ones again.
    """

    def __init__(self, duration_s: float) -> None:
        """`duration_s`: of the bag."""
        self._nearest: dict[float, _Nearest | None] = {duration_s * (i + 0.5) / KEPT: None for i in range(KEPT)}

    def add(self, record: MaskRecord, mask: ScoredMask | None) -> None:
        """The next mask of its scenario; `mask` is None for one whose pixels are not at hand."""
        if record.scenario != ALL_SENSORS or record.error:
            return
        for at_s, kept in self._nearest.items():
            if kept is None or abs(record.t_s - at_s) < abs(kept.record.t_s - at_s):
                self._nearest[at_s] = _Nearest(record, mask)

    def numbers(self) -> set[int]:
        """The numbers of the records that are kept."""
        return {kept.record.number for kept in self._nearest.values() if kept is not None}

    def masks(self) -> list[ScoredMask]:
        """In the order of time, each once."""
        kept = [each.mask for each in self._nearest.values() if each is not None and each.mask is not None]
        return sorted({mask.record.number: mask for mask in kept}.values(), key=lambda mask: mask.record.number)
