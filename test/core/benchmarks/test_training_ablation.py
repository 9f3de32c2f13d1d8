"""The table of methods at toy scale: planned, trained by real processes, gone on with, and summed up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from repository import REPOSITORY
from shapes_dataset import toy_encoder, write_shapes
from typer.testing import CliRunner

from anyseg_core.benchmarks import ablation
from anyseg_core.benchmarks.ablation import SCORES_NAME, AblationError, read_scores, run_plan
from anyseg_core.benchmarks.method_table import differences, markdown, table
from anyseg_core.benchmarks.plan import Plan, Run, load_plan, plan_runs
from anyseg_core.data.datasets import describe_data
from anyseg_core.data.sample import DataError
from anyseg_core.methods import METHODS, AnySegConfig, Batch
from anyseg_core.models.base import SegmentationModel
from anyseg_core.runtime.model_card import ClassSpec
from anyseg_core.training.checkpoint import CheckpointError, TrainingState, build_model
from anyseg_core.training.config import ConfigError
from anyseg_core.training.loop import CONFIG_NAME
from anyseg_core.training.run_log import METRICS_NAME, read_metrics
from anyseg_ros.cli import app

SHIPPED = sorted((REPOSITORY / "config" / "train" / "ablation").glob("*.yaml"))


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    root = write_shapes(folder / "shapes", train=2, val=1, side=32)
    base = {
        "name": "base",
        "data": {"root": str(root), "cache": str(folder / "cache"), "size": [32, 32]},
        "model": {"backbone": toy_encoder(), "head_width": 16, "label_stride": 2},
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
    assert len(runs) == 3 * len(plan.variants) * max(1, len(plan.folds))
    assert all(run.config.budget == runs[0].config.budget for run in runs)
    assert all(run.config.data == runs[0].config.data for run in runs if run.fold == runs[0].fold)
    assert len({(run.config.method.loss, run.config.method.class_balance) for run in runs}) == 1
    for run in runs:
        teacher = plan.teacher_of(run.variant)
        fold = f"_{run.fold}" if run.fold else ""
        of_this_table = Path("out") / f"{teacher}{fold}_seed{run.seed}"
        wanted = None if teacher is None else of_this_table if teacher in plan.variants else Path(teacher)
        assert getattr(run.config.method, "teacher", None) == wanted
        assert run.config.seed == run.seed


def test_there_are_shipped_plans() -> None:
    names = {
        "vehicle_sim",
        "vehicle_sim_lite",
        "vehicle_sim_small",
        "pothole",
        "pothole_small",
        "rgbd_sim",
        "rgbd_pothole",
    }
    names |= {"anyseg_claims", "crodino_claims", "crodino_claims_pothole"}
    assert {path.stem for path in SHIPPED} == names


def new_network(run: Run) -> SegmentationModel:
    """The network of a run before its first step, as the loop makes it, but for ImageNet weights."""
    inputs, classes = describe_data(run.config.data)
    named = tuple(ClassSpec(name=entry.name, color=entry.color) for entry in classes)
    state = TrainingState(config=run.config, inputs=inputs, classes=named, data="", git_revision="", command="")
    torch.manual_seed(run.seed)
    return build_model(state)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_all_variants_of_a_seed_start_from_the_same_weights(path: Path) -> None:
    """Of every part that networks of one kind share; what one has alone comes after that."""
    plan = load_plan(path, [])
    first: dict[tuple[str, ...], dict[str, torch.Tensor]] = {}
    for run in plan_runs(plan, [1], Path("out")):
        model, method = run.config.model, run.config.method
        if run.config.model.init_head or run.fold not in (None, next(iter(plan.folds), None)):
            continue
        kind = "anymodal" if method.network == "anymodal" else "acnet" if method.network == "acnet" else "unimodal"
        weights = new_network(run).state_dict()
        same = first.setdefault((kind, model.backbone), weights)
        shared = weights.keys() & same.keys()
        assert len(shared) >= len(same) - 2
        assert all(torch.equal(weights[name], same[name]) for name in shared), run.variant


def test_a_split_that_is_not_there_is_told_before_any_training(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "train", None)
    plan = load_plan(plan_file, []).model_copy(update={"split": "test"})
    with pytest.raises(DataError, match=r"no labels in .*/test"):
        run_plan(plan, [1], tmp_path)


@pytest.mark.parametrize("content", ["", '{"mean": 1', "[]", "\0"])
def test_damaged_files_of_a_run_are_named(plan_file: Path, tmp_path: Path, content: str) -> None:
    run = plan_runs(load_plan(plan_file, []), [1], tmp_path)[0]
    run.folder.mkdir()
    for name in (METRICS_NAME, SCORES_NAME, CONFIG_NAME):
        (run.folder / name).write_text(content)
    for read, name in (
        (lambda: read_metrics(run.folder), METRICS_NAME),
        (lambda: read_scores(run), SCORES_NAME),
        (lambda: ablation._is_done(run), CONFIG_NAME),
    ):
        with pytest.raises((CheckpointError, AblationError), match=f"{name} .*remove"):
            read()


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("name", ["anyseg_claims", "crodino_claims"])
def test_every_variant_of_the_claims_takes_a_step(name: str) -> None:
    """With its own network, its teacher's, and a loss of every term that its weights ask for."""
    plan = load_plan(REPOSITORY / "config" / "train" / "ablation" / f"{name}.yaml", [])
    runs = {run.variant: run for run in plan_runs(plan, [1], Path("out"))}
    modalities = len(runs["dropout" if "dropout" in runs else "single"].config.data.modalities)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, modalities, 64, 64, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(4).reshape(1, 2, 2).repeat(2, 1, 1).repeat_interleave(16, 1).repeat_interleave(16, 2)
    networks = {of: new_network(runs[of]) for variant in runs if (of := plan.teacher_of(variant))}
    for variant, run in runs.items():
        teacher = plan.teacher_of(variant)
        taught = {} if teacher is None else {"teacher": networks[teacher]}
        model = new_network(run).train()
        losses = METHODS[run.config.method.name](run.config.method, None, **taught).losses(model, Batch(images, labels))
        torch.stack(list(losses.values())).sum().backward()
        wanted = {term for term in ("mad", "umd", "cmd", "kd", "mgd") if getattr(run.config.method, term, 0)}
        assert wanted <= set(losses), variant
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(value.isfinite() for value in losses.values()), variant
        assert all(gradient.isfinite().all() for gradient in gradients), variant


