"""Drives over processes: one drive is one task, so a world is built once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import cv2

from anyseg_core.sim.drive import Drive, DriveConfig, DriveFrame

Job = TypeVar("Job")
Result = TypeVar("Result")
Progress = Callable[[int, int], Any]
"""Called with (done, total) after each drive."""


def map_over_processes(
    task: Callable[[Job], Result], jobs: Sequence[Job], workers: int, progress: Progress | None = None
) -> Iterator[Result]:
    """`task` of each job, in any order, over `workers` fresh processes (0 or 1: in this one).

    `task` must be a module-level function: processes are spawned, not forked.
    """
    if workers < 0:
        raise ValueError(f"workers {workers} must not be negative")
    if workers <= 1:
        yield from _reported(map(task, jobs), len(jobs), progress)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, max(len(jobs), 1)), _one_thread_each) as pool:
        yield from _reported(pool.imap_unordered(task, jobs), len(jobs), progress)


def _reported(results: Iterable[Result], total: int, progress: Progress | None) -> Iterator[Result]:
    for done, result in enumerate(results, start=1):
        if progress is not None:
            progress(done, total)
        yield result


def _one_thread_each() -> None:
    """Processes share the cores already; OpenCV's own threads would only get in their way."""
    cv2.setNumThreads(1)


def render_drives(
    configs: Sequence[DriveConfig], workers: int = 2, progress: Progress | None = None
) -> Iterator[tuple[DriveConfig, list[DriveFrame]]]:
    """All frames of each drive (about 3 MB a frame), drive by drive as they are finished."""
    yield from map_over_processes(_render, configs, workers, progress)


def _render(config: DriveConfig) -> tuple[DriveConfig, list[DriveFrame]]:
    return config, list(Drive(config))
