"""Who may import whom: the runtime without torch and ROS, the nodes without torch, and the declared contracts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from blocked_imports import TIMEOUT_S, run_without
from repository import REPOSITORY

TORCH = "torch,lightning,lightning_fabric,torchvision,tensorboard"
ROS = (
    "anyseg_ros,rclpy,rcl_interfaces,rosidl_runtime_py,rosidl_parser,rpyutils,ament_index_python,launch,launch_ros,"
    "builtin_interfaces,std_msgs,std_srvs,sensor_msgs,diagnostic_msgs,geometry_msgs,lifecycle_msgs,vision_msgs,"
    "event_camera_msgs,dvs_msgs,tf2_ros,tf2_msgs,cv_bridge,sensor_msgs_py"
)


IMPORT_EVERYTHING = """
package = importlib.import_module(sys.argv[2])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=print):
    importlib.import_module(module.name)
    print(module.name)
"""
"""argv, besides: a package. Prints its modules."""


def modules_in(package: str) -> set[str]:
    """Every module below a package, by its file."""
    folder = REPOSITORY / package.replace(".", "/")
    names = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in folder.rglob("*.py")}
    return {name.removesuffix(".__init__") for name in names} - {package}


@pytest.mark.parametrize(
    ("package", "blocked"),
    [
        ("anyseg_core.runtime", f"{TORCH},{ROS}"),
        ("anyseg_core.sim", f"{TORCH},{ROS}"),
        pytest.param("anyseg_ros", TORCH, marks=pytest.mark.ros),
    ],
    ids=["runtime", "sim", "ros"],
)
def test_every_module_imports_without(package: str, blocked: str) -> None:
    if package == "anyseg_core.sim":
        pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")
    if package == "anyseg_ros":
        pytest.importorskip("rclpy", reason="rclpy is not installed")
    done = run_without(blocked, IMPORT_EVERYTHING, package)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == modules_in(package)


@pytest.mark.ros
def test_the_node_runs_on_what_a_robot_installs() -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    code = "import anyseg_ros.node.segmentation_node, anyseg_ros.doctor.doctor, anyseg_ros.cli"
    done = run_without(f"{TORCH},rosbags,lz4,backports,apsw,matplotlib,jinja2,PIL,trimesh,embreex,h5py,scipy", code)
    assert done.returncode == 0, done.stderr


def test_the_block_blocks() -> None:
    done = run_without(TORCH, IMPORT_EVERYTHING, "anyseg_core.models")
    assert done.returncode != 0
    assert "torch is blocked" in done.stderr


def test_the_command_answers_without_torch_and_ros() -> None:
    code = "import anyseg_ros.cli; anyseg_ros.cli.app(['simulate', '--help'])"
    done = run_without(f"{TORCH},{ROS}".replace("anyseg_ros,", ""), code)
    assert done.returncode == 0, done.stderr
    assert "dataset" in done.stdout


def test_the_declared_contracts_hold() -> None:
    lint_imports = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if lint_imports is None:
        pytest.skip("import-linter is not installed: pip install anyseg_ros[dev]")
    done = subprocess.run(
        [lint_imports, "--no-cache"], cwd=REPOSITORY, text=True, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_test_modules_have_one_name() -> None:
    names = Counter(path.name for path in (REPOSITORY / "test").rglob("test_*.py"))
    assert not [name for name, number in names.items() if number > 1], "pytest imports them by name: rename one"
