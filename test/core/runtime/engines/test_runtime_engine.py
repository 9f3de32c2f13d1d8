"""The onnxruntime engine: the contract, and what is said when a file breaks it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from toy_student import toy_network, toy_output, write_toy_student

from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import EngineError

SUBSETS = [subset for count in range(1, 5) for subset in combinations(range(4), count)]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("toy"), size=(64, 96)) / "student.onnx"


@pytest.mark.parametrize("subset", SUBSETS, ids=str)
def test_engine_computes_the_network_on_every_subset(network: Path, subset: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (len(subset), 64, 96, 3), np.uint8)
    modality = np.array(subset, np.int64)
    labels, confidence = open_engine(network).run(images, modality)
    expected_labels, expected_confidence = toy_output(images, modality)
    assert labels.dtype == confidence.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(confidence, expected_confidence)


def test_engine_says_what_really_runs(network: Path) -> None:
    info = open_engine(network, "auto").info
    assert (info.backend, info.device) == ("onnxruntime", "cpu")
    assert "auto" in info.reason
    assert open_engine(network, "onnxruntime").info.reason == "asked for"


def _rename_input(graph: onnx.GraphProto) -> None:
    graph.input[0].name = "pixels"
    graph.node[0].input[0] = "pixels"


def _float_images(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _no_confidence(graph: onnx.GraphProto) -> None:
    del graph.output[1]


def _extra_output(graph: onnx.GraphProto) -> None:
    graph.output.append(onnx.helper.make_tensor_value_info("level", TensorProto.INT64, [64, 64]))


def _nested_modality(graph: onnx.GraphProto) -> None:
    graph.input[1].type.tensor_type.shape.dim.add().dim_value = 1
    next(node for node in graph.node if node.op_type == "Shape").input[0] = "step"  # its own shape must not clash


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_rename_input, "input 'images' is missing"),
        (_rename_input, "input 'pixels' is not known"),
        (_float_images, r"input 'images' is tensor\(float\) of rank 4"),
        (_no_confidence, "output 'confidence' is missing"),
        (_extra_output, "output 'level' is not known"),
        (_nested_modality, r"input 'modality' is tensor\(int64\) of rank 2"),
    ],
)
def test_another_contract_is_refused_and_named(
    tmp_path: Path, spoil: Callable[[onnx.GraphProto], None], named: str
) -> None:
    model = toy_network((64, 64), 25)
    spoil(model.graph)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(EngineError, match=named):
        open_engine(tmp_path / "other.onnx")


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x08" * 100])
def test_a_damaged_file_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "damaged.onnx").write_bytes(content)
    with pytest.raises(EngineError, match=r"damaged\.onnx"):
        open_engine(tmp_path / "damaged.onnx")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"absent\.onnx"):
        open_engine(tmp_path / "absent.onnx")


def test_a_failed_inference_is_an_engine_error_and_the_engine_lives_on(network: Path) -> None:
    engine = open_engine(network)
    with pytest.raises(EngineError, match="inference"):
        engine.run(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, np.int64))
    with pytest.raises(EngineError, match="inference"):
        engine.run(np.zeros((1, 64, 96, 3), np.uint8), np.array([999], np.int64))
    labels, _ = engine.run(np.zeros((1, 64, 96, 3), np.uint8), np.zeros(1, np.int64))
    assert labels.shape == (64, 96)


def test_a_closed_engine_says_so(network: Path) -> None:
    engine = open_engine(network)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(np.zeros((1, 64, 96, 3), np.uint8), np.zeros(1, np.int64))


@pytest.mark.parametrize(("backend", "named"), [("cuda", "known backends: auto"), ("tensorrt", "model.backend")])
def test_an_unusable_backend_is_refused(network: Path, backend: str, named: str) -> None:
    with pytest.raises(EngineError, match=named):
        open_engine(network, backend)
