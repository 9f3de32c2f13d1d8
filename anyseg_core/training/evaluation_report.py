"""The whole evaluation of a checkpoint, and its report: JSON, Markdown, and HTML with plots and pictures."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from anyseg_core.data.mixture import Mixture
from anyseg_core.data.sample import SegmentationDataset, evenly_spread
from anyseg_core.html_report import render_report
from anyseg_core.models.base import SegmentationModel
from anyseg_core.training.checkpoint import TrainingState, find_checkpoint, load_model
from anyseg_core.training.evaluation import (
    ALL,
    best_device,
    calibration_metrics,
    class_iou,
    confusion_metrics,
    score_groups,
    score_mixture,
    summarise,
    summarise_mixture,
)
from anyseg_core.training.evaluation_plots import (
    Image,
    letters,
    plot_bars,
    plot_calibration,
    plot_confusion,
    plot_curves,
    plot_heat_map,
    sample_grid,
)
from anyseg_core.training.robustness import UMMSS, missing_metrics, score_robustness, score_ummss
from anyseg_core.training.run_log import curves, read_history
from anyseg_core.training.same_meaning import open_same


@dataclass(frozen=True)
class EvaluationOptions:
    """What to score, and how."""

    split: str | None = None
    """Default: the run's validation split."""
    data_root: Path | None = None
    """Another data set of the same kind."""
    limit: int | None = None
    """Only so many samples, evenly spread."""
    robustness: bool = False
    """RMM and NM besides: several times the work."""
    released_protocol: bool = False
    """mIoU as the release computes it, MUSES read as it reads it, and robustness as UMMSS's code has it: to compare
    with their tables."""
    pictures: int = 4
    """Samples shown in the report."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The figures of an evaluation, and what its pictures are made of."""

    metrics: dict[str, Any]
    """In percent; what goes into the JSON file."""
    model: SegmentationModel
    state: TrainingState
    dataset: SegmentationDataset
    pictures: int
    history: list[dict[str, Any]]
    """The run's validations during the training, `run_log.read_history`."""


def evaluate_fully(checkpoint: Path, options: EvaluationOptions, *, show_progress: bool = True) -> Evaluation:
    """Score a checkpoint, or a run's best, on every subset, group and damage. Raises CheckpointError, DataError."""
    checkpoint = find_checkpoint(checkpoint)
    history = read_history(checkpoint.parents[1])
    model, state = load_model(checkpoint)
    model.to(best_device())
    dataset = _dataset(state, options)
    stride, released = state.config.model.label_stride, options.released_protocol
    names = [entry.name for entry in state.classes]
    chosen = evenly_spread(len(dataset), options.limit or len(dataset))
    metrics: dict[str, Any] = {
        "checkpoint": f"{state.config.name}, step {state.step}, git {state.git_revision}",
        "data": dataset.description + (f", {len(chosen)} of them scored" if len(chosen) < len(dataset) else ""),
        "protocol": "released" if released else "classes in the ground truth",
    }
    if isinstance(dataset, Mixture):
        metrics |= _mixture_metrics(model, dataset, stride, chosen, show_progress=show_progress)
        return Evaluation(metrics, model, state, dataset, min(options.pictures, len(dataset)), history)
    groups, reliability = score_groups(model, dataset, stride, chosen, show_progress=show_progress)
    metrics |= summarise(groups[ALL], names, released_protocol=released) | calibration_metrics(reliability)
    metrics["iou_by_subset"] = {subset: class_iou(matrix, names) for subset, matrix in groups[ALL].items()}
    metrics["confusion"] = confusion_metrics(groups[ALL], names)
    metrics |= {} if released else missing_metrics(metrics["miou"])
    metrics["groups"] = {
        group: {key: value for key, value in summarise(m, names, released_protocol=released).items() if key != "iou"}
        for group, m in sorted(groups.items())
        if group != ALL
    }
    if options.robustness:
        score = score_ummss if released else score_robustness
        metrics |= score(model, dataset, stride, chosen, show_progress=show_progress)
    return Evaluation(metrics, model, state, dataset, min(options.pictures, len(dataset)), history)


def _mixture_metrics(
    model: SegmentationModel, mixture: Mixture, stride: int, chosen: list[int], *, show_progress: bool
) -> dict[str, Any]:
    """Every part in its own classes; samples that lack sensors say nothing about a missing one."""
    scores = score_mixture(model, mixture, stride, chosen, show_progress=show_progress)
    nothing_missing = {"emm": None, "expected_emm": {}, "groups": {}, "iou_by_subset": {}, "confusion": {}}
    return summarise_mixture(scores) | nothing_missing


def _dataset(state: TrainingState, options: EvaluationOptions) -> SegmentationDataset:
    changes: dict[str, Any] = {}
    if options.data_root:
        changes["root"] = options.data_root
    if options.released_protocol and state.config.data.kind in ("deliver", "muses"):
        changes["released_protocol"] = True
        changes |= {"source": "auto"} if state.config.data.kind == "muses" else {}
    data = state.config.data.model_copy(update=changes)
    return open_same(state, data, options.split or data.val_split)


