"""Does a mask get better without a poor sensor? mIoU by weather, and under limits on the camera's quality."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from anyseg_core.invocation import command_line, machine
from anyseg_core.processes import Progress
from anyseg_core.runtime.health.monitor import HealthConfig
from anyseg_core.runtime.health.quality import quality_of
from anyseg_core.runtime.health.statistics import statistics_of
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor, in_order, subset_name
from anyseg_core.sim.drive import DriveFrame
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.sim.weather import WEATHERS
from anyseg_ros.bench.accuracy import FRAME_STEP, FRAMES_PER_DRIVE, Subset, all_subsets, held_out_drives, score_instant
from anyseg_ros.pipeline.pipeline import SyncConfig

DRIVES = 20
"""Four in each of the five weathers; every drive has a world of its own, in which nothing was trained."""
LIMITS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.01)
"""Of the camera's quality: 0 never leaves it out, 1.01 always."""
ALL = "all"


@dataclass(frozen=True)
class ScoredFrame:
    """One instant: the quality of each modality, and how every subset of them did."""

    weather: str
    quality: Mapping[Sensor, float]
    matrices: Mapping[Subset, ConfusionMatrix]


def run(console: Console, json_path: Path | None, student: str, folder: Path, workers: int) -> None:
    """Score, print the tables, write them where asked. Raises StudentError, EngineError, RecordingError."""
    with console.status("rendering and scoring") as status:
        drives = held_out_drives(folder, workers, _telling(status, "rendered drives"), DRIVES)
        segmenter = Segmenter.open(student, threads=1)
        try:
            frames = score(segmenter, drives, _telling(status, "scored drives"))
        finally:
            segmenter.close()
    subsets, policies = by_subset(frames), by_limit(frames)
    console.print(_table(f"mIoU of {student} by weather", "sensors", {subset_name(s): v for s, v in subsets.items()}))
    console.print(_table(_policy_title(), "camera left out below", policies))
    console.print(_table("quality of each sensor (median)", "sensor", qualities(frames)))
    notes = f"{len(frames)} frames: {FRAMES_PER_DRIVE} of each of {DRIVES} drives, {FRAME_STEP / 10:g} s apart"
    console.print(f"{notes}\nmachine: {machine()}\ncommand: {command_line()}")
    if json_path:
        content = {"machine": machine(), "command": command_line(), "notes": [notes], "policies": policies}
        content |= {"subsets": {subset_name(s): v for s, v in subsets.items()}, "qualities": qualities(frames)}
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(content, indent=2) + "\n")


def score(segmenter: Segmenter, drives: Sequence[RecordedDrive], progress: Progress) -> list[ScoredFrame]:
    """Raw frames -> masks of the camera's size from every subset -> how they compare with the true labels."""
    subsets = all_subsets(in_order(segmenter.modalities))
    weathers = (str(WEATHERS[number % len(WEATHERS)]) for number in range(len(drives)))
    scored: list[ScoredFrame] = []
    for number, (weather, drive) in enumerate(zip(weathers, drives, strict=True)):
        scored += [_score(segmenter, weather, instant, drive, subsets) for instant in drive]
        progress(number + 1, len(drives))
    return scored


def _score(
    segmenter: Segmenter, weather: str, instant: DriveFrame, drive: RecordedDrive, subsets: Sequence[Subset]
) -> ScoredFrame:
    matrices = score_instant(segmenter, instant, drive.rig(), subsets)
    quality = {m: quality_of(statistics_of(frame), None).value for m, frame in instant.frames.items()}
    return ScoredFrame(weather, quality, matrices)


def by_subset(frames: Sequence[ScoredFrame]) -> dict[Subset, dict[str, float]]:
    """mIoU in percent of every subset in every weather, and over all."""
    subsets = list(frames[0].matrices)
    return {s: {w: _miou([f.matrices[s] for f in _of(frames, w)]) for w in _weathers(frames)} for s in subsets}


def by_limit(frames: Sequence[ScoredFrame]) -> dict[str, dict[str, float]]:
    """mean mIoU in percent over the sets of alive sensors with a camera among them, under each limit.

    The mean is over those sets from which the camera could be left out, and the one of all sensors counts as any.
    """
    sets = [s for s in frames[0].matrices if Sensor.CAMERA in s and len(s) > SyncConfig.keep_at_least]
    table: dict[str, dict[str, float]] = {}
    for limit in LIMITS:
        for name, alive in (("all alive", [max(sets, key=len)]), ("mean of the sets", sets)):
            row = {w: _policy_miou(_of(frames, w), alive, limit) for w in _weathers(frames)}
            table[f"{limit:.2f}, {name}"] = row
    return table


def qualities(frames: Sequence[ScoredFrame]) -> dict[str, dict[str, float]]:
    """Median quality of every sensor in every weather."""
    table: dict[str, dict[str, float]] = {}
    for modality in frames[0].quality:
        values = {w: sorted(f.quality[modality] for f in _of(frames, w)) for w in _weathers(frames)}
        table[str(modality)] = {weather: v[len(v) // 2] for weather, v in values.items()}
    return table


def _policy_miou(frames: Sequence[ScoredFrame], sets: Sequence[Subset], limit: float) -> float:
    scores = [_miou([f.matrices[_kept(alive, f, limit)] for f in frames]) for alive in sets]
    return sum(scores) / len(scores)


def _kept(alive: Subset, frame: ScoredFrame, limit: float) -> Subset:
    """What the pipeline makes the mask from where these are alive."""
    if frame.quality[Sensor.CAMERA] >= limit:
        return alive
    return tuple(m for m in alive if m is not Sensor.CAMERA)


def _weathers(frames: Sequence[ScoredFrame]) -> list[str]:
    return [*sorted({f.weather for f in frames}), ALL]


def _of(frames: Sequence[ScoredFrame], weather: str) -> list[ScoredFrame]:
    return [f for f in frames if weather in (f.weather, ALL)]


def _miou(matrices: Sequence[ConfusionMatrix]) -> float:
    total = ConfusionMatrix(matrices[0].num_classes)
    for matrix in matrices:
        total.merge(matrix)
    return 100.0 * total.miou()


def _policy_title() -> str:
    shipped = HealthConfig.min_quality
    others = SyncConfig.keep_at_least
    return f"mIoU when the camera is left out below a quality while {others} others remain (shipped: {shipped:.2f})"


def _table(title: str, first: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    columns = list(dict.fromkeys(chain.from_iterable(rows.values())))
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[c]:.1f}" if row[c] > 1 else f"{row[c]:.2f}" for c in columns))
    return table


def _telling(status: object, what: str) -> Progress:
    def tell(done: int, count: int) -> None:
        status.update(f"{what}: {done} of {count}")  # type: ignore[attr-defined]

    return tell
