"""Writing networks as ONNX files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnxscript
import torch
from onnxscript import opset20
from torch import Tensor, nn

from anyseg_core.models.student_network import ExportedNetwork

NETWORK_NAME = "student.onnx"
"""The file of a student with one network for all of its sensors."""
OPSET = 20


def _gelu(x: onnxscript.FLOAT, approximate: str = "none") -> onnxscript.FLOAT:
    """GELU as one operator, which it is since opset 20; the exporter's five cost a tenth of the engine's time."""
    return opset20.Gelu(x, approximate=approximate)  # type: ignore[return-value]  # onnxscript types it by its schema


def write_network(network: ExportedNetwork, path: Path, size: tuple[int, int], count: int | None = None) -> None:
    """Write the ONNX file, weights inside, for `count` modalities; None = any number."""
    members = len(network.members)
    # Two images, so that no dimension of the traced graph is mistaken for a constant 1.
    images = torch.zeros(count or 2, *size, 3, dtype=torch.uint8)
    modality = torch.tensor(network.members)[torch.arange(count or 2) % members]
    any_count = torch.export.Dim("modalities", min=1, max=max(members, 2))
    dynamic = None if count else {"images": {0: any_count}, "modality": {0: any_count}}
    write_onnx(network, path, {"images": images, "modality": modality}, ["labels", "confidence"], dynamic)


def write_onnx(
    network: nn.Module, path: Path, inputs: Mapping[str, Tensor], outputs: Sequence[str], dynamic: Any = None
) -> None:
    """Write a module as an ONNX file, weights inside: its named example inputs and outputs, and dynamic shapes."""
    with warnings.catch_warnings(), _without_torchvision():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.gelu.default: _gelu},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    content = onnx.load(str(path))
    forget_sources(content)
    onnx.save(content, str(path))


def forget_sources(network: onnx.ModelProto) -> None:
    """Take the exporter's stack traces out, in place: they name files of the computer that exported."""
    for node in network.graph.node:
        kept = [(entry.key, entry.value) for entry in node.metadata_props if not entry.key.endswith("stack_trace")]
        del node.metadata_props[:]
        for key, value in kept:
            node.metadata_props.add(key=key, value=value)


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Without the exporter's warnings of torchvision's operators, where that is not installed; none of them is used."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
