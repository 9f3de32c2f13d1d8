"""simulated_vehicle: publishes a vehicle's sensors in real time, from a recorded or a rendered drive.

Rendering is slower than real time on a small machine. So the drive is rendered first, once, and kept in the user's
cache folder; with the parameter `render_first` false it is rendered as it goes, as fast as that may be. All frames of
an instant carry one stamp, the clock's time when they are published. With the parameter `injections` a schedule breaks
the sensors on the way out, as it would in the drivers.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]  # where every distribution has it
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from std_msgs.msg import Header

from anyseg_core.injection import InjectionSchedule
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.sim.drive import CARRIED, SLOW_SHARE, Drive, DriveConfig, DriveFrame, rig_of
from anyseg_core.sim.drive_cache import is_recorded, recording_path, user_cache_folder
from anyseg_core.sim.recorded_drive import RecordedDrive, RecordingError
from anyseg_core.sim.render_process import RenderError, RenderProcess
from anyseg_core.sim.weather import Weather
from anyseg_ros.messages.headers import time_message
from anyseg_ros.process.node_process import run
from anyseg_ros.process.start_parameters import refuse_changes, require_declared
from anyseg_ros.vehicle.injections import VehicleInjections
from anyseg_ros.vehicle.publisher import VehiclePublisher

NAME = "simulated_vehicle"
DURATION_S = 20.0
"""Of a drive that is not told how long to be: the longer, the longer the first start."""
RENDER_POLL_S = 0.2


class FrameSource(Protocol):
    """A drive, rendered or recorded."""

    def __len__(self) -> int: ...

    def rig(self) -> Rig: ...

    def frame(self, index: int) -> DriveFrame: ...


class SimulatedVehicleNode(Node):
    """Finds, or renders, the drive that the parameters ask for, then drives it.

    Raises ValueError (InjectionScheduleError, an unknown weather ...) or RecordingError for parameters that cannot be
    used, and while it spins RenderError or RecordingError.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        self._declare_parameters()
        require_declared(self)
        refuse_changes(self)
        self._awaited = _sensors_named(str(self.get_parameter("await_subscribers").value))
        faults = self.get_parameter("injections").value
        self._faults = VehicleInjections(InjectionSchedule.load(faults) if faults else InjectionSchedule())
        self._rendering: RenderProcess | None = None
        recording = self.get_parameter("recording").value
        if recording:
            drive = RecordedDrive.load(Path(recording))
            self._drive(drive, self._vehicle_publisher(drive.rig(), drive.sensors))
        elif self.get_parameter("render_first").value:
            self._drive_when_rendered(self._drive_config())
        else:
            drive = Drive(self._drive_config())
            self._drive(drive, self._vehicle_publisher(drive.rig(), drive.config.sensors))

    def _declare_parameters(self) -> None:
        self.declare_parameter("recording", "")  # a recorded drive; without it the drive is rendered
        self.declare_parameter("render_first", True)  # false: render as it goes
        self.declare_parameter("unpack_first", False)  # 3.5 MB a frame, and no work between the frames: for benchmarks
        self.declare_parameter("injections", "")  # a schedule of injections (YAML)
        self.declare_parameter("loop", True)  # from the end back to the start
        # Sensors, such as camera,depth: start when each of them has a subscriber, so that none misses a frame.
        self.declare_parameter("await_subscribers", "")
        self.declare_parameter("seed", 0)
        self.declare_parameter("weather", str(Weather.SUN))
        self.declare_parameter("duration_s", DURATION_S)
        self.declare_parameter("rate_hz", DriveConfig.rate_hz)
        self.declare_parameter("publish_log", "")  # a CSV file of when each message was sent: for benchmarks
        self.declare_parameter("thermal", DriveConfig.thermal)  # a fifth sensor: thermal/image_raw

    def _drive_config(self) -> DriveConfig:
        values = {name: parameter.value for name, parameter in self.get_parameters_by_prefix("").items()}
        weather = Weather.parse(values["weather"])
        duration_s, rate_hz = float(values["duration_s"]), float(values["rate_hz"])
        return DriveConfig(values["seed"], weather, duration_s, rate_hz, thermal=values["thermal"])

    def _vehicle_publisher(self, rig: Rig, sensors: Sequence[Sensor]) -> VehiclePublisher:
        return VehiclePublisher(self, rig, sensors, log=str(self.get_parameter("publish_log").value))

    def _drive(self, source: FrameSource, vehicle: VehiclePublisher) -> None:
        if self.get_parameter("unpack_first").value:
            source = _Unpacked(source)
        loop = bool(self.get_parameter("loop").value)
        _Driver(self, vehicle, source, self._faults, loop, self._awaited)

    def _drive_when_rendered(self, config: DriveConfig) -> None:
        """Now, where the cache holds the drive; else as soon as a process has rendered it."""
        vehicle = self._vehicle_publisher(
            rig_of(config), config.sensors
        )  # drivers that are up and have nothing to say yet
        path = recording_path(config, user_cache_folder())
        if is_recorded(path):
            self.get_logger().info(f"the drive was rendered before: {path}")
            self._drive(RecordedDrive.load(path), vehicle)
            return
        self.get_logger().info(f"rendering the drive first; the next start finds it at {path}")
        rendering = self._rendering = RenderProcess(config, path.parent)
        reported = 0

        def watch() -> None:
            nonlocal reported
            done, total = rendering.progress()
            if done != reported:
                reported = done
                self.get_logger().info(f"rendering: {done} of {total} frames")
            if rendering.is_done():
                timer.cancel()
                self._drive(RecordedDrive.load(rendering.path), vehicle)

        # Steady: rendering goes on, whatever /clock says.
        timer = self.create_timer(RENDER_POLL_S, watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def destroy_node(self) -> None:
        """End the rendering, if it goes on, and the node."""
        if self._rendering is not None:
            self._rendering.stop()
        super().destroy_node()


class _Unpacked:
    """A drive whose frames are all in memory."""

    def __init__(self, source: FrameSource) -> None:
        self._rig = source.rig()
        self._frames = [source.frame(index) for index in range(len(source))]

    def __len__(self) -> int:
        return len(self._frames)

    def rig(self) -> Rig:
        return self._rig

    def frame(self, index: int) -> DriveFrame:
        return self._frames[index]


class _Driver:
    """Publishes one instant of a drive a tick."""

    def __init__(
        self,
        node: Node,
        vehicle: VehiclePublisher,
        source: FrameSource,
        faults: VehicleInjections,
        loop: bool,
        awaited: Sequence[Sensor],
    ) -> None:
        self._node = node
        self._vehicle = vehicle
        self._source = source
        self._faults = faults
        self._awaited = awaited
        indices = range(len(source))
        self._indices = itertools.cycle(indices) if loop else iter(indices)
        self._period_s = _period_s(source)
        self._start_ns: int | None = None
        self._published = 0
        self._next: DriveFrame | None = source.frame(next(self._indices))
        node.create_timer(self._period_s, self._on_tick)
        node.get_logger().info(f"driving: {len(source)} frames at {1 / self._period_s:.1f} Hz")

    def _on_tick(self) -> None:
        """Publish the frame that is ready, then make the next one ready."""
        if self._next is None or not self._may_start():
            return
        now_ns = self._node.get_clock().now().nanoseconds
        self._start_ns = now_ns if self._start_ns is None else self._start_ns
        self._publish(self._next, now_ns, (now_ns - self._start_ns) / 1e9)
        index = next(self._indices, None)
        self._next = None if index is None else self._source.frame(index)

    def _may_start(self) -> bool:
        """Once under way it does not stop again."""
        return self._start_ns is not None or not self._awaited or self._vehicle.is_heard(self._awaited)

    def _publish(self, instant: DriveFrame, now_ns: int, elapsed_s: float) -> None:
        frame_id = instant.frames[Sensor.CAMERA].frame_id
        self._vehicle.publish_labels(instant.labels, Header(stamp=time_message(now_ns), frame_id=frame_id))
        for frame in instant.frames.values():
            self._faults.publish(self._vehicle, replace(frame, stamp_ns=now_ns), elapsed_s)
        self._published += 1
        if elapsed_s > 5.0 and self._published < SLOW_SHARE * elapsed_s / self._period_s:
            self._node.get_logger().warning(
                f"the machine has too little to spare: driving at {self._published / elapsed_s:.1f} Hz instead of "
                f"{1 / self._period_s:.1f} Hz",
                once=True,
            )


def _sensors_named(listed: str) -> list[Sensor]:
    """`camera,depth` -> those sensors. Raises ValueError for one that no drive has."""
    known = {str(sensor): sensor for sensor in CARRIED}
    names = [name.strip() for name in listed.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ValueError(f"await_subscribers: no sensor {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names]


def _period_s(source: FrameSource) -> float:
    """Between two frames; raises ValueError where there is only one."""
    if len(source) < 2:
        raise ValueError(f"a drive of {len(source)} frames has no rate: it needs two at least")
    return (source.frame(1).stamp_ns - source.frame(0).stamp_ns) / 1e9


def main() -> None:
    """Entry point `simulated_vehicle`."""
    bad_input = (ValueError, RecordingError, InvalidParameterTypeException)
    sys.exit(run(SimulatedVehicleNode, bad_input=bad_input, fatal=(RenderError, RecordingError)))


if __name__ == "__main__":
    main()
