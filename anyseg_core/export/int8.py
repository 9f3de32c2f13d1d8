"""A student's network in int8: S8S8 QDQ from a calibration set, and what it costs on every subset of the sensors.

TensorRT takes quantised networks only with the quantisation written into the ONNX file, symmetric and signed (U8 is
rejected); onnxruntime and OpenVINO run the same file. What is quantised is what a layer reads, not what it writes: an
engine puts the clipping of ReLU6 between a convolution and the next one's quantisation, and before the clipping values
have many times the range that is left after it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from anyseg_core.data.sample import Sample, evenly_spread
from anyseg_core.models.base import Subset, all_subsets
from anyseg_core.runtime.engines.onnx import OnnxEngine
from anyseg_core.runtime.metrics import ConfusionMatrix, mean_over_subsets

Images = NDArray[np.uint8]
"""[M, H, W, 3], one per modality of the network, in its order."""


@dataclass(frozen=True)
class SubsetLoss:
    """mIoU, 0 to 1, of the network before and after, on one subset."""

    subset: Subset
    before: float
    after: float

    @property
    def points(self) -> float:
        """What was lost, in points of mIoU (percent); negative where it gained."""
        return 100.0 * (self.before - self.after)


class _Calibration(CalibrationDataReader):
    """All modalities together, then each alone: the mean over them has another range for every number."""

    def __init__(self, samples: Sequence[Images]) -> None:
        self._batches = self._each(samples)

    def get_next(self) -> dict[str, Any] | None:  # type: ignore[override]
        return next(self._batches, None)

    @staticmethod
    def _each(samples: Sequence[Images]) -> Iterator[dict[str, Any]]:
        for images in samples:
            index = np.arange(len(images), dtype=np.int64)
            yield {"images": images, "modality": index}
            for one in index:
                yield {"images": images[one : one + 1], "modality": index[one : one + 1]}


PRODUCTS = ["Conv", "MatMul"]
"""The ONNX operators whose inputs are quantised."""
MAX_CHANGED = 0.01
"""Share of the labels of any sensor alone that a layer's quantisation may change; a layer that changes more stays in
float. Of EfficientNet-Lite0 those are the first few: the stem changes 4 %, the depthwise convolution after it 6 %, one
in the middle 0.2 %."""
PROBES = 4
"""Samples on which the layers are judged one by one."""


def quantise(network: Path, target: Path, samples: Sequence[Images]) -> tuple[str, ...]:
    """Write the int8 form of an fp32 network: convolutions and products with weights, per channel.

    Ranges are the extremes over `samples`. Attention's products of two activations, normalisation, softmax and the
    upsampling matrices stay in float: they are cheap, and int8 hurts them most. So do the layers that it hurts more
    than `MAX_CHANGED`; their names are returned.

    Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("int8 needs a calibration set, and it is empty")
    probes = [samples[index] for index in evenly_spread(len(samples), PROBES)]
    with tempfile.TemporaryDirectory() as scratch:
        prepared, everything = Path(scratch) / "prepared.onnx", Path(scratch) / "everything.onnx"
        quant_pre_process(str(network), str(prepared), skip_symbolic_shape=True)
        _quantise(prepared, everything, probes, ())
        changes = changes_by_layer(prepared, everything, probes)
        in_float = tuple(layer for layer, change in changes.items() if change > MAX_CHANGED)
        _quantise(prepared, target, samples, in_float)
    return in_float


def _quantise(prepared: Path, target: Path, samples: Sequence[Images], in_float: Sequence[str]) -> None:
    logging.getLogger().setLevel(logging.ERROR)  # the library warns of every constant on the root logger
    quantize_static(
        str(prepared),
        str(target),
        _Calibration(samples),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=PRODUCTS,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[*_products_by_constants_on_the_left(prepared), *in_float],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "MatMulConstBOnly": True,
            "QuantizeBias": False,  # TensorRT adds biases in float
            "OpTypesToExcludeOutputQuantization": PRODUCTS,
        },
    )


def changes_by_layer(before: Path, after: Path, samples: Sequence[Images]) -> dict[str, float]:
    """What each layer's quantisation alone does to the labels, by the layer's name, most first.

    The figure is the share of labels, 0 to 1, that differ from those of the network `before`, of the sensor (each
    alone) that suffers most. `after` is `before` with all of its products quantised.
    """
    quantised, original = onnx.load(str(after)), onnx.load(str(before))
    unrounded = _unrounded_names(quantised)
    layers = [node.name for node in quantised.graph.node if node.op_type in PRODUCTS and {*node.input} & {*unrounded}]
    expected = _labels(original, samples)
    changes = {}
    for layer in layers:
        found = _labels(_quantised_only_in(quantised, original, unrounded, layer), samples)
        changes[layer] = float((found != expected).mean(axis=(1, 2, 3)).max())
    return dict(sorted(changes.items(), key=lambda entry: -entry[1]))


def _unrounded_names(quantised: onnx.ModelProto) -> dict[str, str]:
    """By the name of what a DequantizeLinear gives: the float tensor that it stands for."""
    rounding = {node.output[0]: node.input[0] for node in quantised.graph.node if node.op_type == "QuantizeLinear"}
    names = {}
    for node in quantised.graph.node:
        if node.op_type == "DequantizeLinear":  # of an activation, or of a constant, whose name is in the new one's
            constant = node.input[0].removesuffix("_quantized")
            names[node.output[0]] = rounding.get(node.input[0], constant)
    return names


def _quantised_only_in(
    quantised: onnx.ModelProto, original: onnx.ModelProto, unrounded: dict[str, str], layer: str
) -> onnx.ModelProto:
    """The network in which all layers but one read the float tensors again."""
    network = onnx.ModelProto()
    network.CopyFrom(quantised)
    there = {tensor.name for tensor in network.graph.initializer}
    network.graph.initializer.extend(tensor for tensor in original.graph.initializer if tensor.name not in there)
    for node in network.graph.node:
        if node.name != layer:
            node.input[:] = [unrounded.get(name, name) for name in node.input]
    return network


def _labels(network: onnx.ModelProto, samples: Sequence[Images]) -> NDArray[np.uint8]:
    """Labels [M, S, H, W] of each sensor alone in each sample."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # longer than the few runs
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    alone = [
        [session.run(["labels"], {"images": images[m : m + 1], "modality": np.array([m])})[0] for images in samples]
        for m in range(len(samples[0]))
    ]
    return np.array(alone)


def _products_by_constants_on_the_left(network: Path) -> list[str]:
    """Names of the products constant @ activation: upsampling, and the folded head."""
    graph = onnx.load(str(network)).graph
    constant = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[0] in constant]


def subset_losses(before: Path, after: Path, samples: Sequence[Sample], classes: int) -> list[SubsetLoss]:
    """mIoU of both networks on every subset of the modalities, over the same samples."""
    engines = [OnnxEngine(network) for network in (before, after)]
    losses = []
    for subset in all_subsets(len(samples[0].images)):
        scores = []
        for engine in engines:
            matrix = ConfusionMatrix(classes)
            for sample in samples:
                labels, _ = engine.run(sample.images[list(subset)], np.array(subset, np.int64))
                matrix.add(sample.labels, labels)
            scores.append(matrix.miou())
        losses.append(SubsetLoss(subset, *scores))
    return losses


def mean_loss(losses: Sequence[SubsetLoss]) -> float:
    """Points of the plain mean over the subsets that were lost."""
    return mean_over_subsets([loss.points for loss in losses])
