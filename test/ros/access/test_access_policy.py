"""The SROS2 policy allows all that the live nodes do, keeps what others do apart, and has nothing superfluous."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from ros_harness import NS, Vehicle, running, toy_parameters

from anyseg_ros.access.live_policy import NotActiveError, live_policy
from anyseg_ros.access.policy import Interface, drivers_of, interface_of, policy

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]

ACTIONS = {"publish": "topics", "subscribe": "topics", "reply": "services", "request": "services"}


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    values = toy_parameters(tmp_path)
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    return file


@pytest.fixture
def vehicle(tmp_path: Path) -> Iterator[Vehicle]:
    with running(toy_parameters(tmp_path / "live")) as started:
        yield started


def allowed(xml: str, enclave: str, action: str) -> set[str]:
    """The names that an enclave may use so."""
    root = ElementTree.fromstring(xml)
    (profile,) = root.findall(f"enclaves/enclave[@path='/anyseg/{enclave}']/profiles/profile")
    return {str(entry.text) for entry in profile.findall(f"{ACTIONS[action]}[@{action}='ALLOW']/*")}


def test_all_that_a_live_node_does_is_allowed_and_nothing_else(vehicle: Vehicle, params_file: Path) -> None:
    vehicle.spin_masks(3)  # every sensor's topic is subscribed to by now
    live = interface_of(vehicle.node)
    xml = live_policy(params_file, f"/{NS}")
    assert allowed(xml, "segmentation_node", "publish") == live.publishes
    assert allowed(xml, "segmentation_node", "subscribe") == live.subscribes
    assert allowed(xml, "segmentation_node", "reply") == live.serves
    assert allowed(xml, "segmentation_node", "request") == live.calls
    assert f"/{NS}/events" in live.subscribes
    assert f"/{NS}/segmentation_node/segmentation/mask" in live.publishes


def test_drivers_may_publish_what_the_node_reads_and_none_of_its_masks(vehicle: Vehicle, params_file: Path) -> None:
    vehicle.spin_masks(1)
    xml = live_policy(params_file, f"/{NS}")
    drivers = allowed(xml, "drivers", "publish")
    assert interface_of(vehicle.node).subscribes - {"/parameter_events"} <= drivers
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


def test_what_nobody_does_is_not_in_the_policy() -> None:
    reader = Interface("/", "reader", subscribes=frozenset({"/a", "/b"}))
    maker = Interface("/", "maker", publishes=frozenset({"/b"}))
    drivers = drivers_of([reader, maker])
    assert drivers.publishes == {"/a", "/rosout", "/parameter_events"}
    assert "services request" not in policy({"/anyseg/reader": reader})
