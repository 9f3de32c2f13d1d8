"""Fusion that relies on the better sensor: each is weighed at every pixel and scale.

The weights are a softmax over the sensors present, so a weighed mean is a mean of `exp(score) * feature` divided by
a mean of `exp(score)`: two plain means over whatever sensors are there, taken of images that were encoded one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_SCORE = 4.0
"""Scores stay within plus and minus this: no sensor weighs more than e^8 times another, and none is ever dropped."""


class PixelGates(nn.Module):
    """Features of each image per stage [P, h, w, C] -> how much it is believed there, positive [P, h, w, 1].

    A stage's score adds to the next coarser one's, which knows what is seen; fresh gates believe all images alike, as
    a plain mean does.
    """

    def __init__(self, dims: Sequence[int]) -> None:
        super().__init__()
        self.score = nn.ModuleList(nn.Linear(dim, 1, bias=False) for dim in dims)
        for layer in self.score:
            nn.init.zeros_(cast("nn.Linear", layer).weight)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        weights: list[Tensor] = []
        coarser: Tensor | None = None  # [P, 1, h/2, w/2]
        for layer, feature in zip(reversed(self.score), reversed(features), strict=True):
            score = layer(feature).permute(0, 3, 1, 2)  # [P, 1, h, w]
            if coarser is not None:
                score = score + F.interpolate(coarser, scale_factor=2.0, mode="bilinear", align_corners=False)
            coarser = score
            bounded = MAX_SCORE * torch.tanh(score / MAX_SCORE)
            weights.insert(0, torch.exp(bounded).permute(0, 2, 3, 1))
        return weights

    def weigh(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Per stage [P, h, w, C] -> [P, h, w, C + 1]: the features times their weights, and the weights.

        The mean of any of these, divided by `divide`, is those images' weighed mean.
        """
        pairs = zip(features, self(features), strict=True)
        return [torch.cat([feature * weight, weight], dim=-1) for feature, weight in pairs]


def divide(weighed: Sequence[Tensor]) -> list[Tensor]:
    """Means of what `PixelGates.weigh` gives, [..., C + 1] per stage -> weighed means of features [..., C]."""
    return [stage[..., :-1] / stage[..., -1:] for stage in weighed]


def pack_stages(stages: Sequence[Tensor]) -> Tensor:
    """Maps [M, h * 2^k, w * 2^k, C] of four stages, k = 3 to 0 -> all of them in one tensor [M, h, w, F]."""
    height, width = stages[-1].shape[1:3]
    tiles = [stage.unflatten(1, (height, -1)).unflatten(3, (width, -1)) for stage in stages]  # [M, h, r, w, r, C]
    return torch.cat([tile.permute(0, 1, 3, 2, 4, 5).flatten(3) for tile in tiles], dim=-1)


def unpack_stages(packed: Tensor, dims: Sequence[int]) -> list[Tensor]:
    """The reverse of `pack_stages`, for maps of `dims` channels."""
    last = len(dims) - 1
    parts = packed.split([4 ** (last - number) * dim for number, dim in enumerate(dims)], dim=-1)
    stages = []
    for number, (part, dim) in enumerate(zip(parts, dims, strict=True)):
        side = 2 ** (last - number)
        tiles = part.unflatten(-1, (side, side, dim)).permute(0, 1, 3, 2, 4, 5)  # [M, h, r, w, r, C]
        stages.append(tiles.flatten(3, 4).flatten(1, 2))
    return stages
