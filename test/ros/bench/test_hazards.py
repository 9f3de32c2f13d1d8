"""The bench of hazards counts what was said, keeps it, and goes on where it was ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.sim.drive import DriveConfig
from anyseg_core.sim.weather import Weather
from anyseg_ros.bench import hazards
from anyseg_ros.bench.hazard_trials import HAZARDS, SLOW_HAZARDS, Hazard, Outcome, Trial, schedule_of, trials_of
from anyseg_ros.bench.hazards import LONG_S, Outcomes, Plan

CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS
DRIVE = DriveConfig(1, Weather.CLOUD)
CLEAN = Outcome(None, frozenset(), undecided=False, alarms=0, clean_s=7200.0, value=None, levels={"wrong_scale": 0.2})


def found(blamed: Sensor, *, after_s: float = 1.0, value: float | None = None, fault: str = "wrong_scale") -> Outcome:
    return Outcome(after_s, frozenset({blamed}), False, 0, 5.0, value, {fault: 1.5})


def known(*entries: tuple[Trial, Outcome]) -> list[hazards.Known]:
    return [(hazards._about(trial), outcome) for trial, outcome in entries]


def figures(*entries: tuple[Trial, Outcome]) -> dict[str, tuple[float, bool | None]]:
    result = hazards._judged(known(*entries))
    return {figure.name: (figure.samples[0], figure.met) for figure in result.figures}


def test_every_hazard_of_every_sensor_meets_every_set_of_sensors() -> None:
    trials = trials_of(DRIVE, DEFAULT_SENSORS, (4, 2), HAZARDS)
    assert {t.hazard.kind for t in trials if t.hazard} >= {"mirror", "depth_scale", "lidar_yaw", "event_polarity"}
    assert sum(t.hazard is None for t in trials) == 1 + 6
    assert all(t.hazard is None or t.hazard.sensor in t.sensors for t in trials)


@pytest.mark.parametrize("hazard", [*HAZARDS, *SLOW_HAZARDS], ids=lambda hazard: f"{hazard.sensor}-{hazard.name}")
def test_every_hazard_can_be_injected(hazard: Hazard) -> None:
    (injection,) = schedule_of(hazard).injections
    assert injection.kind == hazard.kind
    for name, value in hazard.parameters:
        assert injection.parameters[name] == value


def test_outcomes_are_kept_and_a_torn_line_is_forgotten(tmp_path: Path) -> None:
    trial, other = Trial(DRIVE, DEFAULT_SENSORS, HAZARDS[0]), Trial(DRIVE, DEFAULT_SENSORS)
    first = Outcomes(tmp_path)
    first.add(trial, found(CAMERA))
    first.add(other, CLEAN)
    (file,) = tmp_path.glob("hazards_*.jsonl")
    file.write_text(file.read_text()[:-20])
    again = Outcomes(tmp_path)
    assert trial in again
    assert other not in again
    assert list(again) == known((trial, found(CAMERA)))


def test_shares_and_bars_are_those_of_the_outcomes() -> None:
    hazard = Hazard("depth_scale", DEPTH)
    right, late, wrong = found(DEPTH), found(DEPTH, after_s=3.5), found(LIDAR)
    trial = Trial(DRIVE, DEFAULT_SENSORS, hazard)
    made = figures((trial, right), (trial, late), (trial, wrong), (Trial(DRIVE, DEFAULT_SENSORS), CLEAN))
    assert made["found in time, 4 sensors, quick"] == (pytest.approx(200 / 3), False)
    assert made["blame right where found, 4 sensors, quick"] == (pytest.approx(200 / 3), False)
    assert made["ROC area, wrong_scale"][0] == 1.0
    assert made["false alarms"] == (0.0, True)


@pytest.mark.parametrize(("value", "met"), [(1.7, True), (2.6, False)])
def test_the_number_of_a_slow_hazard_has_a_bar(value: float, met: bool) -> None:
    hazard = SLOW_HAZARDS[0]
    trial = Trial(DRIVE, DEFAULT_SENSORS, hazard)
    made = figures((trial, found(LIDAR, after_s=20.0, value=value, fault=str(Fault.MISALIGNED))))
    assert made["error of the number, misaligned"] == (pytest.approx(abs(value - 2.0)), met)
    assert made["found in time, 4 sensors, slow"] == (100.0, True)


MASKS = {
    "all right": [(0, 0, 90), (0, 1, 10)],
    "no policy": [(0, 0, 50), (0, 1, 50)],
    "policy": [(0, 0, 80), (0, 1, 20)],
    "without it": [(0, 0, 80), (0, 1, 20)],
}


@pytest.mark.parametrize(("right", "met"), [(80, True), (79, False)])
def test_masks_with_the_policy_are_held_against_those_without_the_sensor(right: int, met: bool, tmp_path: Path) -> None:
    trial = Trial(DRIVE, DEFAULT_SENSORS, Hazard("mirror", CAMERA))
    masks = {**MASKS, "policy": [(0, 0, right), (0, 1, 100 - right)]}
    Outcomes(tmp_path).add(trial, replace(found(CAMERA), masks=masks))
    kept = list(Outcomes(tmp_path))
    result = {figure.name: figure for figure in hazards._judged(kept).figures}
    figure = result["mIoU, policy, less that without the sensor, 4 sensors, from its begin"]
    assert (figure.samples[0], figure.met) == (pytest.approx(right - 80), met)
    without = result["mIoU, no policy, less that without the sensor, 4 sensors, from its begin"]
    assert (without.samples[0], without.met) == (pytest.approx(-30), None)
    (row,) = zip(*(column.cells for column in hazards.table_of_masks(kept).columns), strict=True)
    assert row[:7] == ("mirror", "camera", "4", "90.0", "50.0", f"{right}.0", "80.0")


def test_a_plan_has_short_long_recorded_and_clean_drives() -> None:
    plan = Plan(("night",), (4,), clean_hours=0.05, bags=(Path("a_bag"),))
    drives = list(plan.drives())
    assert [d if isinstance(d, str) else d.duration_s for d in drives] == ["a_bag", 12.0, LONG_S, 60.0, 60.0, 60.0]
    assert [t.hazard for t in plan.trials(drives[-1], Path())] == [None]
    pairs = Plan(("night",), (2,), clean_hours=0.05)
    assert [len(t.sensors) for t in pairs.trials(drives[-1], Path())] == [2] * 6


def test_alarms_are_counted_by_the_number_of_sensors_and_held_against_the_bar_in_all() -> None:
    known = [({"sensors": "4"}, CLEAN), ({"sensors": "2"}, replace(CLEAN, alarms=1))]
    result = {figure.name: figure for figure in hazards._judged(known).figures}
    assert (result["false alarms, 4 sensors"].samples[0], result["false alarms, 2 sensors"].samples[0]) == (0.0, 0.5)
    assert (result["false alarms"].samples[0], result["false alarms"].met) == (0.25, False)


def test_an_unknown_weather_is_refused() -> None:
    with pytest.raises(ValueError, match="hail"):
        Plan(("hail",), (4,))
