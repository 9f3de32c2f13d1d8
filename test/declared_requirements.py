"""What setup.py declares, for tests: its requirements, and the names in them."""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from packaging.requirements import Requirement
from repository import REPOSITORY

DECLARED = """
import json, runpy
from unittest import mock
with mock.patch("setuptools.setup") as setup:
    runpy.run_path("setup.py")
print(json.dumps({name: setup.call_args.kwargs[name] for name in ("install_requires", "extras_require")}))
"""


def declared_setup() -> dict[str, Any]:
    """`install_requires` and `extras_require` as setup.py gives them to setuptools."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    return _declared()


@functools.cache
def _declared() -> dict[str, Any]:
    """In a process of its own: setuptools refuses to be imported after the standard library's distutils."""
    done = subprocess.run([sys.executable, "-c", DECLARED], cwd=REPOSITORY, text=True, capture_output=True, check=True)
    return json.loads(done.stdout)


def names_of(requirements: Iterable[str]) -> set[str]:
    """The distributions that requirements name, in lower case."""
    return {Requirement(line).name.lower() for line in requirements}
