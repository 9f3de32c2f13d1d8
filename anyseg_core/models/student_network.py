"""The forms of a network that a robot runs: everything inside the graph, the head folded."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.base import SegmentationModel, normalise
from anyseg_core.models.efficientnet_lite import EfficientNetLite
from anyseg_core.models.unimodal import UnimodalNetworks, average_probabilities


class ExportedNetwork(nn.Module):
    """The inference form of a trained network, or of a part of it, for one input size.

    images uint8 [M, H, W, 3], modality int64 [M] -> labels uint8 [H, W], confidence uint8 [H, W].

    Args:
        size: (height, width) of the images.
        label_stride: labels are decided on a grid of this stride and repeated.
        members: the modalities that it takes, as indices into the model's.
    """

    def __init__(
        self, model: SegmentationModel, size: tuple[int, int], label_stride: int, members: tuple[int, ...]
    ) -> None:
        super().__init__()
        if model.training:
            raise ValueError("export needs the network in eval mode; in training mode dropout would be exported")
        self.label_stride = label_stride
        self.members = members
        self._add_interpolation(
            "labels", (size[0] // 4, size[1] // 4), (size[0] // label_stride, size[1] // label_stride)
        )

    def _add_interpolation(self, name: str, source: tuple[int, int], target: tuple[int, int]) -> None:
        self.register_buffer(f"{name}_rows", interpolation_matrix(source[0], target[0]))  # [H', H]
        self.register_buffer(f"{name}_cols", interpolation_matrix(source[1], target[1]).T.contiguous())  # [W, W']

    def _upsample(self, x: Tensor, name: str) -> Tensor:
        """[C, h, w] -> [C, H', W'], bilinear (align_corners=False)."""
        return getattr(self, f"{name}_rows") @ (x @ getattr(self, f"{name}_cols"))

    def decide(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [K, H/4, W/4] -> labels and confidence, uint8 [H, W]."""
        logits = self._upsample(logits, "labels")  # [K, H/s, W/s]
        best, labels = logits.max(dim=0)  # [H/s, W/s]
        # The best class's softmax probability: exp(0) / sum of exp(x - max).
        confidence = 255.0 / torch.exp(logits - best).sum(dim=0)
        # An engine may lack integer resizing and rounding casts: stay in float until the end.
        return self._to_pixels(labels.float()), self._to_pixels(torch.floor(confidence + 0.5))

    def _to_pixels(self, x: Tensor) -> Tensor:
        """[H/s, W/s] -> uint8 [H, W], each value repeated."""
        if self.label_stride > 1:
            x = F.interpolate(x[None, None], scale_factor=float(self.label_stride), mode="nearest")[0, 0]
        return x.to(torch.uint8)


