"""The DELIVER reader on a tiny data set in its layout, and the packed cache."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from shapes_dataset import SIDE, shape_labels, write_png, write_shapes

from anyseg_core.data.deliver import INPUTS_NAME, Deliver, shift_labels
from anyseg_core.data.files import read_image
from anyseg_core.data.packed import PackedDataset
from anyseg_core.data.sample import IMAGENET_MEAN, DataError
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor

SIZE = (SIDE, SIDE)
EVENT_FILE = "event/sun/train/MAP_1_point0/000000_event_front.png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "shapes")


def test_labels_are_shifted_and_ignored() -> None:
    raw = np.array([[0, 1, 25, 255]], np.uint8)
    np.testing.assert_array_equal(shift_labels(raw, 25, Path("label.png")), [[255, 0, 24, 255]])


def test_drives_may_be_links_to_another_disk(root: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    for drive in root.glob("*/*/train/*"):
        link = linked / drive.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(drive)
    there, here = Deliver(root, "train", SIZE), Deliver(linked, "train", SIZE)
    assert len(here) == len(there)
    np.testing.assert_array_equal(here[0].images, there[0].images)


def test_raw_depth_of_16_bits_is_not_taken_for_an_encoded_image(root: Path, tmp_path: Path) -> None:
    file = Deliver(root, "train", SIZE).image_path(0, Sensor.DEPTH)
    cv2.imwrite(str(file), np.full(SIZE, 3000, np.uint16))
    dataset = Deliver(root, "train", SIZE)
    with pytest.raises(DataError, match=f"{file} is uint16 .*8 bits was expected"):
        dataset[0]
    with pytest.raises(DataError, match="8 bits was expected"):  # which cut such values to their lower byte
        PackedDataset(dataset, tmp_path / "cache")


def test_the_release_s_protocol_resizes_bilinearly(root: Path) -> None:
    small = (SIDE // 2, SIDE // 2)
    ours, released = Deliver(root, "train", small), Deliver(root, "train", small, released_protocol=True)
    whole = read_image(ours.image_path(0, Sensor.LIDAR))
    expected = cv2.resize(whole, small[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(released[0].images[3], expected)
    np.testing.assert_array_equal(released[0].images[0], ours[0].images[0])  # the camera's image
    assert released.fingerprint != ours.fingerprint


LABEL_FILE = "semantic/sun/train/MAP_1_point0/000000_semantic_front.png"


def test_only_the_first_channel_of_a_label_counts(root: Path) -> None:
    before = Deliver(root, "train", SIZE)[0].labels
    raw = cv2.imread(str(root / LABEL_FILE), cv2.IMREAD_UNCHANGED)
    assert raw is not None
    red = raw if raw.ndim == 2 else raw[..., 2]
    write_png(root / LABEL_FILE, np.dstack([red, np.full(SIZE, 99), np.full(SIZE, 100)]).astype(np.uint8))
    np.testing.assert_array_equal(Deliver(root, "train", SIZE)[0].labels, before)


def test_a_label_of_another_set_of_classes_is_named(root: Path) -> None:
    write_png(root / LABEL_FILE, np.dstack([np.full(SIZE, 29, np.uint8)] * 3))  # CARLA 0.9.14 has 29 tags
    with pytest.raises(DataError, match=r"000000_semantic_front.png has label 29 of 25 classes"):
        _ = Deliver(root, "train", SIZE)[0]


def test_an_image_of_another_shape_than_its_labels_is_named(root: Path) -> None:
    write_png(root / "img/sun/train/MAP_1_point0/000000_rgb_front.png", np.zeros((SIDE, 2 * SIDE, 3), np.uint8))
    with pytest.raises(DataError, match="do not show the same view"):
        _ = Deliver(root, "train", SIZE)[0]


def test_samples_hold_every_modality_and_the_labels(root: Path) -> None:
    dataset = Deliver(root, "train", SIZE)
    sample = dataset[0]
    assert len(dataset) == 6
    np.testing.assert_array_equal(sample.labels, shape_labels(0) - 1)
    for number in range(4):
        palette = np.random.default_rng(number).integers(0, 256, (8, 3), np.uint8)
        np.testing.assert_array_equal(sample.images[number], palette[shape_labels(0)])


def test_a_smaller_event_image_is_enlarged_without_blending(root: Path) -> None:
    small = np.zeros((SIDE // 4, SIDE // 4, 3), np.uint8)
    small[3, 5] = (200, 100, 0)
    write_png(root / EVENT_FILE, small)
    event = Deliver(root, "train", SIZE)[0].images[2]
    assert {tuple(color) for color in event.reshape(-1, 3).tolist()} == {(0, 0, 0), (200, 100, 0)}
    assert (event[12:16, 20:24] == (200, 100, 0)).all()


def test_depth_may_be_in_hha(root: Path) -> None:
    before = Deliver(root, "train", SIZE)[0].images[1]
    (root / "depth").rename(root / "hha")
    np.testing.assert_array_equal(Deliver(root, "train", SIZE)[0].images[1], before)


def test_a_subset_of_modalities_keeps_its_own_images(root: Path) -> None:
    whole, part = Deliver(root, "train", SIZE), Deliver(root, "train", SIZE, (Sensor.CAMERA, Sensor.LIDAR))
    np.testing.assert_array_equal(part[0].images, whole[0].images[[0, 3]])
    assert [spec.modality for spec in part.inputs] == [Sensor.CAMERA, Sensor.LIDAR]


def test_public_data_gets_the_published_normalisation(root: Path) -> None:
    inputs = Deliver(root, "train", SIZE).inputs
    assert [spec.modality for spec in inputs] == list(DEFAULT_SENSORS)
    assert inputs[0].mean == IMAGENET_MEAN
    assert inputs[1].mean == (0.0, 0.0, 0.0)


def test_inputs_json_describes_simulated_data(root: Path) -> None:
    specs = [spec.model_dump(mode="json") for spec in Deliver(root, "train", SIZE).inputs]
    specs[1]["encoding"]["far_m"] = 33.0
    (root / INPUTS_NAME).write_text(json.dumps(specs))
    assert Deliver(root, "train", SIZE).inputs[1].encoding.far_m == 33.0  # type: ignore[union-attr]


def test_bad_inputs_json_is_named(root: Path) -> None:
    (root / INPUTS_NAME).write_text('[{"modality": "sonar"}]')
    with pytest.raises(DataError, match=INPUTS_NAME):
        Deliver(root, "train", SIZE)


def test_a_missing_root_or_split_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        Deliver(root / "nowhere", "train", SIZE)
    with pytest.raises(DataError, match="test"):
        Deliver(root, "test", SIZE)


def test_a_missing_or_damaged_image_is_named(root: Path) -> None:
    dataset = Deliver(root, "train", SIZE)
    (root / EVENT_FILE).write_bytes(b"not a png")
    with pytest.raises(DataError, match="000000_event_front"):
        dataset[0]
    (root / EVENT_FILE).unlink()
    with pytest.raises(DataError, match="000000_event_front"):
        _ = dataset.fingerprint


def test_packing_keeps_every_sample(root: Path, tmp_path: Path) -> None:
    source = Deliver(root, "train", SIZE)
    packed = PackedDataset(source, tmp_path / "cache")
    assert len(packed) == len(source)
    for index in range(len(source)):
        np.testing.assert_array_equal(packed[index].images, source[index].images)
        np.testing.assert_array_equal(packed[index].labels, source[index].labels)
        assert packed[index].name == source[index].name
    expected = np.bincount(np.concatenate([source[i].labels.ravel() for i in range(6)]), minlength=25)
    np.testing.assert_array_equal(packed.pixel_counts(), expected[:25])


def test_packed_data_is_reused_until_the_source_changes(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    PackedDataset(Deliver(root, "train", SIZE), cache)
    assert len(list(cache.iterdir())) == 1
    PackedDataset(Deliver(root, "train", SIZE), cache)
    assert len(list(cache.iterdir())) == 1
    write_png(root / EVENT_FILE, np.full((SIDE, SIDE, 3), 9, np.uint8))
    changed = PackedDataset(Deliver(root, "train", SIZE), cache)
    assert (changed[0].images[2] == 9).all()


def test_packing_reserves_its_room_and_says_where_there_is_none(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PackedDataset(Deliver(root, "train", SIZE), tmp_path / "cache")
    for array in (tmp_path / "cache").rglob("*.npy"):
        assert 512 * array.stat().st_blocks >= array.stat().st_size  # a file with holes kills its writer on a full disk

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"cannot be packed in .*cache2: No space left on device.*data\.cache"):
        PackedDataset(Deliver(root, "train", SIZE), tmp_path / "cache2")
    assert list((tmp_path / "cache2").iterdir()) == []


def test_failed_packing_leaves_nothing_behind(root: Path, tmp_path: Path) -> None:
    dataset = Deliver(root, "train", SIZE)
    (root / EVENT_FILE).write_bytes(b"not a png")
    with pytest.raises(DataError):
        PackedDataset(dataset, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_colour_survives_the_way_through_opencv(root: Path) -> None:
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 255
    path = root / "img/sun/train/MAP_1_point0/000000_rgb_front.png"
    write_png(path, red)
    stored = cv2.imread(str(path))
    assert stored is not None
    assert stored[0, 0].tolist() == [0, 0, 255]
    assert Deliver(root, "train", SIZE)[0].images[0, 0, 0].tolist() == [255, 0, 0]
