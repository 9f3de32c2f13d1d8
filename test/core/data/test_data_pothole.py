"""The stereo pothole reader: on files made here, and on the recorded data where it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from shapes_dataset import write_png

from anyseg_core.data.pothole import Pothole
from anyseg_core.data.sample import DataError
from anyseg_core.runtime.input_images import depth_image
from anyseg_core.runtime.sensors import Sensor

SIZE = (64, 96)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """One training image, half road at 50 and half pothole at 35."""
    disparity = np.full((64, 96), 50_000, np.uint16)
    disparity[:, 48:] = 35_000
    for folder in ("disparity", "label"):
        (tmp_path / folder).mkdir()
    write_png(tmp_path / "rgb" / "dataset2_01.jpg", np.full((64, 96, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "disparity" / "dataset2_01.png"), disparity)
    cv2.imwrite(str(tmp_path / "label" / "dataset2_01.png"), (disparity == 35_000).astype(np.uint8))
    return tmp_path


def test_depth_is_what_a_16uc1_message_of_the_disparity_gives(made: Path) -> None:
    dataset = Pothole(made, "train", SIZE)
    sample = dataset[0]
    metres = np.where(sample.labels == 1, 35.0, 50.0).astype(np.float32)
    np.testing.assert_array_equal(sample.images[1], depth_image(metres, SIZE, dataset.inputs[1].encoding))  # type: ignore[arg-type]
    assert sample.images.shape == (2, *SIZE, 3)
    assert dataset.frames("dataset2_01")[1].modality is Sensor.DEPTH


def test_unknown_split_and_wrong_folder_are_named(made: Path) -> None:
    with pytest.raises(DataError, match="known splits"):
        Pothole(made, "holdout", SIZE)
    with pytest.raises(DataError, match=r"no dataset1_\*\.jpg .* \(drives: dataset2\)"):
        Pothole(made, "test", SIZE)
    with pytest.raises(DataError, match="no drive beside dataset2"):
        Pothole(made, "train", SIZE, held_out="dataset2")


def test_train_and_test_are_different_drives(pothole_data: Path) -> None:
    train, test = Pothole(pothole_data, "train", SIZE), Pothole(pothole_data, "test", SIZE)
    assert (len(train), len(test)) == (40, 12)
    assert {train[0].name.split("_")[0], test[0].name.split("_")[0]} == {"dataset1", "dataset2"}


def test_every_drive_can_be_held_out_and_none_is_cut(made: Path) -> None:
    for folder, end in (("rgb", "jpg"), ("disparity", "png"), ("label", "png")):
        source = (made / folder / f"dataset2_01.{end}").read_bytes()
        for name in ("dataset1_01", "dataset3_01", "dataset3_02"):
            (made / folder / f"{name}.{end}").write_bytes(source)
    for held_out, count in (("dataset1", 1), ("dataset2", 1), ("dataset3", 2)):
        train, test = (Pothole(made, split, SIZE, held_out=held_out) for split in ("train", "test"))
        assert {test.name(i).split("_")[0] for i in range(len(test))} == {held_out}
        assert (len(train), len(test)) == (4 - count, count)
        assert held_out in test.description
        assert held_out not in train.description


def test_the_depth_window_shows_potholes_below_the_road(pothole_data: Path) -> None:
    for split in ("train", "test"):
        for sample in (Pothole(pothole_data, split, SIZE)[i] for i in range(0, 12, 4)):
            scaled, valid = sample.images[1, ..., 0], sample.images[1, ..., 2] > 0
            road = scaled[valid & (sample.labels == 0)]
            hole = scaled[valid & (sample.labels == 1)]
            assert np.median(road) - np.median(hole) > 25  # of 255: a tenth of the range and more
            assert (road == 255).mean() < 0.001  # the window does not cut the road off
