"""A student fitted to another vehicle: from its unlabelled drives, from a handful of labelled frames, or from both.

Self-training from the sensor that is trusted to those that are not: the trusted sensors label the vehicle's frames, as
far as the network is confident; then the network learns these labels from every subset of the sensors, since all of
them saw the same scene (pseudo-labels: Lee, 2013; between sensors: Gupta, Hoffman and Malik, CVPR 2016). The data that
the network was trained on takes part, where it is at hand, so that it forgets nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from anyseg_core.data.files import resize_nearest
from anyseg_core.data.folder import Folder, read_description
from anyseg_core.data.sample import DataError
from anyseg_core.models.anymodal import select_present
from anyseg_core.models.base import SegmentationModel
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.terminal import tracked
from anyseg_core.training.checkpoint import TrainingState, find_checkpoint, load_anymodal
from anyseg_core.training.config import TrainConfig, parse_config
from anyseg_core.training.evaluation import decide, evaluate_on
from anyseg_core.training.loop import train
from anyseg_core.training.same_meaning import require_same_classes

LABELS, RUN = "labels", "run"
"""What an adaptation writes: the labels that the trusted sensors gave, and the training's run."""


@dataclass(frozen=True)
class AdaptOptions:
    """How to adapt. `unlabelled`, `labelled` or both are needed."""

    unlabelled: Path | None = None
    """A folder of one's own data without labels, as `anyseg data from-bag` writes it: splits `train`, and `val` to
    measure on."""
    labelled: Path | None = None
    """The same with labels."""
    trusted: tuple[Sensor, ...] = (Sensor.CAMERA,)
    """The sensors whose labels the others learn."""
    min_confidence: float = 0.8
    """Below, a pixel of an unlabelled frame is not learned from."""
    minutes: float = 10.0
    rehearse: float = 1.0
    """How often samples of the student's own data are drawn, relative to the new ones; 0 where it is not at hand."""
    lr: float = 2e-4
    """Learning rate, which falls to zero."""


@dataclass(frozen=True)
class Adapted:
    """What came of it."""

    checkpoint: Path
    labelled_share: float
    """Of the unlabelled frames' pixels, those that got a label; NaN where there were no such frames."""
    before: dict[str, Any]
    after: dict[str, Any]
    """Scores by part and subset of the sensors, see `evaluation.summarise_mixture`. On an unlabelled part they are the
    agreement with the trusted sensors' labels of the network that was given."""


def adapt(run: Path, out: Path, options: AdaptOptions, *, show_progress: bool = True) -> Adapted:
    """Fine-tune the network of a run (or of a checkpoint), and score it before and after.

    Raises:
        CheckpointError, DataError, ConfigError: the run or the data cannot be used.
        TrainingError: the loss is no number any more.
    """
    if options.unlabelled is None and options.labelled is None:
        raise DataError("there is nothing to adapt to: give a folder of unlabelled frames, of labelled ones, or both")
    model, state = load_anymodal(find_checkpoint(run))
    for root in (options.labelled, options.unlabelled):
        if root is not None:
            require_same_classes(state.classes, read_description(root).classes, root)
    share = float("nan")
    if options.unlabelled is not None:
        share = label_frames(model, state, options.unlabelled, out / LABELS, options, show_progress=show_progress)
    config = adapted_config(state, run, out, options)
    before = evaluate_on(model, config.data, config.model.label_stride)
    checkpoint = train(config, out / RUN, show_progress=show_progress)
    after = evaluate_on(load_anymodal(checkpoint)[0], config.data, config.model.label_stride)
    return Adapted(checkpoint, share, before, after)


def label_frames(
    model: SegmentationModel,
    state: TrainingState,
    root: Path,
    labels: Path,
    options: AdaptOptions,
    *,
    show_progress: bool = True,
) -> float:
    """Write the trusted sensors' labels of every unlabelled frame to `labels`; returns the share of labelled pixels.

    Raises DataError where the frames are not what the network takes.
    """
    shares = []
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise DataError(
                f"{root} has no {split}: make it of another drive with `anyseg data from-bag --split {split}`"
            )
        frames = Folder(root, split, state.config.data.size, labels=labels, labelled=False)
        _require_sensors(frames, state, options.trusted)
        for index in tracked(range(len(frames)), f"labelling {split}", len(frames), show=show_progress):
            label = confident_labels(model, frames, index, state, options)
            shares.append(float((label != UNLABELLED).mean()))
            file = frames.label_file(index)
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), resize_nearest(label, frames.picture_size(index)))
    return float(np.mean(shares))


