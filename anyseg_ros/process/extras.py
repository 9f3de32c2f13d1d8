"""Which extra of setup.py brings a module: what is not needed to drive is not installed on a robot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXTRA_OF = {
    **dict.fromkeys(("torch", "lightning", "tensorboard"), "train"),
    **dict.fromkeys(("trimesh", "embreex"), "sim"),
    **dict.fromkeys(("rosbags", "lz4", "matplotlib", "jinja2"), "replay"),
    "ray": "fleet",
    **dict.fromkeys(("rclpy", "builtin_interfaces", "diagnostic_msgs", "sensor_msgs", "std_msgs", "std_srvs"), "ros"),
}
"""The extra of setup.py that a module comes with; ROS comes with a distribution as well."""


@contextmanager
def missing_part_named() -> Iterator[None]:
    """Of the block, a module that is not installed: told with its extra, without a traceback; exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA_OF:
            raise
        remedy = f"pip install anyseg_ros[{EXTRA_OF[missing]}]"
        remedy += ", or source a ROS 2 distribution" if EXTRA_OF[missing] == "ros" else ""
        print(f"error: {missing} is not installed, and this needs it: {remedy}", file=sys.stderr)
        sys.exit(2)
