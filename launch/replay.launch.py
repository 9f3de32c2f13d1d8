"""A recorded bag, played with `ros2 bag play --clock` into the live node, its masks compared with the offline replay's.

The bag is replayed offline first, while the launch is described: that tells the node's parameters. The launch ends with
the comparison.
"""

from __future__ import annotations

import sys
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import Shutdown
from launch.events.process import ProcessIO
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from anyseg_ros.process.setup import process_environment
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

PACKAGE = "anyseg_ros"
DISCOVERY_S = "2.0"
"""Between the player's publishers and its first message: what nobody has subscribed to yet is lost."""


def generate_launch_description() -> LaunchDescription:
    """Node, fault injector where faults are asked for, player and comparison."""
    environment = [SetEnvironmentVariable(name, value) for name, value in process_environment().items()]
    return LaunchDescription([*arguments(), *environment, OpaqueFunction(function=replayed)])


def arguments() -> list[DeclareLaunchArgument]:
    """The launch arguments with their defaults."""
    rows = {
        "bag": (None, "a bag's folder, or a .mcap or .db3 file"),
        "out": ("out/replay_live", "folder of results and logs"),
        "student": ("vehicle_sim", "name of a bundled student, or a student's folder"),
        "injections": ("", "a schedule of injections (YAML), injected between player and node"),
        "rate": ("1.0", "seconds of the bag in a second"),
        "log_level": ("info", "of the nodes: debug, info, warn, error"),
    }
    return [DeclareLaunchArgument(name, default_value=value, description=text) for name, (value, text) in rows.items()]


def replayed(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Replay offline, then everything that runs; the player begins when the comparison has heard the node."""
    from anyseg_ros.replay.live import LISTENING, prepare
    from anyseg_ros.replay.live_comparison import LiveOptions

    values = {
        name: LaunchConfiguration(name).perform(context) for name in ("bag", "out", "student", "injections", "rate")
    }
    injections = Path(values["injections"]) if values["injections"] else None
    bag, out, rate = Path(values["bag"]), Path(values["out"]), float(values["rate"])
    options = LiveOptions(bag, out, values["student"], injections, rate=rate)
    plan = prepare(options)
    node = LifecycleNode(
        package=PACKAGE,
        executable="segmentation_node",
        name="segmentation_node",
        namespace="",
        parameters=[dict(plan.node_parameters)],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    injectors = [injector(dict(plan.injector_parameters))] if plan.injector_parameters else []
    comparison = ExecuteProcess(cmd=comparison_command(values), output="screen", name="replay_live")
    remaps = [f"{recorded}:={published}" for recorded, published in plan.remap.items()]
    player = ExecuteProcess(
        cmd=[
            *("ros2", "bag", "play", values["bag"], "--clock", "100", "--rate", values["rate"], "--delay", DISCOVERY_S),
            *(["--remap", *remaps] if remaps else []),
        ],
        output="screen",
        name="player",
    )
    started = False

    def on_output(event: ProcessIO) -> list[LaunchDescriptionEntity] | None:
        nonlocal started
        if started or LISTENING.encode() not in event.text:
            return None
        started = True
        return [LogInfo(msg=f"playing {values['bag']}"), player]

    begin = RegisterEventHandler(OnProcessIO(target_action=comparison, on_stdout=on_output))
    end = RegisterEventHandler(
        OnProcessExit(target_action=comparison, on_exit=[EmitEvent(event=Shutdown(reason="the bag was compared"))])
    )
    return [begin, end, *injectors, node, comparison]


def injector(parameters: dict[str, object]) -> Node:
    """Between player and node."""
    return Node(
        package=PACKAGE,
        executable="injector_node",
        name="injector",
        parameters=[parameters],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )


def comparison_command(values: dict[str, str]) -> list[str]:
    """`anyseg replay-live`, which only listens here."""
    command = [
        sys.executable,
        "-m",
        "anyseg_ros.cli",
        "replay-live",
        values["bag"],
    ]  # colcon puts no `anyseg` on the PATH
    command += ["--listen", "--out", values["out"]]
    command += ["--student", values["student"], "--rate", values["rate"]]
    return [*command, *(["--injections", values["injections"]] if values["injections"] else [])]
