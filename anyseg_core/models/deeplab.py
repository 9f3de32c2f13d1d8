"""DeepLabV3+ (arXiv 1802.02611): a ResNet, atrous spatial pyramid pooling, and a decoder with a low-level skip.

With EfficientNet-Lite instead of the ResNet the embedding has stride 32, not 16; the rest is the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyseg_core.models.staged_encoders import build_staged, map_dims


class DeepLabSpec(NamedTuple):
    """What a network is made of."""

    backbone: str
    """One of `staged_encoders.STAGED_ENCODERS`."""
    classes: int
    head_width: int = 256
    width: float = 1.0
    """Share of the backbone's published channels."""
    aspp_rates: tuple[int, int, int] = (6, 12, 18)
    """Dilations of the atrous branches; one beyond the map's size sees only its padding."""
    dropout: float = 0.1


def convolution(in_dim: int, dim: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size, batch norm, ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_dim, dim, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(dim), nn.ReLU())


class Aspp(nn.Module):
    """A 1x1 branch, three atrous 3x3 branches and the image's mean, concatenated and projected to `dim`."""

    def __init__(self, in_dim: int, dim: int, rates: tuple[int, int, int], dropout: float) -> None:
        super().__init__()
        atrous = [convolution(in_dim, dim, 3, rate) for rate in rates]
        self.branches = nn.ModuleList([convolution(in_dim, dim), *atrous])
        # Without batch norm: of one image, a mean has one value per channel, which has no variance.
        self.pool = nn.Sequential(nn.Conv2d(in_dim, dim, 1), nn.ReLU())
        self.project = convolution(5 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.pool(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        branches = [branch(x) for branch in self.branches]
        return self.dropout(self.project(torch.cat([*branches, mean], dim=1)))


class DeepLabDecoder(nn.Module):
    """Embedding [B, C, H/16, W/16] and low-level map [B, C_low, H/4, W/4] -> logits [B, H/4, W/4, K]."""

    def __init__(self, in_dim: int, low_dim: int, spec: DeepLabSpec) -> None:
        super().__init__()
        width = spec.head_width
        skip = max(8, width * 48 // 256)  # as published: 48 channels beside 256
        self.aspp = Aspp(in_dim, width, spec.aspp_rates, spec.dropout)
        self.skip = convolution(low_dim, skip)
        self.refine = nn.Sequential(convolution(width + skip, width, 3), convolution(width, width, 3))
        self.classify = nn.Conv2d(width, spec.classes, 1)

    def forward(self, embedding: Tensor, low: Tensor) -> Tensor:
        deep = F.interpolate(self.aspp(embedding), size=low.shape[2:], mode="bilinear", align_corners=False)
        return self.classify(self.refine(torch.cat([deep, self.skip(low)], dim=1))).permute(0, 2, 3, 1)


class DeepLab(nn.Module):
    """One modality's network: images float [B, 3, H, W] -> logits [B, H/4, W/4, K].

    `project` makes the embedding of the encoder's deepest map; as it is, unless a method replaces it.
    """

    def __init__(self, spec: DeepLabSpec) -> None:
        super().__init__()
        self.encoder = build_staged(spec.backbone, spec.width)
        dims = map_dims(self.encoder)
        self.embedding_dim = dims[-1]
        self.decoder = DeepLabDecoder(dims[-1], dims[1], spec)
        self.project: nn.Module = nn.Identity()

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding [B, C, H/16, W/16] and the low-level map [B, C_low, H/4, W/4]."""
        maps = self.encoder(images)
        return self.project(maps[-1]), maps[1]

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(*self.encode(images))
