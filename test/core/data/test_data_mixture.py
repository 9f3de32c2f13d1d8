"""Mixtures: layouts, virtual cameras, coarse labels, and the batches made of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_mixture import COARSE, TOY_SCANS, write_mixture, write_pictures, write_scan

from anyseg_core.data.augmentation import AugmentConfig, Window, augment, largest_inside, moved_onto
from anyseg_core.data.datasets import open_dataset, part_meaning
from anyseg_core.data.layouts import PICTURE_LAYOUTS, SCAN_LAYOUTS, PictureLayout, ScanLayout
from anyseg_core.data.mixture import Mixture, MixturePart, Scoring
from anyseg_core.data.pictures import Pictures
from anyseg_core.data.sample import DataError, Sample
from anyseg_core.data.scans import Scans, read_scan
from anyseg_core.methods.losses import labelled_cross_entropy, marginal_cross_entropy
from anyseg_core.methods.supervised import draw_subsets_of
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.runtime.label_sets import CITYSCAPES, LabelClass
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.training.batches import Batches
from anyseg_core.training.config import ConfigError, parse_config, parse_data
from anyseg_core.training.evaluation import score_mixture, summarise_mixture


@pytest.fixture
def toy(tmp_path: Path) -> dict:
    """Settings of a mixture of pictures and scans."""
    return write_mixture(tmp_path)


# --- layouts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [*PICTURE_LAYOUTS.values(), *SCAN_LAYOUTS.values()])
def test_every_known_layout_speaks_of_cityscapes(layout: PictureLayout | ScanLayout) -> None:
    known = {entry.name for entry in CITYSCAPES}
    for name in filter(None, layout.classes):
        assert set(layout.meaning.get(name, (name,))) <= known


def test_a_layout_may_not_translate_what_it_has_not() -> None:
    with pytest.raises(ValueError, match="meaning of tram: no such class"):
        PictureLayout(images="*.jpg", labels="{stem}.png", classes=("a", "b"), meaning={"tram": ("train",)})


def test_a_split_without_a_folder_is_a_range_of_the_sorted_files(tmp_path: Path) -> None:
    write_pictures(tmp_path, "all", 5)
    layout = COARSE.model_copy(
        update={"images": "all/*.png", "labels": "labels/all/{stem}.png", "splits": {"train": (0, 3), "val": (3, None)}}
    )
    assert [Pictures(tmp_path, "train", (32, 32), layout).name(i)[-1] for i in range(3)] == ["0", "1", "2"]
    assert len(Pictures(tmp_path, "val", (32, 32), layout)) == 2
    with pytest.raises(DataError, match="no split 'test'; known: train, val"):
        Pictures(tmp_path, "test", (32, 32), layout)


def test_an_unknown_layout_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'kity' is unknown; known: kitti_semantic, camvid, idd_lite"):
        parse_data({"kind": "pictures", "root": ".", "layout": "kity"})


def test_labels_of_another_view_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, "train", 1)
    cv2.imwrite(str(tmp_path / "labels/train/0.png"), np.zeros((48, 20), np.uint8))
    with pytest.raises(DataError, match="do not show the same view"):
        Pictures(tmp_path, "train", (32, 32), COARSE)[0]


# --- scans ----------------------------------------------------------------------------------------------------


def test_a_scan_is_seen_from_the_vehicles_camera_and_from_anywhere(tmp_path: Path) -> None:
    write_scan(tmp_path, "train")
    scans = Scans(tmp_path, "train", (96, 320), TOY_SCANS, views=4)
    forward = scans[0]
    rows, cols = np.nonzero(forward.labels == 2)
    assert abs(cols.mean() - 160) < 25  # the car is ahead
    assert rows.mean() < np.nonzero(forward.labels == 1)[0].mean()
    assert len({scans[i].labels.tobytes() for i in range(4)}) == 4
    assert scans[0].images[0][forward.labels != 255][:, 0].all()  # a labelled pixel has a point


def test_labels_cover_what_a_point_covers_where_that_is_asked_for(tmp_path: Path) -> None:
    write_scan(tmp_path, "train")
    points = Scans(tmp_path, "train", (96, 320), TOY_SCANS)[0]
    squares = Scans(tmp_path, "train", (96, 320), TOY_SCANS, label_radius=1)[0]
    np.testing.assert_array_equal(squares.labels != 255, points.images[0][..., 0] > 0)
    assert 0 < (points.labels != 255).sum() < (squares.labels != 255).sum()


def test_intensity_is_brought_to_one_scale_and_unnamed_labels_are_not_learned(tmp_path: Path) -> None:
    write_scan(tmp_path, "train")
    layout = TOY_SCANS.model_copy(update={"full_intensity": 102.0, "classes": ("", "", "car")})
    points, labels = read_scan(tmp_path / "train/0.npz", layout)
    np.testing.assert_allclose(points[:, 3], 0.5)
    assert set(labels.tolist()) == {2, 255}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"no archive"])
def test_a_damaged_scan_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/0.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"0\.npz cannot be read"):
        Scans(tmp_path, "train", (32, 64), TOY_SCANS)[0]


# --- the mixture ----------------------------------------------------------------------------------------------


class Fixed:
    """A data set of one sample of labels, for one camera."""

    inputs = Pictures.inputs
    description, fingerprint = "fixed", "fixed"

    def __init__(self, classes: tuple[str, ...], labels: np.ndarray) -> None:
        self.classes = tuple(LabelClass(name, (0, 0, 0)) for name in classes)
        self.labels, self.size = labels.astype(np.uint8), labels.shape

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return Sample(np.zeros((1, *self.size, 3), np.uint8), self.labels, "fixed/0")


def test_coarse_labels_get_indices_beyond_the_classes() -> None:
    part = MixturePart(
        Fixed(("road", "stuff", "any"), np.array([[0, 1, 2, 255]])), {"stuff": ("sky", "car"), "any": ()}
    )
    mixture = Mixture([part], part.dataset.inputs, CITYSCAPES, (32, 64))
    np.testing.assert_array_equal(mixture[0].labels, [[0, 19, 255, 255]])
    assert mixture.members.shape == (20, 19)
    assert [CITYSCAPES[k].name for k in np.flatnonzero(mixture.members[19])] == ["sky", "car"]


def test_a_class_without_a_translation_is_named() -> None:
    part = MixturePart(Fixed(("road", "lawn"), np.zeros((1, 1))), {})
    with pytest.raises(DataError, match="class 'lawn' of fixed has no meaning here"):
        Mixture([part], part.dataset.inputs, CITYSCAPES, (32, 64))


def test_scoring_leaves_out_labels_that_leave_open_what_others_decide() -> None:
    own = [LabelClass(name, (0, 0, 0)) for name in ("road", "walk", "parking", "lane", "far")]
    scoring = Scoring.of(own, [(0,), (1,), (0, 1), (0,), (2, 8)])
    assert scoring.names == ("road", "walk", "far")
    assert scoring.of_label[:5].tolist() == [0, 1, 255, 0, 2]
    assert scoring.of_class[[0, 1, 2, 8, 10]].tolist() == [0, 1, 2, 2, 255]
    assert Scoring.of(own[:3], [(0, 1), (1, 2), (4,)]).names == (
        "parking",
    )  # a 1 would be right for both of the others


def test_a_part_may_name_its_own_splits_and_leave_out_what_is_broken(toy: dict) -> None:
    root = Path(toy["root"]) / "pictures"
    (root / "train").rename(root / "all")
    (root / "labels" / "train").rename(root / "labels" / "all")
    toy["parts"][0] |= {"train_split": "all", "skip_broken": True}
    (root / "all" / "0.png").write_bytes(b"no png")
    config = parse_data(toy)
    train, val = open_dataset(config, "train"), open_dataset(config, "val")
    assert isinstance(train, Mixture)
    assert isinstance(val, Mixture)
    assert [len(part.dataset) for part in train.parts] == [1, 3]
    assert [len(part.dataset) for part in val.parts] == [2, 1]
    assert "pictures all" in train.description


def test_batches_bring_the_sensors_that_each_sample_has(toy: dict) -> None:
    config = parse_data(toy)
    mixture = open_dataset(config, "train")
    assert isinstance(mixture, Mixture)
    assert [spec.modality for spec in mixture.inputs] == [Sensor.CAMERA, Sensor.LIDAR]
    batch = Batches(mixture, (32, 64), 8, AugmentConfig(), seed=1)[0]
    assert batch.present is not None
    assert batch.present.sum(dim=0).tolist() == [6, 2]  # three quarters of the draws are pictures
    assert not batch.images[~batch.present].any()
    again = Batches(mixture, (32, 64), 8, AugmentConfig(), seed=1)[0]
    torch.testing.assert_close(batch.images, again.images)


@settings(max_examples=25)
@given(weights=st.lists(st.floats(0.1, 5), min_size=1, max_size=5), count=st.integers(1, 30), seed=st.integers(0, 99))
def test_each_part_has_its_share_of_a_batch(weights: list[float], count: int, seed: int) -> None:
    fixed = Fixed(("road", "sky"), np.zeros((1, 1)))
    parts = [MixturePart(fixed, {}, weight=weight) for weight in weights]
    drawn = Mixture(parts, fixed.inputs, CITYSCAPES, (32, 64)).draw(count, np.random.default_rng(seed))
    expected = count * np.array(weights) / sum(weights)
    assert len(drawn) == count
    assert (np.abs(np.bincount(drawn, minlength=len(weights)) - expected) < 1 + 1e-6).all()


def test_a_part_is_kept_at_its_own_size_to_train_on_and_read_as_the_robot_does_to_score(toy: dict) -> None:
    config = parse_data(toy)
    train, val = open_dataset(config, "train"), open_dataset(config, "val")
    assert train[0].images.shape == (2, 64, 96, 3)
    assert val[0].images.shape == (2, 32, 64, 3)
    assert len(train) == 2 + 3
    assert len(val) == 2 + 1  # the scan from the vehicle's own camera


def test_scores_are_of_every_part_in_its_own_classes(toy: dict) -> None:
    config = parse_data(toy)
    mixture = open_dataset(config, "val")
    assert isinstance(mixture, Mixture)
    model = AnymodalSegmenter(
        [s.mean for s in mixture.inputs], [s.std for s in mixture.inputs], 19, "b0", 16, dropout=0, drop_path=0
    ).eval()
    with torch.no_grad():
        model.head.classify.weight.zero_()
        model.head.classify.bias.copy_(torch.tensor([5.0] + [0.0] * 18))  # everything is road
    metrics = summarise_mixture(score_mixture(model, mixture, 1, show_progress=False))
    assert metrics["iou"]["pictures camera"] == {"drivable": 50.0, "far": 0.0}
    assert metrics["iou"]["scans lidar"]["road"] > 90
    assert metrics["accuracy"]["pictures camera"] == 50.0
    expected = np.exp(5) / (np.exp(5) + 18)
    assert metrics["ece"]["pictures camera"] == pytest.approx(100 * (expected - 0.5), abs=0.01)


def test_a_mixture_needs_parts_that_are_no_mixtures_and_a_method_that_takes_them(toy: dict) -> None:
    with pytest.raises(ConfigError, match="a mixture needs parts"):
        parse_data({"kind": "mixture", "root": "."})
    with pytest.raises(ConfigError, match="cannot be a mixture"):
        parse_data({"kind": "mixture", "root": ".", "parts": [toy]})
    with pytest.raises(ConfigError, match="a mixture's have not"):
        parse_config({"name": "x", "data": toy, "method": {"name": "magic"}, "budget": {"max_steps": 1}}, "test")


def test_a_part_whose_sensor_is_not_wanted_is_named(toy: dict) -> None:
    with pytest.raises(DataError, match=r"data\.modalities camera leaves out camera, lidar"):
        open_dataset(parse_data(toy | {"modalities": ["camera"]}), "train")


def test_the_configuration_has_the_last_word_on_what_a_class_means(toy: dict) -> None:
    toy["parts"][0]["meaning"] = {"far": ["sky"]}
    assert part_meaning(parse_data(toy).parts[0])["far"] == ("sky",)


# --- supervision ----------------------------------------------------------------------------------------------


def test_marginal_cross_entropy_is_the_logarithm_of_the_summed_probabilities() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 4, 3, 5)
    labels = torch.randint(0, 6, (2, 3, 5))
    labels[0, 0, 0] = 255
    members = torch.tensor(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 1]], dtype=torch.bool
    )
    weights = torch.rand(6)
    p = logits.softmax(dim=1)
    expected = []
    for b in range(2):
        for y in range(3):
            for x in range(5):
                label = int(labels[b, y, x])
                if label != 255:
                    inside = sum(p[b, k, y, x] for k in range(4) if members[label, k])
                    expected.append(-weights[label] * torch.log(torch.as_tensor(inside)))
    found = marginal_cross_entropy(logits, labels, members, weights)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_marginal_cross_entropy_of_plain_labels_is_cross_entropy() -> None:
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    members = torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(marginal_cross_entropy(logits, labels, members), labelled_cross_entropy(logits, labels))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()).filter(any), min_size=1, max_size=20))
def test_dropout_leaves_a_part_of_what_a_sample_has(rows: list[tuple[bool, bool, bool]]) -> None:
    present = torch.tensor(rows)
    subsets = draw_subsets_of(present)
    assert subsets.any(dim=1).all()
    assert not (subsets & ~present).any()


def test_dropout_leaves_every_number_of_sensors_equally_often() -> None:
    torch.manual_seed(1)
    sizes = draw_subsets_of(torch.tensor([[True, False, True, True]]).repeat(3000, 1)).sum(dim=1)
    assert (torch.bincount(sizes, minlength=4)[1:] - 1000).abs().max() < 120


# --- windows --------------------------------------------------------------------------------------------------


def test_an_undistorted_window_has_the_networks_proportions() -> None:
    assert largest_inside((360, 480), (192, 640)) == (144, 480)
    assert largest_inside((192, 640), (192, 192)) == (192, 192)


def test_focus_shows_a_thing_that_is_one_pixel_large() -> None:
    labels = np.zeros((100, 200), np.uint8)
    labels[3, 197] = 7
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(200):
        top, left, height, width = moved_onto(Window(0, 0, 20, 40), labels, rng)
        assert 0 <= top <= 80
        assert 0 <= left <= 160
        seen += 7 in labels[top : top + height, left : left + width]
    assert seen > 70  # half of the draws are for the pixel, and more see it by chance


def test_focus_without_any_label_leaves_the_window() -> None:
    window = Window(1, 2, 3, 4)
    assert moved_onto(window, np.full((9, 9), 255, np.uint8), np.random.default_rng(0)) == window


def test_crops_show_a_part_at_full_scale() -> None:
    columns = np.tile(np.arange(128, dtype=np.uint8), (64, 1))
    images = np.repeat(columns[None, ..., None], 3, axis=3)
    config = AugmentConfig(hflip=0, scale=(1.0, 1.0), jitter=0, blur=0, crops=True)
    whole, _ = augment(images, columns, (Sensor.CAMERA,), (32, 64), config, np.random.default_rng(0))
    part, _ = augment(images, columns, (Sensor.CAMERA,), (32, 64), config, np.random.default_rng(0), share=0.5)
    assert np.diff(whole[0, 0, :, 0].astype(int)).mean() == pytest.approx(2, abs=0.1)
    assert np.diff(part[0, 0, :, 0].astype(int)).mean() == pytest.approx(1, abs=0.1)
