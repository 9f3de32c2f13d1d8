"""Training on a mixture from end to end, the terms of its data, and adaptation to another vehicle."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_mixture import write_mixture

from anyseg_core.data.datasets import named_parts
from anyseg_core.data.files import resize_nearest
from anyseg_core.data.folder import Folder, read_description
from anyseg_core.data.sample import DataError
from anyseg_core.data.scans import KITTI_CAMERA, KITTI_CAMERA_FROM_LIDAR
from anyseg_core.export import student as export_module
from anyseg_core.export.student import export
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.sample_folder import FolderDescription, RigSpec, write_description, write_sample
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.training.adaptation import LABELS, AdaptOptions, adapt, adapted_config, confident_labels
from anyseg_core.training.checkpoint import IMAGENET, CheckpointError, find_checkpoint, load_model, load_state
from anyseg_core.training.config import TrainConfig, parse_config, parse_data
from anyseg_core.training.evaluation_report import EvaluationOptions, evaluate_fully, write_report
from anyseg_core.training.loop import train

SIZE = (32, 64)


def config_of(root: Path) -> TrainConfig:
    """A training of two steps on the toy mixture, whose pictures forbid commercial use."""
    data = write_mixture(root)
    data["parts"][0] |= {"licence": "Toy pictures, research", "non_commercial": True}
    return parse_config(
        {
            "name": "toy",
            "data": data,
            "model": {"head_width": 16, "drop_path": 0.0, "dropout": 0.0},
            "method": {"name": "supervised", "loss": "cross_entropy", "class_balance": 0.3},
            "augment": {"undistorted": 0.5, "focus": 0.5, "crops": True},
            "optim": {"batch_size": 4},
            "budget": {"max_steps": 2},
            "machine": {"accelerator": "cpu", "torch_threads": 1},
        },
        "test",
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a short training on the mixture."""
    root = tmp_path_factory.mktemp("mixture")
    return train(config_of(root), root / "run", show_progress=False).parents[1]


@pytest.fixture
def own_frames(run: Path, tmp_path: Path) -> Path:
    """Unlabelled frames of another vehicle: two moments to train on, one to measure on."""
    state = load_state(find_checkpoint(run))
    root = tmp_path / "own"
    rng = np.random.default_rng(0)
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            picture = rng.integers(0, 255, (64, 128, 3), np.uint8)
            points = np.stack([rng.uniform(3, 30, 500), *rng.uniform(-3, 1, (2, 500)), rng.uniform(0, 1, 500)], axis=1)
            frames = [
                SensorFrame(Sensor.CAMERA, picture, 0),
                SensorFrame(Sensor.LIDAR, points.astype(np.float32), 0),
            ]
            write_sample(root / split / "drive", name, frames, None)
    rig = Rig(PinholeCamera(128, 64, 75.0, 75.0, 63.0, 30.0), KITTI_CAMERA_FROM_LIDAR)
    write_description(root, FolderDescription(classes=state.classes, inputs=state.inputs, rig=RigSpec.of(rig)))
    return root


def test_the_mixture_trains_and_its_terms_reach_the_card(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "_write_halves", lambda *_: None)  # which takes seconds, and the card names none
    state = load_state(find_checkpoint(run))
    assert set(state.metrics["miou"]) == {"pictures camera", "scans lidar"}
    assert set(state.metrics["ece"]) == set(state.metrics["miou"])
    card = export(run, tmp_path / "student")
    assert card.training.licence == "Toy pictures, research"
    assert card.training.non_commercial


def test_the_report_of_a_mixture_has_every_part_in_its_own_classes(run: Path, tmp_path: Path) -> None:
    evaluation = evaluate_fully(run, EvaluationOptions(pictures=2), show_progress=False)
    page = write_report(evaluation, tmp_path, "anyseg evaluate run").read_text()
    assert "pictures camera" in page
    assert "drivable" in page
    assert "Calibration" in page
    assert "Robustness" not in page
    text = (tmp_path / "report.md").read_text()
    assert "| pictures camera | IoU |" in text
    curve = evaluation.metrics["calibration"]["pictures camera"]
    assert sum(share for _, _, share in curve) == pytest.approx(1, abs=0.01)


