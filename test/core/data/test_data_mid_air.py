"""Mid-Air on small files in the exact layout: index in HDF5, half-precision distances in 16 bit images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from shapes_dataset import write_png

from anyseg_core.data.check import check_split, contact_sheet
from anyseg_core.data.datasets import DataConfig, kind_of, open_files
from anyseg_core.data.mid_air import RECORDS_NAME, MidAir
from anyseg_core.data.sample import DataError
from anyseg_core.data.usable import UsableSamples
from anyseg_core.runtime.input_images import depth_image
from anyseg_core.runtime.label_sets import MID_AIR
from anyseg_core.runtime.model_card import DepthEncoding
from anyseg_core.runtime.sensors import Sensor

h5py = pytest.importorskip("h5py", reason="Mid-Air's index needs pip install anyseg_ros[train]")

SIDE = 64
SIZE = (SIDE, SIDE)
FRAMES = 4
STREAMS = {"color_left": "JPEG", "depth": "PNG", "segmentation": "PNG"}


def distances_m() -> np.ndarray:
    """[h, w]: along each pixel's ray to a wall that stands 20 m ahead; the field of view is 90 degrees."""
    slope = (np.arange(SIDE) + 0.5) / (SIDE / 2) - 1
    return 20 * np.sqrt(1 + slope[None, :] ** 2 + slope[:, None] ** 2)


