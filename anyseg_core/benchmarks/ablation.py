"""A table of methods: the same data, budget and seeds for each, run after run, resumable, with its spread.

A plan is a YAML file: a training configuration and what each variant changes in it.

    extends: vehicle_sim.yaml         the configuration that all share
    teacher: full                     the variant that teaches where a method wants a teacher; or the folder of a run
    split: test                       scored on, after training; worlds that no run has seen
    variants:
      full: {method: {name: supervised, anymodal_dropout: false}}
      anyseg: {method: {name: anyseg, variant: released}}

A variant may name a teacher of its own. With `costs: true` every run has a process of its own and the table tells its
CPU time (on a GPU: time), weights and memory, those of the teacher included; `claims` are held against the table.

Each run is in `<out>/<variant>_seed<seed>`, with checkpoints; killed, it goes on where it was. Several runs at a time
are processes of their own, and so are runs on several devices.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from anyseg_core.benchmarks.claims import Claim, Verdict
from anyseg_core.methods import TAUGHT_METHODS, TaughtConfig
from anyseg_core.training.checkpoint import find_checkpoint
from anyseg_core.training.config import (
    ConfigError,
    TrainConfig,
    apply_override,
    merge_settings,
    parse_config,
    read_tree,
)
from anyseg_core.training.evaluation_report import EvaluationOptions, evaluate_fully
from anyseg_core.training.loop import METRICS_NAME, train
from anyseg_core.training.robustness import missing_metrics

PLAN_NAME, SCORES_NAME, TABLE_NAME, LOG_NAME = "plan.yaml", "test_metrics.json", "table.json", "log.txt"


class AblationError(Exception):
    """A run of the table that failed; the message names its log."""


class Plan(BaseModel):
    """What to compare."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: dict[str, Any]
    """Settings that all variants share."""
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    teacher: str | None = None
    split: str = "test"
    costs: bool = False
    """Whether the table has the costs of training."""
    claims: tuple[Annotated[Claim, Field(discriminator="kind")], ...] = ()

    def teacher_of(self, variant: str) -> str | None:
        """The variant that teaches this one; None for one that learns from labels alone."""
        name = merge_settings(self.base, self.variants[variant]).get("method", {}).get("name")
        return self.variants[variant].get("teacher", self.teacher) if name in TAUGHT_METHODS else None


class Run(BaseModel):
    """One variant with one seed."""

    model_config = ConfigDict(frozen=True)

    variant: str
    seed: int
    folder: Path
    config: TrainConfig


def load_plan(path: Path, overrides: list[str]) -> Plan:
    """Read a plan; overrides change what all variants share. Raises ConfigError."""
    tree = read_tree(path)
    own = {key: tree.pop(key) for key in ("variants", "teacher", "split", "costs", "claims") if key in tree}
    for override in overrides:
        apply_override(tree, override)
    try:
        plan = Plan(base=tree, **own)
    except ValidationError as error:
        raise ConfigError(f"{path} is no plan of an ablation: {error}") from None
    for teacher in {plan.teacher, *map(plan.teacher_of, plan.variants)} - {None, *plan.variants}:
        if "/" not in str(teacher):
            known = ", ".join(plan.variants)
            raise ConfigError(f"{path}: teacher {teacher} is none of the variants {known}, nor the folder of a run")
    return plan


def plan_runs(plan: Plan, seeds: list[int], out: Path, only: list[str] | None = None) -> list[Run]:
    """Every variant with every seed, teachers first; with `only`, those and their teachers. Raises ConfigError."""
    unknown = set(only or ()) - set(plan.variants)
    if unknown:
        raise ConfigError(f"unknown variant {', '.join(sorted(unknown))}; known: {', '.join(plan.variants)}")
    teachers = {plan.teacher_of(name) for name in only or plan.variants}
    chosen = [name for name in plan.variants if not only or name in only or name in teachers]
    chosen.sort(key=lambda name: name not in teachers)
    return [_run_of(plan, variant, seed, out) for variant in chosen for seed in seeds]


def _run_of(plan: Plan, variant: str, seed: int, out: Path) -> Run:
    own = {key: value for key, value in plan.variants[variant].items() if key != "teacher"}
    tree = merge_settings(plan.base, own)
    tree |= {"name": variant, "seed": seed}
    if tree.get("method", {}).get("name") in TAUGHT_METHODS:
        teacher = plan.teacher_of(variant)
        if teacher is None:
            raise ConfigError(f"variant {variant} needs a teacher: name one of the variants")
        run = out / f"{teacher}_seed{seed}" if teacher in plan.variants else teacher
        tree["method"] = {"teacher": str(run)} | tree["method"]
    config = parse_config(tree, f"variant {variant}")
    return Run(variant=variant, seed=seed, folder=out / f"{variant}_seed{seed}", config=config)


