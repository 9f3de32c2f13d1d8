"""A second node of the same name on the domain: both publish on the same topics, and nobody can tell them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

PERIOD_S = 2.0
"""Between looks; discovery of a node takes about a second."""


def warn_of_namesakes(node: Node) -> None:
    """Have the node look for others of its name and namespace, and warn once."""
    from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]

    own = (node.get_name(), node.get_namespace())

    def look() -> None:
        if node.get_node_names_and_namespaces().count(own) > 1:
            timer.cancel()
            node.get_logger().warning(
                f"another node named {node.get_fully_qualified_name()} is on this domain, and both publish the same "
                "topics: end it, or give one of them a namespace (-r __ns:=/other) or another ROS_DOMAIN_ID"
            )

    timer = node.create_timer(PERIOD_S, look, clock=Clock(clock_type=ClockType.STEADY_TIME))
