"""What a module's tests write lies there as long as it is needed: until its end, or for good where one has failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from repository import REPOSITORY

MODULE = """
import pytest

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_{name}")
    (folder / "file").touch()
    return folder

def test_one(shared, tmp_path):
    (tmp_path / "file").touch()
    assert {result}

def test_two(shared, tmp_path_factory):
    names = {{entry.name for entry in tmp_path_factory.getbasetemp().iterdir() if not entry.is_symlink()}}
    assert "of_{name}0" in names and not names & {{"of_a0", "of_c0"}} - {{"of_{name}0"}}
"""


def test_folders_go_with_their_module_but_those_of_a_failure(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(MODULE.format(name=name, result=name != "b"))
    (tmp_path / "pytest.ini").write_text("[pytest]\ntmp_path_retention_policy = failed\n")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "test"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugins = ["-p", "module_folders", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plugins, "--basetemp", str(tmp_path / "base"), "."]
    done = subprocess.run(command, env=environment, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert "1 failed, 5 passed" in done.stdout, done.stdout
    left = {entry.name for entry in (tmp_path / "base").iterdir() if not entry.is_symlink()}
    assert left == {"of_b0", "test_one1"}
