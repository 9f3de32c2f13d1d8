"""Robustness of a multimodal segmenter (arXiv 2503.18445): missing, randomly missing and noisy modalities.

- EMM: entirely missing. The mean mIoU over the combinations in which at least one modality is missing, and its
  expectation when each is missing with probability p: sum p^k (1-p)^(M-k) mIoU / sum p^k (1-p)^(M-k) over all
  combinations with at least one modality left, k of them missing.
- RMM: randomly missing. Pixels' channels of the damaged modalities are zeroed with probability r; the mean over all
  choices of damaged modalities.
- NM: noisy. Salt and pepper of density d on all modalities, and Gaussian noise of standard deviation sigma (of a
  range of 0 to 1) on camera, depth and LiDAR, together at three levels.

Damage is done to the network's images (uint8), as a sensor would do it, before normalisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from anyseg_core.data.sample import SegmentationDataset
from anyseg_core.models.base import SegmentationModel, all_subsets
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.modality import Modality
from anyseg_core.training.evaluation import decide_labels, subset_miou

Image = NDArray[np.uint8]
MISSING_PROBABILITIES = (0.2, 0.1, 0.05)
ZEROED_SHARES = (0.25, 0.5, 0.75)
NOISE_LEVELS = {"low": (0.05, 0.1), "medium": (0.1, 0.2), "high": (0.2, 0.5)}
"""Density of salt and pepper, sigma of Gaussian noise."""
_SEED = 2503


def missing_metrics(miou: Mapping[str, float]) -> dict[str, Any]:
    """mIoU by the subset's name, in percent -> `emm`, and `expected_emm` by probability."""
    present = {name: name.count("+") + 1 for name in miou}
    modalities = max(present.values())
    missing = [value for name, value in miou.items() if present[name] < modalities]
    expected = {}
    for p in MISSING_PROBABILITIES:
        weights = np.array([p ** (modalities - count) * (1 - p) ** count for count in present.values()])
        expected[str(p)] = round(float(weights @ list(miou.values()) / weights.sum()), 2)
    return {"emm": round(float(np.mean(missing)), 2) if missing else None, "expected_emm": expected}


def zero_elements(images: Image, share: float, random: np.random.Generator) -> Image:
    """Each number of the images is zero with this probability."""
    return np.where(random.random(images.shape) < share, np.uint8(0), images)


def add_noise(
    images: Image, modalities: tuple[Modality, ...], density: float, sigma: float, random: np.random.Generator
) -> Image:
    """images [M, H, W, 3] with Gaussian noise (not on events), then salt and pepper on all channels of a pixel."""
    noisy = images.astype(np.float32)
    for index, modality in enumerate(modalities):
        if modality is not Modality.EVENT:
            noisy[index] += 255 * sigma * random.standard_normal(images.shape[1:], np.float32)
    drawn = random.random(images.shape[:3])[..., None]  # [M, H, W, 1]
    noisy = np.where(drawn < density / 2, 0, np.where(drawn > 1 - density / 2, 255, noisy))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


@torch.inference_mode()
def score_robustness(
    model: SegmentationModel,
    dataset: SegmentationDataset,
    label_stride: int,
    indices: Iterable[int] | None = None,
    *,
    released_protocol: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """`rmm` by share of zeroed elements, `nm` by level of noise: mIoU in percent, and the `mean` of each.

    Every version of an image is encoded once; a choice of damaged modalities costs a mean and the decoder.
    """
    modalities = tuple(spec.modality for spec in dataset.inputs)
    classes = len(dataset.classes)
    damaged = {(s, d): ConfusionMatrix(classes) for s in ZEROED_SHARES for d in all_subsets(len(modalities))}
    noisy = {level: ConfusionMatrix(classes) for level in NOISE_LEVELS}
    model.eval()
    chosen = list(range(len(dataset)) if indices is None else indices)
    for index in tqdm(chosen, "robustness", leave=False, disable=not show_progress):
        sample, random = dataset[index], np.random.default_rng([_SEED, index])
        clean = contributions(model, sample.images)
        for share in ZEROED_SHARES:
            broken = contributions(model, zero_elements(sample.images, share, random))
            for subset in all_subsets(len(modalities)):
                mixed = clean.clone()
                mixed[list(subset)] = broken[list(subset)]
                labels = decide_labels(model.together(mixed), dataset.size, label_stride)
                damaged[share, subset].add(sample.labels, labels)
        for level, (density, sigma) in NOISE_LEVELS.items():
            noise = contributions(model, add_noise(sample.images, modalities, density, sigma, random))
            labels = decide_labels(model.together(noise), dataset.size, label_stride)
            noisy[level].add(sample.labels, labels)
    return {
        "rmm": _with_mean({str(s): _mean_miou(damaged, s, released_protocol) for s in ZEROED_SHARES}),
        "nm": _with_mean({k: subset_miou(v, released_protocol=released_protocol) for k, v in noisy.items()}),
    }


def contributions(model: SegmentationModel, images: Image) -> Tensor:
    """images uint8 [M, H, W, 3] -> what each modality brings to where they meet, [M, ...]."""
    return model.contributions(torch.from_numpy(np.array(images)).to(next(model.parameters()).device))


def _mean_miou(
    matrices: Mapping[tuple[float, tuple[int, ...]], ConfusionMatrix], share: float, released_protocol: bool
) -> float:
    values = [subset_miou(m, released_protocol=released_protocol) for (s, _), m in matrices.items() if s == share]
    return round(float(np.mean(values)), 2)


def _with_mean(values: dict[str, float]) -> dict[str, float]:
    return values | {"mean": round(float(np.mean(list(values.values()))), 2)}
