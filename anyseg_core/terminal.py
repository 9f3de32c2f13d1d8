"""What every command of the terminal shares: console, errors, progress, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

FILE_COLUMNS = 160
"""Width of a file or a pipe: at rich's 80 the names in a table of ten columns are cut off."""


console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else FILE_COLUMNS)


def fail(message: object) -> typer.Exit:
    """Print an error that the user can act on; raise what is returned."""
    Console(stderr=True).print(f"[red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    return typer.Exit(2)


@contextmanager
def errors_told(*expected: type[Exception]) -> Iterator[None]:
    """Of the block, those that the user can act on: told without a traceback, exit code 2."""
    try:
        yield
    except expected as error:
        raise fail(error) from None


def verdict(passed: bool) -> typer.Exit:
    """Exit code 0, or 1 where something promised was not kept; raise what is returned."""
    return typer.Exit(0 if passed else 1)


@contextmanager
def progress_bar(title: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """The one look of every progress bar; call what it gives with (done, total)."""
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(TextColumn("{task.description}"), *columns) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
