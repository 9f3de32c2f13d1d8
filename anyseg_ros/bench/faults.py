"""The proof of the health checks: every fault on every sensor in every weather, and hours in which nothing is wrong."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from anyseg_core.injection import INJECTION_KINDS
from anyseg_core.processes import available_cores, map_over_processes
from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_MS
from anyseg_core.terminal import progress_bar
from anyseg_ros.bench import fault_miou
from anyseg_ros.bench.fault_drives import HEIGHT, PERIOD_NS, RATE_HZ, WIDTH, Scene, Transport, render_missing, scenes
from anyseg_ros.bench.fault_trials import (
    FLAP_S,
    FLAPS,
    PASS_S,
    CleanRun,
    FlapTrial,
    Outcome,
    Trial,
    run_clean,
    run_flapping,
    run_trials,
)
from anyseg_ros.bench.results import Benchmark

PARTS = ("detection", "false_alarms", "flapping", "miou")
HARD_FAULTS: Mapping[str, tuple[str, ...]] = {
    "silent": ("drop", "crash"),
    "black": ("black",),
    "frozen": ("freeze",),
    "NaN": ("nan_depth", "zero_depth"),
    "regression": ("stamp_regression",),
    "corrupt": ("corrupt", "truncate", "wrong_encoding"),
}
"""Those that must all be found, by their name in the bars."""
SILENT_PERIODS, CONTENT_MESSAGES, RECOVERY_PERIODS = 2.0, 5, 2.0
FALSE_ALARMS_PER_HOUR, FLAP_CHANGES = 1.0, 2
FLAPPING_KINDS: Mapping[str, bool] = {"drop": True, "freeze": False, "black": False, "corrupt": False}
"""Which come and go in the flapping part, and whether the bar is on them: a loose contact is a drop."""

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass
class _Bench:
    """What every part needs."""

    console: Console
    out: Path
    student: str
    workers: int
    result: Benchmark = field(default_factory=lambda: Benchmark("Faults"))

    def over_processes(self, title: str, task: Callable[[_Job], _Result], jobs: Sequence[_Job]) -> list[_Result]:
        with progress_bar(title, len(jobs)) as progress:
            return list(map_over_processes(task, jobs, self.workers, progress))


def run(
    console: Console,
    json_path: Path | None,
    *,
    out: Path,
    student: str,
    hours: float = 1.0,
    repeats: int = 2,
    parts: Sequence[str] = PARTS,
    workers: int = 0,
) -> bool:
    """Measure these parts, print the tables, write the figures where asked; returns whether every bar was met.

    Raises ValueError for an unknown part, StudentError, OSError or WorkerError.
    """
    if unknown := set(parts) - set(PARTS):
        raise ValueError(f"unknown part {', '.join(sorted(unknown))}; known parts: {', '.join(PARTS)}")
    if hours <= 0 or repeats < 1:
        raise ValueError(f"hours {hours} must be positive and repeats {repeats} at least 1")
    bench = _Bench(console, out, student, workers or available_cores())
    with progress_bar("rendering the drives") as progress:
        render_missing(out, bench.workers, progress)
    measure: Mapping[str, Callable[[], None]] = {
        "detection": lambda: measure_detection(bench, repeats),
        "false_alarms": lambda: measure_false_alarms(bench, hours),
        "flapping": lambda: measure_flapping(bench, repeats),
        "miou": lambda: measure_miou(bench),
    }
    for part in PARTS:
        if part in parts:
            measure[part]()
    bench.result.notes.append(_transport_note(Transport()))
    return bench.result.report(console, json_path)


def _transport_note(transport: Transport) -> str:
    return (
        f"simulated time, the shipped parameters, sensors at {RATE_HZ:g} Hz, rendered at {WIDTH}x{HEIGHT}. Messages "
        f"take 4 to 14 ms and +-{transport.jitter:.0%} of a period, at random; every {transport.hiccup_every_s:g} s on "
        f"average a hiccup stops the node for {transport.hiccup_ms:g} ms, after which it looks at the clock before it "
        "reads what has come. The engine takes no time here: its milliseconds come on top."
    )


def _driving() -> list[Scene]:
    return [scene for scene in scenes() if scene.config.speed_mps > 0]


def _faults() -> list[tuple[str, Sensor]]:
    return [(kind, modality) for kind, fault in INJECTION_KINDS.items() for modality in fault.modalities]


def _seed(*names: object) -> int:
    """The same for the same names, on every machine."""
    return zlib.crc32(" ".join(map(str, names)).encode())


def _halves(items: Sequence[_Job]) -> list[Sequence[_Job]]:
    """Two jobs instead of one: five scenes would keep two cores busy unevenly."""
    middle = len(items) // 2
    return [part for part in (items[:middle], items[middle:]) if part]


# --- detection -----------------------------------------------------------------------------------------------------


def measure_detection(bench: _Bench, repeats: int) -> None:
    """Each fault of each sensor in each weather, `repeats` times."""
    jobs = []
    for scene in _driving():
        trials = [
            Trial(kind, modality, scene, _seed(kind, modality, scene.name, repeat))
            for kind, modality in _faults()
            for repeat in range(repeats)
        ]
        jobs += [(scene, half, bench.out) for half in _halves(trials)]
    outcomes = [o for part in bench.over_processes("faults", run_trials, jobs) for o in part]
    bench.console.print(detection_table(outcomes))
    add_detection(bench.result, outcomes)


def detection_table(outcomes: Sequence[Outcome]) -> Table:
    """A line for each fault of each sensor."""
    table = Table(title="Faults found, by kind and sensor; times as p50 / max", title_justify="left")
    table.add_column("fault")
    table.add_column("sensor")
    for column in ("n", "found", "first sign, ms", "FAILED, ms", "periods", "messages"):
        table.add_column(column, justify="right")
    table.add_column("called")
    for column in ("wrong", "back after, ms"):
        table.add_column(column, justify="right")
    for (kind, modality), group in _by_fault(outcomes).items():
        table.add_row(kind, str(modality), *_detection_cells(group))
    return table


def _by_fault(outcomes: Iterable[Outcome]) -> dict[tuple[str, Sensor], list[Outcome]]:
    groups: dict[tuple[str, Sensor], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.trial.kind, outcome.trial.modality), []).append(outcome)
    return groups


def _detection_cells(group: Sequence[Outcome]) -> list[str]:
    found = [outcome for outcome in group if outcome.detected]
    names = Counter(" then ".join(dict.fromkeys((str(o.named), str(o.last_named)))) for o in found)
    detection_ms = [o.detection_ms for o in found if o.detection_ms is not None]
    wrong = f"{np.mean([o.wrongly_named for o in found]):.0%}" if found and group[0].expected else "-"
    return [
        str(len(group)),
        f"{len(found) / len(group):.0%}",
        _p50_max([o.first_sign_ms for o in found], "{:.0f}"),
        _p50_max(detection_ms, "{:.0f}"),
        _p50_max([ms * 1e6 / PERIOD_NS for ms in detection_ms], "{:.1f}"),
        _p50_max([o.messages for o in found], "{:.0f}"),
        ", ".join(name if len(names) == 1 else f"{name} {count}" for name, count in names.most_common()),
        wrong,
        _p50_max([o.recovery_ms for o in found], "{:.0f}"),
    ]


def _p50_max(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return f"{form.format(np.median(known))} / {form.format(max(known))}" if known else "-"


def add_detection(result: Benchmark, outcomes: Sequence[Outcome]) -> None:
    """The bars, over all sensors and weathers; every kind's own figures go to the file."""
    hard = {name: [o for o in outcomes if o.trial.kind in kinds] for name, kinds in HARD_FAULTS.items()}
    for name, group in hard.items():
        share = 100 * float(np.mean([o.detected for o in group]))
        result.add(f"hard fault found: {name}", "%", [share], "= 100", share == 100)
    for name, group in hard.items():
        found = [o for o in group if o.detected]
        if name == "silent":
            _add_worst(result, "silent: last message to FAILED", "periods", found, _periods, SILENT_PERIODS)
        else:
            _add_worst(result, f"{name}: messages until FAILED", "", found, lambda o: o.messages, CONTENT_MESSAGES)
    named = [o for o in outcomes if o.detected and o.expected]
    wrong = [100.0 * o.wrongly_named for o in named] or [0.0]
    result.add("found faults that were wrongly named", "%", [float(np.mean(wrong))])
    is_hard = {kind for kinds in HARD_FAULTS.values() for kind in kinds}
    for name, group in (
        ("hard faults", [o for o in outcomes if o.detected and o.trial.kind in is_hard]),
        ("other faults", [o for o in outcomes if o.detected and o.trial.kind not in is_hard]),
    ):
        _add_worst(
            result, f"recovery beyond recover_time, {name}", "periods", group, _periods_of_recovery, RECOVERY_PERIODS
        )
    for (kind, modality), group in _by_fault(outcomes).items():
        _add_details(result, f"{kind}, {modality}", group)
    result.notes.append(
        "found: FAILED while the fault is on. Silence counts from the arrival of the last message, other faults from "
        "the arrival of their first. Back: from the first measurement that is good again to ACTIVE. Called: what "
        "people read at FAILED, then at the end; wrong: the latter is no name that the catalogue expects."
    )


