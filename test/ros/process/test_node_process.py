"""The nodes as processes: their settings, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import psutil
import pytest
from node_processes import output_until, shared_memory, shared_memory_of, start
from repository import REPOSITORY
from toy_student import write_toy_student

from anyseg_core.processes import available_cores
from anyseg_ros.process import setup as process_setup

TIMEOUT_S = 60


def test_the_profile_is_where_it_is_said_to_be_and_enlarges_shared_memory() -> None:
    root = ElementTree.parse(process_setup.profile_path()).getroot()
    values = {element.tag.rpartition("}")[2]: element.text for element in root.iter()}
    assert int(values["segment_size"] or 0) == 64 << 20
    assert int(values["maxMessageSize"] or 0) == 16 << 20


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(process_setup.PROFILE_ENV, "mine.xml")
    monkeypatch.delenv("MALLOC_TOP_PAD_", raising=False)
    environment = process_setup.process_environment()
    assert environment[process_setup.PROFILE_ENV] == "mine.xml"
    assert environment["MALLOC_TOP_PAD_"] == process_setup.MALLOC_ENV["MALLOC_TOP_PAD_"]


@pytest.mark.parametrize("distribution", ["humble", "kilted"])
def test_the_profile_s_variable_of_older_distributions(monkeypatch: pytest.MonkeyPatch, distribution: str) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    assert ("FASTRTPS_DEFAULT_PROFILES_FILE" in process_setup.process_environment()) == (distribution == "humble")


def end(process: subprocess.Popen[str], signals: Sequence[signal.Signals]) -> tuple[int, str]:
    """Send the signals; the exit code and the rest of the output."""
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    rest, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, rest


@pytest.mark.ros
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT, signal.SIGTERM]],
    ids=["SIGINT", "SIGTERM", "both"],
)
def test_the_node_ends_in_order_on_a_signal(tmp_path: Path, signals: list[signal.Signals]) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    student = write_toy_student(tmp_path / "toy")
    of_others = shared_memory()
    process = start("node.segmentation_node", "autostart:=true", f"model.student:={student}")
    output_until(process, "configured: toy")
    own = shared_memory_of(process) - of_others
    assert own
    code, rest = end(process, signals)
    assert (code, "Traceback" in rest) == (0, False), rest
    assert not own & shared_memory()


STARTS_A_NODE = """
import sys
from pathlib import Path
from anyseg_ros.live_run.child_process import child_process, ros_arguments
parameters = {"autostart": True, "model.student": sys.argv[1]}
with child_process("node.segmentation_node", ros_arguments(parameters), Path(sys.argv[2])) as process:
    print(process.pid, flush=True)
    process.wait()
