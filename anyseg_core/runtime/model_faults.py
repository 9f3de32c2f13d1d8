"""What pydantic finds wrong with settings, in the words of a user: a name that was meant, no name of a Python class."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_DEPTH = 2
"""Groups within groups that are searched for the name that was meant."""


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """A line for each fault: the setting's dotted name, if any, and what is wrong or what was probably meant."""
    named = ((_dotted(fault), _in_words(fault, model)) for fault in error.errors())
    return [f"{name}: {words}" if name else words for name, words in named]


def told(error: Exception, model: type[BaseModel]) -> str:
    """The faults in one line, of settings or of the text that they were read from."""
    return "; ".join(faults_of(error, model)) if isinstance(error, ValidationError) else str(error)


def _dotted(fault: ErrorDetails) -> str:
    return ".".join(map(str, fault["loc"]))


def _in_words(fault: ErrorDetails, model: type[BaseModel]) -> str:
    if fault["type"] != "extra_forbidden":
        return fault["msg"].removeprefix("Value error, ")
    known = list(_names(model))
    near = difflib.get_close_matches(_dotted(fault), known, n=1)
    near = near or [name for name in known if name.rpartition(".")[2] == fault["loc"][-1]][:1]
    return f"unknown setting; did you mean {near[0]}?" if near else "unknown setting"


def _names(annotation: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of the settings below a model; of a union, those of each of its members."""
    if prefix.count(".") > MAX_DEPTH:  # a model may contain itself
        return
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield f"{prefix}{name}"
            yield from _names(field.annotation, f"{prefix}{name}.")
    for member in get_args(annotation):
        yield from _names(member, prefix)
