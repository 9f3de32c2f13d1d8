"""The simulated vehicle plays faults of frames on its frames and faults of messages on its messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from ros_harness import live_frame
from rosbags.typesys import Stores, get_typestore

from anyseg_core.injection import InjectionSchedule
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.messages.conversions import ConversionError, camera_frame
from anyseg_ros.vehicle.injections import VehicleInjections
from anyseg_ros.vehicle.publisher import VehiclePublisher, camera_message

pytestmark = pytest.mark.ros

STORE = get_typestore(Stores.ROS2_HUMBLE)


class Listener:
    """Hears what goes to the publishers, serialized where it was rewritten."""

    def __init__(self) -> None:
        self.heard: list[SensorFrame | bytes] = []

    def publish(self, frame: SensorFrame, rewrite: Callable[[Sensor, bytes], bytes] | None = None) -> None:
        from rclpy.serialization import serialize_message

        cdr = serialize_message(camera_message(frame))
        self.heard.append(frame if rewrite is None else rewrite(frame.modality, cdr))


def heard(*entries: dict[str, Any], elapsed_s: float = 1.5) -> list[SensorFrame | bytes]:
    faults = VehicleInjections(InjectionSchedule.parse({"injections": list(entries)}))
    listener = Listener()
    faults.publish(cast("VehiclePublisher", listener), live_frame(Sensor.CAMERA, 10**18), elapsed_s)
    return listener.heard


def test_faults_of_frames_need_no_rewriting() -> None:
    (frame,) = heard({"modality": "camera", "kind": "black", "start_s": 1})
    assert isinstance(frame, SensorFrame)
    assert not frame.data.any()
    assert heard({"modality": "camera", "kind": "drop", "start_s": 1}) == []


def test_faults_of_messages_break_the_message_in_their_time() -> None:
    broken = {"modality": "camera", "kind": "truncate", "start_s": 1}
    dark = {"modality": "camera", "kind": "black", "start_s": 0}
    (early,) = heard(broken, dark, elapsed_s=0.5)
    assert isinstance(early, bytes)
    message: Any = STORE.deserialize_cdr(early, "sensor_msgs/msg/Image")
    assert not camera_frame(message).data.any()
    (late,) = heard(broken, dark)
    assert isinstance(late, bytes)
    with pytest.raises(ConversionError):
        camera_frame(STORE.deserialize_cdr(late, "sensor_msgs/msg/Image"))
