"""The anymodal network (AnySeg, arXiv 2411.17141): one encoder for all, a mean over the modalities present."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyseg_core.models.base import SegmentationModel, Subset, all_subsets
from anyseg_core.models.mix_transformer import MixTransformer
from anyseg_core.models.segformer_head import SegformerHead

MissingPolicy = Literal["remove", "zero"]
"""`remove`: a missing modality is not in the batch. `zero`: it counts in the mean as an all-zero image, which is
how networks trained on all modalities are usually run when one fails."""


class PresentImages(NamedTuple):
    """A flat batch: only the modalities that are there, in any number per sample."""

    images: Tensor
    """uint8 [P, H, W, 3]."""
    modality: Tensor
    """int64 [P], index into the network's modalities."""
    sample: Tensor
    """int64 [P], which of the B samples an image belongs to, ascending."""
    batch: int
    """B, the number of samples."""


class AnymodalOutput(NamedTuple):
    """What a method that distils features needs of a forward pass."""

    logits: Tensor
    """[B, H/4, W/4, K], or [S * B, H/4, W/4, K] for S subsets."""
    features: list[Tensor]
    """Per stage [P, h, w, C]: of each image, before the mean over modalities."""


SubsetChooser = Callable[[list[Tensor]], Tensor]
"""Chooses subsets bool [S, B, M] by the features of a flat batch, per stage [P, h, w, C]."""


def select_present(images: Tensor, present: Tensor) -> PresentImages:
    """images uint8 [B, M, H, W, 3] and present bool [B, M] -> the flat batch of those present.

    Raises ValueError when a sample has no modality at all.
    """
    if not bool(present.any(dim=1).all()):
        raise ValueError("every sample needs at least one modality")
    sample, modality = present.nonzero(as_tuple=True)  # [P] each
    return PresentImages(images[sample, modality], modality, sample, images.shape[0])


