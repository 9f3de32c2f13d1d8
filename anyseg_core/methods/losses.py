"""Every loss of every method, as pure functions of tensors.

Shapes: B samples, K classes, M modalities, P images (the present modalities of all samples, flat), C channels.
Logits are [B, h, w, K] as the head gives them, or [B, K, H, W] once upsampled; features are [P, h, w, C].

The terms of AnySeg (arXiv 2411.17141) come in three variants. `paper` is the equation as printed, made defined where
it is not. `released` is what the authors' code computes (that of the follow-ups by the same lead, RobustSeg/RobustSeg
and RobustSeg/UMMSS, whose training code contains AnySeg's terms), defects included. `repaired` is the released code
without its defects:

- L_umd's softmax runs over the channels of a position; the release's runs over the rows of a column.
- L_cmd compares cosines of the features themselves, of one sample's modalities. The release compares cosines of the
  student's log-softmaxes with cosines of the teacher's softmaxes, which no student brings to zero, and most of its
  pairs are images of different samples.

All are means over elements and, in L_cmd, over pairs. The published weights 50, 5 and 10 belong to `released`: how
large a term and its gradient are differs between the variants, and `anyseg bench train` prints it.
All are computed in float32 at least, whatever the precision of the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from anyseg_core.models.anymodal import upsample_logits
from anyseg_core.runtime.label_sets import UNLABELLED

Variant = Literal["paper", "released", "repaired"]
"""The equations of a paper, what its released code computes, or that without its defects."""


# --- supervision ----------------------------------------------------------------------------------------------


def pixel_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy of each labelled pixel [V], logits upsampled to the labels' size.

    Args:
        logits: [B, h, w, K].
        labels: int64 [B, H, W]; 255 is ignored.
        class_weights: [K] or None.
    """
    full = upsample_logits(logits, labels.shape[1:])  # type: ignore[arg-type]  # [B, K, H, W]
    return labelled_cross_entropy(full, labels, class_weights)


def labelled_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """As `pixel_cross_entropy`, for logits [B, K, H, W] that have the labels' size already."""
    flat = (
        at_least_float32(logits).permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
    )  # [B*H*W, K], no copy: channels innermost
    loss = F.cross_entropy(flat, labels.reshape(-1), class_weights, ignore_index=UNLABELLED, reduction="none")
    return loss[labels.reshape(-1) != UNLABELLED]


