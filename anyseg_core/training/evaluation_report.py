"""The whole evaluation of a checkpoint, and its report: JSON, Markdown, and HTML with plots and pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from anyseg_core.data.mixture import Mixture
from anyseg_core.data.sample import SegmentationDataset
from anyseg_core.html_report import render_report
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.base import SegmentationModel
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.training.checkpoint import TrainingState, find_checkpoint, load_model
from anyseg_core.training.evaluation import (
    ALL,
    best_device,
    calibration_metrics,
    class_iou,
    decide_labels,
    present_subsets,
    score_groups,
    score_mixture,
    subset_logits,
    subset_name,
    summarise,
    summarise_mixture,
)
from anyseg_core.training.robustness import UMMSS, missing_metrics, score_robustness, score_ummss
from anyseg_core.training.same_meaning import open_same

Image = NDArray[np.uint8]
LETTERS = {"camera": "C", "depth": "D", "event": "E", "lidar": "L"}
_PICTURE_PX = 176
"""Width of a picture in the grids."""


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


def evaluate_fully(checkpoint: Path, options: EvaluationOptions, *, show_progress: bool = True) -> Evaluation:
    """Score a checkpoint, or a run's newest, on every subset, group and damage. Raises CheckpointError, DataError."""
    checkpoint = find_checkpoint(checkpoint)
    model, state = load_model(checkpoint)
    model.to(best_device())
    dataset = _dataset(state, options)
    stride, released = state.config.model.label_stride, options.released_protocol
    names = [entry.name for entry in state.classes]
    chosen = _spread(len(dataset), min(len(dataset), options.limit or len(dataset)))
    metrics: dict[str, Any] = {
        "checkpoint": f"{state.config.name}, step {state.step}, git {state.git_revision}",
        "data": dataset.description + (f", {len(chosen)} of them scored" if len(chosen) < len(dataset) else ""),
        "protocol": "released" if released else "classes in the ground truth",
    }
    if isinstance(dataset, Mixture):
        metrics |= _mixture_metrics(model, dataset, stride, chosen, show_progress=show_progress)
        return Evaluation(metrics, model, state, dataset, min(options.pictures, len(dataset)))
    groups, reliability = score_groups(model, dataset, stride, chosen, show_progress=show_progress)
    metrics |= summarise(groups[ALL], names, released_protocol=released) | calibration_metrics(reliability)
    metrics["iou_by_subset"] = {subset: class_iou(matrix, names) for subset, matrix in groups[ALL].items()}
    metrics |= {} if released else missing_metrics(metrics["miou"])
    metrics["groups"] = {
        group: {key: value for key, value in summarise(m, names, released_protocol=released).items() if key != "iou"}
        for group, m in sorted(groups.items())
        if group != ALL
    }
    if options.robustness:
        score = score_ummss if released else score_robustness
        metrics |= score(model, dataset, stride, chosen, show_progress=show_progress)
    return Evaluation(metrics, model, state, dataset, min(options.pictures, len(dataset)))


def _mixture_metrics(
    model: SegmentationModel, mixture: Mixture, stride: int, chosen: list[int], *, show_progress: bool
) -> dict[str, Any]:
    """Every part in its own classes; samples that lack sensors say nothing about a missing one."""
    scores = score_mixture(model, mixture, stride, chosen, show_progress=show_progress)
    nothing_missing = {"emm": None, "expected_emm": {}, "groups": {}, "iou_by_subset": {}}
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
    grids = [_grid(evaluation, index) for index in _spread(len(evaluation.dataset), evaluation.pictures)]
    page = render_report(
        Path(__file__).with_name("evaluation.html.j2"),
        metrics=metrics,
        letters=letters,
        bars=_as_url(plot_bars(metrics["miou"])),
        heat=_as_url(plot_heat_map(metrics["iou_by_subset"])) if metrics["iou_by_subset"] else "",
        calibration=_as_url(plot_calibration(metrics["calibration"], metrics["ece"])),
        class_tables=class_tables(metrics),
        grids=[{"name": name, "picture": _as_url(picture)} for name, picture in grids],
        classes=evaluation.state.classes,
        command=command,
    )
    (folder / "report.html").write_text(page)
    return folder / "report.html"


def letters(subset: str) -> str:
    """`camera+depth` -> `CD`."""
    return "".join(LETTERS[name] for name in subset.split("+"))


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


# --- plots and pictures ---------------------------------------------------------------------------------------


