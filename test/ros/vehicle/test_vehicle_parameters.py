"""The simulated vehicle takes no parameter that would have no effect."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from rclpy.parameter import Parameter

from anyseg_ros.vehicle.simulated_vehicle_node import SimulatedVehicleNode

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]


def vehicle(**parameters: Any) -> SimulatedVehicleNode:
    return SimulatedVehicleNode(
        parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()]
    )


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"weatherr": "snow"}, r"unknown parameter weatherr: did you mean weather\?"),
        ({"await_subscribers": "camera,sonar"}, r"await_subscribers: no sensor 'sonar'; there are camera, "),
        ({"duration_s": float("nan")}, "must be positive"),
        ({"rate_hz": float("inf")}, "must be positive"),
    ],
)
def test_wrong_parameters_are_named_before_anything_is_rendered(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        vehicle(**parameters)


def test_what_is_read_at_the_start_cannot_be_changed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedVehicleNode, "_drive_when_rendered", lambda *_: None)
    node = vehicle(await_subscribers="camera, thermal", publish_log="")
    try:
        done = node.set_parameters([Parameter("rate_hz", value=5.0)])[0]
        assert (done.successful, done.reason) == (
            False,
            "rate_hz is read at the start only: start the node again with -p rate_hz:=...",
        )
        assert node.set_parameters([Parameter("use_sim_time", value=True)])[0].successful
    finally:
        node.destroy_node()
