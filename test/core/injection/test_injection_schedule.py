"""Scenarios in YAML: what they can say, and what is said of wrong ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from repository import REPOSITORY

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, InjectionScheduleError
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.demo.run import DEMO_INJECTIONS

CONFIG = REPOSITORY / "config" / "injections"
SCENARIOS = sorted(CONFIG.glob("*.yaml"))


def test_a_schedule_is_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(
        "seed: 7\ninjections:\n"
        "  - {modality: camera, kind: drop, start_s: 5, duration_s: 5}\n"
        "  - {modality: depth, kind: noise, start_s: 8, parameters: {sigma: 0.3}}\n"
    )
    schedule = InjectionSchedule.load(file)
    assert schedule.seed == 7
    drop, noise = schedule.injections
    assert (drop.modality, drop.kind, drop.active(9.99), drop.active(10.0)) == (Sensor.CAMERA, "drop", True, False)
    assert (noise.parameters, noise.active(7.9), noise.active(1e9)) == ({"sigma": 0.3}, False, True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "injections: [{modality: camera, kind: drop, start_s: 1}, {modality: camera, kind: melt, start_s: 1}]",
            "injection 2.*melt",
        ),
        ("injections: [{modality: sonar, kind: drop, start_s: 1}]", "injection 1, modality"),
        ("injections: [{modality: depth, kind: blur, start_s: 1}]", "injection 1: blur does not apply to depth"),
        ("injections: [{modality: camera, kind: blur, start_s: 1, parameters: {size: 3}}]", "no parameter 'size'"),
        (
            "injections: [{modality: camera, kind: blur, start_s: 1, parameters: {sigma_px: much}}]",
            "injection 1, parameters, sigma_px",
        ),
        ("injections: [{modality: camera, kind: drop, start_s: -1}]", "injection 1, start_s"),
        ("injections: [{modality: camera, kind: drop, start_s: 1, duration_s: 0}]", "injection 1, duration_s"),
        ("injections: [{modality: camera, kind: drop}]", "injection 1, start_s: Field required"),
        (
            "injections: [{modality: camera, kind: drop, start_s: 1, until: 3}]",
            "injection 1, until: is not known.*duration_s",
        ),
        ("faults" + ": [{modality: camera, kind: drop, start_s: 1}]", "is called `injections` since version 0.2"),
        ("speed: 3", "speed: is not known here; known: description, seed, sensors, injections"),
        ("injections: [{modality: camera, kind: blurr, start_s: 1}]", "did you mean blur"),
        ("injections: [{modality: camera, kind: blur, start_s: 1, parameters: {sigma_px: 0}}]", "outside 0.1 to 100"),
        ("injections: [{modality: camera, kind: drop, start_s: 1, probability: 2}]", "injection 1, probability"),
        ("injections: [{modality: camera, kind: black, start_s: 1, ramp_s: -2}]", "injection 1, ramp_s"),
        ("injections: [{kind: drop, start_s: 1}]", "injection 1, modality: Field required"),
        ("injections: [{kind: crash, start_s: 1, ramp_s: 1}]", "crash is there or not: leave out ramp_s"),
        ("injections: [{modality: [], kind: drop, start_s: 1}]", "injection 1, modality: is an empty list"),
        (
            "injections: [{modality: all, kind: drop, start_s: 1}, {modality: all, kind: blur, start_s: 1}]",
            "injection 2: blur",
        ),
        (
            "injections: [{modality: camera, kind: drop, start_s: 1, every_s: 2}]",
            "injection 1, times: must be an integer",
        ),
        (
            "injections: [{modality: camera, kind: drop, start_s: 1, times: 2}]",
            "injection 1, every_s: must be a number",
        ),
        (
            "injections: [{modality: camera, kind: drop, start_s: 1, duration_s: 3, every_s: 2, times: 2}]",
            "injection 1, duration_s: must not be longer than every_s, 2 s",
        ),
        ("injections: [3]", "injection 1: must be a mapping"),
        ("- drop", "the whole"),
        ("", "the whole"),
        ("injections: [", "cannot be read"),
    ],
)
def test_a_wrong_schedule_is_refused_by_entry(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(InjectionScheduleError, match=rf"broken\.yaml.*{named}"):
        InjectionSchedule.load(file)


def test_a_missing_schedule_is_named(tmp_path: Path) -> None:
    with pytest.raises(InjectionScheduleError, match=r"absent\.yaml cannot be read"):
        InjectionSchedule.load(tmp_path / "absent.yaml")


def test_an_entry_may_say_several_sensors_and_repetitions() -> None:
    entry = {
        "modality": ["camera", "depth"],
        "kind": "freeze",
        "start_s": 2,
        "duration_s": 0.3,
        "every_s": 1,
        "times": 3,
    }
    schedule = InjectionSchedule.parse({"injections": [entry]})
    times = [(str(fault.modality), fault.start_s, round(fault.end_s, 6)) for fault in schedule.injections]
    assert sorted(times) == [(m, start, start + 0.3) for m in ("camera", "depth") for start in (2.0, 3.0, 4.0)]
    assert schedule.modalities == schedule.required == (Sensor.CAMERA, Sensor.DEPTH)


def test_a_crash_is_of_every_sensor_and_none_has_to_be_there() -> None:
    schedule = InjectionSchedule.parse({"injections": [{"kind": "crash", "start_s": 1}]})
    assert schedule.modalities == DEFAULT_SENSORS
    assert schedule.required == ()


def test_a_ramp_is_a_strength_from_nothing_to_all() -> None:
    (fault,) = InjectionSchedule.parse(
        {"injections": [{"modality": "camera", "kind": "blur", "start_s": 2, "ramp_s": 4}]}
    ).injections
    assert [fault.strength(t) for t in (2.0, 3.0, 6.0, 60.0)] == [0.0, 0.25, 1.0, 1.0]
    assert fault.end_s == math.inf


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_shipped_scenario_loads_and_says_what_it_imitates(path: Path) -> None:
    schedule = InjectionSchedule.load(path)
    assert schedule.injections
    assert schedule.description
    assert path.read_text().startswith("# ")


def test_the_shipped_scenarios_show_every_kind_of_fault() -> None:
    shown = {fault.kind for path in SCENARIOS for fault in InjectionSchedule.load(path).injections}
    assert shown == set(INJECTION_KINDS)


def test_the_demo_s_scenario_is_among_the_shipped_ones() -> None:
    demo, shipped = InjectionSchedule.load(DEMO_INJECTIONS), InjectionSchedule.load(CONFIG / "all_but_depth_lost.yaml")
    assert (demo.seed, demo.injections) == (shipped.seed, shipped.injections)


def test_an_example_in_the_documentation_is_a_scenario() -> None:
    text = (REPOSITORY / "docs" / "fault_injection.md").read_text()
    examples = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    scenarios = [yaml.safe_load(example) for example in examples]
    assert [
        bool(InjectionSchedule.parse(one).injections)
        for one in scenarios
        if "injections" in one and "degrade" not in one
    ]
