"""Every bundled student: sound, small, and good for every subset of its sensors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from toy_student import write_toy_student

from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.model_card import (
    ModelCard,
    bundled_students,
    find_student,
    introduction,
    load_card,
    usage_notice,
)
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor

MAX_BYTES = 20 * 2**20

students = pytest.mark.parametrize(
    "name",
    bundled_students() or [pytest.param("none", marks=pytest.mark.skip("no student is bundled: make students"))],
)


def subsets(card: ModelCard) -> Iterator[tuple[Sensor, ...]]:
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
def test_its_networks_name_nothing_of_the_computer_that_exported(name: str) -> None:
    assert not [file.name for file in find_student(name).glob("*.onnx") if b"stack_trace" in file.read_bytes()]


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


def test_a_student_is_introduced_with_what_it_knows_and_the_names_of_its_data(tmp_path: Path) -> None:
    assert introduction(load_card(find_student("vehicle_sim"))) == (
        "student vehicle_sim: The simulated vehicle's 25 DELIVER classes from any of camera, depth, event and LiDAR; "
        "trained on vehicle_sim_640 train"
    )
    assert "trained on kitti_semantic train, camvid train, " in introduction(load_card(find_student("street")))
    card = load_card(write_toy_student(tmp_path / "toy"))
    untold = card.model_copy(update={"description": "", "training": card.training.model_copy(update={"data": ""})})
    assert introduction(untold) == f"student {card.name}; trained on data that its card does not name"


def test_a_student_of_non_commercial_data_says_so_and_names_those_without_that_limit(tmp_path: Path) -> None:
    card = load_card(write_toy_student(tmp_path / "toy"))
    assert usage_notice(card) is None
    bound = card.training.model_copy(update={"licence": "CC BY-NC-SA 3.0", "non_commercial": True})
    notice = usage_notice(card.model_copy(update={"training": bound}))
    assert notice is not None
    assert "research and non-commercial use only: CC BY-NC-SA 3.0" in notice
    assert "vehicle_sim" in notice
    assert "street" not in notice.partition("Without that limit")[2]
