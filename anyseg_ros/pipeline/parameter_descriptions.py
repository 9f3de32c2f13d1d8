"""What a person is told of each parameter: the text below the field of its dataclass, and its range."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, TypeGuard

from anyseg_core.runtime.health.state import HealthConfig
from anyseg_core.runtime.health.thresholds import CHECKS, CheckConfig, Fault
from anyseg_core.runtime.ranges import Range
from anyseg_ros.pipeline.parameters import SECTIONS, ModalityParameters, Parameters


class About(NamedTuple):
    """What a person is told of a parameter."""

    description: str
    allowed: Range | None
    """Of a number."""


def about(name: str) -> About:
    """Description and range of a parameter, as the dataclass of its section has them."""
    section, _, field_name = name.rpartition(".")
    part = _part_of(section)
    allowed = getattr(part, "RANGES", {}).get(field_name)
    if part is CheckConfig and field_name == "threshold":
        allowed = CHECKS[Fault(section.rpartition(".")[2])].limits
    docs = {**_field_docs(HealthConfig), **_field_docs(part)} if part is ModalityParameters else _field_docs(part)
    return About(" ".join(docs.get(field_name, "").split()), allowed)


def _part_of(section: str) -> type:
    """The dataclass whose fields a section's parameters are."""
    if "faults" in section.split("."):
        return CheckConfig
    if section.startswith("modalities."):
        return ModalityParameters
    by_prefix = {prefix: type(getattr(Parameters(), name)) for name, prefix in SECTIONS.items()}
    return by_prefix.get(section, Parameters)


@cache
def _field_docs(part: type) -> Mapping[str, str]:
    """Field -> the text below it in the source, of a dataclass and of those that it extends; empty without sources."""
    docs: dict[str, str] = {}
    for cls in reversed(part.__mro__[:-1]):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except (OSError, TypeError, ValueError):
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for statement, following in pairwise(body):
            text = following.value.value if _is_text(following) else None
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and text:
                docs[statement.target.id] = text
    return docs


def _is_text(statement: ast.stmt) -> TypeGuard[Any]:
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_constant and isinstance(statement.value.value, str)  # type: ignore[union-attr]
