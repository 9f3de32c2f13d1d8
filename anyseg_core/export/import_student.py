"""A student folder becomes a run again: to fine-tune, to distil, or to teach with what a robot was shipped.

The ONNX file holds the encoder's weights, some of them transposed by the exporter, and the head folded into one matrix
per stage. Which tensor of the file is which weight is found by writing the same network with known random weights and
looking for each of them there. The head is unfolded into one that computes the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from anyseg_core.export.student import NETWORK_NAME, write_network
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.base import all_subsets
from anyseg_core.models.student_network import StudentNetwork
from anyseg_core.runtime.model_card import ModelCard, load_card
from anyseg_core.training.batches import open_dataset
from anyseg_core.training.checkpoint import CheckpointError, TrainingState, build_anymodal, save_checkpoint
from anyseg_core.training.config import TrainConfig

CALIBRATION_SAMPLES = 32
"""From which batch norm's statistics are taken: folding has removed them."""
_Tensors = dict[str, NDArray[np.float32]]


def import_student(folder: Path, out: Path, config: TrainConfig) -> Path:
    """Write a checkpoint of a student's network to the run `out`; returns its folder.

    Args:
        folder: a student with one fp32 network for all of its modalities.
        config: data and model that it was trained with; the training split calibrates batch norm.

    Raises StudentError for a damaged folder, DataError for the data, CheckpointError where network and config differ.
    """
    card = load_card(folder)
    if [network.file for network in card.networks] != [NETWORK_NAME]:
        raise CheckpointError(f"{folder} has not one network {NETWORK_NAME}: only such a student can be imported")
    dataset = open_dataset(config.data, config.data.train_split)
    state = TrainingState(
        config=config,
        inputs=card.inputs,
        classes=card.classes,
        data=card.training.data,
        git_revision=card.training.git_revision,
        command=f"anyseg import-weights {folder.name}",
        licence=card.training.licence,
        non_commercial=card.training.non_commercial,
    )
    if dataset.inputs != card.inputs:
        raise CheckpointError(f"{folder} takes other inputs than the data of its config: {card.modalities}")
    model = build_anymodal(state).eval()
    load_exported(model, folder / NETWORK_NAME, card)
    chosen = np.linspace(0, len(dataset) - 1, min(CALIBRATION_SAMPLES, len(dataset))).astype(int)
    calibrate_norm(model, [torch.from_numpy(np.array(dataset[int(index)].images)) for index in chosen])
    return save_checkpoint(out, state, model, optimizer=None)


def load_exported(model: AnymodalSegmenter, file: Path, card: ModelCard) -> None:
    """Fill a network with the weights of its exported form; raises CheckpointError where it is another network's."""
    found = _tensors(file)
    with tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / NETWORK_NAME
        _randomise(model)
        network = StudentNetwork(model, card.input_size, card.label_stride).eval()
        write_network(network, probe, card.input_size)
        known = _tensors(probe)
    if {name: value.shape for name, value in known.items()} != {name: value.shape for name, value in found.items()}:
        raise CheckpointError(f"{file} is not the network of this config (backbone, head width, size, missing)")
    for part in (model.encoder, model.head.classify):
        weights = {name: _found(name, weight, known, found) for name, weight in part.named_parameters()}
        part.load_state_dict(weights, strict=True)
    stages = [torch.from_numpy(found[f"weight{stage}"].copy()) for stage in range(4)]
    _unfold_head(model, stages, torch.from_numpy(found["bias"].copy()).flatten())


def _tensors(file: Path) -> _Tensors:
    """The float tensors of a network file, by name."""
    tensors = onnx.load(str(file)).graph.initializer
    return {t.name: numpy_helper.to_array(t) for t in tensors if t.data_type == onnx.TensorProto.FLOAT}


@torch.no_grad()
def _randomise(model: nn.Module) -> None:
    """A value of its own in every weight, so that each can be told from all others."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)


def _found(name: str, weight: Tensor, known: _Tensors, found: _Tensors) -> Tensor:
    """A weight of the file, which lies there where the known value of it lies in the other, in the same layout."""
    value = weight.detach().numpy()
    for key, candidate in known.items():
        for layout in (lambda x: x, lambda x: x.T) if candidate.size == value.size else ():
            same_axes = layout(candidate).squeeze().shape == value.squeeze().shape
            if same_axes and np.array_equal(layout(candidate).reshape(value.shape), value):
                return torch.from_numpy(np.array(layout(found[key]).reshape(value.shape)))
    raise CheckpointError(f"{name} is in no tensor of the exported network: it was written by another version")


@torch.no_grad()
def _unfold_head(model: AnymodalSegmenter, stages: list[Tensor], bias: Tensor) -> None:
    """Each stage's matrix becomes its projection; the fuse layer adds them up, and batch norm changes nothing."""
    head = model.head
    for stage, weight in enumerate(stages):
        layer = head.project[stage]
        assert isinstance(layer, nn.Linear)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias if stage == 0 else torch.zeros_like(bias))
    head.fuse.weight.copy_(torch.eye(head.width).repeat(1, len(stages)))
    assert head.norm.running_mean is not None
    assert head.norm.running_var is not None
    head.norm.running_mean.zero_()
    head.norm.running_var.fill_(1 - head.norm.eps)
    head.norm.weight.fill_(1.0)
    head.norm.bias.zero_()


@torch.inference_mode()
def calibrate_norm(model: AnymodalSegmenter, samples: list[Tensor]) -> None:
    """Give batch norm the statistics of what it meets in training, and scale and shift that undo them.

    The network computes the same as before, in training mode about the same, too.

    Args:
        samples: uint8 [M, H, W, 3] each; every subset of every one counts.
    """
    sums = torch.zeros(2, model.head.width, dtype=torch.float64)
    count = 0
    for images in samples:
        contributions = model.contributions(images)  # [M, width, h, w]
        for subset in all_subsets(len(images)):
            fused = contributions[list(subset)].mean(dim=0).flatten(1).double()  # [width, h * w]
            sums += torch.stack([fused.sum(dim=1), fused.square().sum(dim=1)])
            count += fused.shape[1]
    mean = sums[0] / count
    variance = (sums[1] / count - mean.square()).clamp_min(1e-6)
    norm = model.head.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(torch.sqrt(variance + norm.eps))
    norm.bias.copy_(mean)
