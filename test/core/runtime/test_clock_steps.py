"""A clock that is set, beside one that is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anyseg_core.runtime.clock_steps import CLOCK_JUMP_NS, ClockSteps

S = 10**9


@given(st.lists(st.tuples(st.integers(0, 100 * S), st.integers(-100 * S, 100 * S)), max_size=20))
def test_only_a_step_forward_beyond_the_limit_is_told(looks: list[tuple[int, int]]) -> None:
    """(time that passes, by how much the clock is set meanwhile)."""
    steady_ns, clock_ns = 5 * S, 1_700_000_000 * S
    steps = ClockSteps(lambda: steady_ns)
    assert steps.forward_ns(clock_ns) == 0
    for passed_ns, set_ns in looks:
        steady_ns += passed_ns
        clock_ns += passed_ns + set_ns
        assert steps.forward_ns(clock_ns) == (set_ns if set_ns > CLOCK_JUMP_NS else 0)
