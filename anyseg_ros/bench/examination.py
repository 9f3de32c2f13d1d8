"""What it costs to compare the sensors with each other, beside the engine: processor time for each camera frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

from anyseg_core.runtime.cross_examination.examiner import CrossExaminer
from anyseg_core.runtime.geometry.projection import Rig, Twist
from anyseg_core.runtime.health.thresholds import DEFAULT_CHECKS
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.sim.drive import DriveConfig, lidar_odometry
from anyseg_core.sim.drive_cache import is_recorded, recording_path, render_to
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.sim.weather import Weather
from anyseg_core.terminal import progress_bar
from anyseg_ros.bench.results import Benchmark

DRIVE = DriveConfig(7_000_001, Weather.CLOUD, duration_s=20.0)
"""All four sensors at their default rates; as many looks as camera frames."""
WARM_UP = 20
"""Frames that are not counted: what is looked up once, and the memory of some seconds."""
MOST_MS, MOST_SHARE = 2.0, 5.0
"""Bars: mean processor time of a frame, and its share of the engine's in percent."""

Moment = tuple[Mapping[Sensor, SensorFrame], Twist]


def run(console: Console, json_path: Path | None, student: str, out: Path, workers: int) -> bool:
    """Measure, print, write where asked; returns whether both bars were met.

    Raises RecordingError, StudentError, EngineError or WorkerError.
    """
    if not is_recorded(recording_path(DRIVE, out)):
        with progress_bar("rendering") as progress:
            render_to(out, DRIVE, workers, progress)
    recording = RecordedDrive.load(recording_path(DRIVE, out))
    twist_at, rig = lidar_odometry(DRIVE), recording.rig()
    moments = [(each.frames, twist_at(number / DRIVE.rate_hz)) for number, each in enumerate(recording)]
    looks_ms = examination_ms(moments, rig)[WARM_UP:]
    segmenter = Segmenter.open(student, threads=1)
    try:
        engine_ms = [_milliseconds(time.process_time, lambda f=f: segmenter.segment(f, rig)) for f, _ in moments[::5]]
    finally:
        segmenter.close()
    return _result(looks_ms, engine_ms[2:]).report(console, json_path)


def examination_ms(moments: Iterable[Moment], rig: Rig) -> list[float]:
    """Processor time of this thread for a look at each moment, by the shipped limits."""
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault])

    def look(frames: Mapping[Sensor, SensorFrame], twist: Twist) -> None:
        examiner.examine(frames, rig, twist, next(iter(frames.values())).stamp_ns)

    return [_milliseconds(time.thread_time, lambda f=f, t=t: look(f, t)) for f, t in moments]


def _milliseconds(clock: Callable[[], float], work: Callable[[], object]) -> float:
    began = clock()
    work()
    return 1e3 * (clock() - began)


def _result(looks_ms: list[float], engine_ms: list[float]) -> Benchmark:
    result = Benchmark("Sensors compared with each other")
    mean = float(np.mean(looks_ms))
    share = 100.0 * mean / float(np.mean(engine_ms))
    result.add("of each camera frame, processor time", "ms", looks_ms)
    result.add("the same, mean", "ms", [mean], f"<= {MOST_MS:g}", mean <= MOST_MS)
    result.add("the engine on all four sensors, processor time", "ms", engine_ms)
    result.add("share of the engine's, mean", "%", [share], f"<= {MOST_SHARE:g}", share <= MOST_SHARE)
    result.notes.append(
        f"{len(looks_ms)} frames of a simulated drive, 640x480, four sensors at {DRIVE.rate_hz:g} Hz, a look for each. "
        "Processor time does not count what others take, but caches and cores that are shared make it more."
    )
    return result
