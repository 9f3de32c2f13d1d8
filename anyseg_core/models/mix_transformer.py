"""Mix Transformer (MiT-B0 to B5), the encoder of SegFormer (arXiv 2105.15203).

Activations are [B, H, W, C] throughout: linear layers and layer norms need the channels last, and a permuted
view of that is exactly torch's channels_last format, in which the convolutions run without a copy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class MixTransformerSpec:
    """One size of MiT; tuples hold a value per stage."""

    dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    reductions: tuple[int, int, int, int] = (8, 4, 2, 1)
    """Keys and values are taken from a map this many times smaller (eq. 2 of the paper)."""
    mlp_ratio: int = 4


_WIDE = (64, 128, 320, 512)
VARIANTS: dict[str, MixTransformerSpec] = {
    "b0": MixTransformerSpec((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": MixTransformerSpec(_WIDE, (2, 2, 2, 2)),
    "b2": MixTransformerSpec(_WIDE, (3, 4, 6, 3)),
    "b3": MixTransformerSpec(_WIDE, (3, 4, 18, 3)),
    "b4": MixTransformerSpec(_WIDE, (3, 8, 27, 3)),
    "b5": MixTransformerSpec(_WIDE, (3, 6, 40, 3)),
}


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a convolution to [B, H, W, C] -> [B, H', W', C'], contiguous where x is."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class DropPath(nn.Module):
    """Drop a residual branch for whole samples (stochastic depth, arXiv 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)


