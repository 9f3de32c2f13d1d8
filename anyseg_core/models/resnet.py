"""ResNet-18 and ResNet-50 (arXiv 1512.03385) as encoders of stride 16, with torchvision's names of weights.

The last stage keeps its map's size and dilates instead, as DeepLab does. A 3-channel stem serves every modality: the
images of the student contract are uint8 [H, W, 3] whatever the sensor, and depth has three meanings in them (scaled
depth, inverse depth, validity).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

OUTPUT_STRIDE, LOW_STRIDE = 16, 4
_STAGES = (64, 128, 256, 512)


class Residual(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times as many channels at the end."""

    def __init__(self, in_dim: int, dim: int, stride: int, dilation: int, *, bottleneck: bool) -> None:
        super().__init__()
        out_dim = dim * (4 if bottleneck else 1)
        if bottleneck:
            self.conv1 = nn.Conv2d(in_dim, dim, 1, bias=False)
            self.conv2 = nn.Conv2d(dim, dim, 3, stride, dilation, dilation, bias=False)
            self.conv3 = nn.Conv2d(dim, out_dim, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out_dim)
        else:
            self.conv1 = nn.Conv2d(in_dim, dim, 3, stride, dilation, dilation, bias=False)
            self.conv2 = nn.Conv2d(dim, dim, 3, 1, dilation, dilation, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(dim), nn.BatchNorm2d(dim)
        self.bottleneck = bottleneck
        self.downsample: nn.Sequential | None = None
        if stride > 1 or in_dim != out_dim:
            self.downsample = nn.Sequential(nn.Conv2d(in_dim, out_dim, 1, stride, bias=False), nn.BatchNorm2d(out_dim))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.bottleneck:
            out = self.bn3(self.conv3(F.relu(out)))
        return F.relu(out + shortcut)


class ResNetSpec(NamedTuple):
    """One size of ResNet."""

    depths: tuple[int, int, int, int]
    bottleneck: bool


RESNETS = {"resnet18": ResNetSpec((2, 2, 2, 2), False), "resnet50": ResNetSpec((3, 4, 6, 3), True)}


class ResNet(nn.Module):
    """Images float [B, 3, H, W] -> the maps of the stem and of four stages; strides 4, 4, 8, 16, 16.

    `width` scales the number of channels. Raises ValueError for an unknown variant.
    """

    def __init__(self, variant: str, width: float = 1.0) -> None:
        super().__init__()
        if variant not in RESNETS:
            raise ValueError(f"unknown ResNet {variant!r}; known: {', '.join(RESNETS)}")
        spec = RESNETS[variant]
        dims = [max(8, round(dim * width / 8) * 8) for dim in _STAGES]
        grow = 4 if spec.bottleneck else 1
        self.dims = (dims[0], *(dim * grow for dim in dims))
        """Channels of the five maps."""
        self.conv1 = nn.Conv2d(3, dims[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(dims[0])
        for stage, (dim, depth) in enumerate(zip(dims, spec.depths, strict=True)):
            stride, dilation = (1, 2, 2, 1)[stage], (1, 1, 1, 2)[stage]
            blocks = [Residual(self.dims[stage], dim, stride, 1, bottleneck=spec.bottleneck)]
            blocks += [Residual(dim * grow, dim, 1, dilation, bottleneck=spec.bottleneck) for _ in range(1, depth)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def begin_after_stem(self) -> None:
        """Give up the stem."""
        del self.conv1, self.bn1

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, H/4, W/4]."""
        return F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)

    @property
    def stages(self) -> list[nn.Module]:
        """The four stages, in order."""
        return [self.get_submodule(f"layer{stage}") for stage in range(1, 5)]

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


def load_resnet_weights(encoder: ResNet, weights: Mapping[str, Tensor]) -> None:
    """Load ImageNet weights with torchvision's names; the classifier `fc` is left out, all else must fit exactly.

    A merging branch, which begins after the stem, takes the rest.
    Raises RuntimeError (from torch) that lists keys that are missing, left over, or of another size.
    """
    unwanted = ("fc.",) if "conv1" in dict(encoder.named_children()) else ("fc.", "conv1.", "bn1.")
    encoder.load_state_dict({key: value for key, value in weights.items() if not key.startswith(unwanted)}, strict=True)
