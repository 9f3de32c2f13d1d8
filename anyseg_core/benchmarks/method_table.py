"""The table of a plan: every figure with its 95 % interval, and the paired differences from the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyseg_core.benchmarks.ablation import SCORES_NAME, read_scores
from anyseg_core.benchmarks.claims import Rows, Verdict
from anyseg_core.benchmarks.intervals import Difference, estimate, paired_difference
from anyseg_core.benchmarks.plan import Run
from anyseg_core.methods import TaughtConfig
from anyseg_core.training.run_log import read_metrics

TABLE_NAME = "table.json"
COSTS = ("train_min", "parameters_m", "deployed_m", "peak_mb")
"""Minutes of training, millions of weights trained and deployed, megabytes of memory."""


def table(runs: Sequence[Run], *, costs: bool = False) -> dict[str, dict[str, Any]]:
    """Per variant and figure: the mean over the units, its spread and interval, and the value of each unit.

    Figures are the mean over subsets, EMM, each subset's mIoU, and with `costs` what it takes to get the networks. A
    unit is a seed; where there are folds a fold, whose value is the mean over its seeds.
    """
    rows: dict[str, dict[str, Any]] = {}
    for variant in dict.fromkeys(run.variant for run in runs):
        done = [run for run in runs if run.variant == variant and (run.folder / SCORES_NAME).is_file()]
        if done:
            figures = [_figures(run) | (_costs(run, runs) if costs else {}) for run in done]
            rows[variant] = {
                "seeds": sorted({run.seed for run in done}),
                **{name: _summary(done, [of_run[name] for of_run in figures]) for name in figures[0]},
            }
    return rows


def _figures(run: Run) -> dict[str, float]:
    scores = read_scores(run)
    return {"mean": scores["mean"], "EMM": scores["emm"], **scores["miou"]}


def _summary(runs: Sequence[Run], values: Sequence[float]) -> dict[str, Any]:
    by_unit: dict[str, list[float]] = {}
    for run, value in zip(runs, values, strict=True):
        by_unit.setdefault(run.unit, []).append(value)
    units = {unit: float(np.mean(of_unit)) for unit, of_unit in by_unit.items()}
    found = estimate(list(units.values()))
    half_width = None if found.half_width is None else round(found.half_width, 2)
    return {"mean": round(found.mean, 2), "std": round(found.std, 2), "ci95": half_width, "values": units}


def _costs(run: Run, runs: Sequence[Run]) -> dict[str, float]:
    """What it takes to get the networks: training the teacher, and what either continues, included."""
    folders = [run.folder, *_needed(run, {other.folder: other for other in runs})]
    spent = [read_metrics(folder)["cost"] for folder in folders]
    clock = "cpu_s" if run.config.machine.accelerator == "cpu" else "elapsed_s"
    taught = [folders[0], run.config.method.teacher] if isinstance(run.config.method, TaughtConfig) else folders[:1]
    trained = [spent[folders.index(folder)]["parameters"] for folder in taught]
    values = (
        sum(cost[clock] for cost in spent) / 60,
        sum(trained) / 1e6,
        spent[0]["deployed_parameters"] / 1e6,
        max(cost["peak_memory_mb"] for cost in spent),
    )
    return dict(zip(COSTS, values, strict=True))


def _needed(run: Run, by_folder: Mapping[Path, Run]) -> list[Path]:
    """The folders of the runs of this plan, or elsewhere, that a run learned from or continues, and what those need."""
    found: list[Path] = []
    wanted = [run.config.method.teacher] if isinstance(run.config.method, TaughtConfig) else []
    continued = run.config.model.init_from if run.config.model.init_head else None
    if continued is not None and continued in by_folder:
        wanted.append(by_folder[continued].folder)
    for folder in wanted:
        found += [folder, *(_needed(by_folder[folder], by_folder) if folder in by_folder else [])]
    return found


def differences(rows: Rows, reference: str) -> dict[str, dict[str, Difference]]:
    """Per variant and figure, but for costs: the paired difference from the reference."""
    found: dict[str, dict[str, Difference]] = {}
    for variant, row in rows.items():
        if variant == reference or reference not in rows:
            continue
        pairs = {
            name: paired_difference(row[name]["values"], rows[reference][name]["values"])
            for name in figure_names(row)
            if name not in COSTS
        }
        found[variant] = {name: pair for name, pair in pairs.items() if pair is not None}
    return found


def figure_names(row: Mapping[str, Any]) -> list[str]:
    """The figures of a row."""
    return [name for name in row if name != "seeds"]


def cell(figure: Mapping[str, Any]) -> str:
    """A figure in a table: mean ± half of the 95 % interval; of one unit the value alone."""
    return f"{figure['mean']:.1f}" + ("" if figure["ci95"] is None else f" ± {figure['ci95']:.1f}")


def markdown(
    rows: Rows, title: str, *, reference: str | None = None, verdicts: Sequence[Verdict] = (), notes: Sequence[str] = ()
) -> str:
    """The table, the differences from the reference, what became of the claims, and notes, as Markdown."""
    names = figure_names(next(iter(rows.values())))
    lines = [title, "", "Mean ± half of the 95 % interval (Student's t) over the units.", ""]
    lines += _header(["method", "units", *names])
    for variant, row in rows.items():
        lines.append(_line([variant, str(len(row["mean"]["values"])), *(cell(row[name]) for name in names)]))
    found = differences(rows, reference) if reference else {}
    if found:
        scored = [name for name in names if name not in COSTS]
        lines += ["", f"Paired differences from {reference}, p of the paired t-test, uncorrected:", ""]
        lines += _header(["method", "units", *scored])
        for variant, row in found.items():
            units = max((difference.estimate.units for difference in row.values()), default=0)
            cells = [str(row[name]) if name in row else "" for name in scored]
            lines.append(_line([variant, str(units), *cells]))
    lines += [""] * bool(verdicts) + [f"- {verdict}" for verdict in verdicts]
    lines += [""] * bool(notes) + [f"- {note}" for note in notes]
    return "\n".join([*lines, ""])


def _header(names: Sequence[str]) -> list[str]:
    return [_line(names), "|---" * len(names) + "|"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
