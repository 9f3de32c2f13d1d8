"""Work over processes, such as drives: one drive is one task, so a world is built once.

Not multiprocessing.Pool: it waits for ever when one of its processes is killed, for want of memory say, and leaves
semaphores behind when all of them are. A process here shares nothing but its own pipe.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import cv2

from anyseg_core.sim.drive import Drive, DriveConfig, DriveFrame

Job = TypeVar("Job")
Result = TypeVar("Result")
Progress = Callable[[int, int], Any]
"""Called with (done, total) after each drive."""


class WorkerError(Exception):
    """A process that died; the message says how."""


def map_over_processes(
    task: Callable[[Job], Result], jobs: Sequence[Job], workers: int, progress: Progress | None = None
) -> Iterator[Result]:
    """`task` of each job, in any order, over `workers` fresh processes (0 or 1: in this one).

    `task` must be a module-level function: processes are spawned, not forked. What it raises is raised here; a process
    that dies raises WorkerError.
    """
    if workers < 0:
        raise ValueError(f"workers {workers} must not be negative")
    results = map(task, jobs) if workers <= 1 else _over_processes(task, jobs, workers)
    for done, result in enumerate(results, start=1):
        if progress is not None:
            progress(done, len(jobs))
        yield result


def _over_processes(task: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    waiting = iter(jobs)
    processes: dict[Connection, BaseProcess] = {}
    try:
        for job in islice(waiting, workers):
            link, process = _started(task)
            processes[link] = process
            link.send(job)
        while processes:
            for link in wait(list(processes)):
                assert isinstance(link, Connection)
                result = _result(link, processes[link])
                for job in islice(waiting, 1):
                    link.send(job)
                    break
                else:
                    link.close()
                    processes.pop(link).join()
                yield result
    finally:
        for process in processes.values():
            process.kill()
            process.join()


def _started(task: Callable[[Any], Any]) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()  # the process has the only other end: its death ends the pipe
    return ours, process


def _result(link: Connection, process: BaseProcess) -> Any:
    try:
        result, error, where = link.recv()
    except (EOFError, OSError):
        process.join()
        raise WorkerError(f"a worker process ended with code {process.exitcode}: is there memory enough?") from None
    if error is not None:
        raise error from RuntimeError(f"in a worker process:\n{where}")
    return result


def _work(task: Callable[[Any], Any], link: Connection) -> None:
    """A process' life: jobs in, results out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal reaches the parent, which ends this process
    cv2.setNumThreads(1)  # processes share the cores already: OpenCV's own threads would only get in their way
    with suppress(EOFError, OSError):
        while True:
            link.send(_outcome(task, link.recv()))


def _outcome(task: Callable[[Any], Any], job: Any) -> tuple[Any, Exception | None, str]:
    """What the task returned or raised, and where."""
    try:
        return task(job), None, ""
    except Exception as error:
        return None, error, traceback.format_exc()


def render_drives(
    configs: Sequence[DriveConfig], workers: int = 2, progress: Progress | None = None
) -> Iterator[tuple[DriveConfig, list[DriveFrame]]]:
    """All frames of each drive (about 3 MB a frame), drive by drive as they are finished."""
    yield from map_over_processes(_render, configs, workers, progress)


def _render(config: DriveConfig) -> tuple[DriveConfig, list[DriveFrame]]:
    return config, list(Drive(config))
