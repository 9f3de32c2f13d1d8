"""`data from-bag` adds to a data set what fits it, says what does not, and never changes what somebody wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_bags import (
    CAMERA,
    DEPTH,
    EVENTS,
    HEIGHT,
    INFO,
    LABELS,
    LIDAR,
    PERIOD_NS,
    START_NS,
    TF,
    WIDTH,
    Written,
    camera_info,
    drive,
    image,
    write_ros2,
)
from typer.testing import CliRunner, Result

from anyseg_core.data.folder import Folder
from anyseg_core.runtime.class_lists import parse_classes
from anyseg_core.runtime.sample_folder import DESCRIPTION_NAME, RIG_NAME, frame_from_stored, stored_image
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.cli import app

EVERYTHING = {CAMERA, DEPTH, EVENTS, LIDAR, INFO, LABELS, TF}


def from_bag(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", "from-bag", *map(str, words)], env={"COLUMNS": "200"})


def with_focal_length(fx: float, topics: set[str] = EVERYTHING) -> Iterator[Written]:
    for w in drive(12, topics):
        k = (fx, 0, 32, 0, fx, 24, 0, 0, 1)
        yield w._replace(message=camera_info(HEIGHT, WIDTH, k, w.received_ns)) if w.topic == INFO else w


def lidar_image(root: Path, drive_name: str) -> np.ndarray:
    dataset = Folder(root, "train", (48, 64))
    index = next(i for i in range(len(dataset)) if drive_name in dataset.name(i))
    return np.array(dataset[index].images[-1])


def test_each_drive_keeps_its_calibration(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    assert from_bag(write_ros2(tmp_path / "monday", with_focal_length(50.0)), root).exit_code == 0
    before = lidar_image(root, "monday")
    assert from_bag(write_ros2(tmp_path / "tuesday", with_focal_length(90.0)), root).exit_code == 0
    fingerprint = Folder(root, "train", (48, 64)).fingerprint
    np.testing.assert_array_equal(lidar_image(root, "monday"), before)
    assert {json.loads(path.read_text())["fx"] for path in root.rglob(RIG_NAME)} == {50.0, 90.0}
    rig = root / "train" / "monday" / RIG_NAME
    rig.write_text(rig.read_text().replace("50.0", "60.0"))
    assert Folder(root, "train", (48, 64)).fingerprint != fingerprint  # a cache is not used after a new calibration


def test_a_damaged_calibration_of_a_drive_is_named(tmp_path: Path) -> None:
    bag = write_ros2(tmp_path / "bag", with_focal_length(50.0))
    assert from_bag(bag, tmp_path / "mine").exit_code == 0
    rig = tmp_path / "mine" / "train" / "bag" / RIG_NAME
    rig.write_bytes(rig.read_bytes()[:30])
    refused = from_bag(bag, tmp_path / "mine")
    assert refused.exit_code == 2
    assert "rig.json is no JSON file" in refused.stderr


def test_another_bag_of_the_same_name_does_not_change_the_calibration_of_what_is_there(tmp_path: Path) -> None:
    root, bag = tmp_path / "mine", write_ros2(tmp_path / "monday" / "bag", with_focal_length(50.0))
    assert from_bag(bag, root).exit_code == 0
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    refused = from_bag(write_ros2(tmp_path / "tuesday" / "bag", with_focal_length(90.0)), root)
    assert refused.exit_code == 2
    assert "rename the bag" in refused.stderr
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before
    assert from_bag(bag, root, "--every-s", 0.5).exit_code == 0  # the same again may be had


def test_an_edited_description_is_never_changed(tmp_path: Path) -> None:
    root, bag = tmp_path / "mine", write_ros2(tmp_path / "bag", drive(12, EVERYTHING))
    assert from_bag(bag, root).exit_code == 0
    path = root / DESCRIPTION_NAME
    edited = path.read_text().replace('"name": "Building"', '"name": "House"')
    assert edited != path.read_text()
    path.write_text(edited)
    assert from_bag(write_ros2(tmp_path / "bag_2", drive(12, EVERYTHING)), root).exit_code == 0
    assert path.read_text() == edited


def test_a_bag_that_lacks_a_sensor_of_the_data_set_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    assert from_bag(write_ros2(tmp_path / "bag", drive(12, EVERYTHING)), root).exit_code == 0
    result = from_bag(write_ros2(tmp_path / "no_lidar", drive(12, {CAMERA, DEPTH, EVENTS, LABELS})), root)
    assert result.exit_code == 2
    assert "has lidar, and this bag has not" in result.stderr
    assert not (root / "train" / "no_lidar").exists()


def test_pictures_are_of_the_topic_that_the_parameters_name(tmp_path: Path) -> None:
    """As the node would subscribe to it, though another one has the usual name."""

    def two_cameras() -> Iterator[Written]:
        for w in drive(12, {CAMERA, LABELS}):
            yield w
            if w.topic == CAMERA:
                black = image(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb8", w.received_ns)
                yield w._replace(topic="/front/image_raw", message=black)

    bag, parameters = write_ros2(tmp_path / "bag", two_cameras()), tmp_path / "vehicle.yaml"
    parameters.write_text("/**: {ros__parameters: {modalities: {camera: {topic: /front/image_raw}}}}")
    assert from_bag(bag, tmp_path / "mine", "--params-file", parameters).exit_code == 0
    assert np.max(Folder(tmp_path / "mine", "train", (48, 64))[0].images[0]) == 0


def test_labels_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    written = [
        w._replace(message=image(np.zeros((HEIGHT, WIDTH), np.uint16), "mono16", w.received_ns))
        if w.topic == LABELS
        else w
        for w in drive(12, EVERYTHING)
    ]
    result = from_bag(write_ros2(tmp_path / "bag", written), tmp_path / "mine")
    assert result.exit_code == 2
    assert f"12 x {LABELS}: encoding 'mono16' is not known" in result.stderr
    assert "--max-time-diff-s" not in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--split", "trian"], "split 'trian' is not known; known: train, val, test"),
        (["--classes", "road"], "two to 254 with names"),
        (["--classes", "road,road"], "a class twice"),
        (["--classes", "road,car"], "has label"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, words: list[str], says: str) -> None:
    result = from_bag(write_ros2(tmp_path / "bag", drive(12, EVERYTHING)), tmp_path / "mine", *words)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert not (tmp_path / "mine" / DESCRIPTION_NAME).exists()


def test_a_folder_of_labels_and_classes_of_one_s_own(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for number in (0, 5):
        cv2.imwrite(str(labels / f"{START_NS + number * PERIOD_NS}.png"), np.full((HEIGHT, WIDTH), 1, np.uint8))
    bag = write_ros2(tmp_path / "bag", drive(12, {CAMERA, DEPTH}))
    result = from_bag(bag, tmp_path / "mine", "--labels", labels, "--classes", "road,pothole", "--every-s", "0.1")
    assert result.exit_code == 0, result.output
    dataset = Folder(tmp_path / "mine", "train", (48, 64))
    assert [entry.name for entry in dataset.classes] == ["road", "pothole"]
    assert [set(np.unique(dataset[index].labels)) for index in range(len(dataset))] == [{1}, {1}]
    misnamed = tmp_path / "misnamed"
    labels.rename(misnamed)
    for path in misnamed.iterdir():
        path.rename(misnamed / f"{int(path.stem) // 1000}.png")
    assert "counts microseconds" in from_bag(bag, tmp_path / "other", "--labels", misnamed).stderr


def test_offsets_and_the_range_of_depth_are_said(tmp_path: Path) -> None:
    def late(w: Written) -> Written:
        if w.topic == DEPTH:
            stamp = w.received_ns + 30_000_000
            w = w._replace(message=image(np.full((HEIGHT, WIDTH), 70.0, np.float32), "32FC1", stamp))
        return w

    bag = write_ros2(tmp_path / "bag", map(late, drive(12, {CAMERA, DEPTH, LABELS})))
    result = from_bag(bag, tmp_path / "mine")
    assert result.exit_code == 0, result.output
    assert "depth lies +30 ms (median) from the moments" in result.output
    assert "100.0 % are beyond 65.535 m, which are stored as not measured" in result.output


def test_depth_that_16_bits_cannot_hold_is_not_measured() -> None:
    metres = np.array([[10.0, 65.5, 65.534, 70.0, 300.0, np.inf, np.nan, 0.0, -1.0]], np.float32)
    stored = stored_image(SensorFrame(Sensor.DEPTH, metres, 0))
    back = frame_from_stored(Sensor.DEPTH, stored).data
    np.testing.assert_allclose(back, [[10.0, 65.5, 65.534, 0, 0, 0, 0, 0, 0]], atol=1e-3)


def test_classes_are_read_from_names_or_a_file(tmp_path: Path) -> None:
    assert [(c.name, len({*c.color}) > 1) for c in parse_classes("road, car")] == [("road", True), ("car", True)]
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"classes": [{"name": "a", "color": [1, 2, 3]}, {"name": "b", "color": [4, 5, 6]}]}))
    assert [c.name for c in parse_classes(str(path))] == ["a", "b"]
    for content in ("[1]", "{}", '[{"name": "a"}]', '{"classes": 3}', "[", "null"):
        path.write_text(content)
        with pytest.raises(ValueError, match="no list of classes") as error:
            parse_classes(str(path))
        assert "pydantic" not in str(error.value)


def with_full_intensity(full_scale: float) -> Iterator[Written]:
    """The same drives by LiDARs of different units: intensities from 0 to `full_scale`."""
    for w in drive(12, EVERYTHING):
        if w.topic == LIDAR:
            w.message.data.view(np.float32)[3::4] = np.linspace(0, full_scale, 1000)
        yield w


def test_a_data_set_has_one_range_of_intensity(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    assert from_bag(write_ros2(tmp_path / "monday", with_full_intensity(1.0)), root).exit_code == 0
    description = json.loads((root / DESCRIPTION_NAME).read_text())
    assert [i["encoding"]["max_intensity"] for i in description["inputs"] if i["modality"] == "lidar"] == [1.0]
    assert from_bag(write_ros2(tmp_path / "tuesday", with_full_intensity(255.0)), root).exit_code == 0
    monday, tuesday = (lidar_image(root, name).astype(int) for name in ("monday", "tuesday"))
    assert monday[..., 1].max() > 200
    # Points are kept and drawn at the network's size, whatever the images were that the student was trained on.
    assert [i["encoding"]["drawn_at"] for i in description["inputs"] if i["modality"] == "lidar"] == [None]
    np.testing.assert_allclose(tuesday[..., 1], monday[..., 1], atol=1)
