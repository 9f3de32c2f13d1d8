"""Runs a script of test/gpu_stubs in a process of its own, above the libraries that `make test-gpu-stubs` prepares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from gpu_stubs.prepare import stubs_folder

SCRIPTS = Path(__file__).parent / "gpu_stubs"
TIMEOUT_S = 580


def part(name: str) -> Path:
    """The folder of a library; the test is skipped where it is not there, or this run is not for it."""
    if "ANYSEG_GPU_STUBS" not in os.environ:
        pytest.skip("run by `make test-gpu-stubs`, which fetches and builds CUDA and TensorRT libraries first")
    folder = stubs_folder() / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not in {folder.parent}: `make test-gpu-stubs` could not fetch or build it")
    return folder


def command(script: str, *arguments: str | Path) -> list[str]:
    """The command line of a script."""
    return [sys.executable, str(SCRIPTS / script), *map(str, arguments)]


def environment(libraries: Sequence[Path]) -> dict[str, str]:
    """Where the process finds shared libraries."""
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}


def outcome(script: str, *arguments: str | Path, libraries: Sequence[Path] = ()) -> dict[str, Any]:
    """What the script prints last, as JSON; the test fails where the script does."""
    done = subprocess.run(
        command(script, *arguments),
        env=environment(libraries),
        text=True,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return json.loads(done.stdout.splitlines()[-1])