def write_report(evaluation: Evaluation, folder: Path, command: str) -> Path:
    """Write metrics.json, report.md and report.html to `folder`; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = evaluation.metrics
    (folder / "metrics.json").write_text(json.dumps(metrics | {"command": command}, indent=2) + "\n")
    (folder / "report.md").write_text(markdown(metrics, command))
    state = evaluation.state
    colors, stride = [entry.color for entry in state.classes], state.config.model.label_stride
    chosen = evenly_spread(len(evaluation.dataset), evaluation.pictures)
    grids = [sample_grid(evaluation.model, evaluation.dataset, colors, stride, index) for index in chosen]
    page = render_report(
        Path(__file__).with_name("evaluation.html.j2"),
        metrics=metrics,
        letters=letters,
        bars=_as_url(plot_bars(metrics["miou"])),
        heat=_as_url(plot_heat_map(metrics["iou_by_subset"])) if metrics["iou_by_subset"] else "",
        calibration=_as_url(plot_calibration(metrics["calibration"], metrics["ece"])),
        confusion=_as_url(plot_confusion(**metrics["confusion"])) if metrics["confusion"] else "",
        curves=_curve_pictures(evaluation.history),
        class_tables=class_tables(metrics),
        grids=[{"name": name, "picture": _as_url(picture)} for name, picture in grids],
        classes=evaluation.state.classes,
        command=command,
    )
    (folder / "report.html").write_text(page)
    return folder / "report.html"


def _curve_pictures(history: list[dict[str, Any]]) -> list[str]:
    """How mIoU per subset and IoU per class went during the training; nothing without two validations."""
    if len(history) < 2:
        return []
    steps = [entry["step"] for entry in history]
    drawn = [(curves(history, "miou"), "mIoU, %"), (curves(history, "iou"), "IoU with all sensors, %")]
    return [_as_url(plot_curves(steps, found, label)) for found, label in drawn if found]


def class_tables(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    """IoU of each class by part and subset, of a mixture, whose parts have classes of their own; else nothing."""
    return {} if metrics["iou_by_subset"] else metrics["iou"]


def markdown(metrics: dict[str, Any], command: str) -> str:
    """The figures as Markdown tables."""
    lines = [f"# {metrics['checkpoint']}", "", f"{metrics['data']}. mIoU in percent ({metrics['protocol']}).", ""]
    lines += ["| sensors alive | mIoU |", "|---|---|"]
    lines += [f"| {subset} | {value:.2f} |" for subset, value in metrics["miou"].items()]
    lines += [f"| **mean** | **{metrics['mean']:.2f}** |"]
    if rows := robustness_rows(metrics):
        lines += ["", "| robustness | mIoU |", "|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in rows]
    lines += ["", "| confidence | ECE, % |", "|---|---|"]
    lines += [f"| {subset} | {value:.2f} |" for subset, value in metrics["ece"].items()]
    if metrics["groups"]:
        subsets = list(metrics["miou"])
        lines += ["", "| group | mean | " + " | ".join(map(letters, subsets)) + " |", "|---" * (len(subsets) + 2) + "|"]
        for group, values in metrics["groups"].items():
            cells = " | ".join(f"{values['miou'][subset]:.1f}" for subset in subsets)
            lines.append(f"| {group} | {values['mean']:.1f} | {cells} |")
    lines += _class_lines(metrics)
    return "\n".join([*lines, "", f"Command: `{command}`", ""])


def _class_lines(metrics: dict[str, Any]) -> list[str]:
    """IoU of each class: a column per subset, or, of a mixture, a table per part and subset."""
    if columns := metrics["iou_by_subset"]:
        lines = ["", "| class | " + " | ".join(map(letters, columns)) + " |", "|---" * (len(columns) + 1) + "|"]
        rows = ((name, " | ".join(f"{iou[name]:.1f}" for iou in columns.values())) for name in metrics["iou"])
        return lines + [f"| {name} | {cells} |" for name, cells in rows]
    lines = []
    for part, iou in class_tables(metrics).items():
        lines += ["", f"| {part} | IoU |", "|---|---|", *(f"| {name} | {value:.1f} |" for name, value in iou.items())]
    return lines


def robustness_rows(metrics: dict[str, Any]) -> list[tuple[str, float]]:
    """What there is of EMM, its expectations, RMM and NM, in words that name the protocol."""
    protocol = metrics.get("robustness", "")
    missing = "zeroed, all combinations" if protocol == UMMSS else "removed, at least one modality missing"
    emm = metrics.get("emm")
    rows = [] if emm is None else [(f"EMM ({protocol}): {missing}", emm)]
    expected = metrics.get("expected_emm", {})
    rows += [(f"E[EMM] ({protocol}), each missing with p = {p}", value) for p, value in expected.items()]
    rows += [(f"RMM ({protocol}), elements zeroed: {share}", value) for share, value in metrics.get("rmm", {}).items()]
    for share, values in metrics.get("expected_rmm", {}).items():
        rows += [(f"E[RMM] ({protocol}), zeroed: {share}, p = {p}", value) for p, value in values.items()]
    return rows + [(f"NM ({protocol}), noise: {level}", value) for level, value in metrics.get("nm", {}).items()]


def _as_url(image: Image) -> str:
    _, data = cv2.imencode(".png", image[..., ::-1])
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
