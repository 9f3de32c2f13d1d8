"""A live node to attack: its process, drivers that go on as if nothing were, and somebody who listens."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import rclpy
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger

from anyseg_core.runtime.sensors import CAMERA, DEFAULT_SENSORS, LIDAR
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_ros.bench.attack_messages import jpeg_of
from anyseg_ros.bench.observer import Observer
from anyseg_ros.live_run.child_process import LiveRunError, child_process, ros_arguments
from anyseg_ros.live_run.run import extrinsics_parameters
from anyseg_ros.messages.default_topics import DEFAULT_TOPICS
from anyseg_ros.messages.headers import header_of
from anyseg_ros.node.segmentation_node import NAME
from anyseg_ros.process.node_process import new_executor
from anyseg_ros.vehicle.publisher import VehiclePublisher

RATE_HZ = 5.0
ANSWER_S = 20.0
"""For an answer of a node that also has masks to make, on a machine that also runs the drivers."""
COMPRESSED = "camera/image_raw/compressed"
MAX_CALLS = 10
"""Requests of a storm that are on their way: the middleware keeps no more for a service, and drops the rest."""


class Lab:
    """Drives in circles through a recording, for one node after the other."""

    def __init__(self, drive: RecordedDrive, student: str, log_folder: Path) -> None:
        self._drive, self._student, self._log_folder = drive, student, log_folder
        self._frames = [drive.frame(index) for index in range(len(drive))]
        self.node = rclpy.create_node("drivers")
        self._publisher = VehiclePublisher(self.node, drive.rig())
        self._compressed = self.node.create_publisher(CompressedImage, COMPRESSED, 5)
        self._executor = new_executor()
        self._executor.add_node(self.node)
        topics = {str(s): (PointCloud2 if s.kind is LIDAR else Image, DEFAULT_TOPICS[s]) for s in DEFAULT_SENSORS}
        self.observer = Observer(NAME, topics)
        self._others: list[Any] = []  # publishers of an attack
        self._sent = 0
        self.process: Any = None
        self.exit_code: int | None = None
        """Of the last node; None where it had to be killed."""
        self.node.create_timer(1 / RATE_HZ, self._send)

    def close(self) -> None:
        """End everything but the node, which `running` ends."""
        self.observer.close()
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._executor.shutdown()

    @contextmanager
    def running(self, name: str, parameters: Mapping[str, Any]) -> Iterator[None]:
        """A node that starts itself, with these parameters; `exit_code` is how it ended, in order or by itself."""
        arguments = {
            "autostart": True,
            "model.student": self._student,
            **extrinsics_parameters(self._drive.rig()),
            **{f"modalities.{sensor}.expected_rate_hz": RATE_HZ for sensor in DEFAULT_SENSORS},
            **parameters,
        }
        self.observer.forget()
        with suppress(LiveRunError):  # of another code than 0
            module, log = "node.segmentation_node", name.replace(" ", "_")
            with child_process(module, ros_arguments(arguments), self._log_folder, log) as self.process:
                yield
        self.exit_code = self.process.returncode
        while self._others:
            self.node.destroy_publisher(self._others.pop())

    @property
    def lives(self) -> bool:
        """Whether the node's process does."""
        return self.process.poll() is None

    def spin(self, seconds: float) -> None:
        """Let the drivers drive."""
        self.spin_until(lambda: False, seconds)

    def spin_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """The same until it is so; returns whether it was in time. A node that is dead is waited for no longer."""
        end = time.monotonic() + seconds
        while not (done := condition()) and time.monotonic() < end and self.lives:
            self._executor.spin_once(timeout_sec=0.02)
        return done

    def segments_with_all(self) -> bool:
        """Whether the newest mask has every sensor in it."""
        heard = self.observer.heard
        return bool(heard.masks) and len(heard.used.get(heard.masks[-1].stamp_ns, ())) == len(DEFAULT_SENSORS)

    def send(self, kind: type, topic: str) -> Callable[[Any], None]:
        """A publisher of somebody else on a topic, until the node ends; what it is given is stamped now."""
        publisher = self.node.create_publisher(kind, topic, 5)
        self._others.append(publisher)

        def publish(message: Any) -> None:
            message.header.stamp = self.node.get_clock().now().to_msg()
            publisher.publish(message)

        return publish

    def stop_process(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while in which the drivers go on."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            self.spin(seconds)
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """The answer of a service of the node; None where none came in time."""
        client = self.node.create_client(kind, f"{NAME}/{name}")
        try:
            if not self.spin_until(client.service_is_ready, ANSWER_S):
                return None
            future = client.call_async(request)
            return future.result() if self.spin_until(future.done, ANSWER_S) else None
        finally:
            self.node.destroy_client(client)

    def _send(self) -> None:
        """The next moment of the drive: to its end, back to its beginning, and so on, so that nothing ever jumps."""
        last = len(self._frames) - 1
        at = self._sent % (2 * last)
        self._sent += 1
        stamp_ns = self.node.get_clock().now().nanoseconds
        for frame in self._frames[min(at, 2 * last - at)].frames.values():
            now = replace(frame, stamp_ns=stamp_ns)
            self._publisher.publish(now)
            if frame.kind is CAMERA and self._compressed.get_subscription_count():
                self._compressed.publish(jpeg_of(now.data, header_of(now)))


class Storm:
    """Requests to every service of the node, as many as it answers."""

    def __init__(self, node: Any, spin: Callable[[], None] = lambda: None) -> None:
        """`spin` is called between requests; it may be left to a thread of the caller's."""
        self._node, self._spin = node, spin
        own = f"{NAME}/"
        opacities = (0.1, 0.9, float("nan"), 1e308)
        changes = [[Parameter("output.overlay_opacity", value=v).to_parameter_msg()] for v in opacities]
        get = GetParameters.Request(names=["autostart", "there.is.none"])
        self._requests: list[tuple[Any, Any]] = [
            (node.create_client(Trigger, f"{own}clear_faults"), Trigger.Request()),
            (node.create_client(GetParameters, f"{own}get_parameters"), get),
        ]
        set_parameters = node.create_client(SetParameters, f"{own}set_parameters")
        self._requests += [(set_parameters, SetParameters.Request(parameters=change)) for change in changes]
        for sensor in DEFAULT_SENSORS:
            client = node.create_client(SetBool, f"{own}set_{sensor}_enabled")
            self._requests += [(client, SetBool.Request(data=value)) for value in (False, True)]
        self._waiting: list[Any] = []
        self.asked = 0

    @property
    def answered(self) -> int:
        """Requests that have their answer."""
        self._waiting = [future for future in self._waiting if not future.done()]
        return self.asked - len(self._waiting)

    def go_on(self, count: int) -> None:
        """Ask so often, unless too many answers are missing already."""
        for _ in range(count):
            client, request = self._requests[self.asked % len(self._requests)]
            if self.asked - self.answered >= MAX_CALLS or not client.service_is_ready():
                return
            self._waiting.append(client.call_async(request))
            self.asked += 1
            self._spin()