def test_teachers_come_first_and_along(plan_file: Path) -> None:
    plan = load_plan(plan_file, ["optim.lr=0.5"])
    runs = plan_runs(plan, [1, 2], Path("out"), ["anyseg"])
    assert [(run.variant, run.seed) for run in runs] == [("full", 1), ("anyseg", 1), ("full", 2), ("anyseg", 2)]
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
    for key, value, words in (
        ("reference", "nobody", "reference nobody is none of the variants"),
        ("gate", {"teacher": "full", "student": "nobody"}, r"gate\.student nobody is none"),
        ("variants", {"one": {"continues": "two"}, "two": {"continues": "one"}, "full": {}}, "in a circle"),
        ("more", {"best": 0, "seeds": 1}, "no plan of an ablation: more.best: Input should be greater"),
    ):
        bad.write_text(yaml.safe_dump(yaml.safe_load(plan_file.read_text()) | {key: value}))
        with pytest.raises(ConfigError, match=words):
            load_plan(bad, [])


def test_the_command_trains_goes_on_and_prints_the_table(plan_file: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(plan_file.read_text())
    tree["variants"]["dropout"] = {}
    tree |= {"reference": "dropout", "gate": {"teacher": "full", "student": "dropout", "points": -100}}
    tree |= {"claims": [{"kind": "order", "figure": "mean", "of": ["dropout", "anyseg"]}], "notes": ["tiny"]}
    gated = plan_file.with_name("gated.yaml")
    gated.write_text(yaml.safe_dump(tree))
    words = ["bench", "methods", gated, "--out", tmp_path / "out", "--seeds", 2]
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    rows = table["rows"]
    assert set(rows) == {"full", "anyseg", "dropout"}
    assert rows["full"]["seeds"] == [1, 2]
    assert len(rows["full"]) == 3 + 15  # seeds, mean, EMM, subsets
    assert rows["full"]["mean"]["ci95"] is not None
    assert set(table["differences"]) == {"full", "anyseg"}
    assert "gate passed: teacher full" in table["notes"][0]
    assert table["claims"][0]["claim"] == "mean of dropout < anyseg"
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Paired differences from dropout" in text
    assert "- tiny" in text
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert len(before) == 12  # networks and optimisers of six runs
    again = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was trained anew


def test_a_table_that_cannot_be_written_is_told(plan_file: Path) -> None:
    words = ["bench", "methods", plan_file, "--out", plan_file, "--seeds", 1]  # a file is no folder
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 2
    assert "Not a directory" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_failed_run_in_a_process_of_its_own_names_its_log(
    plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plan = load_plan(plan_file, ["model.pretrained=nowhere.pth", "model.backbone=mit_b0"])
    with pytest.raises(AblationError, match=r"full, seed 1 failed .*log\.txt\): error: nowhere\.pth does not hold"):
        run_plan(plan, [1], tmp_path, jobs=2)


# --- what is decided on the way; training is replaced by made-up scores

Scores = Callable[[Run], dict[str, float]]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, Scores]]:
    """The runs in the order in which they are trained, and a place for the function that makes up their scores."""
    order: list[str] = []
    scores: dict[str, Scores] = {}

    def train(run: Run) -> Run:
        if not ablation._is_done(run):
            order.append(run.folder.name)
            run.folder.mkdir(parents=True)
            (run.folder / CONFIG_NAME).write_text(yaml.safe_dump(run.config.model_dump(mode="json")))
            miou = scores["of"](run)
            (run.folder / METRICS_NAME).write_text(json.dumps({"mean": sum(miou.values()) / len(miou), "miou": miou}))
        return run

    monkeypatch.setattr(ablation, "_train_here", train)
    return order, scores


