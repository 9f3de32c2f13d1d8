"""The all-MLP head of SegFormer (arXiv 2105.15203), computed folded."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SegformerHead(nn.Module):
    """Four feature maps [B, h_s, w_s, C_s] -> logits [B, h_1, w_1, K].

    The textbook head projects every stage to `width`, upsamples, concatenates and fuses with a 1x1 convolution.
    Projection and fusion are linear and commute with bilinear upsampling, so each stage's projection is
    multiplied into its part of the fuse layer and applied before upsampling: the same numbers for a third
    of the work (`test_models_anymodal.py` compares the two).
    """

    def __init__(self, dims: tuple[int, ...], width: int, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.width = width
        self.project = nn.ModuleList(nn.Linear(dim, width) for dim in dims)
        self.fuse = nn.Linear(len(dims) * width, width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Linear(width, classes)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classify.weight, std=0.01)

    def folded(self) -> tuple[list[Tensor], Tensor]:
        """Per stage the matrix [width, C_s] that projects and fuses, and their common bias [width]."""
        parts = self.fuse.weight.split(self.width, dim=1)  # [width, width] each
        layers = [cast("nn.Linear", layer) for layer in self.project]
        weights = [part @ layer.weight for part, layer in zip(parts, layers, strict=True)]
        biases = [part @ layer.bias for part, layer in zip(parts, layers, strict=True)]
        return weights, torch.stack(biases).sum(dim=0)

    def fuse_stages(self, features: list[Tensor]) -> Tensor:
        """Features -> [B, width, h_1, w_1] before batch norm. Linear, so it commutes with a mean over modalities."""
        weights, bias = self.folded()
        size = features[0].shape[1:3]
        fused = F.linear(features[0], weights[0], bias).permute(0, 3, 1, 2)  # [B, width, h_1, w_1]
        for feature, weight in zip(features[1:], weights[1:], strict=True):
            low = F.linear(feature, weight).permute(0, 3, 1, 2)  # [B, width, h_s, w_s]
            fused = fused + F.interpolate(low, size=size, mode="bilinear", align_corners=False)
        return fused

    def decide(self, fused: Tensor) -> Tensor:
        """[B, width, h, w] -> logits [B, h, w, K]."""
        activated = self.dropout(F.relu(self.norm(fused)))
        return self.classify(activated.permute(0, 2, 3, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.decide(self.fuse_stages(features))
