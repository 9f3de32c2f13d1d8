"""The loop learns, resumes to the bit, and scores subsets as separate runs would."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from shapes_dataset import SIDE, shapes_config, toy_encoder, write_png, write_shapes
from typer.testing import CliRunner

from anyseg_core.data.datasets import open_dataset
from anyseg_core.methods.losses import hard_example_mean, pixel_cross_entropy
from anyseg_core.methods.supervised import balance_weights, draw_subsets
from anyseg_core.models.anymodal import select_present
from anyseg_core.models.base import all_subsets
from anyseg_core.runtime.model_card import CARD_NAME
from anyseg_core.runtime.sensors import DEFAULT_SENSORS
from anyseg_core.training import checkpoint as checkpoint_module
from anyseg_core.training import loop
from anyseg_core.training.batches import Batches
from anyseg_core.training.checkpoint import (
    MODEL,
    OPTIMIZER,
    CheckpointError,
    find_checkpoint,
    init_encoder,
    load_anymodal,
    save_checkpoint,
)
from anyseg_core.training.evaluation import decide_labels, evaluate, subset_logits, subset_name
from anyseg_core.training.loop import TrainingError, make_optimizer, train
from anyseg_core.training.run_log import METRICS_NAME
from anyseg_ros.cli import app


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a short run with every random part on."""
    return train(shapes_config(root), tmp_path_factory.mktemp("runs") / "whole", show_progress=False)


class KilledError(Exception):
    """Stands for a kill in the middle of a run."""


