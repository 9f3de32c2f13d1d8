"""The street benchmark scores raw frames at their own size, in each data set's own classes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from toy_student import write_toy_student

from anyseg_core.benchmarks.street import (
    DriveScore,
    Score,
    measure_street,
    score_pictures,
    score_scans,
    write_class_iou,
)
from anyseg_core.data.mixture import Scoring
from anyseg_core.runtime.label_sets import CITYSCAPES, LabelClass
from anyseg_core.runtime.model_card import load_card
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor


@pytest.fixture
def segmenter(tmp_path: Path) -> Segmenter:
    """A toy student of Cityscapes' classes."""
    folder = write_toy_student(tmp_path / "toy", (64, 64), (Sensor.CAMERA, Sensor.LIDAR), CITYSCAPES)
    return Segmenter.open(folder, threads=1)


def test_pictures_are_scored_at_their_own_size_in_their_own_classes(segmenter: Segmenter, tmp_path: Path) -> None:
    for folder in ("image/val", "label/val"):
        (tmp_path / folder).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "image/val/0.jpg"), np.full((50, 90, 3), 90, np.uint8))
    labels = np.full((50, 90), 255, np.uint8)
    labels[:10] = 6  # sky
    labels[40:] = 0  # drivable
    cv2.imwrite(str(tmp_path / "label/val/0.png"), labels)
    score = score_pictures(segmenter, tmp_path, "idd_lite", "val")
    assert score.names[0] == "drivable"
    assert score.matrix.counts.sum() == 2 * 10 * 90
    assert score.reliability.counts.sum() == 2 * 10 * 90


def test_scans_are_scored_on_the_points_that_the_camera_would_see(segmenter: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    xyz = np.array([[[1000, 0, -100], [-1000, 0, -100], [1000, 100, -100], [0, 0, 0]]], np.int16)
    labels = np.array([[9, 9, 0, 1]], np.uint8)  # a road ahead and one behind, nothing, no measurement
    np.savez(tmp_path / "val/0.npz", xyz_cm=xyz, intensity=np.full((1, 4), 100, np.uint8), label=labels)
    score = score_scans(segmenter, tmp_path, "semantic_kitti", "val")
    assert score.matrix.counts.sum() == 1
    assert score.matrix.counts[score.names.index("road")].sum() == 1


def test_a_card_gets_the_iou_of_its_own_classes_and_what_it_was_measured_on(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    scoring = Scoring.of(
        [LabelClass("street", (0, 0, 0)), LabelClass("sign", (0, 0, 1)), LabelClass("rest", (0, 0, 2))],
        [(0,), (7,), (1, 2)],
    )
    score = Score.empty(segmenter, scoring)
    score.add(np.array([0, 0, 1, 2]), np.array([0, 5, 7, 1]), np.full(4, 255, np.uint8), scoring)
    assert score.class_iou() == {"road": 50.0, "traffic sign": 100.0}
    folder = tmp_path / "toy"
    before = load_card(folder)
    write_class_iou(folder, {"lidar": score})
    after = load_card(folder)
    assert after.training.metrics["iou_by_subset"] == {"lidar": {"road": 50.0, "traffic sign": 100.0}}
    assert after.training.metrics["iou_by_subset_data"] == {"lidar": "LiDAR alone, SemanticKITTI val, points"}
    assert after.networks == before.networks
    with pytest.raises(ValueError, match="--limit"):
        measure_street(str(folder), tmp_path, limit=2, write_card=True)


def test_agreement_is_of_what_the_camera_calls_so_and_iou_of_what_either_does() -> None:
    score = DriveScore()
    by_camera, by_lidar = np.zeros((2, 10), bool)
    by_camera[:4], by_lidar[2:8] = True, True
    score.add("road", by_camera, by_lidar)
    assert score.agreement("road") == 50.0
    assert score.iou("road") == 25.0