def plot_bars(miou: dict[str, float]) -> Image:
    """A bar per subset, coloured by the number of sensors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.32 * len(miou) + 1.1), layout="constrained")
    axes = figure.subplots()
    shades = ["#c6dbef", "#6baed6", "#2171b5", "#08306b"]
    colors = [shades[min(subset.count("+"), 3)] for subset in miou]
    bars = axes.barh([subset.replace("+", " + ") for subset in miou], list(miou.values()), color=colors)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    mean = float(np.mean(list(miou.values())))
    axes.axvline(mean, color="#d94801", linestyle="--", linewidth=1.2, label=f"mean {mean:.1f}")
    axes.invert_yaxis()
    axes.set(xlabel="mIoU, %", xlim=(0, max(5.0, 1.12 * max(miou.values()))))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return _pixels(figure)


def plot_heat_map(iou_by_subset: dict[str, dict[str, float]]) -> Image:
    """IoU of each class (rows) with each subset (columns)."""
    from matplotlib.figure import Figure

    classes = list(next(iter(iou_by_subset.values())))
    values = np.array([[iou[name] for iou in iou_by_subset.values()] for name in classes])  # [K, S]
    figure = Figure(figsize=(1.6 + 0.52 * len(iou_by_subset), 1.0 + 0.29 * len(classes)), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(iou_by_subset)), [letters(subset) for subset in iou_by_subset], rotation=60)
    axes.set_yticks(range(len(classes)), classes)
    for (row, col), value in np.ndenumerate(values):
        axes.text(col, row, f"{value:.0f}", ha="center", va="center", fontsize=7.5, color="w" if value < 60 else "k")
    figure.colorbar(picture, label="IoU, %", pad=0.01)
    return _pixels(figure)


def plot_calibration(curves: dict[str, list[list[float]]], ece: dict[str, float]) -> Image:
    """How often a confidence is right: a line per subset, the diagonal is honest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1)
    for name, curve in curves.items():
        said, right, _ = zip(*curve, strict=True) if curve else ((), (), ())
        axes.plot(said, right, marker=".", linewidth=1.2, label=f"{name}, ECE {ece[name]:.1f} %")
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _pixels(figure)


def _pixels(figure: Any) -> Image:
    """A matplotlib figure as RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@torch.inference_mode()
def _grid(evaluation: Evaluation, index: int) -> tuple[str, Image]:
    """Name and picture of a sample: its modalities and the truth, then the labels from each subset, row by row."""
    dataset, state = evaluation.dataset, evaluation.state
    sample = dataset[index]
    palette = np.zeros((256, 3), np.uint8)
    palette[len(state.classes) : UNLABELLED] = 160  # coarse labels of a mixture
    palette[: len(state.classes)] = [entry.color for entry in state.classes]
    modalities = [spec.modality for spec in dataset.inputs]
    pictures = [(str(modality), np.array(image)) for modality, image in zip(modalities, sample.images, strict=True)]
    pictures.append(("ground truth", palette[sample.labels]))
    device = next(evaluation.model.parameters()).device
    images = torch.from_numpy(np.array(sample.images)).to(device)
    if isinstance(evaluation.model, AnymodalSegmenter) and evaluation.model.gates is not None:
        pictures += _share_pictures(evaluation.model.shares(images).cpu().numpy(), modalities)
    answers = dict(subset_logits(evaluation.model, images))
    for subset in present_subsets(sample):
        logits = answers[subset]
        labels = palette[decide_labels(logits, dataset.size, state.config.model.label_stride)]
        labels[sample.labels == UNLABELLED] = 0  # where nothing is scored
        pictures.append((subset_name(subset, tuple(modalities)), labels))
    return sample.name, tile(pictures, columns=len(modalities) + 1)


def _share_pictures(shares: NDArray[np.float32], modalities: Sequence[Sensor]) -> list[tuple[str, Image]]:
    """Who is believed where, by shares [M, h, w]: a picture of each modality, white = it alone, and of the first."""
    gray = np.rint(255 * shares).astype(np.uint8)
    pictures = [
        (f"{modality!s}: {100 * share.mean():.0f} % of the weight", np.repeat(picture[..., None], 3, axis=2))
        for modality, share, picture in zip(modalities, shares, gray, strict=True)
    ]
    hues = np.linspace(0, 180, len(modalities), endpoint=False).astype(np.uint8)
    most = np.full((*shares.shape[1:], 3), 255, np.uint8)
    most[..., 0] = hues[shares.argmax(axis=0)]
    return [*pictures, ("most weight (a colour each)", cast("Image", cv2.cvtColor(most, cv2.COLOR_HSV2RGB)))]


def tile(pictures: list[tuple[str, Image]], columns: int, width: int = _PICTURE_PX) -> Image:
    """Titled pictures of one size in rows."""
    height = round(width * pictures[0][1].shape[0] / pictures[0][1].shape[1])
    cells = []
    for title, picture in pictures:
        cell = np.full((height + 22, width + 6, 3), 255, np.uint8)
        cell[20 : 20 + height, 3 : 3 + width] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        scale = min(0.42, 0.42 * width / (7.6 * len(title)))
        cv2.putText(cell, title, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, scale, (40, 40, 40), 1, cv2.LINE_AA)
        cells.append(cell)
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return np.vstack(rows)


def _as_url(image: Image) -> str:
    _, data = cv2.imencode(".png", image[..., ::-1])
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def _spread(count: int, wanted: int) -> list[int]:
    """Indices of samples, evenly spread."""
    return np.linspace(0, count - 1, wanted).round().astype(int).tolist() if wanted else []
