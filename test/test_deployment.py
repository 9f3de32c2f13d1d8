"""docker/, config/systemd and docs/jetson.md speak of what is there. The images themselves are not built here."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from anyseg_ros.engine_recovery import ON_ENGINE_FAILURE
from anyseg_ros.parameters import to_values

REPOSITORY = Path(__file__).parent.parent
DOCKER = REPOSITORY / "docker"
UNITS = sorted((REPOSITORY / "config" / "systemd").glob("*.service"))
GUIDE = (REPOSITORY / "docs" / "jetson.md").read_text()


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
    assert words[-2:] == ["--no-cache", "."]
    declared = set(re.findall(r"^ARG (\w+)", (DOCKER / "Dockerfile").read_text(), re.MULTILINE))
    assert {word.split("=")[1] for word in words if word.startswith("--build-arg=")} == declared


@pytest.mark.parametrize("arguments", [(), ("jetpack5",)])
def test_another_jetpack_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_build(tmp_path, *arguments)
    assert done.returncode == 2
    assert "jetpack6|jetpack7" in done.stderr


def test_files_that_the_image_copies_exist() -> None:
    sources = re.findall(r"^COPY (\S+) ", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert len(sources) == 2
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


def test_the_guide_s_links_parameters_and_files_exist() -> None:
    local = [link for link in re.findall(r"\]\(([^)]+)\)", GUIDE) if not link.startswith("http")]
    assert local
    assert not [link for link in local if not (REPOSITORY / "docs" / link).exists()]
    named = set(re.findall(r"`(model\.\w+)", GUIDE))
    assert named
    assert named <= set(to_values())
    assert all(f"| `{mode}` |" in GUIDE for mode in ON_ENGINE_FAILURE)
