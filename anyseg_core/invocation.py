"""How this process was started, for reports, tables and cards; and how many cores it may use."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Without the folders of the program."""
    program = [Path(sys.argv[0]).name]
    if program == ["__main__.py"]:  # the one package that is run as a module
        program = ["python", "-m", "anyseg_core.training"]
    return shlex.join([*program, *sys.argv[1:]])


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
