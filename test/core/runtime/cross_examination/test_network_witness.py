"""What the network makes of each sensor alone: who differs from the others is found, a hard scene accuses nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import anyseg_core.runtime.cross_examination as package
from anyseg_core.runtime.cross_examination.agreement import Shown, agreement, agreements, consensus, shown
from anyseg_core.runtime.cross_examination.examiner import CrossExaminer
from anyseg_core.runtime.cross_examination.judge import Judge
from anyseg_core.runtime.cross_examination.judge import Testimony as Said
from anyseg_core.runtime.cross_examination.network_witness import (
    LIVELY_EVENTS,
    NOTHING_KNOWN,
    Expected,
    NetworkKnowledge,
    can_be_asked,
    cusum_threshold,
    expectation_key,
)
from anyseg_core.runtime.cross_examination.policy import DEFAULT, CrossExaminationConfig
from anyseg_core.runtime.health.state import Dispute
from anyseg_core.runtime.health.thresholds import CHECKS, DEFAULT_CHECKS, FOUND_BY_OTHERS, Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS
SHAPE = (32, 43)
ROAD, SKY, CAR = 0, 1, 2
LOOK_NS = 1_000_000_000
USUAL_ERRORS = 0.04


def scene(rng: np.random.Generator) -> np.ndarray:
    """Labels of a street: sky above road, and a car somewhere."""
    labels = np.full(SHAPE, ROAD, np.uint8)
    labels[: SHAPE[0] // 2] = SKY
    left = int(rng.integers(0, SHAPE[1] - 10))
    labels[12:22, left : left + 10] = CAR
    return labels


def seen(labels: np.ndarray, rng: np.random.Generator, errors: float = USUAL_ERRORS) -> Shown:
    """Labels with errors of one sensor."""
    wrong = rng.random(SHAPE) < errors
    return Shown(np.where(wrong, rng.integers(0, 3, SHAPE), labels).astype(np.uint8), np.full(SHAPE, 200, np.uint8))


def expectations(sensors: Sequence[Sensor]) -> NetworkKnowledge:
    """Of these errors, as a card would have them."""
    rng, found = np.random.default_rng(7), {}
    for size in range(2, len(sensors) + 1):
        for some in combinations(sensors, size):
            numbers = []
            for _ in range(30):
                labels = scene(rng)
                numbers.append({s: a.disagreement for s, a in agreements({s: seen(labels, rng) for s in some}).items()})
            for sensor in some:
                own = [each[sensor] for each in numbers]
                key = expectation_key(sensor, [other for other in some if other != sensor])
                found[key] = Expected(tuple(np.mean(own, axis=0)), tuple(np.std(own, axis=0)))
    return NetworkKnowledge(("road", "sky", "car"), found)


KNOWN = expectations(DEFAULT_SENSORS)
SETS: tuple[tuple[Sensor, ...], ...] = (DEFAULT_SENSORS, (CAMERA, DEPTH, LIDAR))


def mirrored(each: Shown) -> Shown:
    return Shown(each.labels[:, ::-1], each.confidence)


def upside_down(each: Shown) -> Shown:
    return Shown(each.labels[::-1], each.confidence)


def one_class(each: Shown) -> Shown:
    return Shown(np.full_like(each.labels, CAR), each.confidence)


def wrong_quarter(each: Shown) -> Shown:
    labels = each.labels.copy()
    labels[SHAPE[0] // 2 :, : SHAPE[1] // 2] = SKY
    return Shown(labels, each.confidence)


def looked(
    wrong: Sensor | None = None,
    change: Callable[[Shown], Shown] = upside_down,
    *,
    sensors: Sequence[Sensor] = DEFAULT_SENSORS,
    knowledge: NetworkKnowledge = KNOWN,
    looks: int = 24,
    wrong_from: int = 6,
    wrong_to: int = 1000,
    errors: Sequence[float] = (),
    config: CrossExaminationConfig = DEFAULT,
) -> list[Mapping[Sensor, Dispute]]:
    """The disputes after each look."""
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault], lambda: config, knowledge)
    rng, disputes = np.random.default_rng(3), []
    for number in range(looks):
        labels, share = scene(rng), errors[number] if number < len(errors) else USUAL_ERRORS
        shown_by = {sensor: seen(labels, rng, share) for sensor in sensors}
        if wrong is not None and wrong_from <= number < wrong_to:
            shown_by[wrong] = change(shown_by[wrong])
        examiner.hear_network(shown_by, number * LOOK_NS)
        for tenth in range(1, 10):  # the other witnesses' looks confirm it
            examiner.examine({}, None, None, number * LOOK_NS + tenth * LOOK_NS // 10)
        disputes.append(examiner.disputes)
    return disputes


@pytest.mark.parametrize("change", [mirrored, upside_down, one_class, wrong_quarter])
@pytest.mark.parametrize(("wrong", "sensors"), [(s, some) for some in SETS for s in some])
def test_who_differs_from_the_others_is_blamed_and_nobody_else(
    wrong: Sensor, change: Callable[[Shown], Shown], sensors: tuple[Sensor, ...]
) -> None:
    disputes = looked(wrong, change, sensors=sensors)
    assert not any(disputes[:6])
    assert set(disputes[-1]) == {wrong}
    assert not any(set(each) - {wrong} for each in disputes)
    found = disputes[-1][wrong]
    assert (found.fault, found.is_blamed, found.unit) == (Fault.INCONSISTENT_CONTENT, True, "share")
    assert found.partner in set(sensors) - {wrong}
    assert found.confidence == 1 - 0.5 ** (len(sensors) - 1)


def test_the_text_has_the_number_what_is_usual_and_the_classes() -> None:
    reason = looked(CAMERA, one_class)[-1][CAMERA].reason
    assert "camera" in reason
    assert "usually 9" in reason
    assert "car" in reason


def test_of_two_neither_is_blamed() -> None:
    disputes = looked(CAMERA, sensors=(CAMERA, LIDAR))[-1]
    assert {s: (d.is_blamed, d.partner) for s, d in disputes.items()} == {
        CAMERA: (False, LIDAR),
        LIDAR: (False, CAMERA),
    }


def test_one_look_is_not_enough_and_two_are() -> None:
    disputes = looked(DEPTH, one_class, wrong_from=6, wrong_to=7)
    assert not any(disputes)
    assert looked(DEPTH, one_class, looks=8)[-1]


def test_a_scene_that_puzzles_all_of_them_accuses_nobody() -> None:
    hard = [USUAL_ERRORS] * 6 + [0.5] * 10
    assert not any(looked(errors=hard))


@pytest.mark.parametrize("turns", [False, True])
def test_the_same_view_again_at_standstill_accuses_nobody_and_a_new_one_does(turns: bool) -> None:
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault], lambda: DEFAULT, KNOWN)
    rng, street = np.random.default_rng(3), scene(np.random.default_rng(1))
    for number in range(40):
        shown_by = {sensor: seen(scene(rng) if number < 7 else street, rng, 0.01) for sensor in DEFAULT_SENSORS}
        if number >= 7:
            shown_by[CAMERA].labels[12:21, 32:] = CAR  # something that a camera by night takes for one
        if turns and number >= 20:
            shown_by[CAMERA] = upside_down(shown_by[CAMERA])
        examiner.hear_network(shown_by, number * LOOK_NS)
        for tenth in range(1, 10):
            examiner.examine({}, None, None, number * LOOK_NS + tenth * LOOK_NS // 10)
    assert set(examiner.disputes) == ({CAMERA} if turns else set())


def test_it_comes_back_after_agreement() -> None:
    disputes = looked(CAMERA, wrong_to=12)
    assert disputes[11]
    assert not disputes[-1]


def test_a_sensor_that_agrees_with_the_only_one_left_is_no_more_accused() -> None:
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault], lambda: DEFAULT, KNOWN)
    rng = np.random.default_rng(3)
    for number in range(40):
        labels = scene(rng)
        shown_by = {sensor: seen(labels, rng) for sensor in (CAMERA, DEPTH, LIDAR)}
        if number < 12:
            shown_by[CAMERA] = upside_down(shown_by[CAMERA])
        else:
            del shown_by[LIDAR]
        examiner.hear_network(shown_by, number * LOOK_NS)
        for _ in range(2):
            examiner.examine({}, None, None, number * LOOK_NS)
        if number == 11:
            assert set(examiner.disputes) == {CAMERA}
    assert not examiner.disputes


def test_a_sensor_that_is_the_last_one_is_no_more_accused() -> None:
    judge = Judge(lambda _sensor, fault: DEFAULT_CHECKS[fault], lambda _sensor, _at: 1.0)
    said = Said("network", Fault.INCONSISTENT_CONTENT, (CAMERA,), 1.0, 0.5, "share", "", partner=LIDAR, looks=5.0)
    for number in range(6):
        judge.hear([said], (CAMERA, LIDAR), number * LOOK_NS)
    assert set(judge.disputes) == {CAMERA}
    for number in range(6, 20):
        judge.hear([], (CAMERA,), number * LOOK_NS)
    assert not judge.disputes


def test_without_a_card_it_is_learnt_first() -> None:
    assert not any(looked(CAMERA, knowledge=NOTHING_KNOWN, wrong_from=0, looks=40))  # it was always so
    assert set(looked(CAMERA, knowledge=NOTHING_KNOWN, looks=60, wrong_from=40)[-1]) == {CAMERA}


def test_with_a_card_what_is_wrong_from_the_start_is_found() -> None:
    assert set(looked(CAMERA, one_class, wrong_from=0)[5]) == {CAMERA}


def test_what_is_wrong_does_not_become_usual() -> None:
    assert set(looked(CAMERA, looks=80)[-1]) == {CAMERA}


def test_fewer_false_alarms_take_longer() -> None:
    def found_after(rate: float) -> int:
        config = CrossExaminationConfig(network_false_alarms_per_h=rate)
        return next(n for n, each in enumerate(looked(CAMERA, mirrored, config=config)) if each)

    assert found_after(1000.0) <= found_after(0.05) <= found_after(1e-4)
    assert cusum_threshold(1e6) > cusum_threshold(1e4) > 0


def test_one_sensor_alone_is_compared_with_nothing() -> None:
    assert not any(looked(CAMERA, sensors=(CAMERA,), wrong_from=0))


def test_agreement_is_that_of_certain_pixels() -> None:
    labels = scene(np.random.default_rng(0))
    other = labels.copy()
    other[:8] = CAR
    unsure = np.where(np.arange(SHAPE[0])[:, None] < 8, 0, 200) * np.ones(SHAPE)
    sure = np.full(SHAPE, 200, np.uint8)
    found = agreement(Shown(labels, sure), [Shown(other, sure)])
    assert found is not None
    assert found.whole == pytest.approx(1 - 8 / SHAPE[0])
    assert found.worst_quarter == pytest.approx(0.5)
    assert found.classes == (SKY, CAR)
    found = agreement(Shown(labels, sure), [Shown(other, unsure.astype(np.uint8))])
    assert found is not None
    assert found.whole == 1.0
    assert agreement(Shown(labels, sure), [Shown(other, np.zeros(SHAPE, np.uint8))]) is None


def test_two_of_three_make_the_consensus() -> None:
    labels = scene(np.random.default_rng(0))
    sure = np.full(SHAPE, 200, np.uint8)
    one = Shown(labels, sure)
    assert np.array_equal(consensus([one, one, upside_down(one)]).labels, labels)


def test_a_large_label_image_is_thinned_out_and_a_small_one_is_not() -> None:
    assert shown(np.zeros((192, 256), np.uint8), np.zeros((192, 256), np.uint8)).labels.shape == SHAPE
    assert shown(np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)).labels.shape == (20, 30)


@pytest.mark.parametrize(("per_pixel", "asked"), [(0.5 * LIVELY_EVENTS, False), (4 * LIVELY_EVENTS, True)])
def test_events_that_are_too_few_are_not_asked_about(per_pixel: float, asked: bool) -> None:
    counts = np.zeros((50, 40, 2), np.uint8)
    counts.reshape(-1)[: int(per_pixel * 2000)] = 1
    assert can_be_asked(SensorFrame(EVENT, counts, 0)) is asked
    assert can_be_asked(SensorFrame(CAMERA, np.zeros((50, 40, 3), np.uint8), 0))


def test_every_fault_that_a_witness_names_is_one_that_others_find() -> None:
    sources = [path.read_text() for path in Path(str(package.__file__)).parent.glob("*.py")]
    named = {fault for fault in CHECKS if any(f"Fault.{fault.name}" in source for source in sources)}
    assert named == FOUND_BY_OTHERS
    assert Fault.MISALIGNED in FOUND_BY_OTHERS