def test_who_starts_from_bound_weights_is_bound(run: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "free").model_dump(mode="json")
    config["data"]["parts"][0] |= {"licence": "", "non_commercial": False}
    free = train(parse_config(config, "test"), tmp_path / "a", show_progress=False)
    assert load_state(free).licence == ""
    assert not load_state(free).non_commercial
    config["model"]["init_from"] = str(run)
    heir = load_state(train(parse_config(config, "test"), tmp_path / "b", show_progress=False))
    assert heir.licence == "Toy pictures, research"
    assert heir.non_commercial


def test_the_trusted_sensor_labels_what_it_is_confident_of(run: Path, own_frames: Path) -> None:
    model, state = load_model(find_checkpoint(run))
    frames = Folder(own_frames, "train", SIZE, labelled=False)
    everything = confident_labels(model, frames, 0, state, AdaptOptions(min_confidence=0.0))
    assert everything.shape == SIZE
    assert everything.max() < 19
    some = confident_labels(model, frames, 0, state, AdaptOptions(min_confidence=0.1))
    assert ((some == everything) | (some == 255)).all()
    assert (confident_labels(model, frames, 0, state, AdaptOptions(min_confidence=1.0)) == 255).all()
    by_lidar = confident_labels(model, frames, 0, state, AdaptOptions(trusted=(Sensor.LIDAR,), min_confidence=0.0))
    assert (by_lidar != everything).any()


def test_adaptation_labels_trains_and_says_before_and_after(run: Path, own_frames: Path, tmp_path: Path) -> None:
    options = AdaptOptions(unlabelled=own_frames, min_confidence=0.0, minutes=0.02, lr=1e-3)
    adapted = adapt(run, tmp_path / "out", options, show_progress=False)
    assert adapted.labelled_share == 1.0
    assert not list(own_frames.rglob("*_label.png"))  # the user's folder stays as it was
    assert len(list((tmp_path / "out" / LABELS).rglob("*_label.png"))) == 3
    names = {"own camera", "own lidar", "own camera+lidar", "pictures camera", "scans lidar"}
    assert set(adapted.before["miou"]) == names == set(adapted.after["miou"])
    assert adapted.before["accuracy"]["own camera"] == 100.0  # the labels are its own
    before, after = load_model(find_checkpoint(run))[0], load_model(adapted.checkpoint)[0]
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert any(moved)
    state = load_state(adapted.checkpoint)
    assert state.non_commercial
    assert [entry.name for entry in state.classes][:2] == ["road", "sidewalk"]


def test_a_few_labelled_frames_without_the_students_own_data(run: Path, own_frames: Path, tmp_path: Path) -> None:
    model, state = load_model(find_checkpoint(run))
    for split in ("train", "val"):
        frames = Folder(own_frames, split, SIZE, labelled=False)
        for index in range(len(frames)):
            labels = confident_labels(model, frames, index, state, AdaptOptions(min_confidence=0.0))
            labels = resize_nearest(labels, frames.picture_size(index))
            write_sample(own_frames / split / "drive", Path(frames.name(index)).name, [], labels)
    options = AdaptOptions(labelled=own_frames, minutes=0.01, rehearse=0.0)
    adapted = adapt(run, tmp_path / "out", options, show_progress=False)
    assert set(adapted.after["miou"]) == {"own camera", "own lidar", "own camera+lidar"}


