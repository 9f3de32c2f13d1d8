"""Enumerations whose members are told and given by their names: in parameters, files, topics and messages."""

from __future__ import annotations

from enum import Enum


class Named(str, Enum):
    """What `enum.StrEnum` is from Python 3.11 on: `str` of a member is its name."""

    def __str__(self) -> str:
        return self.value
