"""How numbers are said in a sentence."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """`counted(1, "bag")` is `1 bag`, of every other number `bags`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
