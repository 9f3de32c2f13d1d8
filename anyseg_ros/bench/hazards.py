"""Sensors that are alive and wrong, on simulated drives: found how soon, who is blamed, and alarms when all is well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, Injector
from anyseg_core.processes import Progress, map_over_processes
from anyseg_core.runtime.geometry.projection import Rig, Twist
from anyseg_core.runtime.health.monitor import ModalityStatus, State
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_core.sim.drive import DriveConfig, DriveFrame
from anyseg_core.sim.drive_cache import is_recorded, recording_path, render_to
from anyseg_core.sim.motion import EgoMotion, ego_motion
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.sim.weather import WEATHERS, Weather
from anyseg_core.terminal import progress_bar
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.pipeline import Pipeline

FIRST_SEED = 7_000_000
DRIVE_S, RATE_HZ = 12.0, 10.0
WIDTH, HEIGHT = 320, 240
SPEED_MPS = 8.0
START_NS = 1_800_000_000 * NS_PER_S
BROKEN_FROM_S, BROKEN_S = 5.0, 4.0
IN_TIME_S = 3.0
"""A hazard with geometric evidence must be found within."""
LATENCY_NS = 5 * NS_PER_MS
HAZARDS: tuple[tuple[str, Sensor], ...] = tuple(
    (name, sensor)
    for name, kind in list(INJECTION_KINDS.items())
    if set(kind.expected)
    & {Fault.INCONSISTENT_GEOMETRY, Fault.INCONSISTENT_CONTENT, Fault.WRONG_SCALE, Fault.NOT_MOVING, Fault.TIME_OFFSET}
    for sensor in kind.modalities
)
"""Every kind that the other sensors are to find, with each sensor that can have it."""


@dataclass(frozen=True)
class Trial:
    """One hazard (none: a clean drive) on one drive with some sensors."""

    config: DriveConfig
    sensors: tuple[Sensor, ...]
    kind: str = ""
    sensor: Sensor | None = None


@dataclass(frozen=True)
class Outcome:
    """What was said while the hazard was on; of a clean drive, ever."""

    trial: Trial
    found_s: float | None
    """From the hazard's begin to the first dispute about the sensor, None where there is none."""
    blamed: frozenset[Sensor]
    """Who was blamed alone."""
    undecided: bool
    """Whether two were in dispute and nobody was blamed."""
    alarms: int
    """Disputes that began while no hazard was on."""


def drives() -> tuple[DriveConfig, ...]:
    """One of each weather, in which the vehicle does not stop."""
    return tuple(_config(place, str(weather)) for place, weather in enumerate(WEATHERS))


def _config(place: int, weather: str) -> DriveConfig:
    seed = FIRST_SEED + 100 * place
    while any(stop < DRIVE_S for stop in ego_motion(seed, DRIVE_S, SPEED_MPS).stop_times_s):
        seed += 1
    return DriveConfig(seed, Weather(weather), DRIVE_S, RATE_HZ, WIDTH, HEIGHT, speed_mps=SPEED_MPS)


def run(
    console: Console,
    json_path: Path | None,
    *,
    out: Path,
    weathers: Sequence[str] = (),
    sizes: Sequence[int] = (4, 3, 2),
    workers: int = 1,
) -> bool:
    """Play, print, write where asked; returns whether every bar was met.

    Args:
        weathers: those whose drive is played; none: all.
        sizes: numbers of sensors that are alive: 4, 3, 2.

    Raises ValueError for an unknown weather or size, OSError, RecordingError or WorkerError.
    """
    chosen = [config for config in drives() if not weathers or str(config.weather) in weathers]
    if len(chosen) < len(weathers) or not set(sizes) <= {2, 3, 4}:
        raise ValueError(f"weathers {', '.join(weathers)} or sizes {sizes}: one of them is not known")
    with progress_bar("rendering the drives") as progress:
        _render_missing(chosen, out, workers, progress)
    trials = [(trial, out) for config in chosen for trial in trials_of(config, sizes)]
    with progress_bar("hazards", len(trials)) as progress:
        outcomes = list(map_over_processes(play, trials, workers, progress))
    console.print(table_of(outcomes))
    return _judged(outcomes).report(console, json_path)