def made_up_plan(plan_file: Path, **settings: Any) -> Plan:
    plan = load_plan(plan_file, [])
    variants = {
        "mad": {"method": {"name": "anyseg"}},
        "dropout": {},
        "full": {"method": {"anymodal_dropout": False}},
    }
    return Plan.model_validate(plan.model_dump() | {"variants": variants, "reference": "dropout"} | settings)


def spread(run: Run, level: float, step: float = 1.0) -> dict[str, float]:
    """Seeds differ by the same amount whatever the variant, so paired differences are sharp."""
    return {"camera": level - 5 + 10 * run.seed, "camera+depth": level + step * run.seed + 10 * run.seed}


def test_every_seed_is_finished_before_the_next_and_teachers_come_first(
    plan_file: Path, tmp_path: Path, trained: tuple[list[str], dict[str, Scores]]
) -> None:
    order, scores = trained
    scores["of"] = lambda run: spread(run, 40)
    run_plan(made_up_plan(plan_file), [1, 2], tmp_path, report=lambda _: None)
    assert order == [f"{name}_seed{seed}" for seed in (1, 2) for name in ("dropout", "full", "mad")]


def test_the_gate_trains_the_teacher_on_until_it_is_better_and_then_it_teaches(
    plan_file: Path, tmp_path: Path, trained: tuple[list[str], dict[str, Scores]]
) -> None:
    order, scores = trained
    levels = {"full": 40.0, "full_longer1": 41.0, "full_longer2": 42.0, "dropout": 40.0, "mad": 41.0}
    scores["of"] = lambda run: spread(run, levels[run.variant])
    plan = made_up_plan(plan_file, gate={"teacher": "full", "student": "dropout", "points": 1.5})
    done = run_plan(plan, [1, 2], tmp_path, report=lambda _: None)
    assert order[:4] == ["dropout_seed1", "full_seed1", "dropout_seed2", "full_seed2"]
    assert order[4:] == [*(f"full_longer{n}_seed{s}" for n in (1, 2) for s in (1, 2)), "mad_seed1", "mad_seed2"]
    longer, pupil = (next(run for run in done.runs if run.variant == name) for name in ("full_longer2", "mad"))
    assert longer.config.model.init_from == tmp_path / "full_longer1_seed1"
    assert longer.config.model.init_head
    assert isinstance(pupil.config.method, AnySegConfig)
    assert pupil.config.method.teacher == tmp_path / "full_longer2_seed1"
    assert "full_longer2" in done.notes[0]
    assert "+2.00" in done.notes[0]
    run_plan(plan, [1, 2], tmp_path, report=lambda _: None)
    assert len(order) == 10  # nothing again


