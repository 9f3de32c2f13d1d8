"""`anyseg replay-live`: a bag into the live node, its masks scored with the code of the offline replay and compared
with its masks, stamp by stamp.

The offline replay comes first: it tells the node's parameters (rates, calibration) and what it should have made. Then
the node, the fault injector where faults are asked for, and the player run as processes, in the bag's time.
`launch/replay.launch.py` starts the three itself, with `ros2 bag play`, and this module only listens.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rich.console import Console
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, in_order
from anyseg_core.runtime.time_units import NS_PER_MS
from anyseg_ros.live_run.child_process import LiveRunError, child_process, ros_arguments, transform_parameters
from anyseg_ros.messages.conversions import image_view, stamp_ns
from anyseg_ros.messages.headers import STATE_QOS
from anyseg_ros.node.segmentation_node import NAME as NODE_NAME
from anyseg_ros.pipeline.parameters import to_values
from anyseg_ros.pipeline.status_lines import MASK, sensor_named, status_key
from anyseg_ros.process.node_process import new_executor
from anyseg_ros.process.ros_arguments import ros_domain
from anyseg_ros.replay.live_comparison import (
    COMPARISON,
    OFFLINE,
    LiveMask,
    LiveOptions,
    LiveOutputs,
    compare,
    print_comparison,
    write_comparison,
)
from anyseg_ros.replay.mask_scoring import mask_hash
from anyseg_ros.replay.offline import ReplayOptions, ReplayResult, replay
from anyseg_ros.replay.student_note import print_student

LOG = "log"
INJECTED = "/injected"
"""Prefix of the sensors' topics between the player and the fault injector."""
START_TIMEOUT_S = 120.0
SILENCE_S = 3.0
"""Without a new time on /clock for so long, the player has ended."""
LISTENING = "listening"
"""What is printed when the player may begin; the launch file waits for it."""


@dataclass(frozen=True)
class LivePlan:
    """How node, injector and player have to be started; topics are absolute."""

    node_parameters: Mapping[str, Any]
    injector_parameters: Mapping[str, Any]
    """Empty where no faults are asked for."""
    remap: Mapping[str, str]
    """Recorded topic -> the topic to play it on."""
    await_topics: tuple[str, ...]
    """As they are played: each must have a subscriber before the first message."""


def prepare(options: LiveOptions) -> LivePlan:
    """Replay offline into `out`, and plan the live run. Raises what `replay` raises."""
    injections = (options.injections,) if options.injections else ()
    settings = ReplayOptions(student=options.student, topics=options.topics, injections=injections)
    return plan_of(options, replay(options.bag, options.out / OFFLINE, settings))