def marginal_cross_entropy(
    logits: Tensor, labels: Tensor, members: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Cross entropy of labels of which some stand for several classes, of each labelled pixel [V].

        loss(x, c) = -w_c log( sum over k in S_c of p_k(x) ),   p = softmax(logits),

    the negative logarithm of the probability that the pixel has one of the classes S_c of its label c (Cour, Sapp and
    Taskar, "Learning from Partial Labels", JMLR 2011). For a label that is a class it is the cross entropy.

    Args:
        logits: [B, K, H, W].
        labels: int64 [B, H, W]: a class, or an index from K on of a coarse label; 255 is ignored.
        members: bool [K + G, K], the classes S_c of each label; the first K rows are the classes themselves.
        class_weights: w, [K + G], or None.
    """
    classes = logits.shape[1]
    log_p = at_least_float32(logits).permute(0, 2, 3, 1).reshape(-1, classes).log_softmax(dim=1)  # [N, K]
    coarse = [log_p[:, row].logsumexp(dim=1, keepdim=True) for row in members[classes:]]  # [N, 1] each
    flat = labels.reshape(-1)
    extended = torch.cat([log_p, *coarse], dim=1)  # [N, K + G]
    loss = F.nll_loss(extended, flat, class_weights, ignore_index=UNLABELLED, reduction="none")
    return loss[flat != UNLABELLED]


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


# --- AnySeg's distillation ------------------------------------------------------------------------------------


def prediction_distillation(student: Tensor, teacher: Tensor, variant: Variant) -> Tensor:
    """L_mad, modality-agnostic semantic distillation: the student's prediction follows the teacher's.

    paper:               KL(P_am || P_mm), the divergence of the student P_am from the teacher P_mm,
    released, repaired:  KL(P_mm || P_am), as torch's kl_div(log P_am, P_mm) computes it;
    both as the mean over B, K, H and W, so a weight of 50 is a weight of 50/K per pixel.

    Args:
        student, teacher: logits [B, K, H, W] of any subset of the modalities and of all of them.
    """
    return divergence(student, teacher, dim=1, variant=variant).mean().clamp_min(0)  # rounding may go below zero


def unimodal_distillation(
    student: Sequence[Tensor], teacher: Sequence[Tensor], samples: int, variant: Variant
) -> Tensor:
    """L_umd: each modality's features follow the teacher's features of the same modality, at every stage.

    The sum over stages and present modalities of a divergence, averaged over the samples:
    paper:     KL(g_i || f_i) of softmaxes over the channels of a position,
    released:  KL(f_i || g_i) of softmaxes over the rows of a column. The code says `softmax(dim=1)` of a [C, H, W]
               tensor, which is H; C was surely meant. Of a map of one row it is always zero,
    repaired:  KL(f_i || g_i) of softmaxes over the channels of a position.
    Of one image and stage the divergence is the mean over its C*h*w elements.

    Args:
        student, teacher: per stage features g, f [P, h, w, C] of the same P images.
        samples: B, that these images belong to.
    """
    axis = 1 if variant == "released" else -1  # of [P, h, w, C]: rows or channels
    stages = [
        divergence(g, f, dim=axis, variant=variant).flatten(1).mean(dim=1).clamp_min(0).sum()  # [P] -> scalar
        for g, f in zip(student, teacher, strict=True)
    ]
    return torch.stack(stages).sum() / samples


def crossmodal_distillation(
    student: Sequence[Tensor], teacher: Sequence[Tensor], sample: Tensor, samples: int, variant: Variant
) -> Tensor:
    """L_cmd: the similarities between modalities follow the teacher's. The sum over stages; zero for lone modalities.

    S(a, b)_c is the cosine similarity of channel c of two feature maps, over their positions.

    paper:     mean over the pairs of modalities of one sample, and over channels, of
               x log(x / y) - x + y  with x = (1 + S(g_a, g_b)) / 2 and y = (1 + S(f_a, f_b)) / 2.
               Printed is S_g log(S_g / S_f), which has no value for S <= 0, and its least value not at S_g = S_f. The
               shift to 0..1 gives it a value, `- x + y` its minimum of 0 at equality (the divergence of unnormalised
               distributions); the terms that were added vanish where x and y have equal sums.
    released:  mean square difference of the matrices of S, averaged over channels, of all P images of the batch, those
               of different samples too, divided by B; S of log-softmaxes for the student and of softmaxes for
               the teacher, over rows. Not zero for a student that equals its teacher.
    repaired:  mean over the pairs of modalities of one sample of the square difference of S, averaged over channels.

    Args:
        student, teacher: per stage features g, f [P, h, w, C] of the same P images.
        sample: int64 [P], the sample of each image.
        samples: B.
    """
    pairs = zip(student, teacher, strict=True)
    if variant == "released":
        return torch.stack([_crossmodal_released(g, f) for g, f in pairs]).sum() / samples
    stage = _crossmodal_paper if variant == "paper" else _crossmodal_repaired
    first, second = torch.triu(sample[:, None] == sample, diagonal=1).nonzero(as_tuple=True)  # [Q] pairs
    return torch.stack([stage(g, f, first, second).sum() for g, f in pairs]).sum() / max(1, len(first))


def _crossmodal_paper(student: Tensor, teacher: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """[P, h, w, C] twice and Q pairs of images -> [Q]."""
    x, y = (((1 + channel_similarity(f, first, second)) / 2).clamp(_EPS, 1) for f in (student, teacher))  # [Q, C]
    return (x * (x / y).log() - x + y).mean(dim=1)


def _crossmodal_repaired(student: Tensor, teacher: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """[P, h, w, C] twice and Q pairs of images -> [Q]."""
    g, f = (channel_similarity(features, first, second).mean(dim=1) for features in (student, teacher))  # [Q]
    return (g - f).square()


def _crossmodal_released(student: Tensor, teacher: Tensor) -> Tensor:
    g = similarity_matrix(at_least_float32(student).log_softmax(dim=1))
    f = similarity_matrix(at_least_float32(teacher).softmax(dim=1))
    between = 1 - torch.eye(len(g), device=g.device)  # an image and itself are alike by definition
    return ((g - f) * between).square().mean()


def divergence(student: Tensor, teacher: Tensor, dim: int, variant: Variant) -> Tensor:
    """Elements of KL between the softmaxes over `dim`: of the student from the teacher (paper), else the reverse."""
    log_s, log_t = (at_least_float32(logits).log_softmax(dim=dim) for logits in (student, teacher))
    return log_s.exp() * (log_s - log_t) if variant == "paper" else log_t.exp() * (log_t - log_s)


def channel_similarity(features: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity over positions, per channel, of pairs of images: [P, h, w, C], int64 [Q] twice -> [Q, C]."""
    unit = _unit_channels(features)
    return (unit[first] * unit[second]).sum(dim=1)


def similarity_matrix(features: Tensor) -> Tensor:
    """Cosine similarity over positions, averaged over channels, of all pairs of images: [P, h, w, C] -> [P, P]."""
    unit = _unit_channels(features).flatten(1)  # [P, h*w*C]
    return unit @ unit.T / features.shape[-1]


_EPS = 1e-6
"""Least shifted similarity: log 0 has no value."""


def _unit_channels(features: Tensor) -> Tensor:
    """[P, h, w, C] -> [P, h*w, C], each channel of each image of length one."""
    return F.normalize(at_least_float32(features).flatten(1, 2), dim=1, eps=1e-8)


def at_least_float32(x: Tensor) -> Tensor:
    """At least float32: sums over a million pixels mean nothing in bfloat16."""
    return x if x.dtype == torch.float64 else x.float()


# --- prototypes, as in RobustSeg ------------------------------------------------------------------------------


def prototype_distillation(
    student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, classes: int, samples: int
) -> Tensor:
    """The student's class prototypes follow the teacher's (in the manner of RobustSeg, CVPR 2026).

    A prototype is the mean feature of a class's pixels in one image. The divergence KL(teacher || student) is that of
    softmaxes over the classes present in the image, per channel; the mean over classes and channels, the sum over
    stages and images, averaged over samples. The released code divides each prototype by its pixel count a second time,
    which makes all but the rarest classes vanish, and lets absent classes take part as zeros; neither is done here.

    Args:
        student, teacher: per stage features [P, h, w, C] of the same P images.
        labels: int64 [P, H, W] of each image; 255 is ignored.
        samples: B.
    """
    terms = []
    for g, f in zip(student, teacher, strict=True):
        counts = class_counts(labels, g.shape[1:3], classes)  # [P, h*w, K]
        absent = (counts.sum(dim=1) == 0)[..., None]  # [P, K, 1]
        log_s, log_t = (_masked_log_softmax(prototypes(x, counts), absent) for x in (g, f))  # [P, K, C]
        terms.append((log_t.exp() * (log_t - log_s)).flatten(1).mean(dim=1).sum())
    return torch.stack(terms).sum() / samples


def class_counts(labels: Tensor, size: Sequence[int], classes: int) -> Tensor:
    """labels int64 [P, H, W] -> one-hot float [P, h*w, K] at `size` (nearest); a pixel of no class is all zero."""
    small = F.interpolate(labels[:, None].float(), size=tuple(size), mode="nearest")[:, 0].long()  # [P, h, w]
    one_hot = F.one_hot(torch.where(small == UNLABELLED, classes, small).flatten(1), classes + 1)
    return one_hot[..., :classes].float()


def prototypes(features: Tensor, counts: Tensor) -> Tensor:
    """Mean feature of each class: [P, h, w, C], [P, h*w, K] -> [P, K, C]; zero for a class that is absent."""
    flat = at_least_float32(features).flatten(1, 2)  # [P, h*w, C]
    total = counts.to(flat.dtype).transpose(1, 2) @ flat  # [P, K, C]
    return total / counts.sum(dim=1).clamp_min(1)[..., None]


def _masked_log_softmax(values: Tensor, absent: Tensor) -> Tensor:
    """Over the classes (dim 1) that are there; 0 for the others, which then have no part in a difference."""
    return values.masked_fill(absent, -1e4).log_softmax(dim=1).masked_fill(absent, 0)
