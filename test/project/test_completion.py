"""What the shell completes is what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from repository import REPOSITORY

from anyseg_core import completion
from anyseg_core.runtime.model_card import bundled_students
from anyseg_core.sim.weather import Weather


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
