"""A table of methods: the same data, budget and seeds for each, run after run, resumable, with its spread.

A plan is a YAML file: a training configuration and what each variant changes in it.

    extends: vehicle_sim.yaml         the configuration that all share
    teacher: full                     the variant that teaches where a method wants a teacher
    split: test                       scored on, after training; worlds that no run has seen
    variants:
      full: {method: {name: supervised, anymodal_dropout: false}}
      anyseg: {method: {name: anyseg, variant: released}}

Each run is in `<out>/<variant>_seed<seed>`, with checkpoints; killed, it goes on where it was. Several runs at a time
are processes of their own, and so are runs on several devices.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    own = {key: tree.pop(key) for key in ("variants", "teacher", "split") if key in tree}
    for override in overrides:
        apply_override(tree, override)
    try:
        plan = Plan(base=tree, **own)
    except ValidationError as error:
        raise ConfigError(f"{path} is no plan of an ablation: {error}") from None
    if plan.teacher is not None and plan.teacher not in plan.variants:
        raise ConfigError(f"{path}: teacher {plan.teacher} is none of the variants {', '.join(plan.variants)}")
    return plan


def plan_runs(plan: Plan, seeds: list[int], out: Path, only: list[str] | None = None) -> list[Run]:
    """Every variant with every seed, teachers first; with `only`, those and the teacher. Raises ConfigError."""
    unknown = set(only or ()) - set(plan.variants)
    if unknown:
        raise ConfigError(f"unknown variant {', '.join(sorted(unknown))}; known: {', '.join(plan.variants)}")
    chosen = [name for name in plan.variants if not only or name in only or name == plan.teacher]
    chosen.sort(key=lambda name: name != plan.teacher)
    return [_run_of(plan, variant, seed, out) for variant in chosen for seed in seeds]


def _run_of(plan: Plan, variant: str, seed: int, out: Path) -> Run:
    tree = merge_settings(plan.base, plan.variants[variant])
    tree |= {"name": variant, "seed": seed}
    if tree.get("method", {}).get("name") in ("anyseg", "prototype"):
        if plan.teacher is None:
            raise ConfigError(f"variant {variant} needs a teacher: name one of the variants")
        teacher = str(out / f"{plan.teacher}_seed{seed}")
        tree["method"] = {"teacher": teacher} | tree["method"]
    config = parse_config(tree, f"variant {variant}")
    return Run(variant=variant, seed=seed, folder=out / f"{variant}_seed{seed}", config=config)


def run_plan(
    plan: Plan, runs: list[Run], jobs: int = 1, report: Any = print, limit: int | None = None
) -> dict[str, Any]:
    """Train and score what is not done yet, `jobs` at a time; returns the table.

    Raises AblationError, DataError, CheckpointError.
    """
    for wave in (
        [run for run in runs if run.variant == plan.teacher],
        [run for run in runs if run.variant != plan.teacher],
    ):
        with ThreadPoolExecutor(jobs) as pool:
            here = jobs == 1 and all(run.config.machine.devices == 1 for run in runs)
            for run in map(_train_here, wave) if here else pool.map(_train_apart, wave):
                if not (run.folder / SCORES_NAME).is_file():
                    _score(run, plan.split, limit)
                mean = json.loads((run.folder / SCORES_NAME).read_text())["mean"]
                report(f"{run.variant}, seed {run.seed}: mean mIoU {mean:.2f}")
    return table(runs)


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
    checkpoint = find_checkpoint(run.folder)
    options = EvaluationOptions(split=split, limit=limit, pictures=0)
    metrics = evaluate_fully(checkpoint, options, show_progress=False).metrics
    partial = run.folder / f"{SCORES_NAME}.partial"
    partial.write_text(json.dumps(metrics, indent=2) + "\n")
    partial.replace(run.folder / SCORES_NAME)


def table(runs: list[Run]) -> dict[str, Any]:
    """Per variant, over its seeds: mean and standard deviation of the mean over subsets, and of each subset."""
    rows: dict[str, Any] = {}
    for variant in dict.fromkeys(run.variant for run in runs):
        files = [run.folder / SCORES_NAME for run in runs if run.variant == variant]
        scores = [json.loads(file.read_text()) for file in files if file.is_file()]
        if not scores:
            continue
        figures = {"mean": [s["mean"] for s in scores], "EMM": [s["emm"] for s in scores]}
        figures |= {subset: [s["miou"][subset] for s in scores] for subset in scores[0]["miou"]}
        rows[variant] = {
            "seeds": [run.seed for run in runs if run.variant == variant][: len(scores)],
            **{name: _mean_and_spread(values) for name, values in figures.items()},
        }
    return rows


def _mean_and_spread(values: list[float]) -> dict[str, float]:
    """The standard deviation is that of a sample; 0 for one seed, which says nothing of the spread."""
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return {"mean": round(float(np.mean(values)), 2), "std": round(float(spread), 2)}


def markdown(rows: dict[str, Any], title: str) -> str:
    """The table as Markdown: mean ± standard deviation over the seeds."""
    names = [name for name in next(iter(rows.values())) if name != "seeds"]
    lines = [title, "", "| method | seeds | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for variant, figures in rows.items():
        cells = " | ".join(f"{figures[name]['mean']:.1f} ± {figures[name]['std']:.1f}" for name in names)
        lines.append(f"| {variant} | {len(figures['seeds'])} | {cells} |")
    return "\n".join([*lines, ""])
