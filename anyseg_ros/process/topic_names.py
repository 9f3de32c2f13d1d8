"""Names of topics as a user gave them -> full ones, or what is wrong with them in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node


def full_topic_name(node: Node, parameter: str, name: str) -> str:
    """A parameter's name of a topic, with the node's namespace and remappings. Raises ValueError, which names the
    parameter, where ROS 2 would take none of that name."""
    from rclpy.validate_full_topic_name import validate_full_topic_name

    try:
        full = node.resolve_topic_name(name)
        validate_full_topic_name(full)
    except Exception as error:  # of rclpy's own C++ part, another class in each distribution
        raise ValueError(f"{parameter}: {_shown(name)} is no name of a topic: {_why(error)}") from None
    return full


def named_refusal(error: Exception) -> str:
    """What rclpy's NameValidationException says of a name of a topic, a service, a node or a namespace, in one line."""
    name = str(error).partition(":\n")[2].partition("\n")[0].strip()
    return f"{_why(error)}: {_shown(name.strip(chr(39)))}; set node and namespace with -r __node:= and -r __ns:="


def _why(error: Exception) -> str:
    """In one line, without the name and where in rclpy's source it was refused."""
    reason = str(error).partition(":\n")[0].partition(", at /")[0]
    return " ".join(reason.removeprefix("failed to resolve name: ").split()).replace("'255U - 8U'", "247 characters")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:77]}...")