def _periods(outcome: Outcome) -> float | None:
    return None if outcome.detection_ms is None else outcome.detection_ms * NS_PER_MS / PERIOD_NS


def _periods_of_recovery(outcome: Outcome) -> float:
    """A sensor that never came back is infinitely late."""
    if outcome.recovery_ms is None or outcome.recover_time_ms is None:
        return math.inf
    return (outcome.recovery_ms - outcome.recover_time_ms) * NS_PER_MS / PERIOD_NS


def _add_worst(
    result: Benchmark,
    name: str,
    unit: str,
    outcomes: Sequence[Outcome],
    of: Callable[[Outcome], float | None],
    limit: float,
) -> None:
    """A figure whose greatest sample has a limit; a note names the trials beyond it."""
    samples = [(value, outcome.trial) for outcome in outcomes if (value := of(outcome)) is not None]
    if not samples:
        result.add(f"{name} (never found)", unit, [math.inf], f"max <= {limit:g}", False)
        return
    beyond = sorted((s for s in samples if s[0] > limit), key=lambda sample: -sample[0])
    result.add(name, unit, [value for value, _ in samples], f"max <= {limit:g}", not beyond)
    worst = Counter(f"{trial.kind} {trial.modality} {trial.scene.name}" for _, trial in beyond)
    if worst:
        listed = ", ".join(f"{which} ({count} x)" for which, count in worst.most_common(8))
        result.notes.append(f"{name}: {len(beyond)} of {len(samples)} beyond the bar: {listed}")


