"""Sensors that are alive and wrong, on simulated and recorded drives: found how soon, who is blamed, and false alarms.

Every outcome is written to `<out>/hazards_<version>.jsonl` as soon as it is known: a run that was ended, or limited, is
continued by the same command. The version is that of the code that decides; outcomes of other code are not mixed in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from anyseg_core import injection
from anyseg_core.processes import map_over_processes
from anyseg_core.runtime import cross_examination, health
from anyseg_core.runtime.health.thresholds import FOUND_BY_OTHERS
from anyseg_core.runtime.model_card import CARD_NAME, find_student
from anyseg_core.runtime.sensors import DEFAULT_SENSORS
from anyseg_core.sim.drive import DriveConfig
from anyseg_core.sim.drive_cache import is_recorded, recording_path, render_to
from anyseg_core.sim.motion import ego_motion
from anyseg_core.sim.weather import WEATHERS, Weather
from anyseg_core.terminal import progress_bar
from anyseg_ros.bench.hazard_drives import RATE_HZ, load_drive
from anyseg_ros.bench.hazard_masks import (
    ALL_RIGHT,
    FOUND_BY_S,
    LATER,
    WAYS,
    WITH_POLICY,
    WITHOUT_POLICY,
    WITHOUT_SENSOR,
    pooled_miou,
)
from anyseg_ros.bench.hazard_trials import HAZARDS, SLOW_HAZARDS, STUDENT, Outcome, Trial, play, trials_of
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.pipeline import jobs, pipeline

FIRST_SEED, FIRST_CLEAN_SEED = 7_000_000, 7_500_000
SHORT_S, LONG_S, CLEAN_S = 12.0, 40.0, 60.0
"""Drives for hazards, for those that are found slowly, and without any."""
WIDTH, HEIGHT = 320, 240
SPEED_MPS = 8.0
MOST_ALARMS_PER_H = 0.2
LEAST_CLEAN_H = 2.0
"""Of clean driving, from which on a rate of alarms is held against its bar."""
MOST_BELOW = 0.5
"""Points of mIoU that masks with the policy may be below those without the sensor."""


@dataclass(frozen=True)
class Plan:
    """What is to be played."""

    weathers: Sequence[str]
    sizes: Sequence[int]
    """Numbers of sensors that are alive."""
    clean_hours: float = 0.0
    """Of drives without any, each minute another one; played with each set of sensors, they count once for each."""
    bags: Sequence[Path] = ()
    """Recorded drives, on which the hazards of their sensors are played."""

    def __post_init__(self) -> None:
        unknown = [weather for weather in self.weathers if weather not in {str(known) for known in WEATHERS}]
        if unknown or not set(self.sizes) <= {2, 3, 4}:
            raise ValueError(f"weathers {', '.join(self.weathers)} or sizes {self.sizes}: one of them is not known")

    def drives(self) -> Iterator[DriveConfig | str]:
        """Recorded ones, short ones, long ones for what is found slowly, and clean ones."""
        chosen = [str(weather) for weather in WEATHERS if not self.weathers or str(weather) in self.weathers]
        yield from (str(bag) for bag in self.bags)
        yield from (_without_stop(weather) for weather in chosen)
        yield from (_config(_first_seed(weather), weather, LONG_S) for weather in chosen)
        for number in range(round(self.clean_hours * 3600 / CLEAN_S)):
            yield _config(FIRST_CLEAN_SEED + number, chosen[number % len(chosen)], CLEAN_S)

    def trials(self, drive: DriveConfig | str, out: Path) -> list[Trial]:
        """Of a drive; a recorded one is read for the sensors that it has."""
        if isinstance(drive, str):
            sensors = load_drive(drive, out).sensors
            return trials_of(drive, sensors, [len(sensors)], HAZARDS)
        hazards = {SHORT_S: HAZARDS, LONG_S: SLOW_HAZARDS, CLEAN_S: ()}[drive.duration_s]
        return trials_of(drive, DEFAULT_SENSORS, self.sizes, hazards)


def _without_stop(weather: str) -> DriveConfig:
    """A short one; there is no longer one, a vehicle stops at the latest after 22 s."""
    seed = _first_seed(weather)
    while any(stop < SHORT_S for stop in ego_motion(seed, SHORT_S, SPEED_MPS).stop_times_s):
        seed += 1
    return _config(seed, weather, SHORT_S)


def _first_seed(weather: str) -> int:
    return FIRST_SEED + 100 * [str(known) for known in WEATHERS].index(weather)


def _config(seed: int, weather: str, duration_s: float) -> DriveConfig:
    return DriveConfig(seed, Weather(weather), duration_s, RATE_HZ, WIDTH, HEIGHT, speed_mps=SPEED_MPS)


def run(
    console: Console, json_path: Path | None, plan: Plan, *, out: Path, limit: int | None = None, workers: int = 1
) -> bool:
    """Play what is not known yet, print and write all that is; returns whether every bar was met.

    Args:
        limit: trials that are played now at most; None: all.

    Raises OSError, RecordingError, BagError, TopicError, ValueError or WorkerError.
    """
    outcomes, planned = Outcomes(out), 0
    for drive in plan.drives():
        trials = plan.trials(drive, out)
        planned += len(trials)
        new = list(islice((trial for trial in trials if trial not in outcomes), limit))
        limit = None if limit is None else limit - len(new)
        _play_all(drive, new, outcomes, out, workers)
    known = list(outcomes)
    console.print(table_of(known))
    console.print(table_of_masks(known))
    result = _judged(known)
    result.notes.append(f"{len(known)} trials are known; this command plans {planned}")
    return result.report(console, json_path)


def _play_all(drive: DriveConfig | str, trials: Sequence[Trial], outcomes: Outcomes, out: Path, workers: int) -> None:
    if not trials:
        return
    if isinstance(drive, DriveConfig) and not is_recorded(recording_path(drive, out)):
        with progress_bar(f"rendering {drive.weather}") as progress:
            render_to(out, drive, workers, progress)
    with progress_bar(f"hazards, {trials[0].weather}", len(trials)) as progress:
        for trial, outcome in map_over_processes(partial(_played, recordings=out), trials, workers, progress):
            outcomes.add(trial, outcome)
    if isinstance(drive, DriveConfig) and drive.duration_s == CLEAN_S:  # a minute is 100 MB, and not needed again
        recording_path(drive, out).unlink()


def _played(trial: Trial, recordings: Path) -> tuple[Trial, Outcome]:
    return trial, play(trial, recordings)


class Outcomes:
    """Of all trials so far, kept in a file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"hazards_{_version()}.jsonl"
        self._known: dict[str, tuple[Mapping[str, str], Outcome]] = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:  # the run was ended while it wrote
                continue
            kept = entry["outcome"]
            blamed = frozenset(sensor for sensor in DEFAULT_SENSORS if sensor in kept["blamed"])
            masks = {way: [tuple(counted) for counted in counts] for way, counts in kept["masks"].items()}
            self._known[entry["trial"]] = entry["about"], Outcome(**{**kept, "blamed": blamed, "masks": masks})

    def __contains__(self, trial: Trial) -> bool:
        return repr(trial) in self._known

    def __iter__(self) -> Iterator[tuple[Mapping[str, str], Outcome]]:
        return iter(self._known.values())

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Keep it, in the file too."""
        about = _about(trial)
        self._known[repr(trial)] = about, outcome
        content = {**asdict(outcome), "blamed": sorted(outcome.blamed)}
        with self._path.open("a") as file:
            file.write(json.dumps({"trial": repr(trial), "about": about, "outcome": content}) + "\n")


def _about(trial: Trial) -> dict[str, str]:
    """What a table says of a trial."""
    hazard = trial.hazard
    about = {"weather": trial.weather, "sensors": str(len(trial.sensors))}
    if hazard is not None:
        about |= {"hazard": hazard.name, "sensor": str(hazard.sensor), "in_time_s": str(hazard.in_time_s)}
        about |= {"fault": hazard.fault, "value": str(hazard.value), "within": str(hazard.within)}
    return about


@lru_cache(maxsize=1)
def _version() -> str:
    """Of the code that makes hazards, finds them and counts, and of the student that is asked."""
    folders = [Path(str(package.__file__)).parent for package in (injection, cross_examination, health)]
    sources = [source for folder in folders for source in sorted(folder.glob("*.py"))]
    sources += [*sorted(Path(__file__).parent.glob("hazard_*.py")), find_student(STUDENT) / CARD_NAME]
    sources += [Path(str(module.__file__)) for module in (pipeline, jobs)]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


# --- what came of it -------------------------------------------------------------------------------------------------

Known = tuple[Mapping[str, str], Outcome]
COLUMNS = ("hazard", "sensor", "alive", "n", "found in time", "after, s", "blame right", "undecided", "wrong", "number")


def table_of(known: Sequence[Known]) -> Table:
    """A line for each hazard of each sensor, over drives and sets."""
    table = Table(*COLUMNS, title="Hazards: found and blamed", title_justify="left")
    for (hazard, sensor, size), group in _groups(known).items():
        seconds = [o.found_s for _, o in group if o.found_s is not None]
        values = [o.value for _, o in group if o.value is not None]
        table.add_row(
            hazard, sensor, size, str(len(group)), _share(map(_in_time, group)),
            f"{np.median(seconds):.1f}" if seconds else "-", _share(map(_is_right, group)),
            _share(o.undecided for _, o in group), _share(bool(o.blamed - {sensor}) for _, o in group),
            f"{np.median(values):.3g}" if values else "",
        )  # fmt: skip
    return table


def table_of_masks(known: Sequence[Known]) -> Table:
    """mIoU of the masks during each hazard of each sensor, over weathers and sets."""
    table = Table("hazard", "sensor", "alive", *WAYS, *(f"{way}, found" for way in WAYS), title_justify="left")
    table.title = f"Hazards: mIoU in %, from the hazard's begin, and from {FOUND_BY_S:g} s later on"
    for (hazard, sensor, size), group in _groups(known).items():
        scores = [_miou(group, way + later) for later in ("", LATER) for way in WAYS]
        if any(score is not None for score in scores):
            cells = [f"{score:.1f}" if score is not None else "" for score in scores]
            table.add_row(hazard, sensor, size, *cells)
    return table


def _groups(known: Sequence[Known]) -> dict[tuple[str, str, str], list[Known]]:
    """By hazard, sensor, and number of sensors."""
    groups: dict[tuple[str, str, str], list[Known]] = {}
    for about, outcome in known:
        if "hazard" in about:
            groups.setdefault((about["hazard"], about["sensor"], about["sensors"]), []).append((about, outcome))
    return groups


def _miou(group: Sequence[Known], way: str) -> float | None:
    return pooled_miou(outcome.masks[way] for _, outcome in group if way in outcome.masks)


def _in_time(known: Known) -> bool:
    about, outcome = known
    return outcome.found_s is not None and outcome.found_s <= float(about["in_time_s"])


def _is_right(known: Known) -> bool:
    return known[1].blamed == {known[0]["sensor"]}


def _share(values: Iterable[bool]) -> str:
    return f"{_percent(values):.0f} %"


def _percent(values: Iterable[bool]) -> float:
    counted = list(values)
    return 100.0 * sum(counted) / max(len(counted), 1)


def _judged(known: Sequence[Known]) -> Benchmark:
    result = Benchmark("Sensors that are alive and wrong")
    broken = [(about, outcome) for about, outcome in known if "hazard" in about]
    for slow in (False, True):
        for size in sorted({about["sensors"] for about, _ in broken}, reverse=True):
            group = [k for k in broken if k[0]["sensors"] == size and (float(k[0]["in_time_s"]) > 3.0) == slow]
            if group:
                _add_detection(result, f"{size} sensors, {'slow' if slow else 'quick'}", int(size), group)
    _add_numbers(result, broken)
    for later, since in (("", "from its begin"), (LATER, f"from {FOUND_BY_S:g} s on")):
        _add_masks(result, known, later, since)
    for fault in sorted({str(fault) for fault in FOUND_BY_OTHERS}):
        _add_roc(result, fault, known)
    _add_alarms(result, known)
    result.notes.append(
        "Simulated time, the shipped parameters, odometry. `policy` is cross_examination.leave_out: true. Clean "
        "driving is that of trials without a hazard, different sets of sensors of the same drive counted each."
    )
    return result


def _add_alarms(result: Benchmark, known: Sequence[Known]) -> None:
    """Hours without a hazard, and alarms in them: by the number of sensors, and in all."""
    groups: dict[str, list[Outcome]] = {}
    for size in sorted({about["sensors"] for about, _ in known}, reverse=True):
        groups[f", {size} sensors"] = [outcome for about, outcome in known if about["sensors"] == size]
    groups[""] = [outcome for _, outcome in known]
    for name, outcomes in groups.items():
        hours = sum(outcome.clean_s for outcome in outcomes) / 3600
        if not hours:
            continue
        rate = sum(outcome.alarms for outcome in outcomes) / hours
        is_enough = not name and hours >= LEAST_CLEAN_H
        bar = [f"<= {MOST_ALARMS_PER_H}", rate <= MOST_ALARMS_PER_H] if is_enough else []
        result.add(f"clean driving{name}", "h", [hours])
        result.add(f"false alarms{name}", "per hour", [rate], *bar)


def _add_detection(result: Benchmark, what: str, size: int, group: Sequence[Known]) -> None:
    """Of hazards that are to be found alike; blame has a bar where there are three sensors or more."""
    found, bar = _percent(map(_in_time, group)), 95 if size == 4 else 85
    result.add(f"found in time, {what}", "%", [found], f">= {bar}", found >= bar)
    decided = [k for k in group if k[1].blamed or k[1].undecided]
    if decided:
        right = _percent(map(_is_right, decided))
        result.add(f"blame right where found, {what}", "%", [right], *([">= 95", right >= 95] if size > 2 else []))


def _add_numbers(result: Benchmark, broken: Sequence[Known]) -> None:
    """How far the numbers that are named are off."""
    for fault in sorted({about["fault"] for about, _ in broken if about["fault"]}):
        group = [k for k in broken if k[0]["fault"] == fault and k[1].value is not None]
        errors = [abs(float(outcome.value or 0.0) - float(about["value"])) for about, outcome in group]
        if errors:
            within = float(group[0][0]["within"])
            result.add(f"error of the number, {fault}", "", errors, f"<= {within:g}", max(errors) <= within)


def _add_masks(result: Benchmark, known: Sequence[Known], later: str, since: str) -> None:
    """Of each hazard and number of sensors: mIoU with and without the policy, less that without the sensor."""
    by_key = _groups(known)
    for size in sorted({key[2] for key in by_key}, reverse=True):
        groups = [group for key, group in by_key.items() if key[2] == size]
        for way in (ALL_RIGHT, WITHOUT_POLICY, WITH_POLICY):
            gains = [
                gain for group in groups if (gain := _gain(group, way + later, WITHOUT_SENSOR + later)) is not None
            ]
            if not gains:
                continue
            figure = f"mIoU, {way}, less that without the sensor, {size} sensors, {since}"
            bar, met = (f">= -{MOST_BELOW}", min(gains) >= -MOST_BELOW) if way == WITH_POLICY else ("", None)
            result.add(figure, "points", gains, bar, met)


def _gain(group: Sequence[Known], way: str, other: str) -> float | None:
    """mIoU of one way less that of another; None where one is not known."""
    score, than = _miou(group, way), _miou(group, other)
    return None if score is None or than is None else score - than


def _add_roc(result: Benchmark, fault: str, known: Sequence[Known]) -> None:
    """How well the greatest sum of a fault tells drives with a hazard that it names first from clean ones: the area
    under the curve of receiver operating characteristics, 1 where some limit tells all of them apart."""
    clean = [o.levels.get(fault, 0.0) for about, o in known if "hazard" not in about]
    broken = [o.levels[fault] for about, o in known if "hazard" in about and _names(o, fault)]
    if clean and broken:
        higher = np.subtract.outer(broken, clean)
        result.add(f"ROC area, {fault}", "", [float((higher > 0).mean() + 0.5 * (higher == 0).mean())])


def _names(outcome: Outcome, fault: str) -> bool:
    """Whether no other fault had a greater sum."""
    return bool(outcome.levels) and outcome.levels.get(fault, 0.0) == max(outcome.levels.values()) > 0
