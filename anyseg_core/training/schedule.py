"""Progress through the training budget, and what follows from it: learning rate and image size."""

from __future__ import annotations

from typing import NamedTuple

from anyseg_core.training.config import BudgetConfig, OptimConfig


def progress(budget: BudgetConfig, step: int, elapsed_s: float) -> float:
    """Share of the budget that is used, 0 to 1: of steps or of minutes, whichever is further."""
    by_steps = step / budget.max_steps if budget.max_steps else 0.0
    by_time = elapsed_s / (60.0 * budget.max_minutes) if budget.max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def learning_rate(optim: OptimConfig, done: float) -> float:
    """Linear warm-up, and polynomial decay to zero at `done` = 1, beneath the warm-up or after it."""
    rise = optim.warmup_start + (1.0 - optim.warmup_start) * done / optim.warmup if done < optim.warmup else 1.0
    if optim.decay == "after_warmup":
        done = max(0.0, done - optim.warmup) / (1.0 - optim.warmup)
    return optim.lr * rise * (1.0 - done) ** optim.power


class Phase(NamedTuple):
    """A stretch of training at one image size."""

    end: float
    """Share of the budget at which it ends."""
    size: tuple[int, int]
    """(height, width) in pixels."""


def phases(budget: BudgetConfig, full_size: tuple[int, int]) -> list[Phase]:
    """The resolution schedule as phases; widths keep the proportions of the full size."""
    rungs = budget.resolution_schedule or ((0.0, full_size[0]),)
    ends = [start for start, _ in rungs[1:]] + [1.0]
    height, width = full_size
    return [Phase(end, (rung, rung * width // height)) for (_, rung), end in zip(rungs, ends, strict=True)]
