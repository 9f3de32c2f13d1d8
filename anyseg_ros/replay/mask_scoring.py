"""Masks -> records. A mask waits until its label image and the mask from all sensors have come, or cannot come."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.label_files import is_same_view
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.bags.ground_truth import GroundTruth, GroundTruthError, Truth
from anyseg_ros.replay.consistency import FlickerMeter, ReferenceMasks, agreement
from anyseg_ros.replay.mask_records import LABELS, MaskRecord, sparse_cells
from anyseg_ros.replay.scenarios import ALL_SENSORS

Labels = NDArray[np.uint8]
PATIENCE_NS = NS_PER_S
"""Simulated time after which nothing more is awaited for a mask."""


@dataclass(frozen=True, eq=False)
class MadeMask:
    """A mask that is to be scored. Its record lacks what the scores add."""

    record: MaskRecord
    now_ns: int
    """When it was begun, in simulated time."""
    labels: Labels | None
    """uint8 [h, w] at network size; None where making it failed."""
    scene: SensorFrame | None = None
    """What the bag's camera (or another sensor) saw then, for the report's pictures."""


@dataclass(frozen=True, eq=False)
class ScoredMask:
    """A mask with its complete record."""

    record: MaskRecord
    made: MadeMask
    truth: Labels | None
    """The label image, or the mask from all sensors where there is none."""


def mask_hash(mask: Labels) -> str:
    """Of a mask as it is published, uint8 [H, W]: 16 hexadecimal digits. A live mask can be compared by it."""
    state = hashlib.blake2b(np.ascontiguousarray(mask).data, digest_size=8)
    state.update(repr(mask.shape).encode())
    return state.hexdigest()


class MaskScorer:
    """Takes masks and gives their scores in the same order."""

    def __init__(
        self,
        num_classes: int,
        truth: GroundTruth,
        half_period_ns: Mapping[Sensor, int],
        reference_within_ns: int | None = None,
    ) -> None:
        """A scorer of the masks of one replay.

        Args:
            num_classes: of the student.
            truth: the label images.
            half_period_ns: how far a label image may be from the anchor of its mask: half the time between its frames.
            reference_within_ns: how far apart the stamps of two scenarios' masks of one moment may be; None where there
                is only one scenario.
        """
        self._half_period_ns = half_period_ns
        self._num_classes = num_classes
        self._truth = truth
        self._waiting: deque[MadeMask] = deque()
        self._reference = None if reference_within_ns is None else ReferenceMasks(reference_within_ns)
        self._flicker: dict[str, FlickerMeter] = {}
        self._now_ns = 0
        self.unusable: Counter[str] = Counter()
        """Label images that could not be used, by reason."""

    def add(self, made: MadeMask) -> None:
        """The next mask."""
        self._waiting.append(made)
        if self._reference is not None and made.record.scenario == ALL_SENSORS and made.labels is not None:
            self._reference.add(made.record.stamp_ns, made.labels)

    def scored(self, now_ns: int) -> Iterator[ScoredMask]:
        """The masks that need not wait any longer."""
        set_back = now_ns < self._now_ns
        self._now_ns = now_ns
        while self._waiting and (set_back or self._is_ready(self._waiting[0], now_ns)):
            yield self._score(self._waiting.popleft())

    def rest(self) -> Iterator[ScoredMask]:
        """All others: the bag has ended."""
        while self._waiting:
            yield self._score(self._waiting.popleft())

    def _is_ready(self, made: MadeMask, now_ns: int) -> bool:
        if made.labels is None or now_ns - made.now_ns > PATIENCE_NS:
            return True
        stamp_ns = made.record.stamp_ns
        is_reference = made.record.scenario == ALL_SENSORS or self._reference is None
        return self._truth.is_decided(stamp_ns) and (is_reference or self._reference.is_decided(stamp_ns))  # type: ignore[union-attr]

    def _score(self, made: MadeMask) -> ScoredMask:
        if made.labels is None:
            return ScoredMask(made.record, made, None)
        record, scenario = made.record, made.record.scenario
        change = self._flicker.setdefault(scenario, FlickerMeter()).add(record.stamp_ns, made.labels)
        reference = None
        if self._reference is not None and scenario != ALL_SENSORS:
            reference = self._reference.at(record.stamp_ns)
        record = replace(
            record,
            agreement=None if reference is None else agreement(made.labels, reference),
            changed=change.changed,
            flicker=change.flicker,
        )
        truth = self._truth_of(record)
        if truth is not None and (cells := self._cells(made.labels, truth.labels, record)) is not None:
            scored = replace(record, against=LABELS, label_ns=truth.stamp_ns, cells=cells[0], pixels=cells[1])
            return ScoredMask(scored, made, truth.labels)
        if reference is not None and (cells := self._cells(made.labels, reference, record)) is not None:
            return ScoredMask(replace(record, against=ALL_SENSORS, cells=cells[0], pixels=cells[1]), made, reference)
        return ScoredMask(record, made, None)

    def _truth_of(self, record: MaskRecord) -> Truth | None:
        try:
            truth = self._truth.near(record.stamp_ns, self._half_period_ns.get(record.anchor, 0))
        except GroundTruthError as error:
            self.unusable[str(error)] += 1
            return None
        if truth is not None and not is_same_view(truth.labels.shape, record.size):
            height, width = truth.labels.shape
            sizes = f"{width}x{height}, the mask {record.size[1]}x{record.size[0]}"
            self.unusable[f"label image is {sizes}: they do not show the same view"] += 1
            return None
        return truth

    def _cells(
        self, labels: Labels, truth: Labels, record: MaskRecord
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The counts against labels of any size; None where they are not the student's classes."""
        matrix = ConfusionMatrix(self._num_classes)
        try:
            matrix.add(truth, at_size(labels, *record.size, *truth.shape))
        except ValueError as error:
            self.unusable[f"label image: {error}"] += 1
            return None
        return sparse_cells(matrix)


def at_size(labels: Labels, height: int, width: int, to_height: int, to_width: int) -> Labels:
    """A mask at network size, as published at [height, width], brought to the size of a label image.

    Where both are the same, each pixel is exactly the one that the node publishes.
    """
    for size in ((height, width), (to_height, to_width)):
        if labels.shape != size:
            labels = np.asarray(cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    return labels
