"""Code in a process that cannot import some packages."""

from __future__ import annotations

import subprocess
import sys

from repository import REPOSITORY

TIMEOUT_S = 110


BLOCK = """
import importlib, importlib.abc, pkgutil, sys

BLOCKED = sys.argv[1].split(",")

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""
"""argv: the top-level packages to do without."""


def run_without(blocked: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the code in a process that cannot import the blocked packages."""
    command = [sys.executable, "-c", BLOCK + code, blocked, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, text=True, capture_output=True, timeout=TIMEOUT_S, check=False)
