"""A drive of KITTI's raw data, and the bag that is made of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from typer.testing import CliRunner

from anyseg_core.data.kitti_drive import KittiDrive
from anyseg_core.data.sample import DataError
from anyseg_core.data.scans import KITTI_CAMERA, KITTI_CAMERA_FROM_LIDAR
from anyseg_core.runtime.geometry.projection import project_points
from anyseg_core.runtime.sensors import Sensor

CALIBRATION = """P2: 7.2e+01 0 60 4.5 0 7.2e+01 20 0.2 0 0 1 0.003
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27
"""


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Three moments: a point 10 m ahead and 1 m to the left."""
    root = tmp_path / "drive"
    for folder in ("image_02/data", "velodyne_points/data"):
        (root / folder).mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(root / f"image_02/data/{number}.png"), np.full((40, 120, 3), number, np.uint8))
        np.array([[10, 1, 0, 0.5]], np.float32).tofile(root / f"velodyne_points/data/{number}.bin")
    (root / "calib.txt").write_text(CALIBRATION)
    return root


def test_frames_and_calibration(drive: Path) -> None:
    recorded = KittiDrive(drive)
    moments = [*recorded.frames()]
    assert [stamp for stamp, _ in moments] == [10**9, 11 * 10**8, 12 * 10**8]
    assert moments[2][1][Sensor.CAMERA].data[0, 0, 0] == 2
    points = np.asarray(moments[0][1][Sensor.LIDAR].data, np.float32)
    _, cols, _, xyz = project_points(points, recorded.rig, 40, 120)
    assert xyz[0] == pytest.approx([-1 + (4.5 - 60 * 0.003) / 72, -0.08 + (0.2 - 20 * 0.003) / 72, 9.733], abs=1e-4)
    assert cols[0] < 60  # left of the middle


def test_a_part_keeps_the_stamps_of_the_whole(drive: Path) -> None:
    assert [stamp for stamp, _ in KittiDrive(drive, 0.34, 1.0).frames()] == [11 * 10**8, 12 * 10**8]
    with pytest.raises(DataError, match=r"no frame of .* lies between 0\.5 and 0\.5"):
        KittiDrive(drive, 0.5, 0.5)
    for part in ((-0.5, 1.0), (0.0, float("nan")), (20, 50)):
        with pytest.raises(DataError, match="from 0 to 1"):
            KittiDrive(drive, *part)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "calib.txt").unlink(), r"has no calib\*\.txt"),
        (lambda root: (root / "calib.txt").write_text("P2: 1 2"), "has no P2 of 3 x 4 numbers"),
        (lambda root: (root / "velodyne_points/data/1.bin").unlink(), "3 pictures in .* and 2 scans"),
        (lambda root: (root / "velodyne_points/data/1.bin").write_bytes(bytes(20)), "1.bin holds 5 numbers"),
        (lambda root: (root / "velodyne_points/data/1.bin").rename(root / "velodyne_points/data/7.bin"), "partner"),
        (lambda root: (root / "calib.txt").write_bytes(b"\xff\xfe"), "has no P2 of 3 x 4 numbers"),
        (lambda root: (root / "calib.txt").write_text(CALIBRATION.replace("7.2e+01", "nan")), "has no P2"),
        (lambda root: (root / "calib.txt").write_text(CALIBRATION.replace("7.2e+01", "0")), "has no P2"),
    ],
)
def test_what_is_missing_or_torn_is_named(drive: Path, spoil, message: str) -> None:
    spoil(drive)
    with pytest.raises(DataError, match=message):
        list(KittiDrive(drive).frames())


def test_the_drive_becomes_a_bag_of_its_two_sensors(drive: Path, tmp_path: Path) -> None:
    from anyseg_core.cli import data_commands

    result = CliRunner().invoke(data_commands, ["kitti-bag", str(drive), str(tmp_path / "bag")])
    assert result.exit_code == 0, result.output
    with AnyReader([tmp_path / "bag"]) as bag:
        counts = {connection.topic: connection.msgcount for connection in bag.connections}
    assert counts == {"/camera/image_raw": 3, "/camera/camera_info": 3, "/lidar/points": 3, "/tf_static": 1}


def test_the_virtual_camera_of_scans_is_the_one_of_the_recorded_drive(recorded_data: Path) -> None:
    rig = KittiDrive(recorded_data / "street/kitti_drive").rig
    np.testing.assert_allclose(rig.camera_from_lidar, KITTI_CAMERA_FROM_LIDAR, atol=1e-8)
    assert (rig.camera.width, rig.camera.height) == (KITTI_CAMERA.width, KITTI_CAMERA.height)
    assert rig.camera.fx == pytest.approx(KITTI_CAMERA.fx)
    assert rig.camera.cy == pytest.approx(KITTI_CAMERA.cy)
