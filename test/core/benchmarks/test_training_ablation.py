"""The table of methods at toy scale: planned, trained by real processes, gone on with, and summed up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from repository import REPOSITORY
from shapes_dataset import write_shapes
from typer.testing import CliRunner

from anyseg_core.benchmarks.ablation import SCORES_NAME, AblationError, load_plan, markdown, plan_runs, run_plan, table
from anyseg_core.training.config import ConfigError
from anyseg_ros.cli import app

SHIPPED = sorted((REPOSITORY / "config" / "train" / "ablation").glob("*.yaml"))


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    root = write_shapes(folder / "shapes", train=2, val=1, side=32)
    base = {
        "name": "base",
        "data": {"root": str(root), "cache": str(folder / "cache"), "size": [32, 32]},
        "model": {"head_width": 16, "label_stride": 2},
        "optim": {"batch_size": 2, "lr": 1e-3},
        "budget": {"max_steps": 1},
        "machine": {"accelerator": "cpu", "torch_threads": 1},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    plan = {
        "extends": "base.yaml",
        "teacher": "full",
        "split": "val",
        "variants": {
            "anyseg": {"method": {"name": "anyseg", "cmd": 0}},
            "full": {"method": {"anymodal_dropout": False}},
        },
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    return folder / "plan.yaml"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_plans_make_valid_runs_with_one_budget(path: Path) -> None:
    plan = load_plan(path, [])
    runs = plan_runs(plan, [1, 2, 3], Path("out"))
    assert len(runs) == 3 * len(plan.variants)
    assert all(run.config.budget == runs[0].config.budget for run in runs)
    assert all(run.config.data == runs[0].config.data for run in runs)
    for run in runs:
        teacher = plan.teacher_of(run.variant)
        of_this_table = Path("out") / f"{teacher}_seed{run.seed}"
        wanted = None if teacher is None else of_this_table if teacher in plan.variants else Path(teacher)
        assert getattr(run.config.method, "teacher", None) == wanted
        assert run.config.seed == run.seed


def test_there_are_shipped_plans() -> None:
    names = {"vehicle_sim", "vehicle_sim_small", "pothole", "pothole_small", "rgbd_sim", "rgbd_pothole"}
    assert {path.stem for path in SHIPPED} == names


def test_teachers_come_first_and_along(plan_file: Path) -> None:
    plan = load_plan(plan_file, ["optim.lr=0.5"])
    runs = plan_runs(plan, [1, 2], Path("out"), ["anyseg"])
    assert [(run.variant, run.seed) for run in runs] == [("full", 1), ("full", 2), ("anyseg", 1), ("anyseg", 2)]
    assert {run.config.optim.lr for run in runs} == {0.5}


def test_mistakes_in_a_plan_are_named(plan_file: Path) -> None:
    plan = load_plan(plan_file, [])
    with pytest.raises(ConfigError, match="unknown variant sorcery; known: anyseg, full"):
        plan_runs(plan, [1], Path("out"), ["sorcery"])
    with pytest.raises(ConfigError, match="needs a teacher"):
        plan_runs(plan.model_copy(update={"teacher": None}), [1], Path("out"))
    tree = yaml.safe_load(plan_file.read_text()) | {"teacher": "nobody"}
    bad = plan_file.with_name("bad.yaml")
    bad.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="teacher nobody is none of the variants"):
        load_plan(bad, [])


def test_the_command_trains_goes_on_and_prints_the_table(plan_file: Path, tmp_path: Path) -> None:
    words = ["bench", "methods", plan_file, "--out", tmp_path / "out", "--seeds", 1]
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    assert set(rows) == {"full", "anyseg"}
    assert rows["full"]["seeds"] == [1]
    assert len(rows["full"]) == 3 + 15  # seeds, mean, EMM, subsets
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert len(before) == 4  # networks and optimisers of two runs
    again = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was trained anew


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_failed_run_in_a_process_of_its_own_names_its_log(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plan = load_plan(plan_file, ["data.root=nowhere"])
    with pytest.raises(AblationError, match=r"full, seed 1 failed .*log\.txt\): error: no data at nowhere"):
        run_plan(plan, plan_runs(plan, [1], tmp_path), jobs=2)


def test_the_table_has_mean_and_spread_over_seeds(plan_file: Path, tmp_path: Path) -> None:
    runs = plan_runs(load_plan(plan_file, []), [1, 2, 3], tmp_path, ["full"])
    for run, value in zip(runs, (10.0, 20.0, 30.0), strict=True):
        run.folder.mkdir()
        scores = {"mean": value, "emm": value - 1, "miou": {"camera": value, "camera+depth": 2 * value}}
        (run.folder / SCORES_NAME).write_text(json.dumps(scores))
    rows = table(runs)
    assert rows["full"]["mean"] == {"mean": 20.0, "std": 10.0}
    assert rows["full"]["camera+depth"] == {"mean": 40.0, "std": 20.0}
    text = markdown(rows, "title")
    assert "| full | 3 | 20.0 ± 10.0 | 19.0 ± 10.0 | 20.0 ± 10.0 | 40.0 ± 20.0 |" in text
