"""What to do about an engine that fails while it is in use: `model.on_engine_failure`. No rclpy, no threads."""

from __future__ import annotations

from dataclasses import dataclass

REPORT, REOPEN, FALLBACK = "report", "reopen", "fallback"
ON_ENGINE_FAILURE = (FALLBACK, REOPEN, REPORT)
FALLBACK_BACKEND = "onnxruntime"
FAILS_AGAIN_S = 60.0
"""An engine that was opened again and fails within this time will not get better by being opened once more."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


@dataclass(frozen=True)
class Attempt:
    """How to open the engine now."""

    backend: str
    reason: str
    """For diagnostics: why this backend."""


class EngineRecovery:
    """Decides when an engine is opened again, and which.

    - `report`: never; the next frame is tried on the same engine.
    - `reopen`: the same backend at once, then after 1, 2, 4 ... 30 s as long as that fails.
    - `fallback`: the same backend once; where opening it fails, or it fails again within a minute, the CPU takes over
      and stays.

    Times are seconds of any clock that does not run backwards.
    """

    def __init__(self, mode: str, backend: str) -> None:
        if mode not in ON_ENGINE_FAILURE:
            raise ValueError(f"on_engine_failure must be one of {', '.join(ON_ENGINE_FAILURE)}, not {mode!r}")
        self._mode = mode
        self._backend = backend
        self.fallen_back = False
        self.error = ""
        """Of the failure that is not mended yet; empty while the engine is in order."""
        self._opened_s = float("-inf")
        self._due_s = float("-inf")
        self._pause_s = 0.0

    def on_failure(self, error: Exception, now_s: float) -> None:
        """The engine failed in use."""
        if self._mode == REPORT:
            return
        again = now_s - self._opened_s < FAILS_AGAIN_S
        self._fail(error, now_s, again)

    def on_opened(self, now_s: float) -> None:
        """An attempt succeeded."""
        self.error = ""
        self._opened_s = now_s

    def on_not_opened(self, error: Exception, now_s: float) -> None:
        """An attempt failed."""
        self._fail(error, now_s, again=True)

    @property
    def needed(self) -> bool:
        """Whether the engine must be opened again before anything is run."""
        return bool(self.error)

    def attempt(self, now_s: float) -> Attempt | None:
        """How to open the engine, or None while it is not time yet."""
        if not self.needed or now_s < self._due_s:
            return None
        if self.fallen_back:
            return Attempt(FALLBACK_BACKEND, f"fallback: {self.error}")
        return Attempt(self._backend, f"opened again: {self.error}")

    def _fail(self, error: Exception, now_s: float, again: bool) -> None:
        self.error = str(error)
        newly_fallen = again and self._mode == FALLBACK and not self.fallen_back
        self.fallen_back = self.fallen_back or newly_fallen
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S) if again else 0.0
        self._due_s = now_s if newly_fallen else now_s + self._pause_s
