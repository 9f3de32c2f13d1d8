"""What each fault of a sensor costs a student in mIoU, beside what going without that sensor would cost.

Raw frames of simulated drives in worlds of the split `test` are broken by the functions of `anyseg inject`, and take
the robot's own path. Extrinsics that are off are a LiDAR that has turned or moved while the calibration stays; one that
is late by 20 ms shows the scene from where the vehicle was then, 0.2 m behind at 36 km/h.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from anyseg_core.injection import degrade
from anyseg_core.processes import available_cores
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame, in_order
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.terminal import progress_bar
from anyseg_ros.bench.accuracy import DRIVES, held_out_drives
from anyseg_ros.bench.results import Benchmark

_SEED = 17


class BrokenSensor(NamedTuple):
    """One fault as it is scored, at one strength."""

    sensor: Sensor
    kind: str
    parameter: str
    value: float

    def __str__(self) -> str:
        return f"{self.sensor}: {self.kind} {self.parameter}={self.value:g}"

    def of(self, frame: SensorFrame, number: int) -> SensorFrame:
        """The frame broken, in the same way for every student; a fixed pattern is the same in all frames."""
        random = np.random.default_rng([_SEED, 0 if self.kind == "dead_rows" else number])
        return degrade(frame, self.kind, random, **{self.parameter: self.value})


CAMERA, DEPTH, EVENT, LIDAR = Sensor.CAMERA, Sensor.DEPTH, Sensor.EVENT, Sensor.LIDAR
SCORED = (
    BrokenSensor(CAMERA, "blur", "sigma_px", 4.0),
    BrokenSensor(CAMERA, "noise", "sigma", 0.1),
    BrokenSensor(CAMERA, "dead_rows", "fraction", 0.3),
    BrokenSensor(DEPTH, "noise", "sigma", 0.1),
    BrokenSensor(DEPTH, "dead_rows", "fraction", 0.3),
    BrokenSensor(EVENT, "event_flood", "events_per_pixel", 1.0),
    BrokenSensor(EVENT, "dead_rows", "fraction", 0.3),
    BrokenSensor(LIDAR, "noise", "sigma", 0.05),
    BrokenSensor(LIDAR, "dead_rows", "fraction", 0.3),
    BrokenSensor(LIDAR, "lidar_yaw", "angle_deg", 1.0),
    BrokenSensor(LIDAR, "lidar_yaw", "angle_deg", 2.0),
    BrokenSensor(LIDAR, "lidar_pitch", "angle_deg", 1.0),
    BrokenSensor(LIDAR, "lidar_pitch", "angle_deg", 2.0),
    BrokenSensor(LIDAR, "lidar_moved", "forward_m", 0.2),
)


@dataclass(frozen=True)
class FaultScore:
    """mIoU in percent over the same frames."""

    everything: float
    """All sensors, one of them broken."""
    alone: float
    """The broken sensor alone."""
    clean_alone: float
    without: float
    """All others: where this is more than `everything`, the student is better off without the broken sensor."""


@dataclass(frozen=True)
class StudentScore:
    """Of one student: with all sensors well, and by fault."""

    clean: float
    faults: Mapping[BrokenSensor, FaultScore]


def score(segmenter: Segmenter, drives: Sequence[RecordedDrive]) -> StudentScore:
    """Every fault of `SCORED` whose sensor the student has."""
    everything = in_order(segmenter.modalities)
    scored = [fault for fault in SCORED if fault.sensor in everything]
    totals: dict[object, ConfusionMatrix] = {}
    instants = [(drive.rig(), instant) for drive in drives for instant in drive]
    for number, (rig, instant) in enumerate(instants):
        frames = {sensor: instant.frames[sensor] for sensor in everything}
        for name, chosen in _ways(frames, scored, number):
            labels = segmenter.segment(chosen, rig).resized_labels(*instant.labels.shape)
            totals.setdefault(name, ConfusionMatrix(len(segmenter.card.classes))).add(instant.labels, labels)
    percent = {name: 100.0 * matrix.miou() for name, matrix in totals.items()}
    of_fault = {
        fault: FaultScore(
            percent[fault, "all"],
            percent[fault, "alone"],
            percent[fault.sensor, "alone"],
            percent.get((fault.sensor, "without"), float("nan")),
        )
        for fault in scored
    }
    return StudentScore(percent["clean"], of_fault)


def _ways(
    frames: Mapping[Sensor, SensorFrame], scored: Sequence[BrokenSensor], number: int
) -> Iterator[tuple[object, dict[Sensor, SensorFrame]]]:
    """The frames of an instant, in every combination that is segmented."""
    yield "clean", dict(frames)
    for sensor in dict.fromkeys(fault.sensor for fault in scored):
        yield (sensor, "alone"), {sensor: frames[sensor]}
        if len(frames) > 1:
            yield (sensor, "without"), {other: frame for other, frame in frames.items() if other is not sensor}
    for fault in scored:
        broken = fault.of(frames[fault.sensor], number)
        yield (fault, "all"), {**frames, fault.sensor: broken}
        yield (fault, "alone"), {fault.sensor: broken}


def run(console: Console, json_path: Path | None, students: Sequence[str], out: Path, drives: int = DRIVES) -> None:
    """Score the students on the same broken frames, print a table each, write the figures where asked.

    Raises StudentError, EngineError; RecordingError or WorkerError where the drives cannot be rendered.
    """
    with progress_bar("drives") as progress:
        recorded = held_out_drives(out, available_cores(), progress, drives)
    frames = sum(len(drive) for drive in recorded)
    result = Benchmark("Robustness", notes=[f"{frames} frames of {len(recorded)} drives in worlds of the split test"])
    for student in students:
        segmenter = Segmenter.open(student)
        found = score(segmenter, recorded)
        segmenter.close()
        console.print(table(student, found))
        record(result, student, found)
    result.report(console, json_path)


def table(student: str, found: StudentScore) -> Table:
    """Fault by fault, with what it costs in points."""
    made = Table(
        "fault",
        f"all sensors (well: {found.clean:.1f})",
        "without the sensor",
        "the sensor alone",
        "well",
        title=f"{student}: mIoU, %",
        title_justify="left",
    )
    for fault, entry in found.faults.items():
        lost = f"{entry.everything:.1f} ({entry.everything - found.clean:+.1f})"
        alone = f"{entry.alone:.1f} ({entry.alone - entry.clean_alone:+.1f})"
        made.add_row(str(fault), lost, f"{entry.without:.1f}", alone, f"{entry.clean_alone:.1f}")
    return made


def record(result: Benchmark, student: str, found: StudentScore) -> None:
    """Enter the figures, and the mean over the faults, which is what two students are compared by."""
    result.add(f"{student}: all sensors well", "mIoU, %", [found.clean])
    for fault, entry in found.faults.items():
        result.add(f"{student}: {fault}, all sensors", "mIoU, %", [entry.everything], listed=False)
        result.add(f"{student}: {fault}, alone", "mIoU, %", [entry.alone], listed=False)
    if found.faults:
        means = [(entry.everything, entry.alone) for entry in found.faults.values()]
        everything, alone = np.mean(means, axis=0)
        result.add(f"{student}: mean over the faults, all sensors", "mIoU, %", [everything])
        result.add(f"{student}: mean over the faults, the broken sensor alone", "mIoU, %", [alone])
