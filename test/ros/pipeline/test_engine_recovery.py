"""When an engine is opened again after a failure, and which: no engine, no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyseg_ros.pipeline.engine_recovery import FAILS_AGAIN_S, LONGEST_PAUSE_S, ON_ENGINE_FAILURE, EngineRecovery

ERROR = RuntimeError("illegal memory access")


def opened_backend(recovery: EngineRecovery, now_s: float) -> str | None:
    attempt = recovery.attempt(now_s)
    return attempt.backend if attempt else None


def test_report_does_nothing() -> None:
    recovery = EngineRecovery("report", "tensorrt")
    recovery.on_failure(ERROR, 0.0)
    assert not recovery.needed
    assert recovery.attempt(0.0) is None


def test_reopen_tries_the_same_engine_at_once_and_then_with_growing_pauses() -> None:
    recovery = EngineRecovery("reopen", "tensorrt")
    recovery.on_failure(ERROR, 0.0)
    attempt = recovery.attempt(0.0)
    assert attempt is not None
    assert (attempt.backend, attempt.reason) == ("tensorrt", "opened again: illegal memory access")
    now_s, pauses = 0.0, []
    for _ in range(8):
        recovery.on_not_opened(ERROR, now_s)
        pause_s = next(p for p in range(100) if recovery.attempt(now_s + p))
        pauses.append(pause_s)
        now_s += pause_s
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    recovery.on_opened(now_s)
    assert not recovery.needed
    assert not recovery.fallen_back


def test_fallback_takes_the_cpu_when_the_engine_cannot_be_opened_again() -> None:
    recovery = EngineRecovery("fallback", "tensorrt")
    recovery.on_failure(ERROR, 0.0)
    assert opened_backend(recovery, 0.0) == "tensorrt"
    recovery.on_not_opened(ERROR, 0.0)
    attempt = recovery.attempt(0.0)
    assert attempt is not None
    assert (attempt.backend, attempt.reason) == ("onnxruntime", "fallback: illegal memory access")


@pytest.mark.parametrize(("after_s", "backend"), [(FAILS_AGAIN_S / 2, "onnxruntime"), (2 * FAILS_AGAIN_S, "tensorrt")])
def test_fallback_takes_the_cpu_when_the_engine_fails_again_soon(after_s: float, backend: str) -> None:
    recovery = EngineRecovery("fallback", "tensorrt")
    recovery.on_failure(ERROR, 0.0)
    recovery.on_opened(0.0)
    recovery.on_failure(ERROR, after_s)
    assert opened_backend(recovery, after_s) == backend


def test_the_cpu_stays() -> None:
    recovery = EngineRecovery("fallback", "tensorrt")
    recovery.on_failure(ERROR, 0.0)
    recovery.on_not_opened(ERROR, 0.0)
    recovery.on_opened(0.0)
    recovery.on_failure(ERROR, 1e6)
    assert opened_backend(recovery, 1e6) == "onnxruntime"


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(ValueError, match="fallback, reopen, report, not 'pray'"):
        EngineRecovery("pray", "auto")


EVENTS = st.tuples(st.sampled_from(["fail", "open", "not opened"]), st.floats(0, 100))


@given(mode=st.sampled_from(ON_ENGINE_FAILURE), events=st.lists(EVENTS, max_size=20))
def test_an_engine_that_failed_is_always_tried_again(mode: str, events: list[tuple[str, float]]) -> None:
    recovery, now_s = EngineRecovery(mode, "tensorrt"), 0.0
    for kind, passed_s in events:
        now_s += passed_s
        if kind == "fail":
            recovery.on_failure(ERROR, now_s)
        elif recovery.needed:
            recovery.on_opened(now_s) if kind == "open" else recovery.on_not_opened(ERROR, now_s)
    assert bool(recovery.attempt(now_s + LONGEST_PAUSE_S)) == recovery.needed
