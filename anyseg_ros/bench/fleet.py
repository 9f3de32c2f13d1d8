"""Many bags over 1, 2 and 4 workers of a local Ray, beside one process without Ray; the sums must be equal."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from rich.console import Console

from anyseg_core.processes import available_cores
from anyseg_core.sim import Drive, DriveConfig, Weather
from anyseg_core.sim.bag_writer import write_bag
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.replay.fleet import FleetOptions, FleetResult, replay_fleet, replay_serial
from anyseg_ros.replay.offline import ReplayOptions

WORKERS = (1, 2, 4)
CONFIG = DriveConfig(seed=11, weather=Weather.CLOUD, duration_s=10.0, rate_hz=5.0, width=640, height=480)


def run(console: Console, json_path: Path | None, student: str, bags: int, out: Path) -> bool:
    """Replays `bags` copies of one drive each time; returns whether every sum was that of the serial run."""
    paths = _bags(out / "bags", bags)
    settings = ReplayOptions(student=student)
    bench = Benchmark(f"{bags} bags of {CONFIG.duration_s:g} s, four sensors at {CONFIG.rate_hz:g} Hz, one scenario")
    serial = replay_serial(FleetOptions(paths, out / "serial", settings), console)
    bench.add("serial, no Ray: wall", "s", [serial.wall_s])
    bench.add("serial: processor time per bag", "s", [bag.cpu_seconds for bag in serial.bags])
    stored = [sum(file.stat().st_size for file in folder.iterdir()) / 1e3 for folder in (out / "serial").iterdir()]
    bench.add("kept per bag", "kB", stored)
    for workers in WORKERS:
        result = replay_fleet(FleetOptions(paths, out / f"workers_{workers}", settings, workers), console)
        equal = _is_equal(result, serial)
        bench.add(f"{workers} workers: wall, Ray's start included", "s", [result.wall_s])
        bench.add(f"{workers} workers: speed-up over serial", "x", [serial.wall_s / result.wall_s])
        bench.add(f"{workers} workers: sums equal", "1 = yes", [float(equal)], "equal", equal)
    cores = available_cores()
    if max(WORKERS) > cores:
        bench.notes.append(f"this machine has {cores} cores: more workers than that cannot be faster")
    bench.notes.append("each worker's engine has one thread, as the serial run's")
    return bench.report(console, json_path)


def _bags(folder: Path, count: int) -> tuple[Path, ...]:
    """The drive, rendered once, under `count` names."""
    folder.mkdir(parents=True, exist_ok=True)
    first = folder / "drive_0.mcap"
    if not first.is_file():
        rendering = folder / "rendering"
        shutil.rmtree(rendering, ignore_errors=True)
        drive = Drive(CONFIG)
        write_bag(rendering, (drive.frame(i) for i in range(len(drive))), drive.rig())
        next(rendering.glob("*.mcap")).replace(first)
        shutil.rmtree(rendering)
    paths = [folder / f"drive_{i}.mcap" for i in range(count)]
    for path in paths[1:]:
        if not path.is_file():
            path.hardlink_to(first)
    return tuple(paths)


def _is_equal(result: FleetResult, expected: FleetResult) -> bool:
    """Whether all integers are the same; measured times never are."""
    if list(result.scores) != list(expected.scores) or result.failed or expected.failed:
        return False
    return all(
        np.array_equal(score.confusion.counts, other.confusion.counts)
        and (score.masks, score.scored, score.failures) == (other.masks, other.scored, other.failures)
        for score, other in zip(result.scores.values(), expected.scores.values(), strict=True)
    )
