"""The arguments and the environment that rclpy reads, checked first: its own answers are tracebacks and C++ errors."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from anyseg_core.runtime.strict_yaml import load_yaml_file

MAX_DOMAIN = 232
"""Ports of DDS are numbered from the domain; those of higher ones do not exist."""
WITH_VALUE = ("-p", "--param", "-r", "--remap", "--params-file", "--log-level", "--log-config-file", "-e", "--enclave")
SWITCHES = tuple(
    f"--{switch}-{what}-logs" for switch in ("enable", "disable") for what in ("rosout", "stdout", "external-lib")
)
"""ROS 2's own options, after `--ros-args`."""


class RosArgumentError(ValueError):
    """An argument or an environment variable that ROS 2 would not take; the message names it and the remedy."""


def ros_domain() -> int:
    """The domain that ROS_DOMAIN_ID sets, 0 without it. Raises RosArgumentError where that is no domain."""
    text = os.environ.get("ROS_DOMAIN_ID", "").strip() or "0"
    if not text.isdecimal() or int(text) > MAX_DOMAIN:
        raise RosArgumentError(
            f"ROS_DOMAIN_ID={text} is no domain: set it to a whole number from 0 to {MAX_DOMAIN}, or unset it"
        )
    return int(text)


def check_ros_arguments(arguments: Sequence[str], own_options: Iterable[str] = ()) -> None:
    """Raises RosArgumentError for the first argument that ROS 2 does not know; `own_options` may be what was meant.

    What a command passes on to its node are options such as `-p name:=value` and `-r from:=to`.
    """
    waiting = iter(arguments)
    for word in waiting:
        if word in ("--ros-args", "--", *SWITCHES):
            continue
        if word not in WITH_VALUE:
            known = [*own_options, *WITH_VALUE, *SWITCHES]
            near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
            remedy = f"did you mean {near[0]}?" if near else "ROS 2's own are -p name:=value and -r from:=to"
            raise RosArgumentError(f"no such option: {word}; {remedy}")
        value = next(waiting, None)
        if value is None:
            raise RosArgumentError(f"{word} needs a value")
        if word in WITH_VALUE[:4] and ":=" not in value:
            raise RosArgumentError(f"{word} {value}: write name:=value")
        if word == "--params-file":
            _check_params_file(Path(value))


def full_node_name(namespace: str, arguments: Sequence[str]) -> str:
    """`/front/segmentation_node`: what ROS 2 calls the node with that namespace and these arguments."""
    given = dict(word.split(":=", 1) for word in arguments if word.startswith(("__ns:=", "__node:=", "__name:=")))
    name = given.get("__node", given.get("__name", "segmentation_node"))
    return "/" + "/".join(filter(None, (given.get("__ns", namespace).strip("/"), name)))


def _check_params_file(path: Path) -> None:
    """Raises RosArgumentError for a key that stands twice, of which ROS 2 would take the last without a word.

    And for a value that is below no `ros__parameters`, of which ROS 2 says less, in two lines.
    """
    try:
        content = load_yaml_file(path)
    except OSError as error:
        raise RosArgumentError(f"--params-file {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise RosArgumentError(f"--params-file {path}: {' '.join(str(error).split())}") from None
    if content is not None and (name := _without_parameters(content)):
        remedy = "parameters stand below a node's name and `ros__parameters:`, as in config/vehicle.yaml"
        raise RosArgumentError(f"--params-file {path}: {name} has no `ros__parameters:` with parameters; {remedy}")


def _without_parameters(content: Any, name: str = "it") -> str:
    """The first of nested names whose value is no mapping, or has `ros__parameters` that is none; "" for none."""
    if not isinstance(content, dict) or not isinstance(content.get("ros__parameters", {}), dict):
        return name
    below = ((key, value) for key, value in content.items() if key != "ros__parameters")
    return next((found for key, value in below if (found := _without_parameters(value, str(key)))), "")
