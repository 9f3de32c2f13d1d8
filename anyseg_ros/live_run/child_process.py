"""Another process of ours: started with a log file, ended as a user would end it. No ROS."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.child_process import module_arguments
from anyseg_core.runtime.geometry.rigid_transform import quaternion

STOP_TIMEOUT_S = 15.0


class LiveRunError(Exception):
    """A process that did not start, or died; the message says which, and what it printed."""


@contextmanager
def child_process(
    module: str, arguments: Sequence[str], log_folder: Path, name: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m anyseg_ros.<module>`; its output goes to a log file of that `name`, the module's own by default.

    It is ended with Ctrl-C's signal, and by the system when this process is killed.

    Raises LiveRunError where it has ended with another code than 0.
    """
    name = name or module.rpartition(".")[2]
    log_path = log_folder / f"{name}.log"
    command = [sys.executable, *module_arguments(f"anyseg_ros.{module}", arguments)]
    log_folder.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        # Its own session: Ctrl-C in the terminal reaches only this process, which then ends the others in order.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield process
        finally:
            _end(process)
    if process.returncode not in (0, None):
        raise LiveRunError(f"{name} ended with code {process.returncode}; see {log_path}")


def ros_arguments(parameters: Mapping[str, Any]) -> list[str]:
    """Parameters as arguments of a node's process."""
    return ["--ros-args", *(part for name, value in parameters.items() for part in ("-p", f"{name}:={_ros(value)}"))]


def transform_parameters(name: str, transform: NDArray[np.float64]) -> dict[str, list[float]]:
    """A 4x4 rigid transform as two parameters of segmentation_node, `rig.NAME_...`: metres, and a unit quaternion."""
    return {
        f"rig.{name}_translation_m": transform[:3, 3].tolist(),
        f"rig.{name}_rotation_xyzw": [float(value) for value in quaternion(transform[:3, :3])],
    }


def _ros(value: Any) -> str:
    """As YAML, which an empty text needs quotes for."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) or "''"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