class AnymodalSegmenter(SegmentationModel):
    """Parallel multimodal learning: stack modalities on the batch axis, encode, average per sample, decode.

    Args:
        missing: what a missing modality means, see `MissingPolicy`.
    """

    def __init__(
        self,
        mean: Sequence[Sequence[float]],
        std: Sequence[Sequence[float]],
        classes: int,
        backbone: str = "b0",
        head_width: int = 768,
        *,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        missing: MissingPolicy = "remove",
    ) -> None:
        super().__init__(mean, std)
        self.encoder = MixTransformer(backbone, drop_path)
        self.head = SegformerHead(self.encoder.dims, head_width, classes, dropout)
        self.missing: MissingPolicy = missing

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.encoder]

    def encode(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """uint8 [P, H, W, 3], int64 [P] -> the four stages' features, one map per image."""
        return self.encoder(self.normalise(images, modality))

    def average(self, features: list[Tensor], sample: Tensor, batch: int) -> list[Tensor]:
        """Per-image features [P, h, w, C] -> the mean over each sample's modalities [B, h, w, C], per stage."""
        count = torch.bincount(sample, minlength=batch).to(features[0].dtype)  # [B]
        share = (1.0 / self._divisor(count))[sample]  # [P]
        means = []
        for feature in features:
            weighted = feature * share[:, None, None, None]
            means.append(feature.new_zeros(batch, *feature.shape[1:]).index_add(0, sample, weighted))
        return self._add_missing(means, count)

    def _divisor(self, count: Tensor) -> Tensor:
        return count if self.missing == "remove" else torch.full_like(count, len(self.mean))

    def _add_missing(self, means: list[Tensor], count: Tensor) -> list[Tensor]:
        """With policy `zero`, add the features of an all-zero image for each modality that is missing."""
        if self.missing == "remove" or bool((count == len(self.mean)).all()):
            return means
        absent = (1.0 - count / len(self.mean))[:, None, None, None]  # [B, 1, 1, 1]
        height, width = means[0].shape[1] * 4, means[0].shape[2] * 4
        return [mean + absent * zero for mean, zero in zip(means, self.zero_features(height, width), strict=True)]

    @torch.no_grad()
    def zero_features(self, height: int, width: int) -> list[Tensor]:
        """Features [1, h, w, C] of an image that is zero after normalisation; a constant to training.

        A fresh network maps zeros to zeros, where each of its layer norms multiplies a gradient by a thousand.
        """
        return self.encoder(self.mean.new_zeros(1, height, width, 3))

    def contributions(self, images: Tensor) -> Tensor:
        """See the base: what each adds to the mean before the decoder's batch norm, [M, width, h, w]."""
        return self.head.fuse_stages(self.encode(images, torch.arange(len(images), device=images.device)))

    def together(self, contributions: Tensor) -> Tensor:
        return self.head.decide(contributions.mean(dim=0)[None])

    def subset_logits(self, images: Tensor) -> Iterator[tuple[Subset, Tensor]]:
        """See the base. Each modality is encoded once: fusion is a mean, and the head is linear up to its batch norm,
        so a subset costs only the mean of what its members contribute there.
        """
        count = images.shape[0]
        fused = self.contributions(images)
        zero = None
        if self.missing == "zero":
            zero = self.head.fuse_stages(self.zero_features(images.shape[1], images.shape[2]))[0]
        for subset in all_subsets(count):
            mean = fused[list(subset)].mean(dim=0)
            if zero is not None:
                mean = mean * (len(subset) / count) + zero * (1 - len(subset) / count)
            yield subset, self.head.decide(mean[None])

    def forward(
        self,
        batch: PresentImages,
        subsets: Tensor | SubsetChooser | None = None,
        *,
        with_features: bool = False,
    ) -> Tensor | AnymodalOutput:
        """The flat batch -> logits [B, H/4, W/4, K]; with `subsets` -> [S * B, H/4, W/4, K].

        `subsets` bool [S, B, M] asks for the logits of S subsets of each sample's present modalities. Each image is
        encoded once: its features do not depend on the others, only the mean does. A chooser picks the subsets by the
        features; `with_features` returns these, too.
        """
        features = self.encode(batch.images, batch.modality)
        if subsets is None:
            logits = self.head(self.average(features, batch.sample, batch.batch))
        else:
            logits = self._decode_subsets(
                features, batch, subsets if isinstance(subsets, Tensor) else subsets(features)
            )
        return AnymodalOutput(logits, features) if with_features else logits

    def _decode_subsets(self, features: list[Tensor], batch: PresentImages, subsets: Tensor) -> Tensor:
        """Features of P images -> logits [S * B, H/4, W/4, K].

        The head is linear up to its batch norm, so it commutes with the mean: it is applied to whichever are fewer,
        the means or the images.
        """
        shares = subset_shares(batch, subsets)  # [S * B, P]
        before_head = len(shares) <= shares.shape[1]
        maps = features if before_head else [self.head.fuse_stages(features)]
        means = [(shares.to(x.dtype) @ x.flatten(1)).unflatten(1, x.shape[1:]) for x in maps]  # [S * B, ...] each
        if self.missing == "zero":
            there = (subsets.flatten(0, 1).sum(dim=1) / len(self.mean)).to(maps[0].dtype)[:, None, None, None]
            zeros = self.zero_features(4 * features[0].shape[1], 4 * features[0].shape[2])
            zeros = zeros if before_head else [self.head.fuse_stages(zeros)]
            means = [mean * there + zero * (1 - there) for mean, zero in zip(means, zeros, strict=True)]
        return self.head(means) if before_head else self.head.decide(means[0])


def subset_shares(batch: PresentImages, subsets: Tensor) -> Tensor:
    """The share of each image in each subset's mean: float [S * B, P], rows sum to one.

    `subsets` bool [S, B, M]; none may be empty or hold a modality that the batch lacks.
    """
    of_sample = batch.sample == torch.arange(batch.batch, device=batch.sample.device)[:, None]  # [B, P]
    member = (subsets[:, :, batch.modality] & of_sample).flatten(0, 1).float()  # [S * B, P]
    return member / member.sum(dim=1, keepdim=True)


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [B, h, w, K] -> [B, K, H, W], bilinear (align_corners=False)."""
    return F.interpolate(logits.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
