"""A checkpoint -> a student folder: ONNX network, model card, and proof that the two frameworks agree."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxscript
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnxscript import opset20
from torch import Tensor, nn

from anyseg_core.data.sample import DataError
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.runtime.model_card import CARD_NAME, ModelCard, NetworkSpec, TrainingRecord, sha256_of
from anyseg_core.training.batches import open_dataset
from anyseg_core.training.checkpoint import CheckpointError, TrainingState, find_checkpoint, load_model
from anyseg_core.training.evaluation import all_subsets, decide_labels

NETWORK_NAME = "student.onnx"
OPSET = 20
MIN_AGREEMENT = 0.999
"""Share of pixels on which onnxruntime and torch must give the same label, over all subsets."""
PARITY_SAMPLES = 4


class ExportError(Exception):
    """A network that must not be shipped; the message says what differs."""


class StudentNetwork(nn.Module):
    """The inference form of a trained network for one input size.

    images uint8 [M, H, W, 3], modality int64 [M] -> labels uint8 [H, W], confidence uint8 [H, W].

    The head's projections, fuse layer and batch norm are folded into one matrix per stage, and upsampling to a
    fixed size is a product with two constant matrices, which engines run faster than a resize.
    """

    def __init__(self, model: AnymodalSegmenter, size: tuple[int, int], label_stride: int) -> None:
        super().__init__()
        if model.training:
            raise ValueError("export needs the network in eval mode; in training mode dropout would be exported")
        self.model = model
        self.label_stride = label_stride
        grid = (size[0] // 4, size[1] // 4)
        self._fold_head(model)
        for stage in range(1, 4):
            self._add_interpolation(f"stage{stage}", (grid[0] >> stage, grid[1] >> stage), grid)
        self._add_interpolation("labels", grid, (size[0] // label_stride, size[1] // label_stride))
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

    def _add_interpolation(self, name: str, source: tuple[int, int], target: tuple[int, int]) -> None:
        self.register_buffer(f"{name}_rows", interpolation_matrix(source[0], target[0]))  # [H', H]
        self.register_buffer(f"{name}_cols", interpolation_matrix(source[1], target[1]).T.contiguous())  # [W, W']

    def forward(self, images: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        features = [self._average(stage, feature) for stage, feature in enumerate(self.model.encode(images, modality))]
        logits = self._decode(features)  # [K, H/4, W/4]
        logits = self._upsample(logits, "labels")  # [K, H/s, W/s]
        best, labels = logits.max(dim=0)  # [H/s, W/s]
        # The best class's softmax probability: exp(0) / sum of exp(x - max).
        confidence = 255.0 / torch.exp(logits - best).sum(dim=0)
        # An engine may lack integer resizing and rounding casts: stay in float until the end.
        return self._to_pixels(labels.float()), self._to_pixels(torch.floor(confidence + 0.5))

    def _average(self, stage: int, feature: Tensor) -> Tensor:
        """[M, h, w, C] -> [h, w, C]: the mean over the modalities that are there, or with zeros for the rest."""
        if self.model.missing == "remove":
            return feature.mean(dim=0)
        total = self.model.mean.shape[0]
        absent = total - feature.shape[0]
        return (feature.sum(dim=0) + absent * getattr(self, f"zero{stage}")[0]) / total

    def _decode(self, features: list[Tensor]) -> Tensor:
        """Features [h_s, w_s, C_s] -> logits [K, h_1, w_1]."""
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

    def _upsample(self, x: Tensor, name: str) -> Tensor:
        """[C, h, w] -> [C, H', W'], bilinear (align_corners=False)."""
        return getattr(self, f"{name}_rows") @ (x @ getattr(self, f"{name}_cols"))

    def _to_pixels(self, x: Tensor) -> Tensor:
        """[H/s, W/s] -> uint8 [H, W], each value repeated."""
        if self.label_stride > 1:
            x = F.interpolate(x[None, None], scale_factor=float(self.label_stride), mode="nearest")[0, 0]
        return x.to(torch.uint8)


def interpolation_matrix(source: int, target: int) -> Tensor:
    """[target, source] matrix of 1-D bilinear interpolation with align_corners=False."""
    unit = torch.eye(source)[:, None]  # [source, 1, source]
    return F.interpolate(unit, size=target, mode="linear", align_corners=False)[:, 0].T.contiguous()


def _gelu(x: onnxscript.FLOAT, approximate: str = "none") -> onnxscript.FLOAT:
    """GELU as one operator, which it is since opset 20; the exporter's five cost a tenth of the engine's time."""
    return opset20.Gelu(x, approximate=approximate)  # type: ignore[return-value]  # onnxscript types it by its schema


def write_network(network: StudentNetwork, path: Path, size: tuple[int, int]) -> None:
    """Write the ONNX file, weights inside, with a dynamic number of modalities."""
    modalities = network.model.mean.shape[0]
    # Two images, so that no dimension of the traced graph is mistaken for a constant 1.
    images = torch.zeros(2, *size, 3, dtype=torch.uint8)
    modality = torch.arange(2) % modalities
    count = torch.export.Dim("modalities", min=1, max=max(modalities, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            network,
            (images, modality),
            str(path),
            input_names=["images", "modality"],
            output_names=["labels", "confidence"],
            dynamic_shapes={"images": {0: count}, "modality": {0: count}},
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.gelu.default: _gelu},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def export(checkpoint: Path, folder: Path, name: str | None = None) -> ModelCard:
    """Write the student of a checkpoint (or of a run's newest) to `folder`, replacing what was there.

    Raises:
        CheckpointError, DataError: the checkpoint or the data for the parity check cannot be read.
        ExportError: onnxruntime and torch disagree; nothing is written.
    """
    checkpoint = find_checkpoint(checkpoint)
    model, state = load_model(checkpoint)
    samples = _parity_images(state)
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch)
        network = StudentNetwork(model, state.config.data.size, state.config.model.label_stride)
        write_network(network.eval(), written / NETWORK_NAME, state.config.data.size)
        agreement = check_parity(written / NETWORK_NAME, model, samples, state.config.model.label_stride)
        card = make_card(state, written / NETWORK_NAME, name or state.config.name, agreement)
        card.write(written)
        folder.mkdir(parents=True, exist_ok=True)
        for file in (NETWORK_NAME, CARD_NAME):
            shutil.move(written / file, folder / file)
    return card


def _parity_images(state: TrainingState) -> list[NDArray[np.uint8]]:
    dataset = open_dataset(state.config.data, state.config.data.val_split)
    chosen = np.linspace(0, len(dataset) - 1, min(PARITY_SAMPLES, len(dataset))).round().astype(int)
    return [np.array(dataset[int(index)].images) for index in chosen]


@torch.inference_mode()
def check_parity(
    network: Path, model: AnymodalSegmenter, samples: Sequence[NDArray[np.uint8]], label_stride: int
) -> float:
    """Run every subset of every sample in both frameworks; returns the lowest label agreement of a subset, 0 to 1.

    The reference is the network as trained, without any of the export's folding.

    Args:
        samples: uint8 [M, H, W, 3] each.

    Raises:
        ExportError: the lowest agreement is below `MIN_AGREEMENT`.
    """
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    lowest = 1.0
    for subset in all_subsets(samples[0].shape[0]):
        equal = [_agreement(session, model, images, np.array(subset), label_stride) for images in samples]
        agreement = float(np.mean(equal))
        if agreement < MIN_AGREEMENT:
            raise ExportError(
                f"onnxruntime and torch agree on only {100 * agreement:.3f} % of the labels of modalities {subset}; "
                f"{100 * MIN_AGREEMENT} % are required. The network was not exported."
            )
        lowest = min(lowest, agreement)
    return lowest


def _agreement(
    session: onnxruntime.InferenceSession,
    model: AnymodalSegmenter,
    images: NDArray[np.uint8],
    subset: NDArray[np.int64],
    label_stride: int,
) -> float:
    present = images[subset]
    labels: Any = session.run(["labels"], {"images": present, "modality": subset})[0]
    modality = torch.from_numpy(subset)
    features = model.encode(torch.from_numpy(present), modality)
    logits = model.head(model.average(features, torch.zeros_like(modality), 1))
    return float((decide_labels(logits, present.shape[1:3], label_stride) == labels).mean())


def make_card(state: TrainingState, network: Path, name: str, agreement: float) -> ModelCard:
    """The card of an exported checkpoint."""
    config = state.config
    modalities = tuple(spec.modality for spec in state.inputs)
    return ModelCard(
        name=name,
        description=config.description,
        input_size=config.data.size,
        inputs=state.inputs,
        classes=state.classes,
        networks=(NetworkSpec(file=network.name, sha256=sha256_of(network), modalities=modalities),),
        label_stride=config.model.label_stride,
        training=TrainingRecord(
            method=_method_in_words(state),
            data=state.data,
            git_revision=state.git_revision,
            command=state.command,
            metrics=state.metrics | {"onnx_label_agreement": round(agreement, 6)},
        ),
    )


def _method_in_words(state: TrainingState) -> str:
    config = state.config
    samples = state.step * config.optim.batch_size * config.machine.devices * config.machine.num_nodes
    return (
        f"{config.method.name} {'with anymodal dropout' if config.method.anymodal_dropout else 'on all modalities'}, "
        f"a missing modality is {'removed' if config.model.missing == 'remove' else 'zero-filled'}; "
        f"MiT-{config.model.backbone.upper()}, head width {config.model.head_width}, seed {config.seed}; "
        f"{state.step} steps, {samples} samples, {state.elapsed_s / 60:.1f} min"
    )


def main(arguments: list[str] | None = None) -> int:
    """`python -m anyseg_core.export CHECKPOINT OUT_FOLDER`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m anyseg_core.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a run folder or one of its checkpoints")
    parser.add_argument("folder", type=Path, help="the student folder to write")
    parser.add_argument("--name", default=None, help="name on the card (default: the run's)")
    options = parser.parse_args(arguments)
    try:
        card = export(options.checkpoint, options.folder, options.name)
    except (CheckpointError, DataError, ExportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.folder}: student {card.name}, label agreement {card.training.metrics['onnx_label_agreement']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
