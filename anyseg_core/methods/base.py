"""What the loop and a method share."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn


class Batch(NamedTuple):
    """Samples with all their modalities; the method decides which ones the network sees."""

    images: Tensor
    """uint8 [B, M, H, W, 3]."""
    labels: Tensor
    """int64 [B, H/s, W/s], class index, 255 = ignored; s is the stride at which labels are decided."""


class Method(Protocol):
    """One way to train."""

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses of one step, weighted; the loop minimises their sum and logs each."""
        ...
