"""The encoders of the methods with a network per modality: images to the maps of a stem and of four stages.

A merging branch (`acnet.py`) begins after the stem and takes the stages one by one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from anyseg_core.models.efficientnet_lite import EFFICIENTNET_LITES, EfficientNetLite, InvertedResidual
from anyseg_core.models.resnet import RESNETS, ResNet

STAGED_ENCODERS = (*RESNETS, *EFFICIENTNET_LITES)
"""Names for `model.backbone`."""


class StagedLite(EfficientNetLite):
    """EfficientNet-Lite: images float [B, 3, H, W] -> the maps of the stem and of four stages; strides 2, 4, 8, 16, 32.

    The stem is the first convolution and the first block. Its maps, unlike a ResNet's, have both signs: no ReLU follows
    a block's last convolution.
    """

    def __init__(self, variant: str) -> None:
        super().__init__(variant)
        stem_dim = cast("InvertedResidual", self._blocks[0])._project_conv.out_channels
        self.maps: tuple[int, ...] = (stem_dim, *self.dims)
        """Channels of the five maps."""

    def begin_after_stem(self) -> None:
        """Give up the stem, and with it the first weights of a published file."""
        del self._conv_stem, self._bn0
        self._blocks[0] = nn.Identity()
        self.left_out = ("_conv_stem.", "_bn0.", "_blocks.0.")

    def stem(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C, H/2, W/2]."""
        return self._blocks[0](F.relu6(self._bn0(self._conv_stem(images))))

    @property
    def stages(self) -> list[nn.Module]:
        """The four stages, in order."""
        starts = [1, *(last + 1 for last in self._feature_blocks)]
        return [nn.Sequential(*self._blocks[start:end]) for start, end in pairwise(starts)]

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


def build_staged(backbone: str, width: float) -> ResNet | StagedLite:
    """A new encoder with fresh weights; `width` is a ResNet's. Raises ValueError for an unknown name."""
    return StagedLite(backbone) if backbone in EFFICIENTNET_LITES else ResNet(backbone, width)


def map_dims(encoder: ResNet | StagedLite) -> tuple[int, ...]:
    """Channels of the maps of the stem and the four stages."""
    return encoder.dims if isinstance(encoder, ResNet) else encoder.maps
