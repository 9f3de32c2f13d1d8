"""A street student against its bars, through the robot's own code: raw frames at their own size in, masks out.

What is measured on is read where it lies: `<root>/{kitti_semantic, idd_lite, lidar_range/semantic_kitti}` in the
layouts of `data/layouts.py`, and a drive of KITTI's raw data, `<root>/kitti_drive`, of which the last third is looked
at. The configuration of the bundled student learns from none of these frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import read_image, read_label_image
from anyseg_core.data.kitti_drive import KittiDrive
from anyseg_core.data.layouts import PICTURE_LAYOUTS, SCAN_LAYOUTS
from anyseg_core.data.mixture import MixturePart, Scoring, class_meanings
from anyseg_core.data.pictures import Pictures
from anyseg_core.data.scans import Scans, forward_view, read_scan
from anyseg_core.runtime.class_losses import CLASS_IOU, CLASS_IOU_DATA
from anyseg_core.runtime.geometry.projection import project_points
from anyseg_core.runtime.label_sets import UNLABELLED, LabelClass
from anyseg_core.runtime.metrics import ConfusionMatrix, Reliability
from anyseg_core.runtime.model_card import edited_card, find_student
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame

Labels = NDArray[np.uint8]
HELD_OUT = 2 / 3
"""Where the part of the drive begins that nothing is learned from."""
VEHICLES = ("car", "truck", "bus", "train", "motorcycle", "bicycle")


@dataclass
class Score:
    """Of one data set, in its own classes."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    """The student's class that each of them is; empty for one that stands for several."""
    matrix: ConfusionMatrix
    reliability: Reliability = field(default_factory=Reliability)

    @classmethod
    def empty(cls, segmenter: Segmenter, scoring: Scoring) -> Score:
        """Nothing counted yet."""
        known = [entry.name for entry in segmenter.card.classes]
        meant = [np.flatnonzero(scoring.of_class[: len(known)] == number) for number in range(len(scoring.names))]
        classes = tuple(known[members[0]] if len(members) == 1 else "" for members in meant)
        return cls(scoring.names, classes, ConfusionMatrix(len(scoring.names)))

    def class_iou(self) -> dict[str, float]:
        """IoU in percent of the student's classes that occur in the labels."""
        found = zip(self.classes, (100 * self.matrix.iou()).tolist(), strict=True)
        return {name: round(iou, 2) for name, iou in found if name and not np.isnan(iou)}

    def add(self, labels: Labels, predicted: Labels, confidence: Labels, scoring: Scoring) -> None:
        """Count labels against the student's, of any shape; confidence is 0 to 255."""
        truth, found = scoring.of_label[labels], scoring.of_class[predicted]
        self.matrix.add(truth, found)
        known = truth != UNLABELLED
        self.reliability.add(confidence[known] / 255.0, found[known] == truth[known])


def score_pictures(segmenter: Segmenter, root: Path, layout: str, split: str, limit: int | None = None) -> Score:
    """The camera alone, at the pictures' own size. Raises DataError."""
    pictures = Pictures(root, split, segmenter.card.input_size, PICTURE_LAYOUTS[layout], limit)
    scoring = _scoring(segmenter, MixturePart(pictures, PICTURE_LAYOUTS[layout].meaning))
    score = Score.empty(segmenter, scoring)
    for index in range(len(pictures)):
        image, labels = pictures.files(index)
        frame = SensorFrame(Sensor.CAMERA, read_image(image), 0)
        truth = read_label_image(labels, len(pictures.classes))
        found = segmenter.segment({Sensor.CAMERA: frame})
        score.add(truth, *found.resized(*truth.shape), scoring)
    return score


def score_scans(segmenter: Segmenter, root: Path, layout: str, split: str, limit: int | None = None) -> Score:
    """LiDAR alone, on every labelled point that the vehicle's camera would see. Raises DataError."""
    size, own = segmenter.card.input_size, SCAN_LAYOUTS[layout]
    scans = Scans(root, split, size, own, limit)
    scoring = _scoring(segmenter, MixturePart(scans, own.meaning))
    score = Score.empty(segmenter, scoring)
    rig = forward_view(own.forward_deg).rig
    for index in range(len(scans)):
        points, labels = read_scan(scans.files(index)[0], own)
        found = segmenter.segment({Sensor.LIDAR: SensorFrame(Sensor.LIDAR, points, 0)}, rig)
        rows, cols, seen, _ = project_points(points, rig, *size)
        score.add(labels[seen], found.labels[rows, cols], found.confidence[rows, cols], scoring)
    return score