class OverlapPatchEmbed(nn.Module):
    """Strided convolution whose patches overlap, then layer norm."""

    def __init__(self, in_dim: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(convolve(self.proj, x))  # [B, H, W, in_dim] -> [B, H/stride, W/stride, dim]


class EfficientAttention(nn.Module):
    """Multi-head self-attention whose keys and values come from a map `reduction` times smaller."""

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.reduce = nn.Conv2d(dim, dim, reduction, reduction) if reduction > 1 else None
        self.reduce_norm = nn.LayerNorm(dim) if reduction > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        reduced = x
        if self.reduce is not None and self.reduce_norm is not None:
            reduced = self.reduce_norm(convolve(self.reduce, x))  # [B, H/r, W/r, C]
        q = self.q(x).reshape(B, H * W, self.heads, -1).transpose(1, 2)  # [B, heads, N, C/heads]
        k, v = self.kv(reduced).chunk(2, dim=-1)  # [B, H/r, W/r, C] each
        k = k.reshape(B, -1, self.heads, C // self.heads).transpose(1, 2)  # [B, heads, N/r², C/heads]
        v = v.reshape(B, -1, self.heads, C // self.heads).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v)  # [B, heads, N, C/heads]
        return self.proj(out.transpose(1, 2).reshape(B, H, W, C))


class MixFFN(nn.Module):
    """Feed-forward with a 3x3 depthwise convolution in it: the only place that knows positions (eq. 3)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        # fc1 as a 1x1 convolution: engines keep their own layout from there through the depthwise one, and change it
        # on C channels instead of the four times as many after it.
        hidden = F.conv2d(x.permute(0, 3, 1, 2), self.fc1.weight[:, :, None, None], self.fc1.bias)  # [B, hidden, H, W]
        return self.fc2(F.gelu(self.dwconv(hidden).permute(0, 2, 3, 1)))


class Block(nn.Module):
    """Attention and Mix-FFN, each with a pre-norm and a residual."""

    def __init__(self, dim: int, heads: int, reduction: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = EfficientAttention(dim, heads, reduction)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MixFFN(dim, dim * mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Module):
    """Patch embedding, blocks, and the norm of the stage's output."""

    def __init__(self, embed: OverlapPatchEmbed, blocks: list[Block], dim: int) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class MixTransformer(nn.Module):
    """MiT encoder: images float [B, H, W, 3] -> four feature maps [B, H/s, W/s, C_s] with s = 4, 8, 16, 32.

    H and W are multiples of 32. `variant` is a name in `VARIANTS` or a size of one's own; `drop_path` grows linearly
    over the blocks to this rate. Raises ValueError for an unknown variant.
    """

    mixes_images = False
    """It has no batch norm: an image's features do not depend on the others of its batch."""

    def __init__(self, variant: str | MixTransformerSpec = "b0", drop_path: float = 0.1) -> None:
        super().__init__()
        spec = VARIANTS.get(variant) if isinstance(variant, str) else variant
        if spec is None:
            raise ValueError(f"unknown MiT variant {variant!r}; known variants: {', '.join(VARIANTS)}")
        self.dims = spec.dims
        rates = iter(np.linspace(0, drop_path, sum(spec.depths)).tolist())
        stages = []
        for i, (dim, depth, heads, reduction) in enumerate(
            zip(spec.dims, spec.depths, spec.heads, spec.reductions, strict=True)
        ):
            embed = OverlapPatchEmbed(3 if i == 0 else spec.dims[i - 1], dim, *((7, 4) if i == 0 else (3, 2)))
            blocks = [Block(dim, heads, reduction, spec.mlp_ratio, next(rates)) for _ in range(depth)]
            stages.append(Stage(embed, blocks, dim))
        self.stages = nn.ModuleList(stages)
        self.apply(_init_weights)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> list[Tensor]:
        features, x = [], images
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def _init_weights(module: nn.Module) -> None:
    """Initialisation of the official SegFormer."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(cast("Tensor", module.bias))
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        nn.init.zeros_(cast("Tensor", module.bias))


# --- weights of others -------------------------------------------------------------------------------------

_OFFICIAL = (
    (r"patch_embed(\d)\.", r"stages.\1.embed."),
    (r"block(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"attn\.sr\.", "attn.reduce."),
    (r"attn\.norm\.", "attn.reduce_norm."),
    (r"mlp\.dwconv\.dwconv\.", "mlp.dwconv."),
    (r"^norm(\d)\.", r"stages.\1.norm."),
)
_HUGGING_FACE = (  # the names in published files
    (r"^(?:segformer\.)?(?:encoder\.)?", ""),
    (r"patch_embeddings\.(\d)\.layer_norm\.", r"stages.\1.embed.norm."),
    (r"patch_embeddings\.(\d)\.", r"stages.\1.embed."),
    (r"block\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.layer_norm_([12])\.", r".norm\1."),
    (r"attention\.self\.query\.", "attn.q."),
    (r"attention\.self\.(key|value)\.", r"attn.\1."),
    (r"attention\.self\.sr\.", "attn.reduce."),
    (r"attention\.self\.layer_norm\.", "attn.reduce_norm."),
    (r"attention\.output\.dense\.", "attn.proj."),
    (r"mlp\.dense([12])\.", r"mlp.fc\1."),
    (r"mlp\.dwconv\.dwconv\.", "mlp.dwconv."),
    (r"^layer_norm\.(\d)\.", r"stages.\1.norm."),
)
_HUGGING_FACE_5 = (  # the names of transformers 5 in memory
    (r"^segformer\.", ""),
    (r"patch_embeddings\.layer_norm\.", "embed.norm."),
    (r"patch_embeddings\.", "embed."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"attention\.(?:sequence_reduction\.){2}", "attn.reduce."),
    (r"attention\.sequence_reduction\.layer_norm\.", "attn.reduce_norm."),
    (r"attention\.k_proj\.", "attn.key."),
    (r"attention\.v_proj\.", "attn.value."),
    (r"attention\.q_proj\.", "attn.q."),
    (r"attention\.o_proj\.", "attn.proj."),
    (r"mlp\.dwconv\.dwconv\.", "mlp.dwconv."),
    (r"\.layer_norm\.", ".norm."),
)


def load_encoder_weights(encoder: MixTransformer, weights: Mapping[str, Tensor]) -> None:
    """Load the ImageNet weights of the official SegFormer (`mit_b*.pth`) or of Hugging Face into `encoder`.

    Classifier and decoder weights are left out; everything else must fit exactly.
    Raises RuntimeError (from torch) that lists keys that are missing, left over, or of another size.
    """
    official = any(key.startswith("patch_embed1.") for key in weights)
    published = any(".patch_embeddings.0." in f".{key}" for key in weights)
    rules = _OFFICIAL if official else _HUGGING_FACE if published else _HUGGING_FACE_5
    ours: dict[str, Tensor] = {}
    for key, value in weights.items():
        if re.match(r"(head|classifier|decode_head)\.", key):
            continue
        ours[_renamed(key, rules, first_stage=1 if official else 0)] = value
    encoder.load_state_dict(_join_keys_and_values(ours), strict=True)


def _renamed(key: str, rules: tuple[tuple[str, str], ...], first_stage: int) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return re.sub(r"stages\.(\d)", lambda match: f"stages.{int(match[1]) - first_stage}", key)


def _join_keys_and_values(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face keeps `key` and `value` apart; here, as in the official code, they are one layer."""
    joined = {key: value for key, value in weights.items() if not re.search(r"attn\.(key|value)\.", key)}
    for key, value in weights.items():
        if ".attn.key." in key:
            joined[key.replace(".key.", ".kv.")] = torch.cat([value, weights[key.replace(".key.", ".value.")]])
    return joined
