"""mIoU over every subset of the modalities, as the anymodal papers report it (arXiv 2411.17141)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyseg_core.data.datasets import DataConfig, open_dataset
from anyseg_core.data.deliver import CASES
from anyseg_core.data.deliver import CONDITIONS as DELIVER_CONDITIONS
from anyseg_core.data.mixture import Mixture
from anyseg_core.data.muses import TIMES, WEATHERS
from anyseg_core.data.sample import Sample, SegmentationDataset
from anyseg_core.models.anymodal import select_present, upsample_logits
from anyseg_core.models.base import SegmentationModel, Subset, all_subsets
from anyseg_core.runtime import sensors
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.metrics import ConfusionMatrix, Reliability, mean_over_subsets
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.terminal import tracked
from anyseg_core.training.checkpoint import find_checkpoint, load_model
from anyseg_core.training.same_meaning import open_same


def subset_name(subset: Subset, modalities: tuple[Sensor, ...]) -> str:
    """`camera+depth`."""
    return sensors.subset_name(modalities[index] for index in subset)


def subset_logits(model: SegmentationModel, images: Tensor) -> Iterator[tuple[Subset, Tensor]]:
    """Logits [1, h, w, K] of every subset of one sample's modalities, images uint8 [M, H, W, 3]."""
    return model.subset_logits(images)