def _scoring(segmenter: Segmenter, part: MixturePart) -> Scoring:
    classes = [LabelClass(entry.name, entry.color) for entry in segmenter.card.classes]
    return Scoring.of(part.dataset.classes, class_meanings(part, classes))


@dataclass
class DriveScore:
    """What LiDAR alone sees of a drive, against the masks that the camera gives of the same moments."""

    same: dict[str, int] = field(default_factory=dict)
    """Pixels that both call road, or vehicle."""
    camera: dict[str, int] = field(default_factory=dict)
    either: dict[str, int] = field(default_factory=dict)
    changed: dict[str, list[float]] = field(default_factory=dict)
    """By the sensors: share of pixels whose label changed since the frame before."""
    engine_ms: list[float] = field(default_factory=list)
    """Of the camera alone."""

    def add(self, name: str, by_camera: NDArray[np.bool_], by_lidar: NDArray[np.bool_]) -> None:
        """Count the pixels of one group of classes."""
        for counts, pixels in (
            (self.same, by_camera & by_lidar),
            (self.camera, by_camera),
            (self.either, by_camera | by_lidar),
        ):
            counts[name] = counts.get(name, 0) + int(pixels.sum())

    def agreement(self, name: str) -> float:
        """Share of the camera's pixels of a group that LiDAR calls so, too, in percent."""
        return 100 * self.same[name] / max(1, self.camera[name])

    def iou(self, name: str) -> float:
        """The stricter figure: of the pixels that either calls so, in percent."""
        return 100 * self.same[name] / max(1, self.either[name])

    def flicker(self, sensors: str) -> float:
        """Mean share of pixels whose label changes from frame to frame, in percent."""
        return 100 * float(np.mean(self.changed[sensors]))


def score_drive(segmenter: Segmenter, root: Path, limit: int | None = None) -> DriveScore:
    """Camera, LiDAR and both on the held-out part of a drive. Raises DataError."""
    drive = KittiDrive(root, HELD_OUT, 1.0)
    groups = _groups(segmenter)
    score, before = DriveScore(), {}
    for number, (_, frames) in enumerate(drive.frames()):
        if limit is not None and number >= limit:
            break
        masks = {name: segmenter.segment(chosen, drive.rig) for name, chosen in _subsets(frames)}
        score.engine_ms.append(1000 * masks["camera"].engine_s)
        for name, members in groups.items():
            by_camera, by_lidar = (np.isin(masks[sensors].labels, members) for sensors in ("camera", "lidar"))
            score.add(name, by_camera, by_lidar)
        for sensors, mask in masks.items():
            if sensors in before:
                score.changed.setdefault(sensors, []).append(float((before[sensors] != mask.labels).mean()))
            before[sensors] = mask.labels
    return score


def _groups(segmenter: Segmenter) -> dict[str, list[int]]:
    names = [entry.name for entry in segmenter.card.classes]
    return {"road": [names.index("road")], "vehicle": [names.index(name) for name in VEHICLES]}


def _subsets(frames: Mapping[Sensor, SensorFrame]) -> Iterator[tuple[str, dict[Sensor, SensorFrame]]]:
    yield "camera", {Sensor.CAMERA: frames[Sensor.CAMERA]}
    yield "lidar", {Sensor.LIDAR: frames[Sensor.LIDAR]}
    yield "camera+lidar", dict(frames)


class StreetFigure(NamedTuple):
    """One measured quantity, and the bar that it has to meet, if any."""

    name: str
    unit: str
    samples: list[float]
    bar: str = ""
    met: bool | None = None
    listed: bool = True
    """False: for the file only."""


CAMERA_KITTI, LIDAR_POINTS = "camera, KITTI test block", "LiDAR alone, SemanticKITTI val, points"
ON_CARD = {"camera": CAMERA_KITTI, "lidar": LIDAR_POINTS}
"""What a card's IoU per class of each sensor alone is measured on. No frame with both has labels."""


