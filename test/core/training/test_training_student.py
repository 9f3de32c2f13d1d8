"""A student with its teacher through the whole loop: killed and resumed, accumulated, on two processes, in bfloat16."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from shapes_dataset import shapes_config, write_shapes

from anyseg_core.training import loop
from anyseg_core.training.checkpoint import MODEL, CheckpointError, find_checkpoint, load_state, load_teacher
from anyseg_core.training.config import TrainConfig
from anyseg_core.training.loop import train

SIDE = 32
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=4, val=1, side=SIDE)


@pytest.fixture(scope="module")
def teacher(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's run of two steps."""
    run = tmp_path_factory.mktemp("runs") / "teacher"
    config = tiny(root, method={"anymodal_dropout": False}, budget={"max_steps": 2})
    train(config, run, show_progress=False)
    return run


def tiny(root: Path, **groups: dict) -> TrainConfig:
    """A run of a few steps; of an encoder that other processes know, too."""
    settings = {"data": {"size": [SIDE, SIDE]}, "record": {"checkpoint_steps": 2}} | groups
    return shapes_config(root, **settings | {"model": {"backbone": "mit_b0"} | groups.get("model", {})})


def student(root: Path, teacher: Path, **groups: dict) -> TrainConfig:
    return tiny(root, **({"method": {"name": "anyseg", "teacher": str(teacher)}} | groups))


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / MODEL)


def assert_same(first: Path, second: Path) -> None:
    """Equal to the last bit."""
    one, other = weights_of(first), weights_of(second)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


def start(config: TrainConfig, out: Path, file: Path, *arguments: str) -> subprocess.Popen[str]:
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "anyseg_core.training", str(file), "--out", str(out), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


@pytest.mark.slow
def test_a_student_killed_by_the_system_and_resumed_has_the_weights_of_an_unbroken_run(
    root: Path, teacher: Path, tmp_path: Path
) -> None:
    config = student(root, teacher, budget={"max_steps": 400})
    process = start(config, tmp_path / "run", tmp_path / "student.yaml")
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not list((tmp_path / "run").glob("checkpoints/step_*[0-9]")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no checkpoint in time"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    killed_at = load_state(find_checkpoint(tmp_path / "run")).step
    last = killed_at + 3  # a schedule of steps depends on its end, so both runs get this one
    budget = {"max_steps": 400}
    longer = student(root, teacher, budget=budget)
    with pytest.MonkeyPatch.context() as patch:
        _stop_at(patch, last)
        resumed = train(longer, tmp_path / "run", resume=True, show_progress=False)
        unbroken = train(longer, tmp_path / "unbroken", show_progress=False)
    assert load_state(resumed).step == load_state(unbroken).step == last
    assert_same(resumed, unbroken)


def _stop_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """End the loop after this step, as if the budget were used up, with the learning rates of the whole budget."""
    run_phase = loop._Trainer._run_phase

    def stop(trainer: loop._Trainer, *arguments: object) -> None:
        record = trainer._record

        def record_and_stop(*args: object) -> None:
            record(*args)  # type: ignore[arg-type]
            if trainer.state.step == step:
                raise StopIteration

        trainer._record = record_and_stop  # type: ignore[method-assign]
        with contextlib.suppress(StopIteration):
            run_phase(trainer, *arguments)  # type: ignore[arg-type]

    patch.setattr(loop._Trainer, "_run_phase", stop)


def test_the_same_seed_gives_the_same_student(root: Path, teacher: Path, tmp_path: Path) -> None:
    config = student(root, teacher, budget={"max_steps": 3})
    first, second = (train(config, tmp_path / name, show_progress=False) for name in "ab")
    assert_same(first, second)
    other = train(config.model_copy(update={"seed": 1}), tmp_path / "c", show_progress=False)
    assert not torch.equal(weights_of(first)["head.fuse.weight"], weights_of(other)["head.fuse.weight"])


def test_the_checkpoint_holds_the_student_alone_and_names_its_teacher(
    root: Path, teacher: Path, tmp_path: Path
) -> None:
    run = train(student(root, teacher, budget={"max_steps": 1}), tmp_path / "run", show_progress=False)
    assert weights_of(run).keys() == weights_of(find_checkpoint(teacher)).keys()
    state = load_state(run)
    assert state.teacher_sha256 == load_teacher(teacher, state)[1]


def test_a_teacher_that_went_on_learning_is_noticed(root: Path, teacher: Path, tmp_path: Path) -> None:
    own = tmp_path / "teacher"
    train(tiny(root, budget={"max_steps": 1}), own, show_progress=False)
    config = student(root, own, budget={"max_steps": 2})
    train(config, tmp_path / "run", show_progress=False)
    train(tiny(root, budget={"max_steps": 2}), own, resume=True, show_progress=False)
    with pytest.raises(CheckpointError, match="teacher_sha256"):
        train(config, tmp_path / "run", resume=True, show_progress=False)


def test_a_teacher_that_cannot_teach_is_named(root: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        train(student(root, tmp_path / "nowhere"), tmp_path / "run", show_progress=False)
    narrow = student(root, teacher, data={"size": [SIDE, SIDE], "modalities": ["camera", "lidar"]})
    with pytest.raises(CheckpointError, match=r"method\.teacher .* has other inputs"):
        train(narrow, tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_accumulated_batches_weigh_like_one_large_batch(root: Path, tmp_path: Path) -> None:
    """All modalities, no randomness: two batches of two are one of four, but for batch norm, which is off here."""
    settings = {
        "method": {"anymodal_dropout": False, "loss": "cross_entropy"},
        "augment": {"hflip": 0.0, "scale": [1.0, 1.0], "jitter": 0.0, "blur": 0.0},
        "model": {"head_width": 16, "drop_path": 0.0, "dropout": 0.0},
        "budget": {"max_steps": 2},
    }
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.BatchNorm2d, "forward", lambda norm, x: x * norm.weight[:, None, None])
        for batch_size, accumulate in ((4, 1), (2, 2)):
            optim = {"batch_size": batch_size, "accumulate": accumulate, "lr": 1e-3}
            config = tiny(root, **settings, optim=optim)
            runs[accumulate] = weights_of(train(config, tmp_path / str(accumulate), show_progress=False))
    for key, value in runs[1].items():
        torch.testing.assert_close(
            value, runs[2][key], atol=2e-4, rtol=1e-2, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_bfloat16_trains_and_resumes(root: Path, teacher: Path, tmp_path: Path) -> None:
    machine = {"accelerator": "cpu", "torch_threads": 1, "precision": "bf16-mixed"}
    train(student(root, teacher, machine=machine, budget={"max_steps": 2}), tmp_path / "run", show_progress=False)
    longer = student(root, teacher, machine=machine, budget={"max_steps": 4})
    resumed = train(longer, tmp_path / "run", resume=True, show_progress=False)
    assert all(value.isfinite().all() for value in weights_of(resumed).values() if value.is_floating_point())


@pytest.mark.slow
def test_two_processes_train_one_student(root: Path, teacher: Path, tmp_path: Path) -> None:
    machine = {"accelerator": "cpu", "torch_threads": 1, "devices": 2}
    config = student(root, teacher, machine=machine, budget={"max_epochs": 2}, optim={"batch_size": 1, "lr": 1e-3})
    process = start(config, tmp_path / "run", tmp_path / "student.yaml")
    try:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    checkpoint = find_checkpoint(tmp_path / "run")
    assert load_state(checkpoint).step == 4  # two epochs of four samples, one per process and step
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["mean"] >= 0