def _add_details(result: Benchmark, name: str, group: Sequence[Outcome]) -> None:
    found = [o for o in group if o.detected]
    result.add(f"{name}: found", "%", [100 * len(found) / len(group)], listed=False)
    for what, samples in (
        ("first sign, ms", [o.first_sign_ms for o in found]),
        ("FAILED, ms", [o.detection_ms for o in found]),
        ("messages until FAILED", [o.messages for o in found]),
        ("back after, ms", [o.recovery_ms for o in found]),
        ("wrongly named, %", [100.0 * o.wrongly_named for o in found]),
    ):
        known = [sample for sample in samples if sample is not None]
        if known:
            result.add(f"{name}: {what}", "", known, listed=False)


# --- false alarms --------------------------------------------------------------------------------------------------


def measure_false_alarms(bench: _Bench, hours: float) -> None:
    """At least so many hours in which nothing is wrong, spread evenly over the scenes."""
    all_scenes = scenes()
    passes = int(np.ceil(hours * 3600 / PASS_S / len(all_scenes)))
    jobs = [
        (scene, half, bench.out)
        for scene in all_scenes
        for half in _halves([_seed("clean", scene.name, number) for number in range(passes)])
    ]
    runs = bench.over_processes("clean drives", run_clean, jobs)
    bench.console.print(alarm_table(runs))
    add_false_alarms(bench.result, runs)
    bench.result.notes.append(
        f"clean drives: {len(all_scenes)} scenes ({', '.join(scene.name for scene in all_scenes)}), each {passes} "
        f"times for {PASS_S:g} s: a stretch of its 30 s from a random start, with fresh sensor noise on top and fresh "
        "timing. So the hours show the views of 7 rendered drives; noise, timing and start are new each time."
    )


def alarm_table(runs: Sequence[CleanRun]) -> Table:
    """A line for each scene: hours, alarms and what they were called."""
    table = Table(title="Clean drives: alarms that were false", title_justify="left")
    table.add_column("scene")
    for column in ("hours", "FAILED", "SUSPECT"):
        table.add_column(column, justify="right")
    table.add_column("called")
    for name in dict.fromkeys(run.scene for run in runs):
        of_scene = [run for run in runs if run.scene == name]
        alarms = [alarm for run in of_scene for alarm in run.alarms]
        failed = sum(alarm.state is State.FAILED for alarm in alarms)
        causes = Counter(f"{alarm.modality} {alarm.fault}" for alarm in alarms)
        called = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
        hours = sum(run.hours for run in of_scene)
        table.add_row(name, f"{hours:.2f}", str(failed), str(len(alarms) - failed), called)
    return table


