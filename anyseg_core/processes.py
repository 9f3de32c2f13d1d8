"""Work spread over the cores of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import cv2

from anyseg_core.child_process import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")
Progress = Callable[[int, int], Any]
"""Called with (done, total) after each job."""


class WorkerError(Exception):
    """A process of the pool died."""


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_over_processes(
    task: Callable[[Job], Result], jobs: Sequence[Job], workers: int, progress: Progress | None = None
) -> Iterator[Result]:
    """`task` of each job, in any order, over `workers` fresh processes (0 or 1: in this one).

    `task` must be a module-level function: processes are spawned, not forked. What it raises is raised here; a process
    that dies raises WorkerError. Processes end when the iterator is closed, done or not, and with this process.
    """
    if workers < 0:
        raise ValueError(f"workers {workers} must not be negative")
    results = map(task, jobs) if workers <= 1 else _over_processes(task, jobs, workers)
    for done, result in enumerate(results, start=1):
        if progress is not None:
            progress(done, len(jobs))
        yield result


def _over_processes(task: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    others = set(multiprocessing.active_children())
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawning, initializer=_prepare, initargs=(os.getpid(),)) as pool:
        try:
            yield from _as_completed(pool, task, jobs, workers)
        except BrokenProcessPool:
            raise WorkerError("a worker process died: is there memory enough?") from None
        except BaseException:  # given up: what the processes still work at is of no use to anybody
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _as_completed(
    pool: ProcessPoolExecutor, task: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """No job is begun before there is somebody to take a result: results are large."""
    waiting = iter(jobs)
    running = {pool.submit(task, job) for job in islice(waiting, workers)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
            running |= {pool.submit(task, job) for job in islice(waiting, 1)}


def _prepare(parent: int) -> None:
    """Ctrl-C ends a worker without a traceback; OpenCV's own threads would only get in the way of the other workers."""
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    cv2.setNumThreads(1)