def test_a_gate_that_stays_shut_ends_the_work_before_a_pupil_is_trained(
    plan_file: Path, tmp_path: Path, trained: tuple[list[str], dict[str, Scores]]
) -> None:
    order, scores = trained
    scores["of"] = lambda run: spread(run, 40)
    plan = made_up_plan(plan_file, gate={"teacher": "full", "student": "dropout", "rounds": 1})
    with pytest.raises(AblationError, match=r"stays shut after 1 more rounds .* \+0\.00, wanted \+2\.00\. Raise"):
        run_plan(plan, [1], tmp_path, report=lambda _: None)
    assert order == ["dropout_seed1", "full_seed1", "full_longer1_seed1"]
    assert run_plan(plan, [1], tmp_path, ["dropout"], report=lambda _: None).notes == []  # which no teacher teaches


def test_the_best_get_more_seeds_with_their_teachers_and_the_reference(
    plan_file: Path, tmp_path: Path, trained: tuple[list[str], dict[str, Scores]]
) -> None:
    order, scores = trained
    levels = {"full": 30.0, "dropout": 40.0, "mad": 41.0}
    scores["of"] = lambda run: spread(run, levels[run.variant])
    plan = made_up_plan(plan_file, more={"best": 1, "seeds": 2})
    done = run_plan(plan, [1, 2, 3], tmp_path, report=lambda _: None)
    assert order[9:] == [f"{name}_seed{seed}" for seed in (4, 5) for name in ("dropout", "full", "mad")]
    assert done.notes == ["2 more seeds, by the mean on val: mad"]
    rows = table(done.runs)
    assert rows["mad"]["seeds"] == [1, 2, 3, 4, 5]
    found = differences(rows, "dropout")["mad"]["mean"]
    assert found.estimate.units == 5
    assert found.estimate.mean == pytest.approx(1.0)


def test_a_folder_with_a_run_of_other_settings_is_not_taken_for_the_plans(
    plan_file: Path, tmp_path: Path, trained: tuple[list[str], dict[str, Scores]]
) -> None:
    _, scores = trained
    scores["of"] = lambda run: spread(run, 40)
    run_plan(made_up_plan(plan_file), [1], tmp_path, report=lambda _: None)
    other = load_plan(plan_file, ["optim.lr=0.5"])
    with pytest.raises(AblationError, match=r"full_seed1 holds a run with another optim than the plan says"):
        run_plan(other, [1], tmp_path, report=lambda _: None)


def test_folds_are_the_units_and_their_value_is_the_mean_over_seeds(
    plan_file: Path, tmp_path: Path, trained: tuple[list[str], dict[str, Scores]]
) -> None:
    order, scores = trained
    scores["of"] = lambda run: {"camera": 10.0 * (run.config.data.limit or 0) + run.seed, "camera+depth": 50.0}
    folds = {"first": {"data": {"limit": 1}}, "second": {"data": {"limit": 2}}}
    done = run_plan(made_up_plan(plan_file, folds=folds), [1, 3], tmp_path, report=lambda _: None)
    assert order[:4] == ["dropout_first_seed1", "full_first_seed1", "mad_first_seed1", "dropout_second_seed1"]
    camera = table(done.runs)["dropout"]["camera"]
    assert camera["values"] == {"first": 12.0, "second": 22.0}
    assert camera["ci95"] == pytest.approx(12.706 * 50**0.5 / 2**0.5, abs=0.01)


def test_the_table_has_mean_and_interval_over_seeds(plan_file: Path, tmp_path: Path) -> None:
    runs = plan_runs(load_plan(plan_file, []), [1, 2, 3], tmp_path, ["full"])
    for run, value in zip(runs, (10.0, 20.0, 30.0), strict=True):
        run.folder.mkdir()
        scores = {"mean": value, "emm": value - 1, "miou": {"camera": value, "camera+depth": 2 * value}}
        (run.folder / SCORES_NAME).write_text(json.dumps(scores))
    rows = table(runs)
    half_width = 4.303 * 10 / 3**0.5  # t of 2 degrees of freedom
    assert rows["full"]["mean"] == {
        "mean": 20.0,
        "std": 10.0,
        "ci95": pytest.approx(half_width, abs=0.01),
        "values": {"1": 10.0, "2": 20.0, "3": 30.0},
    }
    assert rows["full"]["camera+depth"]["mean"] == 40.0
    text = markdown(rows, "title", notes=["a note"])
    assert "| full | 3 | 20.0 ± 24.8 | 19.0 ± 24.8 | 20.0 ± 24.8 | 40.0 ± 49.7 |" in text
    assert "- a note" in text
    assert "| full | 1 | 10.0 | 9.0 | 10.0 | 20.0 |" in markdown(table(runs[:1]), "title")
