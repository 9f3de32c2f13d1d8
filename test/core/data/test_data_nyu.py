"""NYUDepth v2 in its two forms, on small files in the exact layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from repository import REPOSITORY
from shapes_dataset import write_png
from typer.testing import CliRunner

from anyseg_core.data.datasets import DataConfig, describe_data, kind_of, open_dataset
from anyseg_core.data.nyu_depth import MAPPING_NAME, MAT_NAME, SPLITS_NAME, nyu_depth, nyu_inputs
from anyseg_core.data.sample import DataError
from anyseg_core.data.usable import UsableSamples
from anyseg_core.runtime.input_images import depth_image, hha_image
from anyseg_core.runtime.label_sets import NYU40
from anyseg_core.runtime.model_card import DepthEncoding, HhaEncoding
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.training.config import load_config
from anyseg_ros.cli import app

h5py = pytest.importorskip("h5py", reason="NYUDepth's .mat file needs pip install anyseg_ros[train]")

scipy_io = pytest.importorskip("scipy.io", reason="the files beside it need pip install anyseg_ros[nyu]")

SIZE = (96, 128)
FULL = (480, 640)
FRAMES = 1449
TRAIN, TEST = 2, 0
"""Numbers from 0 of frames: in the test's split the odd ones and the last 70 are for training."""
BOOK, BED, CHAIR = 1, 157, 5
"""Labels that the test's mapping makes other prop, bed and chair."""


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*FULL, 3), np.uint8)


def floor_depth_m() -> np.ndarray:
    """Metres [h, w]: a floor that begins below the camera and ends at a wall 4 m away."""
    rows = np.arange(FULL[0])[:, None] - 252.736166
    with np.errstate(divide="ignore"):
        floor = np.where(rows > 0, 1.2 * 519.469611 / rows, np.inf)
    return np.minimum(floor, 4.0).repeat(FULL[1], axis=1).astype(np.float32)


def raw_labels() -> np.ndarray:
    labels = np.zeros(FULL, np.uint16)
    labels[120:240], labels[240:360], labels[360:] = BOOK, BED, CHAIR
    return labels


@pytest.fixture(scope="module")
def mat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 1449 frames, of which two are filled in; MATLAB's axes are reversed in HDF5."""
    root = tmp_path_factory.mktemp("nyu_mat")
    with h5py.File(root / MAT_NAME, "w", userblock_size=512) as file:
        images = file.create_dataset("images", (FRAMES, 3, *FULL[::-1]), np.uint8, chunks=(1, 3, *FULL[::-1]))
        depths = file.create_dataset("depths", (FRAMES, *FULL[::-1]), np.float32, chunks=(1, *FULL[::-1]))
        labels = file.create_dataset("labels", (FRAMES, *FULL[::-1]), np.uint16, chunks=(1, *FULL[::-1]))
        for frame in (TRAIN, TEST):
            images[frame], depths[frame], labels[frame] = picture(frame).T, floor_depth_m().T, raw_labels().T
    write_published(root)
    return root


def write_published(root: Path) -> None:
    """The two small files beside it, whose numbers count from 1 and whose arrays are a row and two columns."""
    train = np.array([number for number in range(1, FRAMES + 1) if number == TRAIN + 1 or number > FRAMES - 794])
    test = np.setdiff1d(np.arange(1, FRAMES + 1), train)
    scipy_io.savemat(root / SPLITS_NAME, {"trainNdxs": train[:, None], "testNdxs": test[:, None]})
    classes = np.full((1, 894), 38, np.uint8)
    classes[0, [BOOK - 1, BED - 1, CHAIR - 1]] = 40, 4, 5
    scipy_io.savemat(root / MAPPING_NAME, {"mapClass": classes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two samples to train on, one to test; the list has images' paths, as some copies of the data have."""
    classes = np.zeros(FULL, np.uint8)
    classes[240:], classes[:10] = 40, 1
    for number in range(3):
        write_png(tmp_path / "RGB" / f"{number}.jpg", np.full((*FULL, 3), 60 * number, np.uint8))
        write_png(tmp_path / "HHA" / f"{number}.jpg", np.full((*FULL, 3), (200, 100, 50), np.uint8))
        for name, image in (("Depth", (floor_depth_m() * 1000).astype(np.uint16)), ("Label", classes)):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), image)
    (tmp_path / "train.txt").write_text("RGB/0.jpg Label/0.png\nRGB/1.jpg Label/1.png\n")
    (tmp_path / "test.txt").write_text("2\n")
    return tmp_path


# --- .mat


