"""A checkpoint -> a student folder: ONNX network, model card, and proof that the two frameworks agree."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from anyseg_core.data.sample import Sample, evenly_spread
from anyseg_core.methods.supervised import sees_all_always
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.base import SegmentationModel, Subset, all_subsets
from anyseg_core.models.encoders import ENCODERS, encoder_name
from anyseg_core.models.network_file import NETWORK_NAME, write_network, write_onnx
from anyseg_core.models.student_network import (
    ExportedNetwork,
    StudentDecoder,
    StudentEncoder,
    StudentNetwork,
    UnimodalStudent,
)
from anyseg_core.models.unimodal import UnimodalNetworks
from anyseg_core.runtime.engines.onnx import PRECISION_KEY, OnnxPartsEngine
from anyseg_core.runtime.engines.protocol import PartFiles
from anyseg_core.runtime.known_answer import KnownAnswer, known_answers
from anyseg_core.runtime.model_card import (
    CARD_NAME,
    ModelCard,
    NetworkFile,
    NetworkParts,
    NetworkSpec,
    TrainingRecord,
    sha256_of,
)
from anyseg_core.training.checkpoint import TrainingState, find_checkpoint, load_model
from anyseg_core.training.evaluation import decide_labels, subset_name
from anyseg_core.training.same_meaning import open_same

Precision = Literal["fp32", "fp16", "bf16", "int8"]
MIN_AGREEMENT: dict[Precision, float] = {"fp32": 0.999, "fp16": 0.995, "bf16": 0.97}
"""Share of pixels on which the written network and the trained one must give the same label, over all subsets. Rounding
to the 8 bits of bf16's mantissa moves borders between classes; int8 is judged by the mIoU it costs."""
TORCH_TYPE: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
IN_TORCH: Precision = "bf16"
"""Which onnxruntime cannot run on a CPU."""
PARITY_SAMPLES = 4


