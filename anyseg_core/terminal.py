"""What every command of the terminal shares: console, errors, progress, exit codes.

Exit codes: 0, done; 1, it began and failed, or its verdict is no; 2, refused before anything began: an option, a file,
a parameter or the environment cannot be used, or a part is not installed.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")

FILE_COLUMNS = 160
"""Width of a file or a pipe: at rich's 80 the names in a table of ten columns are cut off."""


console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else FILE_COLUMNS)


def fail(message: object) -> typer.Exit:
    """Print an error that the user can act on; raise what is returned."""
    Console(stderr=True).print(f"[red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    return typer.Exit(2)


@contextmanager
def errors_reported(*expected: type[Exception]) -> Iterator[None]:
    """Of the block, those that the user can act on: told without a traceback, exit code 2."""
    try:
        yield
    except expected as error:
        if state.verbose:
            traceback.print_exc()
        raise fail(error) from None


def verdict(passed: bool) -> typer.Exit:
    """Exit code 0, or 1 where something promised was not kept; raise what is returned."""
    return typer.Exit(0 if passed else 1)


class _Bars:
    """The progress bars that are shown now, one below the other in one display, as rich wants it."""

    def __init__(self) -> None:
        self._display: Progress | None = None

    def add(self, title: str) -> TaskID:
        """A bar for a piece of work; the first one opens the display."""
        if self._display is None:
            columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
            self._display = Progress(
                TextColumn("{task.description}"), *columns, TextColumn("{task.fields[note]}"), console=console
            )
            self._display.start()
        return self._display.add_task(title, total=None, note="")

    def update(self, task: TaskID, done: float, total: float | None, note: str) -> None:
        """How far a piece of work has come."""
        if self._display is not None:
            self._display.update(task, completed=done, total=total, note=note)

    def end(self, task: TaskID) -> None:
        """The work is done or given up: the last bar stays on the terminal, the others go."""
        if self._display is None:
            return
        if len(self._display.task_ids) > 1:
            self._display.remove_task(task)
            return
        self._display.stop()
        self._display = None


_bars = _Bars()
Report = Callable[..., None]
"""Called with (done, total) and, as `note`, a few words that are shown beside the bar."""


@contextmanager
def progress_bar(title: str, total: float | None = None, *, show: bool = True) -> Iterator[Report]:
    """The one look of every progress bar; call what it gives with (done, total).

    It appears with the first call, so an error before that leaves nothing on the terminal; and only on a terminal,
    never in a file or a pipe.
    """
    task: TaskID | None = None
    shown = show and console.is_terminal and not console.quiet

    def report(done: float, total: float | None = total, note: str = "") -> None:
        nonlocal task
        if shown:
            task = _bars.add(title) if task is None else task
            _bars.update(task, done, total, note)

    try:
        yield report
    finally:
        if task is not None:
            _bars.end(task)


def tracked(items: Iterable[Item], title: str, total: int, *, show: bool = True) -> Iterator[Item]:
    """The items, with a progress bar that counts them."""
    with progress_bar(title, total, show=show) as report:
        for done, item in enumerate(items):
            report(done)
            yield item
        report(total)


def set_verbosity(*, verbose: bool, quiet: bool) -> None:
    """`verbose`: also tracebacks of errors and what libraries log. `quiet`: nothing but errors and warnings."""
    state.verbose = verbose
    console.quiet = quiet
    if verbose:
        logging.basicConfig(level=logging.DEBUG)


@dataclass
class _State:
    verbose: bool = False


state = _State()
