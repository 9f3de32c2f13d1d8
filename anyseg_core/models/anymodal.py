"""The anymodal network (AnySeg, arXiv 2411.17141): one encoder for all, a mean over the modalities present.

The mean is AnySeg's plain one, or weighed at every pixel (`pixel_gates.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyseg_core.models.base import SegmentationModel, Subset, all_subsets
from anyseg_core.models.encoders import build_encoder
from anyseg_core.models.pixel_gates import PixelGates, divide, pack_stages, unpack_stages
from anyseg_core.models.segformer_head import SegformerHead

MissingPolicy = Literal["remove", "zero"]
"""`remove`: a missing modality is not in the batch. `zero`: it counts in the mean as an all-zero image, which is
how networks trained on all modalities are usually run when one fails."""
Fusion = Literal["mean", "gated"]
"""`mean`: all present modalities count alike, as in AnySeg. `gated`: each is weighed at every pixel and scale."""


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
        backbone: an encoder of `ENCODERS`.
        missing: what a missing modality means, see `MissingPolicy`.
        fusion: how modalities are averaged, see `Fusion`; `gated` cannot be had with missing `zero`.
    """

    def __init__(  # noqa: PLR0913 - the network's own settings, named by the caller
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
        fusion: Fusion = "mean",
    ) -> None:
        super().__init__(mean, std)
        if fusion == "gated" and missing == "zero":
            raise ValueError("fusion gated weighs the modalities that are there: it cannot be had with missing zero")
        self.encoder = build_encoder(backbone, drop_path)
        self.head = SegformerHead(self.dims, head_width, classes, dropout)
        self.gates = PixelGates(self.dims) if fusion == "gated" else None
        self.missing: MissingPolicy = missing

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the encoder's four feature maps."""
        return cast("tuple[int, ...]", self.encoder.dims)

    @property
    def mixes_images(self) -> bool:
        """Whether an image's features depend on the others of its batch while training: the encoder's batch norm.

        Then training encodes all modalities in every step, whichever subsets it asks for, so that the statistics are
        those of all modalities in equal parts, as in the running ones that inference uses.
        """
        return cast("bool", self.encoder.mixes_images)

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.encoder]

    def encode(self, images: Tensor, modality: Tensor) -> list[Tensor]:
        """uint8 [P, H, W, 3], int64 [P] -> the four stages' features, one map per image."""
        return self.encoder(self.normalise(images, modality))

    def weigh(self, features: list[Tensor]) -> list[Tensor]:
        """Features of each image -> maps whose plain mean over images is all that `resolve` needs, per stage."""
        return features if self.gates is None else self.gates.weigh(features)

    def resolve(self, means: list[Tensor]) -> list[Tensor]:
        """Means of what `weigh` gives -> the fused features, per stage."""
        return means if self.gates is None else divide(means)

    def average(self, features: list[Tensor], sample: Tensor, batch: int) -> list[Tensor]:
        """Per-image features [P, h, w, C] -> the mean over each sample's modalities [B, h, w, C], per stage."""
        return self.resolve(self._plain_mean(self.weigh(features), sample, batch))

    def _plain_mean(self, features: list[Tensor], sample: Tensor, batch: int) -> list[Tensor]:
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
        Batch norm uses its running statistics, in training too, and leaves them: half of them would be of nothing.
        """
        was_training = self.encoder.training
        self.encoder.eval()
        try:
            return self.encoder(self.mean.new_zeros(1, height, width, 3))
        finally:
            self.encoder.train(was_training)

    def contributions(self, images: Tensor) -> Tensor:
        """See the base: what each adds to the mean before the decoder's batch norm, [M, width, h, w].

        With gates, whose mean comes before the head: the weighed features of all stages, [M, h, w, F].
        """
        features = self.encode(images, torch.arange(len(images), device=images.device))
        return self.head.fuse_stages(features) if self.gates is None else pack_stages(self.weigh(features))

    def meet(self, contributions: Tensor) -> Tensor:
        """What some modalities bring, [N, ...] -> the decoder's map before its batch norm, [1, width, h, w]."""
        mean = contributions.mean(dim=0)[None]
        if self.gates is None:
            return mean
        return self.head.fuse_stages(divide(unpack_stages(mean, [dim + 1 for dim in self.dims])))

    def together(self, contributions: Tensor) -> Tensor:
        return self.head.decide(self.meet(contributions))

    @torch.no_grad()
    def shares(self, images: Tensor) -> Tensor:
        """How much each modality of one sample counts where, [M, H/4, W/4], summing to 1 over M: the finest stage's.

        Args:
            images: uint8 [M, H, W, 3], one per modality of the network, in its order.
        """
        features = self.encode(images, torch.arange(len(images), device=images.device))
        if self.gates is None:
            return features[0].new_full(features[0].shape[:3], 1 / len(images))
        weights = self.gates(features)[0][..., 0]  # [M, H/4, W/4]
        return weights / weights.sum(dim=0)

    def subset_logits(self, images: Tensor) -> Iterator[tuple[Subset, Tensor]]:
        """See the base. Each modality is encoded once: fusion is a mean, and the head is linear up to its batch norm,
        so a subset costs only the mean of what its members contribute there; with gates the head, too.
        """
        count = images.shape[0]
        brought = self.contributions(images)
        zero = None
        if self.missing == "zero":
            zero = self.head.fuse_stages(self.zero_features(images.shape[1], images.shape[2]))[0]
        for subset in all_subsets(count):
            fused = self.meet(brought[list(subset)])
            if zero is not None:
                fused = fused * (len(subset) / count) + zero * (1 - len(subset) / count)
            yield subset, self.head.decide(fused)

    def forward(
        self,
        batch: PresentImages,
        subsets: Tensor | SubsetChooser | None = None,
        *,
        with_features: bool = False,
    ) -> Tensor | AnymodalOutput:
        """The flat batch -> logits [B, H/4, W/4, K]; with `subsets` -> [S * B, H/4, W/4, K].

        `subsets` bool [S, B, M] asks for the logits of S subsets of each sample's present modalities. Each image is
        encoded once: only the mean depends on what else is there (and batch norm, see `mixes_images`). A chooser picks
        the subsets by the features; `with_features` returns these, too.
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

        The head is linear up to its batch norm, so it commutes with a plain mean: it is applied to whichever are fewer,
        the means or the images.
        """
        shares = subset_shares(batch, subsets)  # [S * B, P]
        before_head = self.gates is not None or len(shares) <= shares.shape[1]
        maps = self.weigh(features) if before_head else [self.head.fuse_stages(features)]
        means = [(shares.to(x.dtype) @ x.flatten(1)).unflatten(1, x.shape[1:]) for x in maps]  # [S * B, ...] each
        if self.missing == "zero":
            there = (subsets.flatten(0, 1).sum(dim=1) / len(self.mean)).to(maps[0].dtype)[:, None, None, None]
            zeros = self.zero_features(4 * features[0].shape[1], 4 * features[0].shape[2])
            zeros = zeros if before_head else [self.head.fuse_stages(zeros)]
            means = [mean * there + zero * (1 - there) for mean, zero in zip(means, zeros, strict=True)]
        return self.head(self.resolve(means)) if before_head else self.head.decide(means[0])


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
