"""A training that one can watch: curves, pictures, how long it takes, the best network kept, and what to do next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from shapes_dataset import shapes_config, write_shapes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from anyseg_core.training import loop
from anyseg_core.training.checkpoint import (
    BEST,
    STATE,
    CheckpointError,
    best_score,
    find_checkpoint,
    load_state,
    mark_best,
    newest_checkpoint,
)
from anyseg_core.training.evaluation_plots import letters
from anyseg_core.training.loop import minutes, train
from anyseg_core.training.run_log import HISTORY_NAME, METRICS_NAME, RunLog, read_history
from anyseg_ros.cli import app

SCORES = (10.0, 30.0, 20.0, 25.0)
"""Of the validations of a run: the second is the best."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=2, val=2)


def two_sensors(root: Path, **groups: dict[str, object]) -> dict[str, dict[str, object]]:
    return {"data": {"modalities": ["camera", "depth"]}, "record": {"validations": 4}} | groups


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations give `SCORES`, one after the other."""
    scores = iter(SCORES)
    monkeypatch.setattr(loop._Trainer, "_validate_here", lambda *_: next(scores))


def test_the_best_network_is_the_result_of_a_run(root: Path, tmp_path: Path, scripted: None) -> None:
    config = shapes_config(root, **two_sensors(root, record={"validations": 4, "checkpoint_steps": 1}))
    best = train(config, tmp_path / "run", show_progress=False)
    assert best.name == "step_00000002"
    assert find_checkpoint(tmp_path / "run") == best
    assert best_score(tmp_path / "run") == 30.0
    assert newest_checkpoint(tmp_path / "run").name == "step_00000004"
    assert load_state(best).metrics == json.loads((tmp_path / "run" / METRICS_NAME).read_text())
    assert not load_state(newest_checkpoint(tmp_path / "run")).metrics


def test_a_resumed_run_goes_on_from_its_newest_and_keeps_its_best(root: Path, tmp_path: Path, scripted: None) -> None:
    groups = two_sensors(root, record={"validate_steps": 1, "checkpoint_steps": 1})
    train(shapes_config(root, **groups, budget={"max_steps": 3}), tmp_path / "run", show_progress=False)
    resumed = train(shapes_config(root, **groups), tmp_path / "run", resume=True, show_progress=False)
    assert resumed.name == "step_00000002"
    assert newest_checkpoint(tmp_path / "run").name == "step_00000004"


def test_a_score_that_is_no_number_is_never_the_best(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop._Trainer, "_validate_here", lambda *_: float("nan"))
    config = shapes_config(root, **two_sensors(root, budget={"max_steps": 1}))
    assert train(config, tmp_path / "run", show_progress=False).name == "step_00000001"
    assert best_score(tmp_path / "run") == float("-inf")


def test_a_network_of_all_sensors_is_chosen_by_what_it_makes_of_all(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter(
        [(50.0, 10.0), (20.0, 40.0), (10.0, 30.0), (5.0, 20.0), (5.0, 20.0)]
    )  # the mean falls, all at its best

    def scored(*_: object) -> tuple[dict[str, object], dict[str, object]]:
        mean, everything = next(scores)
        return {"mean": mean, "miou": {"camera": mean, "camera+depth": everything}, "iou": {}}, {}

    monkeypatch.setattr(loop._Trainer, "_score", scored)
    record: dict[str, object] = {"validations": 4, "checkpoint_steps": 1}
    settings = two_sensors(root, record=record, method={"name": "supervised", "anymodal_dropout": False})
    best = train(shapes_config(root, **settings), tmp_path / "run", show_progress=False)
    assert best.name == "step_00000002"
    assert best_score(tmp_path / "run") == 40.0


def test_a_damaged_mark_of_the_best_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step_00000001"
    folder.mkdir(parents=True)
    mark_best(folder, 1.0)
    assert best_score(tmp_path) == 1.0
    (folder.parent / BEST).write_text('{"checkpoint": "step_00000001", "mean": 2.0}')
    assert best_score(tmp_path) == 2.0, "a run of an older version"
    (folder.parent / BEST).write_text('{"checkpoint"')
    with pytest.raises(CheckpointError, match=BEST):
        find_checkpoint(tmp_path)


def test_a_best_checkpoint_that_is_gone_is_named_and_another_is_chosen(tmp_path: Path) -> None:
    for step in (1, 2):
        folder = tmp_path / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        (folder / STATE).write_text("{}")
    mark_best(folder, 90.0)
    assert find_checkpoint(tmp_path) == folder
    folder.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="names step_00000002, which is not there"):
        find_checkpoint(tmp_path)
    assert best_score(tmp_path) == float("-inf")  # a resumed run marks the next one
    (folder.parent / BEST).unlink()
    assert find_checkpoint(tmp_path).name == "step_00000001"


def test_tensorboard_and_the_history_have_every_validation(root: Path, tmp_path: Path) -> None:
    train(shapes_config(root, **two_sensors(root)), tmp_path / "run", show_progress=False)
    log = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert {"val_miou/mean", "val_miou/camera", "val_miou/depth", "val_miou/camera+depth"} <= set(log.Tags()["scalars"])
    assert any(name.startswith("val_iou/") for name in log.Tags()["scalars"])
    assert [event.step for event in log.Scalars("val_miou/mean")] == [1, 2, 3, 4]
    assert "confusion" in log.Tags()["images"]
    assert len([name for name in log.Tags()["images"] if name.startswith("samples/")]) == 2
    history = read_history(tmp_path / "run")
    assert [entry["step"] for entry in history] == [1, 2, 3, 4]
    assert history[-1]["mean"] == pytest.approx(log.Scalars("val_miou/mean")[-1].value, abs=0.01)


def test_what_was_written_after_the_resumed_step_is_forgotten(tmp_path: Path) -> None:
    first = RunLog(tmp_path, 0)
    for step in (1, 2, 3):
        first.validation({"mean": 1.0, "miou": {}, "iou": {}}, step, 1.0)
    first.close()
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "mea')  # a kill in the middle of a line
    RunLog(tmp_path, 2).close()
    assert [entry["step"] for entry in read_history(tmp_path)] == [1, 2]


def test_the_commands_say_how_long_it_takes_and_what_comes_next(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(shapes_config(root, **two_sensors(root)).model_dump(mode="json")))
    run = tmp_path / "a run"
    trained = CliRunner().invoke(app, ["train", str(config), "--out", str(run)])
    assert trained.exit_code == 0, trained.output
    assert "the budget is for about 4 steps" in trained.output
    assert f"tensorboard --logdir '{run}'" in trained.output
    assert "step 2, 50 %" in trained.output
    assert " left: mean mIoU" in trained.output
    assert f"anyseg evaluate '{run}' --out '{run / 'report'}'" in trained.output
    assert f"anyseg export '{run}'" in trained.output
    evaluated = CliRunner().invoke(app, ["evaluate", str(run), "--out", str(run / "report")])
    assert f"anyseg export '{run}'" in evaluated.output
    page = (run / "report" / "report.html").read_text()
    assert "What is taken for what" in page
    assert "During the training" in page
    assert page.count('src="data:image/png;base64,') == 8  # bars, heat, calibration, confusion, two curves, two samples


def test_a_long_budget_is_not_warned_of(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class StoppedError(Exception):
        pass

    trainer = loop._Trainer
    config = shapes_config(root, **two_sensors(root, budget={"max_steps": 5000}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_is_validation_due", lambda self, _: stop_at(self, 4, StoppedError))
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run", show_progress=False)
    assert "budget" not in capsys.readouterr().err


def stop_at(trainer: loop._Trainer, step: int, error: type[Exception]) -> bool:
    if trainer.state.step >= step:
        raise error
    return False


def test_durations_are_told_in_fitting_units() -> None:
    assert [minutes(s) for s in (3, 89, 90, 3600, 7200)] == ["3 s", "89 s", "2 min", "60 min", "2.0 h"]


def test_sensors_of_any_name_have_a_short_form() -> None:
    assert letters("camera+depth") == "CD"
    assert letters("camera+thermal") == "C+thermal"


def test_a_damaged_history_costs_its_lines_and_not_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"step": 1, "elapsed_s": 1.0, "mean": 5.0, "miou": {"camera": 5.0}, "iou": {}}
    whole = json.dumps(entry).encode()
    (tmp_path / HISTORY_NAME).write_bytes(b"\xff\n7\n{}\n" + whole + b"\n" + whole[:20])
    log = RunLog(tmp_path, 3)
    log.close()
    assert "4 of 5 lines" in capsys.readouterr().err
    assert read_history(tmp_path) == [entry]
    assert not capsys.readouterr().err
    (tmp_path / HISTORY_NAME).write_bytes(b"")
    assert read_history(tmp_path) == []
