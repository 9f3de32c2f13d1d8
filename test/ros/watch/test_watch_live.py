"""`anyseg watch` beside a real segmentation_node over DDS."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from ros_harness import NS, Vehicle, running, toy_parameters

from anyseg_core.runtime.label_sets import DELIVER
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.watch.watch_node import WatchNode

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]

JPEG = b"\xff\xd8\xff"


def get(watch: WatchNode, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{watch.port}/{path}", timeout=10) as answer:
        return answer.read()


def sensors(watch: WatchNode) -> dict[str, Any]:
    return {sensor["name"]: sensor for sensor in json.loads(get(watch, "state.json"))["sensors"]}


def colors(watch: WatchNode) -> dict[str, str]:
    return json.loads(json.loads(get(watch, "state.json"))["engine"].get("classes", "{}"))


def is_subscribed(vehicle: Vehicle) -> bool:
    return vehicle.driver.count_subscribers(f"/{NS}/segmentation_node/segmentation/overlay") > 0


def test_the_page_follows_a_live_node_and_its_pictures_cost_nothing_unwatched(tmp_path: Path) -> None:
    with running(toy_parameters(tmp_path)) as vehicle:
        watch = WatchNode(f"/{NS}/segmentation_node", "127.0.0.1", 0)
        vehicle.executor.add_node(watch)
        try:
            vehicle.spin_until(lambda: sensors(watch).get("camera", {}).get("used") == "true", "the camera on the page")
            assert not is_subscribed(vehicle)
            vehicle.spin_until(lambda: colors(watch).get("Road") == "#804080", "what the colours mean")
            assert len(colors(watch)) == len(DELIVER)
            for name in ("overlay", "camera"):
                vehicle.spin_until(lambda name=name: get(watch, f"{name}.jpg").startswith(JPEG), f"the {name}")
            assert is_subscribed(vehicle)
            vehicle.alive.discard(Sensor.CAMERA)
            vehicle.spin_until(lambda: sensors(watch)["camera"]["state"] == "failed", "the camera's end on the page")
            vehicle.spin_until(lambda: not get(watch, "camera.jpg"), "the end of the camera's picture")
            was_used = [span["used"] for span in sensors(watch)["camera"]["spans"]]
            assert True in was_used
            assert not was_used[-1]
        finally:
            vehicle.executor.remove_node(watch)
            watch.destroy_node()
