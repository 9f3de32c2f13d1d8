"""Forms of a student: precision, size, stride, one network per number of sensors."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from shapes_dataset import shapes_config, write_shapes
from torch import nn

from anyseg_core.data.datasets import open_dataset
from anyseg_core.export import int8
from anyseg_core.export import student as export_module
from anyseg_core.export.student import NETWORK_NAME, ExportError, ExportOptions, Precision, export
from anyseg_core.runtime.engines.onnx import OnnxEngine
from anyseg_core.runtime.model_card import load_card
from anyseg_core.training.checkpoint import load_model
from anyseg_core.training.loop import train


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    config = shapes_config(write_shapes(folder / "shapes"), data={"modalities": ["camera", "lidar"]})
    return train(config, folder / "run", show_progress=False)


@pytest.fixture(scope="module")
def student(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "_write_halves", lambda *_: None)  # which takes seconds; `test_export.py` has them
        export(checkpoint, folder)
    return folder


@pytest.fixture(autouse=True)
def _untrained_networks_are_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """After four steps many pixels are ties, which half precision breaks as it likes."""
    for precision in ("fp16", "bf16"):
        monkeypatch.setitem(export_module.MIN_AGREEMENT, precision, 0.9)


@pytest.fixture
def already_written(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests that end before the file matters its writing, which takes seconds."""

    def copy_file(_network: nn.Module, path: Path, *_others: object) -> None:
        shutil.copy(student / NETWORK_NAME, path)

    monkeypatch.setattr(export_module, "write_network", copy_file)


def networks_of(folder: Path) -> dict[str, onnx.ModelProto]:
    return {file.name: onnx.load(file) for file in sorted(folder.glob("*.onnx"))}


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)]
)
def test_a_half_precision_student_is_typed_so_in_the_file(
    checkpoint: Path, tmp_path: Path, precision: Precision, dtype: int
) -> None:
    card = export(checkpoint, tmp_path, options=ExportOptions(precision))
    network = networks_of(tmp_path)[NETWORK_NAME]
    weights = [tensor for tensor in network.graph.initializer if len(tensor.dims) > 1]
    types = {tensor.data_type for tensor in weights} - {onnx.TensorProto.INT64}
    assert types == {dtype}
    assert [i.type.tensor_type.elem_type for i in network.graph.input] == [
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT64,
    ]
    assert {o.type.tensor_type.elem_type for o in network.graph.output} == {onnx.TensorProto.UINT8}
    agreements = [v for k, v in card.training.metrics.items() if k.endswith("label_agreement")]
    assert len(agreements) == 1
    if precision == "fp16":  # onnxruntime's CPU provider does not run bf16
        assert OnnxEngine(tmp_path / NETWORK_NAME, threads=1).info.precision == "fp16"


@pytest.mark.usefixtures("already_written")
def test_half_precision_that_disagrees_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(export_module.MIN_AGREEMENT, "bf16", 1.01)
    with pytest.raises(ExportError, match="agree on only"):
        export(checkpoint, tmp_path / "student", options=ExportOptions("bf16"))
    assert not (tmp_path / "student").exists()


@pytest.fixture
def one_sensitive_layer(monkeypatch: pytest.MonkeyPatch) -> str:
    """Judging every layer takes seconds; `test_int8.py` does."""
    layer = "node_conv2d"
    monkeypatch.setattr(int8, "changes_by_layer", lambda *_: {layer: 1.0})
    return layer


@pytest.mark.usefixtures("already_written")
def test_int8_is_signed_symmetric_and_its_loss_on_the_card(
    checkpoint: Path, tmp_path: Path, one_sensitive_layer: str
) -> None:
    card = export(
        checkpoint, tmp_path, options=ExportOptions("int8", max_loss=100.0, calibration_samples=2, scoring_samples=2)
    )
    graph = networks_of(tmp_path)[NETWORK_NAME].graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    zero_points = [constants[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(zero_points) > 20
    reads = {node.name: node.input[0] for node in graph.node if node.op_type == "Conv"}
    assert not reads.pop(one_sensitive_layer).endswith("DequantizeLinear_Output")
    assert all(name.endswith("DequantizeLinear_Output") for name in reads.values())
    assert card.training.metrics["int8_layers_in_float"] == [one_sensitive_layer]
    assert all(point.dtype == np.int8 and not point.any() for point in zero_points)
    assert len(card.training.metrics["int8_miou_points_lost"]) == 3
    assert OnnxEngine(tmp_path / NETWORK_NAME, threads=1).info.precision == "int8"


@pytest.mark.usefixtures("already_written", "one_sensitive_layer")
def test_int8_that_loses_too_much_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"--max-loss(.|\n)*  camera\+lidar +[+-]"):
        export(
            checkpoint,
            tmp_path / "student",
            options=ExportOptions("int8", max_loss=-1000.0, calibration_samples=2, scoring_samples=2),
        )
    assert not (tmp_path / "student").exists()


@pytest.mark.usefixtures("already_written", "one_sensitive_layer")
def test_int8_whose_loss_cannot_be_told_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = [int8.SubsetLoss(subset, float("nan"), float("nan")) for subset in ((0,), (1,), (0, 1))]
    monkeypatch.setattr(int8, "subset_losses", lambda *_: unknown)
    with pytest.raises(ExportError, match="split val has no labelled pixel"):
        export(checkpoint, tmp_path / "student", options=ExportOptions("int8", calibration_samples=2))


def test_fixed_counts_give_a_network_per_number_of_sensors(checkpoint: Path, student: Path, tmp_path: Path) -> None:
    images = np.array(open_dataset(load_model(checkpoint)[1].config.data, "val")[0].images)
    export(checkpoint, tmp_path, options=ExportOptions(fixed_counts=True))
    networks = load_card(tmp_path).networks
    assert [spec.count for spec in networks] == [1, 2]
    dynamic = OnnxEngine(student / NETWORK_NAME, threads=1)
    for spec in networks:
        engine = OnnxEngine(tmp_path / spec.file, threads=1)
        subset = np.arange(spec.counts[0])
        expected = dynamic.run(images[subset], subset)[0]
        assert (engine.run(images[subset], subset)[0] == expected).mean() >= 0.999


def test_another_size_and_stride_are_those_of_the_written_student(checkpoint: Path, tmp_path: Path) -> None:
    card = export(checkpoint, tmp_path, options=ExportOptions(size=(32, 96), label_stride=4))
    assert (card.input_size, card.label_stride) == ((32, 96), 4)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 96, 3), np.uint8)
    labels, _ = OnnxEngine(tmp_path / NETWORK_NAME, threads=1).run(images, np.array([0, 1]))
    assert labels.shape == (32, 96)
    assert (labels.reshape(8, 4, 24, 4) == labels[::4, ::4].reshape(8, 1, 24, 1)).all()


@pytest.mark.parametrize(
    "options",
    [{"precision": "fp8"}, {"size": (30, 64)}, {"label_stride": 3}, {"scoring_samples": 0}, {"max_loss": float("nan")}],
    ids=str,
)
def test_unknown_export_options_are_refused_by_name(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ExportOptions(**options)