def test_what_cannot_be_adapted_to_is_named(run: Path, own_frames: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to adapt to"):
        adapt(run, tmp_path / "a", AdaptOptions(), show_progress=False)
    with pytest.raises(DataError, match="has no depth, which the labels are to come from"):
        adapt(run, tmp_path / "b", AdaptOptions(own_frames, trusted=(Sensor.DEPTH,)), show_progress=False)
    shutil.rmtree(own_frames / "val")
    with pytest.raises(DataError, match="has no val"):
        adapt(run, tmp_path / "c", AdaptOptions(own_frames), show_progress=False)


def test_frames_encoded_otherwise_are_refused(run: Path, own_frames: Path, tmp_path: Path) -> None:
    state = load_state(find_checkpoint(run))
    other = state.inputs[1].encoding.model_copy(update={"max_intensity": 65535.0})
    inputs = (state.inputs[0], state.inputs[1].model_copy(update={"encoding": other}))
    rig = RigSpec.of(Rig(KITTI_CAMERA, KITTI_CAMERA_FROM_LIDAR))
    write_description(own_frames, FolderDescription(classes=state.classes, inputs=inputs, rig=rig))
    with pytest.raises(DataError, match="encodes lidar otherwise than the network to be adapted"):
        adapt(run, tmp_path / "out", AdaptOptions(own_frames), show_progress=False)


def labelled_copy(root: Path, own_frames: Path) -> Path:
    """The same frames, all of them road."""
    shutil.copytree(own_frames, root)
    for picture in root.rglob("*_camera.png"):
        write_sample(picture.parent, picture.name.removesuffix("_camera.png"), [], np.zeros((64, 128), np.uint8))
    return root


def test_a_network_that_began_with_published_weights_is_adapted_from_the_checkpoint_that_is_given(
    run: Path, own_frames: Path, tmp_path: Path
) -> None:
    checkpoint = find_checkpoint(run)
    state = load_state(checkpoint)
    began = state.config.model.model_copy(update={"pretrained": IMAGENET})
    began = state.model_copy(update={"config": state.config.model_copy(update={"model": began})})
    config = adapted_config(began, checkpoint, tmp_path, AdaptOptions(labelled=own_frames))
    assert config.model.pretrained is None
    assert config.model.init_from == checkpoint  # not the best one of its run
    assert config.model.init_head


def test_labels_of_other_classes_are_refused(run: Path, own_frames: Path, tmp_path: Path) -> None:
    labelled = labelled_copy(tmp_path / "labelled", own_frames)
    state = load_state(find_checkpoint(run))
    description = read_description(labelled)
    write_description(labelled, description.model_copy(update={"classes": state.classes[::-1]}))
    with pytest.raises(CheckpointError, match="labelled has the same classes in another order"):
        adapt(run, tmp_path / "out", AdaptOptions(own_frames, labelled), show_progress=False)
    data = {"kind": "folder", "root": str(labelled), "cache": None, "size": SIZE, "modalities": ["camera", "lidar"]}
    config = state.config.model_dump(mode="json") | {"data": data, "augment": {}}
    config["model"] |= {"init_from": str(run), "init_head": True}
    with pytest.raises(CheckpointError, match="labelled has the same classes in another order"):
        train(parse_config(config, "test"), tmp_path / "run", show_progress=False)


def test_parts_whose_folders_have_one_name_are_scored_apart(run: Path, own_frames: Path, tmp_path: Path) -> None:
    labelled = labelled_copy(tmp_path / "labelled" / "own", own_frames)
    unlabelled = shutil.copytree(own_frames, tmp_path / "unlabelled" / "own")
    options = AdaptOptions(unlabelled, labelled, min_confidence=0.0, minutes=0.01, rehearse=0.0)
    before = adapt(run, tmp_path / "out", options, show_progress=False).before["accuracy"]
    assert len(before) == 6
    assert before["unlabelled/own camera"] == 100.0  # the labels are its own
    assert before["labelled/own camera"] < 100.0


def test_a_part_has_a_name_of_its_own() -> None:
    parts = [{"kind": "folder", "root": root} for root in ("a/x", "b/x", "b/x", "c")]
    config = parse_data({"kind": "mixture", "root": "/data", "parts": parts})
    assert [name for name, _ in named_parts(config, "train")] == ["a/x", "b/x", "b/x 2", "data/c"]
    config = parse_data({"kind": "mixture", "root": "/data", "parts": parts[1:]})
    assert [name for name, _ in named_parts(config, "val")] == ["x", "x 2", "c"]
