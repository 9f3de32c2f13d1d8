"""The weights of a student's network file, from which a network in torch is made again.

The ONNX file holds the encoder's weights, some of them transposed by the exporter and with batch norms folded in, and
the head folded into one matrix per stage. Which tensor of the file is which weight is found by writing the same network
with known random weights and looking for each of them there. Head and batch norms are unfolded into ones that compute
the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from anyseg_core.models.anymodal import AnymodalSegmenter, MissingPolicy
from anyseg_core.models.efficientnet_lite import EfficientNetLite
from anyseg_core.models.network_file import NETWORK_NAME, write_network
from anyseg_core.models.student_network import StudentNetwork
from anyseg_core.runtime.model_card import ModelCard, load_card

_Tensors = dict[str, NDArray[np.float32]]


class StudentWeightsError(Exception):
    """A student whose weights cannot be taken over; the message says why."""


def read_student(folder: Path, backbone: str, drop_path: float = 0.0) -> tuple[AnymodalSegmenter, ModelCard]:
    """A student's network in eval mode, and its card.

    Args:
        backbone: the encoder that it has; a card does not name it.

    Raises StudentError for a damaged folder, StudentWeightsError for a student of another kind or encoder.
    """
    card = load_card(folder)
    file = only_network(card, folder)
    try:
        return _filled(card, file, backbone, drop_path, "remove"), card
    except StudentWeightsError:  # the card does not name the policy, and the exporter names its constants freely
        return _filled(card, file, backbone, drop_path, "zero"), card


def _filled(card: ModelCard, file: Path, backbone: str, drop_path: float, missing: MissingPolicy) -> AnymodalSegmenter:
    found = _tensors(file)
    model = AnymodalSegmenter(
        [spec.mean for spec in card.inputs],
        [spec.std for spec in card.inputs],
        len(card.classes),
        backbone,
        len(found["bias"]),
        drop_path=drop_path,
        missing=missing,
        fusion="gated" if any(node.op_type == "Tanh" for node in onnx.load(str(file)).graph.node) else "mean",
    )
    load_exported(model.eval(), file, card)
    return model


def only_network(card: ModelCard, folder: Path) -> Path:
    """The file of a student's only network; raises StudentWeightsError where it has several."""
    if [network.file for network in card.networks] != [NETWORK_NAME]:
        raise StudentWeightsError(f"{folder} has not one network {NETWORK_NAME}: only such a student can be taken over")
    return folder / NETWORK_NAME


def load_exported(model: AnymodalSegmenter, file: Path, card: ModelCard) -> None:
    """Fill a network with the weights of its exported form; raises StudentWeightsError where it is another network's.

    What batch norms were folded away compute nothing: see `calibrate_norms`.
    """
    found = _tensors(file)
    with tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / NETWORK_NAME
        _randomise(model)
        network = StudentNetwork(model, card.input_size, card.label_stride).eval()
        write_network(network, probe, card.input_size)
        known = _tensors(probe)
    if {name: value.shape for name, value in known.items()} != {name: value.shape for name, value in found.items()}:
        raise StudentWeightsError(
            f"{file} is not the network of this config (encoder, head width, size, missing, fusion)"
        )
    for part in (network.model.encoder, model.head.classify, *([model.gates] if model.gates else [])):
        weights = {name: _found(name, weight, known, found) for name, weight in part.named_parameters()}
        part.load_state_dict(weights, strict=True)
    if isinstance(model.encoder, EfficientNetLite):
        model.encoder.unfold(network.model.encoder.state_dict())
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
    raise StudentWeightsError(f"{name} is in no tensor of the exported network: it was written by another version")


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


@torch.no_grad()
def calibrate_norms(network: nn.Module, run: Callable[[], object]) -> None:
    """Give every batch norm the statistics of what it meets, and scale and shift that undo them.

    The network computes the same as before, in training mode about the same, too.

    Args:
        network: in eval mode.
        run: runs it on samples of what it is to be trained on.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    met: dict[nn.Module, Tensor] = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].transpose(0, 1).flatten(1).double()  # [C, B * h * w]
        met[norm] += torch.stack([x.sum(dim=1), x.square().sum(dim=1), torch.full((len(x),), float(x.shape[1]))])

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    run()
    for hook in hooks:
        hook.remove()
    for norm in norms:
        total, squares, count = met[norm]
        if count.any():  # of those that ran
            mean = total / count
            _set_statistics(norm, mean, (squares / count - mean.square()).clamp_min(1e-6))


def _set_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    norm.bias.add_((mean - norm.running_mean) * scale)
    norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
