"""Conditions: each kind of judgement, what they refuse, and the exit code they decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from repository import REPOSITORY

from anyseg_core.runtime.label_sets import DELIVER
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.replay.conditions import ConditionError, Conditions, Verdict, judge
from anyseg_ros.replay.mask_records import LABELS, MaskRecord, sparse_cells

ROOT = REPOSITORY
CLASSES = ("Road", "Sky")
SCENARIOS = ("all", "camera", "camera_lost")


def record(number: int, right: int, wrong: int = 0, scenario: str = "all", **changes: Any) -> MaskRecord:
    """A mask a tenth of a second after the one before, with pixels of Road: right ones, and wrong ones seen as Sky."""
    matrix = ConfusionMatrix(len(CLASSES))
    matrix.counts[0, :2] = right, wrong
    cells, pixels = sparse_cells(matrix)
    values: dict[str, Any] = {
        "number": number, "scenario": scenario, "t_s": number / 10, "stamp_ns": number, "anchor": Sensor.CAMERA,
        "used": DEFAULT_SENSORS, "age_ms": 5.0, "size": (2, 2), "hash": "", "confidence": 0.5, "encode_ms": 1.0,
        "engine_ms": 2.0, "against": LABELS, "cells": cells, "pixels": pixels,
    }  # fmt: skip
    return MaskRecord(**{**values, **changes})


def verdicts(condition: dict[str, Any], records: Sequence[MaskRecord]) -> list[Verdict]:
    conditions = Conditions.parse({"conditions": [{"name": "it", **condition}]})
    return judge(conditions, records, SCENARIOS, CLASSES)


def verdict(condition: dict[str, Any], records: Sequence[MaskRecord]) -> Verdict:
    (only,) = verdicts({"scenario": "all", **condition}, records)
    return only


HALF = [record(i, right=10) for i in range(5)] + [record(i, right=0, wrong=10) for i in range(5, 10)]
"""Half a second of perfect masks, then half a second without a right pixel."""
GOOD = {"metric": "miou", "at_least": 0.9}


@pytest.mark.parametrize(
    ("condition", "passed"),
    [
        (GOOD, False),  # 50 right, 50 wrong pixels together
        ({**GOOD, "at_least": 0.5}, True),
        ({"metric": "iou.road", "at_least": 0.5}, True),
        ({"metric": "pixel_accuracy", "at_least": 0.49, "at_most": 0.51}, True),
        ({**GOOD, "type": "any_of"}, True),
        ({**GOOD, "type": "all_of"}, False),
        ({**GOOD, "type": "all_of", "time": {"end_s": 0.5}}, True),
        ({**GOOD, "type": "any_of", "time": {"start_s": 0.5}}, False),
        ({**GOOD, "type": "duration_larger_than", "duration_s": 0.39}, True),
        ({**GOOD, "type": "duration_larger_than", "duration_s": 0.41}, False),
        ({**GOOD, "type": "duration_less_than", "duration_s": 0.41}, True),
        ({**GOOD, "type": "duration_less_than", "duration_s": 0.39}, False),
        ({**GOOD, "type": "percentage_larger_than", "percentage": 0.49}, True),
        ({**GOOD, "type": "percentage_larger_than", "percentage": 0.5}, False),
        ({**GOOD, "type": "percentage_less_than", "percentage": 0.51}, True),
        ({"metric": "sensors", "at_least": 4, "type": "all_of"}, True),
        ({"metric": "used.lidar", "at_least": 1}, True),
        ({"metric": "age_ms", "at_most": 4}, False),
    ],
)
def test_each_judgement(condition: dict[str, Any], passed: bool) -> None:
    assert verdict(condition, HALF).passed is passed


@pytest.mark.parametrize("kind", ["pooled", "any_of", "all_of", "percentage_less_than", "duration_less_than"])
def test_without_a_mask_nothing_has_passed(kind: str) -> None:
    condition = {**GOOD, "type": kind, "percentage": 0.5, "duration_s": 1.0}
    for records in ([], [record(0, 10, scenario="camera")], [record(0, 10, error="no engine")]):
        result = verdict(condition, records)
        assert not result.passed
        assert "no mask to judge" in result.text


def test_agreement_with_other_masks_is_no_accuracy() -> None:
    unlabelled = [record(0, 10, against="all", agreement=0.8)]
    assert not verdict(GOOD, unlabelled).passed
    assert verdict({"metric": "agreement", "at_least": 0.7}, unlabelled).passed


def test_every_scenario_that_matches_is_judged() -> None:
    records = [record(0, 10), record(1, 10, scenario="camera"), record(2, 0, 10, scenario="camera_lost")]
    found = verdicts({**GOOD, "scenario": "camera*"}, records)
    assert [(v.scenario, v.passed) for v in found] == [("camera", True), ("camera_lost", False)]
    assert [v.scenario for v in verdicts(GOOD, records)] == list(SCENARIOS)


def test_groups() -> None:
    good, bad = {"name": "good", **GOOD, "at_least": 0.5}, {"name": "bad", **GOOD}
    for kind, passed in (("any_of", True), ("all_of", False)):
        group = {"name": "both", kind: [{**good, "scenario": "all"}, {**bad, "scenario": "all"}]}
        (found,) = judge(Conditions.parse({"conditions": [group]}), HALF, SCENARIOS, CLASSES)
        assert (found.name, found.passed) == ("both", passed)
        assert "+ good" in found.text
        assert "- bad" in found.text


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"metric": "miou"}, "at_least or at_most is missing"),
        ({"metric": "mAP", "at_least": 1}, "unknown metric 'mAP'"),
        ({**GOOD, "type": "some_of"}, "type"),
        ({**GOOD, "type": "duration_less_than"}, "needs duration_s"),
        ({**GOOD, "type": "percentage_less_than", "percentage": 90}, "percentage"),
        ({**GOOD, "time": {"start_s": 5, "end_s": 4}}, "end_s"),
        ({**GOOD, "minimum": 3}, "minimum"),
        ({"any_of": [], "all_of": []}, "either any_of or all_of"),
        ({"any_of": [GOOD]}, "any_of.0.name"),
        (7, "condition 1"),
    ],
)
def test_mistakes_are_named_with_their_place(entry: Any, says: str) -> None:
    content = {"name": "it", **entry} if isinstance(entry, dict) else entry
    with pytest.raises(ConditionError, match="condition 1") as error:
        Conditions.parse({"conditions": [content]}, "rules.yaml")
    assert says in str(error.value)
    assert "rules.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({**GOOD, "scenario": "lidar*"}, "scenarios: all, camera"),
        ({"metric": "iou.Tree", "at_least": 1}, "Road, Sky"),
        ({"metric": "used.sonar", "at_least": 1}, "unknown sensor 'sonar'"),
    ],
)
def test_what_only_the_replay_can_tell(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(ConditionError, match=says):
        verdicts(entry, HALF)


@pytest.mark.parametrize("content", ["", "conditions: []", "[]", "{", "conditions: 4", "rules: []"])
def test_files_without_conditions(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(content)
    with pytest.raises(ConditionError, match=r"rules\.yaml"):
        Conditions.load(path)


def test_the_shipped_example_is_valid() -> None:
    path = ROOT / "config" / "replay" / "conditions.yaml"
    conditions = Conditions.load(path)
    judge(conditions, [], ("all", "depth+event+lidar"), [c.name for c in DELIVER])
    assert len(conditions.conditions) == len(yaml.safe_load(path.read_text())["conditions"])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20), st.floats(0, 1))
def test_any_all_and_percentage_are_of_one_mind(pixels: list[tuple[int, int]], limit: float) -> None:
    records = [record(i, right, wrong) for i, (right, wrong) in enumerate(pixels)]
    share = {"metric": "miou", "at_least": limit, "percentage": 0.0}
    found = {kind: verdict({**share, "type": kind}, records) for kind in ("any_of", "all_of", "percentage_larger_than")}
    assert found["any_of"].passed == found["percentage_larger_than"].passed
    assert found["any_of"].passed or not found["all_of"].passed


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4))
def test_a_record_survives_its_line(counts: list[int]) -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts[:, :2] = np.reshape(counts, (2, 2))
    cells, pixels = sparse_cells(matrix)
    before = record(3, 1, agreement=0.25, cells=cells, pixels=pixels)
    after = MaskRecord.parse(before.line())
    assert after == before
    np.testing.assert_array_equal(after.confusion(2).counts, matrix.counts)