def add_false_alarms(result: Benchmark, runs: Sequence[CleanRun]) -> None:
    """Per hour, over all four sensors together."""
    hours = sum(run.hours for run in runs)
    alarms = [alarm for run in runs for alarm in run.alarms]
    failed = [alarm for alarm in alarms if alarm.state is State.FAILED]
    result.add("clean drives", "hours", [hours], ">= 1", hours >= 1)
    rate = len(failed) / hours
    bar = f"<= {FALSE_ALARMS_PER_HOUR:g}"
    result.add("false alarms (FAILED), all sensors", "per hour", [rate], bar, rate <= FALSE_ALARMS_PER_HOUR)
    result.add("SUSPECT without FAILED, all sensors", "per hour", [(len(alarms) - len(failed)) / hours])
    masks = sum(run.masks for run in runs)
    incomplete = 100 * sum(run.incomplete for run in runs) / masks
    result.add("masks that a late frame is missing from", "%", [incomplete])
    result.notes += [f"{a.scene} at {a.at_s:.1f} s: {a.modality} {a.state}: {a.fault}: {a.reason}" for a in failed[:10]]


# --- flapping ------------------------------------------------------------------------------------------------------


def measure_flapping(bench: _Bench, repeats: int) -> None:
    """Sensors that come and go."""
    jobs = []
    for scene in _driving():
        trials = [
            FlapTrial(kind, modality, scene, _seed("flap", kind, modality, scene.name, repeat))
            for kind in FLAPPING_KINDS
            for modality in INJECTION_KINDS[kind].modalities
            for repeat in range(repeats)
        ]
        jobs.append((scene, trials, bench.out))
    outcomes = [o for part in bench.over_processes("flapping sensors", run_flapping, jobs) for o in part]
    for kind, has_bar in FLAPPING_KINDS.items():
        changes = [o.changes for o in outcomes if o.trial.kind == kind]
        name = f"modality set changes, {kind} {FLAPS} x {FLAP_S * 1000:g} ms on and off"
        bar, met = (f"max <= {FLAP_CHANGES}", max(changes) <= FLAP_CHANGES) if has_bar else ("", None)
        bench.result.add(name, "", changes, bar, met)
    bench.result.notes.append(
        "flapping: how often the sensor leaves or joins the masks, from the first fault until it is well for good; "
        "leaving once and coming back once are two. With 5% of jitter and no hiccups: what is late is another matter."
    )


# --- mIoU ----------------------------------------------------------------------------------------------------------


def measure_miou(bench: _Bench) -> None:
    """What each fault costs until it is found."""
    jobs = [
        (scene, [Trial(kind, m, scene, _seed("miou", scene.name)) for kind, m in half], bench.out, bench.student)
        for scene in _driving()
        for half in _halves(fault_miou.scored_kinds())
    ]
    scores = [s for part in bench.over_processes("mIoU", fault_miou.score_onsets, jobs) for s in part]
    num_classes = len(load_card(find_student(bench.student)).classes)
    table = Table(title="mIoU from a fault's first frame to FAILED (at most 5 frames), %", title_justify="left")
    table.add_column("fault")
    table.add_column("sensor")
    for column in ("frames", fault_miou.HEALTHY, fault_miou.BROKEN_IN, fault_miou.WITHOUT, fault_miou.AS_MADE, "lost"):
        table.add_column(column, justify="right")
    lost = []
    for kind, modality in fault_miou.scored_kinds():
        group = [score for score in scores if (score.kind, score.modality) == (kind, modality)]
        lost.append(_add_miou(bench.result, table, group, num_classes))
    bench.result.add("mIoU lost until FAILED, each fault of each sensor", "points", lost)
    bench.console.print(table)
    bench.result.notes.append(
        f"mIoU: student {bench.student}, instants of five drives (one in each weather) pooled. 'broken sensor in': "
        "what a node without health checks would make (of a silent sensor its last frame); 'without it': what is left "
        "after the reaction; 'as made': what this node makes until then; 'lost': how far that is below healthy."
    )


def _add_miou(result: Benchmark, table: Table, group: Sequence[fault_miou.OnsetScore], num_classes: int) -> float:
    """A fault's line and figures; returns the points that it costs."""
    kind, modality = group[0].kind, group[0].modality
    variants = (fault_miou.HEALTHY, fault_miou.BROKEN_IN, fault_miou.WITHOUT, fault_miou.AS_MADE)
    miou = {variant: fault_miou.pooled(group, variant, num_classes) for variant in variants}
    lost = miou[fault_miou.HEALTHY] - miou[fault_miou.AS_MADE]
    frames = sum(score.instants for score in group)
    table.add_row(kind, str(modality), str(frames), *(f"{value:.1f}" for value in miou.values()), f"{lost:+.1f}")
    for variant, value in miou.items():
        result.add(f"mIoU until FAILED, {kind}, {modality}: {variant}", "%", [value], listed=False)
    result.add(f"mIoU lost until FAILED, {kind}, {modality}", "points", [lost], listed=False)
    return lost
