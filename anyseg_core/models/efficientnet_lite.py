"""EfficientNet-Lite 0 to 2: an encoder of convolutions alone, as published with TensorFlow's EfficientNet code.

EfficientNet (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6, in which a processor or an integer unit
is fast. The layers keep the names of the published weights; the classifier is left out. What differs from torch's
habits comes from TensorFlow: padding `SAME`, which at stride 2 pads an even side at its end only, and the batch norm's
epsilon of 1e-3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from anyseg_core.models.mix_transformer import DropPath


class StageSpec(NamedTuple):
    """Blocks of one kind; widths and repeats are those of the network of size 0."""

    kernel: int
    stride: int
    expand: int
    """Channels inside a block, as a multiple of those that enter."""
    width: int
    repeats: int


_STAGES = (
    StageSpec(3, 1, 1, 16, 1),
    StageSpec(3, 2, 6, 24, 2),
    StageSpec(5, 2, 6, 40, 2),
    StageSpec(3, 2, 6, 80, 3),
    StageSpec(5, 1, 6, 112, 3),
    StageSpec(5, 2, 6, 192, 4),
    StageSpec(3, 1, 6, 320, 1),
)
_FEATURE_STAGES = (1, 2, 4, 6)
"""The last stages at strides 4, 8, 16 and 32."""
_STEM_WIDTH = 32
NORM_EPS = 1e-3


@dataclass(frozen=True)
class EfficientNetLiteSpec:
    """One size of the network: how much wider and deeper than size 0 it is."""

    wider: float = 1.0
    deeper: float = 1.0

    def width(self, stage: StageSpec) -> int:
        """Channels of a stage: the nearest multiple of 8 that takes away no more than a tenth."""
        wanted = stage.width * self.wider
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * wanted else rounded + 8

    def repeats(self, number: int) -> int:
        """Blocks of a stage; the first and the last stage stay as they are."""
        scaled = 0 < number < len(_STAGES) - 1
        return math.ceil(_STAGES[number].repeats * self.deeper) if scaled else _STAGES[number].repeats

    @property
    def dims(self) -> tuple[int, int, int, int]:
        """Channels of the four feature maps."""
        a, b, c, d = (self.width(_STAGES[number]) for number in _FEATURE_STAGES)
        return a, b, c, d


EFFICIENTNET_LITES: dict[str, EfficientNetLiteSpec] = {
    "efficientnet_lite0": EfficientNetLiteSpec(),
    "efficientnet_lite1": EfficientNetLiteSpec(deeper=1.1),
    "efficientnet_lite2": EfficientNetLiteSpec(wider=1.1, deeper=1.2),
}


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's padding `SAME`: [B, C, H, W] -> [B, C', ceil(H / stride), ceil(W / stride)]."""

    def __init__(
        self, in_dim: int, out_dim: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__(in_dim, out_dim, kernel, stride, 0, groups=groups, bias=bias)

    def forward(self, input: Tensor) -> Tensor:  # torch's own name
        top, bottom = same_padding(input.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(input.shape[3], self.kernel_size[1], self.stride[1])
        if top == bottom and left == right:
            return F.conv2d(input, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        return super().forward(F.pad(input, (left, right, top, bottom)))


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Rows of zeros before and after one side of an image: half of what is missing, the odd one after."""
    missing = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
    return missing // 2, missing - missing // 2


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=NORM_EPS, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project; with a residual where shapes allow."""

    def __init__(self, in_dim: int, dim: int, stage: StageSpec, stride: int, drop_path: float) -> None:
        super().__init__()
        hidden = in_dim * stage.expand
        self.expands = stage.expand > 1
        self.has_residual = stride == 1 and in_dim == dim
        if self.expands:
            self._expand_conv = SameConv2d(in_dim, hidden, 1)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = SameConv2d(hidden, hidden, stage.kernel, stride, groups=hidden)
        self._bn1 = _norm(hidden)
        self._project_conv = SameConv2d(hidden, dim, 1)
        self._bn2 = _norm(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        hidden = F.relu6(self._bn1(self._depthwise_conv(hidden)))
        out = self._bn2(self._project_conv(hidden))
        return x + self.drop_path(out) if self.has_residual else out


_PAIRS = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
"""The convolutions of a block, and the batch norm behind each."""
_NORM_BEHIND = {"_conv_stem": "_bn0"} | dict(_PAIRS)


class EfficientNetLite(nn.Module):
    """Images float [B, H, W, 3] -> four feature maps [B, H/s, W/s, C_s] with s = 4, 8, 16, 32.

    H and W are multiples of 32. `drop_path` grows linearly over the blocks to this rate.
    In training mode batch norm mixes the images of a batch: see `mixes_images`.
    Raises ValueError for an unknown variant.
    """

    mixes_images = True
    """An image's features depend on the others of its batch while training, by batch norm's statistics."""
    left_out: tuple[str, ...] = ()
    """Beginnings of the names of published weights that this network has no place for, beside the classifier's."""

    def __init__(self, variant: str = "efficientnet_lite0", drop_path: float = 0.0) -> None:
        super().__init__()
        if variant not in EFFICIENTNET_LITES:
            known = ", ".join(EFFICIENTNET_LITES)
            raise ValueError(f"unknown EfficientNet-Lite {variant!r}; known variants: {known}")
        spec = EFFICIENTNET_LITES[variant]
        self.dims = spec.dims
        self._conv_stem = SameConv2d(3, _STEM_WIDTH, 3, 2)
        self._bn0 = _norm(_STEM_WIDTH)
        self._blocks, self._feature_blocks = _make_blocks(spec, drop_path)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.relu6(self._bn0(self._conv_stem(images.permute(0, 3, 1, 2))))  # [B, 32, H/2, W/2]
        features = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self._feature_blocks:
                features.append(x.permute(0, 2, 3, 1))
        return features

    def folded(self) -> EfficientNetLite:
        """A copy for inference, in eval mode, whose convolutions have taken in the batch norms behind them."""
        network = copy.deepcopy(self).eval()
        _fold(network, "_conv_stem", "_bn0")
        for block in network._blocks:
            for conv, norm in _PAIRS:
                if hasattr(block, conv):
                    _fold(block, conv, norm)
        return network

    @torch.no_grad()
    def unfold(self, folded: Mapping[str, Tensor]) -> None:
        """Take the weights of a `folded` copy: each batch norm adds its convolution's bias and changes nothing else."""
        weights = dict(folded)
        for key in folded:
            if key.endswith(".bias"):
                path, conv = key.removesuffix(".bias").rpartition(".")[::2]
                norm = f"{path}.{_NORM_BEHIND[conv]}".removeprefix(".")
                bias = weights.pop(key)
                weights |= {f"{norm}.bias": bias, f"{norm}.weight": torch.ones_like(bias)}
                weights |= {f"{norm}.running_mean": torch.zeros_like(bias)}
                weights |= {f"{norm}.running_var": torch.full_like(bias, 1 - NORM_EPS)}
                weights |= {f"{norm}.num_batches_tracked": torch.tensor(0)}
        self.load_state_dict(weights, strict=True)


def _make_blocks(spec: EfficientNetLiteSpec, drop_path: float) -> tuple[nn.ModuleList, tuple[int, ...]]:
    """All blocks, and the numbers of those whose outputs are the feature maps."""
    total = sum(spec.repeats(number) for number in range(len(_STAGES)))
    blocks: list[nn.Module] = []
    outputs, dim = [], _STEM_WIDTH
    for number, stage in enumerate(_STAGES):
        for repeat in range(spec.repeats(number)):
            stride = stage.stride if repeat == 0 else 1
            rate = drop_path * len(blocks) / max(total - 1, 1)
            blocks.append(InvertedResidual(dim, spec.width(stage), stage, stride, rate))
            dim = spec.width(stage)
        if number in _FEATURE_STAGES:
            outputs.append(len(blocks) - 1)
    return nn.ModuleList(blocks), tuple(outputs)


def _fold(parent: nn.Module, conv: str, norm: str) -> None:
    folded = fuse_conv_bn_eval(cast("nn.Conv2d", getattr(parent, conv)), cast("nn.BatchNorm2d", getattr(parent, norm)))
    setattr(parent, conv, folded)
    setattr(parent, norm, nn.Identity())


_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")


def load_efficientnet_weights(encoder: EfficientNetLite, weights: Mapping[str, Tensor]) -> None:
    """Load published weights of EfficientNet-Lite, with or without the classifier; all else must fit exactly.

    Raises RuntimeError (from torch) that lists keys that are missing, left over, or of another size.
    """
    own = {key: value for key, value in weights.items() if not key.startswith((*_CLASSIFIER, *encoder.left_out))}
    encoder.load_state_dict(own, strict=True)
