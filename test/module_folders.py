"""What the tests of a module write is gone before the next module runs: of a whole run it would be gigabytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def module_folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remove the folders that a module made, which pytest keeps until the run ends; not where a test failed.

    `tmp_path_retention_policy` in pyproject.toml says the same of each test's own folder.
    """
    base, failed = tmp_path_factory.getbasetemp(), request.session.testsfailed
    before = set(base.iterdir())
    yield
    if request.session.testsfailed == failed:
        for entry in set(base.iterdir()) - before:
            entry.unlink() if entry.is_symlink() else shutil.rmtree(entry, ignore_errors=True)
