"""Train and score the runs of a plan, one after another or several at a time, and go on where it was stopped.

Each run is in `<out>/<variant>_seed<seed>`, with checkpoints; killed, it goes on where it was. Several runs at a time
are processes of their own, and so are runs on several devices. What is to be chosen (whether the teacher is good
enough, which variants get more seeds) is chosen on the validation split; the split of the table is scored at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from anyseg_core.benchmarks.plan import Plan, Run, plan_runs
from anyseg_core.data.datasets import DataConfig, require_splits
from anyseg_core.training.checkpoint import find_checkpoint
from anyseg_core.training.config import ConfigError, parse_config
from anyseg_core.training.evaluation import with_all_modalities
from anyseg_core.training.evaluation_report import EvaluationOptions, evaluate_fully
from anyseg_core.training.loop import CONFIG_NAME, train
from anyseg_core.training.robustness import missing_metrics
from anyseg_core.training.run_log import METRICS_NAME, read_metrics

PLAN_NAME, SCORES_NAME, LOG_NAME = "plan.yaml", "test_metrics.json", "log.txt"
_MAY_DIFFER = ("description", "machine", "record")
"""Settings that change nothing in what a run learns."""
Report = Callable[[str], Any]


class AblationError(Exception):
    """A run of the table that failed, or a gate that stays shut; the message names the remedy or the log."""


class Outcome(NamedTuple):
    """What was run."""

    plan: Plan
    """With the teacher that the gate let through."""
    runs: list[Run]
    notes: list[str]
    """What was decided on the way."""


def run_plan(
    plan: Plan,
    seeds: Sequence[int],
    out: Path,
    only: Sequence[str] | None = None,
    *,
    jobs: int = 1,
    report: Report = print,
    limit: int | None = None,
) -> Outcome:
    """Train and score what is not done yet, `jobs` at a time; with `only`, those variants and what they need.

    Raises AblationError, ConfigError, DataError, CheckpointError, TrainingError.
    """
    notes: list[str] = []
    names = list(only or plan.variants)
    _require_data(plan_runs(plan, seeds, out, names), plan.split)
    if plan.gate and any(plan.teacher_of(name) == plan.gate.teacher for name in plan.with_needs(names)):
        plan, note = _pass_gate(plan, seeds, out, jobs, report)
        notes.append(note)
    runs = plan_runs(plan, seeds, out, names)
    _train_all(plan, runs, jobs, report)
    if plan.more:
        best = _best_variants(runs, plan.more.best)
        notes.append(f"{plan.more.seeds} more seeds, by the mean on {runs[0].config.data.val_split}: {', '.join(best)}")
        more = [max(seeds) + 1 + number for number in range(plan.more.seeds)]
        extra = plan_runs(plan, more, out, [*best, *([plan.reference] if plan.reference else [])])
        _train_all(plan, extra, jobs, report)
        runs += extra
    for run in runs:
        _score(run, plan.split, limit)
    return Outcome(plan, runs, notes)


def _require_data(runs: Iterable[Run], split: str) -> None:
    """Raises DataError, before hours of training, where a split that it or the table takes is not there."""
    checked: list[DataConfig] = []
    for run in runs:
        data = run.config.data
        if data not in checked:
            require_splits(data, (data.train_split, data.val_split, split))
            checked.append(data)


def _pass_gate(plan: Plan, seeds: Sequence[int], out: Path, jobs: int, report: Report) -> tuple[Plan, str]:
    """The plan with a teacher that is good enough, trained on as often as that takes, and what was found."""
    number = 0
    while True:
        gate = plan.gate
        assert gate is not None
        runs = plan_runs(plan, seeds, out, [gate.teacher, gate.student])
        _train_all(plan, runs, jobs, report)
        best, pupil = (_with_all_sensors(runs, name) for name in (gate.teacher, gate.student))
        found = f"teacher {gate.teacher} {best:.2f}, {gate.student} {pupil:.2f} with all sensors, {best - pupil:+.2f}"
        report(f"gate: {found}, wanted {gate.points:+.2f}")
        if best - pupil >= gate.points:
            return plan, f"gate passed: {found} (wanted {gate.points:+.2f})"
        if number == gate.rounds:
            raise AblationError(
                f"the gate stays shut after {number} more rounds of training: {found}, wanted {gate.points:+.2f}. "
                "Raise budget.max_steps or gate.rounds, or lower gate.points and say so with the table"
            )
        number += 1
        plan = plan.with_longer_teacher(number)


def _with_all_sensors(runs: Iterable[Run], variant: str) -> float:
    """mIoU with all sensors on the validation split, mean over the runs of a variant."""
    scores = [read_metrics(run.folder)["miou"] for run in runs if run.variant == variant]
    return float(np.mean([with_all_modalities(miou) for miou in scores]))


def _best_variants(runs: Sequence[Run], count: int) -> list[str]:
    """The best first, by the mean over subsets and runs on the validation split."""
    means = {
        variant: float(np.mean([read_metrics(run.folder)["mean"] for run in runs if run.variant == variant]))
        for variant in dict.fromkeys(run.variant for run in runs)
    }
    return sorted(means, key=lambda name: -means[name])[:count]


# --- training -------------------------------------------------------------------------------------------------


def _train_all(plan: Plan, runs: Iterable[Run], jobs: int, report: Report) -> None:
    """In order; of those of one seed, fold and rank `jobs` at a time."""
    for _, wave in groupby(runs, key=lambda run: (run.seed, run.fold, run.rank)):
        together = list(wave)
        with ThreadPoolExecutor(jobs) as pool:
            # The memory of a run can be told only in a process of its own.
            here = jobs == 1 and not plan.costs and all(run.config.machine.devices == 1 for run in together)
            for run in map(_train_here, together) if here else pool.map(_train_apart, together):
                report(f"{run}: mean mIoU {read_metrics(run.folder)['mean']:.2f} on {run.config.data.val_split}")


def _is_done(run: Run) -> bool:
    """Whether the run has been trained to its end. Raises AblationError where its folder holds another run."""
    stored = run.folder / CONFIG_NAME
    if stored.is_file():
        try:
            found = parse_config(yaml.safe_load(stored.read_bytes()), str(stored))
        except (ConfigError, yaml.YAMLError) as error:
            raise AblationError(
                f"{stored} cannot be used: remove {run.folder}, or give another --out: {error}"
            ) from None
        names = [name for name in type(found).model_fields if name not in _MAY_DIFFER]
        changed = [name for name in names if getattr(found, name) != getattr(run.config, name)]
        if changed:
            raise AblationError(
                f"{run.folder} holds a run with another {', '.join(changed)} than the plan says: remove it, or give "
                "another --out"
            )
    return (run.folder / METRICS_NAME).is_file()


def _train_here(run: Run) -> Run:
    """In this process, unless it has been done."""
    if not _is_done(run):
        train(run.config, run.folder, resume=True)
    return run


def _train_apart(run: Run) -> Run:
    """In a process of its own, unless it has been done."""
    if _is_done(run):
        return run
    run.folder.mkdir(parents=True, exist_ok=True)
    config = run.folder / PLAN_NAME
    config.write_text(yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False))
    log = run.folder / LOG_NAME
    command = [sys.executable, "-m", "anyseg_core.training", str(config), "--out", str(run.folder), "--resume"]
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ, check=False)
    if done.returncode:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise AblationError(f"{run} failed ({log}): {' '.join(last)}")
    return run


# --- scoring --------------------------------------------------------------------------------------------------


def read_scores(run: Run) -> dict[str, Any]:
    """What a run reaches on the table's split; raises AblationError where the file is damaged."""
    file = run.folder / SCORES_NAME
    try:
        scores = json.loads(file.read_bytes())
        if not {"mean", "miou", "emm"} <= scores.keys():
            raise ValueError("mean, miou or emm is missing")
    except (ValueError, AttributeError) as error:
        raise AblationError(f"{file} is damaged ({error}): remove it, and the run is scored anew") from None
    return scores


def _score(run: Run, split: str, limit: int | None) -> None:
    """Write the scores of the table's split, unless they are there."""
    asked = {"split": split, "limit": limit}
    file = run.folder / SCORES_NAME
    if file.is_file():
        stored = read_scores(run)
        if {key: stored.get(key) for key in asked} == asked:
            return
    if split == run.config.data.val_split and limit is None:  # which training has scored at its end
        metrics = read_metrics(run.folder)
        metrics |= missing_metrics(metrics["miou"])
    else:
        options = EvaluationOptions(split=split, limit=limit, pictures=0)
        metrics = evaluate_fully(find_checkpoint(run.folder), options, show_progress=False).metrics
    partial = file.with_name(f"{SCORES_NAME}.partial")
    partial.write_text(json.dumps(asked | metrics, indent=2) + "\n")
    partial.replace(file)
