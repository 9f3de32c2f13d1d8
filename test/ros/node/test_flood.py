"""One topic flooded at 1 kHz, another with images of 100 MB, by processes of their own: the other sensors go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from repository import REPOSITORY
from ros_harness import HEIGHT, NS, PERIOD_S, RIG, TIMEOUT_S, WIDTH, live_frame, status_values, toy_parameters
from sensor_msgs.msg import Image

from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.bench.robot import resident_mb
from anyseg_ros.messages.headers import STATE_QOS
from anyseg_ros.process.node_process import new_executor
from anyseg_ros.process.setup import process_environment
from anyseg_ros.vehicle.publisher import VehiclePublisher

pytestmark = [pytest.mark.ros, pytest.mark.slow]

HUGE = (5800, 5750)
"""Width and height of an rgb8 image of 100 MB."""
HUGE_MB = 100
ALIVE = (Sensor.DEPTH, Sensor.LIDAR)
MASKS = 20


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process, ended with the block."""
    environment = {**os.environ, **process_environment()}
    started = subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def node_command(overrides: Mapping[str, Any]) -> list[str]:
    """segmentation_node with a toy student, in the harness' namespace."""
    arguments = ["-p", "autostart:=true", "-r", f"__ns:=/{NS}"]
    for name, value in overrides.items():
        arguments += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    return ["-m", "anyseg_ros.node.segmentation_node", "--ros-args", *arguments]


class Bystander:
    """Drives the sensors that are well, and listens to what the node makes of them."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("bystander", namespace=NS)
        self._vehicle = VehiclePublisher(self.node, RIG)
        self.statuses: list[dict[str, dict[str, str]]] = []
        self.masks = 0
        own = f"/{NS}/segmentation_node"
        self.node.create_subscription(DiagnosticArray, f"{own}/modality_status", self._on_status, STATE_QOS)
        self.node.create_subscription(Image, f"{own}/segmentation/mask", self._on_mask, 10)
        self.node.create_timer(PERIOD_S, self._send)
        self._executor = new_executor()
        self._executor.add_node(self.node)

    def _send(self) -> None:
        for modality in ALIVE:
            self._vehicle.publish(live_frame(modality, self.node.get_clock().now().nanoseconds, HEIGHT, WIDTH))

    def _on_mask(self, _mask: Image) -> None:
        self.masks += 1

    def _on_status(self, message: DiagnosticArray) -> None:
        self.statuses.append(status_values(message))

    def used(self) -> set[str]:
        """The sensors in the newest mask that a status speaks of."""
        return {name for name, values in self.statuses[-1].items() if values.get("used") == "true"}

    def spin_until(self, condition: Any, what: str) -> None:
        """Spin until it is so; fails the test where that takes too long."""
        start = self.node.get_clock().now().nanoseconds
        while not condition():
            waited_s = (self.node.get_clock().now().nanoseconds - start) / 1e9
            assert waited_s < 2 * TIMEOUT_S, f"waited for {what}; newest status: {self.statuses[-1:]}"
            self._executor.spin_once(timeout_sec=0.05)

    def spin_masks_from_the_living(self, count: int) -> None:
        """Until so many more masks were made from sensors that are well."""
        seen = len(self.statuses)

        def enough() -> bool:
            made = [s for s in self.statuses[seen:] if all(s[str(m)]["used"] == "true" for m in ALIVE)]
            return len(made) >= count

        self.spin_until(enough, f"{count} masks from {', '.join(ALIVE)}")

    def destroy(self) -> None:
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._executor.shutdown()


@pytest.fixture
def bystander() -> Iterator[Bystander]:
    rclpy.init()
    started = Bystander()
    yield started
    started.destroy()
    rclpy.shutdown()


def test_floods_on_two_topics_stop_nobody_else(tmp_path: Path, bystander: Bystander) -> None:
    flood = str(REPOSITORY / "test" / "flood_publisher.py")
    with process(*node_command(toy_parameters(tmp_path))) as node:
        bystander.spin_until(lambda: bool(bystander.statuses) and bystander.masks > 0, "the node")
        bystander.spin_masks_from_the_living(MASKS)
        before_mb = resident_mb(node.pid)
        with (
            process(flood, f"/{NS}/camera/image_raw", "80", "48", "1000"),
            process(flood, f"/{NS}/events", *map(str, HUGE), "0.2"),
        ):
            for modality in ("camera", "event"):
                bystander.spin_until(lambda m=modality: bystander.statuses[-1][m]["fault"], f"the {modality}'s fault")
            masks = bystander.masks
            bystander.spin_masks_from_the_living(MASKS)
            assert bystander.masks - masks >= MASKS
            assert node.poll() is None
            # The image itself, its counts, what the middleware holds of it, and one more that is on its way.
            assert resident_mb(node.pid) - before_mb < 5 * HUGE_MB
        bystander.spin_masks_from_the_living(MASKS)
        assert int(bystander.statuses[-1]["camera"]["received"]) > 0
        assert node.poll() is None
