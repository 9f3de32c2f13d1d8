"""How this process was started, for reports, tables and cards."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Without the folders of the program."""
    program = [Path(sys.argv[0]).name]
    if program == ["__main__.py"]:  # the one package that is run as a module
        program = ["python", "-m", "anyseg_core.training"]
    return shlex.join([*program, *sys.argv[1:]])


def machine() -> str:
    """Processor, cores and software, in a line."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpu}, {cores} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
