"""replay.launch.py, where ROS' launch is installed; it is not on PyPI.

Where `ros2 bag` is not installed either, a `ros2` is put on the PATH that gives the same arguments to `anyseg play`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from repository import REPOSITORY
from toy_student import write_toy_student

pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS 2 distribution")
ament = pytest.importorskip("ament_index_python.packages", reason="ament comes with a ROS 2 distribution")

from launch.actions import IncludeLaunchDescription  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402

from anyseg_core.sim import Drive, DriveConfig, Weather  # noqa: E402
from anyseg_core.sim.bag_writer import write_bag  # noqa: E402
from launch import LaunchDescription, LaunchService  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]

LAUNCH_FILE = REPOSITORY / "launch" / "replay.launch.py"
ARGUMENTS = {"bag", "out", "student", "injections", "rate", "log_level"}
STAND_IN = f"""#!{sys.executable}
import os, sys
assert sys.argv[1:3] == ["bag", "play"] and sys.argv[4:6] == ["--clock", "100"]
assert sys.argv[6] == "--rate" and sys.argv[8] == "--delay"
remaps = [part for remap in sys.argv[11:] for part in ("--remap", remap)]
assert not remaps or sys.argv[10] == "--remap"
arguments = ["play", sys.argv[3], "--clock", "--rate", sys.argv[7], *remaps]
os.execv({sys.executable!r}, [{sys.executable!r}, "-m", "anyseg_ros.cli", *arguments])
"""


@pytest.fixture(autouse=True)
def installed() -> None:
    if "anyseg_ros" not in ament.get_packages_with_prefixes():
        pytest.skip("the package is not in the ament index: colcon build it and source install/setup.bash")


@pytest.fixture(autouse=True)
def ros2_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ros2") is None:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "ros2").write_text(STAND_IN)
        (folder / "ros2").chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drive = Drive(DriveConfig(seed=3, weather=Weather.SUN, duration_s=1.0, width=96, height=64, rate_hz=5.0))
    path = tmp_path_factory.mktemp("launch") / "bag"
    write_bag(path, (drive.frame(i) for i in range(len(drive))), drive.rig())
    return path


def test_the_launch_file_has_the_documented_arguments() -> None:
    spec = importlib.util.spec_from_file_location("replay_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description: Any = module.generate_launch_description()
    assert {argument.name for argument in description.get_launch_arguments()} == ARGUMENTS


@pytest.mark.parametrize("with_faults", [False, True])
def test_a_bag_is_played_and_compared(bag: Path, tmp_path: Path, with_faults: bool) -> None:
    student = write_toy_student(tmp_path / "toy")
    arguments = {"bag": str(bag), "out": str(tmp_path / "out"), "student": str(student), "rate": "0.2"}
    if with_faults:
        schedule = tmp_path / "camera_dead.yaml"
        schedule.write_text("injections:\n  - {modality: camera, kind: drop, start_s: 0.0, duration_s: 60.0}\n")
        arguments["injections"] = str(schedule)
    source = PythonLaunchDescriptionSource(str(LAUNCH_FILE))
    service = LaunchService()
    service.include_launch_description(
        LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments.items())])
    )
    assert service.run(shutdown_when_idle=True) == 0
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["masks"]["live"] > 0
    assert not [d for d in content["differences"] if d["kind"] == "pixels"]
    used = [json.loads(line)["used"] for line in (tmp_path / "out" / "live_masks.jsonl").read_text().splitlines()]
    assert any("camera" in names for names in used) != with_faults
