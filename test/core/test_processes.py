"""Work over processes: results, errors, and processes that die or are not needed any more."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from anyseg_core.processes import WorkerError, map_over_processes


def square(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number


def killed(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def long(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    if len(list(folder.iterdir())) > 1:  # one of them is done at once
        time.sleep(300)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_job_has_its_result(workers: int) -> None:
    steps: list[tuple[int, int]] = []
    results = map_over_processes(square, range(7), workers, lambda done, total: steps.append((done, total)))
    assert sorted(results) == [0, 1, 4, 9, 16, 25, 36]
    assert steps == [(n, 7) for n in range(1, 8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_job_is_raised(workers: int) -> None:
    with pytest.raises(ValueError, match="-3 is negative"):
        list(map_over_processes(square, [1, 2, -3], workers))


def test_a_killed_process_is_an_error_and_not_waited_for() -> None:
    with pytest.raises(WorkerError, match="memory"):
        list(map_over_processes(killed, range(8), 2))


def test_processes_end_with_the_iterator(tmp_path: Path) -> None:
    before = set(multiprocessing.active_children())
    results = map_over_processes(long, [tmp_path] * 3, 2)
    next(results)
    results.close()  # type: ignore[attr-defined]  # a generator
    assert set(multiprocessing.active_children()) == before


def test_negative_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers -1"):
        list(map_over_processes(square, [1], -1))
