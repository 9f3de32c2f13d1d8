"""A multimodal teacher in the manner of ACNet (arXiv 1905.10089): a branch per modality, and one where they meet.

At the stem and after each stage every modality's map, weighted per channel by its attention, is added to the merging
branch. ACNet's own decoder is a U-Net's; here it is DeepLabV3+'s as in the students, so that a table compares fusion
and distillation and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from anyseg_core.models.base import SegmentationModel, Subset, all_subsets
from anyseg_core.models.deeplab import DeepLabDecoder, DeepLabSpec
from anyseg_core.models.staged_encoders import build_staged, map_dims


class FusedOutput(NamedTuple):
    """What the teacher says of B samples."""

    logits: Tensor
    """[B, H/4, W/4, K]."""
    embedding: Tensor
    """[B, C, H/16, W/16], with EfficientNet-Lite [B, C, H/32, W/32]: of the merging branch."""


class ChannelAttention(nn.Module):
    """[B, C, h, w] -> the same, each channel times a weight of 0 to 1: global mean, 1x1 convolution, sigmoid."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.weigh(x.mean(dim=(2, 3), keepdim=True)))


class AcNet(SegmentationModel):
    """The teacher: M modality branches and the merging one."""

    def __init__(self, mean: Sequence[Sequence[float]], std: Sequence[Sequence[float]], spec: DeepLabSpec) -> None:
        super().__init__(mean, std)
        self.branches = nn.ModuleList(build_staged(spec.backbone, spec.width) for _ in mean)
        self.merge = build_staged(spec.backbone, spec.width)
        self.merge.begin_after_stem()  # with the stems of the others
        dims = map_dims(self.merge)
        self.attention = nn.ModuleList(nn.ModuleList(ChannelAttention(dim) for dim in dims) for _ in mean)
        self.decoder = DeepLabDecoder(dims[-1], dims[1], spec)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def encoders(self) -> list[nn.Module]:
        return [*self.branches, self.merge]

    def forward(self, images: Tensor) -> FusedOutput:
        """uint8 [B, M, H, W, 3], all modalities present."""
        branch_maps = []
        for m, branch in enumerate(self.branches):
            index = torch.full((len(images),), m, device=images.device)
            branch_maps.append(branch(self.normalise(images[:, m], index).permute(0, 3, 1, 2)))
        merged = [self._attend(branch_maps, 0)]
        for level, stage in enumerate(self.merge.stages, start=1):
            merged.append(stage(merged[-1]) + self._attend(branch_maps, level))
        return FusedOutput(self.decoder(merged[-1], merged[1]), merged[-1])

    def _attend(self, branch_maps: list[list[Tensor]], level: int) -> Tensor:
        """The sum of the modalities' weighted maps of the stem (level 0) or a stage (1 to 4)."""
        weighted = [
            cast("nn.ModuleList", attention)[level](maps[level])
            for attention, maps in zip(self.attention, branch_maps, strict=True)
        ]
        return torch.stack(weighted).sum(dim=0)

    def subset_logits(self, images: Tensor) -> Iterator[tuple[Subset, Tensor]]:
        """See the base. A missing modality is an image that is zero after normalisation, as such networks are run."""
        blank = (255 * self.mean).round().to(torch.uint8)[:, None, None].expand_as(images)
        for subset in all_subsets(len(images)):
            present = torch.zeros(len(images), 1, 1, 1, dtype=torch.bool, device=images.device)
            present[list(subset)] = True
            yield subset, self(torch.where(present, images, blank)[None]).logits

    def contributions(self, images: Tensor) -> Tensor:
        """See the base: the images themselves, for the branches meet at every stage."""
        return images

    def together(self, contributions: Tensor) -> Tensor:
        return self(contributions[None]).logits
