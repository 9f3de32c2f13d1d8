"""Claims about methods, held against a table of them: by the means over the seeds, or by paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from anyseg_core.benchmarks.intervals import MOST_UNITS, Difference, paired_difference, units_needed

Rows = Mapping[str, Mapping[str, Any]]
"""By variant and figure: `{"mean": ..., "std": ..., "values": {unit: ...}}`, as `method_table.table` makes them."""


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


class Order(_Claim):
    """Each variant's figure is above that of the one before, with p < 0.05 of the paired t-test."""

    kind: Literal["order"] = "order"
    of: tuple[str, ...] = Field(min_length=2)
    """The least first."""


class Verdict(NamedTuple):
    """What became of a claim."""

    claim: str
    found: str
    held: bool | None
    """None where the table lacks a variant, or has too few units to tell."""
    unheld: str = "not run"
    """Why it is None."""

    def __str__(self) -> str:
        words = self.unheld if self.held is None else "held" if self.held else "NOT held"
        return f"{self.claim}: {self.found}, {words}"


Claim = Ratio | NoWorse | Insensitive | Order


def judge(claim: Claim, rows: Rows) -> Verdict:
    """Hold a claim against a table."""
    wanted = _variants_of(claim)
    missing = [name for name in wanted if claim.figure not in rows.get(name, {})]
    if missing:
        return Verdict(_in_words(claim), f"no figures of {', '.join(missing)}", None)
    if isinstance(claim, Order):
        return _judge_order(claim, rows)
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


def _variants_of(claim: Claim) -> tuple[str, ...]:
    if isinstance(claim, Ratio):
        return (claim.of, claim.to)
    if isinstance(claim, NoWorse):
        return (claim.of, *claim.than)
    return claim.among if isinstance(claim, Insensitive) else claim.of


def _judge_order(claim: Order, rows: Rows) -> Verdict:
    """Held where every step up is clear, not held where one step down is, else undecided."""
    steps: dict[str, Difference] = {}
    for lower, upper in pairwise(claim.of):
        step = paired_difference(rows[upper][claim.figure]["values"], rows[lower][claim.figure]["values"])
        if step is None:
            return Verdict(_in_words(claim), f"{lower} and {upper} have no seed in common", None)
        steps[f"{upper} - {lower}"] = step
    found = "; ".join(f"{name} {step}{_remark(step)}" for name, step in steps.items())
    clear = [step for step in steps.values() if step.is_clear]
    if any(step.estimate.mean < 0 for step in clear):
        return Verdict(_in_words(claim), found, held=False)
    return Verdict(_in_words(claim), found, True if len(clear) == len(steps) else None, "undecided")


def _remark(step: Difference) -> str:
    if step.is_clear:
        return ""
    if step.estimate.half_width is None:
        return ", one unit has no interval"
    needed = units_needed(step)
    return f", {f'more than {MOST_UNITS}' if needed is None else f'about {needed}'} units would tell"


def _in_words(claim: Claim) -> str:
    if isinstance(claim, Order):
        return f"{claim.figure} of {' < '.join(claim.of)}"
    if isinstance(claim, Ratio):
        return f"{claim.figure} of {claim.of} <= {claim.at_most:g} x that of {claim.to}"
    if isinstance(claim, NoWorse):
        return f"{claim.figure} of {claim.of} >= that of {', '.join(claim.than)}"
    return f"{claim.figure} of {', '.join(claim.among)} within {claim.within:g}"
