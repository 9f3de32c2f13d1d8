"""What the loop, the evaluation and the export need of any network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from anyseg_core.runtime import sensors

Subset = tuple[int, ...]
"""Indices into the network's modalities."""


def all_subsets(modalities: int) -> list[Subset]:
    """The 2^M - 1 non-empty subsets, small ones first: for R, D, E, L the order of the published tables."""
    return sensors.all_subsets(range(modalities))


class SegmentationModel(nn.Module, ABC):
    """A network that answers for every subset of its modalities.

    Args:
        mean, std: per modality, three channels; the network sees (x / 255 - mean) / std.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[Sequence[float]], std: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)  # [M, 3]; the card keeps them
        self.register_buffer("std", torch.tensor(std), persistent=False)

    @property
    @abstractmethod
    def encoders(self) -> list[nn.Module]:
        """What ImageNet weights are for."""

    @abstractmethod
    def subset_logits(self, images: Tensor) -> Iterator[tuple[Subset, Tensor]]:
        """Logits [1, h, w, K] of every subset of one sample's modalities, in the order of `all_subsets`.

        Args:
            images: uint8 [M, H, W, 3], one per modality of the network, in its order.
        """

    @abstractmethod
    def contributions(self, images: Tensor) -> Tensor:
        """images uint8 [M, H, W, 3] of one sample -> what each modality brings to where they meet, [M, ...]."""

    @abstractmethod
    def together(self, contributions: Tensor) -> Tensor:
        """What all M modalities bring, [M, ...] -> logits [1, h, w, K]."""

    def deployed_parameters(self) -> int:
        """The number of weights that the robot needs; training may have more."""
        return sum(parameter.numel() for parameter in self.parameters())

    def normalise(self, images: Tensor, modality: Tensor) -> Tensor:
        """uint8 [P, H, W, 3], int64 [P] -> float [P, H, W, 3]."""
        return normalise(images, modality, self.mean, self.std)


def normalise(images: Tensor, modality: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 [P, H, W, 3], int64 [P], and the means and deviations of M modalities [M, 3] -> float [P, H, W, 3]."""
    scale = (1.0 / (255.0 * std))[modality]  # [P, 3]
    offset = (-mean / std)[modality]
    # A row at a time: engines stretch 3 numbers over every pixel several times slower than a row over its column.
    width = images.shape[2]
    rows = images.to(scale.dtype).flatten(2)  # [P, H, W * 3]; TensorRT computes nothing on uint8
    rows = rows * scale.repeat(1, width)[:, None] + offset.repeat(1, width)[:, None]
    return rows.unflatten(2, (width, 3))