def plan_of(options: LiveOptions, result: ReplayResult) -> LivePlan:
    """The live run that corresponds to an offline one."""
    sensors = {m: choice.topic for m, choice in result.topics.sensors.items()}
    defaults = to_values()
    node: dict[str, Any] = {
        name: value for name, value in to_values(result.parameters).items() if value != defaults.get(name)
    }
    others = [m for m in sensors if m not in DEFAULT_SENSORS]
    node |= {f"modalities.{m}.kind": m.kind.name for m in others}
    node |= {f"modalities.{m}.topic": topic for m, topic in sensors.items()}
    node |= {f"modalities.{m}.enabled": False for m in result.parameters.modalities if m not in sensors}
    node |= {"use_sim_time": True, "autostart": True, "model.student": str(options.student)}
    if result.rig is not None:
        camera = result.rig.camera
        intrinsics = (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
        node |= transform_parameters("camera_from_lidar", result.rig.camera_from_lidar)
        node["rig.intrinsics"] = [float(value) for value in intrinsics]
    if options.injections is None:
        return LivePlan(node, {}, {}, tuple(sensors.values()))
    inputs = {topic: INJECTED + topic for topic in sensors.values()}
    injector: dict[str, Any] = {"use_sim_time": True, "injections": str(options.injections.resolve())}
    injector |= {"sensors": ",".join(f"{m}:{m.kind}" for m in others)} if others else {}
    for modality in (*DEFAULT_SENSORS, *others):
        topic = sensors.get(modality, "")
        injector[f"topics.{modality}.output"] = topic
        injector[f"topics.{modality}.input"] = inputs.get(topic, "")
    return LivePlan(node, injector, inputs, tuple(inputs.values()))


def run_live(options: LiveOptions, console: Console, *, listen_only: bool = False) -> bool:
    """Run, compare, print and write `comparison.json`; returns `Comparison.is_equal`.

    With `listen_only` the node and the player are started by somebody else, and `out` has the offline replay already.
    Raises LiveRunError, and what `replay` raises.
    """
    if listen_only:
        outputs = _listen_only(console)
    else:
        print_student(load_card(find_student(options.student)), console)
        console.print(f"offline replay of {options.bag}")
        outputs = _run_processes(options, prepare(options), console)
    comparison = compare(options, outputs)
    print_comparison(comparison, console)
    write_comparison(comparison, options.out / COMPARISON)
    return comparison.is_equal


# --- the live run ----------------------------------------------------------------------------------------------------


def _run_processes(options: LiveOptions, plan: LivePlan, console: Console) -> LiveOutputs:
    log = options.out / LOG
    with ExitStack() as processes, _listener() as listener:
        running = [
            processes.enter_context(child_process("node.segmentation_node", ros_arguments(plan.node_parameters), log))
        ]
        if plan.injector_parameters:
            arguments = ros_arguments(plan.injector_parameters)
            running.append(processes.enter_context(child_process("inject.injector_node", arguments, log)))
        _await_node(listener, running)
        console.print(f"playing {options.bag} at {options.rate:g} x")
        player = child_process("cli", play_arguments(options, plan), log, "play")
        return _listen(listener, [*running, processes.enter_context(player)])


def _listen_only(console: Console) -> LiveOutputs:
    with _listener() as listener:
        _await_node(listener, [])
        print(LISTENING, flush=True)  # not by the console, which may wrap it
        console.print(f"to /{NODE_NAME}, until /clock stands still")
        return _listen(listener, [])


def play_arguments(options: LiveOptions, plan: LivePlan) -> list[str]:
    """Of `anyseg` for the player."""
    arguments = ["play", str(options.bag), "--clock", "--rate", str(options.rate)]
    for recorded, published in plan.remap.items():
        arguments += ["--remap", f"{recorded}:={published}"]
    for topic in plan.await_topics:
        arguments += ["--await", topic]
    return arguments


@dataclass(frozen=True)
class _Spinning:
    """The listener and what makes it hear."""

    node: _Listener
    executor: Any

    def until(self, condition: Callable[[], bool], processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Spin until it is so. Raises LiveRunError where a process fails before, or nothing happens."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            self.executor.spin_once(timeout_sec=0.05)
            for process in processes:
                if process.poll() not in (None, 0):
                    raise LiveRunError(f"{process.args!r} ended with code {process.returncode}; see its log")
            if time.monotonic() > deadline and self.node.clock_seen_s is None:
                what = "no time on /clock" if self.node.node_is_up else f"nothing of /{NODE_NAME}"
                raise LiveRunError(f"{what} came within {START_TIMEOUT_S:.0f} s")


@contextmanager
def _listener() -> Iterator[_Spinning]:
    ros_domain()
    rclpy.init()
    node, executor = _Listener(), new_executor()
    executor.add_node(node)
    try:
        yield _Spinning(node, executor)
    finally:
        executor.remove_node(node)
        node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()


def _await_node(listener: _Spinning, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    listener.until(lambda: listener.node.node_is_up, processes)


def _listen(listener: _Spinning, processes: Sequence[subprocess.Popen[bytes]]) -> LiveOutputs:
    """What the node says until the bag's time stands still."""
    listener.until(lambda: listener.node.is_over(time.monotonic()), processes)
    return listener.node.outputs


class _Listener(Node):
    """Hears masks, which sensors they were made from, and the bag's time."""

    def __init__(self) -> None:
        super().__init__("anyseg_replay_live", parameter_overrides=[Parameter("use_sim_time", value=True)])
        self.outputs = LiveOutputs()
        self.clock_seen_s: float | None = None
        """When /clock last told a new time, of this process' clock."""
        self.node_is_up = False
        self._time: tuple[int, int] | None = None
        own = f"/{NODE_NAME}"
        self.create_subscription(Image, f"{own}/segmentation/mask", self._on_mask, QoSProfile(depth=100))
        status_qos = QoSProfile(depth=100, durability=STATE_QOS.durability)
        self.create_subscription(DiagnosticArray, f"{own}/modality_status", self._on_status, status_qos)
        self.create_subscription(Clock, "/clock", self._on_clock, QoSProfile(depth=100))

    def is_over(self, now_s: float) -> bool:
        """Whether the bag's time has been told, and has stood still for a while."""
        return self.clock_seen_s is not None and now_s - self.clock_seen_s > SILENCE_S

    def _on_mask(self, message: Image) -> None:
        labels = image_view(message, ("mono8",))
        late_ms = (self.get_clock().now().nanoseconds - stamp_ns(message.header)) / NS_PER_MS
        png = np.asarray(cv2.imencode(".png", labels)[1], np.uint8)
        self.outputs.masks.append(LiveMask(stamp_ns(message.header), late_ms, mask_hash(labels), png))

    def _on_status(self, message: DiagnosticArray) -> None:
        self.node_is_up = True
        values = {status_key(s.name): {pair.key: pair.value for pair in s.values} for s in message.status}
        if MASK in values:
            used = {
                Sensor(sensor)
                for name, of in values.items()
                if of.get("used") == "true" and (sensor := sensor_named(name)) is not None
            }
            self.outputs.used[stamp_ns(message.header)] = in_order(used)

    def _on_clock(self, message: Clock) -> None:
        now = message.clock.sec, message.clock.nanosec
        if now != self._time:
            self._time, self.clock_seen_s = now, time.monotonic()
