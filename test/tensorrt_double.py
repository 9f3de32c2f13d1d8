"""TensorRT where there is no GPU to run it on: it "builds" the toy student and computes it in numpy.

Given a real module of bindings, the double is as strict as that: what the bindings do not have cannot be touched, and a
call has to fit one of the signatures that they document. Enumerations, logger and progress monitor are the real ones.
"""

# ruff: noqa: ARG002, ARG005 (the arguments are those of the bindings)
from __future__ import annotations

import ctypes
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from cuda_double import DeviceDouble
from toy_student import toy_output

from anyseg_core.runtime.engines import tensorrt as engine_tensorrt

Launch = Callable[[int, Callable[[], None]], None]
"""Puts a computation on the stream of that handle."""


class TensorrtDouble:
    """The module. `launch` runs kernels; `real` is the module whose interface is kept to, None = anything goes."""

    def __init__(self, launch: Launch, real: ModuleType | None = None, version: str = "10.3.0") -> None:
        self.__version__ = real.__version__ if real else version
        self.double = _State(launch, real)
        self.Builder = lambda logger: self.double.strict("Builder", _Builder(self.double))
        self.OnnxParser = lambda net, logger: self.double.strict("OnnxParser", _Parser(net))
        self.Runtime = lambda logger: self.double.strict("Runtime", _Runtime(self.double, logger))

    def __getattr__(self, name: str) -> Any:
        source: Any = self.double.real or _Plain
        return getattr(source, name)


def install_doubles(patch: pytest.MonkeyPatch, device: DeviceDouble) -> TensorrtDouble:
    """Let `engine_tensorrt` find this GPU, and a TensorRT that runs on it, whatever is installed here.

    Without cuda.bindings: the real ones, which torch's CUDA build brings, know nothing of the double's streams.
    """
    double = TensorrtDouble(device.launch)
    patch.setattr(engine_tensorrt, "open_device", device.reopened)
    patch.setitem(sys.modules, "tensorrt", double)  # type: ignore[arg-type]
    patch.setitem(sys.modules, "cuda.bindings", None)  # type: ignore[arg-type]
    return double


class _State:
    """What a test sets and looks at."""

    def __init__(self, launch: Launch, real: ModuleType | None) -> None:
        self.launch = launch
        self.real = real
        self.builds = 0
        self.build_steps = 3
        self.refused_plans = 0
        """So many plans are refused from now on, as those of another GPU are."""
        self.execute_fails = False
        self.labels_add = 0
        """Added to every label: a network that gives bad output."""
        self.alive = 0
        """Execution contexts."""

    def strict(self, name: str, behaviour: Any) -> Any:
        return Strict(behaviour, getattr(self.real, name) if self.real else None)


class Strict:
    """A behaviour behind the interface of a real class."""

    def __init__(self, behaviour: Any, real: type | None) -> None:
        self.__dict__.update(behaviour=behaviour, real=real)

    def __getattr__(self, name: str) -> Any:
        documented = None if self.real is None else getattr(self.real, name)  # AttributeError where there is none
        value = getattr(self.behaviour, name)
        if not callable(value) or documented is None:
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            check_call(documented, arguments, named)
            return value(*arguments, **named)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if self.real is not None:
            member = inspect.getattr_static(self.real, name)
            assert getattr(member, "fset", True) is not None, f"{self.real}.{name} cannot be set"
        setattr(self.behaviour, name, value)


def check_call(documented: Any, arguments: Sequence[Any], named: dict[str, Any]) -> None:
    """TypeError where no signature in pybind11's docstring takes these arguments."""
    signatures = re.findall(r"^(?:\d+\. )?\w+\(self: [\w.]+(.*)\) -> ", documented.__doc__ or "", re.MULTILINE)
    assert signatures, f"no signature in {documented.__doc__!r}"
    if not any(_fits(signature, arguments, named) for signature in signatures):
        raise TypeError(f"{documented.__doc__.splitlines()[0]} called with {arguments} {named}")


def _fits(signature: str, arguments: Sequence[Any], named: dict[str, Any]) -> bool:
    parts = [part for part in re.split(r", (?=\w+: )", signature) if part]
    names = [part.partition(":")[0] for part in parts]
    types = [part.partition(": ")[2].partition(" = ")[0] for part in parts]
    required = [name for name, part in zip(names, parts, strict=True) if " = " not in part]
    given = {**dict(zip(names, arguments, strict=False)), **named}
    return (
        len(arguments) <= len(names)
        and set(named) <= set(names)
        and set(required) <= set(given)
        and all(_is_a(given[name], kind) for name, kind in zip(names, types, strict=True) if name in given)
    )


def _is_a(value: Any, kind: str) -> bool:
    kind = kind.rsplit(".", 1)[-1]
    if isinstance(value, Strict):
        return value.real is not None and value.real.__name__ == kind
    plain = {"int": int, "SupportsInt": int, "str": str, "bool": bool, "tuple": tuple, "list": list, "Dims": tuple}
    if kind in ("buffer", "Buffer"):
        return isinstance(value, (bytes, memoryview))
    return isinstance(value, plain[kind]) if kind in plain else type(value).__name__ == kind


class _Plain:
    """What the engine needs of the module's constants, where no real bindings are there."""

    class ILogger:
        class Severity(Enum):
            INTERNAL_ERROR, ERROR, WARNING = range(3)

    class IProgressMonitor:
        pass

    class NetworkDefinitionCreationFlag:
        EXPLICIT_BATCH, STRONGLY_TYPED = 0, 1

    BuilderFlag = Enum("BuilderFlag", ["TF32"])
    MemoryPoolType = Enum("MemoryPoolType", ["WORKSPACE"])
    ProfilingVerbosity = Enum("ProfilingVerbosity", ["DETAILED"])
    ExecutionContextAllocationStrategy = Enum("ExecutionContextAllocationStrategy", ["USER_MANAGED"])
    LayerInformationFormat = Enum("LayerInformationFormat", ["JSON"])
    DataType = Enum("DataType", ["UINT8", "INT64"])


