"""ONNX -> TensorRT plan: one optimisation profile per number of live modalities, progress, and what came out of it.

One form for TensorRT 10.3 to 11.x and TensorRT-RTX: networks are strongly typed, so the precision is that of the types
in the ONNX file, and no interface is used that one of these versions lacks (test_engine_bindings.py holds it to that).
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from anyseg_core.runtime.engines.network import Network, content_of
from anyseg_core.runtime.engines.protocol import BuildCancelledError, BuildProgress, EngineError, OnProgress
from anyseg_core.runtime.extras import pip_command
from anyseg_core.runtime.network_content import NetworkContent

LIBRARIES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
"""Python modules that offer this interface, in the order of preference."""
OLDEST = (10, 3)
WORKSPACE_BYTES = 1 << 30
"""For trying out tactics: enough for these networks, and little enough for a Jetson's shared memory."""
IMAGES, MODALITY = "images", "modality"
REPORT_EVERY_S = 0.5


@dataclass(frozen=True)
class TensorrtLibrary:
    """TensorRT's Python module."""

    module: ModuleType
    name: str
    """Such as `TensorRT 10.3.0`."""


def load_library() -> TensorrtLibrary:
    """The first of `LIBRARIES` that can be loaded. Raises EngineError that says what is missing."""
    reasons: list[str] = []
    for name, title in LIBRARIES.items():
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                reasons.append(f"{title} is incomplete: {error}")
            continue
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{title} cannot be loaded: {error}")
            continue
        version = str(module.__version__)
        if name == "tensorrt" and _major_minor(version) < OLDEST:
            reasons.append(f"TensorRT {version} is older than {OLDEST[0]}.{OLDEST[1]}")
            continue
        return TensorrtLibrary(module, f"{title} {version}")
    raise EngineError("; ".join(reasons) or f"TensorRT is not installed ({pip_command('gpu')})")


def _major_minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


