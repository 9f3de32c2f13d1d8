"""A live run: vehicle and node as processes of their own, this process listening to both."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_core.sim.drive import CARRIED, base_from_lidar
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_ros.live_run.child_process import LiveRunError, child_process, ros_arguments, transform_parameters
from anyseg_ros.live_run.recording import ReceivedMask, Recording, StatusSample
from anyseg_ros.messages.conversions import stamp_ns
from anyseg_ros.node.segmentation_node import NAME as NODE_NAME
from anyseg_ros.node.status_messages import ENGINE
from anyseg_ros.pipeline.status_lines import MASK, sensor_named, status_key
from anyseg_ros.process.node_process import new_executor
from anyseg_ros.vehicle.publisher import GROUND_TRUTH

START_TIMEOUT_S = 60.0
TAIL_S = 1.0
"""How long to listen after the last ground truth: a mask may be on its way."""
STALLED_S = 15.0
"""A vehicle that drives in circles and is not heard for so long has stopped."""


@dataclass(frozen=True)
class LiveRun:
    """What to run."""

    drive: Path
    """A recorded drive."""
    student: str
    injections: Path | None = None
    loop_s: float | None = None
    """Drive in circles for so many seconds instead of once to the end."""
    node_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of segmentation_node, besides the student; the drive's own extrinsics are among them already."""
    vehicle_parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of simulated_vehicle, besides the recording."""
    keep_images: bool = True
    """False for a long run: the label images heard are left empty."""
    log_folder: Path = Path("out/log")


def record(run: LiveRun, on_progress: Callable[[float, Recording], None]) -> Recording:
    """Run it and return what was heard. `on_progress` is called a few times a second with the seconds driven.

    Raises LiveRunError when a process cannot be started or dies on the way.
    """
    recording = Recording()
    node = _Listener(recording, run.keep_images)
    executor = new_executor()
    executor.add_node(node)
    try:
        with _process("node.segmentation_node", run, _node_arguments(run)) as segmenter:
            recording.node_pid = segmenter.pid
            _spin_until(executor, lambda: node.node_is_up, segmenter, "segmentation_node")
            with _process("vehicle.simulated_vehicle_node", run, _vehicle_arguments(run)) as vehicle:
                _spin_until(executor, lambda: bool(recording.truth), vehicle, "simulated_vehicle")
                _listen(run, executor, recording, (segmenter, vehicle), on_progress)
    finally:
        executor.remove_node(node)
        node.destroy_node()
        executor.shutdown()
    return recording


def _listen(
    run: LiveRun,
    executor: Any,
    recording: Recording,
    processes: tuple[subprocess.Popen[bytes], ...],
    on_progress: Callable[[float, Recording], None],
) -> None:
    """Spin until the drive is over and a moment longer."""
    last_truth, heard = 0, time.monotonic()
    while time.monotonic() - heard < (TAIL_S if run.loop_s is None else STALLED_S):
        executor.spin_once(timeout_sec=0.05)
        if len(recording.truth) != last_truth:
            last_truth, heard = len(recording.truth), time.monotonic()
            driven_s = (max(recording.truth) - recording.start_ns) / NS_PER_S
            on_progress(driven_s, recording)
            if run.loop_s is not None and driven_s >= run.loop_s:
                return
        for process in processes:
            if process.poll() is not None:
                raise LiveRunError(f"{process.args!r} ended with code {process.returncode}; see {run.log_folder}")
    if run.loop_s is not None:
        raise LiveRunError(f"the vehicle was not heard for {STALLED_S:.0f} s; see {run.log_folder}")


def _spin_until(executor: Any, condition: Callable[[], bool], process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        executor.spin_once(timeout_sec=0.05)
        if process.poll() is not None:
            raise LiveRunError(f"{name} ended with code {process.returncode} at the start")
        if time.monotonic() > deadline:
            raise LiveRunError(f"{name} was not heard within {START_TIMEOUT_S:.0f} s")


def _node_arguments(run: LiveRun) -> dict[str, Any]:
    return {
        "autostart": True,
        "model.student": run.student,
        **extrinsics_parameters(RecordedDrive.load(run.drive).rig()),
        **run.node_parameters,
    }


def extrinsics_parameters(rig: Rig) -> dict[str, list[float]]:
    """Where the simulated vehicle's LiDAR sits, as parameters; a real vehicle tells it by TF."""
    return {
        **transform_parameters("camera_from_lidar", rig.camera_from_lidar),
        **transform_parameters("base_from_lidar", base_from_lidar()),
    }


def _vehicle_arguments(run: LiveRun) -> dict[str, Any]:
    taken = load_card(find_student(run.student), verify=False).modalities
    heard = ",".join(str(sensor) for sensor in CARRIED if sensor in taken)  # those that it has
    arguments = {"recording": run.drive, "loop": run.loop_s is not None, "await_subscribers": heard}
    return {**arguments, **({"injections": run.injections} if run.injections else {}), **run.vehicle_parameters}


def _process(
    module: str, run: LiveRun, parameters: Mapping[str, Any]
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """One of our nodes as a process."""
    return child_process(module, ros_arguments(parameters), run.log_folder)


class _Listener(Node):
    """Subscribes to masks, statuses and ground truth."""

    def __init__(self, recording: Recording, keep_images: bool) -> None:
        super().__init__("anyseg_demo")
        self._recording = recording
        self._keep_images = keep_images
        reliable = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(depth=20, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Image, f"{NODE_NAME}/segmentation/mask", self._on_mask, reliable)
        self.create_subscription(Image, GROUND_TRUTH, self._on_truth, reliable)
        self.create_subscription(DiagnosticArray, f"{NODE_NAME}/modality_status", self._on_status, latched)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, reliable)

    @property
    def node_is_up(self) -> bool:
        """Whether the segmentation node has said anything: it does once it is active."""
        return bool(self._recording.statuses)

    def _on_mask(self, message: Image) -> None:
        self._recording.masks.append(ReceivedMask(stamp_ns(message.header), time.time_ns(), self._pixels(message)))

    def _on_truth(self, message: Image) -> None:
        self._recording.truth[stamp_ns(message.header)] = self._pixels(message)

    def _pixels(self, message: Image) -> np.ndarray:
        """A mono8 image as uint8 [H, W]; a copy, since the message's memory is used again."""
        if not self._keep_images:
            return np.empty((0, 0), np.uint8)
        return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width).copy()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        """The engine that really runs, in the node's own words."""
        said = [status.message for status in message.status if status_key(status.name) == ENGINE]
        self._recording.engine = said[0] if said else self._recording.engine

    def _on_status(self, message: DiagnosticArray) -> None:
        received_ns, mask_ns = time.time_ns(), stamp_ns(message.header)
        values = {status_key(status.name): _values(status) for status in message.status}
        engine_ms = _number(values.get(MASK, {}).get("engine_ms", ""))
        for name, entry in values.items():
            sensor = sensor_named(name)
            if sensor is None:
                continue
            sample = StatusSample(
                mask_ns,
                received_ns,
                Sensor(sensor),
                State(entry["state"]),
                entry["fault"],
                entry["used"] == "true",
                _number(entry["used_age_ms"]),
                engine_ms,
            )
            self._recording.statuses.append(sample)


def _values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def _number(text: str) -> float | None:
    return float(text) if text else None
