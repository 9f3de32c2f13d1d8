"""Parameters of a node that reads them once, when it starts: one that is mistyped, or set too late, is refused."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.parameter import Parameter

_ROS_OWN = ("use_sim_time", "start_type_description_service")
_ROS_PREFIX = "qos_overrides."
_MISTYPED = 0.85
"""Names that are as alike as this (difflib's ratio) are the same, mistyped."""
_MOST_NAMED = 5


def require_declared(node: Node) -> None:
    """Raises ValueError for a parameter set at the start that looks like a mistyped one of the node's, all declared.

    Others are named in one warning: a file of a whole vehicle, `/**`, has those of other nodes, too.
    """
    known = sorted(node.get_parameters_by_prefix(""))
    unknown = []
    for name in node._parameter_overrides:  # pyright: ignore[reportPrivateUsage]  # rclpy tells them nowhere else
        if node.has_parameter(name) or name in _ROS_OWN or name.startswith(_ROS_PREFIX):
            continue
        if near := difflib.get_close_matches(name, known, n=1, cutoff=_MISTYPED):
            raise ValueError(f"unknown parameter {name}: did you mean {near[0]}?")
        unknown.append(name)
    if unknown:
        shown = ", ".join(unknown[:_MOST_NAMED]) + (" ..." if len(unknown) > _MOST_NAMED else "")
        node.get_logger().warning(f"of no effect here: {shown}; known are {', '.join(known)}")


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
