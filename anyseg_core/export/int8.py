"""A student's network in int8: S8S8 QDQ from a calibration set, and what it costs on every subset of the sensors.

TensorRT takes quantised networks only with the quantisation written into the ONNX file, symmetric and signed (U8 is
rejected); onnxruntime and OpenVINO run the same file.
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
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from anyseg_core.data.sample import Sample
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


def quantise(network: Path, target: Path, samples: Sequence[Images]) -> None:
    """Write the int8 form of an fp32 network: convolutions and products with weights, per channel.

    Ranges are the extremes over `samples`. Attention's products of two activations, normalisation, softmax and the
    upsampling matrices stay in float: they are cheap, and int8 hurts them most.

    Raises ValueError without samples.
    """
    if not samples:
        raise ValueError("int8 needs a calibration set, and it is empty")
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(network), str(prepared), skip_symbolic_shape=True)
        logging.getLogger().setLevel(logging.ERROR)  # the library warns of every constant on the root logger
        quantize_static(
            str(prepared),
            str(target),
            _Calibration(samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_products_by_constants_on_the_left(prepared),
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "MatMulConstBOnly": True,
                "QuantizeBias": False,  # TensorRT adds biases in float
            },
        )


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
