"""What every test shares: a ROS domain of its own, the recorded data, and a look at what the run has left behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from collection import pytest_addoption, pytest_pycollect_makemodule, pytest_sessionfinish
from hypothesis import HealthCheck, settings
from module_folders import module_folders
from ros_domain import reserve_domain

if TYPE_CHECKING:
    from cuda_double import DeviceDouble
    from tensorrt_double import TensorrtDouble

__all__ = ["module_folders", "pytest_addoption", "pytest_pycollect_makemodule", "pytest_sessionfinish"]

END_TIMEOUT_S = 10.0
"""For processes that have been told to end."""


def pytest_configure() -> None:
    """Before anything imports rclpy. The caller's domain is not used: it may be that of a vehicle that drives."""
    os.environ["ROS_DOMAIN_ID"] = str(reserve_domain())
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    # hypothesis' own limits of time are too short on a busy machine
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")


@pytest.fixture(scope="session")
def recorded_data() -> Path:
    """The folder of recorded data: $ANYSEG_DATA, or `shared/data` beside the repository."""
    root = Path(os.environ.get("ANYSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no recorded data at {root}; set ANYSEG_DATA to where it is")
    return root


@pytest.fixture(scope="session")
def pothole_data(recorded_data: Path) -> Path:
    """The stereo pothole data set."""
    root = recorded_data / "pothole"
    if not root.is_dir():
        pytest.skip(f"the recorded pothole data is not at {root}; set ANYSEG_DATA")
    return root


@pytest.fixture(scope="session", autouse=True)
def ros_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where ROS writes its log files in this process and in those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ros_log")
        patch.setenv("ROS_LOG_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(ros_log: Path) -> Iterator[None]:
    """No process of this run outlives it. test_node_process looks after the shared memory, whose owner it can know."""
    yield
    deadline = time.monotonic() + END_TIMEOUT_S
    while (left := _own_processes(ros_log)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, "processes outlive the tests"


@pytest.fixture(scope="module", autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Training flushes them to zero in its whole process, for speed; hypothesis refuses to make floats then."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    """rclpy, initialised and shut down."""
    import rclpy

    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Tensors of a few numbers: more threads only get in each other's way."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def device() -> DeviceDouble:
    """Of a GPU that is not here."""
    from cuda_double import DeviceDouble

    return DeviceDouble()


@pytest.fixture
def tensorrt(device: DeviceDouble, monkeypatch: pytest.MonkeyPatch) -> TensorrtDouble:
    """A double of TensorRT in the place of the real one, on the device's double."""
    from tensorrt_double import install_doubles

    return install_doubles(monkeypatch, device)


def _own_processes(ros_log: Path) -> list[str]:
    """pid and command line of the processes that got their environment from this one, whoever their parent is now.

    Python's own tracker of shared resources lives as long as this process and is not counted.
    """
    mark = f"ROS_LOG_DIR={ros_log}".encode()
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark in (folder / "environ").read_bytes().split(b"\0")
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # ended meanwhile, or another user's
            continue
        if marked and int(folder.name) != os.getpid() and "multiprocessing.resource_tracker" not in line:
            found.append(f"{folder.name} {line}")
    return found
