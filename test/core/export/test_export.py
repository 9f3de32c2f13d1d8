"""Export: the student is the trained network for every number of modalities, and nothing else leaves the house."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from repository import REPOSITORY
from shapes_dataset import SIDE, shapes_config, write_shapes

from anyseg_core.data.datasets import open_dataset
from anyseg_core.export import student as export_module
from anyseg_core.export.import_weights import import_weights
from anyseg_core.export.student import NETWORK_NAME, ExportError, _method_in_words, check_parity, export
from anyseg_core.models import student_weights
from anyseg_core.models.anymodal import AnymodalSegmenter, select_present, upsample_logits
from anyseg_core.models.base import all_subsets
from anyseg_core.models.encoders import build_encoder
from anyseg_core.models.network_file import write_network
from anyseg_core.models.student_network import StudentNetwork, interpolation_matrix
from anyseg_core.runtime.engines.onnx import OnnxEngine, OnnxPartsEngine
from anyseg_core.runtime.engines.protocol import EngineError, PartFiles
from anyseg_core.runtime.model_card import load_card
from anyseg_core.runtime.sensor_shares import shares_of
from anyseg_core.training.checkpoint import CheckpointError, init_encoder, load_anymodal, save_checkpoint
from anyseg_core.training.evaluation import subset_logits
from anyseg_core.training.loop import train

KINDS: dict[str, dict[str, Any]] = {
    "remove": {"model": {"backbone": "mit_b0", "drop_path": 0.0}},
    "zero": {"model": {"missing": "zero"}, "method": {"anymodal_dropout": False}},
    "gated": {"model": {"backbone": "efficientnet_lite0", "fusion": "gated", "drop_path": 0.0}},
}


@pytest.fixture(scope="module", autouse=True)
def probes_are_written_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A student is read by help of its network with known weights, which the exporter takes seconds to write."""
    folder = tmp_path_factory.mktemp("probes")

    def write_once(network: StudentNetwork, path: Path, size: tuple[int, int]) -> None:
        content = io.BytesIO()
        torch.save((network, size), content)
        written = folder / hashlib.sha256(content.getvalue()).hexdigest()
        if not written.exists():
            write_network(network, written, size)
        shutil.copy(written, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student_weights, "write_network", write_once)
        yield


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    config = shapes_config(write_shapes(folder / "shapes"), **KINDS[request.param])
    checkpoint = train(config, folder / "run", show_progress=False)
    if request.param == "gated":
        see_something(checkpoint)
    return checkpoint


@torch.no_grad()
def see_something(checkpoint: Path) -> None:
    """Batch norms that have met images, and gates that prefer something: four steps leave both about as they were."""
    model, state = load_anymodal(checkpoint)
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.momentum = 1.0
    dataset = open_dataset(state.config.data, "train")
    images = torch.from_numpy(np.stack([dataset[index].images for index in range(len(dataset))]))
    model.train()(select_present(images, torch.ones(images.shape[:2], dtype=torch.bool)))
    assert model.gates is not None
    for parameter in model.gates.parameters():
        parameter.normal_(std=0.3)
    model.head.classify.weight.normal_()
    save_checkpoint(checkpoint.parents[1], state, model, optimizer=None)


