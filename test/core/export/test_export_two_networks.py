"""A student with a network per sensor: exported, refused where it must be, and run by the robot's own pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from shapes_dataset import SIDE, shapes_config, write_shapes
from small_bags import CAMERA, DEPTH, HEIGHT, WIDTH, drive, write_ros2

from anyseg_core.data.datasets import open_dataset
from anyseg_core.export.student import ExportError, ExportOptions, check_parity, export
from anyseg_core.models.anymodal import upsample_logits
from anyseg_core.models.student_network import UnimodalStudent
from anyseg_core.models.unimodal import UnimodalNetworks
from anyseg_core.runtime.engines.onnx import OnnxEngine
from anyseg_core.runtime.model_card import load_card
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.training.checkpoint import load_model
from anyseg_core.training.loop import train
from anyseg_ros.messages.conversions import camera_frame
from anyseg_ros.replay.mask_records import read_records
from anyseg_ros.replay.mask_scoring import mask_hash
from anyseg_ros.replay.offline import MASKS, ReplayOptions, replay

RGBD = {
    "data": {"modalities": ["camera", "depth"]},
    "model": {"backbone": "resnet18", "head_width": 16, "width": 0.125, "aspp_rates": [1, 2, 2], "label_stride": 2},
}
FILES = {"student_camera.onnx", "student_depth.onnx", "student_camera_depth.onnx"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def checkpoint(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = shapes_config(root, **RGBD, method={"name": "crodino_kd"}, augment_apart={})
    return train(config, tmp_path_factory.mktemp("runs") / "crodino", show_progress=False)


@pytest.fixture(scope="module")
def student(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    export(checkpoint, folder)
    return folder


@torch.no_grad()
def expected_of(checkpoint: Path, images: np.ndarray) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
    """Labels and 255 x confidence of every subset, from the trained networks."""
    model, _ = load_model(checkpoint)
    answers = {}
    for subset, logits in model.subset_logits(torch.from_numpy(images)):
        probability, labels = upsample_logits(logits, (SIDE // 2, SIDE // 2))[0].softmax(dim=0).max(dim=0)
        grids = [x.numpy().repeat(2, 0).repeat(2, 1) for x in (labels, 255 * probability)]
        answers[subset] = (grids[0], grids[1])
    return answers


def sample_of(checkpoint: Path) -> np.ndarray:
    return np.array(open_dataset(load_model(checkpoint)[1].config.data, "val")[0].images)


def test_a_network_per_sensor_and_one_for_both(student: Path) -> None:
    card = load_card(student)
    assert {network.file for network in card.networks} == FILES == {path.name for path in student.glob("*.onnx")}
    served = {network.file: (network.modalities, network.count) for network in card.networks}
    assert served["student_camera.onnx"] == ((Sensor.CAMERA,), 1)
    assert served["student_depth.onnx"] == ((Sensor.DEPTH,), 1)
    assert served["student_camera_depth.onnx"] == ((Sensor.CAMERA, Sensor.DEPTH), 2)
    assert card.training.metrics["onnx_label_agreement"] >= 0.999
    assert "crodino_kd, a network per modality; resnet18" in card.training.method


def test_what_only_training_needs_is_not_shipped(student: Path) -> None:
    names = [initializer.name for path in student.glob("*.onnx") for initializer in onnx.load(path).graph.initializer]
    assert names
    assert not any("auxiliary" in name for name in names)


def test_each_file_answers_as_the_trained_networks_do(checkpoint: Path, student: Path) -> None:
    images = sample_of(checkpoint)
    names = {(0,): "camera", (1,): "depth", (0, 1): "camera_depth"}
    engines = {subset: OnnxEngine(student / f"student_{name}.onnx", threads=1) for subset, name in names.items()}
    for subset, (labels, confidence) in expected_of(checkpoint, images).items():
        got, sure = engines[subset].run(images[list(subset)], np.array(subset))
        assert (got == labels).mean() >= 0.999
        assert np.abs(sure.astype(float) - confidence).max() <= 1.0
    forward, backward = (engines[0, 1].run(images[order], np.array(order))[0] for order in ([0, 1], [1, 0]))
    assert np.array_equal(forward, backward)


def test_weights_are_shipped_once(checkpoint: Path, student: Path) -> None:
    """Of each sensor's network the weights are in the file of both."""
    weights = 4 * load_model(checkpoint)[0].deployed_parameters()
    of_both = (student / "student_camera_depth.onnx").stat().st_size
    together = sum(path.stat().st_size for path in student.glob("*.onnx"))
    assert of_both > 0.9 * weights
    assert together - of_both < 0.5 * weights  # of a toy: its graphs count


def test_networks_that_were_swapped_are_refused(checkpoint: Path) -> None:
    """Parity is measured against the right sensor's network."""
    model, _ = load_model(checkpoint)
    assert isinstance(model, UnimodalNetworks)
    depth = UnimodalStudent(model, (SIDE, SIDE), 2, (1,)).eval()
    swapped = UnimodalStudent(model, (SIDE, SIDE), 2, (0,)).eval()
    images = [np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)]

    def answer(of: UnimodalStudent) -> float:
        run = lambda x, m: of(torch.from_numpy(x), torch.from_numpy(m))[0].numpy()  # noqa: E731
        return check_parity(run, model, images, 2, takes=lambda subset: subset == (1,))

    assert answer(depth) == 1.0
    with pytest.raises(ExportError, match=r"agree on only .* modalities \(1,\)"):
        answer(swapped)


def test_what_cannot_be_a_student_is_refused(root: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="int8 of a student with a network per sensor is not supported; choose fp16"):
        export(checkpoint, tmp_path / "int8", options=ExportOptions(precision="int8"))
    config = shapes_config(root, **RGBD, method={"name": "acnet"}, budget={"max_steps": 1})
    teacher = train(config, tmp_path / "run", show_progress=False)
    with pytest.raises(ExportError, match="trains a teacher that needs every sensor: export a pupil"):
        export(teacher, tmp_path / "teacher")
    assert not (tmp_path / "teacher").exists()


def test_the_pipeline_runs_the_network_whose_sensors_live(checkpoint: Path, student: Path, tmp_path: Path) -> None:
    """A bag through the node's own pipeline: both sensors, and each alone, get the masks of the trained networks."""
    written = list(drive(4, {CAMERA, DEPTH}))
    bag = write_ros2(tmp_path / "bag", written)
    replay(bag, tmp_path / "out", ReplayOptions(student=student, subsets=True))
    first = {record.scenario: record for record in reversed(list(read_records(tmp_path / "out" / MASKS)))}
    used = {scenario: record.used for scenario, record in first.items()}
    assert set(used.values()) == {(Sensor.CAMERA,), (Sensor.DEPTH,), (Sensor.CAMERA, Sensor.DEPTH)}
    segmenter = Segmenter.open(student, threads=1)
    frame = camera_frame(written[0].message)
    image = segmenter.network_image(frame)
    labels, _ = expected_of(checkpoint, np.stack([image, image]))[(0,)]
    alone = segmenter.segment({Sensor.CAMERA: frame})
    assert (alone.labels == labels).mean() >= 0.999
    (record,) = [record for record in first.values() if record.used == (Sensor.CAMERA,)]
    assert record.hash == mask_hash(alone.resized_labels(HEIGHT, WIDTH))
    assert len({record.hash for record in first.values()}) == 3
    segmenter.close()
