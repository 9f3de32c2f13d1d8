"""docker/, config/systemd and docs/jetson.md speak of what is there. The images themselves are not built here."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from declared_requirements import declared_setup
from repository import REPOSITORY
from robot_size import BOARDS

from anyseg_ros.pipeline.engine_recovery import ON_ENGINE_FAILURE
from anyseg_ros.pipeline.parameters import to_values

DOCKER = REPOSITORY / "docker"
UNITS = sorted((REPOSITORY / "config" / "systemd").glob("*.service"))
GUIDE = "".join((REPOSITORY / "docs" / name).read_text() for name in ("jetson.md", "jetson/engine.md"))


def run_build(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """build.sh with a `docker` that prints its arguments."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(DOCKER / "build.sh"), *arguments]
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=30, check=False)


@pytest.mark.parametrize(("jetpack", "distribution"), [("jetpack6", "humble"), ("jetpack7", "jazzy")])
def test_the_image_of_each_jetpack_is_built_with_its_distribution(
    tmp_path: Path, jetpack: str, distribution: str
) -> None:
    done = run_build(tmp_path, jetpack, "--no-cache")
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert f"--build-arg=ROS_DISTRO={distribution}" in words
    assert f"anyseg:{jetpack}" in words
    measured = next(board.cuda_bindings for board in BOARDS if board.name.endswith(jetpack[-1]))
    assert f"--build-arg=CUDA_BINDINGS=cuda-bindings{measured}" in words
    assert words[-2:] == ["--no-cache", "."]
    declared = set(re.findall(r"^ARG (\w+)", (DOCKER / "Dockerfile").read_text(), re.MULTILINE))
    assert {word.split("=")[1] for word in words if word.startswith("--build-arg=")} == declared


@pytest.mark.parametrize("arguments", [(), ("jetpack5",)])
def test_another_jetpack_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_build(tmp_path, *arguments)
    assert done.returncode == 2
    assert "jetpack6|jetpack7" in done.stderr


def test_files_that_the_image_copies_exist() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert len(sources) == 4
    assert all((REPOSITORY / source).exists() for source in sources)
    for script in DOCKER.glob("*.sh"):
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
        assert os.access(script, os.X_OK)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_have_their_sections_and_start_the_launch_file(unit: Path) -> None:
    text = unit.read_text()
    assert re.findall(r"^\[(\w+)\]$", text, re.MULTILINE) == ["Unit", "Service", "Install"]
    launched = re.findall(r"ros2 launch anyseg_ros (\S+) (\w+):=/etc/anyseg/vehicle.yaml", text)
    assert launched
    for file, argument in launched:
        assert f'"{argument}"' in (REPOSITORY / "launch" / file).read_text()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_expose_little(unit: Path, tmp_path: Path) -> None:
    """By systemd's own account, of which 10 is the worst."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = shutil.copy(unit, tmp_path)
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", copy]
    report = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", report)
    assert found, report
    assert float(found[1]) < 4.0


def test_the_guide_s_links_parameters_and_files_exist() -> None:
    local = [link for link in re.findall(r"\]\(([^)]+)\)", GUIDE) if not link.startswith("http")]
    assert local
    assert not [link for link in local if not (REPOSITORY / "docs" / link.partition("#")[0]).exists()]
    named = set(re.findall(r"`(model\.\w+)", GUIDE))
    assert named
    assert named <= set(to_values())
    assert all(f"| `{mode}` |" in GUIDE for mode in ON_ENGINE_FAILURE)


@pytest.fixture
def declared() -> dict[str, Any]:
    """What setup.py tells setuptools."""
    return declared_setup()


def versions(requirements: Iterable[str]) -> dict[str, str]:
    """Name -> versions of requirements."""
    found = (re.fullmatch(r"([\w-]+)(?:\[.*\])?([^;]*)(?:;.*)?", requirement.strip()) for requirement in requirements)
    return {match[1].lower(): match[2] for match in found if match}


def test_a_robot_installs_nothing_that_an_extra_brings(declared: dict[str, Any]) -> None:
    """`make robot-size` measures it: under 300 MB on a Jetson."""
    robot = versions(declared["install_requires"])
    extras = {extra: versions(requirements) for extra, requirements in declared["extras_require"].items()}
    assert {"torch", "lightning-fabric"} <= set(extras["train"])
    assert {"rosbags", "jinja2"} <= set(extras["replay"])
    assert not {extra: set(found) & set(robot) for extra, found in extras.items() if set(found) & set(robot)}
    assert len(robot) <= 8, "another package on every robot: run `make robot-size`, then raise this"
