"""What a student's sensors agree on is measured on data and written into its card, and nothing else of it changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from toy_student import write_toy_student

from anyseg_core.data.card_agreement import write_expected_agreement
from anyseg_core.data.sample import DataError, Sample
from anyseg_core.runtime.model_card import InputSpec, load_card

SIZE = (64, 64)


@dataclass
class Samples:
    """Random images; of `without_lidar` samples LiDAR is missing."""

    inputs: tuple[InputSpec, ...]
    count: int = 24
    without_lidar: int = 0
    silent: int | None = None
    classes = ()
    size = SIZE
    description = fingerprint = "random"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        images = np.random.default_rng(index).integers(0, 256, (4, *SIZE, 3), np.uint8)
        if self.silent is not None:
            images[self.silent] = 0
        present = np.array([True, True, True, index >= self.without_lidar])
        return Sample(images, np.zeros(SIZE, np.uint8), str(index), present)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return write_toy_student(tmp_path / "toy", SIZE)


def test_every_sensor_beside_every_set_of_others_is_written(student: Path) -> None:
    before = json.loads((student / "model.json").read_text())
    assert write_expected_agreement(student, Samples(load_card(student).inputs)) == 4 * 7
    after = json.loads((student / "model.json").read_text())
    assert {key for key in after if after[key] != before.get(key)} == {"agreement"}
    expected = {each.key: each for each in load_card(student).agreement}
    assert "camera|depth+event+lidar" in expected
    assert all(number <= 0.01 for number in expected["camera|depth"].mean)


def test_a_sensor_that_samples_lack_says_nothing(student: Path) -> None:
    assert write_expected_agreement(student, Samples(load_card(student).inputs, without_lidar=20)) == 3 * 3


def test_events_that_show_nothing_are_left_out(student: Path) -> None:
    write_expected_agreement(student, Samples(load_card(student).inputs, silent=2))
    assert not any("event" in each.key for each in load_card(student).agreement)


def test_too_few_samples_are_refused(student: Path) -> None:
    with pytest.raises(DataError, match="use more"):
        write_expected_agreement(student, Samples(load_card(student).inputs, count=3))


def test_samples_of_another_size_are_refused(student: Path) -> None:
    samples = Samples(load_card(student).inputs)
    samples.size = (32, 32)
    with pytest.raises(DataError, match=r"are \(32, 32\); .*set data\.size"):
        write_expected_agreement(student, samples)


def test_samples_of_other_sensors_are_refused(student: Path) -> None:
    with pytest.raises(DataError, match="takes camera, depth, event, lidar"):
        write_expected_agreement(student, Samples(load_card(student).inputs[:2]))
