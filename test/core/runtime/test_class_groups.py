"""Published classes, groups, and what a card says of lost sensors."""

from __future__ import annotations

import numpy as np
import pytest

from anyseg_core.runtime.class_groups import ClassNameError, class_table, published_classes
from anyseg_core.runtime.class_losses import class_losses, losses_in_words
from anyseg_core.runtime.model_card import STUDENTS, ModelCard, load_card
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor

GROUPS = {"drivable": ["Road", "RoadLine"], "vehicle": ["Cars", "Truck", "Bus"]}


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return load_card(STUDENTS / "vehicle_sim", verify=False)


def label(card: ModelCard, name: str) -> int:
    return [spec.name for spec in card.classes].index(name)


def test_names_of_classes_and_groups(card: ModelCard) -> None:
    table = class_table(card, GROUPS, ["drivable", "Pole"])
    assert set(np.flatnonzero(table)) == {label(card, n) for n in ("Road", "RoadLine", "Pole")}


@pytest.mark.parametrize(("name", "remedy"), [("Rood", "did you mean Road"), ("xyzzy", "its classes: Building")])
def test_an_unknown_name_is_told_with_its_remedy(card: ModelCard, name: str, remedy: str) -> None:
    with pytest.raises(ClassNameError, match=remedy):
        class_table(card, GROUPS, [name])
    with pytest.raises(ClassNameError, match=remedy):
        published_classes(card, {"bad": [name]})
    with pytest.raises(ClassNameError, match=remedy):
        published_classes(card, colors={name: (1, 2, 3)})


def test_without_settings_the_students_own_labels_are_published(card: ModelCard) -> None:
    published = published_classes(card)
    labels = np.arange(25, dtype=np.uint8)
    assert published.is_identity
    assert published.of(labels) is labels
    assert published.names[label(card, "Cars")] == "Cars"
    assert tuple(published.palette[label(card, "Cars")]) == (0, 0, 142)


def test_groups_instead_of_classes(card: ModelCard) -> None:
    published = published_classes(card, GROUPS, as_groups=True, ids={"vehicle": 13}, colors={"vehicle": (9, 8, 7)})
    labels = np.array([label(card, n) for n in ("Road", "Bus", "Cars", "Sky")] + [255], np.uint8)
    assert published.of(labels).tolist() == [0, 13, 13, 255, 255]
    assert published.names == {0: "drivable", 13: "vehicle"}
    assert tuple(published.palette[13]) == (9, 8, 7)
    assert tuple(published.palette[0]) == (128, 64, 128)
    assert published.legend() == {"drivable": "#804080", "vehicle": "#090807"}


def test_other_ids_for_classes(card: ModelCard) -> None:
    published = published_classes(card, ids={"Sky": 200, "Road": 255})
    assert published.of(np.array([label(card, "Sky"), label(card, "Road")], np.uint8)).tolist() == [200, 255]
    assert "Road" not in published.names.values()


def test_a_label_belongs_to_one_name(card: ModelCard) -> None:
    with pytest.raises(ClassNameError, match="both published as 6"):
        published_classes(card, ids={"Sky": label(card, "Road")})
    with pytest.raises(ClassNameError, match="another group"):
        published_classes(card, {"a": ["Road"], "b": ["Road"]}, as_groups=True)


def with_table(card: ModelCard) -> ModelCard:
    table = {
        "camera+depth+event+lidar": {"Road": 93.0, "TrafficLight": 27.2, "Pole": 30.0, "Cars": 80.0},
        "depth+event+lidar": {"Road": 92.0, "TrafficLight": 3.1, "Pole": 12.0, "Cars": 81.0},
    }
    metrics = {**card.training.metrics, "iou_by_subset": table}
    return card.model_copy(update={"training": card.training.model_copy(update={"metrics": metrics})})


def test_what_is_lost_without_a_sensor(card: ModelCard) -> None:
    rest = [Sensor.LIDAR, Sensor.DEPTH, Sensor.EVENT]  # in any order
    words = losses_in_words(with_table(card), rest)
    assert words == "without camera: TrafficLight 27 -> 3, Pole 30 -> 12"
    assert losses_in_words(with_table(card), DEFAULT_SENSORS) == ""
    assert losses_in_words(with_table(card), []) == ""


def test_what_is_left_is_said_where_all_sensors_together_were_never_measured(card: ModelCard) -> None:
    table = {"lidar": {"Road": 70.7, "Pole": 0.4, "Cars": 62.5}, "camera": {}}
    metrics = {**card.training.metrics, "iou_by_subset": table, "iou_by_subset_data": {"lidar": "scans"}}
    partly = card.model_copy(update={"training": card.training.model_copy(update={"metrics": metrics})})
    words = losses_in_words(partly, [Sensor.LIDAR])
    assert words == "without camera, depth, event: the IoU left is Road 71, Cars 62 (on scans); under 5: Pole"
    assert "not measured" in losses_in_words(partly, [Sensor.CAMERA])


def test_what_was_not_measured_is_not_made_up(card: ModelCard) -> None:
    assert class_losses(with_table(card), [Sensor.DEPTH]) is None
    assert "not measured" in losses_in_words(with_table(card), [Sensor.DEPTH])
