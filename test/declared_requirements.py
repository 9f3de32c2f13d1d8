"""What setup.py declares, for tests: its arguments and the names in its requirements."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from packaging.requirements import Requirement
from repository import REPOSITORY


def declared_setup() -> dict[str, Any]:
    """The arguments that setup.py gives to setuptools."""
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    before = Path.cwd()
    os.chdir(REPOSITORY)
    try:
        with mock.patch("setuptools.setup") as setup:
            runpy.run_path("setup.py")
    finally:
        os.chdir(before)
    return dict(setup.call_args.kwargs)


def names_of(requirements: Iterable[str]) -> set[str]:
    """The distributions that requirements name, in lower case."""
    return {Requirement(line).name.lower() for line in requirements}
