"""Nodes over real DDS in one process: a driver and a listener around the node under test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from living_sensors import live_frame
from toy_student import write_toy_student

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.pipeline.parameters import RigParameters

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from anyseg_ros.node.segmentation_node import SegmentationNode  # noqa: E402
from anyseg_ros.pipeline.status_lines import status_key  # noqa: E402
from anyseg_ros.process.node_process import new_executor  # noqa: E402
from anyseg_ros.vehicle.publisher import VehiclePublisher  # noqa: E402

HEIGHT, WIDTH = 48, 80
LOOKS_AHEAD = (0.5, -0.5, 0.5, 0.5)
"""Quaternion of a LiDAR that looks where the camera does."""
RIG = Rig(
    PinholeCamera(WIDTH, HEIGHT, 40.0, 40.0, 39.5, 23.5),
    RigParameters(camera_from_lidar_rotation_xyzw=LOOKS_AHEAD).camera_from_lidar(),
)
EVERY_STATUS = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Of a listener that may be busy when two statuses come."""
TIMEOUT_S = 20.0
"""Generous: what is waited for takes a fraction of a second."""
PERIOD_S = 0.05
NS = "vehicle"


class SpunNodes:
    """The node under test and one of the test's own, spun by this thread."""

    def __init__(self, tested: Node, own: Node) -> None:
        self._tested, self._own = tested, own
        self.executor = new_executor()
        for node in (tested, own):
            self.executor.add_node(node)

    def spin_until(self, condition: Callable[[], bool], what: str) -> None:
        """Spin until it is so; fails the test after `TIMEOUT_S`."""
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"waited {TIMEOUT_S} s for {what}{self.newest()}")
            self.executor.spin_once(timeout_sec=0.02)

    def newest(self) -> str:
        """What else to tell of a wait that was in vain."""
        return ""

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """The answer of a service of the node under test."""
        client = self._own.create_client(service_type, f"{self._tested.get_fully_qualified_name()}/{name}")
        self.spin_until(client.service_is_ready, f"service {name}")
        future = client.call_async(request)
        self.spin_until(future.done, f"the answer of {name}")
        self._own.destroy_client(client)
        return future.result()

    def destroy(self) -> None:
        for node in (self._tested, self._own):
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.shutdown()


class Vehicle(SpunNodes):
    """segmentation_node with drivers and a listener."""

    def __init__(
        self, overrides: Mapping[str, Any], namespace: str = NS, sensors: Sequence[Sensor] = DEFAULT_SENSORS
    ) -> None:
        values = [Parameter(name, value=value) for name, value in overrides.items()]
        self.node = SegmentationNode(namespace=namespace, parameter_overrides=values)
        self.driver = rclpy.create_node("driver", namespace=namespace)
        self.publisher = VehiclePublisher(self.driver, RIG, sensors)
        self.masks: list[Image] = []
        self.statuses: list[DiagnosticArray] = []
        self.diagnostics: list[DiagnosticArray] = []
        own = f"/{namespace}/segmentation_node"
        self.driver.create_subscription(Image, f"{own}/segmentation/mask", self.masks.append, 10)
        self.driver.create_subscription(DiagnosticArray, f"{own}/modality_status", self.statuses.append, EVERY_STATUS)
        self.driver.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10)
        self.alive: set[Sensor] = set(sensors)
        self.sent: dict[int, set[Sensor]] = {}
        self.ahead_ns = 0
        """Of the drivers' clock."""
        self.driver.create_timer(PERIOD_S, self._send)
        super().__init__(self.node, self.driver)

    def _send(self) -> None:
        stamp_ns = self.driver.get_clock().now().nanoseconds + self.ahead_ns
        self.sent[stamp_ns] = set(self.alive)
        for modality in self.alive:
            self.publisher.publish(live_frame(modality, stamp_ns, HEIGHT, WIDTH))

    def newest(self) -> str:
        return f"; newest status: {self.states()}"

    def spin_masks(self, count: int) -> None:
        """Spin until `count` more masks have come."""
        wanted = len(self.masks) + count
        self.spin_until(lambda: len(self.masks) >= wanted, f"{count} masks")

    def spin_for(self, seconds: float) -> None:
        """Spin for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def states(self) -> dict[str, dict[str, str]]:
        """modality -> its newest status, as key -> value."""
        return status_values(self.statuses[-1]) if self.statuses else {}

    def used(self) -> set[str]:
        """The modalities in the newest status' mask."""
        return {name for name, values in self.states().items() if values["used"] == "true"}

    def is_without(self, modality: Sensor, key: str, why: str) -> bool:
        """Whether the newest mask is, for a reason that its status tells: a frame may be late for one mask."""
        status = self.states().get(str(modality), {})
        return status.get("used") == "false" and status.get(key, "").startswith(why)

    def fault_of(self, modality: Sensor) -> str:
        return self.states().get(str(modality), {}).get("fault", "")


def status_values(array: DiagnosticArray) -> dict[str, dict[str, str]]:
    """`anyseg /node: camera status` ... -> {"camera": {"state": ..., "message": ...}}."""
    return {
        status_key(status.name).removesuffix(" status"): {
            "message": status.message,
            **{pair.key: pair.value for pair in status.values},
        }
        for status in array.status
    }


def toy_parameters(folder: Path, sensors: Sequence[Sensor] = DEFAULT_SENSORS) -> dict[str, Any]:
    """A toy student and the limits of 20 Hz sensors on a busy machine."""
    student = write_toy_student(folder / "toy", modalities=sensors)
    values: dict[str, Any] = {"model.student": str(student), "model.threads": 1}
    for modality in sensors:
        values[f"modalities.{modality}.kind"] = modality.kind.name
        values[f"modalities.{modality}.startup_grace_s"] = 30.0
        values[f"modalities.{modality}.max_age_ms"] = 1000.0
        values[f"modalities.{modality}.expected_rate_hz"] = 10.0
    values["faults.stale_stamp.threshold"] = 1000.0
    values["faults.silent.threshold"] = 4.0
    values["output.max_mask_age_ms"] = 2000.0
    values["rig.camera_from_lidar_rotation_xyzw"] = list(LOOKS_AHEAD)
    return values


@contextmanager
def running(overrides: Mapping[str, Any], sensors: Sequence[Sensor] = DEFAULT_SENSORS) -> Iterator[Vehicle]:
    """An active node with its vehicle."""
    vehicle = Vehicle(overrides, sensors=sensors)
    try:
        vehicle.node.trigger_configure()
        vehicle.node.trigger_activate()
        yield vehicle
    finally:
        vehicle.destroy()
