"""int8: what a layer reads is rounded, never what is clipped after it, and the layers that suffer stay in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from anyseg_core.export.int8 import MAX_CHANGED, Images, quantise
from anyseg_core.runtime.engines.onnx import OnnxEngine

SIZE = 16
THRESHOLD = np.float32(100.5)


def write_network(path: Path, spread: float) -> None:
    """Two 1x1 convolutions, with ReLU6 between them, that label pixels by their first channel: over a threshold or not.

    `spread` multiplies what the first one writes for the second channel, and the second one ignores: with it, the range
    of what is written before the clipping grows.
    """
    first = np.array([[6 / 255, 0, 0], [0, spread, 0]], np.float32).reshape(2, 3, 1, 1)
    second = np.array([[-1, 0], [1, 0]], np.float32).reshape(2, 2, 1, 1)
    constants = {
        "first": first,
        "second": second,
        "offset": np.array([1, -1], np.float32) * THRESHOLD * 6 / 255,
        "low": np.float32(0),
        "high": np.float32(6),
        "none": np.array([0], np.int64),
    }
    steps = [
        ("Cast", ["images"], "floats", {"to": TensorProto.FLOAT}),
        ("Transpose", ["floats"], "channels", {"perm": [0, 3, 1, 2]}),
        ("Conv", ["channels", "first"], "written", {}),
        ("Clip", ["written", "low", "high"], "clipped", {}),
        ("Conv", ["clipped", "second", "offset"], "logits", {}),
        ("ReduceMean", ["logits", "none"], "mean", {"keepdims": 0}),
        ("ArgMax", ["mean"], "index", {"axis": 0, "keepdims": 0}),
        ("Cast", ["index"], "labels", {"to": TensorProto.UINT8}),
        ("Identity", ["labels"], "confidence", {}),
    ]
    nodes = [helper.make_node(kind, reads, [out], name=f"node_{out}", **more) for kind, reads, out, more in steps]
    graph = helper.make_graph(
        nodes,
        "two_layers",
        [
            helper.make_tensor_value_info("images", TensorProto.UINT8, ["M", SIZE, SIZE, 3]),
            helper.make_tensor_value_info("modality", TensorProto.INT64, ["M"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [SIZE, SIZE]) for name in ("labels", "confidence")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def samples(levels: NDArray[np.uint8], count: int = 3) -> list[Images]:
    random = np.random.default_rng(0)
    return [random.choice(levels, (2, SIZE, SIZE, 3)).astype(np.uint8) for _ in range(count)]


def agreement(before: Path, after: Path, images: Images) -> float:
    index = np.array([0])
    labels = [OnnxEngine(network, threads=1).run(images[:1], index)[0] for network in (before, after)]
    return float((labels[0] == labels[1]).mean())


@pytest.mark.parametrize("spread", [0.0, 1.0, 50.0])
def test_the_range_before_the_clipping_does_not_matter(tmp_path: Path, spread: float) -> None:
    network, target = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    write_network(network, spread)
    clear = samples(np.array([0, 60, 190, 255], np.uint8))
    assert quantise(network, target, clear) == ()
    assert agreement(network, target, clear[0]) == 1.0


def test_a_layer_that_changes_labels_stays_in_float(tmp_path: Path) -> None:
    network, target = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    write_network(network, 1.0)
    close = samples(np.array([0, 100, 101, 255], np.uint8))  # 100 and 101 are one level of the quantised picture
    in_float = quantise(network, target, close)
    assert "node_written" in in_float
    assert 1 - agreement(network, target, close[0]) <= MAX_CHANGED


def test_nothing_is_calibrated_on_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="calibration set"):
        quantise(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", [])
