"""The network as its own teacher: what it sees with all sensors teaches what it sees with some of them.

The prediction of all modalities is one more subset of the same step: no second network, no second encoding, and a
teacher that cannot fall behind its pupil.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from anyseg_core.methods.base import Batch
from anyseg_core.methods.losses import prediction_distillation
from anyseg_core.methods.supervised import (
    SupervisionConfig,
    all_modalities,
    encoded_images,
    label_size,
    step_subsets,
    supervision,
)
from anyseg_core.models.anymodal import upsample_logits


class SelfDistilledConfig(SupervisionConfig):
    """Settings of the method `self_distilled`."""

    name: Literal["self_distilled"] = "self_distilled"
    consistency: float = Field(default=1.0, ge=0)
    """Weight of the divergence, summed over the classes and averaged over pixels and subsets, of what a subset sees
    from what all modalities see."""

    anymodal_dropout: ClassVar[bool] = True
    takes_mixtures: ClassVar[bool] = True


class SelfDistilled:
    """Supervision of all modalities and of random subsets, which also follow the prediction of all.

    Args:
        class_weights: [K], see `balance_weights`, or None for equal weights.
    """

    def __init__(self, config: SelfDistilledConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        subsets = torch.cat([all_modalities(batch), step_subsets(batch, self.config)])  # [1 + S, B, M]
        logits = model(encoded_images(model, batch, subsets), subsets)  # [(1 + S) * B, H/4, W/4, K]
        full = upsample_logits(logits.float(), label_size(batch))  # [(1 + S) * B, K, H/s, W/s]
        teacher, pupils = full[: len(batch.labels)].detach(), full[len(batch.labels) :]
        target = teacher.repeat(len(subsets) - 1, 1, 1, 1)
        classes = full.shape[1]
        return {
            "sup": supervision(full, batch.labels, self.config, self.class_weights, batch.members),
            "own": self.config.consistency * classes * prediction_distillation(pupils, target, "released"),
        }
