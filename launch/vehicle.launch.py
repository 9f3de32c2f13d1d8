"""segmentation_node on a vehicle's topics, or with `simulate:=true` on those of the simulated vehicle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.inject.live_topics import FAULTY, topic_parameters, topics_in, under
from anyseg_ros.pipeline.parameters import INFO_PARAMETERS, RigParameters, load_parameters
from anyseg_ros.process.ros_arguments import full_node_name
from anyseg_ros.process.setup import process_environment
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

PACKAGE = "anyseg_ros"
RESPAWN_DELAY_S = 2.0


def generate_launch_description() -> LaunchDescription:
    """The node, and with their arguments the simulated vehicle, RViz and the Foxglove bridge."""
    config = Path(get_package_share_directory(PACKAGE)) / "config"
    environment = [SetEnvironmentVariable(name, value) for name, value in process_environment().items()]
    segmentation = OpaqueFunction(function=segmentation_node, args=[config])
    # First what may be missing: an error leaves those running that were started before it.
    nodes = [foxglove_bridge(), diagnostic_aggregator(config), segmentation, simulated_vehicle(), rviz(config)]
    return LaunchDescription([*arguments(config), *environment, *nodes])


def arguments(config: Path) -> list[DeclareLaunchArgument]:
    """The launch arguments with their defaults."""
    rows = {
        "params_file": (str(config / "vehicle.yaml"), "parameters of segmentation_node"),
        "student": ("", "name of a bundled student, or a student's folder; default: what params_file says"),
        "namespace": ("", "of every node and topic"),
        "use_sim_time": ("false", "take the time from /clock"),
        "autostart": ("true", "configure and activate at once; false leaves that to a lifecycle manager"),
        "build_only": ("false", "open and warm up the networks, then end"),
        "respawn": (
            "false",
            "start the node again when it has ended; else the launch ends with it",
        ),
        "simulate": ("false", "publish the simulated vehicle's sensors too"),
        "recording": ("", "a recorded drive for the simulated vehicle; without it the drive is rendered first"),
        "injections": (
            "",
            "a schedule of injections (YAML) for the simulated vehicle, or for an injector before the node",
        ),
        "diagnostics": ("false", "start diagnostic_aggregator, for rqt_robot_monitor"),
        "rviz": ("false", "show the masks in RViz"),
        "foxglove": ("false", "start the Foxglove bridge"),
        "log_level": ("info", "of the nodes: debug, info, warn, error"),
    }
    return [DeclareLaunchArgument(name, default_value=value, description=text) for name, (value, text) in rows.items()]


def flag(name: str) -> ParameterValue:
    """A launch argument as a boolean parameter."""
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def segmentation_node(context: LaunchContext, config: Path) -> list[LaunchDescriptionEntity]:
    """The node; it starts itself (`autostart`), so no transition has to be chased by events."""
    params_file = LaunchConfiguration("params_file").perform(context)
    if not Path(params_file).is_file():  # launch_ros would go on without it
        raise ValueError(f"params_file:={params_file} is not a file")
    files = [params_file]
    if IfCondition(LaunchConfiguration("simulate")).evaluate(context):
        files.append(str(config / "simulated_vehicle.yaml"))
    overrides = {
        "use_sim_time": flag("use_sim_time"),
        "autostart": flag("autostart"),
        "model.build_only": flag("build_only"),
    }
    node_name = full_node_name(LaunchConfiguration("namespace").perform(context), ())
    injects = LaunchConfiguration("injections").perform(context)
    topics = topics_in(Path(params_file), node_name) if injects else {}
    injector = _injector(context, topics)
    if injector:
        read = {sensor: topic for sensor, topic in topics.items() if topic}
        overrides |= {f"modalities.{sensor}.topic": under(FAULTY, topic) for sensor, topic in read.items()}
        overrides |= info_topics(load_parameters(Path(params_file), node_name).rig, read)
    if LaunchConfiguration("student").perform(context):
        overrides["model.student"] = ParameterValue(LaunchConfiguration("student"), value_type=str)
    respawn = IfCondition(LaunchConfiguration("respawn")).evaluate(context)
    node = LifecycleNode(
        package=PACKAGE,
        executable="segmentation_node",
        name="segmentation_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[*files, overrides],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_S,
    )
    ended = [] if respawn else [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_node_exit))]
    return [*ended, *injector, node]


def info_topics(rig: RigParameters, topics: Mapping[Sensor, str]) -> dict[str, str]:
    """The drivers' camera_info, which no injector passes on: not beside the injector's images."""
    return {f"rig.{INFO_PARAMETERS[sensor]}": topic for sensor, topic in rig.info_topics(topics).items()}


def on_node_exit(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """End the launch with the node, and with a code other than 0 where the node had one: a service manager sees it."""
    if context.is_shutdown or not event.returncode:
        return [EmitEvent(event=Shutdown(reason="segmentation_node has ended"))]

    def fail(_context: LaunchContext) -> None:
        raise RuntimeError(f"segmentation_node has ended with code {event.returncode}")

    return [OpaqueFunction(function=fail)]


def _injector(context: LaunchContext, topics: Mapping[Sensor, str]) -> list[LaunchDescriptionEntity]:
    """The injector between the drivers of those topics and the node; none where the simulated vehicle breaks itself."""
    schedule = LaunchConfiguration("injections").perform(context)
    if not schedule or IfCondition(LaunchConfiguration("simulate")).evaluate(context):
        return []
    node = Node(
        package=PACKAGE,
        executable="injector_node",
        name="injector",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {"use_sim_time": flag("use_sim_time"), "injections": schedule, **topic_parameters(topics, FAULTY)},
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    return [node]


def simulated_vehicle() -> Node:
    """The simulated vehicle's drivers."""
    overrides = {
        "use_sim_time": flag("use_sim_time"),
        "recording": ParameterValue(LaunchConfiguration("recording"), value_type=str),
        "injections": ParameterValue(LaunchConfiguration("injections"), value_type=str),
    }
    return Node(
        package=PACKAGE,
        executable="simulated_vehicle",
        name="simulated_vehicle",
        namespace=LaunchConfiguration("namespace"),
        parameters=[overrides],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
        condition=IfCondition(LaunchConfiguration("simulate")),
    )


def diagnostic_aggregator(config: Path) -> Node:
    """`/diagnostics` as a tree on `/diagnostics_agg`."""
    return Node(
        package="diagnostic_aggregator",
        executable="aggregator_node",
        parameters=[str(config / "diagnostic_aggregator.yaml"), {"use_sim_time": flag("use_sim_time")}],
        output="screen",
        condition=IfCondition(LaunchConfiguration("diagnostics")),
    )


def rviz(config: Path) -> Node:
    """RViz with the overlay, the points and the ground grid; in the vehicle's namespace, as its topics are relative."""
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", str(config / "vehicle.rviz")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )


def foxglove_bridge() -> Node:
    """The websocket for Foxglove."""
    return Node(
        package="foxglove_bridge",
        executable="foxglove_bridge",
        name="foxglove_bridge",
        namespace=LaunchConfiguration("namespace"),
        condition=IfCondition(LaunchConfiguration("foxglove")),
    )
