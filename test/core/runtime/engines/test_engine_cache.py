"""Plans on disk: never a foreign or damaged one, built once however many start, and a bad disk costs no engine."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyseg_core.runtime.engines.plan_cache import MAGIC, PlanCache, PlanKey, default_folder
from anyseg_core.runtime.engines.protocol import BuildCancelledError

KEY = PlanKey("TensorRT 10.3.0", "Orin", "8.7", "ab" * 32, "auto", "1,2,3,4")
PLAN = bytes(range(256)) * 100


def never() -> bytes:
    raise AssertionError("nothing was to be built")


def test_a_plan_is_built_once_and_then_read(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path / "engines")
    built = cache.get(KEY, lambda: PLAN)
    read = cache.get(KEY, never)
    assert built.data == read.data == PLAN
    assert built.origin.startswith("built in 0 s, kept in ")
    assert read.origin == f"read from {cache.path(KEY)}"
    assert built.warning == read.warning == ""


@pytest.mark.parametrize("name", [field.name for field in fields(PlanKey)])
def test_another_key_is_another_plan(tmp_path: Path, name: str) -> None:
    cache = PlanCache(tmp_path)
    cache.get(KEY, lambda: PLAN)
    other = replace(KEY, **{name: "other"})
    assert cache.get(other, lambda: b"other").data == b"other"
    assert cache.get(KEY, never).data == PLAN


def test_a_plan_under_another_plan_s_name_is_not_taken(tmp_path: Path) -> None:
    cache, other = PlanCache(tmp_path), replace(KEY, gpu="RTX 4090")
    cache.get(KEY, lambda: PLAN)
    cache.path(KEY).rename(cache.path(other))
    assert cache.get(other, lambda: b"other").data == b"other"


@given(cut=st.integers(0, 400), end=st.booleans(), flip=st.integers(0, 10_000))
def test_a_damaged_plan_is_built_anew(tmp_path_factory: pytest.TempPathFactory, cut: int, end: bool, flip: int) -> None:
    cache = PlanCache(tmp_path_factory.getbasetemp() / "damaged")
    cache.discard(KEY)
    cache.get(KEY, lambda: PLAN)
    whole = cache.path(KEY).read_bytes()
    damaged = bytearray(whole[: len(whole) - cut] if end else whole[:cut])
    if not cut and end:
        damaged[flip % len(damaged)] ^= 1
    cache.path(KEY).write_bytes(damaged)
    assert cache.get(KEY, lambda: b"new").data == b"new"
    assert cache.get(KEY, never).data == b"new"


@pytest.mark.parametrize("content", [b"", b"\n", MAGIC, MAGIC + b"[]\n", MAGIC + b"{}\nplan", b"\x80" * 500])
def test_what_is_no_plan_is_built_anew(tmp_path: Path, content: bytes) -> None:
    cache = PlanCache(tmp_path)
    cache.path(KEY).write_bytes(content)
    assert cache.get(KEY, lambda: PLAN).data == PLAN


def _start_and_build(folder: Path, ready: threading.Barrier, builds: Path) -> None:
    def build() -> bytes:
        (builds / f"{os.getpid()}").touch()
        time.sleep(0.5)
        return PLAN

    ready.wait()
    assert PlanCache(folder).get(KEY, build).data == PLAN


def test_processes_that_start_at_once_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    builds = tmp_path / "builds"
    builds.mkdir()
    barrier = context.Barrier(3)
    processes = [
        context.Process(target=_start_and_build, args=(tmp_path / "engines", barrier, builds)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(builds.iterdir())) == 1


def _build_for_ever(folder: Path, begun: threading.Event) -> None:
    def build() -> bytes:
        begun.set()
        time.sleep(600)
        return PLAN

    PlanCache(folder).get(KEY, build)


def test_a_builder_that_is_killed_leaves_nothing_that_blocks(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=_build_for_ever, args=(tmp_path, begun))
    process.start()
    assert begun.wait(30)
    waited: list[None] = []
    with pytest.raises(BuildCancelledError):  # while it builds, the others wait
        PlanCache(tmp_path).get(KEY, never, lambda: bool(waited.append(None)))
    assert waited
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert PlanCache(tmp_path).get(KEY, lambda: PLAN).data == PLAN


def test_a_disk_that_takes_no_more_costs_the_next_build_and_says_so(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        plan = cache.get(KEY, lambda: PLAN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert plan.data == PLAN
    assert "File too large" in plan.warning
    assert "set model.engine_cache_dir" in plan.warning
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]  # no half plan
    assert cache.get(KEY, lambda: PLAN).warning == ""


def test_a_folder_that_cannot_be_made_costs_the_next_build_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plan = PlanCache(tmp_path / "file" / "engines").get(KEY, lambda: PLAN)
    assert plan.data == PLAN
    assert "Not a directory" in plan.warning


def test_a_failed_build_keeps_nothing_and_frees_the_lock(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise OSError("TensorRT's own")

    cache = PlanCache(tmp_path)
    with pytest.raises(OSError, match="TensorRT's own"):
        cache.get(KEY, fail)
    assert cache.get(KEY, lambda: PLAN).data == PLAN


def test_the_default_folder_is_the_user_s_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "anyseg_ros" / "engines"