class UnimodalStudent(ExportedNetwork):
    """The network of one modality, or of several, whose probabilities are averaged as in training's evaluation.

    Of several it takes all at once, in any order.
    """

    mean: Tensor
    std: Tensor
    order: Tensor

    def __init__(
        self, model: UnimodalNetworks, size: tuple[int, int], label_stride: int, members: tuple[int, ...]
    ) -> None:
        super().__init__(model, size, label_stride, members)
        self.networks = nn.ModuleList(model.network(member) for member in members)
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)
        self.register_buffer("order", torch.tensor(members)[:, None])  # [N, 1]

    def forward(self, images: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        planes = normalise(images, modality, self.mean, self.std).permute(0, 3, 1, 2)  # [N, 3, H, W]
        if len(self.networks) > 1:  # each image to its own network
            mine = (self.order == modality).to(planes.dtype)  # [N, N], a permutation
            planes = (mine @ planes.flatten(1)).reshape(planes.shape)
        logits = torch.cat([network(planes[i : i + 1]) for i, network in enumerate(self.networks)])  # [N, h, w, K]
        return self.decide(average_probabilities(logits)[0].permute(2, 0, 1))


class StudentNetwork(ExportedNetwork):
    """Of an anymodal network, for any of its modalities.

    The head's projections, fuse layer and batch norm are folded into one matrix per stage, and upsampling to a
    fixed size is a product with two constant matrices, which engines run faster than a resize.
    """

    def __init__(self, model: AnymodalSegmenter, size: tuple[int, int], label_stride: int) -> None:
        super().__init__(model, size, label_stride, tuple(range(len(model.mean))))
        self.model = with_folded_encoder(model)
        grid = (size[0] // 4, size[1] // 4)
        self._fold_head(model)
        for stage in range(1, 4):
            self._add_interpolation(f"stage{stage}", (grid[0] >> stage, grid[1] >> stage), grid)
        if model.missing == "zero":
            with torch.no_grad():
                for stage, feature in enumerate(model.zero_features(*size)):
                    self.register_buffer(f"zero{stage}", feature)

    @torch.no_grad()
    def _fold_head(self, model: AnymodalSegmenter) -> None:
        """(W x + b - mean) * scale + shift, in one matrix per stage and one bias."""
        norm = model.head.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # [width]
        weights, bias = model.head.folded()
        for stage, weight in enumerate(weights):
            self.register_buffer(f"weight{stage}", weight * scale[:, None])  # [width, C_s]
        self.register_buffer("bias", ((bias - norm.running_mean) * scale + norm.bias)[:, None])  # [width, 1]

    def forward(self, images: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        weighed = self.model.weigh(self.model.encode(images, modality))
        means = [self._average(stage, feature) for stage, feature in enumerate(weighed)]
        return self.decide(self.decode(means))

    def _average(self, stage: int, feature: Tensor) -> Tensor:
        """[M, h, w, C] -> [h, w, C]: the mean over the modalities that are there, or with zeros for the rest."""
        if self.model.missing == "remove":
            return feature.mean(dim=0)
        total = self.model.mean.shape[0]
        absent = total - feature.shape[0]
        return (feature.sum(dim=0) + absent * getattr(self, f"zero{stage}")[0]) / total

    def decode(self, means: list[Tensor]) -> Tensor:
        """Means over the modalities of what the network weighs, [h_s, w_s, C_s or C_s + 1] -> logits [K, h_1, w_1]."""
        features = self.model.resolve(means)
        height, width = features[0].shape[:2]
        fused = self._project(0, features[0])  # [width, h_1, w_1]
        for stage, feature in enumerate(features[1:], start=1):
            fused = fused + self._upsample(self._project(stage, feature), f"stage{stage}")
        classify = self.model.head.classify
        activated = F.relu(fused).reshape(-1, height * width)  # [width, h_1*w_1]
        return (classify.weight @ activated + classify.bias[:, None]).reshape(-1, height, width)

    def _project(self, stage: int, feature: Tensor) -> Tensor:
        height, width, channels = feature.shape
        projected = getattr(self, f"weight{stage}") @ feature.reshape(-1, channels).T  # [width, h*w]
        if stage == 0:
            projected = projected + self.bias
        return projected.reshape(-1, height, width)


class StudentEncoder(nn.Module):
    """The first part of an anymodal student, for one image: all that does not depend on the others.

    images uint8 [1, H, W, 3], modality int64 [1] -> features float [F], those of all stages.
    """

    def __init__(self, whole: StudentNetwork) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, images: Tensor, modality: Tensor) -> Tensor:
        weighed = self.whole.model.weigh(self.whole.model.encode(images, modality))
        return torch.cat([feature[0].flatten() for feature in weighed])


class StudentDecoder(nn.Module):
    """The second part: features float [F], the mean over the images that are there -> labels and confidence."""

    def __init__(self, whole: StudentNetwork, size: tuple[int, int]) -> None:
        super().__init__()
        self.whole = whole
        gated = whole.model.gates is not None  # a weight beside the channels of each stage
        dims = [dim + gated for dim in whole.model.dims]
        self.shapes = [(size[0] // 4 >> stage, size[1] // 4 >> stage, dim) for stage, dim in enumerate(dims)]

    @property
    def length(self) -> int:
        """F"""
        return sum(height * width * dim for height, width, dim in self.shapes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        parts = features.split([height * width * dim for height, width, dim in self.shapes])
        stages = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]  # [h_s, w_s, C_s] each
        return self.whole.decide(self.whole.decode(stages))


def with_folded_encoder(model: AnymodalSegmenter) -> AnymodalSegmenter:
    """The network for inference: one that computes the same, its encoder's batch norms in their convolutions."""
    if not isinstance(model.encoder, EfficientNetLite):
        return model
    folded = copy.copy(model)
    folded._modules = dict(model._modules) | {"encoder": model.encoder.folded()}
    return folded


def interpolation_matrix(source: int, target: int) -> Tensor:
    """[target, source] matrix of 1-D bilinear interpolation with align_corners=False."""
    unit = torch.eye(source)[:, None]  # [source, 1, source]
    return F.interpolate(unit, size=target, mode="linear", align_corners=False)[:, 0].T.contiguous()
