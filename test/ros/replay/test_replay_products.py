"""What a replay makes of its masks besides their scores: videos, scores of points, views from above."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from small_bags import PERIOD_NS, START_NS, drive, write_ros2
from toy_student import write_toy_student

from anyseg_core.runtime.label_sets import DELIVER
from anyseg_core.runtime.points.label_files import (
    PointLabelError,
    id_table,
    load_names,
    read_point_labels,
    write_point_labels,
)
from anyseg_ros.replay.offline import ReplayOptions
from anyseg_ros.replay.point_scoring import PointTruth
from anyseg_ros.replay.run import RunOptions, run_replay
from anyseg_ros.replay.video import FPS, VideoError

NAMES = [spec.name for spec in DELIVER]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_ros2(tmp_path / "bag", drive(12))


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return write_toy_student(tmp_path / "toy")


def run(options: RunOptions) -> str:
    """What is printed."""
    printed = StringIO()
    run_replay(options, Console(file=printed, width=200))
    return printed.getvalue()


def camera_dies(tmp_path: Path) -> Path:
    path = tmp_path / "camera_dies.yaml"
    path.write_text("injections: [{modality: camera, kind: drop, start_s: 0.5}]\n")
    return path


@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_a_video_of_each_scenario(tmp_path: Path, bag: Path, student: Path, ending: str) -> None:
    replayed = ReplayOptions(student=student, injections=(camera_dies(tmp_path),))
    run(RunOptions(bag, tmp_path / "out", replayed, video=tmp_path / f"film.{ending}"))
    for name in ("film", "film_camera_dies"):
        video = cv2.VideoCapture(str(tmp_path / f"{name}.{ending}"))
        pictures = []
        while (read := video.read())[0]:
            pictures.append(read[1])
        assert video.get(cv2.CAP_PROP_FPS) == FPS
        assert abs(len(pictures) - 12) <= 1  # 1.2 s
        assert pictures[0].shape[0] == 48
        assert pictures[0].shape[1] > 64  # the view from above beside it
        assert pictures[5].std() > 5


def test_a_video_that_no_codec_writes_is_refused_before_anything_is_replayed(
    tmp_path: Path, bag: Path, student: Path
) -> None:
    with pytest.raises(VideoError, match=r"ends in .mp4"):
        run(RunOptions(bag, tmp_path / "out", ReplayOptions(student=student), video=tmp_path / "film.mov"))
    assert not (tmp_path / "out").exists()


def test_the_report_has_a_view_from_above_of_each_phase(tmp_path: Path, bag: Path, student: Path) -> None:
    run(RunOptions(bag, tmp_path / "out", ReplayOptions(student=student, injections=(camera_dies(tmp_path),))))
    html = (tmp_path / "out" / "report.html").read_text()
    assert "Points from above" in html
    assert html.count('alt="points from above"') >= 2


def labels_of_all_scans(folder: Path, label: int, *, by_number: bool) -> Path:
    """The same label for each point of the small bags' scans."""
    from small_bags import LIDAR

    scans = [written for written in drive(12) if written.topic == LIDAR]
    for number, written in enumerate(scans):
        name = f"{number:06d}" if by_number else str(START_NS + number * PERIOD_NS)
        write_point_labels(folder / f"{name}.label", np.full(written.message.width, label, np.uint8))
    return folder


@pytest.mark.parametrize("by_number", [True, False])
def test_points_are_scored_by_distance(tmp_path: Path, bag: Path, student: Path, by_number: bool) -> None:
    """All points are given one class: its IoU is the share of the labelled points that the mask says so of."""
    folder = labels_of_all_scans(tmp_path / "labels", 16, by_number=by_number)
    printed = run(RunOptions(bag, tmp_path / "out", ReplayOptions(student=student), point_labels=folder))
    assert "labelled %" in printed
    score = json.loads((tmp_path / "out" / "points.json").read_text())["all"]
    assert score["scans"] == 12
    assert 0 < score["labelled"] <= 100
    assert set(score["iou"]) == {NAMES[16]}
    assert 0 < score["iou"][NAMES[16]] <= 100
    assert sum(band["points"] for band in score["bands"].values()) == score["points"] > 0


def test_a_file_of_another_number_of_points_is_told_not_scored(tmp_path: Path, bag: Path, student: Path) -> None:
    folder = labels_of_all_scans(tmp_path / "labels", 16, by_number=True)
    write_point_labels(folder / "000003.label", np.zeros(3, np.uint8))
    printed = run(RunOptions(bag, tmp_path / "out", ReplayOptions(student=student), point_labels=folder))
    assert "1 x a scan with another number of points than labels" in printed
    assert json.loads((tmp_path / "out" / "points.json").read_text())["all"]["scans"] == 11


def test_point_labels_are_read_as_semantickitti_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "000000.label"
    path.write_bytes(np.array([40 | 7 << 16, 252, 0], "<u4").tobytes())  # a road of instance 7, a moving car, nothing
    config = Path(__file__).parents[3] / "config" / "replay" / "semantic_kitti.yaml"
    labels = read_point_labels(path, id_table(NAMES, load_names(config)))
    assert labels.tolist() == [NAMES.index("Road"), NAMES.index("Cars"), 255]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("- a\n", "no list of"),
        ("40: Street\n", "'Street', which is none of"),
        ("x: Road\n", "no list"),
        ("40: Road\n40: Cars\n", "key 40 stands twice"),
    ],
)
def test_wrong_names_of_point_classes_are_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(content)
    with pytest.raises(PointLabelError, match=told):
        id_table(NAMES, load_names(path))


def test_a_folder_without_labels_of_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PointLabelError, match="name the files by the scan's stamp"):
        PointTruth(tmp_path, id_table(NAMES), [1, 2])


def test_labels_of_points_in_a_folder_below_are_told(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for name in ("000000.label", "labels/000001.label"):
        (tmp_path / name).touch()
    with pytest.raises(PointLabelError, match=r"labels/000001\.label lies in a folder below"):
        PointTruth(tmp_path, id_table(NAMES), [1, 2])


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.label").write_bytes(b"12345")
    with pytest.raises(PointLabelError, match="5 bytes"):
        read_point_labels(tmp_path / "1.label", id_table(NAMES))
