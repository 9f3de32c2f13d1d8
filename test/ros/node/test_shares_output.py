"""A gated student's node says which sensor counts where, over real DDS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from ros_harness import HEIGHT, NS, WIDTH, running, toy_parameters
from sensor_msgs.msg import Image

from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.messages.conversions import image_view

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]

SENSORS = (Sensor.CAMERA, Sensor.LIDAR)


def test_shares_are_published_in_words_and_as_a_picture(tmp_path: Path) -> None:
    overrides = {**toy_parameters(tmp_path, SENSORS), "model.student": "street"}
    with running(overrides, SENSORS) as vehicle:
        heard: list[Any] = []
        topic = f"/{NS}/segmentation_node/segmentation/sensor_shares"
        vehicle.driver.create_subscription(Image, topic, heard.append, 2)

        def shares() -> str:
            return vehicle.states().get("mask", {}).get("sensor_shares", "")

        vehicle.spin_until(lambda: shares().startswith("camera ") and "lidar " in shares(), "the shares of both")
        numbers = [float(part.split()[1]) for part in shares().split(", ")]
        assert sum(numbers) == pytest.approx(100, abs=1)
        vehicle.spin_until(lambda: bool(heard), "a picture of them")
        picture = image_view(heard[-1], ("rgb8",))
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2
        vehicle.alive.discard(Sensor.CAMERA)
        vehicle.spin_until(lambda: shares() == "lidar 100 %", "the share of the one that is left")