def test_the_mat_file_is_split_as_the_file_beside_it_says(mat: Path) -> None:
    train, test, val = (
        nyu_depth(mat, split, SIZE, DEFAULT_SENSORS, None, "auto") for split in ("train", "test", "val")
    )
    assert (len(train), len(test), len(val)) == (795, 654, 654)
    assert (train.name(0), train.name(794), test.name(0)) == ("0003", "1449", "0001")
    assert not {train.name(i) for i in range(795)} & {test.name(i) for i in range(654)}


def test_a_frame_of_the_mat_file_comes_upright_and_encoded_as_on_the_robot(mat: Path) -> None:
    dataset = nyu_depth(mat, "train", FULL, DEFAULT_SENSORS, 1, "auto")
    sample = dataset[0]
    np.testing.assert_array_equal(sample.images[0], picture(TRAIN))
    encoding = dataset.inputs[1].encoding
    assert isinstance(encoding, DepthEncoding)
    np.testing.assert_array_equal(sample.images[1], depth_image(floor_depth_m(), FULL, encoding))
    assert dataset[0].images.shape == (2, *FULL, 3)


def test_the_894_labels_become_the_40_classes(mat: Path) -> None:
    labels = nyu_depth(mat, "train", FULL, DEFAULT_SENSORS, 1, "auto")[0].labels
    names = [NYU40[index].name for index in labels[(150, 250, 400), 0]]
    assert names == ["otherprop", "bed", "chair"]
    assert (labels[:120] == 255).all()


def test_hha_of_the_mat_file_is_computed_with_the_kinects_intrinsics(mat: Path) -> None:
    dataset = nyu_depth(mat, "train", FULL, DEFAULT_SENSORS, 1, "hha")
    encoding = dataset.inputs[1].encoding
    assert isinstance(encoding, HhaEncoding)
    assert encoding.normals == "fitted"
    assert dataset.rig is not None
    image = dataset[0].images[1]
    np.testing.assert_array_equal(image, hha_image(floor_depth_m(), FULL, encoding, dataset.rig.camera))
    floor, wall = image[450, 320], image[100, 320]
    assert abs(int(floor[1]) - round(255 * 0.5 / 3.5)) <= 3  # height 0 of -0.5 to 3 m
    assert floor[2] < 10
    assert abs(int(wall[2]) - 127) < 10  # a floor lies, a wall stands


