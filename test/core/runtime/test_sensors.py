"""Sensors: names with kinds."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from anyseg_core.runtime.model_card import InputSpec
from anyseg_core.runtime.sensors import (
    CAMERA,
    DEFAULT_SENSORS,
    DEPTH,
    EVENT,
    LIDAR,
    SENSOR_KINDS,
    Sensor,
    SensorFrame,
    in_order,
    number_of,
)

THERMAL = Sensor("thermal", CAMERA)


class _Named(BaseModel):
    sensor: Sensor


def test_the_default_sensors_are_named_as_their_kinds() -> None:
    assert [sensor.kind for sensor in DEFAULT_SENSORS] == [CAMERA, DEPTH, EVENT, LIDAR] == list(SENSOR_KINDS.values())
    assert [str(sensor) for sensor in DEFAULT_SENSORS] == list(SENSOR_KINDS)


def test_a_sensor_is_its_name_and_knows_its_kind_wherever_it_comes_from() -> None:
    assert THERMAL == "thermal"
    assert {THERMAL: 1}["thermal"] == 1  # type: ignore[index]
    assert Sensor("thermal") is Sensor("thermal", "camera") is THERMAL
    assert pickle.loads(pickle.dumps(THERMAL)) is copy.deepcopy(THERMAL) is THERMAL
    model = _Named.model_validate_json('{"sensor": "thermal"}')
    assert model.sensor is THERMAL
    assert json.loads(model.model_dump_json()) == {"sensor": "thermal"}


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("sonar", None, "modalities.sonar.kind"),
        ("sonar", "sonar", "known kinds: camera, depth, event, lidar"),
        ("thermal", "depth", "of kind camera and cannot be of kind depth"),
        ("lidar", "camera", "of kind lidar and cannot be of kind camera"),
        ("front camera", "camera", "lower-case letters"),
        ("", "camera", "lower-case letters"),
    ],
)
def test_names_and_kinds_that_do_not_fit_are_refused(name: str, kind: str | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Sensor(name, kind)


def test_an_unknown_name_is_refused_by_every_file_that_holds_one() -> None:
    with pytest.raises(ValidationError, match="unknown sensor 'sonar'"):
        _Named.model_validate({"sensor": "sonar"})
    with pytest.raises(ValidationError):
        _Named.model_validate({"sensor": 4})


@given(st.sets(st.sampled_from([*DEFAULT_SENSORS, THERMAL, Sensor("lidar_rear", LIDAR)])))
def test_the_order_of_sensors_does_not_depend_on_how_they_came(sensors: set[Sensor]) -> None:
    ordered = in_order(sensors)
    assert set(ordered) == sensors
    assert ordered == in_order(list(reversed(ordered)))
    assert [s for s in ordered if s in DEFAULT_SENSORS] == [s for s in DEFAULT_SENSORS if s in sensors]


def test_numbers_for_seeds_are_those_of_always() -> None:
    assert [number_of(sensor) for sensor in DEFAULT_SENSORS] == [0, 1, 2, 3]
    assert number_of(THERMAL) == 2313492925


@pytest.mark.parametrize(
    ("kind", "data", "fits"),
    [
        (CAMERA, np.zeros((4, 6, 3), np.uint8), True),
        (CAMERA, np.zeros((4, 6), np.uint8), False),
        (CAMERA, np.zeros((4, 6, 3), np.float32), False),
        (DEPTH, np.zeros((4, 6), np.float32), True),
        (EVENT, np.zeros((4, 6, 3), np.uint8), False),
        (LIDAR, np.zeros((0, 4), np.float32), True),
        (LIDAR, np.zeros((9, 3), np.float32), False),
    ],
)
def test_a_kind_knows_its_data(kind: object, data: np.ndarray, fits: bool) -> None:
    assert kind.fits(data) is fits  # type: ignore[attr-defined]


def test_only_points_have_no_image_size() -> None:
    assert SensorFrame(THERMAL, np.zeros((4, 6, 3), np.uint8), 0).image_size == (4, 6)
    assert SensorFrame(Sensor("lidar_rear", LIDAR), np.zeros((9, 4), np.float32), 0).image_size is None


def test_a_card_declares_its_sensors_and_says_their_kinds() -> None:
    content = {"modality": "gated", "kind": "camera", "encoding": {"kind": "rgb"}}
    spec = InputSpec.model_validate(content)
    assert spec.modality.kind is CAMERA
    assert InputSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.model_dump(mode="json")["kind"] == "camera"
    assert InputSpec.model_validate({"modality": "lidar", "encoding": {"kind": "lidar_projection"}}).kind == "lidar"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"modality": "polar_9", "encoding": {"kind": "rgb"}}, "unknown sensor 'polar_9'"),
        ({"modality": "camera", "kind": "depth", "encoding": {"kind": "depth"}}, "cannot be of kind depth"),
        ({"modality": "thermal", "kind": "camera", "encoding": {"kind": "depth"}}, "thermal cannot be encoded as"),
        (
            {"modality": "camera", "encoding": {"kind": "rgbd"}},
            "known: rgb, depth, hha, event_counts, lidar_p",
        ),
        ({"modality": "camera", "encoding": {}}, "unknown encoding kind None"),
        ({"modality": "camera", "encoding": 3}, "encoding"),
    ],
)
def test_a_card_with_a_wrong_sensor_says_what_is_wrong(content: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        InputSpec.model_validate(content)
