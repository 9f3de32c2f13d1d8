"""One bag in two splits, and labelled moments that are left out: `anyseg data from-bag`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from small_bags import CAMERA, DEPTH, INFO, LABELS, drive, write_ros2

from anyseg_core.runtime.model_card import ModelCard, find_student, load_card
from anyseg_ros.bags.to_folder import FolderOptions, NothingToWriteError, write_folder


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return load_card(find_student("vehicle_sim"), verify=False)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten moments, 0.1 s apart, with labels."""
    return write_ros2(tmp_path_factory.mktemp("bags") / "drive", drive(10, {CAMERA, DEPTH, INFO, LABELS}))


def stamps(folder: Path) -> list[int]:
    return sorted(int(path.name.split("_")[0]) for path in folder.glob("*_label.png"))


@pytest.mark.parametrize(("share", "validation"), [(0.0, 0), (0.2, 2), (0.5, 5)])
def test_the_end_of_a_bag_is_for_validation(
    bag: Path, card: ModelCard, tmp_path: Path, share: float, validation: int
) -> None:
    written = write_folder(bag, tmp_path, card, FolderOptions(every_s=0.0, val_share=share))
    train, val = stamps(tmp_path / "train" / "drive"), stamps(tmp_path / "val" / "drive")
    assert (written.samples, written.validation) == (10, validation)
    assert (len(train), len(val)) == (10 - validation, validation)
    assert train[-1] < min(val, default=train[-1] + 1)
    assert (tmp_path / "train" / "drive" / "rig.json").is_file()
    assert (tmp_path / "val" / "drive" / "rig.json").is_file() == (validation > 0)
    assert any("flatter" in advice for advice in written.advice) == (validation > 0)


def test_a_share_that_leaves_nothing_is_refused_or_told(bag: Path, card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not 1\.5"):
        FolderOptions(val_share=1.5)
    written = write_folder(bag, tmp_path, card, FolderOptions(every_s=5.0, val_share=0.2))
    assert any("0 of 1 samples are in val" in advice for advice in written.advice)


def test_labelled_moments_that_are_left_out_are_told(bag: Path, card: ModelCard, tmp_path: Path) -> None:
    written = write_folder(bag, tmp_path, card, FolderOptions(every_s=0.35))
    assert written.samples == 3
    assert any("7 labelled moments less than 0.35 s" in advice for advice in written.advice)


@pytest.mark.parametrize("second", [FolderOptions(split="val", every_s=0.0), FolderOptions(every_s=0.0, val_share=0.2)])
def test_a_sample_is_never_in_two_splits(bag: Path, card: ModelCard, tmp_path: Path, second: FolderOptions) -> None:
    write_folder(bag, tmp_path, card, FolderOptions(every_s=0.0))
    with pytest.raises(NothingToWriteError, match=r"is in .*train/drive already, and would be in val, too"):
        write_folder(bag, tmp_path, card, second)
    write_folder(bag, tmp_path, card, FolderOptions(every_s=0.0))  # the same once more is no fault


def test_a_bag_that_is_given_as_here_has_its_folders_name(
    bag: Path, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bag)
    write_folder(Path(), tmp_path, card, FolderOptions())
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["drive"]


def test_label_images_of_another_view_or_of_no_frame_are_told(bag: Path, card: ModelCard, tmp_path: Path) -> None:
    write_folder(bag, tmp_path / "first", card, FolderOptions(every_s=0.0))
    labels, height_and_width = tmp_path / "labels", (48, 64)
    labels.mkdir()
    for number, stamp in enumerate(stamps(tmp_path / "first" / "train" / "drive")):
        name = stamp if number < 2 else stamp + 10**12
        cv2.imwrite(str(labels / f"{name}.png"), np.zeros(height_and_width, np.uint8))
    options = FolderOptions(every_s=0.0, labels=labels)
    written = write_folder(bag, tmp_path / "second", card, options)
    assert (written.samples, written.labelled) == (2, 2)
    assert any("8 of 10 label images in" in advice for advice in written.advice)
    for file in labels.iterdir():
        cv2.imwrite(str(file), np.zeros((24, 64), np.uint8))
    with pytest.raises(NothingToWriteError, match="is 64x24, but the camera is 64x48"):
        write_folder(bag, tmp_path / "third", card, options)


@pytest.mark.parametrize("field", ["every_s", "max_time_diff_s"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_times_that_are_none_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be seconds"):
        FolderOptions(**{field: value})  # type: ignore[arg-type]
