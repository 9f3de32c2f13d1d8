"""The Engine protocol, and `open_engine`, which chooses one and says why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.sensors import DEFAULT_SENSORS

Labels = NDArray[np.uint8]
Features = NDArray[np.float32]
"""[F]: what an encoder makes of one image."""


@dataclass(frozen=True)
class EngineInfo:
    """What really runs (never the flag that was asked for)."""

    backend: str
    """`onnxruntime`, `openvino`, `tensorrt`."""
    device: str
    """`cpu`, `cuda:0`, ..."""
    precision: str
    """`fp32`, `fp16`, `int8`: that of the network file; of TensorRT, what its inspector finds in the built engine."""
    reason: str
    """Why this one was chosen."""
    details: Mapping[str, str] = field(default_factory=dict)
    """What else is worth a line in diagnostics, such as library versions, tactics and memory."""
    warning: str = ""
    """What works but should be mended, such as a cache that cannot be written."""


class EngineError(Exception):
    """An engine that cannot be opened or run; the message names the cause and the remedy."""


class BuildCancelledError(EngineError):
    """The build of an engine was given up because its owner asked for it."""


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


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine on a device of its own, which leaves the calling thread free while the network runs."""

    def upload(self, modality: int, image: NDArray[np.uint8]) -> None:
        """Bring an image uint8 [H, W, 3] to the device ahead of its `start`, also while the network runs.

        Raises EngineError.
        """
        ...

    def start(self, images: Sequence[NDArray[np.uint8]], modality: NDArray[np.int64]) -> None:
        """Begin to run on M images uint8 [H, W, 3]; one that was uploaded (the same object) is not uploaded again.

        Raises EngineError.
        """
        ...

    def finish(self) -> tuple[Labels, Labels]:
        """Wait for what was started; returns what `run` does. Raises EngineError."""
        ...


class Encoded(NamedTuple):
    """What an encoder made of one image, and when: `time.perf_counter` at begin and end."""

    features: Features
    begun_s: float
    done_s: float


@runtime_checkable
class PartedEngine(Engine, Protocol):
    """An engine that encodes each image by itself: at once, beside others, and once for all sets that it will be in."""

    def encode(self, image: NDArray[np.uint8], modality: int) -> Future[Encoded]:
        """Begin to encode an image uint8 [H, W, 3], on threads of the engine's own.

        The result raises EngineError.
        """
        ...

    def decode(self, features: Sequence[Features]) -> tuple[Labels, Labels]:
        """What `run` returns, from the features of the images. Raises EngineError."""
        ...


class PartFiles(NamedTuple):
    """Where the two parts of a network are."""

    encoder: Path
    decoder: Path

    @classmethod
    def beside(cls, network: Path) -> PartFiles:
        """As the export names them."""
        return cls(*(network.with_name(f"{network.stem}_{part}.onnx") for part in cls._fields))


@dataclass(frozen=True)
class BuildProgress:
    """How far the build of an engine has come."""

    phase: str
    percent: float
    started_s: float
    """By `time.monotonic`."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the build began."""
        return time.monotonic() - self.started_s

    def __str__(self) -> str:
        return f"{self.phase}: {self.percent:.0f} %, {self.elapsed_s:.0f} s"


OnProgress = Callable[[BuildProgress], bool]
"""Told of a build's progress, on any thread; returns whether to go on."""


@dataclass(frozen=True)
class BuildOptions:
    """How an engine that has to be built is built; engines that need no build ignore it."""

    precision: str = "auto"
    """`auto`: the types of the network file, fp32 layers may use TF32. `fp32`: no TF32."""
    cache_dir: Path | None = None
    """Where built engines are kept; None = `plan_cache.default_folder()`."""
    max_modalities: int = len(DEFAULT_SENSORS)
    """Build for 1 up to this many live modalities."""
    only_all: bool = False
    """Build for that many alone, as a network with a fixed number of images needs it."""
    on_progress: OnProgress = lambda _progress: True

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of live modalities to build for."""
        return tuple(range(self.max_modalities if self.only_all else 1, self.max_modalities + 1))


# Imports are deferred: only the chosen engine's library is loaded.
