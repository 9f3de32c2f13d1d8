"""One's own data, written as frames and read as the robot would encode them; broken samples are named, or skipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shapes_dataset import write_png, write_shapes

from anyseg_core.data.datasets import DataConfig, describe_data, open_dataset
from anyseg_core.data.deliver import Deliver
from anyseg_core.data.folder import Folder
from anyseg_core.data.sample import DataError
from anyseg_core.data.usable import UsableSamples, find_broken
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.model_card import (
    ClassSpec,
    DepthEncoding,
    EventEncoding,
    InputSpec,
    LidarEncoding,
    RgbEncoding,
)
from anyseg_core.runtime.sample_folder import (
    DESCRIPTION_NAME,
    FolderDescription,
    RigSpec,
    write_description,
    write_rig,
    write_sample,
)
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.training.config import ConfigError, parse_config

SIZE = (32, 64)
RIG = Rig(PinholeCamera(80, 40, 50.0, 50.0, 39.5, 19.5), np.diag([1.0, 1.0, 1.0, 1.0]))
INPUTS = (
    InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding()),
    InputSpec(modality=Sensor.DEPTH, encoding=DepthEncoding()),
    InputSpec(modality=Sensor.EVENT, encoding=EventEncoding()),
    InputSpec(modality=Sensor.LIDAR, encoding=LidarEncoding()),
)
CLASSES = (ClassSpec(name="floor", color=(1, 2, 3)), ClassSpec(name="thing", color=(4, 5, 6)))


def frames(seed: int) -> list[SensorFrame]:
    random = np.random.default_rng(seed)
    depth = np.rint(random.uniform(500, 60_000, (40, 80))) / 1000
    depth[:4] = 0
    points = random.uniform([-3, -2, 4, 0], [3, 2, 30, 255], (200, 4))
    return [
        SensorFrame(Sensor.CAMERA, random.integers(0, 256, (40, 80, 3), np.uint8), 0),
        SensorFrame(Sensor.DEPTH, depth.astype(np.float32), 0),
        SensorFrame(Sensor.EVENT, random.integers(0, 9, (40, 80, 2), np.uint8), 0),
        SensorFrame(Sensor.LIDAR, points.astype(np.float32), 0),
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_description(tmp_path, FolderDescription(classes=CLASSES, inputs=INPUTS, rig=RigSpec.of(RIG)))
    for index in range(3):
        labels = np.full((40, 80), index % 2, np.uint8)
        labels[0] = 255
        write_sample(tmp_path / "train" / "drive_1", f"{index:06d}", frames(index), labels)
    return tmp_path


def test_what_was_written_is_encoded_as_the_robot_would(root: Path) -> None:
    dataset = Folder(root, "train", SIZE)
    assert len(dataset) == 3
    assert dataset.name(0) == "train/drive_1/000000"
    sample = dataset[1]
    for image, frame, spec in zip(sample.images, frames(1), INPUTS, strict=True):
        np.testing.assert_array_equal(image, encode_frame(frame, spec, SIZE, RIG), err_msg=frame.modality)
    assert set(np.unique(sample.labels)) == {1, 255}
    assert [entry.name for entry in dataset.classes] == ["floor", "thing"]


def test_the_camera_may_be_a_jpeg_and_modalities_may_be_fewer(root: Path) -> None:
    picture = np.full((40, 80, 3), 77, np.uint8)
    folder = root / "train" / "drive_1"
    (folder / "000000_camera.png").unlink()
    write_png(folder / "000000_camera.jpg", picture)
    sample = Folder(root, "train", SIZE, [Sensor.CAMERA])[0]
    assert sample.images.shape == (1, *SIZE, 3)
    assert np.abs(sample.images[0].astype(int) - 77).max() <= 2


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("000000_camera.png", None, "000000_camera.png is missing"),
        ("000000_depth.png", b"no png", "000000_depth.png is damaged"),
        ("000000_lidar.npy", b"no npy", "000000_lidar.npy"),
        ("000000_lidar.npy", None, "000000_lidar.npy is missing"),
        ("000000_label.png", b"no png", "000000_label.png is no PNG"),
    ],
)
def test_a_broken_file_is_named(root: Path, file: str, content: bytes | None, says: str) -> None:
    path = root / "train" / "drive_1" / file
    dataset = Folder(root, "train", SIZE)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        _ = dataset[0]


@pytest.mark.parametrize("place", ["train/drive_1/second", "train"])
def test_labels_at_another_depth_are_not_left_out_in_silence(root: Path, place: str) -> None:
    write_sample(root / place, "000007", frames(7), np.zeros((40, 80), np.uint8))
    with pytest.raises(DataError, match=f"{place}/000007_label.png is not in a folder of a drive.*move them there"):
        Folder(root, "train", SIZE)


def test_images_of_the_wrong_kind_are_named(root: Path) -> None:
    folder = root / "train" / "drive_1"
    write_png(folder / "000000_depth.png", np.zeros((40, 80, 3), np.uint8))
    with pytest.raises(DataError, match=r"000000_depth\.png .* is no depth"):
        _ = Folder(root, "train", SIZE)[0]
    write_png(folder / "000001_label.png", np.zeros((40, 80, 3), np.uint8))
    with pytest.raises(DataError, match="is a colour PNG"):
        _ = Folder(root, "train", SIZE)[1]
    write_png(folder / "000002_label.png", np.full((40, 80), 7, np.uint8)[..., None].repeat(3, 2)[..., 0])
    with pytest.raises(DataError, match="has label 7"):
        _ = Folder(root, "train", SIZE)[2]


def test_a_description_that_cannot_be_used_is_named(root: Path) -> None:
    tree = json.loads((root / DESCRIPTION_NAME).read_text())
    (root / DESCRIPTION_NAME).write_text(json.dumps(tree | {"rig": None}))
    with pytest.raises(DataError, match=r"000000_lidar\.npy.*rig"):
        _ = Folder(root, "train", SIZE)[0]
    (root / DESCRIPTION_NAME).write_text(json.dumps(tree | {"classes": []}))
    with pytest.raises(DataError, match=r"dataset\.json is not valid: classes"):
        Folder(root, "train", SIZE)
    for key in ("classes", "inputs"):
        (root / DESCRIPTION_NAME).write_text(json.dumps(tree | {key: [*tree[key], tree[key][0]]}))
        with pytest.raises(DataError, match=rf"dataset\.json is not valid: .* stands twice in {key}"):
            Folder(root, "train", SIZE)
    (root / DESCRIPTION_NAME).unlink()
    with pytest.raises(DataError, match=r"dataset\.json is missing"):
        Folder(root, "train", SIZE)
    write_description(root, FolderDescription.model_validate(tree))
    with pytest.raises(DataError, match="no labels"):
        Folder(root, "val", SIZE)


# --- any data set, through the configuration


def test_broken_samples_are_found_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_shapes(tmp_path / "shapes")
    (root / "event/sun/train/MAP_1_point0/000002_event_front.png").write_bytes(b"no png")
    (root / "img/sun/train/MAP_1_point0/000004_rgb_front.png").unlink()
    source = Deliver(root, "train", (64, 64))
    broken = find_broken(source, show_progress=False)
    assert [sample.position for sample in broken] == [2, 4]
    assert "000002_event_front.png is damaged" in broken[0].error
    assert "000004_rgb_front.png is missing" in broken[1].error
    usable = UsableSamples(source, show_progress=False)
    assert len(usable) == 4
    assert usable.name(2) == source.name(3)
    np.testing.assert_array_equal(usable[2].images, source[3].images)
    config = DataConfig(root=root, size=(64, 64), skip_broken=True, cache=tmp_path / "cache")
    packed = open_dataset(config, "train")
    assert len(packed) == 4
    assert "2 broken ones skipped" in packed.description
    assert capsys.readouterr().err.count("skipped sun/train/") == 2
    with pytest.raises(DataError, match="skip_broken"):
        open_dataset(config.model_copy(update={"skip_broken": False}), "train")


def test_without_broken_samples_the_cache_follows_the_calibration_too(root: Path, tmp_path: Path) -> None:
    (root / "train" / "drive_1" / "000002_camera.png").unlink()
    config = DataConfig(kind="folder", root=root, size=SIZE, skip_broken=True, cache=tmp_path / "cache")
    before = np.array(open_dataset(config, "train")[0].images[3])
    zoomed = Rig(PinholeCamera(80, 40, 90.0, 90.0, 39.5, 19.5), RIG.camera_from_lidar)
    write_rig(root / "train" / "drive_1", zoomed)
    after = open_dataset(config, "train")[0].images[3]
    np.testing.assert_array_equal(after, encode_frame(frames(0)[3], INPUTS[3], SIZE, zoomed))
    assert (after != before).any()


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.5, -1.2, 0.1, 1]]),  # its columns written as rows
        np.diag([-1, 1, 1, 1]),
        np.diag([1000, 1000, 1000, 1]),
    ],
    ids=["transposed", "mirrored", "in_millimetres"],
)
def test_a_calibration_that_is_none_is_refused(root: Path, matrix: np.ndarray) -> None:
    tree = json.loads((root / DESCRIPTION_NAME).read_text())
    tree["rig"]["camera_from_lidar"] = matrix.tolist()
    (root / DESCRIPTION_NAME).write_text(json.dumps(tree))
    with pytest.raises(DataError, match="camera_from_lidar is no rigid transform"):
        Folder(root, "train", SIZE)
    tree["rig"] |= {"camera_from_lidar": np.eye(4).tolist(), "fx": 0.0}
    (root / DESCRIPTION_NAME).write_text(json.dumps(tree))
    with pytest.raises(DataError, match="focal lengths positive"):
        Folder(root, "train", SIZE)


def test_normalisation_by_nothing_is_refused(root: Path) -> None:
    tree = json.loads((root / DESCRIPTION_NAME).read_text())
    tree["inputs"][0]["std"] = [0.2, 0.0, 0.2]
    (root / DESCRIPTION_NAME).write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"dataset\.json is not valid: .*std"):
        Folder(root, "train", SIZE)


def test_a_sensor_whose_name_ends_like_anothers_is_not_taken_for_it(root: Path) -> None:
    front = InputSpec.model_validate({"modality": "front_camera", "kind": "camera", "encoding": {"kind": "rgb"}})
    write_description(root, FolderDescription(classes=CLASSES, inputs=(INPUTS[0], front)))
    for index in range(3):
        picture = np.full((40, 80, 3), index, np.uint8)
        write_sample(root / "train" / "drive_1", f"{index:06d}", [SensorFrame(front.modality, picture, 0)], None)
    dataset = Folder(root, "train", SIZE, [Sensor.CAMERA, front.modality], labelled=False)
    assert [dataset.name(index)[-6:] for index in range(len(dataset))] == ["000000", "000001", "000002"]


def test_a_calibration_of_another_picture_is_refused(root: Path) -> None:
    camera = RIG.camera
    half = Rig(PinholeCamera(40, 20, camera.fx / 2, camera.fy / 2, 19.5, 9.5), RIG.camera_from_lidar)
    write_rig(root / "train" / "drive_1", half)  # the same view at half the size
    assert len(Folder(root, "train", SIZE)[0].images) == 4
    square = Rig(PinholeCamera(40, 40, camera.fx, camera.fy, 19.5, 19.5), RIG.camera_from_lidar)
    write_rig(root / "train" / "drive_1", square)
    with pytest.raises(DataError, match=r"000000_label\.png is 80x40, but the calibration .* is of 40x40"):
        _ = Folder(root, "train", SIZE)[0]


def test_a_data_set_of_broken_samples_only_is_refused(tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "shapes", train=1)
    (root / "img/sun/train/MAP_1_point0/000000_rgb_front.png").unlink()
    with pytest.raises(DataError, match=r"none of .* can be read, such as: .*000000_rgb"):
        UsableSamples(Deliver(root, "train", (64, 64)), show_progress=False)


def test_without_a_cache_samples_are_the_same(tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "shapes")
    config = DataConfig(root=root, size=(64, 64), cache=tmp_path / "cache")
    packed, direct = (open_dataset(config.model_copy(update={"cache": c}), "train") for c in (config.cache, None))
    for index in range(len(packed)):
        np.testing.assert_array_equal(packed[index].images, direct[index].images)
    assert [path.name for path in tmp_path.iterdir() if path.name == "cache"] == ["cache"]


def test_weathers_and_failure_cases_can_be_chosen(tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "shapes", train=2)
    for folder in root.glob("*/sun/train/MAP_1_point0"):
        other = folder.parents[2] / "night" / "train" / "MAP_2_point1_motionblur"
        other.mkdir(parents=True)
        for file in folder.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
    size = (64, 64)
    assert len(Deliver(root, "train", size)) == 4
    assert len(Deliver(root, "train", size, conditions=["night"])) == 2
    assert "motionblur" in Deliver(root, "train", size, cases=["motionblur"]).name(0)
    with pytest.raises(DataError, match="has no drive of sun, motionblur"):
        Deliver(root, "train", size, conditions=["sun"], cases=["motionblur"])
    with pytest.raises(DataError, match="known: motionblur, overexposure"):
        Deliver(root, "train", size, cases=["blur"])


def test_what_a_data_set_is_can_be_told_without_its_files(root: Path, tmp_path: Path) -> None:
    inputs, classes = describe_data(DataConfig(root=tmp_path / "nowhere"))
    assert (len(inputs), len(classes)) == (4, 25)
    inputs, classes = describe_data(DataConfig(kind="muses", root=tmp_path / "nowhere"))
    assert ([spec.modality for spec in inputs], len(classes)) == ([m for m in DEFAULT_SENSORS if m != "depth"], 19)
    inputs, classes = describe_data(DataConfig(kind="folder", root=root))
    assert (inputs, len(classes)) == (INPUTS, 2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "folder", "released_protocol": True}, "released_protocol is a setting of kinds deliver and muses"),
        ({"kind": "muses", "cases": ["motionblur"]}, "cases is a setting of kind deliver"),
        ({"kind": "folder", "conditions": ["fog"]}, "kinds deliver and muses"),
    ],
)
def test_a_setting_of_another_data_set_is_refused(settings: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config({"name": "x", "data": {"root": "d"} | settings, "budget": {"max_steps": 1}}, "test")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "names.txt"])
@pytest.mark.parametrize("kept", [0, 0.5, None], ids=["empty", "cut", "missing"])
def test_a_damaged_cache_is_named(root: Path, tmp_path: Path, name: str, kept: float | None) -> None:
    config = DataConfig(kind="folder", root=root, cache=tmp_path / "cache", size=SIZE)
    open_dataset(config, "train")
    (file,) = (tmp_path / "cache").glob(f"*/{name}")
    if kept is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(DataError, match=f"{file.parent} is damaged .*remove it"):
        open_dataset(config, "train")


def test_a_file_name_that_is_no_unicode_can_be_packed(root: Path, tmp_path: Path) -> None:
    drive = root / "train" / "drive_1"
    drive.rename(drive.with_name("\udce4"))
    config = DataConfig(kind="folder", root=root, cache=tmp_path / "cache", size=SIZE)
    assert open_dataset(config, "train")[0].name == open_dataset(config, "train")[0].name == "train/\udce4/000000"