def measure_street(
    student: str, root: Path, threads: int = 2, limit: int | None = None, *, write_card: bool = False
) -> tuple[list[StreetFigure], list[str]]:
    """Figures against their bars, and the calibration curves in words. `limit`: only so many frames of each data set.

    `write_card` also writes the IoU of each class into the student's model.json, by the sensor that sees it.

    Raises StudentError, EngineError, DataError; ValueError for a card that is to be written from a part of the frames.
    """
    if write_card and limit is not None:
        raise ValueError("a card says what all frames gave: leave out --limit, or --write-card")
    segmenter = Segmenter.open(student, threads=threads)
    scores = {
        CAMERA_KITTI: score_pictures(segmenter, root / "kitti_semantic", "kitti_semantic", "test", limit),
        "camera, IDD-Lite val": score_pictures(segmenter, root / "idd_lite", "idd_lite", "val", limit),
        LIDAR_POINTS: score_scans(segmenter, root / "lidar_range/semantic_kitti", "semantic_kitti", "val", limit),
    }
    if write_card:
        write_class_iou(find_student(student), {subset: scores[where] for subset, where in ON_CARD.items()})
    drive = score_drive(segmenter, root / "kitti_drive", limit)
    segmenter.close()
    figures = [figure for where, score in scores.items() for figure in _figures_of(where, score, _BARS[where])]
    return [*figures, *_figures_of_drive(drive, threads)], [_curve(where, score) for where, score in scores.items()]


def write_class_iou(folder: Path, scores: Mapping[str, Score]) -> None:
    """Write the IoU per class of each subset of the sensors, and on what it was measured, into a student's card.

    Nothing else of the card changes. Raises OSError where it cannot be written.
    """
    with edited_card(folder) as card:
        card["training"]["metrics"] |= {
            CLASS_IOU: {subset: score.class_iou() for subset, score in scores.items()},
            CLASS_IOU_DATA: {subset: ON_CARD[subset] for subset in scores},
        }


_BARS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        CAMERA_KITTI: {"mIoU": 50.0},
        "camera, IDD-Lite val": {"mIoU": 70.0},
        LIDAR_POINTS: {"mIoU": 45.0, "road": 85.0, "car": 70.0},
    }
)
"""Percent, by what is scored: the mean over the classes that occur, and single classes."""
_MOST_ECE = 0.05
_MOST_ENGINE_MS = 15.0


def _figures_of(where: str, score: Score, bars: Mapping[str, float]) -> Iterator[StreetFigure]:
    """mIoU, accuracy, ECE and every class that occurs; without a bar a class is for the file only."""
    of_class = zip(score.names, (100 * score.matrix.iou()).tolist(), strict=True)
    for name, value in [("mIoU", 100 * score.matrix.miou()), *of_class]:
        if name in bars:
            yield StreetFigure(f"{where}: {name}", "%", [value], f">= {bars[name]:g}", value >= bars[name])
        elif not np.isnan(value):
            yield StreetFigure(f"{where}: {name}", "%", [value], listed=False)
    yield StreetFigure(f"{where}: accuracy", "%", [100 * score.matrix.pixel_accuracy()])
    ece = score.reliability.expected_error()
    yield StreetFigure(f"{where}: ECE", "", [ece], f"<= {_MOST_ECE:g}", ece <= _MOST_ECE)


def _figures_of_drive(drive: DriveScore, threads: int) -> Iterator[StreetFigure]:
    for name, least in (("road", 85.0), ("vehicle", 60.0)):
        share = drive.agreement(name)
        what = f"drive: the camera's {name} that LiDAR alone calls {name}"
        yield StreetFigure(what, "%", [share], f">= {least:g}", share >= least)
        yield StreetFigure(f"drive: IoU of {name}, camera against LiDAR alone", "%", [drive.iou(name)])
    for sensors, changed in drive.changed.items():
        what = f"drive: labels that change from frame to frame, {sensors}"
        yield StreetFigure(what, "%", [100 * share for share in changed])
    met = float(np.median(drive.engine_ms)) <= _MOST_ENGINE_MS
    yield StreetFigure(f"engine, camera, {threads} threads", "ms", drive.engine_ms, f"p50 <= {_MOST_ENGINE_MS:g}", met)


def _curve(where: str, score: Score) -> str:
    points = ", ".join(f"{said:.2f}: {right:.2f}" for said, right, _ in score.reliability.curve())
    return f"{where}, confidence: share that is right: {points}"
