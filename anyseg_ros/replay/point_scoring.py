"""How good the labels of LiDAR points are: IoU against labels of points, by distance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from anyseg_core.runtime.label_files import files_at_other_depths
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.points.label_files import SUFFIX, PointLabelError, id_table, load_names, read_point_labels
from anyseg_core.runtime.points.labelled import LabelledPoints
from anyseg_core.runtime.time_units import NS_PER_MS
from anyseg_ros.bags.ground_truth import stamp_of
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.bags.topics import find_topics, mapping_by
from anyseg_ros.messages.header_stamp import header_stamp_ns
from anyseg_ros.pipeline.jobs import Result
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.planner_products import label_points
from anyseg_ros.replay.scenarios import Scenario

BANDS_M = (0.0, 10.0, 20.0, 40.0, float("inf"))
"""Distances from the sensor between which points are scored together."""
TOLERANCE_NS = NS_PER_MS
"""Between a scan's stamp and that in a file's name, which may be rounded to the millisecond."""
_MOST_DIGITS_OF_A_NUMBER = 9
"""A longer name is a stamp in nanoseconds."""


def band_name(number: int) -> str:
    """`10 to 20 m`."""
    low, high = BANDS_M[number], BANDS_M[number + 1]
    return f"over {low:g} m" if high == float("inf") else f"{low:g} to {high:g} m"


@dataclass
class PointScore:
    """Sums over the scans of one scenario."""

    num_classes: int
    scans: int = 0
    true: int = 0
    """Points that have a true label and lie in the picture's field of view or not."""
    labelled: int = 0
    """Those of them that were labelled: neither outside the picture nor hidden."""
    bands: list[ConfusionMatrix] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bands = [ConfusionMatrix(self.num_classes) for _ in BANDS_M[1:]]

    def add(self, cloud: LabelledPoints, truth: NDArray[np.uint8]) -> None:
        """One scan more; points without a label are not scored, but counted. Raises ValueError for a wrong truth."""
        has_truth = truth != UNLABELLED
        scored = has_truth & (cloud.labels != UNLABELLED)
        distance = np.linalg.norm(cloud.points[:, :3], axis=1)
        band = np.searchsorted(BANDS_M[1:-1], distance, side="right")
        for number, matrix in enumerate(self.bands):
            inside = scored & (band == number)
            matrix.add(truth[inside], cloud.labels[inside])
        self.scans += 1
        self.true += int(has_truth.sum())
        self.labelled += int(scored.sum())

    @property
    def all_bands(self) -> ConfusionMatrix:
        """At any distance."""
        total = ConfusionMatrix(self.num_classes)
        for matrix in self.bands:
            total.merge(matrix)
        return total

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Shares in percent; a class that has no true point is left out."""

        def scores(matrix: ConfusionMatrix) -> dict[str, Any]:
            iou = {n: round(100 * float(v), 2) for n, v in zip(classes, matrix.iou(), strict=True) if not np.isnan(v)}
            points = int(matrix.counts.sum())
            return {"points": points, "miou": round(100 * matrix.miou(), 2) if points else None, "iou": iou}

        bands = {band_name(number): scores(matrix) for number, matrix in enumerate(self.bands)}
        return {
            "scans": self.scans,
            "labelled": round(100 * self.labelled / self.true, 2) if self.true else None,
            **scores(self.all_bands),
            "bands": bands,
        }


class PointTruth:
    """A folder of `.label` files, named by the scan's stamp in nanoseconds or by its number in the bag from 0."""

    def __init__(self, folder: Path, table: NDArray[np.uint8], stamps_ns: Sequence[int]) -> None:
        """`stamps_ns` are those of the bag's scans in their order. Raises PointLabelError where no file fits any."""
        self._table = table
        numbers = {path: path.stem for path in sorted(folder.glob(f"*{SUFFIX}"))}
        if deeper := files_at_other_depths(folder, SUFFIX, depth=0):
            raise PointLabelError(
                f"{deeper[0]} lies in a folder below {folder}, where labels of points are not looked for: give the "
                "folder that they are in"
            )
        self._files: dict[int, Path] = {}
        for path, stem in numbers.items():
            if stem.isdigit() and len(stem) <= _MOST_DIGITS_OF_A_NUMBER:
                if int(stem) < len(stamps_ns):
                    self._files[stamps_ns[int(stem)]] = path
            elif (stamp_ns := stamp_of(stem)) is not None:
                self._files[stamp_ns] = path
        if not self._files:
            raise PointLabelError(
                f"no label of points in {folder}: name the files by the scan's stamp in nanoseconds, such as "
                f"1700000000123456789{SUFFIX}, or by its number in the bag, such as 000000{SUFFIX}"
            )

    def labels_at(self, stamp_ns: int) -> NDArray[np.uint8] | None:
        """uint8 [N] of the scan of that stamp; None without a file. Raises PointLabelError."""
        nearest = min(self._files, key=lambda stamp: abs(stamp - stamp_ns))
        if abs(nearest - stamp_ns) > TOLERANCE_NS:
            return None
        return read_point_labels(self._files[nearest], self._table)


