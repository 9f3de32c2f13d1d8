"""vehicle.launch.py, where ROS' launch is installed; it is not on PyPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import REPOSITORY
from toy_student import write_toy_student

pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS 2 distribution")
pytest.importorskip("launch_testing", reason="launch_testing comes with a ROS 2 distribution")
ament = pytest.importorskip("ament_index_python.packages", reason="ament comes with a ROS 2 distribution")

from launch.actions import IncludeLaunchDescription, RegisterEventHandler  # noqa: E402
from launch.event_handlers import OnProcessIO  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402

from launch import LaunchDescription, LaunchService  # noqa: E402

pytestmark = pytest.mark.ros

LAUNCH_FILE = REPOSITORY / "launch" / "vehicle.launch.py"
ARGUMENTS = {
    "params_file", "student", "namespace", "use_sim_time", "autostart", "build_only", "simulate", "recording",
    "injections",
    "respawn", "diagnostics", "rviz", "foxglove", "log_level",
}  # fmt: skip


@pytest.fixture(autouse=True)
def installed() -> None:
    if "anyseg_ros" not in ament.get_packages_with_prefixes():
        pytest.skip("the package is not in the ament index: colcon build it and source install/setup.bash")


def description() -> Any:
    spec = importlib.util.spec_from_file_location("vehicle_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def test_the_launch_file_has_the_documented_arguments() -> None:
    assert {argument.name for argument in description().get_launch_arguments()} == ARGUMENTS


def test_build_only_opens_the_student_and_ends(tmp_path: Path) -> None:
    student = write_toy_student(tmp_path / "toy")
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"model": {"student": str(student)}}}}))
    assert launched(params_file=str(params), build_only="true", autostart="false")[0] == 0


def test_the_student_may_be_an_argument(tmp_path: Path) -> None:
    student = write_toy_student(tmp_path / "toy")
    code, output = launched(student=str(student), build_only="true")
    assert code == 0
    assert "configured: toy" in output


def test_a_missing_params_file_is_refused(tmp_path: Path) -> None:
    assert launched(params_file=str(tmp_path / "none.yaml"), build_only="true")[0] == 1


def launched(**arguments: str) -> tuple[int, str]:
    """The launch's exit code and its processes' output; it ends when there is nothing left to do."""
    output: list[str] = []

    def collect(event: Any) -> None:
        output.append(event.text.decode())

    source = PythonLaunchDescriptionSource(str(LAUNCH_FILE))
    listener = RegisterEventHandler(OnProcessIO(on_stdout=collect, on_stderr=collect))
    service = LaunchService()
    service.include_launch_description(
        LaunchDescription([listener, IncludeLaunchDescription(source, launch_arguments=arguments.items())])
    )
    return service.run(shutdown_when_idle=True), "".join(output)
