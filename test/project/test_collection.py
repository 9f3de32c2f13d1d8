"""Tests are found and run without torch, and beside a plugin that imports test modules itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

MODULES = {
    "test_a_plain.py": "def test_it():\n    pass\n",
    "test_b_skips.py": "import pytest\n\npytest.importorskip('no_such_module')\n\ndef test_it():\n    pass\n",
    "test_c_part.py": "import torch\n\ndef test_it():\n    pass\n",
    "test_d_plain.py": "def test_it():\n    pass\n",
}
NO_TORCH = "import sys\nsys.modules['torch'] = None\n"
"""A sitecustomize module: torch cannot be imported."""


def run_pytest(folder: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of pytest with this project's collection, without torch, on the modules in a folder."""
    (folder / "sitecustomize.py").write_text(NO_TORCH)
    path = [str(folder), str(REPOSITORY / "test"), str(REPOSITORY)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "collection", "-p", "no:cacheprovider", *options, "."]
    done = subprocess.run(command, env=environment, cwd=folder, text=True, capture_output=True, check=False)
    return done.returncode, done.stdout + done.stderr


def write(folder: Path, modules: dict[str, str]) -> Path:
    for name, text in modules.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("plugin", [(), ("-p", "importing_plugin")], ids=["alone", "importing plugin"])
def test_a_module_that_skips_or_lacks_a_part_skips_only_itself(tmp_path: Path, plugin: tuple[str, ...]) -> None:
    code, output = run_pytest(write(tmp_path, MODULES), *plugin)
    assert code == 0, output
    assert re.search(r"2 passed, 2 skipped", output), output
    assert "no_such_module" in output
    assert "torch is not installed; the extra [train] brings it" in output


@pytest.mark.parametrize("plugin", [(), ("-p", "importing_plugin")], ids=["alone", "importing plugin"])
@pytest.mark.parametrize("mistake", ["import no_such_module", "import json.nowhere", "1 / 0", "def ("])
def test_a_module_that_cannot_be_imported_is_an_error_and_the_others_run(
    tmp_path: Path, plugin: tuple[str, ...], mistake: str
) -> None:
    modules = {**MODULES, "test_b_skips.py": f"{mistake}\n", "test_c_part.py": ""}
    code, output = run_pytest(write(tmp_path, modules), "--continue-on-collection-errors", *plugin)
    assert code != 0
    assert re.search(r"2 passed, 1 error", output), output


def test_where_every_part_must_be_here_a_missing_one_is_an_error(tmp_path: Path) -> None:
    code, output = run_pytest(write(tmp_path, MODULES), "--all-parts")
    assert code != 0
    assert "1 error" in output


@pytest.mark.parametrize("modules", [{}, {"test_b_skips.py": MODULES["test_b_skips.py"]}], ids=["none", "all skipped"])
def test_a_run_without_any_test_fails(tmp_path: Path, modules: dict[str, str]) -> None:
    code, output = run_pytest(write(tmp_path, modules))
    assert code == pytest.ExitCode.TESTS_FAILED, output


def test_two_runs_have_two_ros_domains() -> None:
    script = "from ros_domain import reserve_domain; print(reserve_domain(), reserve_domain())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=REPOSITORY / "test", text=True, capture_output=True, check=True)
    domains = [os.environ["ROS_DOMAIN_ID"], *done.stdout.split()]
    assert len(set(domains)) == 3, "a domain that is held, in this process or another, is not given again"
