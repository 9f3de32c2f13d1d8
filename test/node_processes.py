"""Nodes as processes, and the shared memory that they hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY


def start(module: str, *parameters: str) -> subprocess.Popen[str]:
    arguments = [part for parameter in parameters for part in ("-p", parameter)]
    return subprocess.Popen(
        [sys.executable, "-m", f"anyseg_ros.{module}", "--ros-args", *arguments],
        cwd=REPOSITORY, env={**os.environ, "PYTHONUNBUFFERED": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def output_until(process: subprocess.Popen[str], words: str) -> str:
    """The output up to the line with these words."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    pytest.fail(f"{words!r} never came:\n{''.join(lines)}")


def shared_memory() -> set[str]:
    """Fast DDS' segments that exist."""
    return {str(path) for path in Path("/dev/shm").glob("fastdds_*")}


def shared_memory_of(process: subprocess.Popen[str]) -> set[str]:
    """Those that the process has mapped: its own, and those of nodes that it talks to."""
    lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "/dev/shm/fastdds_" in line and "port" not in line}
