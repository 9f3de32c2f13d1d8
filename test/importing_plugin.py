"""A pytest plugin that imports test modules while their folder is collected, as launch_testing's does.

`python -m pytest -p importing_plugin` with test/ on the PYTHONPATH.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from _pytest.pathlib import import_path


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Any:
    """Looks for a launch description in every test module."""
    module = import_path(module_path, root=parent.config.rootpath, consider_namespace_packages=False)
    assert not hasattr(module, "generate_test_description"), "this plugin only imitates the looking"
    return pytest.Module.from_parent(parent, path=module_path)
