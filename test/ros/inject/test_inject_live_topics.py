"""Where the live injector sits, and what the simulated vehicle does with a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import REPOSITORY
from typer.testing import CliRunner

from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.bags.topics import TopicError
from anyseg_ros.cli import app
from anyseg_ros.inject.live_topics import run_command, topic_arguments, topic_parameters, topics_in
from anyseg_ros.messages.default_topics import DEFAULT_TOPICS
from anyseg_ros.pipeline.parameters import ParameterError


def test_without_a_prefix_only_the_named_inputs_change() -> None:
    assert topic_arguments({}, "") == []
    assert topic_arguments({"camera": "/front/image"}, "") == ["-p", "topics.camera.input:=/front/image"]
    assert topic_arguments({"lidar": ""}, "") == ["-p", "topics.lidar.input:=''"]


def test_with_a_prefix_the_inputs_are_the_sensors_own_topics() -> None:
    arguments = topic_arguments({"camera": "/front/image", "event": ""}, "/faulty/")
    values = dict(argument.split(":=") for argument in arguments[1::2])
    assert values["topics.camera.input"] == "/front/image"
    assert values["topics.camera.output"] == "/faulty/front/image"
    assert values["topics.depth.output"] == f"/faulty/{DEFAULT_TOPICS[Sensor.DEPTH]}"
    assert values["topics.event.input"] == values["topics.event.output"] == "''"


def test_the_node_behind_the_injector_reads_its_topics_and_the_drivers_camera_info(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    parameters = {"modalities.camera.topic": "/front/image", "rig.depth_info_topic": "/calibration/depth"}
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    command = run_command({**topics_in(file), Sensor.EVENT: ""}, "faulty", file)
    assert command == (
        f"anyseg run --params-file {file} -r /front/image:=faulty/front/image "
        "-r depth/image_rect:=faulty/depth/image_rect -r lidar/points:=faulty/lidar/points "
        "-p rig.camera_info_topic:=/front/camera_info -p rig.depth_info_topic:=/calibration/depth"
    )


def test_only_sensors_can_be_mapped() -> None:
    with pytest.raises(TopicError, match="--map labels is no sensor that can break; sensors: camera"):
        topic_arguments({"labels": "/truth"}, "")


@pytest.mark.parametrize(
    "parameters",
    [{"modalities": {"camera": {"topic": "/front/image"}}}, {"modalities.camera.topic": "/front/image"}],
    ids=["nested", "flat"],
)
def test_the_node_s_topics_are_read_from_its_parameter_file(tmp_path: Path, parameters: dict[str, Any]) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}, "other": None}))
    assert topics_in(file) == {**DEFAULT_TOPICS, Sensor.CAMERA: "/front/image"}
    names = topic_parameters(topics_in(file), "faulty")
    assert names["topics.camera.output"] == "faulty/front/image"
    assert len(names) == 2 * len(DEFAULT_SENSORS)


def test_a_sensor_that_the_vehicle_does_not_use_has_no_topic(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("/**: {ros__parameters: {modalities: {event: {enabled: false}, thermal: {kind: camera}}}}\n")
    topics = topics_in(file)
    assert topics == {**DEFAULT_TOPICS, Sensor.EVENT: "", "thermal": "thermal/image_raw"}
    assert "event" not in run_command(topics, "faulty", file)


def test_a_mistake_in_the_parameter_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("/**: {ros__parameters: {modalities.camera.tpoic: /front/image}}\n")
    with pytest.raises(ParameterError, match=r"params.yaml.*tpoic.*did you mean modalities.camera.topic"):
        topics_in(file)


def test_the_shipped_parameter_file_has_the_usual_topics() -> None:
    assert topics_in(REPOSITORY / "config" / "vehicle.yaml") == dict(DEFAULT_TOPICS)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("/**: {ros__parameters: {modle: {threads: 1}}}", "did you mean model.threads?"),
        ("- a", "is no ROS parameter file"),
        ("other: {ros__parameters: {modalities: {camera: {topic: /b}}}}", "no section is for segmentation_node"),
    ],
    ids=["mistyped", "a list", "of another node"],
)
def test_a_file_that_the_node_would_not_take_is_refused_in_a_line(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(content)
    schedule = REPOSITORY / "config" / "injections" / "camera_lost.yaml"
    result = CliRunner().invoke(app, ["inject", "live", str(schedule), "--params-file", str(file)])
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
