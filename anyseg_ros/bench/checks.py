"""Cost of all checks and of the quality, beside the same on every pixel; and how far clean frames stay away."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from anyseg_core.runtime.health.checks import failed_checks
from anyseg_core.runtime.health.history import History, UsualProfile
from anyseg_core.runtime.health.monitor import HealthConfig
from anyseg_core.runtime.health.quality import quality_of
from anyseg_core.runtime.health.statistics import FULL, EventStatistics, Sampling, statistics_of
from anyseg_core.runtime.health.thresholds import DEFAULT_CHECKS, Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.sim.drive import Drive, DriveConfig
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.sim.weather import Weather
from anyseg_ros.bench.accuracy import held_out_drives
from anyseg_ros.bench.results import Benchmark

WIDTH, HEIGHT = 1280, 720
SEED = 5_000_000
FRAMES = 4
ROUNDS = 12
BAR_MS = 3.0
"""For one frame of every sensor, on one core."""
PERIOD_NS = HealthConfig().period_ns

Limit = Callable[[Any], float]
LIMITS: Mapping[Fault, tuple[Sensor, bool, Limit]] = MappingProxyType(
    {
        Fault.DARK: (Sensor.CAMERA, False, lambda s: s.highlight),
        Fault.SATURATED: (Sensor.CAMERA, True, lambda s: s.saturated),
        Fault.NOISY: (Sensor.CAMERA, True, lambda s: s.noise / 255),
        Fault.INVALID_DEPTH: (Sensor.DEPTH, True, lambda s: s.invalid),
        Fault.EVENT_FLOOD: (Sensor.EVENT, True, lambda s: s.per_pixel * 1e9 / PERIOD_NS),
    }
)
"""Fault -> whose, whether the limit is an upper one, and what it limits; those that need no history."""


def run(console: Console, json_path: Path | None, folder: Path, workers: int) -> bool:
    """Measure, print and write where asked; returns whether the bar was met. Raises RecordingError, WorkerError."""
    cv2.setNumThreads(1)
    bench = Benchmark(f"Checks and quality of every sensor, images {WIDTH}x{HEIGHT}, one core")
    with console.status("rendering"):
        frames = rendered()
        drives = held_out_drives(folder, workers, lambda _done, _count: None)
    for name, sampling in (("decimated", Sampling()), ("every pixel", FULL)):
        add_cost(bench, name, frames, sampling)
    naive, ours = (figure_of(bench, f"all four, {name}") for name in ("every pixel", "decimated"))
    bench.notes.append(f"decimated costs {ours / naive:.1%} of every pixel and point")
    add_clean(bench, drives)
    return bench.report(console, json_path)


def rendered() -> dict[Sensor, list[SensorFrame]]:
    """Successive frames of a simulated drive."""
    drive = Drive(DriveConfig(SEED, Weather.CLOUD, duration_s=FRAMES / 10, width=WIDTH, height=HEIGHT))
    instants = [drive.frame(index).frames for index in range(FRAMES)]
    return {modality: [frames[modality] for frames in instants] for modality in DEFAULT_SENSORS}


def add_cost(bench: Benchmark, name: str, frames: Mapping[Sensor, list[SensorFrame]], sampling: Sampling) -> None:
    """Processor time of a frame's checks and quality, sensor by sensor and together, in ms."""
    total = np.zeros((ROUNDS if sampling is not FULL else 2) * (FRAMES - 1))
    for modality in DEFAULT_SENSORS:
        samples = cost_ms(frames[modality], sampling, len(total) // (FRAMES - 1))
        count = f", {len(frames[modality][0].data)} points" if modality is Sensor.LIDAR else ""
        bench.add(f"{modality}{count}, {name}", "ms", samples)
        total += samples
    bar = f"p50 <= {BAR_MS:g}" if sampling is not FULL else ""
    met = bool(np.median(total) <= BAR_MS) if bar else None
    bench.add(f"all four, {name}", "ms", total.tolist(), bar, met)


def cost_ms(frames: list[SensorFrame], sampling: Sampling, rounds: int) -> list[float]:
    """Of each frame but the first, again and again."""
    config, usual = HealthConfig(), UsualProfile()
    samples = []
    for index in range(1 + rounds * (FRAMES - 1) + UsualProfile.FIRST_FRAMES):
        previous, frame = (frames[k % (FRAMES - 1) + d] for k, d in ((index, 0), (index, 1)))
        started = time.thread_time()
        statistics = statistics_of(frame, sampling)
        history = History(statistics, previous, frame.stamp_ns, float(PERIOD_NS), PERIOD_NS, usual.value)
        distrust, untimely = failed_checks(frame, history, config.check)
        failed = distrust or untimely
        quality_of(statistics, usual.value)
        if not isinstance(statistics, EventStatistics):
            usual.learn(statistics.profile)
        if sampling is FULL:  # what `frozen` spares itself where a few rows differ
            np.array_equal(frame.data, previous.data, equal_nan=frame.data.dtype.kind == "f")
        samples.append(1e3 * (time.thread_time() - started))
        if failed is not None:
            raise AssertionError(f"a clean {frame.modality} frame was called {failed[0]}: {failed[1]}")
    return samples[-rounds * (FRAMES - 1) :]


def add_clean(bench: Benchmark, drives: list[RecordedDrive]) -> None:
    """What each limit limits, over clean frames of all weathers."""
    for fault, (modality, is_upper, value_of) in LIMITS.items():
        values = [value_of(statistics_of(instant.frames[modality])) for drive in drives for instant in drive]
        threshold = DEFAULT_CHECKS[fault].threshold
        met = max(values) < threshold if is_upper else min(values) > threshold
        bar = f"max < {threshold:g}" if is_upper else f"min {min(values):g} > {threshold:g}"
        bench.add(f"clean {modality}: {fault}", "", values, bar, met)


def figure_of(bench: Benchmark, name: str) -> float:
    """Median of a figure."""
    return next(figure for figure in bench.figures if figure.name == name).percentile(50)
