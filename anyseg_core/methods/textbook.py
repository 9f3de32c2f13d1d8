"""AnySeg's student step in the plain form of its release: what the fast step is tested and measured against.

The same weights and the same numbers as `anyseg.py`, computed as the papers draw them: attention with its matrix
written out, a head that projects, enlarges, concatenates and fuses, and losses in loops over samples, stages and
modalities. Slow on purpose; nothing trains with it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anyseg_core.methods.anyseg import AnySegConfig
from anyseg_core.methods.base import Batch
from anyseg_core.methods.losses import hard_example_mean
from anyseg_core.models.anymodal import AnymodalSegmenter

Features = list[Tensor]
"""Per stage [N, C, h, w]."""


def textbook_losses(
    model: AnymodalSegmenter, teacher: AnymodalSegmenter, batch: Batch, subset: list[int], config: AnySegConfig
) -> dict[str, Tensor]:
    """L_sup, L_mad, L_umd and L_cmd (variant `released`) of one subset of modalities for the whole batch."""
    modalities = list(range(batch.images.shape[1]))
    logits, student = predict(model, batch, subset)
    with torch.no_grad():
        teacher_logits, taught = predict(teacher, batch, modalities)
    pixel_losses = F.cross_entropy(logits, batch.labels, ignore_index=255, reduction="none")[batch.labels != 255]
    mad = F.kl_div(logits.log_softmax(dim=1), teacher_logits.softmax(dim=1), reduction="none").mean().clamp(min=0)
    return {
        "sup": hard_example_mean(pixel_losses, config.ohem_threshold),
        "mad": config.mad * mad,
        "umd": config.umd * unimodal_loop(student, taught, subset),
        "cmd": config.cmd * crossmodal_loop(student, taught, subset),
    }


def predict(model: AnymodalSegmenter, batch: Batch, subset: list[int]) -> tuple[Tensor, list[list[Tensor]]]:
    """Logits [B, K, H, W] at the labels' size, and per stage the features [B, C, h, w] of each modality."""
    features = []
    for modality in subset:
        images = batch.images[:, modality]
        features.append(
            encode(model, model.normalise(images, torch.full((len(images),), modality, device=images.device)))
        )
    per_stage = [[of_modality[stage] for of_modality in features] for stage in range(4)]
    fused = [torch.stack(stage).mean(dim=0) for stage in per_stage]
    logits = decode(model, fused)
    return F.interpolate(logits, batch.labels.shape[1:], mode="bilinear", align_corners=False), per_stage


def encode(model: AnymodalSegmenter, images: Tensor) -> Features:
    """MiT of float images [N, H, W, 3] (arXiv 2105.15203)."""
    features: Features = []
    x = images.permute(0, 3, 1, 2)
    for stage in _parts(model.encoder.stages):
        x = stage.embed.proj(x)  # [N, C, h, w]
        size = x.shape[2:]
        tokens = stage.embed.norm(x.flatten(2).transpose(1, 2))  # [N, h*w, C]
        for block in _parts(stage.blocks):
            tokens = tokens + attend(block.attn, block.norm1(tokens), size)
            hidden = _to_map(block.mlp.fc1(block.norm2(tokens)), size)
            tokens = tokens + block.mlp.fc2(F.gelu(block.mlp.dwconv(hidden).flatten(2).transpose(1, 2)))
        x = _to_map(stage.norm(tokens), size)
        features.append(x)
    return features


def attend(attention: Any, tokens: Tensor, size: torch.Size) -> Tensor:
    """Self-attention of tokens [N, h*w, C] to a smaller map, with the attention matrix in memory."""
    N, L, C = tokens.shape
    reduced = tokens
    if attention.reduce is not None:
        reduced = attention.reduce(_to_map(tokens, size)).flatten(2).transpose(1, 2)  # [N, h*w/r², C]
        reduced = attention.reduce_norm(reduced)
    heads = attention.heads
    q = attention.q(tokens).reshape(N, L, heads, C // heads).permute(0, 2, 1, 3)
    k, v = attention.kv(reduced).reshape(N, -1, 2, heads, C // heads).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) * (C // heads) ** -0.5).softmax(dim=-1)  # [N, heads, h*w, h*w/r²]
    return attention.proj((weights @ v).transpose(1, 2).reshape(N, L, C))


def decode(model: AnymodalSegmenter, fused: Features) -> Tensor:
    """SegFormer's head as published: features -> logits [N, K, H/4, W/4]."""
    head, size = model.head, fused[0].shape[2:]
    projected = []
    for layer, feature in zip(_parts(head.project), fused, strict=True):
        low = _to_map(layer(feature.flatten(2).transpose(1, 2)), feature.shape[2:])  # [N, width, h, w]
        projected.append(F.interpolate(low, size, mode="bilinear", align_corners=False))
    joined = F.conv2d(torch.cat(projected, dim=1), head.fuse.weight[:, :, None, None])
    activated = head.dropout(F.relu(head.norm(joined)))
    return F.conv2d(activated, head.classify.weight[:, :, None, None], head.classify.bias)


def unimodal_loop(student: list[list[Tensor]], teacher: list[list[Tensor]], subset: list[int]) -> Tensor:
    """L_umd as released: sample by sample, stage by stage, modality by modality."""
    samples = student[0][0].shape[0]
    total = student[0][0].new_zeros(())
    for i in range(samples):
        for stage in range(4):
            for k, modality in enumerate(subset):
                log_g = student[stage][k][i].log_softmax(dim=1)  # [C, h, w]: over rows
                f = teacher[stage][modality][i].softmax(dim=1)
                total = total + F.kl_div(log_g, f, reduction="none").mean().clamp(min=0)
    return total / samples


def crossmodal_loop(student: list[list[Tensor]], teacher: list[list[Tensor]], subset: list[int]) -> Tensor:
    """L_cmd as released: all pairs of images of the batch, one after another."""
    samples = student[0][0].shape[0]
    total = student[0][0].new_zeros(())
    for stage in range(4):
        images = [(i, k) for i in range(samples) for k in range(len(subset))]
        g = [student[stage][k][i].log_softmax(dim=1) for i, k in images]
        f = [teacher[stage][subset[k]][i].softmax(dim=1) for i, k in images]
        total = total + F.mse_loss(similarities(g), similarities(f))
    return total / samples


def similarities(images: list[Tensor]) -> Tensor:
    """Mean over channels of the cosine similarity of each pair of [C, h, w]: [P, P], one on the diagonal."""
    matrix = torch.ones(len(images), len(images), device=images[0].device)
    rows = [
        torch.stack(
            [
                matrix[p, q] if p == q else F.cosine_similarity(a.flatten(1), b.flatten(1), dim=1).mean()
                for q, b in enumerate(images)
            ]
        )
        for p, a in enumerate(images)
    ]
    return torch.stack(rows)


def _to_map(tokens: Tensor, size: torch.Size) -> Tensor:
    """[N, h*w, C] -> [N, C, h, w], contiguous as the release keeps it."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *size)


def _parts(modules: Any) -> Any:
    """A module list's modules, whose attributes torch does not type."""
    return modules
