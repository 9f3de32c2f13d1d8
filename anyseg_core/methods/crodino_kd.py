"""CroDiNo-KD: two single-modality networks that teach each other, without a teacher (arXiv 2505.24361).

L = L_seg + L_mixed + 0.1 L_ortho + 0.5 L_contrast + 0.2 L_aux, each but the contrast a sum over both modalities.
Built after a blog's account of the paper, so "as described", never a reproduction. What the account leaves open is a
setting; `docs/training/methods.md` says on what evidence each default stands.
"""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from anyseg_core.methods.base import Batch, NetworkKind
from anyseg_core.methods.rgbd_losses import (
    SameClass,
    image_pairs,
    info_nce,
    mix_classes,
    mix_positions,
    orthogonality,
    pooled_pairs,
)
from anyseg_core.methods.supervised import LabelLossConfig, supervise_each
from anyseg_core.models.unimodal import DisentangledOutput, Mixer


class CrodinoConfig(LabelLossConfig):
    """Settings of the method `crodino_kd`; the weights are the blog's. A weight of 0 leaves a term out."""

    network: ClassVar[NetworkKind] = "disentangled"
    views_apart: ClassVar[bool] = True

    name: Literal["crodino_kd"] = "crodino_kd"
    parts: Literal["by_backbone", "halves", "projections"] = "by_backbone"
    """What Z_inv and Z_spe are: the halves of the encoder's channels, or a projection each (1x1 convolution), which has
    both signs. A ResNet's halves come after a ReLU: without signs they are orthogonal only where no channel of both is
    active. `by_backbone`: projections for resnet50, halves for others (EfficientNet-Lite's have both signs)."""
    mixup: Literal["positions", "classes"] = "positions"
    """What is mixed with a position's features: the other modality's at that place, through the maps between the views;
    or its mean over the same class."""
    mixup_share: float = Field(default=0.35, ge=0, le=1)
    """lambda of Eq 3: the other modality's share."""
    contrast: Literal["classes", "images"] = "classes"
    """What is contrasted: the mean of each class in each image, or of each image, as the blog's sample has it."""
    same_class: SameClass = "masked"
    """What the same class in other images is to a contrast of classes: left out, a match, or a mismatch."""
    temperature: float = Field(default=0.07, gt=0)
    """Of the InfoNCE term."""
    mixed: float = Field(default=1.0, ge=0)
    """Weight of the supervision of the mixed features."""
    orthogonality: float = Field(default=0.1, ge=0)
    """Weight of the term that keeps the two halves of an embedding orthogonal."""
    contrastive: float = Field(default=0.5, ge=0)
    """Weight of the InfoNCE term."""
    auxiliary: float = Field(default=0.2, ge=0)
    """Weight of the supervision of each half alone."""

    def projects(self, backbone: str) -> bool:
        """Whether a network of this backbone has projections."""
        return backbone == "resnet50" if self.parts == "by_backbone" else self.parts == "projections"


class CrodinoKd:
    """The method; see the module."""

    def __init__(self, config: CrodinoConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        config, weights = self.config, self.class_weights
        labels = view_labels(batch)
        mixer = self._mixer(batch, labels) if config.mixed else None
        out: DisentangledOutput = model(batch.images, mixer)
        losses = {"sup": supervise_each(out.logits, labels, config, weights)}
        if out.mixed is not None:
            losses["mixed"] = config.mixed * supervise_each(out.mixed, labels, config, weights)
        if config.orthogonality:
            terms = [orthogonality(*halves) for halves in zip(out.invariant, out.specific, strict=True)]
            losses["ortho"] = config.orthogonality * torch.stack(terms).sum()
        if config.auxiliary:
            terms = [supervise_each(half, labels, config, weights) for half in out.auxiliary]
            losses["aux"] = config.auxiliary * torch.stack(terms).sum()
        return losses | (self._contrast(out, labels) if config.contrastive else {})

    def _mixer(self, batch: Batch, labels: list[Tensor]) -> Mixer:
        share = self.config.mixup_share
        if self.config.mixup == "positions":
            return lambda invariant, _classes: mix_positions(invariant, share, batch.to_view)
        return lambda invariant, classes: mix_classes(invariant, share, labels, classes)

    def _contrast(self, out: DisentangledOutput, labels: list[Tensor]) -> dict[str, Tensor]:
        invariant = list(out.invariant)
        by_class = self.config.contrast == "classes"
        pairs = pooled_pairs(invariant, labels, out.logits.shape[-1]) if by_class else image_pairs(invariant)
        same_class = self.config.same_class
        if not pairs.contrasts(same_class):  # said aloud and left out: a loss of zero would look as if all were well
            warnings.warn(
                f"crodino_kd: {len(pairs.kind)} pairs of {len(pairs.kind.unique())} classes in a batch, nothing to "
                "contrast; the term is left out of this step. Raise optim.batch_size",
                stacklevel=2,
            )
            return {}
        return {"contrast": self.config.contrastive * info_nce(pairs, self.config.temperature, same_class)}


def view_labels(batch: Batch) -> list[Tensor]:
    """Labels [B, H, W] of each modality's view."""
    modalities = batch.images.shape[1]
    return list(batch.labels.unbind(dim=1)) if batch.labels.ndim == 4 else [batch.labels] * modalities
