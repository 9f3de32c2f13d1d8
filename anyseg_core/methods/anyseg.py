"""AnySeg's student (arXiv 2411.17141): L = L_sup + 50 L_mad + 5 L_umd + 10 L_cmd, taught by a network that sees all.

The teacher is trained first (`supervised` with `anymodal_dropout: false`) and does not change here. The student starts
from the ImageNet encoder, not from the teacher, and sees random subsets of the modalities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from anyseg_core.methods.base import Batch, TaughtConfig
from anyseg_core.methods.losses import Variant, crossmodal_distillation, prediction_distillation, unimodal_distillation
from anyseg_core.methods.supervised import (
    SupervisionConfig,
    encoded_images,
    label_size,
    step_subsets,
    supervision,
)
from anyseg_core.models.anymodal import AnymodalSegmenter, PresentImages, upsample_logits


class DistillationConfig(SupervisionConfig, TaughtConfig):
    """What every method of the anymodal network with a teacher has."""

    variant: Variant = "released"
    """The equations as in the paper, what the authors' code computes, or that without its defects: `losses.py`."""
    mad: float = Field(default=50.0, ge=0)
    """Weight of the modality-agnostic distillation of predictions; 0 leaves a term out and saves its cost."""

    @property
    def anymodal_dropout(self) -> bool:
        """Always: a student that sees everything has nothing to learn from its teacher."""
        return True


class AnySegConfig(DistillationConfig):
    """Settings of the method `anyseg`: the published weights."""

    name: Literal["anyseg"] = "anyseg"
    umd: float = Field(default=5.0, ge=0)
    """Weight of the unimodal distillation of features."""
    cmd: float = Field(default=10.0, ge=0)
    """Weight of the cross-modal distillation of similarities."""


class TeacherOutput(NamedTuple):
    """What the student's images are compared with: the teacher on all modalities."""

    logits: Tensor | None
    """[B, h, w, K], where predictions are distilled."""
    features: list[Tensor]
    """Per stage [B * M, h, w, C], sample by sample."""
    labels: Tensor
    """int64 [B, H, W], the ground truth."""
    modalities: int

    def features_of(self, seen: PresentImages) -> list[Tensor]:
        """Per stage [P, h, w, C]: of the images that the student saw."""
        index = seen.sample * self.modalities + seen.modality  # [P]
        return self.features if len(index) == len(self.features[0]) else [stage[index] for stage in self.features]


class Distillation(ABC):
    """L_sup and L_mad of a student; the distillation of features is a subclass's.

    Args:
        class_weights: [K], see `balance_weights`, or None for equal weights.
        teacher: on the device of the batches.
    """

    def __init__(
        self, config: DistillationConfig, class_weights: Tensor | None = None, *, teacher: AnymodalSegmenter
    ) -> None:
        self.settings = config
        self.class_weights = class_weights
        self.teacher = teacher.eval().requires_grad_(False)

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        subsets = step_subsets(batch, self.settings)  # [S, B, M]
        seen = encoded_images(model, batch, subsets)
        logits, features = model(seen, subsets, with_features=True)  # [S * B, H/4, W/4, K], per stage [P, h, w, C]
        full = upsample_logits(logits.float(), label_size(batch))  # [S * B, K, H/s, W/s]
        losses = {"sup": supervision(full, batch.labels, self.settings, self.class_weights)}
        taught = self.teach(batch)
        if taught.logits is not None:
            target = upsample_logits(taught.logits.float(), label_size(batch)).repeat(len(subsets), 1, 1, 1)
            losses["mad"] = self.settings.mad * prediction_distillation(full, target, self.settings.variant)
        return losses | self.feature_losses(features, taught, seen)

    @abstractmethod
    def feature_losses(self, student: list[Tensor], taught: TeacherOutput, seen: PresentImages) -> dict[str, Tensor]:
        """Named losses, weighted, of the student's features [P, h, w, C] per stage of the images `seen`."""

    @torch.no_grad()
    def teach(self, batch: Batch) -> TeacherOutput:
        """The teacher's answer to all modalities, encoded once for all losses."""
        samples, modalities = batch.images.shape[:2]
        sample = torch.arange(samples, device=batch.images.device).repeat_interleave(modalities)  # [B * M]
        modality = torch.arange(modalities, device=batch.images.device).repeat(samples)
        features = self.teacher.encode(batch.images.flatten(0, 1), modality)
        logits = None
        if self.settings.mad:
            logits = self.teacher.head(self.teacher.average(features, sample, samples))  # [B, H/4, W/4, K]
        return TeacherOutput(logits, features, batch.labels, modalities)


class AnySeg(Distillation):
    """Distillation of predictions, of each modality's features, and of the similarities between modalities."""

    def __init__(
        self, config: AnySegConfig, class_weights: Tensor | None = None, *, teacher: AnymodalSegmenter
    ) -> None:
        super().__init__(config, class_weights, teacher=teacher)
        self.config = config

    def feature_losses(self, student: list[Tensor], taught: TeacherOutput, seen: PresentImages) -> dict[str, Tensor]:
        config, samples, losses = self.config, seen.batch, {}
        if not (config.umd or config.cmd):
            return {}
        teacher = taught.features_of(seen)
        if config.umd:
            losses["umd"] = config.umd * unimodal_distillation(student, teacher, samples, config.variant)
        if config.cmd:
            value = crossmodal_distillation(student, teacher, seen.sample, samples, config.variant)
            losses["cmd"] = config.cmd * value
        return losses
