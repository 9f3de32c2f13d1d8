"""A student on the worker's thread: its engines are built, opened, used, and opened again after a failure."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from enum import Enum

from anyseg_core.runtime.engines.protocol import BuildOptions, BuildProgress, EngineError, EngineInfo
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.model_card import ModelCard, StudentError
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import SensorFrame
from anyseg_ros.pipeline.engine_recovery import FALLBACK, EngineRecovery
from anyseg_ros.pipeline.jobs import Job, Result, segment

FALLEN_BACK = "the engine failed and the CPU took over; configure the node again to go back"


class EnginePhase(Enum):
    """What the engine is doing."""

    OPENING = "opening"
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class EngineState:
    """For diagnostics."""

    phase: EnginePhase
    info: EngineInfo | None = None
    """What runs; None while nothing can run."""
    progress: BuildProgress | None = None
    """Of the build, while there is one."""
    error: str = ""
    """Of a failure that is not mended yet."""
    failures: int = 0
    """How often it failed in use."""
    warning: str = ""
    """What works but should be mended."""


@dataclass(frozen=True)
class EngineSettings:
    """Which engine, and what to do when it fails; as `parameters.ModelParameters` has them."""

    backend: str = "auto"
    threads: int = 0
    build: BuildOptions = field(default_factory=BuildOptions)
    on_failure: str = FALLBACK
    open_timeout_s: float = 120.0
    """For opening and warming up; an engine that is built first says so in time and may take longer."""


class EngineOwner:
    """The one owner of a segmenter: opens its engines, runs them and mends them.

    All but `card`, `state`, `cancel` and `answered` belong to the worker's thread.
    """

    def __init__(self, segmenter: Segmenter, settings: EngineSettings) -> None:
        self._segmenter = segmenter
        self._settings = settings
        self._recovery = EngineRecovery(settings.on_failure, settings.backend)
        self._failures = 0
        self._cancelled = False
        self.state = EngineState(EnginePhase.OPENING)
        self.answered = threading.Event()
        """Set when the engine is open, cannot be opened, or has begun to be built, which takes minutes."""

    @property
    def card(self) -> ModelCard:
        """Of the student."""
        return self._segmenter.card

    @property
    def is_building(self) -> bool:
        """Whether an engine is being built now."""
        return self.state.phase is EnginePhase.BUILDING

    def open(self) -> None:
        """Open the engines for the first time. Raises StudentError or EngineError, as `Segmenter.open_engines` does."""
        try:
            self._open(self._settings.backend, "asked for")
        except (EngineError, StudentError) as error:
            self.state = EngineState(EnginePhase.FAILED, error=str(error))
            raise
        finally:
            self.answered.set()

    def restore(self) -> bool:
        """Open the engine again where it failed and it is time to; returns whether it was opened now.

        Raises EngineError while it is not in order.
        """
        if not self._recovery.needed:
            return False
        attempt = self._recovery.attempt(time.monotonic())
        if attempt is None:
            raise EngineError(f"the engine failed and will be opened again: {self._recovery.error}")
        try:
            self._open(attempt.backend, attempt.reason)
        except (EngineError, StudentError) as error:
            self._recovery.on_not_opened(error, time.monotonic())
            self._set_failed()
            raise EngineError(f"the engine cannot be opened again: {error}") from error
        self._recovery.on_opened(time.monotonic())
        return True

    def segment(self, job: Job, min_confidence: float) -> Result:
        """As `jobs.segment`. Raises InputError, and EngineError after which `restore` opens the engine again."""
        try:
            return segment(self._segmenter, job, min_confidence)
        except EngineError as error:
            self._on_failure(error)
            raise

    def encode(self, frame: SensorFrame, rig: Rig | None) -> None:
        """Prepare a frame for the masks to come. Raises InputError and EngineError, as `Segmenter.encode` does."""
        self._segmenter.encode(frame, rig)

    def close(self) -> None:
        """Free the engines."""
        self._segmenter.close()

    def cancel(self) -> None:
        """Give up a build that is going on, from any thread."""
        self._cancelled = True

    def _open(self, backend: str, reason: str) -> None:
        self.state = EngineState(EnginePhase.OPENING, error=self._recovery.error, failures=self._failures)
        build = replace(self._settings.build, on_progress=self._on_progress)
        self._segmenter.open_engines(backend, self._settings.threads, build, reason)
        info = self._segmenter.engine_info
        warning = FALLEN_BACK if self._recovery.fallen_back else info.warning
        self.state = EngineState(EnginePhase.READY, info, failures=self._failures, warning=warning)

    def _on_progress(self, progress: BuildProgress) -> bool:
        """On threads of TensorRT."""
        self.state = EngineState(EnginePhase.BUILDING, progress=progress, failures=self._failures)
        self.answered.set()
        return not self._cancelled

    def _on_failure(self, error: EngineError) -> None:
        """A run failed. What the failed engine holds is freed."""
        self._failures += 1
        self._recovery.on_failure(error, time.monotonic())
        if self._recovery.needed:
            self._segmenter.close()
            self._set_failed()

    def _set_failed(self) -> None:
        self.state = EngineState(EnginePhase.FAILED, error=self._recovery.error, failures=self._failures)