def _require_sensors(frames: Folder, state: TrainingState, trusted: Sequence[Sensor]) -> None:
    """Raises DataError where the frames are encoded otherwise, or a trusted sensor is missing."""
    foreign = [str(spec.modality) for spec in frames.inputs if spec not in state.inputs]
    if foreign:
        raise DataError(
            f"{frames.root} encodes {', '.join(foreign)} otherwise than the network to be adapted: make it with "
            "`anyseg data from-bag --student` of that student"
        )
    missing = [str(modality) for modality in trusted if modality not in [spec.modality for spec in frames.inputs]]
    if missing:
        raise DataError(f"{frames.root} has no {', '.join(missing)}, which the labels are to come from")


@torch.inference_mode()
def confident_labels(
    model: SegmentationModel, frames: Folder, index: int, state: TrainingState, options: AdaptOptions
) -> NDArray[np.uint8]:
    """Labels uint8 [H, W] that the trusted sensors give a moment; 255 where they are not confident."""
    sensors = [spec.modality for spec in state.inputs]
    sample = frames[index]
    images = np.zeros((len(sensors), *sample.images.shape[1:]), np.uint8)
    for spec, image in zip(frames.inputs, sample.images, strict=True):
        images[sensors.index(spec.modality)] = image
    chosen = torch.tensor([[modality in options.trusted for modality in sensors]])
    logits = model(select_present(torch.from_numpy(images)[None], chosen))
    labels, confidence = decide(logits, frames.size, state.config.model.label_stride)
    return np.where(confidence < options.min_confidence, np.uint8(UNLABELLED), labels)


def adapted_config(state: TrainingState, run: Path, out: Path, options: AdaptOptions) -> TrainConfig:
    """The configuration of the fine-tuning: the new frames, and the network's own data beside them."""
    base = state.config.model_dump(mode="json")
    data = base["data"]
    common = {"kind": "folder", "size": data["size"]}
    parts: list[dict[str, Any]] = []
    if options.labelled is not None:
        parts.append(common | {"root": str(options.labelled.resolve())})
    if options.unlabelled is not None:
        labels = str((out / LABELS).resolve())
        parts.append(common | {"root": str(options.unlabelled.resolve()), "labels": labels})
    new = float(len(parts))
    parts += _own_parts(data, options.rehearse * new)
    base["name"] = f"{state.config.name}_adapted"
    base["data"] = {
        "kind": "mixture",
        "root": ".",
        "cache": data["cache"],
        "size": data["size"],
        "modalities": [spec.modality for spec in state.inputs],
        "label_set": "first_part",
        "parts": parts,
        "licence": state.licence,
        "non_commercial": state.non_commercial,
    }
    base["model"] |= {"pretrained": None, "init_from": str(run), "init_head": True}
    base["method"] = {"name": "supervised", "class_balance": base["method"].get("class_balance", 0.0)}
    base["method"] |= {"loss": base["method"].get("loss", "cross_entropy"), "subsets_per_step": 2}
    base["optim"]["lr"] = options.lr
    base["budget"] = {"max_minutes": options.minutes}
    # Labels of the network's own making choose no checkpoint: the last step is the result.
    base["record"] |= {"validations": 0, "validate_steps": None}
    return parse_config(base, "the adaptation")


def _own_parts(data: dict[str, Any], weight: float) -> list[dict[str, Any]]:
    """The data that the network was trained on, as parts of the mixture with so much weight together."""
    if weight <= 0:
        return []
    if data["kind"] != "mixture":
        return [{key: value for key, value in data.items() if key not in ("parts", "label_set")} | {"weight": weight}]
    total = sum(part["weight"] for part in data["parts"])
    root = Path(data["root"])
    return [
        part | {"root": str((root / part["root"]).resolve()), "weight": weight * part["weight"] / total}
        for part in data["parts"]
    ]
