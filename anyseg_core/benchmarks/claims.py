"""Claims about methods, held against a table of them: each is held or not held by the means over the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Rows = Mapping[str, Mapping[str, Any]]
"""By variant and figure: `{"mean": ..., "std": ...}`, as `ablation.table` makes them."""


class _Claim(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    figure: str
    """A column of the table."""


class Ratio(_Claim):
    """A variant's figure is at most so many times another's."""

    kind: Literal["ratio"] = "ratio"
    of: str
    to: str
    at_most: float


class NoWorse(_Claim):
    """A variant's figure is at least that of every other."""

    kind: Literal["no_worse"] = "no_worse"
    of: str
    than: tuple[str, ...] = Field(min_length=1)


class Insensitive(_Claim):
    """The figures of some variants differ by no more than `within`."""

    kind: Literal["insensitive"] = "insensitive"
    among: tuple[str, ...] = Field(min_length=2)
    within: float


class Verdict(NamedTuple):
    """What became of a claim."""

    claim: str
    found: str
    held: bool | None
    """None where the table lacks a variant."""

    def __str__(self) -> str:
        return f"{self.claim}: {self.found}, {'not run' if self.held is None else 'held' if self.held else 'NOT held'}"


Claim = Ratio | NoWorse | Insensitive


def judge(claim: Claim, rows: Rows) -> Verdict:
    """Hold a claim against a table."""
    names = {"ratio": lambda c: (c.of, c.to), "no_worse": lambda c: (c.of, *c.than), "insensitive": lambda c: c.among}
    wanted: tuple[str, ...] = names[claim.kind](claim)
    missing = [name for name in wanted if claim.figure not in rows.get(name, {})]
    if missing:
        return Verdict(_in_words(claim), f"no figures of {', '.join(missing)}", None)
    means = {name: float(rows[name][claim.figure]["mean"]) for name in wanted}
    if isinstance(claim, Ratio):
        ratio = means[claim.of] / means[claim.to]
        return Verdict(_in_words(claim), f"{ratio:.2f} x", ratio <= claim.at_most)
    if isinstance(claim, NoWorse):
        best = max(claim.than, key=lambda name: means[name])
        difference = means[claim.of] - means[best]
        return Verdict(_in_words(claim), f"{difference:+.2f} against {best}, the best of them", difference >= 0)
    spread = max(means.values()) - min(means.values())
    noise = max(float(rows[name][claim.figure]["std"]) for name in claim.among)
    found = f"{spread:.2f} (standard deviation over seeds up to {noise:.2f})"
    return Verdict(_in_words(claim), found, spread <= claim.within)


def _in_words(claim: Claim) -> str:
    if isinstance(claim, Ratio):
        return f"{claim.figure} of {claim.of} <= {claim.at_most:g} x that of {claim.to}"
    if isinstance(claim, NoWorse):
        return f"{claim.figure} of {claim.of} >= that of {', '.join(claim.than)}"
    return f"{claim.figure} of {', '.join(claim.among)} within {claim.within:g}"
