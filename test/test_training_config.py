"""Configuration: the shipped files load, every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyseg_core.training.config import BudgetConfig, ConfigError, OptimConfig, load_config
from anyseg_core.training.schedule import learning_rate, phases, progress

CONFIGS = sorted((Path(__file__).parents[1] / "config" / "train").glob("*.yaml"))
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
        ("model.backbone=b9", "known: b0"),
        ("data.size=[100, 100]", "multiples of 32"),
        ("data.modalities=[sonar]", "data.modalities"),
        ("budget.max_steps=null", "max_steps, max_minutes or both"),
        ("budget.resolution_schedule=[[0.1, 64]]", "ascend from 0"),
        ("budget.resolution_schedule=[[0.0, 100]]", "multiples of 32"),
        ("model.missing=zero", "anymodal_dropout"),
        ("method.name=magic", "method.name"),
        ("optim.lr", "key=value"),
        ("name.first=1", "not a group"),
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
    bad.write_text("just text")
    with pytest.raises(ConfigError, match="mapping"):
        load_config(bad)


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    optim = OptimConfig(lr=1.0, warmup=0.1, warmup_start=0.1, power=0.9)
    assert learning_rate(optim, 0.0) == pytest.approx(0.1)
    assert learning_rate(optim, 0.1) == pytest.approx(0.9**0.9)
    assert learning_rate(optim, 0.5) == pytest.approx(0.5**0.9)
    assert learning_rate(optim, 1.0) == 0.0


@given(st.integers(0, 1000), st.floats(0, 1e4))
def test_progress_is_the_further_of_steps_and_minutes(step: int, elapsed: float) -> None:
    budget = BudgetConfig(max_steps=500, max_minutes=10)
    assert progress(budget, step, elapsed) == pytest.approx(min(1.0, max(step / 500, elapsed / 600)))


def test_phases_keep_the_proportions() -> None:
    budget = BudgetConfig(max_steps=1, resolution_schedule=((0.0, 64), (0.6, 128)))
    assert [tuple(phase) for phase in phases(budget, (128, 256))] == [(0.6, (64, 128)), (1.0, (128, 256))]
    assert [tuple(phase) for phase in phases(BudgetConfig(max_steps=1), (64, 96))] == [(1.0, (64, 96))]
