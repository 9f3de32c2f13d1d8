"""The extras of setup.py: one table says which module belongs to which, and errors name a command that works."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from declared_requirements import declared_setup, names_of
from repository import REPOSITORY

from anyseg_core.runtime import extras
from anyseg_core.runtime.extras import EXTRA_OF, EXTRAS, missing_module, pip_command

OF_A_DISTRIBUTION = {"tf2_ros", "vision_msgs", "ament_index_python", "launch", "launch_ros"}
"""Modules that only a ROS 2 distribution has; without them a feature is left out, which doctor says."""
OPTIONAL = {"compression"}
"""Tried first, with a fallback."""
DISTRIBUTION_OF = {
    "cv2": "opencv-python-headless",
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",
    "cuda": "cuda-bindings",
    "lz4": "rosbags",
    "backports": "rosbags",
}
DISTRIBUTION_OF |= {"lightning_fabric": "lightning-fabric", "PIL": "matplotlib"}
DISTRIBUTION_OF |= {name: name.replace("_", "-") for name in EXTRAS["pretrained"]}
DISTRIBUTION_OF |= dict.fromkeys(("builtin_interfaces", "rcl_interfaces", "rosgraph_msgs"), "ros-rclpy")
"""Where a module's name is not its distribution's, or it comes with another one."""


def imported() -> set[str]:
    """The top-level modules that the packages and launch files import, wherever they do."""
    found: set[str] = set()
    folders = [REPOSITORY / name for name in ("anyseg_core", "anyseg_ros", "launch")]
    for file in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"anyseg_core", "anyseg_ros"}


def distribution(module: str) -> str:
    if module in EXTRAS["ros"] and module not in DISTRIBUTION_OF:
        return f"ros-{module.replace('_', '-')}"
    return DISTRIBUTION_OF.get(module, module)


def test_every_imported_module_is_a_robot_s_or_an_extra_s() -> None:
    robot = names_of(declared_setup()["install_requires"])
    others = {module for module in imported() if distribution(module).lower() not in robot}
    assert others - OF_A_DISTRIBUTION - OPTIONAL - {"PIL"} <= set(EXTRA_OF)


def test_every_ros_package_that_is_imported_is_a_dependency_of_package_xml() -> None:
    declared = {element.text for element in ElementTree.parse(REPOSITORY / "package.xml").iter("exec_depend")}
    of_ros = {name for name in imported() if name in OF_A_DISTRIBUTION or distribution(name).startswith("ros-")}
    keys = {"tf2_ros": "tf2_ros_py"}
    assert of_ros >= {"rclpy", "sensor_msgs", "launch_ros"}
    assert {keys.get(name, name) for name in of_ros} <= declared


def test_every_module_of_the_table_comes_with_its_extra() -> None:
    declared = {extra: names_of(lines) for extra, lines in declared_setup()["extras_require"].items()}
    assert set(EXTRAS) == set(declared) - {"test", "dev", "docs"}
    assert not [module for module, extra in EXTRA_OF.items() if distribution(module) not in declared[extra]]


def test_every_distribution_of_an_extra_is_used() -> None:
    declared = {extra: names_of(lines) for extra, lines in declared_setup()["extras_require"].items()}
    known = {distribution(module) for module in EXTRA_OF}
    in_extras = {name for extra in EXTRAS for name in declared[extra]}
    assert in_extras <= known


@pytest.mark.parametrize(
    ("name", "module"),
    [("torch", "torch"), ("torch.nn", "torch"), ("cuda.bindings", "cuda"), ("no_such_module", ""), (None, "")],
)
def test_a_missing_module_is_its_extra_s_or_nobody_s(name: str | None, module: str) -> None:
    assert missing_module(ModuleNotFoundError("x", name=name)) == module


def test_in_a_checkout_the_checkout_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert ' install -e ".[replay]"' in pip_command("replay")
    monkeypatch.chdir(tmp_path)
    assert f' install -e "{REPOSITORY}[replay]"' in pip_command("replay")


def test_elsewhere_the_extra_s_requirements_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    lines = ["numpy>=1", "rosbags>=0.11.7,<1 ; extra == 'replay'", 'ray>=2; extra == "fleet"']
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: lines)
    assert pip_command("replay").endswith(" install 'rosbags>=0.11.7,<1'")
    assert pip_command("fleet").endswith(" install 'ray>=2'")


def test_the_pip_that_is_named_is_this_interpreter_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "pip").touch()
    monkeypatch.chdir(tmp_path)
    assert pip_command("sim").startswith(f"{sys.executable} -m pip install")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert pip_command("sim").startswith("pip install")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    assert pip_command("sim").startswith("venv/bin/python -m pip install")


def test_an_environment_without_pip_is_uv_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert pip_command("sim").startswith("uv pip install --python ")


def test_a_python_of_the_system_wants_a_virtual_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert "in a virtual environment" in pip_command("sim")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert "in a virtual environment" not in pip_command("sim")


def test_pip_takes_the_command(tmp_path: Path) -> None:
    """In a checkout, word for word, as a shell reads it; nothing is installed."""
    pytest.importorskip("pip", reason="pip is not installed")
    command = pip_command("openvino") + " --dry-run --no-deps --no-build-isolation --no-index --quiet"
    done = subprocess.run(command, shell=True, text=True, capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


def test_every_remedy_names_this_interpreter_s_pip() -> None:
    """By `pip_install`, which knows where the user stands; a bare `pip install` may be another Python's."""
    files = [path for name in ("anyseg_core", "anyseg_ros", "launch") for path in (REPOSITORY / name).rglob("*.py")]
    files.remove(REPOSITORY / "anyseg_core" / "runtime" / "extras.py")
    found = [
        f"{file.relative_to(REPOSITORY)}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and "pip install " in str(node.value) and not is_docstring(node)
    ]
    assert found == []


def is_docstring(text: ast.Constant) -> bool:
    """Docstrings of this project are sentences, which end with a full stop."""
    return str(text.value).rstrip().endswith(".")
