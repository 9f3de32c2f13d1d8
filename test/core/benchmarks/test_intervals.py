"""Intervals and paired differences against scipy's own tests and values worked out by hand; the claim of an order."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from anyseg_core.benchmarks.claims import Order, judge
from anyseg_core.benchmarks.intervals import Difference, estimate, paired_difference, units_needed

scores = st.lists(st.floats(0, 100).map(lambda x: round(x, 2)), min_size=2, max_size=8)


def by_seed(*values: float) -> dict[str, float]:
    return {str(seed): value for seed, value in enumerate(values, start=1)}


def test_an_interval_by_hand() -> None:
    found = estimate([10.0, 20.0, 30.0])
    assert found.mean == 20
    assert found.half_width == pytest.approx(4.3027 * 10 / 3**0.5, rel=1e-4)
    assert str(found) == "20.0 ± 24.8"
    assert str(estimate([7.0])) == "7.0"


@given(scores, st.data())
def test_differences_are_those_of_the_paired_t_test(first: list[float], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.floats(0, 100).map(lambda x: round(x, 2)), min_size=len(first), max_size=len(first)))
    found = paired_difference(by_seed(*first), by_seed(*second))
    assert found is not None
    assume(found.estimate.std > 1e-9)
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert found.estimate.half_width == pytest.approx((interval.high - interval.low) / 2, rel=1e-6)
    assert found.is_clear == (interval.low > 0 or interval.high < 0)


def test_only_shared_units_are_paired() -> None:
    found = paired_difference({"1": 5.0, "2": 7.0, "9": 0.0}, {"1": 4.0, "2": 5.0, "3": 100.0})
    assert found is not None
    assert (found.estimate.units, found.estimate.mean) == (2, 1.5)
    assert paired_difference({"1": 5.0}, {"2": 5.0}) is None


def test_equal_values_are_no_difference_and_a_constant_one_is_certain() -> None:
    same, more = (paired_difference(by_seed(*values), by_seed(1, 2, 3)) for values in ((1, 2, 3), (2, 3, 4)))
    assert same is not None
    assert more is not None
    assert (same.p, same.is_clear) == (1.0, False)
    assert (more.p, more.is_clear) == (0.0, True)


@pytest.mark.parametrize(("mean", "std"), [(1.0, 1.0), (0.4, 1.0), (3.0, 0.5)])
def test_so_many_units_would_tell_and_no_fewer(mean: float, std: float) -> None:
    needed = units_needed(Difference(estimate([mean - std / 2**0.5, mean + std / 2**0.5]), 0.5))
    assert needed is not None

    def half_width(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1)) * std / n**0.5

    assert half_width(needed) < mean
    assert needed == 2 or half_width(needed - 1) >= mean


def test_nothing_would_tell_of_a_difference_of_nothing() -> None:
    assert units_needed(Difference(estimate([-1.0, 1.0]), 1.0)) is None
    assert units_needed(Difference(estimate([1.0]), None)) is None


def rows(**values: tuple[float, ...]) -> dict[str, dict[str, object]]:
    return {name: {"mean": {"mean": 0.0, "std": 0.0, "values": by_seed(*own)}} for name, own in values.items()}


@pytest.mark.parametrize(
    ("table", "held", "words"),
    [
        (rows(low=(1, 2, 3), mid=(2, 3.1, 4), high=(4, 5, 6.1)), True, "held"),
        (rows(low=(1, 2, 3), mid=(2, 3.1, 4), high=(1, 2, 3.1)), False, "NOT held"),
        (rows(low=(1, 2, 3), mid=(2, 3.1, 4), high=(4, 1, 6)), None, "units would tell, undecided"),
        (rows(low=(1,), mid=(2,), high=(3,)), None, "one unit has no interval; high - mid +1.00, one unit"),
        (rows(low=(1, 2, 3), mid=(2, 3, 4)), None, "no figures of high, not run"),
    ],
)
def test_an_order_is_held_refuted_or_undecided(table: dict, held: bool | None, words: str) -> None:
    verdict = judge(Order(figure="mean", of=("low", "mid", "high")), table)
    assert verdict.held is held
    assert "mean of low < mid < high" in str(verdict)
    assert words in str(verdict)
