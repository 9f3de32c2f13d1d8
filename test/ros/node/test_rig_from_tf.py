"""The extrinsics of the LiDAR from TF, over real DDS, where tf2_ros is installed; it is not on PyPI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")
tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros comes with a ROS 2 distribution")

from geometry_msgs.msg import TransformStamped  # noqa: E402
from ros_harness import RIG, Vehicle, running, toy_parameters  # noqa: E402

from anyseg_core.runtime.geometry.rigid_transform import rigid_transform  # noqa: E402
from anyseg_core.runtime.sensors import Sensor  # noqa: E402
from anyseg_core.runtime.time_units import NS_PER_S  # noqa: E402
from anyseg_ros.messages.headers import time_message  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]

AHEAD_NS = 5 * NS_PER_S
BASE, OPTICAL, LIDAR = "base_link", "camera_frame", "lidar_frame"
MOUNTS = {OPTICAL: ((1.5, 0.1, 1.2), (-0.5, 0.5, -0.5, 0.5)), LIDAR: ((0.9, -0.2, 1.9), (0.0, 0.1, 0.0, 0.9949874))}
"""Where each sensor sits on the vehicle: translation in metres, quaternion (x, y, z, w)."""


@pytest.fixture
def vehicle(tmp_path: Path) -> Iterator[Vehicle]:
    with running(toy_parameters(tmp_path)) as one:
        yield one


def transforms(vehicle: Vehicle, mounts: dict[str, Any]) -> list[TransformStamped]:
    messages = []
    for frame, (translation, rotation) in mounts.items():
        message = TransformStamped(child_frame_id=frame)
        message.header.frame_id = BASE
        message.header.stamp = vehicle.driver.get_clock().now().to_msg()
        t, r = message.transform.translation, message.transform.rotation
        t.x, t.y, t.z = translation
        r.x, r.y, r.z, r.w = rotation
        messages.append(message)
    return messages


def expected(mounts: dict[str, Any]) -> NDArray[np.float64]:
    """camera_from_lidar through the vehicle's base."""
    base_from_optical, base_from_lidar = (rigid_transform(*mounts[frame]) for frame in (OPTICAL, LIDAR))
    return np.linalg.inv(base_from_optical) @ base_from_lidar


def extrinsics(vehicle: Vehicle) -> NDArray[np.float64] | None:
    worker = vehicle.node._worker
    assert worker is not None
    rig = worker.apply(lambda pipeline, _now_ns: pipeline._rig)
    return None if rig is None else rig.camera_from_lidar


def spin_until_extrinsics(vehicle: Vehicle, wanted: NDArray[np.float64], what: str) -> None:
    def is_so() -> bool:
        found = extrinsics(vehicle)
        return found is not None and np.allclose(found, wanted, atol=1e-6)

    vehicle.spin_until(is_so, what)


def spin_until_source(vehicle: Vehicle, source: str) -> None:
    vehicle.spin_until(lambda: vehicle.states()["lidar"]["extrinsics"] == source, f"the source {source} in the status")


def test_a_sensor_s_place_is_found_through_the_tree_and_followed(vehicle: Vehicle) -> None:
    spin_until_extrinsics(vehicle, RIG.camera_from_lidar, "the parameters' extrinsics before TF is there")
    spin_until_source(vehicle, "the parameters rig.camera_from_lidar_*")
    static = tf2_ros.StaticTransformBroadcaster(vehicle.driver)
    static.sendTransform(transforms(vehicle, {OPTICAL: MOUNTS[OPTICAL]}))
    moving, mounts = tf2_ros.TransformBroadcaster(vehicle.driver), dict(MOUNTS)
    vehicle.driver.create_timer(0.1, lambda: moving.sendTransform(transforms(vehicle, {LIDAR: mounts[LIDAR]})))
    for height_m in (1.9, 2.4):  # a mast that is driven out
        mounts[LIDAR] = ((0.9, -0.2, height_m), MOUNTS[LIDAR][1])
        spin_until_extrinsics(vehicle, expected(mounts), f"the extrinsics with the LiDAR at {height_m} m")
    vehicle.spin_until(lambda: str(Sensor.LIDAR) in vehicle.used(), "a mask made with LiDAR")
    spin_until_source(vehicle, f"TF ({LIDAR} in {OPTICAL})")


def test_a_lidar_that_moves_is_where_it_was_at_the_stamp_of_its_scan(vehicle: Vehicle) -> None:
    """A mast that rises by 1 m/s; its transforms are there before the scans, as those of a planned motion are."""
    static = tf2_ros.StaticTransformBroadcaster(vehicle.driver)
    static.sendTransform(transforms(vehicle, {OPTICAL: MOUNTS[OPTICAL]}))
    moving, start_ns = tf2_ros.TransformBroadcaster(vehicle.driver), vehicle.driver.get_clock().now().nanoseconds

    def mounts_at(stamp_ns: int) -> dict[str, Any]:
        x, y, z = MOUNTS[LIDAR][0]
        return {**MOUNTS, LIDAR: ((x, y, z + (stamp_ns - start_ns) / NS_PER_S), MOUNTS[LIDAR][1])}

    def send() -> None:
        ahead_ns = vehicle.driver.get_clock().now().nanoseconds + AHEAD_NS
        (message,) = transforms(vehicle, {LIDAR: mounts_at(ahead_ns)[LIDAR]})
        message.header.stamp = time_message(ahead_ns)
        moving.sendTransform(message)

    vehicle.driver.create_timer(0.05, send)

    def is_at_its_stamp() -> bool:
        rig, worker = vehicle.node._rig, vehicle.node._worker
        given = rig._calibration._given if rig is not None and worker is not None else None
        if rig is None or given is None or not given.source.startswith("TF"):
            return False
        return np.allclose(given.camera_from_lidar, expected(mounts_at(rig._scan_ns)), atol=1e-4)

    vehicle.spin_until(is_at_its_stamp, "the place at the stamp")
    vehicle.spin_for(0.5)
    assert is_at_its_stamp()


def test_an_inactive_node_listens_to_no_transforms(vehicle: Vehicle) -> None:
    vehicle.spin_until(lambda: vehicle.driver.count_subscribers("/tf_static") > 0, "the listener")
    vehicle.node.trigger_deactivate()
    vehicle.spin_until(lambda: vehicle.driver.count_subscribers("/tf_static") == 0, "the listener to be gone")
    vehicle.node.trigger_activate()
    static = tf2_ros.StaticTransformBroadcaster(vehicle.driver)
    static.sendTransform(transforms(vehicle, MOUNTS))
    spin_until_extrinsics(vehicle, expected(MOUNTS), "the extrinsics after activating again")
