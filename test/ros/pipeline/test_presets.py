"""Presets of drivers: each is a valid parameter file, and several make one."""

from __future__ import annotations

from pathlib import Path

import pytest
from repository import REPOSITORY
from typer.testing import CliRunner

from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.bags.topics import find_topics
from anyseg_ros.cli import app
from anyseg_ros.messages.sensor_messages import SENSOR_MESSAGES
from anyseg_ros.pipeline.parameters import load_parameters
from anyseg_ros.pipeline.presets import (
    PresetError,
    matching_presets,
    notes_of,
    preset_file,
    preset_names,
    preset_topics,
    write_preset,
)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_a_valid_parameter_file_with_absolute_topics(name: str) -> None:
    topics = preset_topics(name)
    loaded = load_parameters(preset_file(name)).modalities
    assert topics
    assert all(loaded[sensor].topic == topic and topic.startswith("/") for sensor, topic in topics.items())
    assert notes_of(name)[-1].startswith("https://")


@pytest.mark.parametrize("name", preset_names())
def test_a_bag_of_that_driver_is_understood_without_naming_topics(name: str) -> None:
    topics = preset_topics(name)
    connections = [(topic, SENSOR_MESSAGES[sensor.kind].types[0]) for sensor, topic in topics.items()]
    assert {sensor: choice.topic for sensor, choice in find_topics(connections).items()} == topics
    assert name in matching_presets(topics.values())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_in_the_guide(name: str) -> None:
    assert f"`{name}`" in (REPOSITORY / "docs" / "robot.md").read_text()


def test_presets_are_put_together(tmp_path: Path) -> None:
    write_preset(tmp_path / "vehicle.yaml", ["realsense", "ouster"])
    modalities = load_parameters(tmp_path / "vehicle.yaml").modalities
    assert modalities[Sensor.CAMERA].topic == "/camera/camera/color/image_raw"
    assert modalities[Sensor.LIDAR].topic == "/ouster/points"
    assert [sensor for sensor in DEFAULT_SENSORS if not modalities[sensor].enabled] == [Sensor.EVENT]


def test_two_drivers_of_one_sensor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="both bring a lidar"):
        write_preset(tmp_path / "vehicle.yaml", ["velodyne", "ouster"])


def test_an_unknown_driver_lists_those_there_are() -> None:
    result = CliRunner().invoke(app, ["preset", "kinect"])
    assert result.exit_code == 2
    assert "there are ouster, prophesee, realsense, velodyne, zed" in result.output


def test_the_command_lists_and_writes(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["preset"])
    assert all(name in listed.output for name in preset_names())
    written = CliRunner().invoke(app, ["preset", "zed", "velodyne", "--write", str(tmp_path / "v.yaml")])
    assert written.exit_code == 0, written.output
    assert load_parameters(tmp_path / "v.yaml").modalities[Sensor.LIDAR].topic == "/velodyne_points"
    assert CliRunner().invoke(app, ["preset", "--write", str(tmp_path / "w.yaml")]).exit_code == 2
