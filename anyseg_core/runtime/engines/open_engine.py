"""Chooses an engine for a network, and says why."""

from __future__ import annotations

from anyseg_core.runtime.engines.network import Network, Parts, content_of
from anyseg_core.runtime.engines.protocol import BuildCancelledError, BuildOptions, Engine, EngineError

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt")


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
    if backend == "auto":
        return _open_best(network, threads, build, parts)
    if backend == "tensorrt":
        return _open_tensorrt_or_nothing(network, build, reason)
    if backend == "openvino":
        return _open_openvino(network, threads, reason)
    return _open_onnx(network, threads, reason, parts)


def _open_tensorrt_or_nothing(network: Network, build: BuildOptions, reason: str) -> Engine:
    try:
        return _open_tensorrt(network, build, reason)
    except BuildCancelledError:
        raise
    except EngineError as error:
        remedy = "`anyseg doctor` shows what is there; set model.backend to auto or onnxruntime to run on the CPU"
        raise EngineError(f"tensorrt was asked for and cannot be used: {error}. {remedy}") from error


def _open_best(network: Network, threads: int, build: BuildOptions, parts: Parts | None) -> Engine:
    try:
        return _open_tensorrt(network, build, "auto: TensorRT and a GPU are here")
    except BuildCancelledError:
        raise
    except EngineError as error:
        return _open_onnx(network, threads, f"auto: the CPU, because {error}", parts)


def _open_onnx(network: Network, threads: int, reason: str, parts: Parts | None) -> Engine:
    from anyseg_core.runtime.engines.onnx import OnnxEngine, OnnxPartsEngine

    if parts is not None:
        return OnnxPartsEngine(parts, threads=threads, reason=reason)
    return OnnxEngine(network, threads=threads, reason=reason)


def _open_openvino(network: Network, threads: int, reason: str) -> Engine:
    from anyseg_core.runtime.engines.openvino import OpenvinoEngine

    return OpenvinoEngine(network, threads, reason)


def _open_tensorrt(network: Network, build: BuildOptions, reason: str) -> Engine:
    from anyseg_core.runtime.engines.tensorrt import TensorrtEngine

    return TensorrtEngine(network, build, reason)
