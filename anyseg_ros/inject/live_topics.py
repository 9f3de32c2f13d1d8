"""Where `injector_node` takes the sensors from, and where it puts them. No ROS."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.bags.topics import TopicError
from anyseg_ros.messages.sensor_messages import default_topic
from anyseg_ros.pipeline.parameters import INFO_PARAMETERS, RigParameters, load_parameters


def topic_parameters(sources: Mapping[Sensor, str], prefix: str) -> dict[str, str]:
    """The node's parameters for inputs `sources` and outputs of the same names under `prefix`."""
    others = [sensor for sensor in sources if sensor not in DEFAULT_SENSORS]
    parameters = {"sensors": ",".join(f"{sensor}:{sensor.kind}" for sensor in others)} if others else {}
    for modality, source in sources.items():
        parameters[f"topics.{modality}.input"] = source
        parameters[f"topics.{modality}.output"] = under(prefix, source) if source else ""
    return parameters


def under(prefix: str, topic: str) -> str:
    """`/front/image` under `faulty` is `faulty/front/image`: relative where the prefix is."""
    return f"{prefix.rstrip('/')}/{topic.lstrip('/')}"


FAULTY = "faulty"
"""Usual prefix of the topics that an injector publishes and the node then reads."""


def run_command(sources: Mapping[Sensor, str], prefix: str, params_file: Path | None) -> str:
    """The command that starts the node on what an injector publishes of `sources` below `prefix`.

    No injector passes on camera_info: it stays where the drivers have it. Raises ParameterError.
    """
    rig = load_parameters(params_file).rig if params_file is not None else RigParameters()
    read = {sensor: source for sensor, source in sources.items() if source}
    words = ["anyseg run", *([f"--params-file {params_file}"] if params_file is not None else [])]
    words += [f"-r {source}:={under(prefix, source)}" for source in read.values()]
    words += [f"-p rig.{INFO_PARAMETERS[sensor]}:={topic}" for sensor, topic in rig.info_topics(read).items()]
    return " ".join(words)


def sources_of(mapping: Mapping[str, str], sensors: Collection[Sensor]) -> dict[Sensor, str]:
    """Where each sensor is read from: its topic in `mapping`, else its usual one."""
    return {sensor: mapping.get(sensor, default_topic(sensor)) for sensor in sensors}


def topic_arguments(
    mapping: Mapping[str, str], prefix: str, sensors: Collection[Sensor] = DEFAULT_SENSORS
) -> list[str]:
    """The ROS arguments that make the node read `mapping` (role to topic); raises TopicError for other roles.

    With a `prefix`, sensors that are not mapped are read from their usual topics; without, only the inputs change.
    """
    others = [role for role in mapping if role not in sensors]
    if others:
        raise TopicError(f"--map {others[0]} is no sensor that can break; sensors: {', '.join(sensors)}")
    if prefix:
        parameters = topic_parameters(sources_of(mapping, sensors), prefix)
    else:
        parameters = {f"topics.{role}.input": topic for role, topic in mapping.items()}
    return [part for name, value in parameters.items() for part in ("-p", f"{name}:={value or QUOTED_NOTHING}")]


QUOTED_NOTHING = "''"
"""An empty string, as ROS arguments say it (they are YAML)."""


def topics_in(params_file: Path, node: str = "") -> dict[Sensor, str]:
    """The sensors' topics that a node listens to with that parameter file; "" of those it does not use.

    `node` as in `load_parameters`. Raises ParameterError.
    """
    modalities = load_parameters(params_file, node).modalities
    return {sensor: settings.topic if settings.enabled else "" for sensor, settings in modalities.items()}