class _Tensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class _Network:
    def __init__(self) -> None:
        self.inputs: list[_Tensor] = []
        self.class_count = 0

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> _Tensor:
        return self.inputs[index]


class _Parser:
    def __init__(self, network: Strict) -> None:
        self._network = network.behaviour
        self.num_errors = 0

    def get_error(self, index: int) -> str:
        return "no ONNX file"

    def parse(self, model: bytes, path: str) -> bool:
        try:
            graph = onnx.load_from_string(model).graph
            constants = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
        except Exception:
            self.num_errors = 1
            return False
        for tensor in graph.input:
            dims = tensor.type.tensor_type.shape.dim
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
            self._network.inputs.append(_Tensor(tensor.name, shape))
        self._network.class_count = int(constants["class_count"][0])
        return True


class _Config:
    def __init__(self) -> None:
        self.profiles: list[_Profile] = []
        self.progress_monitor: Any = None
        self.profiling_verbosity: Any = None
        self.cleared: list[Any] = []

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        assert pool_size > 0

    def clear_flag(self, flag: Any) -> None:
        self.cleared.append(flag)

    def add_optimization_profile(self, profile: Strict) -> int:
        self.profiles.append(profile.behaviour)
        return len(self.profiles) - 1


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        assert min == opt == max
        self.shapes[input] = min


class _Builder:
    def __init__(self, state: _State) -> None:
        self._state = state

    def create_network(self, flags: int) -> Any:
        return self._state.strict("INetworkDefinition", _Network())

    def create_builder_config(self) -> Any:
        return self._state.strict("IBuilderConfig", _Config())

    def create_optimization_profile(self) -> Any:
        return self._state.strict("IOptimizationProfile", _Profile())

    def build_serialized_network(self, network: Strict, config: Strict) -> bytes | None:
        self._state.builds += 1
        monitor, steps = config.behaviour.progress_monitor, self._state.build_steps
        monitor.phase_start("Building engine", None, steps)
        for step in range(steps):
            if not monitor.step_complete("Building engine", step):
                return None
        monitor.phase_finish("Building engine")
        shapes = [profile.shapes for profile in config.behaviour.profiles]
        return json.dumps({"profiles": shapes, "class_count": network.behaviour.class_count}).encode()


class _Runtime:
    def __init__(self, state: _State, logger: Any) -> None:
        self._state, self._logger = state, logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        if self._state.refused_plans > 0:
            self._state.refused_plans -= 1
            severity = (self._state.real or _Plain).ILogger.Severity.ERROR  # type: ignore[union-attr]
            self._logger.log(severity, "the engine plan was made on another device")
            return None
        return self._state.strict("ICudaEngine", _Engine(self._state, json.loads(serialized_engine)))


class _Engine:
    NAMES = ("images", "modality", "labels", "confidence")

    def __init__(self, state: _State, plan: dict[str, Any]) -> None:
        self.state = state
        self.class_count = plan["class_count"]
        self.profiles = plan["profiles"]
        self.num_io_tensors = 4
        self.num_optimization_profiles = len(self.profiles)
        self.size = tuple(self.profiles[0]["images"][1:3])

    def get_tensor_name(self, index: int) -> str:
        return self.NAMES[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {"images": (-1, *self.size, 3), "modality": (-1,)}.get(name, self.size)

    def get_tensor_dtype(self, name: str) -> Any:
        types: Any = (self.state.real or _Plain).DataType
        return types.INT64 if name == "modality" else types.UINT8

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return 1000 * self.profiles[profile_index]["images"][0]

    def create_engine_inspector(self) -> Any:
        return self.state.strict("EngineInspector", _Inspector())

    def create_execution_context(self, strategy: Any) -> Any:
        return self.state.strict("IExecutionContext", _Context(self))


class _Inspector:
    def get_engine_information(self, format: Any) -> str:
        kernel = {"Name": "k", "TacticName": "toy_fp16", "Outputs": [{"Format/Datatype": "Row major linear FP16"}]}
        return json.dumps({"Layers": [kernel, kernel], "Bindings": []})


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine, self._state = engine, engine.state
        self._addresses: dict[str, int] = {}
        self._count = 0
        self._profile: dict[str, Any] = {}
        self._memory = 0
        self._state.alive += 1

    def __del__(self) -> None:
        self._state.alive -= 1

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = self._engine.profiles[profile_index]
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._count = shape[0]
        return list(shape) == self._profile[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in _Engine.NAMES if name not in self._addresses]

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= 1000 * self._count
        self._memory = memory

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self._memory, "no working memory"
        if not self._state.execute_fails:
            self._state.launch(stream_handle, self._compute)
        return not self._state.execute_fails

    def _compute(self) -> None:
        height, width = self._engine.size
        images = _view(self._addresses["images"], (self._count, height, width, 3), np.uint8)
        modality = _view(self._addresses["modality"], (self._count,), np.int64)
        labels, confidence = toy_output(images, modality, self._engine.class_count)
        _view(self._addresses["labels"], (height, width), np.uint8)[...] = labels + self._state.labels_add
        _view(self._addresses["confidence"], (height, width), np.uint8)[...] = confidence


def _view(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)
