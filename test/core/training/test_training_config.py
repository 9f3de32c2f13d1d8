"""Configuration: the shipped files load, every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository import REPOSITORY

from anyseg_core.methods import AnySegConfig
from anyseg_core.runtime.model_card import STUDENTS
from anyseg_core.training.config import BudgetConfig, ConfigError, ModelConfig, OptimConfig, load_config
from anyseg_core.training.schedule import learning_rate, phases, progress

CONFIGS = sorted((REPOSITORY / "config" / "train").glob("*.yaml"))
MINIMAL = "name: x\ndata: {root: data}\nbudget: {max_steps: 10}\n"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_are_named_after_their_file(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_there_are_shipped_configs() -> None:
    assert {path.stem for path in CONFIGS} >= {"vehicle_sim", "vehicle_sim_zero_fill", "pothole"}


def test_overrides(config_file: Path) -> None:
    config = load_config(
        config_file, ["optim.lr=1e-4", "data.limit=5", "budget.max_steps=null", "budget.max_minutes=2"]
    )
    assert (config.optim.lr, config.data.limit, config.budget.max_steps) == (1e-4, 5, None)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optim.learning_rate=1", "optim.learning_rate"),
        ("model.backbone=b9", "known: mit_b0"),
        ("data.size=[100, 100]", "multiples of 32"),
        ("data.modalities=[sonar]", "data.modalities"),
        ("budget.max_steps=null", "max_steps, max_epochs, max_minutes"),
        ("budget.resolution_schedule=[[0.1, 64]]", "ascend from 0"),
        ("budget.resolution_schedule=[[0.0, 100]]", "multiples of 32"),
        ("method.name=sorcery", "'supervised', 'self_distilled', 'anyseg'"),
        ("method.name=anyseg", "method.anyseg.teacher"),
        ("method.umd=5", "method.supervised.umd"),
        ("optim.lr", "key=value"),
        ("name.first=1", "not a group"),
        ("optim.lr=[1", "override .* is no YAML"),
        ("data.modalities=[]", "data.modalities"),
        ("seed=-1", "seed"),
    ],
)
def test_every_mistake_is_named(config_file: Path, override: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(config_file, [override])


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        load_config(tmp_path / "gone.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(bad)
    bad.write_bytes("name: Übung".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(bad)
    bad.write_text("just text")
    with pytest.raises(ConfigError, match="mapping"):
        load_config(bad)


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    optim = OptimConfig(lr=1.0, warmup=0.1, warmup_start=0.1, power=0.9)
    assert learning_rate(optim, 0.0) == pytest.approx(0.1)
    assert learning_rate(optim, 0.1) == pytest.approx(0.9**0.9)
    assert learning_rate(optim, 0.5) == pytest.approx(0.5**0.9)
    assert learning_rate(optim, 1.0) == 0.0


def test_the_released_schedule_falls_after_the_warm_up() -> None:
    optim = OptimConfig(lr=1.0, warmup=0.1, warmup_start=0.1, power=0.9, decay="after_warmup")
    assert learning_rate(optim, 0.0) == pytest.approx(0.1)
    assert learning_rate(optim, 0.05) == pytest.approx(0.55)
    assert learning_rate(optim, 0.1) == pytest.approx(1.0)
    assert learning_rate(optim, 0.55) == pytest.approx(0.5**0.9)
    assert learning_rate(optim, 1.0) == 0.0


def test_epochs_are_counted_in_whole_steps() -> None:
    assert BudgetConfig(max_epochs=200).in_steps(3983, 16).max_steps == 200 * 248
    assert BudgetConfig(max_epochs=2, max_steps=5).in_steps(40, 4).max_steps == 5
    assert BudgetConfig(max_epochs=3).in_steps(5, 16).max_steps == 3
    assert BudgetConfig(max_steps=7).in_steps(40, 4).max_steps == 7


@given(st.integers(0, 1000), st.floats(0, 1e4))
def test_progress_is_the_further_of_steps_and_minutes(step: int, elapsed: float) -> None:
    budget = BudgetConfig(max_steps=500, max_minutes=10)
    assert progress(budget, step, elapsed) == pytest.approx(min(1.0, max(step / 500, elapsed / 600)))


def test_phases_keep_the_proportions() -> None:
    budget = BudgetConfig(max_steps=1, resolution_schedule=((0.0, 64), (0.6, 128)))
    assert [tuple(phase) for phase in phases(budget, (128, 256))] == [(0.6, (64, 128)), (1.0, (128, 256))]
    assert [tuple(phase) for phase in phases(BudgetConfig(max_steps=1), (64, 96))] == [(1.0, (64, 96))]


# --- files that extend others


def test_a_file_extends_another_group_by_group(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "name: base\ndata: {root: d, size: [64, 96]}\nmethod: {name: supervised, class_balance: 0.5}\n"
        "optim: {lr: 0.1, power: 1.0}\nbudget: {max_steps: 1}\n"
    )
    (tmp_path / "own.yaml").write_text("extends: base.yaml\nname: own\noptim: {lr: 0.2}\nmethod: {loss: ohem}\n")
    (tmp_path / "other.yaml").write_text("extends: own.yaml\nname: other\nmethod: {name: anyseg, teacher: runs/t}\n")
    own, other = load_config(tmp_path / "own.yaml"), load_config(tmp_path / "other.yaml", ["optim.lr=0.3"])
    assert (own.name, own.optim.lr, own.optim.power, own.data.size) == ("own", 0.2, 1.0, (64, 96))
    assert own.method.class_balance == 0.5
    assert (other.optim.lr, other.method.name, other.method.class_balance) == (0.3, "anyseg", 0.0)


def test_files_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\nname: a\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nname: b\n")
    with pytest.raises(ConfigError, match="extends"):
        load_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text(f"extends: ../{tmp_path.name}/a.yaml\nname: b\n")
    with pytest.raises(ConfigError, match="which extends it"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(("data", "lr"), [("deliver", 6e-5), ("muses", 1.2e-4)])
def test_public_data_is_trained_as_published(data: str, lr: float) -> None:
    folder = CONFIGS[0].parent
    teacher, student = (load_config(folder / f"{data}_{role}.yaml") for role in ("teacher", "student"))
    for config in (teacher, student):
        assert (config.optim.lr, config.optim.weight_decay, config.optim.power) == (lr, 0.01, 0.9)
        assert config.optim.batch_size * config.machine.devices == 16
        assert (config.budget.max_epochs, config.seed, config.data.size) == (200, 3407, (1024, 1024))
        assert (config.optim.warmup, config.optim.warmup_start) == (10 / 200, 0.1)
        assert config.machine.precision == "32-true"
        assert (config.method.loss, config.method.ohem_threshold) == ("ohem", 0.7)
    assert not teacher.method.anymodal_dropout
    method = student.method
    assert isinstance(method, AnySegConfig)
    assert (method.mad, method.umd, method.cmd, method.subsets) == (50, 5, 10, "per_batch")
    assert str(method.teacher) == f"runs/{data}_teacher"
    assert (teacher.augment.hflip, teacher.augment.jitter) == ((0.5, 0.2) if data == "deliver" else (0, 0))


def test_a_bundled_student_is_a_start_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = ModelConfig(init_from=Path("vehicle_sim"))
    assert named.first_weights == STUDENTS / "vehicle_sim"
    assert ModelConfig(init_from=Path("runs/mine")).first_weights == Path("runs/mine")
    (tmp_path / "vehicle_sim").mkdir()  # a folder of that name is what is meant
    assert named.first_weights == Path("vehicle_sim")


def test_the_home_folder_may_be_written_as_in_a_shell(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    config = load_config(config_file, ["data.cache=~/cache", "data.root=~/data", "model.init_from=~nobody_here/run"])
    assert (config.data.cache, config.data.root) == (Path("/home/ann/cache"), Path("/home/ann/data"))
    assert config.model.init_from == Path("~nobody_here/run")


def test_the_starter_file_names_every_choice_that_it_marks() -> None:
    config = load_config(REPOSITORY / "config" / "train" / "my_robot.yaml")
    assert config.data.kind == "folder"
    assert config.record.has_validations
    assert config.model.first_weights is not None
