"""mIoU of students on held-out simulated drives, over every subset of the sensors, on the robot's own path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyseg_core.processes import Progress, map_over_processes
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor, all_subsets, in_order
from anyseg_core.sim.deliver_writer import drive_config
from anyseg_core.sim.drive import Drive, DriveFrame
from anyseg_core.sim.drive_cache import is_recorded
from anyseg_core.sim.recorded_drive import RecordedDrive

Subset = tuple[Sensor, ...]
DRIVES = 10
"""Each of the five weathers twice; every drive has a world of its own, in which nothing was trained."""
FRAMES_PER_DRIVE = 5
FRAME_STEP = 16
"""1.6 s between the frames of a drive: what follows sooner looks much the same."""


@dataclass(frozen=True)
class SubsetScores:
    """Of one student: mIoU in percent by subset, over all frames together and by drive."""

    pooled: Mapping[Subset, float]
    by_drive: Sequence[Mapping[Subset, float]]


def held_out_drives(folder: Path, workers: int, progress: Progress, count: int = DRIVES) -> list[RecordedDrive]:
    """Some frames of each of the split `test`'s first drives, rendered where they are not in `folder` yet.

    The weathers take turns, in the order of `WEATHERS`.
    """
    paths = [folder / f"test_{number}_{FRAMES_PER_DRIVE}x{FRAME_STEP}.npz" for number in range(count)]
    jobs = [(number, path) for number, path in enumerate(paths) if not is_recorded(path)]
    for _ in map_over_processes(_render, jobs, workers, progress):
        pass
    return [RecordedDrive.load(path) for path in paths]


def _render(job: tuple[int, Path]) -> None:
    number, path = job
    drive = Drive(drive_config("test", number, (FRAMES_PER_DRIVE * FRAME_STEP) / 10))
    indices = range(FRAME_STEP - 1, len(drive), FRAME_STEP)
    RecordedDrive.of((drive.frame(index) for index in indices), drive.rig()).save(path)


def score(segmenter: Segmenter, drives: Sequence[RecordedDrive], progress: Progress) -> SubsetScores:
    """Raw frames -> masks of the camera's size -> mIoU against the true labels."""
    subsets = all_subsets(in_order(segmenter.modalities))
    by_drive = []
    total = {subset: ConfusionMatrix(len(segmenter.card.classes)) for subset in subsets}
    for done, drive in enumerate(drives):
        matrices = _score_drive(segmenter, drive, subsets)
        for subset, matrix in matrices.items():
            total[subset].merge(matrix)
        by_drive.append(_percent(matrices))
        progress(done + 1, len(drives))
    return SubsetScores(_percent(total), by_drive)


def _score_drive(
    segmenter: Segmenter, drive: RecordedDrive, subsets: Sequence[Subset]
) -> dict[Subset, ConfusionMatrix]:
    matrices = {subset: ConfusionMatrix(len(segmenter.card.classes)) for subset in subsets}
    for instant in drive:
        for subset, matrix in score_instant(segmenter, instant, drive.rig(), subsets).items():
            matrices[subset].merge(matrix)
    return matrices


def score_instant(
    segmenter: Segmenter, instant: DriveFrame, rig: Rig, subsets: Sequence[Subset]
) -> dict[Subset, ConfusionMatrix]:
    """Masks of the camera's size from every subset, against the true labels."""
    matrices = {subset: ConfusionMatrix(len(segmenter.card.classes)) for subset in subsets}
    for subset, matrix in matrices.items():
        result = segmenter.segment({m: instant.frames[m] for m in subset}, rig)  # encodes each frame once
        matrix.add(instant.labels, result.resized_labels(*instant.labels.shape))
    return matrices


def _percent(matrices: Mapping[Subset, ConfusionMatrix]) -> dict[Subset, float]:
    return {subset: 100.0 * matrix.miou() for subset, matrix in matrices.items()}
