"""Plots and pictures of an evaluation, as RGB images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from anyseg_core.data.sample import SegmentationDataset
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.base import SegmentationModel
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.sensor_shares import shares_picture
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.training.evaluation import decide_labels, present_subsets, subset_logits, subset_name

Image = NDArray[np.uint8]
LETTERS = {"camera": "C", "depth": "D", "event": "E", "lidar": "L"}
_PICTURE_PX = 176
"""Width of a picture in the grids."""


def letters(subset: str) -> str:
    """`camera+depth` -> `CD`; a sensor of another name keeps it: `camera+thermal` -> `C+thermal`."""
    names = subset.split("+")
    return ("" if all(name in LETTERS for name in names) else "+").join(LETTERS.get(name, name) for name in names)


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


def plot_confusion(percent: Sequence[Sequence[float]], classes: Sequence[str]) -> Image:
    """What each class (rows) is taken for (columns), in percent of its pixels; without classes that do not occur."""
    from matplotlib.figure import Figure

    values = np.array(percent)
    occurs = values.sum(axis=1) + values.sum(axis=0) > 0
    values, names = values[occurs][:, occurs], [name for name, there in zip(classes, occurs, strict=True) if there]
    side = 1.8 + 0.42 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(values, cmap="viridis", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="ground truth")
    for (row, col), value in np.ndenumerate(values):
        if value >= 1:
            axes.text(col, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color="w" if value < 60 else "k")
    figure.colorbar(picture, label="% of the class's pixels", pad=0.01, shrink=0.8)
    return _pixels(figure)


def plot_curves(steps: Sequence[int], curves: Mapping[str, Sequence[float | None]], ylabel: str) -> Image:
    """A line per name over the steps of training; None where there is no value."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.5 + max(3.2, 0.19 * len(curves))), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(curves.items()):
        heights = [np.nan if value is None else value for value in values]
        axes.plot(
            steps,
            heights,
            marker=".",
            linewidth=1.2,
            label=name,
            color=f"C{number % 10}",
            linestyle=_DASHES[number // 10 % len(_DASHES)],
        )
    axes.set(xlabel="step", ylabel=ylabel, ylim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _pixels(figure)


_DASHES = ("-", "--", ":", "-.")
"""The ten colours of lines come again with another dash."""


@torch.inference_mode()
def sample_grid(
    model: SegmentationModel,
    dataset: SegmentationDataset,
    colors: Sequence[tuple[int, int, int]],
    label_stride: int,
    index: int,
) -> tuple[str, Image]:
    """Name and picture of a sample: its modalities and the truth, then the labels from each subset, row by row."""
    sample = dataset[index]
    palette = np.zeros((256, 3), np.uint8)
    palette[len(colors) : UNLABELLED] = 160  # coarse labels of a mixture
    palette[: len(colors)] = colors
    modalities = [spec.modality for spec in dataset.inputs]
    pictures = [(str(modality), np.array(image)) for modality, image in zip(modalities, sample.images, strict=True)]
    pictures.append(("ground truth", palette[sample.labels]))
    device = next(model.parameters()).device
    images = torch.from_numpy(np.array(sample.images)).to(device)
    if isinstance(model, AnymodalSegmenter) and model.gates is not None:
        pictures += _share_pictures(model.shares(images).cpu().numpy(), modalities)
    answers = dict(subset_logits(model, images))
    for subset in present_subsets(sample):
        labels = palette[decide_labels(answers[subset], dataset.size, label_stride)]
        labels[sample.labels == UNLABELLED] = 0  # where nothing is scored
        pictures.append((subset_name(subset, tuple(modalities)), labels))
    return sample.name, tile(pictures, columns=len(modalities) + 1)


def _share_pictures(shares: NDArray[np.float32], modalities: Sequence[Sensor]) -> list[tuple[str, Image]]:
    """Who counts where, by shares [M, h, w]: a picture of each modality, white = it alone, and one of the strongest."""
    gray = np.rint(255 * shares).astype(np.uint8)
    pictures = [
        (f"{modality!s}: {100 * share.mean():.0f} % of the weight", np.repeat(picture[..., None], 3, axis=2))
        for modality, share, picture in zip(modalities, shares, gray, strict=True)
    ]
    strongest = shares_picture(dict(zip(modalities, shares, strict=True)), modalities)
    return [*pictures, ("most weight (a colour each)", strongest)]


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
