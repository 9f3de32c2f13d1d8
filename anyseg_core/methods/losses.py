"""Losses on logits [B, h, w, K]."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from anyseg_core.models.anymodal import upsample_logits
from anyseg_core.runtime.label_sets import UNLABELLED


def pixel_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy of each labelled pixel [V], logits upsampled to the labels' size.

    Args:
        logits: [B, h, w, K].
        labels: int64 [B, H, W]; 255 is ignored.
        class_weights: [K] or None.
    """
    full = upsample_logits(logits, labels.shape[1:])  # type: ignore[arg-type]  # [B, K, H, W]
    flat = full.permute(0, 2, 3, 1).reshape(-1, full.shape[1])  # [B*H*W, K], no copy: channels are innermost
    loss = F.cross_entropy(flat, labels.reshape(-1), class_weights, ignore_index=UNLABELLED, reduction="none")
    return loss[labels.reshape(-1) != UNLABELLED]


def hard_example_mean(pixel_losses: Tensor, threshold: float = 0.7, min_share: float = 1 / 16) -> Tensor:
    """Mean over the hard pixels (OHEM): those whose class gets a probability below `threshold`.

    At least `min_share` of the pixels count, the hardest ones. pixel_losses [V] -> scalar; 0 where V is 0.
    """
    if pixel_losses.numel() == 0:
        return pixel_losses.sum()
    hard = pixel_losses[pixel_losses > -math.log(threshold)]
    least = max(1, int(pixel_losses.numel() * min_share))
    if hard.numel() < least:
        hard = torch.topk(pixel_losses, least).values
    return hard.mean()


def plain_mean(pixel_losses: Tensor) -> Tensor:
    """Mean over all labelled pixels; 0 where there are none."""
    return pixel_losses.sum() / max(1, pixel_losses.numel())
