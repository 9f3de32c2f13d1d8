"""Numbers in a sentence."""

from __future__ import annotations

from anyseg_core.wording import counted


def test_one_thing_is_singular() -> None:
    assert [counted(number, "bag") for number in (0, 1, 2)] == ["0 bags", "1 bag", "2 bags"]
