"""The demo on a recorded drive: the camera dies in the middle, and every mask is filmed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from living_sensors import live_frame
from toy_student import write_toy_student
from typer.testing import CliRunner

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.model_card import load_card
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.sim.bag_writer import write_recording
from anyseg_ros.cli import app
from anyseg_ros.demo.on_bag import FILM, PICTURE
from anyseg_ros.drawing.captions import caption, legend
from anyseg_ros.replay.offline import MASKS

MOMENTS = 20


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Two seconds of a camera and a LiDAR."""
    axes = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    rig = Rig(PinholeCamera(64, 48, 50.0, 50.0, 31.0, 23.0), axes)
    stamps = [10**9 + number * 10**8 for number in range(MOMENTS)]
    sensors = (Sensor.CAMERA, Sensor.LIDAR)
    write_recording(tmp_path / "bag", ((t, {m: live_frame(m, t) for m in sensors}) for t in stamps), rig)
    return tmp_path / "bag"


def test_masks_go_on_after_the_camera_and_every_one_is_filmed(bag: Path, tmp_path: Path) -> None:
    student = write_toy_student(tmp_path / "student", (64, 64), (Sensor.CAMERA, Sensor.LIDAR))
    out = tmp_path / "demo"
    result = CliRunner().invoke(app, ["demo", "--bag", str(bag), "--student", str(student), "--out", str(out)])
    assert result.exit_code == 0, result.output
    masks = [json.loads(line) for line in (out / MASKS).read_text().splitlines()]
    with_fault = [mask for mask in masks if mask["scenario"] != "all"]
    used = [set(mask["used"]) for mask in with_fault]
    assert {"camera", "lidar"} in used[: MOMENTS // 2]
    assert used[-1] == {"lidar"}
    for film, count in ((FILM, len(masks) - len(with_fault)), ("demo_camera_dies.mp4", len(with_fault))):
        assert cv2.VideoCapture(str(out / film)).get(cv2.CAP_PROP_FRAME_COUNT) == count
    picture = cv2.imread(str(out / PICTURE))
    assert picture is not None
    classes = load_card(student).classes
    words = legend(64, classes).shape[0]
    one = 48 + caption(64, "").shape[0]
    assert picture.shape[:2] in ((2 * one + words, 64), (3 * one + words, 64))  # with the camera, and without it
    below = {tuple(int(v) for v in pixel) for pixel in picture[-words:, :, ::-1].reshape(-1, 3)}
    assert {tuple(spec.color) for spec in classes} <= below


def test_a_bag_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--bag", str(tmp_path / "no"), "--out", str(tmp_path / "demo")])
    assert result.exit_code == 2
    assert "no" in result.output
