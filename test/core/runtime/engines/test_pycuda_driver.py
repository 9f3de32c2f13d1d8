"""The TensorRT engine above real pycuda and cuda.bindings, on a test driver with the host's memory (no GPU).

The test driver does work as late as CUDA allows, so right labels are proof of the right order of copies. TensorRT
itself is a double.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from gpu_stub_process import command, environment, outcome, part
from toy_student import write_toy_student

pytestmark = [pytest.mark.gpu_stubs, pytest.mark.slow, pytest.mark.timeout(600)]

LIBRARIES = {
    "pycuda": ["pycuda"],
    "pycuda, graphs": ["pycuda", "cuda_bindings"],
    "cuda.bindings": ["cuda_bindings"],
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("toy"), size=(64, 96)) / "student.onnx"


def libraries(name: str) -> list[Path]:
    return [part(library) for library in LIBRARIES[name]]


@pytest.mark.parametrize("name", LIBRARIES)
def test_no_growth_nothing_left_right_labels_on_the_test_driver(network: Path, tmp_path: Path, name: str) -> None:
    found = outcome("scenarios.py", "life", network, tmp_path, *libraries(name), libraries=[part("driver")])
    assert found["right"] == 150
    assert set(found["grown"].values()) == {0}
    assert found["left"] == {}
    assert found["details"]["cuda"].startswith(name.partition(",")[0])
    graphs = found["details"]["cuda graphs"]
    assert graphs == "one for each profile" if "cuda_bindings" in LIBRARIES[name] else "not installed" in graphs


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_thread_ends_with_and_without_closing_its_engine_on_the_test_driver(
    network: Path, tmp_path: Path, name: str
) -> None:
    found = outcome("scenarios.py", "threads", network, tmp_path, *libraries(name), libraries=[part("driver")])
    assert (found["right"], found["left"], found["stack"]) == (15, {}, 0)
    assert "belongs to the thread that opened it" in found["close elsewhere"]


@pytest.mark.parametrize("name", LIBRARIES)
def test_after_any_failing_call_nothing_is_left_and_the_next_engine_runs_on_the_test_driver(
    network: Path, tmp_path: Path, name: str
) -> None:
    found = outcome("scenarios.py", "faults", network, tmp_path, *libraries(name), libraries=[part("driver")])
    assert found["faults"] > 100
    assert found["raised"] > 0.9 * found["faults"]  # a graph that cannot be recorded is done without
    assert found["left"] == []
    assert found["right"] == 4


@pytest.mark.parametrize("scenario", ["until_interrupted", "interrupted_without_close"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_ctrl_c_ends_the_process_cleanly_on_the_test_driver(
    network: Path, tmp_path: Path, name: str, scenario: str
) -> None:
    process = subprocess.Popen(
        command("scenarios.py", scenario, network, tmp_path, *libraries(name)),
        env=environment([part("driver")]),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    if scenario == "until_interrupted":
        assert process.returncode == 0, errors
        assert '"left": {}' in output
    else:
        assert process.returncode in (1, 130, -signal.SIGINT), errors  # KeyboardInterrupt, and no abort
        assert "KeyboardInterrupt" in errors


def test_without_a_device_the_error_says_so(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSEG_TEST_DRIVER_NO_DEVICE", "1")
    done = subprocess.run(
        command("scenarios.py", "life", network, tmp_path, *libraries("pycuda, graphs")),
        env=environment([part("driver")]),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "DeviceError: no GPU can be used here: CUDA: cuInit failed" in done.stderr
