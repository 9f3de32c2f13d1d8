"""The Engine protocol, and `open_engine`, which chooses one and says why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class EngineInfo:
    """What really runs (never the flag that was asked for)."""

    backend: str
    """`onnxruntime`, `tensorrt`."""
    device: str
    """`cpu`, `cuda:0`, ..."""
    precision: str
    """`fp32`, `fp16`, `int8`: that of the network file."""
    reason: str
    """Why this one was chosen."""


class EngineError(Exception):
    """An engine that cannot be opened or run; the message names the cause and the remedy."""


class Engine(Protocol):
    """Runs one network of a student. Used from one thread only."""

    info: EngineInfo

    def run(self, images: NDArray[np.uint8], modality: NDArray[np.int64]) -> tuple[Labels, Labels]:
        """images uint8 [M, H, W, 3], modality int64 [M] -> labels uint8 [H, W], confidence uint8 [H, W].

        Raises EngineError when inference fails.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; it must not be run again."""
        ...


BACKENDS = ("auto", "onnxruntime", "tensorrt")


def open_engine(network: Path, backend: str = "auto", threads: int = 0) -> Engine:
    """Open the network with a backend of `BACKENDS`; `threads` 0 = all cores.

    Raises EngineError when the backend is unknown or not usable here, or the file is no such network.
    """
    if backend not in BACKENDS:
        raise EngineError(f"unknown backend {backend!r}; known backends: {', '.join(BACKENDS)}")
    if backend == "tensorrt":
        raise EngineError("the TensorRT engine is not part of this version; set model.backend to onnxruntime or auto")
    from anyseg_core.runtime.engine_onnx import OnnxEngine  # deferred: only the chosen engine's library is loaded

    reason = "asked for" if backend == "onnxruntime" else "auto: the only engine of this version"
    return OnnxEngine(network, threads=threads, reason=reason)
