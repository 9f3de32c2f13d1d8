"""mIoU over every subset of the modalities, as the anymodal papers report it (arXiv 2411.17141)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from anyseg_core.data.sample import SegmentationDataset
from anyseg_core.models.anymodal import AnymodalSegmenter, upsample_logits
from anyseg_core.runtime.metrics import ConfusionMatrix, mean_over_subsets
from anyseg_core.runtime.modality import Modality
from anyseg_core.training.batches import open_dataset
from anyseg_core.training.checkpoint import find_checkpoint, load_model

Subset = tuple[int, ...]
"""Indices into the network's modalities."""


def all_subsets(modalities: int) -> list[Subset]:
    """The 2^M - 1 non-empty subsets, small ones first: for R, D, E, L the order of the published tables."""
    return [subset for size in range(1, modalities + 1) for subset in combinations(range(modalities), size)]


def subset_name(subset: Subset, modalities: tuple[Modality, ...]) -> str:
    """`camera+depth`."""
    return "+".join(modalities[index].value for index in subset)


def subset_logits(model: AnymodalSegmenter, images: Tensor) -> Iterator[tuple[Subset, Tensor]]:
    """Logits [1, h, w, K] of every subset of one sample's modalities.

    Each modality is encoded once: fusion is a mean, and the head is linear up to its batch norm, so a subset
    costs only the mean of what its members contribute there.

    Args:
        images: uint8 [M, H, W, 3], one per modality of the network, in its order.
    """
    count = images.shape[0]
    features = model.encode(images, torch.arange(count, device=images.device))
    fused = model.head.fuse_stages(features)  # [M, width, h, w]
    zero = None
    if model.missing == "zero":
        zero = model.head.fuse_stages(model.zero_features(images.shape[1], images.shape[2]))[0]
    for subset in all_subsets(count):
        mean = fused[list(subset)].mean(dim=0)
        if zero is not None:
            mean = mean * (len(subset) / count) + zero * (1 - len(subset) / count)
        yield subset, model.head.decide(mean[None])


def decide_labels(logits: Tensor, size: tuple[int, int], label_stride: int) -> NDArray[np.uint8]:
    """Logits [1, h, w, K] -> labels uint8 [H, W], decided on a grid of `label_stride` and repeated."""
    coarse = upsample_logits(logits, (size[0] // label_stride, size[1] // label_stride))
    labels = coarse[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return labels.repeat(label_stride, axis=0).repeat(label_stride, axis=1)


@torch.inference_mode()
def score_subsets(
    model: AnymodalSegmenter,
    dataset: SegmentationDataset,
    label_stride: int,
    indices: Iterable[int] | None = None,
    *,
    show_progress: bool = True,
) -> dict[str, ConfusionMatrix]:
    """One confusion matrix per subset, over whole images, by the subset's name."""
    modalities = tuple(spec.modality for spec in dataset.inputs)
    names = {subset: subset_name(subset, modalities) for subset in all_subsets(len(modalities))}
    matrices = {name: ConfusionMatrix(len(dataset.classes)) for name in names.values()}
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    chosen = list(range(len(dataset)) if indices is None else indices)
    for index in tqdm(chosen, "evaluating", leave=False, disable=not show_progress):
        sample = dataset[index]
        images = torch.from_numpy(np.array(sample.images)).to(device)
        for subset, logits in subset_logits(model, images):
            matrices[names[subset]].add(sample.labels, decide_labels(logits, dataset.size, label_stride))
    model.train(was_training)
    return matrices


def summarise(matrices: dict[str, ConfusionMatrix], class_names: list[str]) -> dict[str, Any]:
    """Metrics in percent: `mean` over subsets, `miou` per subset, `iou` per class with all modalities."""
    miou = {name: round(100 * matrix.miou(), 2) for name, matrix in matrices.items()}
    largest = max(matrices, key=lambda name: name.count("+"))
    per_class = zip(class_names, matrices[largest].iou(), strict=True)
    return {
        "mean": round(mean_over_subsets(list(miou.values())), 2),
        "miou": miou,
        "iou": {name: round(100 * float(iou), 2) for name, iou in per_class if not np.isnan(iou)},
    }


def evaluate(checkpoint: Path, split: str | None = None, data_root: Path | None = None) -> dict[str, Any]:
    """Score a checkpoint (or the newest of a run) on a split of its data, or of the same kind of data elsewhere.

    Raises CheckpointError or DataError.
    """
    model, state = load_model(find_checkpoint(checkpoint))
    data = state.config.data if data_root is None else state.config.data.model_copy(update={"root": data_root})
    dataset = open_dataset(data, split or data.val_split)
    matrices = score_subsets(model, dataset, state.config.model.label_stride)
    return {"data": dataset.description} | summarise(matrices, [spec.name for spec in state.classes])
