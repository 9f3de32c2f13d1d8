"""Rare things are copied whole, with every sensor's pixels, inside their own data set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyseg_core.data.augmentation import AugmentConfig
from anyseg_core.data.mixture import Mixture, MixturePart
from anyseg_core.data.paste import MIN_PIXELS, PasteConfig, Paster
from anyseg_core.data.sample import DataError, Sample
from anyseg_core.runtime.label_sets import LabelClass
from anyseg_core.runtime.model_card import DepthEncoding, InputSpec, RgbEncoding
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.training.batches import Batches

ROAD, RIDER, BIKE = 0, 1, 2
SPECS = {
    "camera": InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding()),
    "depth": InputSpec(modality=Sensor.DEPTH, encoding=DepthEncoding()),
}
SIZE = (40, 60)


class Streets:
    """Empty roads, and one with a rider on a bicycle and a second bicycle far from them."""

    description, fingerprint, size = "streets", "streets", SIZE
    classes = (LabelClass("road", (0, 0, 0)), LabelClass("rider", (0, 0, 0)), LabelClass("bike", (0, 0, 0)))

    def __init__(self, sensors: tuple[str, ...] = ("camera", "depth"), with_things: bool = True) -> None:
        self.inputs = tuple(SPECS[name] for name in sensors)
        self._with_things = with_things

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        images, labels = np.zeros((len(self.inputs), *SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
        if index == 2 and self._with_things:
            labels[10:20, 10:16], labels[20:28, 8:18], labels[20:28, 40:50] = RIDER, BIKE, BIKE
            images[:] = (50 * labels)[..., None] + np.arange(1, 1 + len(images), dtype=np.uint8)[:, None, None, None]
        return Sample(images, labels, f"street {index}")


@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_what_is_pasted_is_one_whole_thing_at_its_height_in_every_sensor(seed: int) -> None:
    paster = Paster(Streets(), PasteConfig(labels=("rider", "bike"), probability=1.0))
    before = Streets()[0]
    after = paster(0, before, np.random.default_rng(seed))
    changed = after.labels != ROAD
    rows, cols = np.nonzero(changed)
    is_pair = (after.labels == RIDER).any()
    assert changed.sum() == (60 + 80 if is_pair else 80)  # the rider never without the bicycle below
    assert (rows.min(), rows.max()) == (10 if is_pair else 20, 27)
    assert np.ptp(cols) == 9
    for number, image in enumerate(after.images):
        assert (image[changed] == 50 * after.labels[changed][:, None] + number + 1).all()
        assert not image[~changed].any()
    assert not before.labels.any(), "the data set's own sample has changed"
    assert not before.images.any()


def test_how_often_something_is_pasted_is_the_setting() -> None:
    streets = Streets()
    rng = np.random.default_rng(0)
    paster = Paster(streets, PasteConfig(labels=("bike",), probability=0.3))
    share = np.mean([paster(0, streets[0], rng).labels.any() for _ in range(300)])
    assert share == pytest.approx(0.3, abs=0.08)


def test_a_label_that_is_no_class_is_named() -> None:
    with pytest.raises(DataError, match=r"no class is called tram; known: road, rider, bike"):
        Paster(Streets(), PasteConfig(labels=("bike", "tram")))


def test_nothing_to_copy_is_an_error() -> None:
    with pytest.raises(DataError, match="no sample with a camera has rider or bike"):
        Paster(Streets(with_things=False), PasteConfig(labels=("rider", "bike")))
    with pytest.raises(DataError, match="no sample with a camera"):
        Paster(Streets(("depth",)), PasteConfig(labels=("bike",)))


def test_a_thing_of_a_few_pixels_is_not_copied() -> None:
    labels = np.zeros(SIZE, np.uint8)
    labels[:5, : MIN_PIXELS // 5] = RIDER
    assert Paster(_OneSample(labels), PasteConfig(labels=("rider",)))
    labels[0, 0] = ROAD
    with pytest.raises(DataError, match="no sample"):
        Paster(_OneSample(labels), PasteConfig(labels=("rider",)))


class _OneSample(Streets):
    def __init__(self, labels: np.ndarray) -> None:
        super().__init__()
        self._labels = labels

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return Sample(np.zeros((len(self.inputs), *SIZE, 3), np.uint8), self._labels, "")


def test_in_a_mixture_things_stay_in_their_part_and_a_coarse_label_of_things_is_one() -> None:
    streets, empty = Streets(), Streets(with_things=False)
    classes = (LabelClass("road", (0, 0, 0)), LabelClass("person", (0, 0, 0)), LabelClass("bicycle", (0, 0, 0)))
    meaning = {"rider": ("person", "bicycle"), "bike": ("bicycle",)}
    parts = [MixturePart(streets, meaning), MixturePart(empty, meaning)]
    mixture = Mixture(parts, streets.inputs, classes, SIZE)
    paster = Paster(mixture, PasteConfig(labels=("person", "bicycle"), probability=1.0))
    rng = np.random.default_rng(0)
    pasted = [paster(0, mixture[0], rng).labels for _ in range(20)]
    assert all(labels.any() for labels in pasted)
    assert any((labels == len(classes)).any() for labels in pasted), "the rider is either: the label after the classes"
    assert not any(paster(3, mixture[3], rng).labels.any() for _ in range(20))
    bicycles = Paster(mixture, PasteConfig(labels=("bicycle",), probability=1.0))
    assert not any((bicycles(0, mixture[0], rng).labels == len(classes)).any() for _ in range(20))


def test_batches_have_what_was_pasted_and_are_the_same_again() -> None:
    augment = AugmentConfig(scale=(1, 1), paste=PasteConfig(labels=("bike",), probability=1.0))
    batches = Batches(Streets(), SIZE, 3, augment)
    labels = batches[0].labels
    assert (labels == BIKE).flatten(1).any(1).all()
    assert labels.equal(batches[0].labels)