@pytest.fixture(scope="module")
def student(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    export(checkpoint, folder)
    return folder


def sample_of(checkpoint: Path) -> np.ndarray:
    return np.array(open_dataset(load_anymodal(checkpoint)[1].config.data, "val")[0].images)


@torch.no_grad()
def expected_of(model: AnymodalSegmenter, images: np.ndarray) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
    """Labels and confidence of every subset, straight from the definition."""
    answers = {}
    for subset, logits in subset_logits(model, torch.from_numpy(images)):
        probability, labels = upsample_logits(logits, (SIDE // 2, SIDE // 2))[0].softmax(dim=0).max(dim=0)
        repeated = [x.numpy().repeat(2, 0).repeat(2, 1) for x in (labels, 255 * probability)]
        answers[subset] = (repeated[0], repeated[1])
    return answers


def test_the_student_answers_as_the_network_does_on_every_subset(checkpoint: Path, student: Path) -> None:
    model, _ = load_anymodal(checkpoint)
    images = sample_of(checkpoint)
    engine = OnnxEngine(student / NETWORK_NAME, threads=1)
    for subset, (labels, confidence) in expected_of(model, images).items():
        got_labels, got_confidence = engine.run(images[list(subset)], np.array(subset))
        assert (got_labels == labels).mean() >= 0.999
        assert np.abs(got_confidence.astype(float) - confidence).max() <= 1.0
    assert len(expected_of(model, images)) == 15


def test_the_two_parts_answer_as_the_whole_and_borrow_its_weights(checkpoint: Path, student: Path) -> None:
    (network,) = load_card(student).networks
    if load_anymodal(checkpoint)[0].missing == "zero":
        assert network.parts is None
        return
    assert network.parts is not None
    encoder, decoder = (student / part.file for part in (network.parts.encoder, network.parts.decoder))
    assert encoder.stat().st_size + decoder.stat().st_size < (student / NETWORK_NAME).stat().st_size / 5
    engine, whole = (
        OnnxPartsEngine(PartFiles(encoder, decoder), threads=2),
        OnnxEngine(student / NETWORK_NAME, threads=1),
    )
    images = sample_of(checkpoint)
    for subset in all_subsets(len(images)):
        labels, confidence = engine.run(images[list(subset)], np.array(subset))
        expected, expected_confidence = whole.run(images[list(subset)], np.array(subset))
        assert (labels == expected).mean() >= 0.999
        assert np.abs(confidence.astype(int) - expected_confidence).max() <= 1
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(images[:1], np.array([0]))


def test_a_gated_student_tells_which_sensor_counts_where(checkpoint: Path, student: Path) -> None:
    model, images = load_anymodal(checkpoint)[0], sample_of(checkpoint)
    card = load_card(student)
    parts = card.networks[0].parts
    if model.gates is None:
        assert parts is None or parts.first_map is None
        return
    assert parts is not None
    assert parts.first_map is not None
    engine = OnnxPartsEngine(PartFiles(student / parts.encoder.file, student / parts.decoder.file), threads=1)
    features = [engine.encode(image, index).result().features for index, image in enumerate(images)]
    found = shares_of(features, card.modalities, parts.first_map)
    np.testing.assert_allclose(np.stack(list(found.values())), model.shares(torch.from_numpy(images)), atol=1e-4)
    assert np.ptp(found[card.modalities[0]]) > 0.01  # and they differ


def test_the_files_name_nothing_of_the_computer_that_exported(student: Path) -> None:
    for file in student.glob("*.onnx"):
        content = file.read_bytes()
        assert b"stack_trace" not in content
        assert str(REPOSITORY).encode() not in content


def test_the_order_of_the_modalities_does_not_matter(checkpoint: Path, student: Path) -> None:
    images = sample_of(checkpoint)
    engine = OnnxEngine(student / NETWORK_NAME, threads=1)
    forward, backward = (engine.run(images[order], order)[0] for order in (np.array([1, 3]), np.array([3, 1])))
    assert (forward == backward).mean() >= 0.999


def test_the_card_tells_where_the_student_comes_from(checkpoint: Path, student: Path) -> None:
    card = load_card(student)
    _, state = load_anymodal(checkpoint)
    assert card.input_size == (SIDE, SIDE)
    assert card.label_stride == 2
    assert card.inputs == state.inputs
    assert len(card.classes) == 25
    assert card.training.git_revision == state.git_revision
    assert card.training.metrics["onnx_label_agreement"] >= 0.999
    assert card.training.metrics["miou"] == state.metrics["miou"]
    assert "4 steps, 8 samples" in card.training.method


def test_batches_that_one_step_accumulates_count_as_seen(checkpoint: Path) -> None:
    _, state = load_anymodal(checkpoint)
    optim = state.config.optim.model_copy(update={"accumulate": 3})
    state = state.model_copy(update={"config": state.config.model_copy(update={"optim": optim})})
    assert "4 steps, 24 samples" in _method_in_words(state)


def test_a_student_becomes_a_run_again_that_computes_the_same(checkpoint: Path, student: Path, tmp_path: Path) -> None:
    """Also in training mode, about: batch norm, which the export has folded away, has fitting statistics again."""
    model, state = load_anymodal(checkpoint)
    images = torch.from_numpy(sample_of(checkpoint))
    again, imported = load_anymodal(import_weights(student, tmp_path / "run", state.config))
    if not model.mixes_images:  # no batch norm in it: its weights were not folded
        for key, value in model.encoder.state_dict().items():
            torch.testing.assert_close(again.encoder.state_dict()[key], value, atol=0, rtol=0, msg=key)
    with torch.no_grad():
        logits = dict(model.subset_logits(images))
        for subset, theirs in again.subset_logits(images):
            torch.testing.assert_close(theirs, logits[subset], atol=1e-3, rtol=1e-3)
    assert (imported.inputs, imported.classes) == (state.inputs, state.classes)
    assert again.head.norm.running_var is not None
    torch.testing.assert_close(again.head.norm.weight, (again.head.norm.running_var + again.head.norm.eps).sqrt())


def test_a_student_is_not_imported_with_data_of_fewer_sensors(checkpoint: Path, student: Path, tmp_path: Path) -> None:
    root = load_anymodal(checkpoint)[1].config.data.root
    config = shapes_config(root, data={"modalities": ["camera", "lidar"]})
    with pytest.raises(
        CheckpointError, match=r"is of camera, lidar; the network has learned camera, depth.* or set data\.modalities$"
    ):
        import_weights(student, tmp_path / "run", config)


def test_a_run_can_start_from_a_whole_network(checkpoint: Path, tmp_path: Path) -> None:
    model, state = load_anymodal(checkpoint)
    start = state.config.model.model_dump() | {"init_from": str(checkpoint), "init_head": True}
    config = shapes_config(state.config.data.root, model=start, optim={"lr": 1e-9})
    more, _ = load_anymodal(train(config, tmp_path, show_progress=False))
    for ours, theirs in zip(more.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_run_of_other_sensors_starts_from_a_students_encoder(
    checkpoint: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, state = load_anymodal(checkpoint)
    start = {"backbone": state.config.model.backbone, "init_from": str(student)}
    data = {"modalities": ["camera", "lidar"]}
    config = shapes_config(state.config.data.root, data=data, model=start, optim={"lr": 1e-9}, budget={"max_steps": 1})
    train(config, tmp_path / "run", show_progress=False)
    taken = build_encoder(state.config.model.backbone).eval()
    init_encoder(taken, student, state.config.model.backbone)
    images = torch.rand(1, SIDE, SIDE, 3)
    with torch.no_grad():
        for ours, theirs in zip(taken(images), model.encoder(images), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)
    assert "encoder of student shapes, trained on camera, depth, event, lidar and 25 classes" in capsys.readouterr().err
    whole = shapes_config(state.config.data.root, model=start | {"init_head": True})
    with pytest.raises(CheckpointError, match="import-weights"):
        train(whole, tmp_path / "whole", show_progress=False)


def test_a_student_of_another_network_is_refused(checkpoint: Path, student: Path, tmp_path: Path) -> None:
    config = load_anymodal(checkpoint)[1].config
    wider = config.model_copy(update={"model": config.model.model_copy(update={"head_width": 24})})
    with pytest.raises(CheckpointError, match="not the network of this config"):
        import_weights(student, tmp_path / "run", wider)
    with pytest.raises(CheckpointError, match="--config"):
        import_weights(student, tmp_path / "run")


def corrupt(path: Path) -> None:
    """Swap the rows of the classifier's matrix, as a broken conversion might."""
    network = onnx.load(path)
    for tensor in network.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.shape == (25, 16):
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[::-1]), tensor.name))
            onnx.save(network, path)
            return
    raise AssertionError("the classifier's matrix was not found")


def test_a_network_that_disagrees_is_refused(
    checkpoint: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_broken(_network: StudentNetwork, path: Path, _size: tuple[int, int], _count: int | None) -> None:
        shutil.copy(student / NETWORK_NAME, path)
        corrupt(path)

    monkeypatch.setattr(export_module, "write_network", write_broken)
    with pytest.raises(ExportError, match="agree on only"):
        export(checkpoint, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_parity_is_checked_against_the_unfolded_network(checkpoint: Path, student: Path) -> None:
    model, _ = load_anymodal(checkpoint)
    images = [sample_of(checkpoint)]
    engine = OnnxEngine(student / NETWORK_NAME, threads=1)

    def answer(images: np.ndarray, modality: np.ndarray) -> np.ndarray:
        return engine.run(images, modality)[0]

    assert check_parity(answer, model, images, 2) >= 0.999
    with torch.no_grad():
        model.head.classify.weight.copy_(model.head.classify.weight.flip(0))
    with pytest.raises(ExportError):
        check_parity(answer, model, images, 2)


def test_the_number_of_modalities_is_dynamic_and_everything_else_fixed(student: Path) -> None:
    session = onnxruntime.InferenceSession(str(student / NETWORK_NAME), providers=["CPUExecutionProvider"])
    images, modality = session.get_inputs()
    assert isinstance(images.shape[0], str)
    assert images.shape[1:] == [SIDE, SIDE, 3]
    assert modality.shape == [images.shape[0]]
    assert [output.shape for output in session.get_outputs()] == [[SIDE, SIDE]] * 2
    assert len(all_subsets(4)) == 15


def test_a_network_in_training_mode_is_refused(checkpoint: Path) -> None:
    model, _ = load_anymodal(checkpoint)
    with pytest.raises(ValueError, match="eval mode"):
        StudentNetwork(model.train(), (SIDE, SIDE), 2)


@pytest.mark.parametrize(("source", "target"), [(8, 64), (5, 10), (16, 16), (64, 32)])
def test_interpolation_matrices_are_torchs_bilinear_upsampling(source: int, target: int) -> None:
    x = torch.randn(1, 3, source, source)
    matrix = interpolation_matrix(source, target)
    expected = F.interpolate(x, size=(target, target), mode="bilinear", align_corners=False)
    torch.testing.assert_close(matrix @ x @ matrix.T, expected, atol=1e-5, rtol=1e-5)
