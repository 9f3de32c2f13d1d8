"""What the simulator writes reads back: DELIVER's layout, ROS 2 bags, recorded drives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from anyseg_core.processes import map_over_processes
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.label_sets import DELIVER
from anyseg_core.runtime.model_card import InputSpec
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.sim import Drive, DriveConfig, Weather
from anyseg_core.sim.bag_writer import TOPICS, write_bag
from anyseg_core.sim.deliver_writer import (
    FOLDER_OF,
    INPUTS_NAME,
    LABEL_FOLDER,
    VEHICLE_INPUTS,
    DriveJob,
    drive_config,
    simulate_dataset,
    write_drive,
    write_inputs,
)
from anyseg_core.sim.recorded_drive import RecordedDrive, RecordingError

SMALL = DriveConfig(seed=5, weather=Weather.SUN, duration_s=0.3, width=96, height=64)


@pytest.fixture(scope="module")
def drive() -> Drive:
    return Drive(SMALL)


# --- DELIVER ---


def read(root: Path, config: DriveConfig, index: int, folder: str, suffix: str) -> np.ndarray:
    place = root / folder / str(config.weather) / "val" / f"MAP_{config.seed}_point0"
    image = cv2.imread(str(place / f"{index:06d}_{suffix}_front.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image[..., ::-1]


def test_deliver_files_hold_the_network_images_and_labels(tmp_path: Path, drive: Drive) -> None:
    assert write_drive(DriveJob(tmp_path, "val", SMALL, every=3, size=(64, 64))) == 1
    frame = drive.frame(2)
    for spec in VEHICLE_INPUTS:
        expected = encode_frame(frame.frames[spec.modality], spec, (64, 64), drive.rig())
        np.testing.assert_array_equal(read(tmp_path, SMALL, 2, *FOLDER_OF[spec.modality]), expected)
    stored = read(tmp_path, SMALL, 2, *LABEL_FOLDER)[..., 0]
    assert 1 <= stored.min() <= stored.max() <= len(DELIVER)
    np.testing.assert_array_equal(stored - 1, cv2.resize(frame.labels, (64, 64), interpolation=cv2.INTER_NEAREST))


def stored_inputs(root: Path) -> dict[str, InputSpec]:
    stored = json.loads((root / INPUTS_NAME).read_text())
    return {spec["modality"]: InputSpec.model_validate(spec) for spec in stored}


def test_inputs_file_holds_the_specs(tmp_path: Path) -> None:
    write_inputs(tmp_path, (64, 96))
    *others, lidar = stored_inputs(tmp_path).values()
    assert tuple(others) == VEHICLE_INPUTS[:3]
    assert lidar.encoding.drawn_at == (64, 96)  # type: ignore[union-attr]
    assert lidar.encoding.model_copy(update={"drawn_at": None}) == VEHICLE_INPUTS[3].encoding
    assert tuple(spec.modality for spec in VEHICLE_INPUTS) == DEFAULT_SENSORS


def test_the_robot_draws_points_as_a_network_of_another_size_was_shown_them(tmp_path: Path, drive: Drive) -> None:
    drawn, network = (64, 96), (32, 64)
    write_inputs(tmp_path, drawn)
    write_drive(DriveJob(tmp_path, "val", SMALL, every=3, size=drawn))
    on_disk = read(tmp_path, SMALL, 2, *FOLDER_OF[Sensor.LIDAR])
    in_training = cv2.resize(on_disk, network[::-1], interpolation=cv2.INTER_NEAREST)
    frame = drive.frame(2).frames[Sensor.LIDAR]
    on_the_robot = encode_frame(frame, stored_inputs(tmp_path)["lidar"], network, drive.rig())
    np.testing.assert_array_equal(on_the_robot, in_training)
    as_if_drawn_there = encode_frame(frame, VEHICLE_INPUTS[3], network, drive.rig())
    assert (as_if_drawn_there.any(axis=-1).mean() - in_training.any(axis=-1).mean()) > 0.02  # larger squares


def test_simulate_dataset_writes_every_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[DriveJob] = []
    monkeypatch.setattr("anyseg_core.sim.deliver_writer.write_drive", lambda job: written.append(job) or 4)
    progress: list[tuple[int, int]] = []
    count = simulate_dataset(
        tmp_path, 5, 2, 4, test_drives=1, workers=0, progress=lambda done, total: progress.append((done, total))
    )
    assert count == 32
    assert progress[-1] == (8, 8)
    assert [job.split for job in written] == ["train"] * 5 + ["val"] * 2 + ["test"]
    assert {job.config.weather for job in written[:5]} == set(Weather)
    assert len({job.config.seed for job in written}) == 8
    assert {len(range(job.every - 1, round(job.config.duration_s * 10), job.every)) for job in written} == {4}
    assert (tmp_path / INPUTS_NAME).is_file()


def test_frames_of_other_settings_are_not_mixed_with_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyseg_core.sim.deliver_writer.write_drive", lambda _job: 0)
    write_inputs(tmp_path, (64, 64))
    for index in (7, 15):
        frame = tmp_path / f"semantic/sun/train/MAP_1000001_point0/{index:06d}_semantic_front.png"
        frame.parent.mkdir(parents=True, exist_ok=True)
        frame.touch()
    weather = drive_config("train", 1, 1.0).weather
    (tmp_path / "semantic" / "sun").rename(tmp_path / "semantic" / str(weather))
    simulate_dataset(tmp_path, 2, 0, 2, size=(64, 64), workers=0)  # the same again
    simulate_dataset(tmp_path, 0, 0, 1, test_drives=1, size=(64, 64), workers=0)  # another split
    with pytest.raises(ValueError, match="another size"):
        simulate_dataset(tmp_path, 2, 0, 2, size=(32, 64), workers=0)
    for drives, frames in ((2, 1), (1, 2)):
        with pytest.raises(ValueError, match="frames of other settings"):
            simulate_dataset(tmp_path, drives, 0, frames, size=(64, 64), workers=0)


@pytest.mark.parametrize("every_s", [0.25, float("nan"), float("inf"), 0.0])
def test_frames_are_apart_by_tenths_of_seconds(tmp_path: Path, every_s: float) -> None:
    with pytest.raises(ValueError, match="every_s must be tenths"):
        simulate_dataset(tmp_path, 1, 0, 1, every_s=every_s)


@pytest.mark.parametrize("counts", [(0, 0, 5), (-1, 5, 5), (1, 1, 0)])
def test_empty_data_set_is_refused(tmp_path: Path, counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="nothing to simulate"):
        simulate_dataset(tmp_path, *counts)


def test_splits_share_no_world() -> None:
    seeds = [{drive_config(split, k, 1.0).seed for k in range(200)} for split in ("train", "val", "test")]
    assert not seeds[0] & seeds[1]
    assert not seeds[1] & seeds[2]
    assert not seeds[0] & seeds[2]


@pytest.mark.slow
def test_processes_render_what_one_does(drive: Drive) -> None:
    other = DriveConfig(seed=6, weather=Weather.RAIN, duration_s=0.2, width=96, height=64)
    rendered = dict(map_over_processes(second_event_image, [SMALL, other], workers=2))
    assert set(rendered) == {SMALL, other}
    np.testing.assert_array_equal(rendered[SMALL], drive.frame(1).frames[Sensor.EVENT].data)


def second_event_image(config: DriveConfig) -> tuple[DriveConfig, np.ndarray]:
    return config, Drive(config).frame(1).frames[Sensor.EVENT].data


# --- bags ---


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_bag_reads_back(tmp_path: Path, drive: Drive, storage: str) -> None:
    from rosbags.highlevel import AnyReader

    folder = tmp_path / "bag"
    assert write_bag(folder, drive, drive.rig(), storage=storage) == 3
    with AnyReader([folder]) as reader:
        messages: dict[str, tuple[int, Any]] = {  # the last of each topic
            c.topic: (t, reader.deserialize(raw, c.msgtype)) for c, t, raw in reader.messages()
        }
        counts = {topic: sum(c.msgcount for c in reader.topics[topic].connections) for topic in TOPICS}
    assert counts == {topic: 1 if topic == "/tf_static" else 3 for topic in TOPICS}
    last = drive.frame(2)
    sensor = {m: last.frames[m].data for m in DEFAULT_SENSORS}
    stamp, image = messages["/camera/image_raw"]
    assert stamp == last.stamp_ns == image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
    assert (image.encoding, image.step, image.header.frame_id) == ("rgb8", 96 * 3, "camera_optical_frame")
    np.testing.assert_array_equal(image.data.reshape(64, 96, 3), sensor[Sensor.CAMERA])
    depth = messages["/depth/image_rect"][1]
    np.testing.assert_array_equal(depth.data.view(np.float32).reshape(64, 96), sensor[Sensor.DEPTH])
    events = messages["/events"][1].data.reshape(64, 96, 3)
    np.testing.assert_array_equal(events[..., :2], sensor[Sensor.EVENT])
    cloud = messages["/lidar/points"][1]
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "intensity"]
    np.testing.assert_array_equal(cloud.data.view(np.float32).reshape(-1, 4), sensor[Sensor.LIDAR])
    labels = messages["/ground_truth/labels"][1]
    np.testing.assert_array_equal(labels.data.reshape(64, 96), last.labels)
    info = messages["/camera/camera_info"][1]
    assert info.k[0] == info.p[0] == drive.rig().camera.fx
    assert info.k[5] == info.p[6] == drive.rig().camera.cy
    transform = messages["/tf_static"][1].transforms[0]
    assert transform.child_frame_id == cloud.header.frame_id == "lidar"
    assert transform.transform.translation.z == pytest.approx(drive.rig().camera_from_lidar[2, 3])


def test_bag_is_not_written_over_another(tmp_path: Path, drive: Drive) -> None:
    with pytest.raises(FileExistsError, match="exists already"):
        write_bag(tmp_path, drive, drive.rig())


def test_unknown_storage_names_the_known(tmp_path: Path, drive: Drive) -> None:
    with pytest.raises(ValueError, match="mcap or sqlite3"):
        write_bag(tmp_path / "bag", drive, drive.rig(), storage="rosbag1")


# --- recorded drives ---


def test_recording_reads_back(tmp_path: Path, drive: Drive) -> None:
    path = tmp_path / "drives" / "small.npz"
    RecordedDrive.of(drive, drive.rig()).save(path)
    recording = RecordedDrive.load(path)
    assert len(recording) == 3
    assert recording.rig().camera == drive.rig().camera
    np.testing.assert_array_equal(recording.rig().camera_from_lidar, drive.rig().camera_from_lidar)
    for original, copy in zip(drive, recording, strict=True):
        assert copy.stamp_ns == original.stamp_ns
        np.testing.assert_array_equal(copy.labels, original.labels)
        then = {m: original.frames[m].data.astype(np.float32) for m in DEFAULT_SENSORS}
        now = {m: copy.frames[m].data.astype(np.float32) for m in DEFAULT_SENSORS}
        np.testing.assert_array_equal(now[Sensor.EVENT], then[Sensor.EVENT])
        np.testing.assert_allclose(now[Sensor.DEPTH], then[Sensor.DEPTH], atol=0.00051)
        np.testing.assert_allclose(now[Sensor.LIDAR], then[Sensor.LIDAR], atol=0.0051)
        assert np.abs(now[Sensor.CAMERA] - then[Sensor.CAMERA]).mean() < 6
        assert [copy.frames[m].data.dtype for m in DEFAULT_SENSORS] == [
            original.frames[m].data.dtype for m in DEFAULT_SENSORS
        ]
        assert [copy.frames[m].frame_id for m in DEFAULT_SENSORS] == [
            original.frames[m].frame_id for m in DEFAULT_SENSORS
        ]


def test_missing_recording_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="anyseg simulate"):
        RecordedDrive.load(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_damaged_recording_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"bad\.npz is not a recorded drive"):
        RecordedDrive.load(path)