class TensorrtLog:
    """TensorRT's log: it answers a failed call with None or False and tells the cause here."""

    def __init__(self, trt: Any) -> None:
        errors: deque[str] = deque(maxlen=3)
        severities = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

        class Logger(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in severities:
                    errors.append(msg)

        self._errors = errors
        self.logger = Logger()

    def cause(self) -> str:
        """What was logged since the last call."""
        text = "; ".join(self._errors) or "TensorRT gives no reason"
        self._errors.clear()
        return text


def build_plan(
    library: TensorrtLibrary,
    network: Network,
    counts: Sequence[int],
    precision: str = "auto",
    on_progress: OnProgress = lambda _progress: True,
) -> bytes:
    """Build the plan of a network of the student contract, with one profile for each of `counts` live modalities.

    Raises EngineError where the file cannot be read, parsed or built, BuildCancelledError where `on_progress` gave
    False.
    """
    trt: Any = library.module
    log = TensorrtLog(trt)
    builder = trt.Builder(log.logger)
    definition = builder.create_network(_strongly_typed(trt))
    _parse(trt, definition, content_of(network), log)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the inspector
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    _add_profiles(builder, config, definition, counts)
    monitor = _progress_monitor(trt, on_progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(definition, config)
    if plan is None:
        if monitor.cancelled:
            raise BuildCancelledError(f"the build of {network} was given up")
        raise EngineError(f"{library.name} cannot build {network}: {log.cause()}")
    return bytes(memoryview(plan))


def _strongly_typed(trt: Any) -> int:
    """Flags of the network; of which TensorRT 11 knows neither any more needs to be told."""
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        flags |= 0 if flag is None else 1 << int(flag)
    return flags


def _parse(trt: Any, definition: Any, network: NetworkContent, log: TensorrtLog) -> None:
    parser = trt.OnnxParser(definition, log.logger)
    if not parser.parse(network.alone(), str(network)):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(f"TensorRT cannot parse {network}: {'; '.join(errors) or log.cause()}")
    names = {definition.get_input(i).name for i in range(definition.num_inputs)}
    if names != {IMAGES, MODALITY}:
        raise EngineError(
            f"{network} is not a network of the student contract: its inputs are {', '.join(sorted(names))}. "
            "Export the student again with `anyseg export`."
        )


def _add_profiles(builder: Any, config: Any, definition: Any, counts: Sequence[int]) -> None:
    """Smallest, best and largest shape are the same: each profile is tuned for one number of modalities."""
    for count in counts:
        profile = builder.create_optimization_profile()
        for i in range(definition.num_inputs):
            tensor = definition.get_input(i)
            shape = (count, *tuple(tensor.shape)[1:])
            profile.set_shape(tensor.name, shape, shape, shape)
        config.add_optimization_profile(profile)


class PhaseTree:
    """TensorRT's build as a tree of phases with steps -> one percentage that never falls."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._percent = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._phases[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, step: int) -> None:
        if name in self._phases:
            self._phases[name].done = step + 1

    def finish(self, name: str) -> None:
        phase = self._phases.pop(name, None)
        if phase is not None and phase.parent is None:
            self._percent = 100.0

    @property
    def percent(self) -> float:
        """0 to 100."""
        roots = [self._fraction(name) for name, phase in self._phases.items() if phase.parent is None]
        self._percent = max([self._percent, *(100 * min(root, 1.0) for root in roots)])
        return self._percent

    def _fraction(self, name: str) -> float:
        phase = self._phases[name]
        children = [self._fraction(child) for child, other in self._phases.items() if other.parent == name]
        return (phase.done + min(sum(children), 1.0)) / phase.steps


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


def _progress_monitor(trt: Any, on_progress: OnProgress) -> Any:
    """TensorRT calls it on threads of its own; False from `step_complete` ends the build."""

    class ProgressMonitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._tree = PhaseTree()
            self._started_s = time.monotonic()
            self._reported_s = float("-inf")

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._tree.start(phase_name, parent_phase, num_steps)
            self._report()

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tree.step(phase_name, step)
            return self._report()

        def phase_finish(self, phase_name: str) -> None:
            self._tree.finish(phase_name)

        def _report(self) -> bool:
            now_s = time.monotonic()
            if now_s - self._reported_s >= REPORT_EVERY_S:
                self._reported_s = now_s
                progress = BuildProgress("building", self._tree.percent, self._started_s)
                self.cancelled = self.cancelled or not on_progress(progress)
            return not self.cancelled

    return ProgressMonitor()


@dataclass(frozen=True)
class PlanSummary:
    """What TensorRT has really built, as its inspector tells."""

    main_type: str
    """The type of most layers' outputs, such as `fp16`."""
    precision: str
    """All of these types with the number of layers, the most frequent first: `fp16 (41), fp32 (3)`."""
    tactics: str
    """Number of layers and of kernels, and whether some of them use TF32."""


TYPE_NAMES = {
    "fp32": ("FP32", "Float"),
    "fp16": ("FP16", "Half"),
    "bf16": ("BF16", "BFloat16"),
    "int8": ("Int8", "INT8"),
    "fp8": ("FP8",),
}
"""How versions of the inspector call the types, in fields such as `Row major linear FP32` or `Half`."""


def summarise(inspector_json: str) -> PlanSummary:
    """The inspector's JSON (`LayerInformationFormat.JSON`, verbosity DETAILED) in two short texts."""
    try:
        layers = json.loads(inspector_json).get("Layers", [])
    except (ValueError, AttributeError):
        return PlanSummary("unknown", "unknown", "the inspector's answer cannot be read")
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    types = Counter(name for layer in detailed for name in {_type_of(out) for out in layer.get("Outputs", [])} if name)
    kernels = {layer["TacticName"] for layer in detailed if layer.get("TacticName")}
    tf32 = sum("tf32" in kernel.lower() for kernel in kernels)
    tactics = f"{len(layers)} layers, {len(kernels)} kernels" + (f", {tf32} of them TF32" if tf32 else "")
    counted = types.most_common() or [("unknown", len(layers))]
    return PlanSummary(counted[0][0], ", ".join(f"{name} ({n})" for name, n in counted), tactics)


def _type_of(output: Any) -> str | None:
    """The floating-point or int8 type of a layer's output; None for indices and the like."""
    field = output.get("Format/Datatype", output.get("Datatype", "")) if isinstance(output, dict) else ""
    words = str(field).replace("/", " ").split()
    return next((name for name, spellings in TYPE_NAMES.items() if any(word in spellings for word in words)), None)
