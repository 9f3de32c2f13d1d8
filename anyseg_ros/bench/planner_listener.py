"""A process that listens as a planner does: points, obstacles and grid of segmentation_node, counted when it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import PointCloud2

from anyseg_core.child_process import module_arguments
from anyseg_ros.messages.headers import STATE_QOS
from anyseg_ros.messages.types import message_class

TOPICS = ("points", "obstacles")
_END_S = 10.0


@contextmanager
def listening() -> Iterator[None]:
    """The process runs meanwhile."""
    process = subprocess.Popen([sys.executable, *module_arguments(__name__, [])])
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_END_S)


def main() -> None:
    """Listen until Ctrl-C, and say what was heard."""
    heard: Counter[str] = Counter()
    rclpy.init()
    node = rclpy.create_node("planner_listener")

    def listen(name: str, kind: type, qos: Any) -> None:
        node.create_subscription(kind, f"segmentation_node/segmentation/{name}", lambda _: heard.update([name]), qos)

    for name in TOPICS:
        listen(name, PointCloud2, 2)
    grid = message_class("nav_msgs/msg/OccupancyGrid")
    if grid is not None:
        listen("ground_grid", grid, STATE_QOS)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    print("a planner has heard", ", ".join(f"{number} x {name}" for name, number in heard.items()), flush=True)


if __name__ == "__main__":
    main()