def test_a_mat_file_that_is_damaged_or_another_is_named(tmp_path: Path, mat: Path) -> None:
    write_published(tmp_path)
    path = tmp_path / MAT_NAME
    content = (mat / MAT_NAME).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{MAT_NAME} is damaged.*half downloaded"):
        nyu_depth(tmp_path, "train", SIZE, DEFAULT_SENSORS, None, "auto")
    with h5py.File(path, "w") as file:
        file["something"] = 1
    with pytest.raises(DataError, match="has no images, depths and labels of NYUDepth v2"):
        nyu_depth(tmp_path, "train", SIZE, DEFAULT_SENSORS, None, "auto")
    shutil.copy(mat / MAT_NAME, path)
    with h5py.File(path, "r+") as file:
        file["labels"][TRAIN, 0, 0] = 900
    with pytest.raises(DataError, match="frame 0003 has label 900: 0 to 894"):
        _ = nyu_depth(tmp_path, "train", SIZE, DEFAULT_SENSORS, 1, "auto")[0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (SPLITS_NAME, None, r"splits\.mat is missing.*put both beside"),
        (MAPPING_NAME, None, r"classMapping40\.mat is missing"),
        (SPLITS_NAME, {"somethingNdxs": [1]}, r"splits\.mat has no trainNdxs"),
        (SPLITS_NAME, {"trainNdxs": [FRAMES + 5]}, "has 1449 frames, and none of split train"),
        (MAPPING_NAME, {"mapClass": [1, 2, 3]}, "mapClass must have 894 classes from 1 to 40"),
        (MAPPING_NAME, {"mapClass": [41] * 894}, "mapClass must have 894 classes from 1 to 40"),
    ],
)
def test_a_file_beside_it_that_is_missing_or_another_is_named(
    mat: Path, tmp_path: Path, name: str, content: dict[str, list[int]] | None, says: str
) -> None:
    (tmp_path / MAT_NAME).symlink_to(mat / MAT_NAME)
    write_published(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        scipy_io.savemat(tmp_path / name, content)
    with pytest.raises(DataError, match=says):
        nyu_depth(tmp_path, "train", SIZE, DEFAULT_SENSORS, None, "auto")


def test_samples_of_one_file_do_not_share_their_cache(mat: Path, tmp_path: Path) -> None:
    config = DataConfig(kind="nyu_depth", root=mat, size=SIZE, cache=tmp_path, limit=1, skip_broken=True)
    train, test = open_dataset(config, "train"), open_dataset(config, "test")
    assert (train[0].name, test[0].name) == ("0003", "0001")
    assert not np.array_equal(train[0].images, test[0].images)


# --- folders


def test_the_folder_form_is_read(folder: Path) -> None:
    train = nyu_depth(folder, "train", FULL, DEFAULT_SENSORS, None, "auto")
    assert (len(train), train.name(1)) == (2, "1")
    sample = train[1]
    assert np.abs(sample.images[0].astype(int) - 60).max() <= 2
    encoding = train.inputs[1].encoding
    assert isinstance(encoding, DepthEncoding)
    np.testing.assert_allclose(sample.images[1], depth_image(floor_depth_m(), FULL, encoding), atol=1)  # whole mm
    assert [sample.labels[row, 0] for row in (0, 100, 300)] == [0, 255, 39]
    assert nyu_depth(folder, "val", SIZE, DEFAULT_SENSORS, None, "auto")[0].name == "2"


def test_hha_images_are_taken_as_they_are(folder: Path) -> None:
    shutil.rmtree(folder / "Depth")
    dataset = nyu_depth(folder, "train", SIZE, DEFAULT_SENSORS, None, "auto")
    assert isinstance(dataset.inputs[1].encoding, HhaEncoding)
    assert np.abs(dataset[0].images[1].astype(int) - (200, 100, 50)).max() <= 2
    assert nyu_inputs(folder, [Sensor.CAMERA], "auto")[0].modality is Sensor.CAMERA


@pytest.mark.parametrize(
    ("file", "image", "says"),
    [
        ("RGB/0.jpg", None, r"RGB/0\.jpg is missing"),
        ("Depth/0.png", b"no png", r"Depth/0\.png is damaged"),
        ("Depth/0.png", np.zeros(FULL, np.uint8), r"Depth/0\.png is uint8.*16 bit depth in millimetres"),
        ("RGB/0.jpg", np.zeros(FULL, np.uint8), r"RGB/0\.jpg is uint8.*8 bit RGB"),
        ("Label/0.png", np.full(FULL, 41, np.uint8), r"Label/0\.png has label 41 of 40 classes"),
        ("Label/0.png", np.zeros((*FULL, 3), np.uint8), r"Label/0\.png is a colour PNG"),
    ],
)
def test_a_broken_file_is_named_and_can_be_left_out(folder: Path, file: str, image: object, says: str) -> None:
    (folder / file).unlink()
    if isinstance(image, bytes):
        (folder / file).write_bytes(image)
    elif isinstance(image, np.ndarray):
        cv2.imwrite(str(folder / file), image)
    dataset = nyu_depth(folder, "train", SIZE, DEFAULT_SENSORS, None, "auto")
    with pytest.raises(DataError, match=says):
        _ = dataset[0]
    usable = UsableSamples(dataset, show_progress=False)
    assert (len(usable), len(usable.skipped)) == (1, 1)
    assert "1 broken ones skipped" in usable.description


def test_what_is_not_there_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"train\.txt is missing, and so is .*labeled\.mat"):
        nyu_depth(tmp_path / "nowhere", "train", SIZE, DEFAULT_SENSORS, None, "auto")
    with pytest.raises(DataError, match="known splits: train, val, test"):
        nyu_depth(folder, "holdout", SIZE, DEFAULT_SENSORS, None, "auto")
    with pytest.raises(DataError, match=r"data\.modalities lidar is unknown; known: camera, depth"):
        nyu_depth(folder, "train", SIZE, [Sensor.LIDAR], None, "auto")
    (folder / "train.txt").write_text("\n")
    with pytest.raises(DataError, match=r"train\.txt is empty"):
        nyu_depth(folder, "train", SIZE, DEFAULT_SENSORS, None, "auto")


# --- commands and configurations


def test_data_check_looks_at_both_forms(mat: Path, folder: Path, tmp_path: Path) -> None:
    assert kind_of(mat) == kind_of(folder) == "nyu_depth"
    sheet = tmp_path / "sheet.png"
    result = CliRunner().invoke(app, ["data", "check", str(folder), "--sheet", str(sheet), "--size", "96", "128"])
    assert result.exit_code == 0, result.output
    assert "otherprop" in result.output
    assert sheet.with_name("sheet_train.png").is_file()


@pytest.mark.parametrize("name", ["nyu_depth", "potsdam", "mid_air"])
def test_every_rgbd_data_set_has_a_configuration_that_names_its_inputs(name: str) -> None:
    config = load_config(REPOSITORY / "config" / "train" / f"{name}.yaml")
    inputs, classes = describe_data(config.data)
    assert [spec.modality for spec in inputs] == [Sensor.CAMERA, Sensor.DEPTH]
    assert len(classes) == {"nyu_depth": 40, "potsdam": 6, "mid_air": 13}[name]
