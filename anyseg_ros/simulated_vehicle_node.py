"""simulated_vehicle: publishes a vehicle's sensors in real time, from a recorded drive or rendered live.

All frames of an instant carry one stamp, the clock's time when they are published. With the parameter `faults` a
schedule breaks the sensors on the way out, as it would in the drivers.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from rclpy.node import Node
from std_msgs.msg import Header

from anyseg_core.runtime.faults import FaultInjector, FaultSchedule
from anyseg_core.runtime.modality import Modality
from anyseg_core.runtime.projection import Rig
from anyseg_core.sim.drive import Drive, DriveConfig, DriveFrame
from anyseg_core.sim.recorded_drive import RecordedDrive, RecordingError
from anyseg_core.sim.weather import Weather
from anyseg_ros.node_process import run
from anyseg_ros.status_messages import time_message
from anyseg_ros.vehicle_publisher import VehiclePublisher

NAME = "simulated_vehicle"
SLOW_SHARE = 0.8
"""Below this share of the drive's rate a warning says so."""


class FrameSource(Protocol):
    """A drive, rendered or recorded."""

    def __len__(self) -> int: ...

    def rig(self) -> Rig: ...

    def frame(self, index: int) -> DriveFrame: ...


class SimulatedVehicleNode(Node):
    """Publishes one instant of the drive a tick.

    Raises ValueError (FaultScheduleError, an unknown weather ...) or RecordingError for parameters that cannot be used.
    """

    def __init__(self, source: FrameSource | None = None, **node_options: Any) -> None:
        """Drive through `source`, else through what the parameters say."""
        super().__init__(NAME, **node_options)
        self._declare_parameters()
        self._source = self._parameter_source() if source is None else source
        faults = self.get_parameter("faults").value
        self._injector = FaultInjector(FaultSchedule.load(faults) if faults else FaultSchedule())
        self._vehicle = VehiclePublisher(self, self._source.rig())
        self._indices = self._frame_indices()
        self._start_ns: int | None = None
        self._published = 0
        self._next: DriveFrame | None = self._source.frame(next(self._indices))
        self._period_s = self._drive_period_s()
        self.create_timer(self._period_s, self._on_tick)
        self.get_logger().info(f"driving: {len(self._source)} frames at {1 / self._period_s:.1f} Hz")

    def _declare_parameters(self) -> None:
        self.declare_parameter("recording", "")  # a recorded drive; without it the drive is rendered live
        self.declare_parameter("faults", "")  # a fault schedule (YAML)
        self.declare_parameter("loop", True)  # from the end back to the start
        self.declare_parameter(
            "await_subscribers", False
        )  # start when every topic has one, so that none misses a frame
        self.declare_parameter("seed", 0)
        self.declare_parameter("weather", str(Weather.SUN))
        self.declare_parameter("duration_s", DriveConfig.duration_s)
        self.declare_parameter("rate_hz", DriveConfig.rate_hz)

    def _parameter_source(self) -> FrameSource:
        values = {name: parameter.value for name, parameter in self.get_parameters_by_prefix("").items()}
        if values["recording"]:
            return RecordedDrive.load(Path(values["recording"]))
        weather = Weather.parse(values["weather"])
        return Drive(DriveConfig(values["seed"], weather, float(values["duration_s"]), float(values["rate_hz"])))

    def _frame_indices(self) -> Iterator[int]:
        indices = range(len(self._source))
        return itertools.cycle(indices) if self.get_parameter("loop").value else iter(indices)

    def _drive_period_s(self) -> float:
        if len(self._source) < 2:
            raise ValueError(f"a drive of {len(self._source)} frames has no rate: it needs two at least")
        return (self._source.frame(1).stamp_ns - self._source.frame(0).stamp_ns) / 1e9

    def _on_tick(self) -> None:
        """Publish the frame that is ready, then make the next one ready."""
        if self._next is None or not self._may_start():
            return
        now_ns = self.get_clock().now().nanoseconds
        self._start_ns = now_ns if self._start_ns is None else self._start_ns
        self._publish(self._next, now_ns, (now_ns - self._start_ns) / 1e9)
        index = next(self._indices, None)
        self._next = None if index is None else self._source.frame(index)

    def _may_start(self) -> bool:
        """Once under way it does not stop again."""
        if self._start_ns is not None or not self.get_parameter("await_subscribers").value:
            return True
        return self._vehicle.is_heard()

    def _publish(self, instant: DriveFrame, now_ns: int, elapsed_s: float) -> None:
        frame_id = instant.frames[Modality.CAMERA].frame_id
        self._vehicle.publish_labels(instant.labels, Header(stamp=time_message(now_ns), frame_id=frame_id))
        for frame in instant.frames.values():
            for delivered in self._injector.apply(replace(frame, stamp_ns=now_ns), elapsed_s):
                self._vehicle.publish(delivered)
        self._published += 1
        if elapsed_s > 5.0 and self._published < SLOW_SHARE * elapsed_s / self._period_s:
            self.get_logger().warning(
                f"rendering is slower than real time: {self._published / elapsed_s:.1f} Hz instead of "
                f"{1 / self._period_s:.1f} Hz; record the drive first and set `recording`",
                once=True,
            )


def main() -> None:
    """Entry point `simulated_vehicle`."""
    sys.exit(run(SimulatedVehicleNode, bad_input=(ValueError, RecordingError)))


if __name__ == "__main__":
    main()
