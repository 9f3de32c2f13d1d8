"""The losses of CroDiNo-KD and of the methods with a teacher beside it, as pure functions of tensors.

CroDiNo-KD (arXiv 2505.24361) "as described": its equations could not be read, only a blog's account of them
(2, 3, 5 and 7 are its numbers). What that leaves open is an argument here.

Shapes: M = 2 modalities, B samples, K classes, C channels; embeddings [B, C, h, w], logits [B, h, w, K].
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anyseg_core.methods.losses import at_least_float32, class_counts, prototypes

# --- feature mixup (Eq 3): Z~_inv = lambda * Z_inv(other) + (1 - lambda) * Z_inv(own) --------------------------


def mix_positions(invariant: list[Tensor], share: float, to_view: Tensor | None = None) -> list[Tensor]:
    """Mix position by position: the other modality's features are brought into the own view first.

    Where the other's view does not show a position, or the own view shows only margin, the own features stay.

    Args:
        invariant: Z_inv of the two modalities, [B, C, h, w] each.
        share: lambda, the other's share.
        to_view: [B, 2, 2, 3], the maps from the common frame to each view (`data/decoupled.py`); None = one view.
    """
    mixed = []
    for own, other in ((0, 1), (1, 0)):
        theirs, shown = invariant[other], 1.0
        if to_view is not None:
            theirs, shown = _seen_from(theirs, to_view[:, own], to_view[:, other])
        mixed.append(invariant[own] + share * shown * (theirs - invariant[own]))
    return mixed


def _seen_from(features: Tensor, to_own: Tensor, to_other: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, C, h, w] of the other view as the own view shows them, and where it does, [B, 1, h, w]."""
    back = torch.linalg.inv(_square(to_own))  # [B, 3, 3]: own view -> common frame
    size = [len(features), 1, *features.shape[2:]]
    common = F.affine_grid(back[:, :2], size, align_corners=False)  # [B, h, w, 2]
    theirs = F.affine_grid((_square(to_other) @ back)[:, :2], size, align_corners=False)
    shown = ((common.abs() < 1).all(dim=-1) & (theirs.abs() < 1).all(dim=-1))[:, None]  # [B, 1, h, w]
    # In float32: 8 bits of bfloat16 cannot tell neighbouring positions.
    warped = F.grid_sample(features.float(), theirs, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.to(features.dtype), shown.to(features.dtype)


def _square(affine: Tensor) -> Tensor:
    """[B, 2, 3] -> [B, 3, 3]."""
    last = affine.new_tensor([0.0, 0.0, 1.0]).expand(len(affine), 1, 3)
    return torch.cat([affine, last], dim=1)


def mix_classes(invariant: list[Tensor], share: float, labels: list[Tensor], classes: int) -> list[Tensor]:
    """Mix by class: a position's features with the other modality's mean over the same class in the same image.

    Needs no common geometry. Unlabelled positions, and classes that the other view does not show, stay.

    Args:
        labels: int64 [B, H, W] of each modality's view; 255 is ignored.
    """
    counts = [class_counts(of_view, invariant[0].shape[2:], classes) for of_view in labels]  # [B, h*w, K] each
    means = [prototypes(z.permute(0, 2, 3, 1), count) for z, count in zip(invariant, counts, strict=True)]  # [B, K, C]
    mixed = []
    for own, other in ((0, 1), (1, 0)):
        there = (counts[other].sum(dim=1) > 0).to(counts[own].dtype)  # [B, K]
        share_of = share * (counts[own] @ there[..., None]).transpose(1, 2)  # [B, 1, h*w]
        theirs = (counts[own] @ means[other]).transpose(1, 2)  # [B, C, h*w]
        flat = invariant[own].flatten(2)
        mixed.append((flat + share_of * (theirs - flat)).unflatten(2, invariant[own].shape[2:]))
    return mixed


# --- disentanglement ------------------------------------------------------------------------------------------


def orthogonality(invariant: Tensor, specific: Tensor) -> Tensor:
    """Eq 5: |cosine similarity| of Z_inv and Z_spe [B, C, h, w] at each position, averaged; 0 = orthogonal."""
    halves = (at_least_float32(half) for half in (invariant, specific))
    return F.cosine_similarity(*halves, dim=1).abs().mean()


SameClass = Literal["masked", "positive", "negative"]
"""What another image's embedding of the same class is to a contrast: left out of it, a match, too, or a mismatch."""


class Pairs(NamedTuple):
    """What a contrast pairs: row n of one modality belongs to row n of the other."""

    first: Tensor
    """[N, C]."""
    second: Tensor
    """[N, C]."""
    kind: Tensor
    """int64 [N]: rows of one kind show the same class; all differ where a row is an image."""

    def contrasts(self, same_class: SameClass) -> bool:
        """Whether a row has any mismatch; of an equal kind alone the loss says nothing about what is apart."""
        return len(self.kind) >= 2 if same_class == "negative" else len(self.kind.unique()) >= 2


def pooled_pairs(invariant: list[Tensor], labels: list[Tensor], classes: int) -> Pairs:
    """One pair per image and class that both views show.

    An embedding is the mean of Z_inv over the class's pixels in the image; labels int64 [B, H, W] of each view.
    """
    counts = [class_counts(of_view, z.shape[2:], classes) for z, of_view in zip(invariant, labels, strict=True)]
    means = [prototypes(z.permute(0, 2, 3, 1), count) for z, count in zip(invariant, counts, strict=True)]  # [B, K, C]
    in_both = (counts[0].sum(dim=1) > 0) & (counts[1].sum(dim=1) > 0)  # [B, K]
    return Pairs(means[0][in_both], means[1][in_both], in_both.nonzero()[:, 1])


def image_pairs(invariant: list[Tensor]) -> Pairs:
    """One pair per image, of the mean over all of it."""
    first, second = (at_least_float32(z).mean(dim=(2, 3)) for z in invariant)
    return Pairs(first, second, torch.arange(len(first), device=first.device))


def info_nce(pairs: Pairs, temperature: float = 0.07, same_class: SameClass = "masked") -> Tensor:
    """Eq 7, symmetric: each row is told from the rows of other kinds.

        loss = mean over n and both directions of  -mean over p in P(n) of  log( exp(s_np) / sum over m of exp(s_nm) )

    with s the cosines over the temperature. P(n) is n itself, with `positive` all rows of its kind (the supervised
    contrast of arXiv 2004.11362); m runs over all rows, with `masked` without the other rows of n's kind.

    Raises:
        ValueError: no row has a mismatch. The loss would be 0 whatever the embeddings are, and teach nothing silently.
    """
    if not pairs.contrasts(same_class):
        count, kinds = len(pairs.kind), len(pairs.kind.unique())
        raise ValueError(f"InfoNCE needs two pairs to tell apart, not {count} of {kinds} classes: use larger batches")
    cosines = F.normalize(pairs.first, dim=1) @ F.normalize(pairs.second, dim=1).T / temperature  # [N, N]
    own = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    alike = pairs.kind[:, None] == pairs.kind  # [N, N]
    if same_class == "masked":
        cosines = cosines.masked_fill(alike & ~own, -torch.inf)
    positive = alike if same_class == "positive" else own
    return (_contrast(cosines, positive) + _contrast(cosines.T, positive)) / 2


def _contrast(logits: Tensor, positive: Tensor) -> Tensor:
    """Logits and bool [N, N] -> mean over rows of minus the mean log-probability of the row's positives."""
    log_p = logits.log_softmax(dim=1).masked_fill(~positive, 0)
    return -(log_p.sum(dim=1) / positive.sum(dim=1)).mean()


# --- what a teacher teaches -----------------------------------------------------------------------------------


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(teacher || student) of softmaxes at temperature T (arXiv 1503.02531), mean over positions; logits
    [..., K]."""
    log_s, log_t = ((at_least_float32(x) / temperature).log_softmax(dim=-1) for x in (student, teacher))
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(dim=-1).mean()


def prototype_similarity(student: Tensor, teacher: Tensor, labels: Tensor, classes: int) -> Tensor:
    """ProtoKD (arXiv 2303.09830): mean square difference of the maps of similarity to the classes' prototypes.

    A prototype is a class's mean feature in the batch's image, a map the cosine of each position's feature with it;
    the mean is over positions and the classes that the image shows. 0 where no pixel is labelled.

    Args:
        student, teacher: features [B, C, h, w].
        labels: int64 [B, H, W]; 255 is ignored.
    """
    counts = class_counts(labels, student.shape[2:], classes)  # [B, h*w, K]
    shown = (counts.sum(dim=1) > 0)[:, None]  # [B, 1, K]
    maps = [_similarity(features, counts) for features in (student, teacher)]  # [B, h*w, K] each
    squares = (maps[0] - maps[1]) ** 2 * shown
    return squares.sum() / (shown.sum() * squares.shape[1]).clamp_min(1)


def _similarity(features: Tensor, counts: Tensor) -> Tensor:
    """Cosine of each position's feature [B, C, h, w] with each class's prototype: [B, h*w, K]."""
    last = features.permute(0, 2, 3, 1)
    flat = at_least_float32(last).flatten(1, 2)  # [B, h*w, C]
    return F.normalize(flat, dim=-1) @ F.normalize(prototypes(last, counts), dim=-1).mT


def masked_positions(embeddings: Tensor, share: float) -> Tensor:
    """[M, B, C, h, w] with all channels of random positions set to zero, each with probability `share`."""
    M, B, _, h, w = embeddings.shape
    return embeddings * (torch.rand(M, B, 1, h, w, device=embeddings.device) >= share).to(embeddings.dtype)
