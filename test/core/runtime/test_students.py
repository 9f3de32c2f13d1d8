"""Every bundled student: sound, small, and good for every subset of its sensors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, combinations

import numpy as np
import pytest

from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.modality import Modality
from anyseg_core.runtime.model_card import ModelCard, bundled_students, find_student, load_card
from anyseg_core.runtime.segmenter import Segmenter

MAX_BYTES = 20 * 2**20

students = pytest.mark.parametrize(
    "name",
    bundled_students() or [pytest.param("none", marks=pytest.mark.skip("no student is bundled: make students"))],
)


def subsets(card: ModelCard) -> Iterator[tuple[Modality, ...]]:
    """Every non-empty subset of the student's modalities, in the card's order."""
    sizes = range(1, len(card.modalities) + 1)
    return chain.from_iterable(combinations(card.modalities, size) for size in sizes)


@students
def test_the_card_is_whole_and_says_where_it_comes_from(name: str) -> None:
    card = load_card(find_student(name))
    assert card.name == name
    assert card.description
    assert re.match("[0-9a-f]{7,40}", card.training.git_revision)
    assert card.training.data
    assert card.training.method


@students
def test_it_is_small_and_has_nothing_beside_it(name: str) -> None:
    folder = find_student(name)
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(files) == {
        "model.json",
        *(file.file for network in load_card(folder).networks for file in network.files),
    }
    assert sum(files.values()) < MAX_BYTES


@students
def test_every_subset_gives_labels_and_confidence(name: str) -> None:
    folder = find_student(name)
    card = load_card(folder)
    rng = np.random.default_rng(0)
    for network in card.networks:
        engine = open_engine(folder / network.file, "auto", 1)
        for subset in (s for s in subsets(card) if network.serves(s)):
            images = rng.integers(0, 256, (len(subset), *card.input_size, 3), np.uint8)
            index = np.array([card.index_of(modality) for modality in subset], np.int64)
            labels, confidence = engine.run(images, index)
            assert labels.shape == confidence.shape == card.input_size
            assert labels.dtype == confidence.dtype == np.uint8
            assert labels.max() < len(card.classes)
        engine.close()


@students
def test_it_opens_by_its_name(name: str) -> None:
    segmenter = Segmenter.open(name, threads=1)
    assert segmenter.card == load_card(find_student(name))
    segmenter.close()
