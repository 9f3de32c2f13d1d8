"""A network that never answers neither holds up the start for ever nor makes the node deaf to SIGTERM."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from repository import REPOSITORY
from toy_student import toy_card, toy_network

from anyseg_core.runtime.label_sets import DELIVER
from anyseg_core.runtime.model_card import NetworkSpec, sha256_of
from anyseg_core.runtime.sensors import DEFAULT_SENSORS

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

pytestmark = pytest.mark.ros

SIZE = (64, 64)
ROUNDS = 2**62
SOON_ENDING = """
from anyseg_ros.node.segmentation_node import main
from anyseg_ros.process import node_process

node_process.END_S = 1.0
main()
"""
"""The node, but for the time that it gives its threads to end, of which the network uses all."""


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A student of the contract whose labels come out of a loop of 2^62 rounds."""
    network = toy_network(SIZE, len(DELIVER))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Identity", ["carried"], ["carried_on"]),
        ],
        "body",
        inputs=[
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.INT64, None),
        ],
        outputs=[
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried_on", TensorProto.INT64, None),
        ],
    )
    constants = {"rounds": np.array(ROUNDS, np.int64), "yes": np.array(True)}
    network.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    loop = helper.make_node("Loop", ["rounds", "yes", "label"], ["looped"], body=body)
    last = next(node for node in network.graph.node if node.output[0] == "labels")
    last.input[0] = "looped"
    network.graph.node.insert(len(network.graph.node) - 2, loop)
    folder = tmp_path / "endless"
    folder.mkdir()
    onnx.save(network, folder / "student.onnx")
    spec = NetworkSpec(file="student.onnx", sha256=sha256_of(folder / "student.onnx"), modalities=DEFAULT_SENSORS)
    toy_card("endless", SIZE, DEFAULT_SENSORS, DELIVER, [spec]).write(folder)
    return folder


def started(student: Path, timeout_s: float) -> subprocess.Popen[str]:
    values = {"autostart": "true", "model.student": student, "model.open_timeout_s": timeout_s}
    arguments = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
    return subprocess.Popen(
        [sys.executable, "-c", SOON_ENDING, "--ros-args", *arguments],
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_the_start_is_given_up_after_open_timeout_s(endless: Path) -> None:
    process = started(endless, 2.0)
    output, _ = process.communicate(timeout=90.0)
    assert "did not open in 2 s" in output
    assert process.returncode == 1


def test_sigterm_ends_it_while_it_waits(endless: Path) -> None:
    process = started(endless, 600.0)
    while "onnxruntime" not in Path(f"/proc/{process.pid}/maps").read_text():  # which is loaded to open the network
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90.0)
    assert process.returncode in (0, 1)