"""


@pytest.mark.ros
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's parent-death signal is Linux'")
def test_a_node_ends_with_the_command_that_started_it(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    student, log = write_toy_student(tmp_path / "toy"), tmp_path / "segmentation_node.log"
    command = [sys.executable, "-c", STARTS_A_NODE, str(student), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        node = psutil.Process(int(parent.stdout.readline()))
        while "configured: toy" not in log.read_text():
            assert node.is_running()
            time.sleep(0.05)
        parent.kill()
    assert not psutil.wait_procs([node], TIMEOUT_S)[1]
    assert "Traceback" not in log.read_text()


@pytest.mark.ros
@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (["autostart:=true", "model.student:=/nowhere"], "no student '/nowhere'"),
        (["autostart:=true", "model.threads:=many"], "model.threads: must be an integer"),
        (["autostart:=true", "modle.threads:=1"], "did you mean model.threads?"),
        (["autostart:=true", "model.backend:=tensorflow"], "backend must be one of"),
        (["autostart:=maybe"], "autostart: must be true or false"),
    ],
)
def test_a_node_that_starts_itself_and_cannot_be_configured_ends_with_1_and_says_why(
    parameters: list[str], says: str
) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    process = start("node.segmentation_node", *parameters)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1, output
    assert "cannot configure" in output
    assert says in output
    assert "Traceback" not in output


@pytest.mark.ros
@pytest.mark.parametrize(
    ("arguments", "domain", "says"),
    [
        (["--studnt", "x"], "7", "no such option: --studnt"),
        (["-p", "model.student"], "7", "write name:=value"),
        (["-p"], "7", "-p needs a value"),
        (["--params-file", "{tmp_path}/none.yaml"], "7", "none.yaml: there is no file"),
        (["--params-file", "{tmp_path}/bare.yaml"], "7", "sync has no `ros__parameters:`"),
        (["--params-file", "{tmp_path}/twice.yaml"], "7", "key 'sync' stands twice"),
        (["--log-level", "loud"], "7", "ROS 2 does not start"),
        ([], "abc", "ROS_DOMAIN_ID=abc is no domain"),
        ([], "233", "whole number from 0 to 232"),
        ([], "-1", "ROS_DOMAIN_ID=-1"),
        (["-r", "__ns:=/" + "n" * 230], "7", "topic length should not exceed 247 characters: '/nnn"),
    ],
)
def test_what_ros_does_not_take_is_one_line_and_code_2(
    tmp_path: Path, arguments: list[str], domain: str, says: str
) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    twice = "/**:\n  ros__parameters:\n    sync: {deadline_ms: 10.0}\n    sync: {join_wait_ms: 1.0}\n"
    (tmp_path / "twice.yaml").write_text(twice)
    (tmp_path / "bare.yaml").write_text("/**:\n  sync: 1\n")
    words = [word.format(tmp_path=tmp_path) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "anyseg_ros.node.segmentation_node", "--ros-args", *words],
        cwd=REPOSITORY, env={**os.environ, "ROS_DOMAIN_ID": domain}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if "[rcl]" not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0]


@pytest.mark.ros
def test_a_second_node_of_the_same_name_is_warned_of(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    student = write_toy_student(tmp_path / "toy")
    nodes = [start("node.segmentation_node", f"model.student:={student}") for _ in range(2)]
    for node in nodes:
        assert "another node named /segmentation_node is on this domain" in output_until(node, "another node named")
    for node in nodes:
        assert end(node, [signal.SIGINT])[0] == 0


@pytest.mark.ros
@pytest.mark.parametrize(("student", "code"), [("toy", 0), ("nowhere", 1)])
def test_build_only_ends_with_the_verdict(tmp_path: Path, student: str, code: int) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    write_toy_student(tmp_path / "toy")
    process = start("node.segmentation_node", "model.build_only:=true", f"model.student:={tmp_path / student}")
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == code


@pytest.mark.ros
def test_the_simulated_vehicle_drives_a_recording(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")
    from ros_harness import RIG, live_frame

    from anyseg_core.runtime.sensors import DEFAULT_SENSORS
    from anyseg_core.sim.drive import DriveFrame
    from anyseg_core.sim.recorded_drive import RecordedDrive

    labels = np.zeros((RIG.camera.height, RIG.camera.width), np.uint8)
    stamps = [i * 100_000_000 for i in range(3)]
    frames = [DriveFrame(stamp, {m: live_frame(m, stamp) for m in DEFAULT_SENSORS}, labels) for stamp in stamps]
    recording = tmp_path / "drive.npz"
    RecordedDrive.of(frames, RIG).save(recording)
    process = start("vehicle.simulated_vehicle_node", f"recording:={recording}")
    assert "3 frames at 10.0 Hz" in output_until(process, "driving")
    code, rest = end(process, [signal.SIGINT])
    assert (code, "Traceback" in rest) == (0, False), rest


@pytest.mark.ros
def test_the_simulated_vehicle_renders_first_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for expected in ("rendering the drive first", "rendered before"):
        process = start("vehicle.simulated_vehicle_node", "duration_s:=0.2")
        output = output_until(process, "driving: 2 frames at 10.0 Hz")
        assert expected in output
        code, rest = end(process, [signal.SIGINT])
        assert (code, "Traceback" in rest) == (0, False), rest
    assert len(list((tmp_path / "anyseg_ros").iterdir())) == 1


@pytest.mark.ros
def test_the_simulated_vehicle_says_why_it_cannot_render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")
    (tmp_path / "anyseg_ros").write_text("a file where the cache folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    process = start("vehicle.simulated_vehicle_node", "duration_s:=0.2")
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert f"cannot keep the drive in {tmp_path / 'anyseg_ros'}" in output
    assert "Traceback" not in output


@pytest.mark.ros
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_rendering_with_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    process = start("vehicle.simulated_vehicle_node", "duration_s:=60.0")
    output_until(process, "rendering the drive first")
    renderers: list[psutil.Process] = []
    while len(renderers) < min(
        2, available_cores()
    ):  # the rendering process, and a worker where there is a core for one
        assert process.poll() is None
        time.sleep(0.1)
        renderers = psutil.Process(process.pid).children(recursive=True)
    code, rest = end(process, [number])
    assert (code, "Traceback" in rest, "leaked" in rest) == (0, False, False), rest
    alive = [p for p in renderers if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert alive == []
    assert list((tmp_path / "anyseg_ros").glob("*")) == []


@pytest.mark.ros
@pytest.mark.parametrize("name", ["segmentation_node", "simulated_vehicle", "injector_node"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_ends_with_code_0(name: str, number: signal.Signals) -> None:
    script = f"""
import os, signal, sys
class SignalOnImport:
    def find_spec(self, module, *_):
        if module == "rclpy":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, SignalOnImport())
from anyseg_ros import entry_points
entry_points.{name}()
"""
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, timeout=TIMEOUT_S, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.ros
def test_the_simulated_vehicle_names_bad_input(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")
    process = start("vehicle.simulated_vehicle_node", f"recording:={tmp_path / 'none.npz'}")
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2
    assert "no recording at" in output
    assert "Traceback" not in output
