"""The masks that look worst, kept for the report's pictures: a few of each scenario, each of another second."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anyseg_ros.replay.mask_records import LABELS, MaskRecord
from anyseg_ros.replay.mask_scoring import ScoredMask

KEPT = 3
"""Per scenario; their frames stay in memory until the report is written."""


def badness(record: MaskRecord, num_classes: int) -> float | None:
    """How bad a mask is, 0..1: one minus its mIoU over the classes that occur; None where it was not scored."""
    if not record.cells:
        return None
    miou = record.confusion(num_classes).miou()
    return None if np.isnan(miou) else 1.0 - miou


class WorstFrames:
    """Keeps the worst of what it is shown. What it keeps does not depend on the order among the seconds."""

    def __init__(self, num_classes: int, *, has_labels: bool) -> None:
        """With labels only masks that were scored with them count: an agreement is no accuracy."""
        self._has_labels = has_labels
        self._num_classes = num_classes
        self._kept: dict[str, list[tuple[float, MaskRecord, ScoredMask | None]]] = {}

    def add(self, record: MaskRecord, scored: ScoredMask | None) -> None:
        """The next mask of its scenario; `scored` is None for one whose pixels are not at hand."""
        score = badness(record, self._num_classes)
        if score is None or (self._has_labels and record.against != LABELS):
            return
        kept = self._kept.setdefault(record.scenario, [])
        kept.append((score, record, scored))
        same_second = [entry for entry in kept if int(entry[1].t_s) == int(record.t_s)]
        if len(same_second) > 1:
            kept.remove(min(same_second, key=_order))
        if len(kept) > KEPT:
            kept.remove(min(kept, key=_order))

    def numbers(self) -> set[int]:
        """The numbers of the records that are kept."""
        return {record.number for kept in self._kept.values() for _, record, _ in kept}

    def worst_first(self, scenario: str) -> Iterator[tuple[float, ScoredMask]]:
        """(badness, mask) of a scenario."""
        for score, _, scored in sorted(self._kept.get(scenario, []), key=_order, reverse=True):
            if scored is not None:
                yield score, scored


def _order(entry: tuple[float, MaskRecord, ScoredMask | None]) -> tuple[float, int]:
    return entry[0], -entry[1].number