def trials_of(config: DriveConfig, sizes: Sequence[int]) -> list[Trial]:
    """Every hazard of every sensor with every set of that many sensors, and each set without one."""
    sets = [sensors for size in sizes for sensors in combinations(DEFAULT_SENSORS, size)]
    clean = [Trial(config, sensors) for sensors in sets]
    return clean + [Trial(config, s, kind, sensor) for s in sets for kind, sensor in HAZARDS if sensor in s]


def _render_missing(configs: Sequence[DriveConfig], out: Path, workers: int, progress: Progress) -> None:
    missing = [config for config in configs if not is_recorded(recording_path(config, out))]
    for number, config in enumerate(missing):
        render_to(out, config, workers)
        progress(number + 1, len(missing))


# --- one drive -------------------------------------------------------------------------------------------------------


def play(job: tuple[Trial, Path]) -> Outcome:
    """One trial in simulated time, with the shipped parameters."""
    trial, out = job
    moments = _moments(trial, *_frames_of(recording_path(trial.config, out)))
    begin, end = BROKEN_FROM_S, BROKEN_FROM_S + BROKEN_S
    during = [(at_s - begin, d) for at_s, d in moments if begin <= at_s <= end] if trial.sensor else []
    found = [(after_s, d) for after_s, d in during if trial.sensor in d]
    accused = [{s for s, is_blamed in d.items() if is_blamed} for _, d in during if d]
    outside = [bool(d) for at_s, d in moments if trial.sensor is None or at_s < begin]
    return Outcome(
        trial,
        found[0][0] if found else None,
        frozenset(set.union(*accused)) if accused else frozenset(),
        bool(found) and not any(accused),
        sum(now and not before for before, now in zip([False, *outside], outside, strict=False)),
    )


@lru_cache(maxsize=1)
def _frames_of(path: Path) -> tuple[Sequence[DriveFrame], Rig]:
    """A process unpacks a drive once, not for each of its trials."""
    recording = RecordedDrive.load(path)
    return list(recording), recording.rig()


Disputes = Mapping[Sensor, bool]
"""Sensors in dispute, and whether they are blamed; one that its own checks have failed is."""


def _moments(trial: Trial, frames: Sequence[DriveFrame], rig: Rig) -> list[tuple[float, Disputes]]:
    """Seconds and disputes after each frame."""
    parameters = Parameters()
    pipeline = Pipeline(parameters.health(trial.sensors), parameters.sync, START_NS)
    pipeline.set_rig(rig)
    injector, ego = Injector(_schedule(trial)), ego_motion(trial.config.seed, DRIVE_S, SPEED_MPS)
    moments: list[tuple[float, Disputes]] = []
    for number, moment in enumerate(frames):
        at_s = number / RATE_HZ
        now_ns = START_NS + round(at_s * NS_PER_S)
        pipeline.on_motion(now_ns, _twist(ego, at_s))
        for sensor in trial.sensors:
            for frame in injector.apply(_fresh(moment.frames[sensor], now_ns), at_s + 1e-6):
                pipeline.on_frame(frame, now_ns + LATENCY_NS)
        if (made := pipeline.poll(now_ns + 2 * LATENCY_NS)) is not None:
            pipeline.examine(made)
        moments.append((at_s, _disputes(pipeline.statuses(now_ns + 3 * LATENCY_NS))))
    return moments


def _disputes(statuses: Sequence[ModalityStatus]) -> Disputes:
    disputed = {s.modality: s.details["dispute_blamed"] == "true" for s in statuses if s.state is State.DISPUTED}
    return disputed | {s.modality: True for s in statuses if s.state is State.FAILED}


