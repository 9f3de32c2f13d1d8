"""Topics of the drivers that many vehicles have: a parameter file each, in `driver_presets/`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.pipeline.parameters import load_parameters

_FOLDER = Path(__file__).with_name("driver_presets")


class PresetError(ValueError):
    """A preset that is not there, or two for one sensor; the message names them."""


def preset_names() -> list[str]:
    """In alphabetical order."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def preset_file(name: str) -> Path:
    """The parameter file of a preset. Raises PresetError that lists those there are."""
    if name not in preset_names():
        raise PresetError(f"no preset {name!r}; there are {', '.join(preset_names())}")
    return _FOLDER / f"{name}.yaml"


def preset_topics(name: str) -> dict[Sensor, str]:
    """The topic of each sensor that the driver publishes. Raises PresetError."""
    path = preset_file(name)
    named = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]["modalities"]
    parameters = load_parameters(path)
    return {sensor: found.topic for sensor, found in parameters.modalities.items() if str(sensor) in named}


def notes_of(name: str) -> list[str]:
    """What the head of a preset says about the driver: versions, encodings, rates. Raises PresetError."""
    lines = preset_file(name).read_text().splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#")]


def matching_presets(topics: Collection[str]) -> list[str]:
    """The presets all of whose topics are there."""
    return [name for name in preset_names() if set(preset_topics(name).values()) <= set(topics)]


def write_preset(path: Path, names: Sequence[str]) -> None:
    """One parameter file of several presets; default sensors that none of them has are switched off.

    Raises PresetError for an unknown preset or none at all, and where two of them have the same sensor; OSError.
    """
    if not names:
        raise PresetError(f"name the drivers whose topics are to be written: {', '.join(preset_names())}")
    topics: dict[Sensor, str] = {}
    for name in names:
        for sensor, topic in preset_topics(name).items():
            if sensor in topics:
                raise PresetError(f"{name} and a preset before it both bring a {sensor}: keep one of them")
            topics[sensor] = topic
    modalities: dict[str, Any] = {
        str(sensor): {"topic": topics[sensor]} if sensor in topics else {"enabled": False} for sensor in DEFAULT_SENSORS
    }
    head = [line for name in names for line in (f"{name}:", *notes_of(name), "")]
    head.append("config/vehicle.yaml has every other parameter.")
    tree = {"/**": {"ros__parameters": {"modalities": modalities}}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(f"# {line}".rstrip() + "\n" for line in head)
        + yaml.safe_dump(tree, sort_keys=False, default_flow_style=None)
    )
