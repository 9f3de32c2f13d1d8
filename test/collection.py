"""How test modules are collected where a part is not installed, and by pytest plugins that import them themselves.

A module that imports a part of setup.py's extras which is not here (torch on a robot) is skipped with the command that
installs it; with `--all-parts` it is an error. launch_testing's plugin imports every module while the folder is being
collected, so what one module raises there, a skip or an error, would be that of the whole folder.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from anyseg_core.runtime.extras import missing_module, missing_part


class ModuleOfParts(pytest.Module):
    """A test module that is skipped where a part that it imports is not installed."""

    def collect(self) -> Any:
        try:
            return super().collect()
        except self.CollectError as error:
            cause = error.__cause__
            missing = missing_module(cause) if isinstance(cause, ModuleNotFoundError) else ""
            if not missing or self.config.getoption("--all-parts"):
                raise
            pytest.skip(missing_part(missing), allow_module_level=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-parts", action="store_true", help="a missing part of setup.py's extras is an error")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Generator[None, Any, None]:
    """Whatever a plugin raises that imports the module, the module itself raises it again when it is collected."""
    outcome = yield
    if outcome.excinfo is not None or type(outcome.get_result()) is pytest.Module:
        outcome.force_result(ModuleOfParts.from_parent(parent, path=module_path))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that collected nothing has failed: colcon takes pytest's own code for it as success."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
