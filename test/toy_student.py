"""A student small enough to write in a test: obeys the whole contract and says which modalities it was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from anyseg_core.runtime.label_sets import DELIVER, LabelClass
from anyseg_core.runtime.model_card import (
    ENCODINGS,
    ClassSpec,
    InputSpec,
    ModelCard,
    NetworkSpec,
    TrainingRecord,
    sha256_of,
)
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor

BRIGHTNESS_STEP = 64


def write_toy_student(
    folder: Path,
    size: tuple[int, int] = (64, 64),
    modalities: Sequence[Sensor] = DEFAULT_SENSORS,
    classes: Sequence[LabelClass] = DELIVER,
    *,
    one_network_each: bool = False,
) -> Path:
    """Write model.json and the networks into `folder` (made where missing); returns `folder`.

    `one_network_each` writes a network per modality, as CroDiNo-KD has, instead of one for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = [[m] for m in modalities] if one_network_each else [list(modalities)]
    networks = []
    for group in groups:
        file = folder / ("student.onnx" if len(group) > 1 else f"{group[0]}.onnx")
        onnx.save(toy_network(size, len(classes)), file)
        networks.append(NetworkSpec(file=file.name, sha256=sha256_of(file), modalities=tuple(group)))
    toy_card(folder.name, size, modalities, classes, networks).write(folder)
    return folder


def toy_card(
    name: str,
    size: tuple[int, int],
    modalities: Sequence[Sensor],
    classes: Sequence[LabelClass],
    networks: Sequence[NetworkSpec],
) -> ModelCard:
    """The card of a toy student."""
    return ModelCard(
        name=name,
        description="toy: the label says which modalities were present and how bright they are",
        input_size=size,
        inputs=tuple(InputSpec(modality=m, encoding=ENCODINGS[m.kind][0]()) for m in modalities),
        classes=tuple(ClassSpec(name=c.name, color=c.color, surface=c.surface) for c in classes),
        networks=tuple(networks),
        training=TrainingRecord(method="none", data="none", git_revision="none"),
    )


def toy_output(
    images: NDArray[np.uint8], modality: NDArray[np.int64], class_count: int = len(DELIVER)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What the toy network computes, in numpy: labels and confidence, uint8 [H, W].

    The brightness is the mean over modalities and channels. labels = (2^i summed over the present indices i
    + brightness / 64) modulo the number of classes; confidence = brightness.
    """
    brightness = images.astype(np.int64).sum(axis=(0, 3)) // (3 * len(modality))  # [H, W]
    present = int((1 << modality).sum())
    labels = (present + brightness // BRIGHTNESS_STEP) % class_count
    return labels.astype(np.uint8), brightness.astype(np.uint8)


def toy_network(size: tuple[int, int], class_count: int) -> onnx.ModelProto:
    """The ONNX graph of `toy_output`."""
    constants = {
        "bits": 1 << np.arange(16),
        "image_axes": np.array([0, 3], np.int64),
        "channels": np.array([3], np.int64),
        "step": np.array([BRIGHTNESS_STEP], np.int64),
        "class_count": np.array([class_count], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["integers"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["integers", "image_axes"], ["total"], keepdims=0),
        helper.make_node("Shape", ["modality"], ["count"]),
        helper.make_node("Mul", ["count", "channels"], ["divisor"]),
        helper.make_node("Div", ["total", "divisor"], ["brightness"]),
        helper.make_node("Gather", ["bits", "modality"], ["present_bits"]),
        helper.make_node("ReduceSum", ["present_bits"], ["present"], keepdims=1),
        helper.make_node("Div", ["brightness", "step"], ["level"]),
        helper.make_node("Add", ["level", "present"], ["sum"]),
        helper.make_node("Mod", ["sum", "class_count"], ["label"]),
        helper.make_node("Cast", ["label"], ["labels"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["brightness"], ["confidence"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        inputs=[
            helper.make_tensor_value_info("images", TensorProto.UINT8, ["M", *size, 3]),
            helper.make_tensor_value_info("modality", TensorProto.INT64, ["M"]),
        ],
        outputs=[
            helper.make_tensor_value_info("labels", TensorProto.UINT8, size),
            helper.make_tensor_value_info("confidence", TensorProto.UINT8, size),
        ],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8  # readable by every onnxruntime since 1.12
    onnx.checker.check_model(model)
    return model