@dataclass(frozen=True)
class ExportOptions:
    """The form of the network files. Raises ValueError that names the field."""

    precision: Precision = "fp32"
    """Types in the ONNX file, which is where TensorRT 11 takes them from. bf16 is for GPUs and OpenVINO: onnxruntime's
    CPU provider cannot run it."""
    size: tuple[int, int] | None = None
    """(height, width) of the network's input; None = as trained. MiT takes any multiple of 32."""
    label_stride: int | None = None
    """Grid on which labels are decided; None = as trained."""
    fixed_counts: bool = False
    """One network per number of live modalities instead of one that takes any number."""
    calibration_samples: int = 64
    """int8: samples of the training split that set the ranges."""
    scoring_samples: int = 40
    """int8: samples of the validation split on which the loss is measured."""
    max_loss: float = 1.0
    """int8: points of mIoU that a subset may lose."""

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, not {self.precision!r}")
        if self.size and any(side <= 0 or side % 32 for side in self.size):
            raise ValueError(f"size must be two positive multiples of 32, not {self.size}")
        if np.isnan(self.max_loss):
            raise ValueError("max_loss must be a number of points of mIoU: no loss is above nan")
        if self.label_stride not in (None, 1, 2, 4):
            raise ValueError(f"label_stride must be 1, 2 or 4, not {self.label_stride}")
        for name in ("calibration_samples", "scoring_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


STEPS = 6
"""Of an export, as its progress counts them."""


class ExportError(Exception):
    """A network that must not be shipped; the message says what differs."""


def write_parts(network: StudentNetwork, file: Path, size: tuple[int, int]) -> PartFiles:
    """Write the two parts of a network beside its `file`, from which they borrow their weights."""
    parts = PartFiles.beside(file)
    decoder = StudentDecoder(network, size).eval()
    image = torch.zeros(1, *size, 3, dtype=torch.uint8)
    write_onnx(
        StudentEncoder(network).eval(),
        parts.encoder,
        {"images": image, "modality": torch.tensor([network.members[-1]])},
        ["features"],
    )
    write_onnx(decoder, parts.decoder, {"features": torch.zeros(decoder.length)}, ["labels", "confidence"])
    for part in parts:
        _borrow_weights(part, file)
    return parts


LEAST_BORROWED = 1024
"""Bytes; smaller tensors stay where they are."""


def _borrow_weights(part: Path, whole: Path) -> None:
    """Take the tensors that another network of the student holds, too, out of a file (ONNX external data)."""
    network, content = onnx.load(str(part)), whole.read_bytes()
    for tensor in network.graph.initializer:
        offset = content.find(tensor.raw_data) if len(tensor.raw_data) >= LEAST_BORROWED else -1
        if offset >= 0:
            onnx.external_data_helper.set_external_data(tensor, whole.name, offset, len(tensor.raw_data))
            tensor.ClearField("raw_data")
    onnx.save(network, str(part))


def export(
    checkpoint: Path,
    folder: Path,
    name: str | None = None,
    options: ExportOptions = ExportOptions(),
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> ModelCard:
    """Write the student of a checkpoint (or of a run's newest) to `folder`, replacing what was there.

    `progress` is called with (done, total) steps: loaded, written, proven, quantised, halved, carded.

    Raises:
        CheckpointError, DataError: the checkpoint or the data for the parity check cannot be read.
        ExportError: the written network and the trained one disagree, or int8 loses too much; nothing is written.
    """
    checkpoint = find_checkpoint(checkpoint)
    progress(0, STEPS)
    model, state = load_model(checkpoint)
    state = _with_options(state, options)
    progress(1, STEPS)
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch)
        parts = _plan_parts(model, state, options, written)
        _write_parts(parts, state, options)
        progress(2, STEPS)
        metrics = _proof(model, state, options, parts)
        progress(3, STEPS)
        if options.precision == "int8":
            metrics |= _quantise_all(state, options, parts)
        for part in parts:
            _note_precision(part.file, options.precision)
        for part in parts[:-1]:  # the last one has the weights of all
            _borrow_weights(part.file, parts[-1].file)
        progress(4, STEPS)
        halves = _write_halves(model, state, options, parts)
        progress(5, STEPS)
        card = make_card(state, parts, name or state.config.name, metrics, halves, options.precision)
        card.write(written)
        _replace(folder, written, [file.file for network in card.networks for file in network.files])
        progress(STEPS, STEPS)
    return card


def _with_options(state: TrainingState, options: ExportOptions) -> TrainingState:
    """The training state as if the network had been trained with the size and stride it is exported with."""
    config = state.config
    data = config.data.model_copy(update={"size": options.size or config.data.size})
    stride = options.label_stride or config.model.label_stride
    model = config.model.model_copy(update={"label_stride": stride})
    return state.model_copy(update={"config": config.model_copy(update={"data": data, "model": model})})


@dataclass(frozen=True, eq=False)
class _Part:
    """A network file of the student."""

    file: Path
    network: ExportedNetwork
    count: int | None
    """The only number of images that it takes at once; None = any."""

    def takes(self, subset: Subset) -> bool:
        """Whether it answers for these modalities together."""
        return set(subset) <= set(self.network.members) and self.count in (None, len(subset))


def _plan_parts(model: SegmentationModel, state: TrainingState, options: ExportOptions, folder: Path) -> list[_Part]:
    """The files of a student; raises ExportError for a network that cannot be one."""
    size, stride = state.config.data.size, state.config.model.label_stride
    if isinstance(model, UnimodalNetworks):
        if options.precision == "int8":
            raise ExportError("int8 of a student with a network per sensor is not supported; choose fp16")
        names = [str(spec.modality) for spec in state.inputs]
        everything = tuple(range(len(names)))
        # One per sensor, and one for when all live: the mean of their probabilities is exact inside a graph only.
        groups = dict.fromkeys([*((member,) for member in everything), everything])
        return [
            _Part(
                folder / f"student_{'_'.join(names[member] for member in members)}.onnx",
                UnimodalStudent(model, size, stride, members).eval(),
                len(members),
            )
            for members in groups
        ]
    if not isinstance(model, AnymodalSegmenter):
        raise ExportError(f"method {state.config.method.name} trains a teacher that needs every sensor: export a pupil")
    network = StudentNetwork(model, size, stride).eval()
    if not options.fixed_counts:
        return [_Part(folder / NETWORK_NAME, network, None)]
    counts = range(1, len(state.inputs) + 1)
    return [_Part(folder / f"student_{count}.onnx", network, count) for count in counts]


def _write_parts(parts: Sequence[_Part], state: TrainingState, options: ExportOptions) -> None:
    for part in parts:
        network = part.network
        if options.precision in TORCH_TYPE:
            network = copy.deepcopy(network).to(TORCH_TYPE[options.precision])
        write_network(network, part.file, state.config.data.size, part.count)


def _write_halves(
    model: SegmentationModel, state: TrainingState, options: ExportOptions, parts: Sequence[_Part]
) -> PartFiles | None:
    """The network in two parts, where a CPU gains by them; raises ExportError where they answer otherwise."""
    (first, *others), size = parts, state.config.data.size
    if others or options.precision != "fp32" or not isinstance(first.network, StudentNetwork):
        return None
    if first.network.model.missing != "remove":  # the mean of what is there is not all that the decoder needs
        return None
    halves = write_parts(first.network, first.file, size)
    samples = [sample.images for sample in _samples(state, state.config.data.val_split, PARITY_SAMPLES)]
    engine = OnnxPartsEngine(halves)
    check_parity(lambda images, modality: engine.run(images, modality)[0], model, samples, first.network.label_stride)
    engine.close()
    return halves


def _proof(
    model: SegmentationModel, state: TrainingState, options: ExportOptions, parts: Sequence[_Part]
) -> dict[str, Any]:
    """Lowest label agreement with the trained network. Raises ExportError where it is too low."""
    required = MIN_AGREEMENT.get(options.precision, MIN_AGREEMENT["fp32"])
    samples = [sample.images for sample in _samples(state, state.config.data.val_split, PARITY_SAMPLES)]
    stride = state.config.model.label_stride
    in_torch = options.precision == IN_TORCH
    agreements = [
        check_parity(
            _as_written(part, options.precision),
            model,
            samples,
            stride,
            required,
            part.takes,
        )
        for part in parts
    ]
    return {"torch_bf16_label_agreement" if in_torch else "onnx_label_agreement": round(min(agreements), 6)}


def _quantise_all(state: TrainingState, options: ExportOptions, parts: Sequence[_Part]) -> dict[str, Any]:
    """Replace each fp32 file by its int8 form. Raises ExportError where a subset loses more than `max_loss`."""
    from anyseg_core.export.int8 import mean_loss, quantise, subset_losses

    config = state.config
    if options.fixed_counts:
        raise ExportError("int8 with fixed counts is not supported: TensorRT specialises the dynamic network anyway")
    file = parts[0].file
    calibration = _samples(state, config.data.train_split, options.calibration_samples)
    scoring = _samples(state, config.data.val_split, options.scoring_samples)
    quantised = file.with_suffix(".int8")
    in_float = quantise(file, quantised, [sample.images for sample in calibration])
    losses = subset_losses(file, quantised, scoring, len(state.classes))
    modalities = tuple(spec.modality for spec in state.inputs)
    points = {subset_name(loss.subset, modalities): round(loss.points, 3) for loss in losses}
    worst = max(points, key=lambda subset: points[subset])
    if np.isnan(points[worst]):
        raise ExportError(f"what int8 costs cannot be told: split {config.data.val_split} has no labelled pixel")
    if points[worst] > options.max_loss:
        table = "\n".join(f"  {subset:<28}{lost:+.2f}" for subset, lost in points.items())
        raise ExportError(
            f"int8 costs {points[worst]:.2f} points of mIoU on {worst} and {mean_loss(losses):.2f} on average; "
            f"{options.max_loss:g} are allowed. The network was not exported: raise --max-loss, or choose fp16.\n"
            f"{table}"
        )
    quantised.replace(file)
    return {
        "int8_miou_points_lost": points,
        "int8_miou_points_lost_mean": round(mean_loss(losses), 3),
        "int8_layers_in_float": list(in_float),
    }


def _note_precision(file: Path, precision: Precision) -> None:
    """Write the precision into the file, for engines to tell what they run."""
    network = onnx.load(str(file))
    onnx.helper.set_model_props(network, {**{p.key: p.value for p in network.metadata_props}, PRECISION_KEY: precision})
    onnx.save(network, str(file))


def _replace(folder: Path, written: Path, networks: Sequence[str]) -> None:
    """Move a student to where it is wanted; what networks of an older one were there goes."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("student*.onnx"):
        old.unlink()
    for file in (*networks, CARD_NAME):
        shutil.move(written / file, folder / file)


def _samples(state: TrainingState, split: str, count: int) -> list[Sample]:
    """At most `count` samples, evenly spaced over a split."""
    dataset = open_same(state, state.config.data, split)
    return [dataset[index] for index in evenly_spread(len(dataset), count)]


Answer = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint8]]
"""A student: images uint8 [M, H, W, 3], modality int64 [M] -> labels uint8 [H, W]."""


def _as_written(part: _Part, precision: Precision) -> Answer:
    """A written network, run here; torch stands in for a file that onnxruntime cannot run on a CPU."""
    if precision == IN_TORCH:
        return _in_torch(copy.deepcopy(part.network).to(torch.bfloat16))
    return _in_onnxruntime(part.file)


def _in_onnxruntime(network: Path) -> Answer:
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    return lambda images, modality: np.asarray(session.run(["labels"], {"images": images, "modality": modality})[0])


def _in_torch(network: ExportedNetwork) -> Answer:
    return lambda images, modality: network(torch.from_numpy(images), torch.from_numpy(modality))[0].numpy()


@torch.inference_mode()
def check_parity(
    answer: Answer,
    model: SegmentationModel,
    samples: Sequence[NDArray[np.uint8]],
    label_stride: int,
    required: float = MIN_AGREEMENT["fp32"],
    takes: Callable[[Subset], bool] = lambda _subset: True,
) -> float:
    """Run every subset that the network `takes`, of every sample; returns a subset's lowest label agreement, 0 to 1.

    The reference is the network as trained, without any of the export's folding.

    Args:
        samples: uint8 [M, H, W, 3] each.

    Raises:
        ExportError: the lowest agreement is below `required`.
    """
    lowest = 1.0
    for subset in all_subsets(samples[0].shape[0]):
        if not takes(subset):
            continue
        equal = [_agreement(answer, model, images, np.array(subset), label_stride) for images in samples]
        agreement = float(np.mean(equal))
        if agreement < required:
            raise ExportError(
                f"the written network and the trained one agree on only {100 * agreement:.3f} % of the labels of "
                f"modalities {subset}; {100 * required} % are required. The network was not exported."
            )
        lowest = min(lowest, agreement)
    return lowest


def _agreement(
    answer: Answer,
    model: SegmentationModel,
    images: NDArray[np.uint8],
    subset: NDArray[np.int64],
    label_stride: int,
) -> float:
    if isinstance(model, AnymodalSegmenter):
        modality = torch.from_numpy(subset)
        features = model.encode(torch.from_numpy(images[subset]), modality)
        logits = model.head(model.average(features, torch.zeros_like(modality), 1))
    else:
        logits = dict(model.subset_logits(torch.from_numpy(np.array(images))))[tuple(subset.tolist())]
    return float((decide_labels(logits, images.shape[1:3], label_stride) == answer(images[subset], subset)).mean())


def make_card(
    state: TrainingState,
    parts: Sequence[_Part],
    name: str,
    metrics: Mapping[str, Any],
    halves: PartFiles | None = None,
    precision: Precision = "fp32",
) -> ModelCard:
    """The card of an exported checkpoint; `metrics` are those of the export, `halves` the only network in two.

    `precision` is that of the written files.
    """
    config = state.config
    modalities = tuple(spec.modality for spec in state.inputs)
    networks = tuple(
        NetworkSpec(
            file=part.file.name,
            sha256=sha256_of(part.file),
            modalities=tuple(modalities[member] for member in part.network.members),
            count=part.count,
            parts=_parts_on_card(halves, part.network, config.data.size) if halves else None,
            known_answers=_known_answers(part, config.data.size, precision),
        )
        for part in parts
    )
    return ModelCard(
        name=name,
        description=config.description,
        input_size=config.data.size,
        inputs=state.inputs,
        classes=state.classes,
        networks=networks,
        label_stride=config.model.label_stride,
        training=TrainingRecord(
            method=_method_in_words(state),
            data=state.data,
            git_revision=state.git_revision,
            command=state.command,
            metrics={**state.metrics, **metrics},
            licence=state.licence,
            non_commercial=state.non_commercial,
        ),
    )


@torch.inference_mode()
def _known_answers(part: _Part, size: tuple[int, int], precision: Precision) -> tuple[KnownAnswer, ...]:
    counts = (part.count,) if part.count else range(1, len(part.network.members) + 1)
    return known_answers(_as_written(part, precision), size, part.network.members, counts)


def _parts_on_card(halves: PartFiles, network: ExportedNetwork, size: tuple[int, int]) -> NetworkParts:
    first_map = None
    if isinstance(network, StudentNetwork) and network.model.gates is not None:
        first_map = StudentDecoder(network, size).shapes[0]
    return NetworkParts(encoder=_file_of(halves.encoder), decoder=_file_of(halves.decoder), first_map=first_map)


def _file_of(path: Path) -> NetworkFile:
    return NetworkFile(file=path.name, sha256=sha256_of(path))


def _method_in_words(state: TrainingState) -> str:
    config = state.config
    per_step = config.optim.batch_size * config.optim.accumulate * config.machine.devices * config.machine.num_nodes
    samples = state.step * per_step
    method, model = config.method, config.model
    if method.network == "anymodal":
        how = (
            f"{method.name} {'on all modalities' if sees_all_always(method) else 'with anymodal dropout'}, "
            f"a missing modality is {'removed' if model.missing == 'remove' else 'zero-filled'}; "
            f"{ENCODERS[encoder_name(model.backbone)].words}, head width {model.head_width}, fusion {model.fusion}"
        )
    else:
        narrow = "" if model.width == 1 else f" with {model.width:g} of its channels"
        networks = f"a network per modality; {model.backbone}{narrow}, DeepLabV3+ decoder {model.head_width} wide"
        how = f"{method.name}, {networks}"
    if model.first_weights:
        how += f", from {'the network' if model.init_head else 'the encoder'} of {model.first_weights.name}"
    return f"{how}, seed {config.seed}; {state.step} steps, {samples} samples, {state.elapsed_s / 60:.1f} min"