@pytest.mark.parametrize("killed_at", [2, 3], ids=["at_a_checkpoint", "between_checkpoints"])
def test_a_killed_and_resumed_run_gives_the_same_weights(
    root: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    config = shapes_config(root, record={"checkpoint_steps": 2})
    record = loop._Trainer._record

    def record_then_die(trainer: loop._Trainer, *args: object) -> None:
        record(trainer, *args)  # type: ignore[arg-type]
        if trainer.state.step == killed_at:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(loop._Trainer, "_record", record_then_die)
        with pytest.raises(KilledError):
            train(config, tmp_path / "run", show_progress=False)
    assert find_checkpoint(tmp_path / "run").name == "step_00000002"
    resumed = train(config, tmp_path / "run", resume=True, show_progress=False)
    unbroken, continued = load_file(trained / MODEL), load_file(resumed / MODEL)
    assert unbroken.keys() == continued.keys()
    for key, value in unbroken.items():
        assert torch.equal(value, continued[key]), key


def test_training_lowers_the_loss(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    record = loop._Trainer._record
    monkeypatch.setattr(
        loop._Trainer, "_record", lambda self, named, *rest: (losses.append(named["sup"]), record(self, named, *rest))
    )
    config = shapes_config(
        root,
        model={"drop_path": 0.0, "dropout": 0.0},
        method={"loss": "cross_entropy"},
        augment={"scale": [1.0, 1.0], "jitter": 0.0, "blur": 0.0},
        optim={"lr": 3e-3, "batch_size": 4},
        budget={"max_steps": 40, "resolution_schedule": [[0.0, 32], [0.5, 64]]},
    )
    train(config, tmp_path / "run", show_progress=False)
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_a_run_that_diverges_ends_with_its_step_and_keeps_its_checkpoint(
    root: Path, tmp_path: Path, max_grad_norm: float | None
) -> None:
    optim = {"lr": 1e25, "warmup": 0.0, "batch_size": 2, "max_grad_norm": max_grad_norm}
    config = shapes_config(root, optim=optim, record={"checkpoint_steps": 1}, budget={"max_steps": 9})
    with pytest.raises(TrainingError, match=r"run, step [1-8]: .*optim\.lr"):
        train(config, tmp_path / "run", show_progress=False)
    assert load_anymodal(find_checkpoint(tmp_path / "run"))


def test_the_run_leaves_metrics_of_every_subset(trained: Path) -> None:
    metrics = json.loads((trained.parents[1] / METRICS_NAME).read_text())
    assert len(metrics["miou"]) == 15
    assert metrics["mean"] == pytest.approx(np.mean(list(metrics["miou"].values())), abs=0.01)
    assert load_anymodal(trained)[1].metrics == metrics
    assert list((trained.parents[1] / "tensorboard").iterdir())


def written_parameters(checkpoint: Path) -> int:
    return sum(parameter.numel() for parameter in load_anymodal(checkpoint)[0].parameters())


def test_evaluating_a_checkpoint_again_gives_the_same_scores(trained: Path) -> None:
    written = json.loads((trained.parents[1] / METRICS_NAME).read_text())
    assert written.pop("cost")["deployed_parameters"] == written_parameters(trained)
    assert evaluate(trained) == written


@pytest.mark.parametrize("missing", ["remove", "zero"])
@torch.no_grad()
def test_shared_encoding_scores_as_separate_runs_do(trained: Path, root: Path, missing: str) -> None:
    model, _ = load_anymodal(trained)
    model.missing = missing  # type: ignore[assignment]
    images = torch.from_numpy(np.array(open_dataset(shapes_config(root).data, "val")[0].images))
    for subset, logits in subset_logits(model, images):
        present = torch.zeros(1, 4, dtype=torch.bool)
        present[0, list(subset)] = True
        torch.testing.assert_close(logits, model(select_present(images[None], present)), atol=1e-4, rtol=1e-3)


def test_subsets_come_in_the_order_of_the_tables() -> None:
    letters = ["".join("RDEL"[index] for index in subset) for subset in all_subsets(4)]
    assert letters == ["R", "D", "E", "L", "RD", "RE", "RL", "DE", "DL", "EL", "RDE", "RDL", "REL", "DEL", "RDEL"]
    assert subset_name((0, 3), DEFAULT_SENSORS) == "camera+lidar"


def test_a_run_is_not_overwritten(trained: Path, root: Path) -> None:
    with pytest.raises(CheckpointError, match="--resume"):
        train(shapes_config(root), trained.parents[1], show_progress=False)


def test_resuming_another_run_is_refused(trained: Path, root: Path) -> None:
    other = shapes_config(root, model={"head_width": 24})
    with pytest.raises(CheckpointError, match="model differ"):
        train(other, trained.parents[1], resume=True, show_progress=False)


def test_damaged_checkpoints_are_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find_checkpoint(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    weights = load_file(copy / MODEL)
    weights.pop("head.fuse.weight")
    save_file(weights, copy / MODEL)
    with pytest.raises(CheckpointError, match=r"head\.fuse\.weight"):
        load_anymodal(copy)
    (copy / MODEL).write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_anymodal(copy)
    (copy / "state.json").write_bytes((copy / "state.json").read_bytes()[:100])
    with pytest.raises(
        CheckpointError, match=r"state\.json cannot be used: .*remove .*copy, and the one before is taken"
    ):
        load_anymodal(copy)


def test_a_damaged_optimiser_is_named(trained: Path, root: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained.parents[1], tmp_path / "run")
    (run / "checkpoints" / trained.name / OPTIMIZER).write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors is damaged"):
        train(shapes_config(root), run, resume=True, show_progress=False)


def test_a_kill_while_a_checkpoint_is_replaced_does_not_cost_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(trained.parents[1], tmp_path / "run")
    model, state = load_anymodal(trained)

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KilledError):
            save_checkpoint(run, state, model, None)
    load_anymodal(find_checkpoint(run))
    saved = save_checkpoint(run, state, model, None)
    assert [path.name for path in saved.parent.iterdir()] == [trained.name]


def test_a_full_disk_is_told(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    model, state = load_anymodal(trained)
    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(OSError, match=r"model\.safetensors cannot be written: No space left"):
        save_checkpoint(tmp_path, state, model, None)


def test_a_run_that_cannot_be_written_ends_the_command_with_the_reason(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "shapes.yaml"
    config.write_text(yaml.safe_dump(shapes_config(root).model_dump(mode="json")))
    done = CliRunner().invoke(app, ["train", str(config), "--out", str(config / "run")])
    assert done.exit_code == 2
    assert f"cannot be written: {config} is a file" in done.stderr


def test_a_machine_that_is_not_there_is_named(root: Path, tmp_path: Path) -> None:
    config = shapes_config(root, machine={"accelerator": "abacus"})
    with pytest.raises(TrainingError, match="abacus"):
        train(config, tmp_path / "run", show_progress=False)


def test_a_damaged_student_to_start_from_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / CARD_NAME).write_text("{}")
    config = shapes_config(root, model={"init_from": str(tmp_path)})
    with pytest.raises(CheckpointError, match="not a valid model card"):
        train(config, tmp_path / "run", show_progress=False)


def test_labels_without_a_class_and_data_that_has_changed_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_shapes(tmp_path / "shapes")
    config = shapes_config(root, budget={"max_steps": 1})
    train(config, tmp_path / "run", show_progress=False)
    assert "labelled pixel" not in capsys.readouterr().err
    (root / "semantic/sun/train/MAP_1_point0/000005_semantic_front.png").unlink()
    for path in (root / "semantic/sun/val").rglob("*.png"):
        write_png(path, np.zeros((SIDE, SIDE, 3), np.uint8))
    train(config, tmp_path / "run", resume=True, show_progress=False)
    told = capsys.readouterr().err
    assert "has no labelled pixel" in told
    assert "was begun with" in told
    assert "6 samples" in told
    assert "5 samples" in told


def test_as_many_samples_that_are_others_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_shapes(tmp_path / "shapes")
    config = shapes_config(root, budget={"max_steps": 1}, data={"cache": None})
    train(config, tmp_path / "run", show_progress=False)
    train(config, tmp_path / "run", resume=True, show_progress=False)
    assert "begun with" not in capsys.readouterr().err
    for split, says in (("train", "split train, are not those"), ("val", "chosen on other samples")):
        label = root / f"semantic/sun/{split}/MAP_1_point0/000001_semantic_front.png"
        write_png(label, np.ones((SIDE, SIDE, 3), np.uint8))
        train(config, tmp_path / "run", resume=True, show_progress=False)
        assert says in capsys.readouterr().err


def test_the_encoder_can_start_from_a_checkpoint(trained: Path) -> None:
    source, _ = load_anymodal(trained)
    target, _ = load_anymodal(trained)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    words = init_encoder(target.encoder, trained.parents[1], toy_encoder())
    assert "encoder of shapes, step 4, trained on camera, depth, event, lidar and 25 classes" in words
    torch.testing.assert_close(dict(target.encoder.state_dict()), dict(source.encoder.state_dict()))
    assert not target.head.fuse.weight.any()


def two_classes(root: Path) -> Path:
    """A data set of two classes and the camera alone."""
    for split in ("train", "val"):
        for index in range(2):
            write_png(root / split / "a" / f"{index}_camera.png", np.full((SIDE, SIDE, 3), 60 * index, np.uint8))
            labels = np.zeros((SIDE, SIDE), np.uint8)
            labels[:, SIDE // 2 :] = 1
            assert cv2.imwrite(str(root / split / "a" / f"{index}_label.png"), labels)
    about = {
        "classes": [{"name": "road", "color": [1, 2, 3]}, {"name": "pothole", "color": [200, 2, 3]}],
        "inputs": [{"modality": "camera", "encoding": {"kind": "rgb"}, "mean": [0.5] * 3, "std": [0.25] * 3}],
    }
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def test_going_on_with_other_classes_has_a_new_head_or_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"kind": "folder", "root": str(two_classes(tmp_path / "data")), "train_split": "train", "val_split": "val"}
    run = str(trained.parents[1])
    config = shapes_config(Path(data["root"]), data=data, model={"init_from": run}, budget={"max_steps": 1})
    train(config, tmp_path / "encoder", show_progress=False)
    assert "trained on camera, depth, event, lidar and 25 classes; the rest of the network is new" in (
        capsys.readouterr().err
    )
    config = shapes_config(Path(data["root"]), data=data, model={"init_from": run, "init_head": True})
    with pytest.raises(CheckpointError, match="does not hold the weights of this network"):
        train(config, tmp_path / "whole", show_progress=False)


def test_wrong_encoder_weights_are_named(trained: Path, tmp_path: Path) -> None:
    rubbish = tmp_path / "mit.pth"
    rubbish.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match=r"mit\.pth"):
        init_encoder(load_anymodal(trained)[0].encoder, rubbish, toy_encoder())


def test_biases_and_norms_are_not_decayed(trained: Path) -> None:
    model, state = load_anymodal(trained)
    decayed, free = make_optimizer(model, state.config.optim).param_groups
    assert decayed["weight_decay"] == 0.01
    assert free["weight_decay"] == 0.0
    assert {parameter.ndim for parameter in free["params"]} == {1}
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_every_sample_comes_once_per_epoch_whatever_the_processes(root: Path) -> None:
    config = shapes_config(root)
    dataset = open_dataset(config.data, "train")  # 6 samples
    ranks = [Batches(dataset, (SIDE, SIDE), 1, config.augment, seed=1, rank=rank, world=2) for rank in range(2)]
    epochs = [
        [index for step in steps for b in ranks for index in b.indices(step)] for steps in (range(3), range(3, 6))
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(6))] * 2
    assert epochs[0] != epochs[1]


def test_a_batch_depends_on_its_step_alone(root: Path) -> None:
    config = shapes_config(root)
    batches = Batches(open_dataset(config.data, "train"), (32, 32), 2, config.augment, label_stride=2, seed=1)
    first, again, other = batches[5], batches[5], batches[6]
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)
    assert first.images.shape == (2, 4, 32, 32, 3)
    assert first.labels.shape == (2, 16, 16)