def run_plan(
    plan: Plan, runs: list[Run], jobs: int = 1, report: Any = print, limit: int | None = None
) -> dict[str, Any]:
    """Train and score what is not done yet, `jobs` at a time; returns the table.

    Raises AblationError, DataError, CheckpointError.
    """
    teachers = {plan.teacher_of(name) for name in plan.variants}
    for wave in (
        [run for run in runs if run.variant in teachers],
        [run for run in runs if run.variant not in teachers],
    ):
        with ThreadPoolExecutor(jobs) as pool:
            # The memory of a run can be told only in a process of its own.
            here = jobs == 1 and not plan.costs and all(run.config.machine.devices == 1 for run in runs)
            for run in map(_train_here, wave) if here else pool.map(_train_apart, wave):
                if not (run.folder / SCORES_NAME).is_file():
                    _score(run, plan.split, limit)
                mean = json.loads((run.folder / SCORES_NAME).read_text())["mean"]
                report(f"{run.variant}, seed {run.seed}: mean mIoU {mean:.2f}")
    return table(runs, costs=plan.costs)


def _train_here(run: Run) -> Run:
    """In this process, unless it has been done."""
    if not (run.folder / METRICS_NAME).is_file():
        train(run.config, run.folder, resume=True)
    return run


def _train_apart(run: Run) -> Run:
    """In a process of its own, unless it has been done."""
    if (run.folder / METRICS_NAME).is_file():
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
        raise AblationError(f"{run.variant}, seed {run.seed} failed ({log}): {' '.join(last)}")
    return run


def _score(run: Run, split: str, limit: int | None) -> None:
    if split == run.config.data.val_split and limit is None:  # which training has scored at its end
        metrics = json.loads((run.folder / METRICS_NAME).read_text())
        metrics |= missing_metrics(metrics["miou"])
    else:
        options = EvaluationOptions(split=split, limit=limit, pictures=0)
        metrics = evaluate_fully(find_checkpoint(run.folder), options, show_progress=False).metrics
    partial = run.folder / f"{SCORES_NAME}.partial"
    partial.write_text(json.dumps(metrics, indent=2) + "\n")
    partial.replace(run.folder / SCORES_NAME)


def table(runs: list[Run], *, costs: bool = False) -> dict[str, Any]:
    """Per variant, over its seeds: mean and standard deviation of the mean over subsets, and of each subset.

    `costs`: and of minutes of training, millions of weights trained and deployed, and megabytes of memory.
    """
    rows: dict[str, Any] = {}
    for variant in dict.fromkeys(run.variant for run in runs):
        done = [run for run in runs if run.variant == variant and (run.folder / SCORES_NAME).is_file()]
        scores = [json.loads((run.folder / SCORES_NAME).read_text()) for run in done]
        if not scores:
            continue
        figures = {"mean": [s["mean"] for s in scores], "EMM": [s["emm"] for s in scores]}
        figures |= {subset: [s["miou"][subset] for s in scores] for subset in scores[0]["miou"]}
        if costs:
            spent = [_costs(run) for run in done]
            figures |= {name: [cost[name] for cost in spent] for name in spent[0]}
        rows[variant] = {
            "seeds": [run.seed for run in done],
            **{name: _mean_and_spread(values) for name, values in figures.items()},
        }
    return rows


def _costs(run: Run) -> dict[str, float]:
    """What it takes to get both networks, the teacher's training included."""
    folders = [run.folder]
    if isinstance(run.config.method, TaughtConfig):
        folders.append(run.config.method.teacher)
    spent = [json.loads((folder / METRICS_NAME).read_text())["cost"] for folder in folders]
    clock = "cpu_s" if run.config.machine.accelerator == "cpu" else "elapsed_s"
    return {
        "train_min": sum(cost[clock] for cost in spent) / 60,
        "parameters_m": sum(cost["parameters"] for cost in spent) / 1e6,
        "deployed_m": spent[0]["deployed_parameters"] / 1e6,
        "peak_mb": max(cost["peak_memory_mb"] for cost in spent),
    }


def _mean_and_spread(values: list[float]) -> dict[str, float]:
    """The standard deviation is that of a sample; 0 for one seed, which says nothing of the spread."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return {"mean": round(float(np.mean(values)), 2), "std": round(float(spread), 2)}


def markdown(rows: dict[str, Any], title: str, verdicts: Sequence[Verdict] = ()) -> str:
    """The table as Markdown: mean ± standard deviation over the seeds; then what became of the claims."""
    names = [name for name in next(iter(rows.values())) if name != "seeds"]
    lines = [title, "", "| method | seeds | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for variant, figures in rows.items():
        cells = " | ".join(f"{figures[name]['mean']:.1f} ± {figures[name]['std']:.1f}" for name in names)
        lines.append(f"| {variant} | {len(figures['seeds'])} | {cells} |")
    return "\n".join([*lines, *([""] if verdicts else []), *(f"- {verdict}" for verdict in verdicts), ""])
