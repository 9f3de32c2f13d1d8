"""Every file, path and symbol that a docstring or a document names is there."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from repository import REPOSITORY

FOREIGN = frozenset(
    {
        # of other projects
        *("SAME", "computeNormalsSquareSupport", "patchSize", "tools/val_mm_EMM.py", "val_mm_RMM.py", "val_mm_NM.py"),
        *("align_depth", "dmesg", "steal", "tegrastats"),
        # made by a command
        *("report.md", "runs/ablation/table.md"),
        # examples
        *("CD", "NAME", "NAME_", "out_NAME"),
    }
)
PAST = ("CHANGELOG.md", "docs/decisions.md")
"""They tell of what was there once, too."""
_TEXTS = (".cfg", ".html", ".in", ".json", ".rviz", ".service", ".sh", ".toml", ".xml", ".yaml", ".yml", "Makefile")
_FILE = re.compile(r"(?<![\w/.-])((?!reference/)(?:[\w-]+/)*[\w-]+\.(?:py|md))\b")
"""Not those of the reference, which is made with the site."""
_PATH = re.compile(r"(?<![\w/.~-])((?:anyseg_core|anyseg_ros|config|docker|docs|launch|test)/[\w./-]*\w)")
_SYMBOL = re.compile(r"`([A-Za-z_][\w.]*)(?:\(\))?`")


class Text(NamedTuple):
    """A docstring, or a line of a document."""

    place: str
    words: str


def tracked() -> list[str]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.split()
    return [name for name in found if (REPOSITORY / name).is_file()] or [
        str(path.relative_to(REPOSITORY)) for path in REPOSITORY.rglob("*") if path.is_file()
    ]


def statements_that_are_texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """Docstrings, those of fields and constants too."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value


def names_in(tree: ast.AST, texts: set[int]) -> Iterator[str]:
    """Every identifier of a module, and the words of its strings; not those of docstrings."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield from re.findall(r"\w+", value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            yield from re.findall(r"\w+", node.value)


def read(files: list[str]) -> tuple[set[str], list[Text]]:
    """The names that there are, and the texts that may name them."""
    known, texts = set(FOREIGN), []
    for name in files:
        known.update(re.findall(r"\w+", name))
        path = REPOSITORY / name
        if name.endswith(".py"):
            tree = ast.parse(path.read_text())
            docstrings = list(statements_that_are_texts(tree))
            known.update(names_in(tree, {id(text) for text in docstrings}))
            if name.startswith(("anyseg_core/", "anyseg_ros/", "launch/")):
                texts += [Text(f"{name}:{text.lineno}", str(text.value)) for text in docstrings]
        elif name.endswith(_TEXTS) or name.startswith("docker/"):
            known.update(re.findall(r"\w+", path.read_text(errors="ignore")))
        elif name.endswith(".md") and name not in PAST:
            texts += [Text(f"{name}:{i}", line) for i, line in enumerate(path.read_text().splitlines(), 1)]
    return known, texts


def stale(text: str, files: list[str], known: set[str]) -> list[str]:
    """What a text names and is not there."""
    words = [word for symbol in _SYMBOL.findall(text) for word in re.findall(r"[A-Za-z_]\w+", symbol)]
    names = [word for word in words if word not in known]
    names += [f for f in _FILE.findall(text) if f not in FOREIGN and not any(f"/{x}".endswith(f"/{f}") for x in files)]
    return names + [
        path
        for path in _PATH.findall(text)
        if path not in FOREIGN and "NAME" not in path and not (REPOSITORY / path).exists() and not _begins(path, files)
    ]


def _begins(path: str, files: list[str]) -> bool:
    """Of a name without its ending, or of a pattern."""
    return any(name.startswith(f"{path}.") for name in files)


def test_stale_names_are_found() -> None:
    files, known = ["anyseg_ros/node/status_log.py"], {"StatusLog"}
    assert stale("`StatusLog` of status_log.py, anyseg_ros/node/status_log.py", files, known) == []
    assert stale("`StatusLog.tell` of log.py", files, known) == ["tell", "log.py"]
    assert stale("see anyseg_ros/nowhere/at_all", files, known) == ["anyseg_ros/nowhere/at_all"]


def test_docstrings_and_documents_name_what_is_there() -> None:
    files = tracked()
    known, texts = read(files)
    assert len(texts) > 2000
    found = {text.place: names for text in texts if (names := stale(text.words, files, known))}
    assert not found, "\n".join(f"{place}: {', '.join(names)}" for place, names in found.items())
