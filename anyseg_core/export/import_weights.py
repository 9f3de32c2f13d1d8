"""Weights of others: AnySeg's released networks become a run of ours, ImageNet's encoders a safe file.

A released network is a `state_dict` with the keys of the authors' model files: `encoder.patch_embed1.…`,
`encoder.block1.0.…`, `decoder.linear_c4.proj.…`, `decoder.linear_fuse.{conv,bn}.…`, `decoder.linear_pred.…` and
a `classifier.weight` that nothing uses. Pickles are read with `weights_only`, so nothing in them is executed.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from anyseg_core.data.datasets import describe_data
from anyseg_core.export.import_student import import_student
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.mix_transformer import VARIANTS, MixTransformer, load_encoder_weights
from anyseg_core.models.segformer_head import SegformerHead
from anyseg_core.runtime.model_card import ClassSpec, sha256_of
from anyseg_core.training.checkpoint import CheckpointError, TrainingState, build_anymodal, save_checkpoint
from anyseg_core.training.config import TrainConfig

_WRAPPERS = ("model_state_dict", "state_dict", "model")
_UNUSED = ("classifier.weight",)


def import_weights(source: Path, out: Path, config: TrainConfig | None = None) -> Path:
    """Import a file; returns the folder of the checkpoint or the file that was written.

    Args:
        source: `.pth` or `.safetensors`: a whole released network, or an ImageNet MiT encoder; or a student's folder.
        out: of a network the run's folder; of an encoder a `.safetensors` file for `model.init_from`.
        config: what the network was trained on (modalities, classes) and its backbone; encoders need none.

    Raises CheckpointError when the file is damaged or unsafe, or its weights do not all fit; of a student's folder
    StudentError and DataError, too.
    """
    if any((out / "checkpoints").glob("step_*")):
        raise CheckpointError(f"{out} holds a run already, whose checkpoints would stay the newer ones: another folder")
    if source.is_dir():
        return import_student(source, out, _needed(config, source))
    weights = read_weights(source)
    if not any(key.startswith("decoder.") for key in weights):
        return _import_encoder(weights, source, out)
    config = _needed(config, source)
    inputs, classes = describe_data(config.data)
    state = TrainingState(
        config=config,
        inputs=inputs,
        classes=tuple(ClassSpec(name=entry.name, color=entry.color, surface=entry.surface) for entry in classes),
        data=f"as {source.name} was (SHA-256 {sha256_of(source)})",
        git_revision="imported",
        command=f"anyseg import-weights {source.name}",
    )
    model = build_anymodal(state)
    load_released(model, weights, source)
    return save_checkpoint(out, state, model, optimizer=None)


def _needed(config: TrainConfig | None, source: Path) -> TrainConfig:
    if config is None:
        raise CheckpointError(f"{source} is a whole network: name its data and backbone, --config config/train/….yaml")
    return config


def read_weights(source: Path) -> dict[str, Tensor]:
    """A file's tensors by name, without the wrappers of scripts and of DataParallel; raises CheckpointError."""
    try:
        if source.suffix == ".safetensors":
            content: Any = load_file(source)
        else:
            content = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{source} holds more than tensors and is not opened: {error}") from None
    except Exception as error:  # a damaged file fails in many ways; each means the same to the reader
        raise CheckpointError(f"{source} cannot be read as weights: {error}") from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{source} holds no state dict: tensors by name were expected")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def load_released(model: AnymodalSegmenter, weights: Mapping[str, Tensor], source: Path) -> None:
    """Load a released network strictly: every weight has its place, and every place its weight."""
    encoder = {key.removeprefix("encoder."): value for key, value in weights.items() if key.startswith("encoder.")}
    decoder = {key.removeprefix("decoder."): value for key, value in weights.items() if key.startswith("decoder.")}
    left = [key for key in weights if not key.startswith(("encoder.", "decoder.")) and key not in _UNUSED]
    if left:
        raise CheckpointError(f"{source} has weights of no part of this network: {', '.join(left[:5])}")
    if not isinstance(model.encoder, MixTransformer):
        raise CheckpointError(f"{source} is a network of MiT: set model.backbone to mit_b0 to mit_b5")
    try:
        load_encoder_weights(model.encoder, encoder)
        model.head.load_state_dict(head_weights(model.head, decoder), strict=True)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{source} does not fit {_words(model)}: {error}") from None


def head_weights(head: SegformerHead, decoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' decoder -> the names and order of our head.

    Theirs fuses the stages in the order 4, 3, 2, 1; ours 1, 2, 3, 4. 1x1 convolutions are linear layers here.
    """
    ours = {}
    for key, value in decoder.items():
        first, _, rest = key.partition(".")
        if first.startswith("linear_c"):
            ours[f"project.{int(first[-1]) - 1}.{rest.removeprefix('proj.')}"] = value
        elif key == "linear_fuse.conv.weight":
            parts = value[:, :, 0, 0].split(head.width, dim=1)
            ours["fuse.weight"] = torch.cat(parts[::-1], dim=1)
        elif key == "linear_pred.weight":
            ours["classify.weight"] = value[:, :, 0, 0]
        elif key == "linear_pred.bias":
            ours["classify.bias"] = value
        else:
            ours[key.replace("linear_fuse.bn.", "norm.")] = value
    return ours


def _import_encoder(weights: dict[str, Tensor], source: Path, out: Path) -> Path:
    if out.suffix != ".safetensors":
        raise CheckpointError(f"{source} is an encoder: name a file to write, such as {out.name}.safetensors")
    encoder = MixTransformer(_backbone_of(weights, source))
    try:
        load_encoder_weights(encoder, weights)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{source} fits no MiT: {error}") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in weights.items()}, out)
    return out


def _backbone_of(weights: Mapping[str, Tensor], source: Path) -> str:
    """The MiT with as many blocks, and as wide a first layer; raises CheckpointError where there is none."""
    blocks = {match[0] for key in weights if (match := re.search(r"block\.?\d\.\d+\.", key))}
    width = next((len(value) for value in weights.values() if value.ndim == 4 and value.shape[1] == 3), 0)
    for name, spec in VARIANTS.items():
        if (len(blocks), width) == (sum(spec.depths), spec.dims[0]):
            return name
    raise CheckpointError(f"{source} fits no MiT (b0 to b5): {len(blocks)} blocks, first layer {width} wide")


def _words(model: AnymodalSegmenter) -> str:
    classes, width = model.head.classify.out_features, model.head.width
    return f"a network of {len(model.mean)} modalities, {classes} classes, head width {width}"
