"""The docstrings below the fields of a class, for parameter descriptors and the reference in the documentation."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from functools import cache
from types import MappingProxyType


@cache
def field_docs(owner: type) -> MappingProxyType[str, str]:
    """Field -> the docstring below it, in one line, of a dataclass or pydantic model and its bases.

    A field without one whose default is another class's (`x: float = Other.x`) has that one's. Fields without any are
    missing, and so are all of a class whose source is not there.
    """
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if base.__module__ != "builtins":
            found |= _own_docs(base)
    return MappingProxyType(found)


def _own_docs(owner: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    except (OSError, TypeError):
        return {}
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    found: dict[str, str] = {}
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            doc = _docstring(following) or _borrowed(owner, statement.value)
            found |= {name: doc} if doc else {}
    return found


def _docstring(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _borrowed(owner: type, default: ast.expr | None) -> str:
    """The docstring of the field whose value is the default, of a class that the owner's module knows."""
    if not isinstance(default, ast.Attribute) or not isinstance(default.value, ast.Name):
        return ""
    other = getattr(sys.modules[owner.__module__], default.value.id, None)
    return field_docs(other).get(default.attr, "") if isinstance(other, type) else ""
