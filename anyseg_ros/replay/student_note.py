"""Which student runs, told on the terminal before it does."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from anyseg_core.runtime.model_card import ModelCard, bundled_students, introduction, usage_notice


def print_student(card: ModelCard, console: Console) -> None:
    """What it is, how to take another one, and what its licence forbids."""
    others = ", ".join(name for name in bundled_students() if name != card.name)
    text = f"{introduction(card)}. --student takes another: {others} or a folder"
    console.print(escape(text), soft_wrap=True, highlight=False)
    if notice := usage_notice(card):
        console.print(f"[yellow]note:[/] {escape(notice)}", soft_wrap=True, highlight=False)
