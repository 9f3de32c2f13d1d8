"""A network per modality, trained side by side; together they average their probabilities.

The students of every method with two single-modality networks: plain, distilled, and CroDiNo-KD's disentangled ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from anyseg_core.models.base import SegmentationModel, Subset, all_subsets
from anyseg_core.models.deeplab import DeepLab, DeepLabSpec, convolution


class UnimodalOutput(NamedTuple):
    """What the networks of M modalities say of B samples."""

    logits: Tensor
    """[M, B, H/4, W/4, K]."""
    embeddings: Tensor
    """[M, B, C, H/16, W/16]; with EfficientNet-Lite H/32 and W/32, here and below."""
    regenerated: Tensor | None = None
    """The same shape, of `RegeneratingNetworks` that were told what to hide."""


class UnimodalNetworks(SegmentationModel):
    """M independent DeepLabs."""

    def __init__(self, mean: Sequence[Sequence[float]], std: Sequence[Sequence[float]], spec: DeepLabSpec) -> None:
        super().__init__(mean, std)
        self.networks = nn.ModuleList(DeepLab(spec) for _ in mean)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def network(self, modality: int) -> DeepLab:
        """Of one modality."""
        return cast("DeepLab", self.networks[modality])

    @property
    def encoders(self) -> list[nn.Module]:
        return [self.network(modality).encoder for modality in range(len(self.networks))]

    def deployed_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.networks.parameters())

    def encode(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """uint8 [B, M, H, W, 3] -> per modality the embedding [B, C, H/16, W/16] and the low-level map."""
        pairs = [self.network(m).encode(self.planes(images[:, m], m)) for m in range(len(self.networks))]
        return [embedding for embedding, _ in pairs], [low for _, low in pairs]

    def planes(self, images: Tensor, modality: int) -> Tensor:
        """uint8 [B, H, W, 3] of one modality -> float [B, 3, H, W], normalised; torch's channels_last."""
        index = torch.full((len(images),), modality, device=images.device)
        return self.normalise(images, index).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> UnimodalOutput:
        embeddings, lows = self.encode(images)
        pairs = zip(embeddings, lows, strict=True)
        logits = [self.network(m).decoder(*pair) for m, pair in enumerate(pairs)]
        return UnimodalOutput(torch.stack(logits), torch.stack(embeddings))

    def subset_logits(self, images: Tensor) -> Iterator[tuple[Subset, Tensor]]:
        """See the base. Several modalities average their probabilities; the logarithm of the mean stands for logits."""
        logits = self.contributions(images)
        for subset in all_subsets(len(images)):
            yield subset, average_probabilities(logits[list(subset)])

    def contributions(self, images: Tensor) -> Tensor:
        """See the base: the logits of each network, [M, h, w, K]."""
        return torch.cat([self.network(m)(self.planes(images[m][None], m)) for m in range(len(images))])

    def together(self, contributions: Tensor) -> Tensor:
        return average_probabilities(contributions)


def average_probabilities(logits: Tensor) -> Tensor:
    """Logits [M, h, w, K] of one image -> logits [1, h, w, K] whose softmax is the mean of the M softmaxes."""
    if len(logits) == 1:
        return logits
    return torch.logsumexp(logits.log_softmax(dim=-1), dim=0, keepdim=True) - math.log(len(logits))


class RegeneratingNetworks(UnimodalNetworks):
    """With the block per modality that masked generative distillation (arXiv 2205.01529) trains and drops:
    3x3 convolution, ReLU, 3x3 convolution.
    """

    def __init__(self, mean: Sequence[Sequence[float]], std: Sequence[Sequence[float]], spec: DeepLabSpec) -> None:
        super().__init__(mean, std, spec)
        dim = self.network(0).embedding_dim
        self.generators = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1)) for _ in mean
        )

    def forward(self, images: Tensor, hide: Callable[[Tensor], Tensor] | None = None) -> UnimodalOutput:
        """`hide`: embeddings [M, B, C, h, w] -> what the generators see of them."""
        out = super().forward(images)
        if hide is None:
            return out
        blocks = zip(self.generators, hide(out.embeddings), strict=True)
        return out._replace(regenerated=torch.stack([block(z) for block, z in blocks]))


Mixer = Callable[[list[Tensor], int], list[Tensor]]
"""The invariant halves [B, C/2, h, w] of each modality, and K -> what the decoders see instead, same shapes."""


class DisentangledOutput(NamedTuple):
    """A training pass of CroDiNo-KD, M modalities, B samples."""

    logits: Tensor
    """[M, B, H/4, W/4, K]."""
    mixed: Tensor | None
    """The same of the mixed embeddings; None without a mixer."""
    invariant: Tensor
    """[M, B, C/2, H/16, W/16]: Z_inv."""
    specific: Tensor
    """[M, B, C/2, H/16, W/16]: Z_spe."""
    auxiliary: Tensor
    """[2, M, B, H/16, W/16, K]: of Z_inv alone, of Z_spe alone."""


class DisentangledNetworks(UnimodalNetworks):
    """CroDiNo-KD's networks (arXiv 2505.24361, as a blog describes them): each embedding is two halves.

    The first half of the embedding's channels is Z_inv, what both modalities see, the second Z_spe, what one sees
    alone; the decoder sees both. One auxiliary decoder for all halves is needed in training only.

    Args:
        projections: each half is a 1x1 convolution of the encoder's map, with both signs; else a half of the map.
    """

    def __init__(
        self,
        mean: Sequence[Sequence[float]],
        std: Sequence[Sequence[float]],
        spec: DeepLabSpec,
        *,
        projections: bool = False,
    ) -> None:
        super().__init__(mean, std, spec)
        self.classes = spec.classes
        dim = self.network(0).embedding_dim
        self.auxiliary = nn.Sequential(
            convolution(dim // 2, spec.head_width, 3), nn.Conv2d(spec.head_width, spec.classes, 1)
        )
        # After all that other networks have, too, so that a seed gives these the same first weights.
        for m in range(len(self.networks) if projections else 0):
            self.network(m).project = nn.Conv2d(dim, dim, 1)  # both projections side by side
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, mix: Mixer | None = None) -> DisentangledOutput:  # type: ignore[override]
        embeddings, lows = self.encode(images)
        halves = [embedding.chunk(2, dim=1) for embedding in embeddings]
        invariant, specific = [half[0] for half in halves], [half[1] for half in halves]
        versions = [invariant] if mix is None else [invariant, mix(invariant, self.classes)]
        decoded = []
        for m, low in enumerate(lows):
            # All versions in one batch: its norms are of both in training, as their running means are in use.
            embedding = torch.cat([torch.cat([version[m], specific[m]], dim=1) for version in versions])
            logits = self.network(m).decoder(embedding, torch.cat([low] * len(versions)))
            decoded.append(logits.unflatten(0, (len(versions), -1)))
        logits = torch.stack(decoded, dim=1)  # [1 or 2, M, B, H/4, W/4, K]
        parts = torch.stack([torch.stack(invariant), torch.stack(specific)])  # [2, M, B, C/2, h, w]
        auxiliary = self.auxiliary(parts.flatten(0, 2)).permute(0, 2, 3, 1).unflatten(0, parts.shape[:3])
        return DisentangledOutput(logits[0], None if mix is None else logits[1], parts[0], parts[1], auxiliary)