def test_anymodal_dropout_draws_sizes_and_subsets_evenly() -> None:
    torch.manual_seed(0)
    subsets = draw_subsets(40_000, 4)
    sizes = subsets.sum(dim=1)
    assert sizes.min() == 1
    np.testing.assert_allclose(torch.bincount(sizes)[1:] / 40_000, 0.25, atol=0.01)
    pairs = Counter(tuple(row) for row in subsets[sizes == 2].int().tolist())
    assert len(pairs) == 6
    np.testing.assert_allclose(np.array(list(pairs.values())) / (sizes == 2).sum().item(), 1 / 6, atol=0.015)


def test_cross_entropy_ignores_unlabelled_pixels() -> None:
    logits = torch.randn(1, 2, 2, 3)
    labels = torch.tensor([[[0, 255], [2, 255]]])
    losses = pixel_cross_entropy(logits, labels)
    expected = -logits.log_softmax(dim=-1)[0, :, 0][[0, 1], [0, 2]]
    torch.testing.assert_close(losses, expected)


def test_hard_pixels_are_those_of_low_probability_and_never_too_few() -> None:
    losses = -torch.tensor([0.9, 0.8, 0.6, 0.1]).log()
    torch.testing.assert_close(hard_example_mean(losses, 0.7), losses[2:].mean())
    torch.testing.assert_close(hard_example_mean(losses, 0.05, min_share=0.5), losses[2:].mean())
    assert hard_example_mean(torch.zeros(0)) == 0


def test_class_weights_favour_the_rare_and_keep_the_scale() -> None:
    counts = torch.tensor([90, 10, 0])
    weights = balance_weights(counts, 0.5)
    assert weights[1] / weights[0] == pytest.approx(3.0)
    assert weights[2] == 0
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1.0)
    torch.testing.assert_close(balance_weights(counts, 0.0)[:2], torch.ones(2))


def test_labels_are_decided_on_the_grid_and_repeated() -> None:
    logits = torch.zeros(1, 2, 2, 3)
    logits[0, 0, 1, 2] = 5.0
    labels = decide_labels(logits, (8, 8), 2)
    assert labels.shape == (8, 8)
    np.testing.assert_array_equal(labels[::2, ::2], labels[1::2, 1::2])
    assert labels[1, 6] == 2
    assert labels[6, 1] == 0
