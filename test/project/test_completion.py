"""What the shell completes is what there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from repository import REPOSITORY

from anyseg_core import completion
from anyseg_core.runtime.model_card import bundled_students
from anyseg_core.sim.weather import Weather
from anyseg_ros.cli import app


def test_weathers_and_students_are_those_that_there_are() -> None:
    assert set(completion.WEATHERS) == {str(weather) for weather in Weather}
    assert {name for name in completion.complete_students("") if not name.endswith("/")} == set(bundled_students())
    assert completion.complete_weathers("f") == ["fog"]


@pytest.mark.parametrize("begun", ["camera_l", "config/injections/camera_l", "config/inj"])
def test_scenarios_by_name_and_by_path(monkeypatch: pytest.MonkeyPatch, begun: str) -> None:
    monkeypatch.chdir(REPOSITORY)
    found = completion.complete_scenarios(begun)
    assert found
    assert all(Path(path).exists() for path in found)
    if "camera" in begun:
        assert "config/injections/camera_lost.yaml" in found


@pytest.mark.parametrize("begun", ["/nowhere/at/all", "~", "\0", "no_such"])
def test_what_cannot_be_completed_gives_nothing(begun: str) -> None:
    assert completion.complete_scenarios(begun) == []


def options(command: Any, path: str = "anyseg") -> Iterator[tuple[str, Any]]:
    """Every command and group with each of its options and arguments."""
    yield from ((path, parameter) for parameter in command.params)
    for name, child in getattr(command, "commands", {}).items():
        yield from options(child, f"{path} {name}")


def test_every_command_completes_students_weathers_and_schedules() -> None:
    names = {"student", "weather", "injections"}
    known = [(path, one) for path, one in options(typer.main.get_command(app)) if one.name in names]
    assert len(known) > 20
    assert not [f"{path} --{one.name}" for path, one in known if not one._custom_shell_complete]
