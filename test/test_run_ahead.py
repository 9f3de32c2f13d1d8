"""RunAhead: work on a thread, what follows it in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyseg_ros.replay.run_ahead import RunAhead


@pytest.fixture
def ahead() -> Iterator[RunAhead[int]]:
    made: RunAhead[int] = RunAhead(most=2)
    yield made
    made.close()


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.001])), max_size=30))
def test_steps_come_in_order_whatever_the_work_takes(plan: list[tuple[bool, float]]) -> None:
    ahead: RunAhead[int] = RunAhead(most=2)
    seen: list[int] = []
    for number, (has_work, takes_s) in enumerate(plan):
        if has_work:
            ahead.run(partial(work, number, takes_s), lambda done: seen.append(done.result()))
        else:
            ahead.then(partial(seen.append, number))
    ahead.finish()
    ahead.close()
    assert seen == list(range(len(plan)))


def work(number: int, takes_s: float) -> int:
    time.sleep(takes_s)
    return number


def test_it_goes_on_while_the_work_runs_but_no_further_than_allowed(ahead: RunAhead[int]) -> None:
    gate = threading.Event()
    seen: list[int] = []
    for number in range(2):
        ahead.run(lambda n=number: (gate.wait() and n) or n, lambda done: seen.append(done.result()))
    ahead.then(lambda: seen.append(-1))
    assert seen == []  # and this line is reached though the work has not ended
    third = threading.Thread(target=ahead.run, args=(lambda: 2, lambda done: seen.append(done.result())))
    third.start()
    third.join(0.1)
    assert third.is_alive()  # it waits: two are under way
    gate.set()
    third.join()
    ahead.finish()
    assert seen == [0, 1, -1, 2]


def test_what_the_work_raises_reaches_its_step(ahead: RunAhead[int]) -> None:
    errors: list[BaseException | None] = []

    def fail() -> int:
        raise ValueError("no")

    def note(done: Future[int]) -> None:
        errors.append(done.exception())

    ahead.run(fail, note)
    ahead.finish()
    assert isinstance(errors[0], ValueError)


def test_close_leaves_out_what_has_not_begun(ahead: RunAhead[int]) -> None:
    gate = threading.Event()
    ran: list[int] = []
    ahead.run(lambda: int(gate.wait()), lambda _done: None)
    ahead.run(lambda: ran.append(1) or 1, lambda _done: None)
    threading.Timer(0.05, gate.set).start()
    ahead.close()
    assert ran == []
