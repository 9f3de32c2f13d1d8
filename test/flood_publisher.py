"""A driver gone wild, as a process: `flood_publisher.py TOPIC WIDTH HEIGHT RATE_HZ`; publishes until it is ended.

Sends one rgb8 image again and again, each time stamped with the present time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the package is not installed

from anyseg_ros.process.setup import set_up_process


def main() -> None:
    """Publish as the command line says."""
    set_up_process()
    import rclpy  # deferred: the middleware reads its settings when it is loaded
    from sensor_msgs.msg import Image

    from anyseg_ros.messages.conversions import byte_array

    topic, width, height, rate_hz = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    rclpy.init()
    node = rclpy.create_node("flood")
    publisher = node.create_publisher(Image, topic, 1)
    message = Image(encoding="rgb8", width=width, height=height, step=3 * width)
    message.data = byte_array(np.random.default_rng(0).integers(0, 255, 3 * width * height, np.uint8))
    while True:
        begin_s = time.monotonic()
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        time.sleep(max(0.0, begin_s + 1 / rate_hz - time.monotonic()))


if __name__ == "__main__":
    main()
