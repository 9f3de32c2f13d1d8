"""A clock that is set, beside one that is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyseg_core.runtime.clock_steps import CLOCK_JUMP_NS, ClockSteps, is_within

S = 10**9


@given(st.lists(st.tuples(st.integers(0, 100 * S), st.integers(-100 * S, 100 * S)), max_size=20))
def test_only_a_step_beyond_the_limit_is_told(looks: list[tuple[int, int]]) -> None:
    """(time that passes, by how much the clock is set meanwhile)."""
    steady_ns, clock_ns = 5 * S, 1_700_000_000 * S
    steps = ClockSteps(lambda: steady_ns)
    assert steps.step_ns(clock_ns) == 0
    for passed_ns, set_ns in looks:
        steady_ns += passed_ns
        clock_ns += passed_ns + set_ns
        assert steps.step_ns(clock_ns) == (set_ns if abs(set_ns) > CLOCK_JUMP_NS else 0)


@given(st.lists(st.integers(-100 * S, 100 * S), max_size=20))
def test_of_a_simulated_clock_only_a_step_back_is_one(passes: list[int]) -> None:
    """It may run at any speed, or rest."""
    steady_ns, clock_ns = 5 * S, 1000 * S
    steps = ClockSteps(lambda: steady_ns)
    steps.step_ns(clock_ns, is_simulated=True)
    for passed_ns in passes:
        steady_ns += 3 * S
        clock_ns += passed_ns
        assert steps.step_ns(clock_ns, is_simulated=True) == (passed_ns if passed_ns < -CLOCK_JUMP_NS else 0)


def test_what_was_before_a_clock_was_set_back_is_no_time_ago() -> None:
    assert is_within(10 * S, 11 * S, S)
    assert not is_within(10 * S, 11 * S + 1, S)
    assert is_within(10 * S, 10 * S - CLOCK_JUMP_NS, S)  # callbacks that overtake each other
    assert not is_within(10 * S, 10 * S - CLOCK_JUMP_NS - 1, S)
    assert not is_within(3600 * S, 10 * S, S)
