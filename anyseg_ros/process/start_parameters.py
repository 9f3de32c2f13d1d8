"""Parameters of a node that reads them once, when it starts: one that would have no effect is refused, not taken."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.parameter import Parameter

_ROS_OWN = ("use_sim_time", "start_type_description_service")
_ROS_PREFIX = "qos_overrides."


def require_declared(node: Node) -> None:
    """Raises ValueError for a parameter that was set at the start and that the node, all declared, does not have."""
    for name in node._parameter_overrides:  # pyright: ignore[reportPrivateUsage]  # rclpy tells them nowhere else
        if not node.has_parameter(name) and name not in _ROS_OWN and not name.startswith(_ROS_PREFIX):
            known = sorted(node.get_parameters_by_prefix(""))
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"unknown parameter {name}: {remedy}")


def refuse_changes(node: Node, may_change: Collection[str] = ()) -> None:
    """From now on only these parameters can be set, and those of ROS 2 itself."""
    from rcl_interfaces.msg import SetParametersResult

    def on_set(parameters: list[Parameter]) -> SetParametersResult:
        for name in (parameter.name for parameter in parameters):
            if name not in (*may_change, *_ROS_OWN) and not name.startswith(_ROS_PREFIX):
                reason = f"{name} is read at the start only: start the node again with -p {name}:=..."
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(on_set)
