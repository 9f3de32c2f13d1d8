"""Single events into the live node. Neither event_camera_msgs nor dvs_msgs is on PyPI, so where they are missing the
serialized packets travel under the name of another type: a raw subscription never looks inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

import rclpy
from event_messages import packet_cdr
from ros_harness import NS, Vehicle, running, toy_parameters
from sensor_msgs.msg import CompressedImage, Image

from anyseg_core.runtime.events import stream as event_stream
from anyseg_core.runtime.events.decoder import EventPacket
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.messages.conversions import byte_array
from anyseg_ros.messages.headers import time_message
from anyseg_ros.messages.types import message_class, message_name
from anyseg_ros.node import sensor_input

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]

STAND_IN = "sensor_msgs/msg/CompressedImage"


UNHEARD_S = 5.0
"""Without a subscription, after which a driver starts again."""


class Driver:
    """Publishes `make(stamp_ns, count)` every 10 ms from its own context: in one, DDS allows one type on a topic.

    Fast DDS 3.2 sometimes leaves a participant that follows another one in the same process without the others' readers
    for good, though they know its writers: 3 of 1,440 times, over shared memory and UDP alike; of 450 drivers in
    processes of their own all were heard. So one that nobody hears starts again.
    """

    def __init__(self, message_type: type, make: Callable[[int, int], Any]) -> None:
        self._type, self._make = message_type, make
        self._start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _start(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node("event_driver", namespace=NS, context=self._context)
        self._publisher = self._node.create_publisher(self._type, "event_camera/events", 10)
        self._heard_s = time.monotonic()

    def _stop(self) -> None:
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _send(self) -> None:
        count = 0
        while not self._ended.wait(0.01):
            self._publisher.publish(self._make(self._node.get_clock().now().nanoseconds, count))
            count += 1
            if self._publisher.get_subscription_count():
                self._heard_s = time.monotonic()
            elif time.monotonic() > self._heard_s + UNHEARD_S:
                self._stop()
                self._start()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._stop()


@pytest.fixture
def vehicle(tmp_path: Path) -> Iterator[Vehicle]:
    with running({**toy_parameters(tmp_path), "modalities.event.topic": "event_camera/events"}) as started:
        started.alive = {Sensor.CAMERA}
        yield started


def assert_used_then_rejected(vehicle: Vehicle, message_type: type) -> None:
    damaged = threading.Event()

    def packet(stamp_ns: int, seq: int) -> bytes:
        us = seq * 10_000
        cdr = packet_cdr(stamp_ns, seq, list(range(us, us + 10)), x=seq % 600)  # the same for ever is a fault
        return cdr[:60] if damaged.is_set() else cdr

    with Driver(message_type, packet):
        vehicle.spin_until(lambda: "event" in vehicle.used(), "a mask made with the events")
        damaged.set()
        vehicle.spin_until(lambda: vehicle.fault_of(Sensor.EVENT) == "decode_error", "damaged packets to be a fault")
        damaged.clear()
        vehicle.spin_until(lambda: "event" in vehicle.used(), "the events to come back")


def test_event_packets_under_a_stand_in_type_are_taken_raw(vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = MappingProxyType({STAND_IN: EventPacket})
    monkeypatch.setattr(event_stream, "MESSAGE_READERS", readers)
    monkeypatch.setattr(sensor_input, "MESSAGE_READERS", readers)
    assert_used_then_rejected(vehicle, CompressedImage)


def test_event_packets(vehicle: Vehicle) -> None:
    found = message_class("event_camera_msgs/msg/EventPacket")
    if found is None:
        pytest.skip("event_camera_msgs comes with a ROS 2 distribution: apt install ros-$ROS_DISTRO-event-camera-msgs")
    assert_used_then_rejected(vehicle, found)


def test_images_of_counts_are_taken_as_before(vehicle: Vehicle) -> None:
    def image(stamp_ns: int, count: int) -> Image:
        pixels = (np.random.default_rng(count).random((48, 80, 3)) < 0.02).astype(np.uint8)  # a flood is a fault
        message = Image(height=48, width=80, step=240, encoding="rgb8", data=byte_array(pixels))
        message.header.stamp = time_message(stamp_ns)
        return message

    with Driver(Image, image):
        vehicle.spin_until(lambda: "event" in vehicle.used(), "a mask made with the image of events")


def test_another_driver_with_another_type_is_followed(vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch) -> None:
    test_images_of_counts_are_taken_as_before(vehicle)
    vehicle.spin_until(lambda: vehicle.fault_of(Sensor.EVENT) == "silent", "the first driver to be missed")
    test_event_packets_under_a_stand_in_type_are_taken_raw(vehicle, monkeypatch)


def test_an_event_type_that_is_not_installed_is_named_with_its_package(vehicle: Vehicle) -> None:
    (sensor,) = (s for s in vehicle.node._inputs if s.modality is Sensor.EVENT)
    complaint = sensor._type_complaint({"event_camera_msgs/msg/EventPacket"}, "sensor_msgs/msg/Image", "remap")
    assert "apt install ros-$ROS_DISTRO-event-camera-msgs" in complaint


@pytest.mark.parametrize(
    "name", ["no_such_msgs/msg/Thing", "sensor_msgs/msg/NoSuchThing", "os/msg/path", "", "../msg/x"]
)
def test_types_that_are_not_there_are_none(name: str) -> None:
    assert message_class(name) is None


def test_a_type_is_found_by_its_name() -> None:
    assert message_class("sensor_msgs/msg/Image") is Image
    assert message_name(Image) == "sensor_msgs/msg/Image"
