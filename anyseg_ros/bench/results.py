"""What every benchmark prints and writes: machine, command, figures with spread, bars met or missed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from anyseg_core.invocation import command_line, machine


@dataclass(frozen=True)
class Figure:
    """One measured quantity: all its samples, and the bar it has to meet, if any."""

    name: str
    unit: str
    samples: tuple[float, ...]
    bar: str = ""
    """The bar in words, e.g. `p50 <= 10`."""
    met: bool | None = None
    """None where there is no bar."""
    listed: bool = True
    """False: it is in the file only, where the terminal shows it in another form."""

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.samples, percent))

    def summary(self) -> dict[str, float]:
        """Number of samples, median and spread."""
        values = {f"p{p}": self.percentile(p) for p in (5, 50, 95)}
        return {"n": len(self.samples), **values, "max": max(self.samples)}


@dataclass
class Benchmark:
    """The figures of one run of one benchmark."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        unit: str,
        samples: Sequence[float],
        bar: str = "",
        met: bool | None = None,
        listed: bool = True,
    ) -> Figure:
        """Record a figure; an empty list of samples is an error of the benchmark."""
        if not samples:
            raise ValueError(f"benchmark figure {name!r} has no samples")
        figure = Figure(name, unit, tuple(float(s) for s in samples), bar, met, listed)
        self.figures.append(figure)
        return figure

    @property
    def met(self) -> bool:
        """Whether no bar was missed."""
        return all(figure.met is not False for figure in self.figures)

    def report(self, console: Console, json_path: Path | None) -> bool:
        """Print, and write where asked; returns whether every bar was met."""
        self.print(console)
        if json_path:
            self.write(json_path)
        return self.met

    def print(self, console: Console) -> None:
        """A table on the terminal."""
        table = Table(title=self.title, title_justify="left")
        table.add_column("figure")
        for column in ("unit", "n", "p5", "p50", "p95", "max"):
            table.add_column(column, justify="right")
        table.add_column("bar")
        for figure in (figure for figure in self.figures if figure.listed):
            values = figure.summary()
            numbers = [f"{values[key]:.4g}" for key in ("p5", "p50", "p95", "max")]
            verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[figure.met]
            table.add_row(figure.name, figure.unit, str(values["n"]), *numbers, f"{figure.bar} {verdict}".strip())
        console.print(table)
        for note in self.notes:
            console.print(note)
        console.print(f"machine: {machine()}\ncommand: {command_line()}")

    def write(self, path: Path) -> None:
        """The same as JSON, samples included."""
        content = {"title": self.title, "machine": machine(), "command": command_line(), "notes": self.notes}
        content["figures"] = [{**asdict(figure), **figure.summary()} for figure in self.figures]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
