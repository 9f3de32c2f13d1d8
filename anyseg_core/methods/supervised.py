"""Supervised training on random subsets of the modalities (L_sup of AnySeg, arXiv 2411.17141), or on all of them.

With `anymodal_dropout: false` this trains AnySeg's teacher: parallel multimodal learning on all modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from anyseg_core.methods.base import Batch, NetworkKind
from anyseg_core.methods.losses import hard_example_mean, labelled_cross_entropy, marginal_cross_entropy, plain_mean
from anyseg_core.models.anymodal import PresentImages, select_present, upsample_logits


class LabelLossConfig(BaseModel):
    """What every method has: the loss on labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: ClassVar[NetworkKind] = "anymodal"
    """The kind of network that the method trains."""
    views_apart: ClassVar[bool] = False
    """Whether each modality may be augmented by itself (`data/decoupled.py`)."""
    takes_mixtures: ClassVar[bool] = False
    """Whether samples may lack modalities and labels may be coarse (`data/mixture.py`)."""

    loss: Literal["ohem", "cross_entropy"] = "ohem"
    """`ohem` takes the hardest pixels alone (online hard example mining)."""
    ohem_threshold: float = Field(default=0.7, gt=0, lt=1)
    """Pixels whose class gets a probability below this are hard. With `class_balance` the weighted loss is compared
    with that of this probability: of a common class fewer pixels are hard."""
    class_balance: float = Field(default=0.0, ge=0, le=1)
    """Weight of a class = its share of the training pixels to the power of minus this: 0 = all alike."""


class SupervisionConfig(LabelLossConfig):
    """What every method of the anymodal network has: L_sup on subsets of the modalities."""

    subsets: Literal["per_sample", "per_batch"] = "per_sample"
    """One subset for the whole batch is what AnySeg's release does."""
    subsets_per_step: int = Field(default=1, gt=0)
    """Subsets drawn of each sample in a step; the encoder, nearly all of the cost, runs once for all of them."""


class SupervisedConfig(SupervisionConfig):
    """Settings of the method `supervised`."""

    takes_mixtures: ClassVar[bool] = True
    name: Literal["supervised"] = "supervised"
    anymodal_dropout: bool = True
    """Train on random subsets of the modalities; false trains on all of them, always."""


def sees_all_always(method: BaseModel) -> bool:
    """Whether a method trains on all modalities alone: a network that is judged by what it makes of all of them."""
    return isinstance(method, SupervisedConfig) and not method.anymodal_dropout


class Supervised:
    """Cross entropy on the modalities that anymodal dropout leaves.

    Args:
        class_weights: [K], see `balance_weights`, or None for equal weights.
    """

    def __init__(self, config: SupervisedConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        subsets = step_subsets(batch, self.config) if self.config.anymodal_dropout else all_modalities(batch)
        logits = model(encoded_images(model, batch, subsets), subsets)  # [S * B, H/4, W/4, K]
        full = upsample_logits(logits.float(), label_size(batch))  # [S * B, K, H/s, W/s]
        return {"sup": supervision(full, batch.labels, self.config, self.class_weights, batch.members)}


def label_size(batch: Batch) -> tuple[int, int]:
    """(height, width) of the labels."""
    return batch.labels.shape[-2], batch.labels.shape[-1]


def supervision(
    logits: Tensor,
    labels: Tensor,
    config: LabelLossConfig,
    class_weights: Tensor | None,
    members: Tensor | None = None,
) -> Tensor:
    """L_sup of S subsets: logits [S * B, K, H, W], labels int64 [B, H, W], `members` of coarse labels where any are."""
    repeated = labels.repeat(len(logits) // len(labels), 1, 1)  # [S * B, H, W]
    if members is None:
        pixel_losses = labelled_cross_entropy(logits, repeated, class_weights)
    else:
        pixel_losses = marginal_cross_entropy(logits, repeated, members, class_weights)
    if config.loss == "ohem":
        return hard_example_mean(pixel_losses, config.ohem_threshold)
    return plain_mean(pixel_losses)


def supervise_each(
    logits: Tensor, labels: Sequence[Tensor], config: LabelLossConfig, class_weights: Tensor | None
) -> Tensor:
    """The sum over M networks: logits [M, B, h, w, K], labels int64 [B, H, W] of each one's view."""
    full = (upsample_logits(own.float(), labels[0].shape[1:]) for own in logits)  # type: ignore[arg-type]
    terms = [supervision(own, of_view, config, class_weights) for own, of_view in zip(full, labels, strict=True)]
    return torch.stack(terms).sum()


def step_subsets(batch: Batch, config: SupervisionConfig) -> Tensor:
    """The modalities to train on in this step, bool [S, B, M]."""
    samples, modalities = batch.images.shape[:2]
    if batch.present is not None:
        present = batch.present.repeat(config.subsets_per_step, 1)  # [S * B, M]
        subsets = draw_subsets_of(present.cpu()).unflatten(0, (-1, samples))
    elif config.subsets == "per_sample":
        subsets = draw_subsets(config.subsets_per_step * samples, modalities).unflatten(0, (-1, samples))
    else:
        subsets = draw_subsets(config.subsets_per_step, modalities)[:, None].expand(-1, samples, -1)
    return subsets.to(batch.images.device)


def encoded_images(model: nn.Module, batch: Batch, subsets: Tensor) -> PresentImages:
    """The images that a step encodes: those that any of the subsets, bool [S, B, M], asks for.

    All that are there where the encoder's batch norm mixes the images: see `AnymodalSegmenter.mixes_images`.
    """
    present = all_modalities(batch)[0] if model.mixes_images else subsets.any(dim=0)
    return select_present(batch.images, present)


def all_modalities(batch: Batch) -> Tensor:
    """The one subset of all modalities that are there, bool [1, B, M]."""
    if batch.present is not None:
        return batch.present[None]
    return torch.ones(1, *batch.images.shape[:2], dtype=torch.bool, device=batch.images.device)


def draw_subsets(samples: int, modalities: int) -> Tensor:
    """Anymodal dropout: n uniform in 1..M, then a uniform subset of n modalities. bool [samples, M]."""
    size = torch.randint(1, modalities + 1, (samples, 1))
    rank = torch.rand(samples, modalities).argsort(dim=1).argsort(dim=1)  # a random permutation per sample
    return rank < size


def draw_subsets_of(present: Tensor) -> Tensor:
    """Anymodal dropout of samples that lack modalities: of n that are there, k uniform in 1..n, then a uniform subset
    of k. bool [samples, M] -> bool [samples, M].
    """
    count = present.sum(dim=1, keepdim=True)
    size = 1 + (torch.rand(len(present), 1) * count).floor().long()
    order = torch.rand(present.shape).masked_fill(~present, 2.0)  # what is absent comes last
    return order.argsort(dim=1).argsort(dim=1) < size


def balance_weights(pixel_counts: Tensor, balance: float) -> Tensor:
    """Pixel counts [K] -> class weights [K], whose mean over all pixels is 1; a class never seen weighs 0."""
    share = pixel_counts.double() / pixel_counts.sum()
    weights = torch.where(share > 0, share.clamp_min(1e-9) ** -balance, 0.0)
    return (weights / (weights * share).sum()).float()