def _schedule(trial: Trial) -> InjectionSchedule:
    if trial.sensor is None:
        return InjectionSchedule()
    entry = {"modality": str(trial.sensor), "kind": trial.kind, "start_s": BROKEN_FROM_S, "duration_s": BROKEN_S}
    return InjectionSchedule.parse({"injections": [entry]})


def _twist(ego: EgoMotion, at_s: float) -> Twist:
    return Twist(np.array([ego.speed_at(at_s), 0.0, 0.0]), np.zeros(3))


def _fresh(frame: SensorFrame, stamp_ns: int) -> SensorFrame:
    return replace(frame, stamp_ns=stamp_ns)


# --- what came of it -------------------------------------------------------------------------------------------------


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """A line for each hazard of each sensor, over drives and sets."""
    table = Table(title="Hazards: found and blamed", title_justify="left")
    for column in (
        "hazard",
        "sensor",
        "sensors alive",
        "n",
        "found in 3 s",
        "after, s",
        "blame right",
        "undecided",
        "wrong",
    ):
        table.add_column(column)
    for (kind, sensor, size), group in _groups(outcomes).items():
        found = [o for o in group if o.found_s is not None]
        seconds = f"{np.median([o.found_s for o in found if o.found_s is not None]):.1f}" if found else "-"
        table.add_row(
            kind, sensor, str(size), str(len(group)), _share(map(_in_time, group)), seconds,
            _share(o.blamed == {o.trial.sensor} for o in group), _share(o.undecided for o in group),
            _share(bool(o.blamed - {o.trial.sensor}) for o in group),
        )  # fmt: skip
    return table


def _groups(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, int], list[Outcome]]:
    groups: dict[tuple[str, str, int], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.trial.sensor is not None:
            key = outcome.trial.kind, str(outcome.trial.sensor), len(outcome.trial.sensors)
            groups.setdefault(key, []).append(outcome)
    return groups


def _in_time(outcome: Outcome) -> bool:
    return outcome.found_s is not None and outcome.found_s <= IN_TIME_S


def _share(values: Iterable[bool]) -> str:
    return f"{_percent(values):.0f} %"


def _percent(values: Iterable[bool]) -> float:
    counted = list(values)
    return 100.0 * sum(counted) / max(len(counted), 1)


def _judged(outcomes: Sequence[Outcome]) -> Benchmark:
    result = Benchmark("Sensors that are alive and wrong")
    broken = [o for o in outcomes if o.trial.sensor is not None]
    for size in sorted({len(o.trial.sensors) for o in broken}, reverse=True):
        _add_detection(result, size, [o for o in broken if len(o.trial.sensors) == size])
    alarms = sum(o.alarms for o in outcomes)
    clean_s = sum(DRIVE_S if o.trial.sensor is None else BROKEN_FROM_S for o in outcomes)
    result.add("clean driving", "hours", [clean_s / 3600])
    result.add("false alarms while driving clean", "", [float(alarms)], "= 0", alarms == 0)
    result.notes.append(
        f"{len(outcomes)} trials of {DRIVE_S:g} s in simulated time with the shipped parameters and odometry; a hazard "
        f"is on from {BROKEN_FROM_S:g} to {BROKEN_FROM_S + BROKEN_S:g} s, what comes before counts as clean. A weather "
        "has one drive, which is played each time: the hours of clean driving show the same few views."
    )
    return result


def _add_detection(result: Benchmark, size: int, group: Sequence[Outcome]) -> None:
    """Of the hazards with so many sensors; the bars are those of three and more."""
    found = _percent(map(_in_time, group))
    result.add(f"found within 3 s, {size} sensors", "%", [found], *([">= 95", found >= 95] if size == 4 else []))
    decided = [o for o in group if o.blamed or o.undecided]
    if decided:
        right = _percent(o.blamed == {o.trial.sensor} for o in decided)
        bar = [">= 95", right >= 95] if size > 2 else []
        result.add(f"blame right where found, {size} sensors", "%", [right], *bar)
