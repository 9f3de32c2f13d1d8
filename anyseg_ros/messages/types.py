"""Message classes by their ROS names, for those packages that are installed."""

from __future__ import annotations

import importlib


def message_class(name: str) -> type | None:
    """The class of `sensor_msgs/msg/Image` and the like; None where it is not installed."""
    package, _, rest = name.partition("/")
    kind, _, short = rest.rpartition("/")
    if not (package.isidentifier() and kind in ("", "msg") and short.isidentifier()):
        return None
    try:
        return getattr(importlib.import_module(f"{package}.msg"), short, None)
    except ImportError:
        return None


def install_command(package: str) -> str:
    """How a package of the distribution is installed."""
    return f"apt install ros-$ROS_DISTRO-{package.replace('_', '-')}"


def message_name(message_type: type) -> str:
    """The inverse: `sensor_msgs/msg/Image`."""
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"
