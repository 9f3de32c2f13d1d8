"""What a hazard costs in mIoU: the same moments segmented in four ways, held against the labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np

from anyseg_core.runtime.cross_examination.policy import CrossExaminationConfig, left_out
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.bench.hazard_drives import RATE_HZ, START_NS, Drive, Network
from anyseg_ros.pipeline.jobs import Job
from anyseg_ros.pipeline.pipeline import Pipeline

Counts: TypeAlias = "list[tuple[int, int, int]]"
"""Of a confusion matrix, those that are not 0: label, prediction, pixels."""
ALL_RIGHT, WITHOUT_POLICY, WITH_POLICY, WITHOUT_SENSOR = "all right", "no policy", "policy", "without it"
LATER = ", found"
"""Added to the name of a way for the moments from `FOUND_BY_S` on."""
WAYS = (ALL_RIGHT, WITHOUT_POLICY, WITH_POLICY, WITHOUT_SENSOR)
SCORED_EVERY = 5
"""Frames: the masks of one in so many are held against the labels."""
FOUND_BY_S = 3.0
"""After a hazard's begin: by then it should have been found."""
POLICY = CrossExaminationConfig(leave_out=True)


class HazardMasks:
    """Of one hazard of one sensor, while it is on."""

    def __init__(
        self, drive: Drive, sensors: tuple[Sensor, ...], broken: Sensor, from_s: float, network: Network
    ) -> None:
        self._drive = drive
        self._sensors, self._broken, self._network = sensors, broken, network
        self._from_s = from_s
        self._matrices: dict[str, ConfusionMatrix] = {}

    def add(self, job: Job, pipeline: Pipeline) -> None:
        """Segment a mask's moment in four ways, where its turn has come."""
        number = round((job.anchor_frame.stamp_ns - START_NS) / NS_PER_S * RATE_HZ)
        if number % SCORED_EVERY:
            return
        stamp_ns = job.anchor_frame.stamp_ns
        clean = {s: frame for s in self._sensors if (frame := self._drive.by_stamp.get((stamp_ns, s))) is not None}
        out = left_out(pipeline.disputes, job.frames, POLICY)
        ways = {
            ALL_RIGHT: clean,
            WITHOUT_POLICY: job.frames,
            WITH_POLICY: {s: frame for s, frame in job.frames.items() if s not in out},
            WITHOUT_SENSOR: {s: frame for s, frame in clean.items() if s != self._broken},
        }
        is_late = number / RATE_HZ >= self._from_s + FOUND_BY_S
        for way, frames in ways.items():
            for name in (way, way + LATER) if is_late else (way,):
                self._score(name, number, frames)

    def _score(self, name: str, number: int, frames: Mapping[Sensor, SensorFrame]) -> None:
        matrix = self._matrices.setdefault(name, ConfusionMatrix(len(self._network.card.classes)))
        truth = self._drive.labels[number]
        if frames:
            labels = self._network.segment(frames, self._drive).resized_labels(*truth.shape)
        else:
            labels = np.full_like(truth, 255)
        matrix.add(truth, labels)

    @property
    def counts(self) -> dict[str, Counts]:
        """What was counted, by way."""
        return {name: _counts(matrix) for name, matrix in self._matrices.items()}


def _counts(matrix: ConfusionMatrix) -> Counts:
    rows, cols = np.nonzero(matrix.counts)
    return [(int(r), int(c), int(matrix.counts[r, c])) for r, c in zip(rows, cols, strict=True)]


def pooled_miou(counts: Iterable[Counts]) -> float | None:
    """mIoU in percent over all of them together; None without any label."""
    total: dict[tuple[int, int], int] = {}
    for entries in counts:
        for label, predicted, pixels in entries:
            total[label, predicted] = total.get((label, predicted), 0) + pixels
    if not total:
        return None
    matrix = ConfusionMatrix(1 + max(label for pair in total for label in pair))
    for (label, predicted), pixels in total.items():
        matrix.counts[label, predicted] = pixels
    return 100.0 * matrix.miou()