def ids() -> np.ndarray:
    """[h, w]: the 14 ids in stripes."""
    return (np.arange(SIDE) * 14 // SIDE).astype(np.uint8)[:, None].repeat(SIDE, axis=1)


def write_trajectory(climate: Path, number: int, *, separator: str = "/") -> None:
    name = f"trajectory_{number:04d}"
    for stream, ending in STREAMS.items():
        for frame in range(FRAMES):
            path = climate / stream / name / f"{frame:06d}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if stream == "color_left":
                write_png(path, np.full((SIDE, SIDE, 3), (10 * frame, 100, 200), np.uint8))
            else:
                cv2.imwrite(str(path), distances_m().astype(np.float16).view(np.uint16) if stream == "depth" else ids())
    with h5py.File(climate / RECORDS_NAME, "a") as file:
        for stream, ending in STREAMS.items():
            paths = [separator.join((stream, name, f"{frame:06d}.{ending}")) for frame in range(FRAMES)]
            file[f"{name}/camera_data/{stream}"] = np.array(paths, h5py.string_dtype())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two climates of a set to train on, three trajectories each, and one of a set to test on."""
    for climate in ("foggy", "sunny"):
        for number in (3000, 3001, 3002):
            write_trajectory(tmp_path / "Kite_training" / climate, number)
    write_trajectory(tmp_path / "Kite_test" / "foggy", 3000)
    return tmp_path


def test_trajectories_are_divided(root: Path) -> None:
    train, val, test = (MidAir(root, split, SIZE) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (2 * 2 * FRAMES, 2 * FRAMES, FRAMES)
    assert train.name(0) == "Kite_training/foggy/segmentation/trajectory_3001/000000.PNG"
    assert val.name(0) == "Kite_training/foggy/segmentation/trajectory_3000/000000.PNG"
    assert test.name(3) == "Kite_test/foggy/segmentation/trajectory_3000/000003.PNG"


def test_climates_and_a_slower_rate_can_be_chosen(root: Path) -> None:
    config = DataConfig(kind="mid_air", root=root, size=SIZE, conditions=("foggy",), every=2)
    dataset = open_files(config, "train")
    assert len(dataset) == 2 * FRAMES / 2
    assert dataset.name(1).endswith("Kite_training/foggy/segmentation/trajectory_3001/000002.PNG")
    with pytest.raises(DataError, match=r"data\.conditions snow is unknown; known: foggy, sunny"):
        MidAir(root, "train", SIZE, conditions=["snow"])


def test_distances_become_depths_as_the_robot_has_them(root: Path) -> None:
    dataset = MidAir(root, "train", SIZE)
    depth_m = dataset.frame(0, Sensor.DEPTH).data
    np.testing.assert_allclose(depth_m, 20.0, rtol=1e-3)  # a flat wall; half precision has 11 bits
    encoding = dataset.inputs[1].encoding
    assert isinstance(encoding, DepthEncoding)
    flat = np.full(SIZE, 20, np.float32)
    np.testing.assert_allclose(dataset[0].images[1].astype(int), depth_image(flat, SIZE, encoding), atol=1)


def test_colours_and_classes(root: Path) -> None:
    sample = MidAir(root, "train", SIZE)[2]
    assert np.abs(sample.images[0].astype(int) - (20, 100, 200)).max() <= 3
    rows = [int(np.flatnonzero(ids()[:, 0] == number)[0]) for number in range(14)]
    assert [int(sample.labels[row, 0]) for row in rows] == [0, 1, 2, 3, 4, 5, 6, 255, 7, 8, 9, 10, 11, 12]
    assert (MID_AIR[7].name, MID_AIR[9].name) == ("water plane", "road")


def test_a_single_set_and_windows_paths_do_as_well(tmp_path: Path) -> None:
    for number in range(4):
        write_trajectory(tmp_path / "fall", number, separator="\\")
    assert (len(MidAir(tmp_path, "val", SIZE)), len(MidAir(tmp_path, "train", SIZE))) == (2 * FRAMES, 2 * FRAMES)
    assert MidAir(tmp_path, "train", SIZE)[0].images.shape == (2, *SIZE, 3)
    with pytest.raises(DataError, match="has no trajectory of split test"):
        MidAir(tmp_path, "test", SIZE)


@pytest.mark.parametrize(
    ("file", "image", "says"),
    [
        ("color_left/trajectory_3001/000001.JPEG", None, r"000001\.JPEG is missing"),
        ("depth/trajectory_3001/000001.PNG", b"no png", r"depth/trajectory_3001/000001\.PNG is damaged"),
        ("depth/trajectory_3001/000001.PNG", ids(), r"000001\.PNG is uint8.*16 bit depth"),
        ("segmentation/trajectory_3001/000001.PNG", ids() + 1, r"000001\.PNG has label 14: 0 to 13"),
        ("segmentation/trajectory_3001/000001.PNG", ids().astype(np.uint16) + 256, r"000001\.PNG has 16 bits"),
    ],
)
def test_a_broken_file_is_named_and_can_be_left_out(root: Path, file: str, image: object, says: str) -> None:
    path = root / "Kite_training" / "foggy" / file
    path.unlink()
    if isinstance(image, bytes):
        path.write_bytes(image)
    elif isinstance(image, np.ndarray):
        cv2.imwrite(str(path), image)
    dataset = MidAir(root, "train", SIZE)
    with pytest.raises(DataError, match=says):
        _ = dataset[1]
    usable = UsableSamples(dataset, show_progress=False)
    assert (len(usable), [sample.position for sample in usable.skipped]) == (15, [1])


def test_an_index_that_cannot_be_used_is_named(root: Path, tmp_path: Path) -> None:
    records = root / "Kite_training" / "sunny" / RECORDS_NAME
    with h5py.File(records, "r+") as file:
        del file["trajectory_3001/camera_data/depth"]
    with pytest.raises(
        DataError, match=r"sunny/sensor_records\.hdf5 has no trajectories with camera_data/color_left, d"
    ):
        MidAir(root, "train", SIZE)
    assert len(MidAir(root, "train", SIZE, [Sensor.CAMERA])) == 16  # depth is not asked for
    records.write_bytes(b"no hdf5")
    with pytest.raises(DataError, match=r"sunny/sensor_records\.hdf5 is damaged, perhaps half downloaded"):
        MidAir(root, "train", SIZE)
    with pytest.raises(DataError, match=r"no sensor_records\.hdf5 in .*<climate>"):
        MidAir(tmp_path / "nowhere", "train", SIZE)
    with pytest.raises(DataError, match="split holdout is unknown"):
        MidAir(root, "holdout", SIZE)


def test_it_is_known_and_checked(root: Path) -> None:
    assert kind_of(root) == "mid_air"
    assert kind_of(root / "Kite_training") == "mid_air"
    found, usable = check_split(MidAir(root, "train", SIZE), show_progress=False)
    assert not found.never_seen
    assert found.unlabelled == pytest.approx(100 / 14, abs=1)
    assert contact_sheet(usable, rows=2).shape[1] == 4 * 204
