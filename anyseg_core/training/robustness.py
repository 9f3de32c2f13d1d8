"""Robustness of a multimodal segmenter to missing, randomly missing and noisy modalities: two protocols.

**Ours** damages the network's images (uint8), as a sensor would, and removes what is missing:

- EMM: entirely missing. The mean mIoU over the combinations in which at least one modality is missing, and its
  expectation when each is missing with probability p: sum p^k (1-p)^(M-k) mIoU / sum p^k (1-p)^(M-k) over all
  combinations with at least one modality left, k of them missing.
- RMM: randomly missing. Pixels' channels of the damaged modalities are zeroed with probability r; the mean over all
  choices of damaged modalities.
- NM: noisy. Salt and pepper of density d on all modalities, on all channels of a pixel, over Gaussian noise of standard
  deviation sigma (of a range of 0 to 1) on camera, depth and LiDAR, together at three levels.

**UMMSS's** is that of the benchmark (arXiv 2503.18445) as its code computes it (RobustSeg/UMMSS, tools/val_mm_EMM.py,
val_mm_RMM.py, val_mm_NM.py). It damages the normalised tensors, and the network always gets all of them:

- EMM: a missing modality is all zero after normalisation; the mean over all combinations that leave one modality whole,
  the one with none missing among them (15 of four), and the same expectation.
- RMM: the same with elements that are zero with probability r.
- NM: salt and pepper set single elements (with replacement, each of density d / 2) to the tensor's largest and least
  value, then Gaussian noise of standard deviation sigma in normalised units is added, events spared.

The code takes those extremes over a batch, here they are a sample's; its random numbers have no seed, ours have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyseg_core.data.sample import SegmentationDataset
from anyseg_core.models.base import SegmentationModel, all_subsets
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.sensors import EVENT, Sensor
from anyseg_core.terminal import tracked
from anyseg_core.training.evaluation import decide_labels, subset_miou

Image = NDArray[np.uint8]
MISSING_PROBABILITIES = (0.2, 0.1, 0.05)
ZEROED_SHARES = (0.25, 0.5, 0.75)
NOISE_LEVELS = {"low": (0.05, 0.1), "medium": (0.1, 0.2), "high": (0.2, 0.5)}
"""Density of salt and pepper, sigma of Gaussian noise."""
OURS, UMMSS = "ours", "UMMSS"
"""The protocols' names."""
_SEED = 2503


def missing_metrics(miou: Mapping[str, float]) -> dict[str, Any]:
    """mIoU by the subset's name, in percent -> `emm`, and `expected_emm` by probability."""
    present = {name: name.count("+") + 1 for name in miou}
    modalities = max(present.values())
    missing = [value for name, value in miou.items() if present[name] < modalities]
    expected = expectations([modalities - count for count in present.values()], list(miou.values()), modalities)
    emm = round(float(np.mean(missing)), 2) if missing else None
    return {"robustness": OURS, "emm": emm, "expected_emm": expected}


def expectations(damaged: Sequence[int], miou: Sequence[float], modalities: int) -> dict[str, float]:
    """mIoU of combinations of which so many modalities are damaged -> the expectation by each one's probability p."""
    expected = {}
    for p in MISSING_PROBABILITIES:
        weights = np.array([p**count * (1 - p) ** (modalities - count) for count in damaged])
        expected[str(p)] = round(float(weights @ np.array(miou) / weights.sum()), 2)
    return expected


# --- ours -----------------------------------------------------------------------------------------------------


def zero_elements(images: Image, share: float, random: np.random.Generator) -> Image:
    """Each number of the images is zero with this probability."""
    return np.where(random.random(images.shape) < share, np.uint8(0), images)


def add_noise(
    images: Image, modalities: tuple[Sensor, ...], density: float, sigma: float, random: np.random.Generator
) -> Image:
    """images [M, H, W, 3] with Gaussian noise (not on events), then salt and pepper on all channels of a pixel."""
    noisy = images.astype(np.float32)
    for index, modality in enumerate(modalities):
        if modality.kind is not EVENT:
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
    for index in tracked(chosen, "robustness", len(chosen), show=show_progress):
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
    by_share = {s: [subset_miou(m) for (share, _), m in damaged.items() if share == s] for s in ZEROED_SHARES}
    return {
        "rmm": _with_mean({str(s): round(float(np.mean(values)), 2) for s, values in by_share.items()}),
        "nm": _with_mean({level: subset_miou(matrix) for level, matrix in noisy.items()}),
    }


def contributions(model: SegmentationModel, images: Image) -> Tensor:
    """images uint8 [M, H, W, 3] -> what each modality brings to where they meet, [M, ...]."""
    return model.contributions(torch.from_numpy(np.array(images)).to(next(model.parameters()).device))


