"""Offline replay: what it costs besides the network, and whether its memory depends on the bag's length."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from anyseg_core.processes import available_cores
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.sim.bag_writer import write_bag
from anyseg_core.sim.drive import DriveConfig, DriveFrame
from anyseg_core.sim.drive_cache import is_recorded, recording_path, render_to
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.sim.weather import Weather
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.replay.offline import ReplayOptions, replay

DRIVE = DriveConfig(4_000_001, Weather.CLOUD, duration_s=3.0)
LONGER = 4
"""How many times the long bag is as long as the short one."""
OVERHEAD_BAR = 15.0
"""Percent of the wall time."""
MEMORY_BAR_MB = 20.0
"""The allocator's own swings are about half of it."""
_PEAK = """
import sys
from pathlib import Path
from anyseg_ros.replay.offline import ReplayOptions, replay
replay(Path(sys.argv[1]), Path(sys.argv[2]), ReplayOptions(sys.argv[3]))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)
"""
"""Prints its own peak. Not ru_maxrss, in which a child begins with the memory of its parent."""


def run(console: Console, json_path: Path | None, student: str, out: Path, repeats: int = 3) -> bool:
    """Measure, print the table and write it where asked; returns whether the bars are met."""
    drive = _drive(out)
    bag, long_bag = _bag(out, drive, 1), _bag(out, drive, LONGER)
    bench = Benchmark(f"offline replay, {student}, four sensors at {DRIVE.width}x{DRIVE.height}, labels, one scenario")
    _measure_time(bench, bag, student, repeats)
    _measure_memory(bench, (bag, long_bag), student, out)
    return bench.report(console, json_path)


def _measure_time(bench: Benchmark, bag: Path, student: str, repeats: int) -> None:
    shares, engine, encoding, others = [], [], [], []
    segmenter = Segmenter.open(student)
    for _ in range(repeats):
        timings = replay(bag, None, ReplayOptions(student), segmenter=segmenter).timings
        shares.append(100.0 * (1.0 - timings.engine_s / timings.wall_s))
        engine.append(1e3 * timings.engine_s / timings.runs)
        encoding.append(1e3 * timings.encode_s / timings.runs)
        others.append(1e3 * (timings.wall_s - timings.engine_s - timings.encode_s) / timings.runs)
    segmenter.close()
    best = min(shares)  # other processes can only add to it
    bench.add("besides the engine, of wall time", "%", shares, f"<= {OVERHEAD_BAR:g}", best <= OVERHEAD_BAR)
    bench.add("engine", "ms/mask", engine)
    bench.add("encoding of the network's images", "ms/mask", encoding)
    bench.add("reading, health, scoring, records", "ms/mask", others)


def _measure_memory(bench: Benchmark, bags: tuple[Path, Path], student: str, out: Path) -> None:
    peaks = [_peak_mb(bag, out / f"peak_{bag.name}", student) for bag in bags]
    grown = peaks[1] - peaks[0]
    bench.add(f"peak memory, {DRIVE.duration_s:g} s", "MB", peaks[:1])
    bench.add(f"peak memory, {LONGER * DRIVE.duration_s:g} s", "MB", peaks[1:])
    bench.add("growth of it", "MB", [grown], f"<= {MEMORY_BAR_MB:g}", grown <= MEMORY_BAR_MB)


def _peak_mb(bag: Path, out: Path, student: str) -> float:
    """Of a process that does nothing else."""
    command = [sys.executable, "-c", _PEAK, str(bag), str(out), student]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _drive(out: Path) -> RecordedDrive:
    path = recording_path(DRIVE, out)
    if not is_recorded(path):
        render_to(out, DRIVE, available_cores())
    return RecordedDrive.load(path)


def _bag(out: Path, drive: RecordedDrive, laps: int) -> Path:
    """The drive, so many times one after the other."""
    folder = out / f"replay_{recording_path(DRIVE, out).stem}_{laps}"
    if not folder.is_dir():
        write_bag(folder, _laps(drive, laps), drive.rig())
    return folder


def _laps(drive: RecordedDrive, laps: int) -> Iterator[DriveFrame]:
    for lap in range(laps):
        for frame in drive:
            stamp_ns = frame.stamp_ns + round(lap * DRIVE.duration_s * 1e9)
            sensors = {m: replace(sensor, stamp_ns=stamp_ns) for m, sensor in frame.frames.items()}
            yield DriveFrame(stamp_ns, sensors, frame.labels)
