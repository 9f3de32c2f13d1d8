"""`anyseg data check`: what it counts and what its picture shows, on data that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from shapes_dataset import SIDE, shape_labels, write_png, write_shapes

from anyseg_core.data.check import check_split, contact_sheet, write_sheet
from anyseg_core.data.datasets import DATASETS, DataConfig, DatasetKind, describe_data, kind_of, open_dataset
from anyseg_core.data.deliver import Deliver
from anyseg_core.data.usable import UsableSamples

SIZE = (SIDE, SIDE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_shapes(tmp_path / "shapes", train=3)
    write_png(root / "lidar/sun/train/MAP_1_point0/000000_lidar_front.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    (root / "event/sun/train/MAP_1_point0/000001_event_front.png").write_bytes(b"no png")
    return root


def test_what_is_found_in_a_split(root: Path) -> None:
    found, usable = check_split(Deliver(root, "train", SIZE), show_progress=False)
    assert (found.samples, len(usable), len(found.broken)) == (3, 2, 1)
    labels = np.concatenate([shape_labels(0).ravel(), shape_labels(2).ravel()]) - 1
    names = [entry.name for entry in usable.classes]
    for index in (0, 1, 2, 6):
        assert found.class_share[names[index]] == pytest.approx(100 * (labels == index).mean())
    assert set(found.never_seen) == set(names) - {names[index] for index in (0, 1, 2, 6)}
    assert found.unlabelled == 0
    assert found.empty["lidar"] >= 50  # one of two pictures is black
    assert replace(found, class_share={"": 0.0, "car": 0.0, "road": 5.0}).never_seen == ["car"]


def test_the_contact_sheet_has_a_row_for_each_sample_and_the_labels_in_their_colours(root: Path) -> None:
    usable = UsableSamples(Deliver(root, "train", SIZE), show_progress=False)
    sheet = contact_sheet(usable, rows=2)
    assert sheet.shape == (22 + 2 * (204 + 22), 6 * 204, 3)
    column = sheet[22 : 22 + 204, 4 * 204 : 5 * 204]
    color = usable.classes[6].color
    assert (column == color).all(axis=2).mean() == pytest.approx((shape_labels(0) == 7).mean(), abs=0.1)


def test_kinds_are_told_by_what_lies_there(tmp_path: Path, root: Path) -> None:
    assert kind_of(root) == "deliver"
    assert kind_of(tmp_path / "nowhere") is None
    for name, kind in (("frame_camera", "muses"), ("dataset.json", "folder"), ("disparity", "pothole")):
        folder = tmp_path / kind
        (folder / name).mkdir(parents=True)
        assert kind_of(folder) == kind


def test_the_table_of_kinds_fits_the_configuration() -> None:
    fields = DataConfig.model_fields
    assert all(key in fields for row in DATASETS.values() for key in row.settings)
    with pytest.raises(ValueError, match=r"'deliverr' is unknown; known kinds .*deliver, .*mixture"):
        DataConfig(kind="deliverr", root=Path())
    with pytest.raises(ValueError, match=r"views is a setting of kind scans, not of pictures"):
        DataConfig(kind="pictures", layout="camvid", root=Path(), views=2)


def test_a_row_is_all_that_a_new_kind_of_data_set_needs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(config: DataConfig, split: str) -> Deliver:
        return Deliver(config.root, split, config.size)

    row = DatasetKind(opened, lambda _config: ((), Deliver.classes), found_by=("semantic",))
    monkeypatch.setattr("anyseg_core.data.datasets.DATASETS", {"new": row})
    assert kind_of(root) == "new"
    config = DataConfig(kind="new", root=root, size=SIZE, cache=None)
    assert len(open_dataset(config, "train")) == 3
    assert describe_data(config)[1] == Deliver.classes


def test_a_sheet_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 200
    write_sheet(tmp_path / "new" / "sheet.png", picture)
    stored = cv2.imread(str(tmp_path / "new" / "sheet.png"))
    assert stored is not None
    assert stored[0, 0].tolist() == [0, 0, 200]