def _with_mean(values: dict[str, float]) -> dict[str, float]:
    return values | {"mean": round(float(np.mean(list(values.values()))), 2)}


# --- UMMSS's --------------------------------------------------------------------------------------------------

Normalised = NDArray[np.float32]
"""[M, H, W, 3], as the network normalises its images."""


def zero_normalised(tensors: Normalised, share: float, random: np.random.Generator) -> Normalised:
    """Each element is zero, which is the mean of its modality, with this probability."""
    return np.where(random.random(tensors.shape) < share, np.float32(0), tensors)


def add_normalised_noise(
    tensors: Normalised, modalities: tuple[Sensor, ...], density: float, sigma: float, random: np.random.Generator
) -> Normalised:
    """Salt and pepper on single elements, then Gaussian noise (not on events)."""
    noisy = tensors.copy()
    for index, modality in enumerate(modalities):
        tensor = noisy[index]  # a view
        count = int(np.ceil(density * tensor.size * 0.5))
        for value in (tensor.max(), tensor.min()):
            tensor[tuple(random.integers(0, side, count) for side in tensor.shape)] = value
        if modality.kind is not EVENT:
            noisy[index] += sigma * random.standard_normal(tensor.shape, np.float32)
    return noisy


@torch.inference_mode()
def score_ummss(
    model: SegmentationModel,
    dataset: SegmentationDataset,
    label_stride: int,
    indices: Iterable[int] | None = None,
    *,
    show_progress: bool = True,
) -> dict[str, Any]:
    """`emm`, `expected_emm`, `rmm` by share of zeroed elements, `expected_rmm`, `nm` by level: mIoU in percent."""
    modalities = tuple(spec.modality for spec in dataset.inputs)
    combinations = [(), *all_subsets(len(modalities))[:-1]]  # one modality at least stays whole
    shares = (1.0, *ZEROED_SHARES)  # of which 1 is entirely missing
    classes = len(dataset.classes)
    damaged = {(share, chosen): ConfusionMatrix(classes) for share in shares for chosen in combinations}
    noisy = {level: ConfusionMatrix(classes) for level in NOISE_LEVELS}
    model.eval()
    picked = list(range(len(dataset)) if indices is None else indices)
    for index in tracked(picked, "robustness, UMMSS", len(picked), show=show_progress):
        sample, random = dataset[index], np.random.default_rng([_SEED, index])
        tensors = normalised(model, sample.images)
        clean = normalised_contributions(model, tensors)
        for share in shares:
            broken = normalised_contributions(model, zero_normalised(tensors, share, random))
            for chosen in combinations:
                mixed = clean.clone()
                mixed[list(chosen)] = broken[list(chosen)]
                damaged[share, chosen].add(
                    sample.labels, decide_labels(model.together(mixed), dataset.size, label_stride)
                )
        for level, (density, sigma) in NOISE_LEVELS.items():
            noise = add_normalised_noise(tensors, modalities, density, sigma, random)
            labels = decide_labels(model.together(normalised_contributions(model, noise)), dataset.size, label_stride)
            noisy[level].add(sample.labels, labels)
    return _ummss_metrics(damaged, noisy, len(modalities))


def _ummss_metrics(
    damaged: Mapping[tuple[float, tuple[int, ...]], ConfusionMatrix],
    noisy: Mapping[str, ConfusionMatrix],
    modalities: int,
) -> dict[str, Any]:
    means, expected = {}, {}
    for share in (1.0, *ZEROED_SHARES):
        scores = {c: subset_miou(m, released_protocol=True) for (s, c), m in damaged.items() if s == share}
        means[share] = round(float(np.mean(list(scores.values()))), 2)
        expected[share] = expectations([len(chosen) for chosen in scores], list(scores.values()), modalities)
    return {
        "robustness": UMMSS,
        "emm": means[1.0],
        "expected_emm": expected[1.0],
        "rmm": _with_mean({str(share): means[share] for share in ZEROED_SHARES}),
        "expected_rmm": {str(share): expected[share] for share in ZEROED_SHARES},
        "nm": _with_mean({k: subset_miou(m, released_protocol=True) for k, m in noisy.items()}),
    }


def normalised(model: SegmentationModel, images: Image) -> Normalised:
    """images uint8 [M, H, W, 3] -> what the network makes of them first."""
    given = torch.from_numpy(np.array(images)).to(model.mean.device)
    return model.normalise(given, torch.arange(len(images), device=given.device)).cpu().numpy()


def normalised_contributions(model: SegmentationModel, tensors: Normalised) -> Tensor:
    """As `contributions`, of normalised tensors: they are turned back into images, of fractions, for the network."""
    given = torch.from_numpy(tensors).to(model.mean.device)
    mean, std = model.mean[:, None, None], model.std[:, None, None]  # [M, 1, 1, 3]
    return model.contributions(255 * (given * std + mean))
