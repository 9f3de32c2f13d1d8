"""No file and no folder of the packages imports itself by way of others."""

from __future__ import annotations

from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter

import pytest

grimp = pytest.importorskip("grimp", reason="comes with import-linter: pip install -e '.[dev]'")

PACKAGES = ("anyseg_core", "anyseg_ros")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Every module -> the modules of the packages that it imports, at its top or deferred."""
    graph = grimp.build_graph(*PACKAGES)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def circle(imports: dict[str, set[str]], group: Callable[[str], str] = str) -> list[str]:
    """A circle among the groups of modules, or nothing."""
    groups: dict[str, set[str]] = {}
    for module, imported in imports.items():
        own = group(module)
        groups.setdefault(own, set()).update({group(other) for other in imported} - {own})
    try:
        TopologicalSorter(groups).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def folder(module: str) -> str:
    """The module's folder inside its package; a file at the package's top is a folder of its own."""
    return ".".join(module.split(".")[:2])


def test_a_circle_is_found() -> None:
    assert circle({"a.x.one": {"a.y.two"}, "a.y.two": set(), "a.y.three": {"a.x.one"}}) == []
    assert circle({"a.x.one": {"a.y.two"}, "a.y.two": set(), "a.y.three": {"a.x.one"}}, folder)
    assert circle({"a.x": {"a.y"}, "a.y": {"a.x"}})


def test_no_circle_of_files(imports: dict[str, set[str]]) -> None:
    assert len(imports) > 200
    assert not circle(imports)


def test_no_circle_of_folders(imports: dict[str, set[str]]) -> None:
    assert not circle(imports, folder)
    runtime = {
        module: {d for d in found if "runtime." in d} for module, found in imports.items() if "runtime." in module
    }
    assert not circle(runtime, lambda module: ".".join(module.split(".")[:3]))
