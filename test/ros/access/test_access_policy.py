"""The SROS2 policy allows all that the live nodes do, keeps what others do apart, and has nothing superfluous."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from rclpy.node import Node
from ros_harness import NS, running, toy_parameters

from anyseg_ros.access.live_policy import NotActiveError, live_policy
from anyseg_ros.access.policy import Interface, NamesakeError, drivers_of, interface_of, policy
from anyseg_ros.process.node_process import ros

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros_alone")]

ACTIONS = {"publish": "topics", "subscribe": "topics", "reply": "services", "request": "services"}


@pytest.fixture(scope="module")
def ros_alone() -> Iterator[None]:
    """As the command has it: a node of the same name that another test left behind is not found."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS"):
            patch.setenv(name, os.environ.get(name, ""))  # what they were is set again at the end
        with ros(alone=True):
            yield


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    values = toy_parameters(tmp_path)
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    return file


@pytest.fixture
def live(tmp_path: Path) -> Interface:
    """Of a node that has had messages of every sensor, and has ended."""
    gc.collect()  # nodes that other tests have destroyed
    with running(toy_parameters(tmp_path / "live")) as vehicle:
        vehicle.spin_masks(3)  # every sensor's topic is subscribed to by now
        return interface_of(vehicle.node)


def allowed(xml: str, enclave: str, action: str) -> set[str]:
    """The names that an enclave may use so."""
    root = ElementTree.fromstring(xml)
    (profile,) = root.findall(f"enclaves/enclave[@path='/anyseg/{enclave}']/profiles/profile")
    return {str(entry.text) for entry in profile.findall(f"{ACTIONS[action]}[@{action}='ALLOW']/*")}


def test_all_that_a_live_node_does_is_allowed_and_nothing_else(live: Interface, params_file: Path) -> None:
    xml = live_policy(params_file, f"/{NS}")
    assert allowed(xml, "segmentation_node", "publish") == live.publishes
    assert allowed(xml, "segmentation_node", "subscribe") == live.subscribes
    assert allowed(xml, "segmentation_node", "reply") == live.serves
    assert allowed(xml, "segmentation_node", "request") == live.calls
    assert f"/{NS}/events" in live.subscribes
    assert f"/{NS}/segmentation_node/segmentation/mask" in live.publishes


def test_drivers_may_publish_what_the_node_reads_and_none_of_its_masks(live: Interface, params_file: Path) -> None:
    xml = live_policy(params_file, f"/{NS}")
    drivers = allowed(xml, "drivers", "publish")
    assert live.subscribes - {"/parameter_events"} <= drivers
    assert not any("segmentation" in topic for topic in drivers)
    assert allowed(xml, "drivers", "request") == set()


def test_the_injector_reads_the_drivers_and_writes_what_the_node_reads(params_file: Path) -> None:
    xml = live_policy(params_file, f"/{NS}", injector=True)
    sensors = {f"/{NS}/{topic}" for topic in ("camera/image_raw", "depth/image_rect", "events", "lidar/points")}
    inputs = {topic.replace(f"/{NS}/", f"/{NS}/in/") for topic in sensors}
    assert sensors <= allowed(xml, "injector", "publish")
    assert inputs <= allowed(xml, "injector", "subscribe")
    assert inputs <= allowed(xml, "drivers", "publish")
    assert not sensors & allowed(xml, "drivers", "publish")  # with an injector, only it feeds the node
    assert sensors <= allowed(xml, "segmentation_node", "subscribe")


def test_a_node_that_does_not_start_has_no_policy(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"model": {"student": "/nowhere"}}}}))
    with pytest.raises(NotActiveError):
        live_policy(file)


def test_a_namesake_is_an_error_and_never_a_policy_of_the_other_node(params_file: Path) -> None:
    namesake = Node("segmentation_node", namespace=NS)
    try:
        with pytest.raises(NamesakeError, match=f"/{NS}/segmentation_node"):
            live_policy(params_file, f"/{NS}")
    finally:
        namesake.destroy_node()


NAMESAKE = f"""
import rclpy
rclpy.init()
node = rclpy.create_node("segmentation_node", namespace="{NS}")
print("up", flush=True)
input()
"""


def test_the_command_does_not_see_a_namesake_of_another_process(params_file: Path, tmp_path: Path) -> None:
    found = os.environ | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    out = tmp_path / "policy.xml"
    options = ["--params-file", str(params_file), "--namespace", f"/{NS}"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", NAMESAKE], env=found, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        command = [sys.executable, "-m", "anyseg_ros.cli", "access-policy", str(out), *options]
        done = subprocess.run(command, check=False, env=found, capture_output=True, text=True)
        other.communicate("\n")
    assert done.returncode == 0, done.stderr
    assert f"/{NS}/segmentation_node/segmentation/mask" in allowed(out.read_text(), "segmentation_node", "publish")


def test_what_nobody_does_is_not_in_the_policy() -> None:
    reader = Interface("/", "reader", subscribes=frozenset({"/a", "/b"}))
    maker = Interface("/", "maker", publishes=frozenset({"/b"}))
    drivers = drivers_of([reader, maker])
    assert drivers.publishes == {"/a", "/rosout", "/parameter_events"}
    assert "services request" not in policy({"/anyseg/reader": reader})