def open_truth(
    bag: Path,
    mapping: Mapping[str, str],
    folder: Path,
    names: Path | None,
    parameters: Parameters,
    classes: Sequence[str],
) -> PointTruth:
    """The labels of a bag's scans. Raises PointLabelError, TopicError and BagError."""
    reader = BagReader(bag)
    lidars = [sensor for sensor in parameters.modalities if sensor.kind.is_points]
    connections = [(choice.topic, choice.msgtype) for choice in reader.topics]
    mapping = mapping_by(parameters, connections, mapping)
    topics = {choice.topic for choice in find_topics(connections, mapping, lidars).values()}
    if not topics:
        raise PointLabelError(f"{bag} has no topic of LiDAR points that labels of points could belong to")
    stamps = [header_stamp_ns(message.cdr) or message.received_ns for message in reader.messages(topics)]
    return PointTruth(folder, id_table(classes, load_names(names) if names else None), stamps)


class PointScorer:
    """Scores the points of every mask."""

    def __init__(self, truth: PointTruth, num_classes: int, parameters: Parameters) -> None:
        self._truth, self._num_classes, self._parameters = truth, num_classes, parameters
        self.scores: dict[str, PointScore] = {}
        """By scenario."""
        self.unusable: Counter[str] = Counter()
        """Scans that could not be scored, by reason."""

    def on_mask(self, scenario: Scenario, result: Result) -> None:
        """Score the scan in this mask, where it has one and that has labels."""
        scan = result.job.scan
        cloud = None if scan is None else label_points(result, self._parameters.points)
        if scan is None or cloud is None:
            return
        score = self.scores.setdefault(scenario.name, PointScore(self._num_classes))
        measured = result.job.frames[scan.modality]
        try:
            truth = self._truth.labels_at(measured.stamp_ns)
            if truth is None:
                self.unusable["a scan without a file of labels"] += 1
            elif len(truth) != len(cloud.labels):
                self.unusable["a scan with another number of points than labels"] += 1
            else:
                score.add(cloud, truth)
        except PointLabelError as error:
            self.unusable[str(error)] += 1


def point_rows(scorer: PointScorer) -> list[list[str]]:
    """A row a scenario: its name, scans, share of the points that have a label, mIoU at any distance and by band."""

    def miou(matrix: ConfusionMatrix) -> str:
        return f"{100 * matrix.miou():.1f}" if matrix.counts.any() else "-"

    return [
        [
            name,
            str(score.scans),
            f"{100 * score.labelled / score.true:.1f}" if score.true else "-",
            miou(score.all_bands),
            *map(miou, score.bands),
        ]
        for name, score in scorer.scores.items()
    ]


POINT_COLUMNS = ("scenario", "scans", "labelled %", "mIoU %", *map(band_name, range(len(BANDS_M) - 1)))


def point_table(scorer: PointScorer) -> Table:
    """`point_rows` for the terminal."""
    table = Table(title="points", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in POINT_COLUMNS:
        table.add_column(column, justify="left" if column == "scenario" else "right")
    for row in point_rows(scorer):
        table.add_row(*row)
    return table
