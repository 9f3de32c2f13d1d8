"""Chooses an engine for a network, and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from anyseg_core.runtime.engines.network import Network, Parts, content_of
from anyseg_core.runtime.engines.protocol import BuildCancelledError, BuildOptions, Engine, EngineError


@dataclass(frozen=True, eq=False)
class EngineRequest:
    """What is to be opened, and how. An engine takes of it what it needs."""

    network: Network
    threads: int
    """0 = all cores."""
    build: BuildOptions
    """For engines that are built first."""
    reason: str
    """Why this engine was chosen."""
    parts: Parts | None
    """The network in two parts, where it has them."""


def open_engine(
    network: Network,
    backend: str = "auto",
    threads: int = 0,
    build: BuildOptions | None = None,
    reason: str = "asked for",
    parts: Parts | None = None,
) -> Engine:
    """Open the network with a backend of `BACKENDS`; `threads` 0 = all cores.

    onnxruntime takes the network's `parts` where it has some.

    `auto` takes TensorRT where it, a CUDA library and a GPU are there and work, else the CPU; `info.reason` says which
    of them was missing. A backend that was asked for by name is never replaced by another one.

    Raises EngineError when the backend is unknown or not usable here, or the file is no such network;
    BuildCancelledError.
    """
    build = build or BuildOptions()
    network = content_of(network)
    if backend not in BACKENDS:
        raise EngineError(f"unknown backend {backend!r}; known backends: {', '.join(BACKENDS)}")
    request = EngineRequest(network, threads, build, reason, parts)
    return _open_best(request) if backend == AUTO else ENGINES[backend](request)


def _open_tensorrt_or_nothing(request: EngineRequest) -> Engine:
    try:
        return _open_tensorrt(request)
    except BuildCancelledError:
        raise
    except EngineError as error:
        remedy = "`anyseg doctor` shows what is there; set model.backend to auto or onnxruntime to run on the CPU"
        raise EngineError(f"tensorrt was asked for and cannot be used: {error}. {remedy}") from error


def _open_best(request: EngineRequest) -> Engine:
    try:
        return _open_tensorrt(replace(request, reason="auto: TensorRT and a GPU are here"))
    except BuildCancelledError:
        raise
    except EngineError as error:
        return _open_onnx(replace(request, reason=f"auto: the CPU, because {error}"))


def _open_onnx(request: EngineRequest) -> Engine:
    from anyseg_core.runtime.engines.onnx import OnnxEngine, OnnxPartsEngine

    if request.parts is not None:
        return OnnxPartsEngine(request.parts, threads=request.threads, reason=request.reason)
    return OnnxEngine(request.network, threads=request.threads, reason=request.reason)


def _open_openvino(request: EngineRequest) -> Engine:
    from anyseg_core.runtime.engines.openvino import OpenvinoEngine

    return OpenvinoEngine(request.network, request.threads, request.reason)


def _open_tensorrt(request: EngineRequest) -> Engine:
    from anyseg_core.runtime.engines.tensorrt import TensorrtEngine

    return TensorrtEngine(request.network, request.build, request.reason)


AUTO = "auto"
ENGINES: dict[str, Callable[[EngineRequest], Engine]] = {
    "onnxruntime": _open_onnx,
    "openvino": _open_openvino,
    "tensorrt": _open_tensorrt_or_nothing,
}
"""What opens an engine, by its name in `model.backend`. Add one here: a row, and its own file."""
BACKENDS = (AUTO, *ENGINES)
