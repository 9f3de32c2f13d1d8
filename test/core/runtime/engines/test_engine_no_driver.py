"""CUDA's Python libraries without an NVIDIA driver, as torch's CUDA build brings them: the CPU is taken, and why."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorrt_double import TensorrtDouble
from toy_student import write_toy_student

from anyseg_core.runtime.engines.cuda.bindings import BindingsDevice, Graph
from anyseg_core.runtime.engines.cuda.device import DeviceError
from anyseg_core.runtime.engines.cuda.open_device import open_device
from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import BuildOptions, EngineError


class DynamicLibNotFoundError(RuntimeError):
    """As cuda.pathfinder has it."""


class NoDriver(ModuleType):
    """`cuda.bindings.driver` where there is no libcuda: every function raises, constants are there."""

    def __init__(self, error: Exception) -> None:
        super().__init__("cuda.bindings.driver")
        self._error = error

    def __getattr__(self, name: str) -> Any:
        def call(*_arguments: Any) -> Any:
            raise self._error

        return call


class BrokenImport(ModuleType):
    """`cuda.bindings` that is installed and cannot be loaded."""

    def __init__(self, error: Exception) -> None:
        super().__init__("cuda.bindings")
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if name == "driver":
            raise self._error
        raise AttributeError(name)


WITHOUT_DRIVER = {
    "12.9 and newer": DynamicLibNotFoundError('"cuda" is an NVIDIA driver library: ensure the driver is installed'),
    "older": RuntimeError("Failed to dlopen libcuda.so.1"),
}
BROKEN = {"import": ImportError("libnvrtc.so.12: cannot open"), "library": OSError("libcuda.so.1: invalid ELF header")}


@pytest.fixture(params=[*WITHOUT_DRIVER, *BROKEN, "installed here"])
def no_driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """cuda.bindings without a driver, as doubles and as it is installed; yields what the error must say of it."""
    name = request.param
    if name == "installed here":
        if not importlib.util.find_spec("cuda") or not importlib.util.find_spec("cuda.bindings"):
            pytest.skip("cuda-bindings is not installed")
        if Path("/proc/driver/nvidia/version").exists():
            pytest.skip("there is an NVIDIA driver")
        yield "cuda.bindings finds no NVIDIA driver"
        return
    broken = name in BROKEN
    package = BrokenImport(BROKEN[name]) if broken else ModuleType("cuda.bindings")
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", package)
    monkeypatch.setitem(sys.modules, "pycuda", None)  # type: ignore[arg-type]
    if not broken:
        package.driver = NoDriver(WITHOUT_DRIVER[name])  # type: ignore[attr-defined]
    yield "cuda.bindings cannot be loaded" if broken else "cuda.bindings finds no NVIDIA driver"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildOptions:
    """Options of an engine, with a TensorRT that would run if there were a GPU."""
    monkeypatch.setitem(sys.modules, "tensorrt", TensorrtDouble(lambda *_: None))  # type: ignore[arg-type]
    return BuildOptions(cache_dir=tmp_path / "engines")


def test_device_and_graph_say_that_there_is_no_driver(no_driver: str) -> None:
    with pytest.raises(DeviceError, match=no_driver):
        BindingsDevice()
    with pytest.raises(DeviceError, match=no_driver):
        Graph(stream=None, enqueue=lambda: None)  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match=rf"no GPU can be used here: .*pycuda.*{no_driver}"):
        open_device()


def test_auto_takes_the_cpu_and_says_why(no_driver: str, build: BuildOptions, tmp_path: Path) -> None:
    network = write_toy_student(tmp_path / "toy") / "student.onnx"
    info = open_engine(network, "auto", build=build).info
    assert info.backend == "onnxruntime"
    assert info.reason.startswith("auto: the CPU, because no GPU can be used here")
    assert no_driver in info.reason


def test_tensorrt_asked_for_is_one_clear_error(no_driver: str, build: BuildOptions, tmp_path: Path) -> None:
    network = write_toy_student(tmp_path / "toy") / "student.onnx"
    with pytest.raises(EngineError) as error:
        open_engine(network, "tensorrt", build=build)
    text = str(error.value)
    assert text.startswith("tensorrt was asked for and cannot be used: no GPU can be used here")
    assert no_driver in text
    assert text.endswith("set model.backend to auto or onnxruntime to run on the CPU")
    assert len(text.splitlines()) == 1
