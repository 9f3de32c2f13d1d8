"""Bags of real sensors: the recorded ones as they were found, and bags made here from recorded frames."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_bags import (
    CAMERA,
    DEPTH,
    INFO,
    LABELS,
    LIDAR,
    TF,
    Written,
    camera_info,
    image,
    point_cloud,
    transforms,
    write_ros2,
)
from toy_student import write_toy_student

from anyseg_core.runtime.geometry.rigid_transform import quaternion
from anyseg_core.runtime.model_card import bundled_students
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.pipeline.parameters import Parameters, from_values
from anyseg_ros.replay.mask_records import read_records
from anyseg_ros.replay.offline import MASKS, ReplayOptions, ReplayResult, replay
from anyseg_ros.replay.scenarios import ALL_SENSORS

PERIOD_NS = 100_000_000
START_NS = 1_600_000_000_000_000_000


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segmenter]:
    segmenter = Segmenter.open(write_toy_student(tmp_path_factory.mktemp("student") / "toy"), threads=1)
    yield segmenter
    segmenter.close()


def replayed(
    bag: Path, out: Path, segmenter: Segmenter, parameters: Parameters | None = None
) -> tuple[ReplayResult, list[frozenset[Sensor]]]:
    result = replay(bag, out, ReplayOptions(parameters=parameters), segmenter=segmenter)
    return result, [frozenset(record.used) for record in read_records(out / MASKS)]


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("test_events_1", 2.08), ("test_events_2", 0.99), ("test_events_2/test_events_2_0.mcap", 0.99)],
)
def test_event_cameras(recorded_data: Path, tmp_path: Path, segmenter: Segmenter, name: str, seconds: float) -> None:
    result, used = replayed(recorded_data / "event_bags" / name, tmp_path, segmenter)
    assert result.duration_s == pytest.approx(seconds, abs=0.01)
    assert result.received[Sensor.EVENT] == pytest.approx(10 * seconds, abs=2)  # a frame each tenth of a second
    assert not result.rejected
    assert len(used) >= result.received[Sensor.EVENT] - 1
    assert set(used) == {frozenset({Sensor.EVENT})}
    broken = [problem for problem in result.problems if "metadata.yaml is broken" in problem.text]
    assert len(broken) == (name == "test_events_2")
    assert not any(problem.lost for problem in result.problems)


@pytest.mark.slow
def test_point_clouds_of_a_depth_camera(recorded_data: Path, tmp_path: Path, segmenter: Segmenter) -> None:
    """Recorded in simulation: its stamps are 53 years from its times of reception. Calibration from parameters."""
    (archive,) = (recorded_data / "pointcloud_bag").glob("*.tar.xz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path)
    (bag,) = (path for path in tmp_path.iterdir() if path.is_dir())
    calibrated = from_values(
        {
            "rig.intrinsics": [640.0, 480.0, 460.0, 460.0, 320.0, 240.0],
            "rig.camera_from_lidar_rotation_xyzw": [0.0, 0.0, 0.0, 1.0],
            "modalities.lidar.expected_rate_hz": 5.0,  # 8 to 20 Hz
            "faults.lidar_sector_lost.enabled": False,  # a depth camera sees one sector
        }
    )
    result, used = replayed(bag, tmp_path / "out", segmenter, calibrated)
    assert result.received == {Sensor.LIDAR: 263}
    assert "another clock" in result.notes[0]
    assert len(used) > 200
    assert not any(problem.lost for problem in result.problems)


@pytest.fixture
def pothole_bag(pothole_data: Path, tmp_path: Path) -> Path:
    """The twelve test frames at 10 Hz: the files' own pixels, disparity as 16UC1, labels as mono8."""

    def written() -> Iterator[Written]:
        for index, path in enumerate(sorted((pothole_data / "rgb").glob("dataset1_*.jpg"))):
            stamp = START_NS + index * PERIOD_NS
            bgr = cv2.imread(str(path))
            disparity = cv2.imread(str(pothole_data / "disparity" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
            labels = cv2.imread(str(pothole_data / "label" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
            assert bgr is not None
            assert disparity is not None
            assert labels is not None
            yield Written(CAMERA, stamp, image(bgr, "bgr8", stamp))
            yield Written(DEPTH, stamp, image(disparity, "16UC1", stamp))
            yield Written(LABELS, stamp, image(labels, "mono8", stamp))

    return write_ros2(tmp_path / "pothole", written())


@pytest.mark.slow
def test_potholes_are_found(pothole_bag: Path, tmp_path: Path) -> None:
    if "pothole" not in bundled_students():
        pytest.skip("the student `pothole` is not bundled: make students")
    result = replay(pothole_bag, tmp_path / "out", ReplayOptions("pothole", from_values({"model.threads": 1})))
    score = result.scores[ALL_SENSORS]
    assert (score.masks, score.scored) == (12, 12)
    assert score.confusion.miou() > 0.6
    assert not result.problems


@pytest.fixture
def kitti_bag(recorded_data: Path, tmp_path: Path) -> Path:
    """The two frames, with calibration as camera_info and a transform: image 2 is 4.5 cm beside camera 0."""
    root = recorded_data / "kitti"
    calibration = kitti_calibration(root)
    rectified = np.eye(4)
    rectified[:3, :3] = calibration["R0_rect"].reshape(3, 3)
    velodyne = np.eye(4)
    velodyne[:3] = calibration["Tr_velo_to_cam"].reshape(3, 4)
    rotation = (rectified @ velodyne)[:3, :3]
    k = calibration["P2"].reshape(3, 4)[:, :3].ravel()

    def written() -> Iterator[Written]:
        images, scans = sorted(root.rglob("*.png")), sorted(root.rglob("*.bin"))
        for index, (picture, scan) in enumerate(zip(images, scans, strict=True)):
            stamp = START_NS + index * PERIOD_NS
            bgr = cv2.imread(str(picture))
            assert bgr is not None
            if index == 0:
                yield Written(TF, stamp, transforms("camera_optical_frame", "lidar", quaternion(rotation), stamp))
            yield Written(INFO, stamp, camera_info(bgr.shape[0], bgr.shape[1], k, stamp))
            yield Written(CAMERA, stamp, image(bgr, "bgr8", stamp))
            yield Written(LIDAR, stamp, point_cloud(np.fromfile(scan, np.float32).reshape(-1, 4), stamp))

    return write_ros2(tmp_path / "kitti", written())


def kitti_calibration(root: Path) -> dict[str, np.ndarray]:
    """Name -> numbers, from the first calibration file."""
    path = next(path for path in sorted(root.rglob("*.txt")) if "P2:" in path.read_text())
    lines = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    names = {"R_rect": "R0_rect", "Tr_velo_cam": "Tr_velo_to_cam"}
    return {names.get(name, name): np.array(values.split(), float) for name, values in lines}


def test_a_street_with_lidar(kitti_bag: Path, tmp_path: Path, segmenter: Segmenter) -> None:
    result, used = replayed(kitti_bag, tmp_path / "out", segmenter)
    assert used == [frozenset({Sensor.CAMERA, Sensor.LIDAR})] * 2
    assert result.rig is not None
    assert result.rig.camera.fx == pytest.approx(721.5, abs=1)
    assert not result.problems
