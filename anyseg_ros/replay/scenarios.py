"""What is applied to the same bag at a time: all sensors, subsets of them, and faults that are injected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyseg_core.injection import InjectionSchedule
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, all_subsets, subset_name

ALL_SENSORS = "all"
"""Name of the scenario with every sensor and no fault: the others are compared with it."""


class ScenarioError(ValueError):
    """Scenarios that cannot be played; the message names the file and the remedy."""


@dataclass(frozen=True)
class Scenario:
    """The sensors that the vehicle has, and what is done to them."""

    name: str
    modalities: tuple[Sensor, ...]
    schedule: InjectionSchedule | None = None

    @property
    def is_subset(self) -> bool:
        """Whether sensors are missing from the beginning."""
        return self.schedule is None and self.name != ALL_SENSORS


def scenarios_for(modalities: Sequence[Sensor], subsets: bool, fault_files: Sequence[Path]) -> list[Scenario]:
    """All sensors first, then every proper subset if asked for, then one scenario per fault file or folder of them.

    Raises ScenarioError, and InjectionScheduleError of a file.
    """
    scenarios = [Scenario(ALL_SENSORS, tuple(modalities))]
    if subsets:
        scenarios += [Scenario(subset_name(s), s) for s in all_subsets(modalities) if len(s) < len(modalities)]
    scenarios += [
        Scenario(path.stem, tuple(modalities), InjectionSchedule.load(path, {*DEFAULT_SENSORS, *modalities}))
        for path in _expanded(fault_files)
    ]
    names = [scenario.name for scenario in scenarios]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ScenarioError(f"two scenarios are named {', '.join(twice)}: rename a fault file")
    return scenarios


def _expanded(paths: Iterable[Path]) -> list[Path]:
    """Files, and the *.yaml files of folders."""
    files: list[Path] = []
    for path in paths:
        found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
        if not found:
            raise ScenarioError(f"no fault file in {path}: give *.yaml files, such as those of config/injections")
        files += found
    return files