def decide_labels(logits: Tensor, size: tuple[int, int], label_stride: int) -> NDArray[np.uint8]:
    """Logits [1, h, w, K] -> labels uint8 [H, W], decided on a grid of `label_stride` and repeated."""
    coarse = upsample_logits(logits, (size[0] // label_stride, size[1] // label_stride))
    labels = coarse[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return labels.repeat(label_stride, axis=0).repeat(label_stride, axis=1)


def decide(logits: Tensor, size: tuple[int, int], label_stride: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """As `decide_labels`, and the probability of each label, 0 to 1."""
    coarse = upsample_logits(logits, (size[0] // label_stride, size[1] // label_stride))
    confidence, labels = coarse[0].softmax(dim=0).max(dim=0)
    both = labels.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy()
    return tuple(x.repeat(label_stride, axis=0).repeat(label_stride, axis=1) for x in both)  # type: ignore[return-value]


Groups = dict[str, dict[str, ConfusionMatrix]]
"""Confusion matrices by group of samples and by the subset's name."""
ALL = "all"
"""The group of all samples."""
_CONDITIONS = {*DELIVER_CONDITIONS, *WEATHERS, *TIMES}


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def groups_of(name: str) -> list[str]:
    """The groups of a sample beside `ALL`, by its name: weather, time of day, failure case."""
    parts = name.split("/")
    cases = [case for case in CASES if any(case in part for part in parts[:-1])]
    return [part for part in parts[:-1] if part in _CONDITIONS] + cases


class Scores(NamedTuple):
    """What a network reaches on a data set."""

    groups: Groups
    reliability: dict[str, Reliability]
    """How often its confidence is right on all samples, by the subset's name."""


@torch.inference_mode()
def score_groups(
    model: SegmentationModel,
    dataset: SegmentationDataset,
    label_stride: int,
    indices: Iterable[int] | None = None,
    *,
    show_progress: bool = True,
) -> Scores:
    """One confusion matrix per group of samples and subset of modalities, over whole images."""
    modalities = tuple(spec.modality for spec in dataset.inputs)
    classes = len(dataset.classes)
    groups: Groups = defaultdict(lambda: defaultdict(lambda: ConfusionMatrix(classes)))
    reliability: dict[str, Reliability] = defaultdict(Reliability)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    chosen = list(range(len(dataset)) if indices is None else indices)
    for index in tracked(chosen, "evaluating", len(chosen), show=show_progress):
        sample = dataset[index]
        images = torch.from_numpy(np.array(sample.images)).to(device)
        names = [ALL, *groups_of(sample.name)]
        for subset, logits in subset_logits(model, images):
            matrix, of_subset = ConfusionMatrix(classes), subset_name(subset, modalities)
            predicted, confidence = decide(logits, dataset.size, label_stride)
            matrix.add(sample.labels, predicted)
            known = sample.labels != UNLABELLED
            reliability[of_subset].add(confidence[known], predicted[known] == sample.labels[known])
            for name in names:
                groups[name][of_subset].merge(matrix)
    model.train(was_training)
    return Scores({name: dict(matrices) for name, matrices in groups.items()}, dict(reliability))


def score_subsets(
    model: SegmentationModel,
    dataset: SegmentationDataset,
    label_stride: int,
    indices: Iterable[int] | None = None,
    *,
    show_progress: bool = True,
) -> dict[str, ConfusionMatrix]:
    """One confusion matrix per subset, over all samples, by the subset's name."""
    return score_groups(model, dataset, label_stride, indices, show_progress=show_progress).groups[ALL]


@dataclass
class PartScore:
    """What a network reaches on one part of a mixture with one subset of the sensors."""

    names: tuple[str, ...]
    """The scored classes, in the part's own terms."""
    matrix: ConfusionMatrix
    reliability: Reliability


@torch.inference_mode()
def score_mixture(
    model: SegmentationModel,
    mixture: Mixture,
    label_stride: int,
    indices: Iterable[int] | None = None,
    *,
    show_progress: bool = True,
) -> dict[str, PartScore]:
    """By part and subset of the sensors that its samples have, such as `camvid camera`, each in the part's classes."""
    modalities = tuple(spec.modality for spec in mixture.inputs)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    scores: dict[str, PartScore] = {}
    scorings = [mixture.scoring(number) for number in range(len(mixture.parts))]
    chosen = list(range(len(mixture)) if indices is None else indices)
    for index in tracked(chosen, "evaluating", len(chosen), show=show_progress):
        number, inside = mixture.locate(index)
        sample, scoring = mixture[index], scorings[number]
        labels = scoring.of_label[mixture.parts[number].dataset[inside].labels]
        images = torch.from_numpy(np.array(sample.images)).to(device)
        for subset in present_subsets(sample):
            chosen_ones = torch.tensor([[m in subset for m in range(len(modalities))]])
            logits = model(select_present(images[None], chosen_ones))
            name = f"{mixture.parts[number].name} {subset_name(subset, modalities)}"
            empty = PartScore(scoring.names, ConfusionMatrix(len(scoring.names)), Reliability())
            score = scores.setdefault(name, empty)
            predicted, confidence = decide(logits, labels.shape, label_stride)
            score.matrix.add(labels, scoring.of_class[predicted])
            known = labels != UNLABELLED
            score.reliability.add(confidence[known], scoring.of_class[predicted][known] == labels[known])
    model.train(was_training)
    return scores


def present_subsets(sample: Sample) -> list[Subset]:
    """Every subset of the modalities that a sample has."""
    there = range(len(sample.images)) if sample.present is None else np.flatnonzero(sample.present).tolist()
    return [subset for subset in all_subsets(len(sample.images)) if set(subset) <= set(there)]


def with_all_modalities(miou: Mapping[str, float]) -> float:
    """mIoU with all modalities, of the metrics' mIoU by subset."""
    return miou[max(miou, key=lambda name: name.count("+"))]


def summarise_mixture(scores: dict[str, PartScore]) -> dict[str, Any]:
    """Metrics in percent by part and subset: mIoU, IoU per class, calibration; `mean` is over parts."""
    miou = {name: subset_miou(score.matrix) for name, score in scores.items()}
    return {
        "mean": round(mean_over_subsets(list(miou.values())), 2),
        "miou": miou,
        "accuracy": {name: round(100 * score.matrix.pixel_accuracy(), 2) for name, score in scores.items()},
        "iou": {name: class_iou(score.matrix, list(score.names)) for name, score in scores.items()},
    } | calibration_metrics({name: score.reliability for name, score in scores.items()})


def calibration_metrics(reliability: Mapping[str, Reliability]) -> dict[str, Any]:
    """ECE in percent and the calibration curve (mean confidence, share that is right, share of all pixels), by name."""
    return {
        "ece": {name: round(100 * found.expected_error(), 2) for name, found in reliability.items()},
        "calibration": {
            name: [[round(value, 4) for value in point] for point in found.curve()]
            for name, found in reliability.items()
        },
    }


def subset_miou(matrix: ConfusionMatrix, *, released_protocol: bool = False) -> float:
    """mIoU in percent, over the classes that occur in the ground truth.

    The release takes the mean over all classes, and one that occurs nowhere has an IoU of 0.
    """
    if released_protocol:
        return round(100 * float(np.nan_to_num(matrix.iou()).mean()), 2)
    return round(100 * matrix.miou(), 2)


def summarise(
    matrices: dict[str, ConfusionMatrix], class_names: list[str], *, released_protocol: bool = False
) -> dict[str, Any]:
    """Metrics in percent: `mean` over subsets, `miou` per subset, `iou` per class with all of them, and by subset."""
    miou = {name: subset_miou(matrix, released_protocol=released_protocol) for name, matrix in matrices.items()}
    largest = largest_subset(matrices)
    return {
        "mean": round(mean_over_subsets(list(miou.values())), 2),
        "miou": miou,
        "iou": class_iou(matrices[largest], class_names),
        "iou_by_subset": {name: class_iou(matrix, class_names) for name, matrix in matrices.items()},
    }


def largest_subset(matrices: Mapping[str, ConfusionMatrix]) -> str:
    """The name of the subset with the most sensors."""
    return max(matrices, key=lambda name: name.count("+"))


def confusion_metrics(matrices: Mapping[str, ConfusionMatrix], class_names: list[str]) -> dict[str, Any]:
    """With all sensors: `percent` of each class's pixels (rows) that are taken for each class (columns), `classes`."""
    counts = matrices[largest_subset(matrices)].counts
    percent = 100 * counts[:, : len(class_names)] / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return {"percent": np.round(percent, 1).tolist(), "classes": class_names}


def class_iou(matrix: ConfusionMatrix, class_names: list[str]) -> dict[str, float]:
    """IoU in percent of each class that occurs in the ground truth."""
    per_class = zip(class_names, matrix.iou(), strict=True)
    return {name: round(100 * float(iou), 2) for name, iou in per_class if not np.isnan(iou)}


def evaluate(checkpoint: Path, split: str | None = None, data_root: Path | None = None) -> dict[str, Any]:
    """Score a checkpoint (or the newest of a run) on a split of its data, or of the same kind of data elsewhere.

    Raises CheckpointError or DataError.
    """
    model, state = load_model(find_checkpoint(checkpoint))
    model.to(best_device())
    data = state.config.data if data_root is None else state.config.data.model_copy(update={"root": data_root})
    dataset = open_same(state, data, split or data.val_split)
    return _metrics_on(model, dataset, state.config.model.label_stride)


def evaluate_on(
    model: SegmentationModel, data: DataConfig, label_stride: int, split: str | None = None
) -> dict[str, Any]:
    """Score a network on a split of a data set, the validation split unless given; raises DataError."""
    return _metrics_on(model, open_dataset(data, split or data.val_split), label_stride)


def _metrics_on(model: SegmentationModel, dataset: SegmentationDataset, label_stride: int) -> dict[str, Any]:
    if isinstance(dataset, Mixture):
        metrics = summarise_mixture(score_mixture(model, dataset, label_stride))
    else:
        metrics = summarise(score_subsets(model, dataset, label_stride), [entry.name for entry in dataset.classes])
    return {"data": dataset.description} | metrics
