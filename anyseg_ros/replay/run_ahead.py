"""The network on a thread of its own: while it runs, the next sets are decided and the last masks scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class RunAhead(Generic[_Result]):
    """Work that goes on while its caller does, and steps that follow it in the order in which they were given.

    Whatever the timing, the steps come in the same order with the same results: only when they come differs.
    """

    def __init__(self, most: int = 3) -> None:
        """`most`: how much work may wait or be under way before its caller waits too."""
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._steps: deque[tuple[Future[_Result] | None, Callable[[], None]]] = deque()
        self._open = 0

    def run(self, work: Callable[[], _Result], then: Callable[[Future[_Result]], None]) -> None:
        """`work` on the thread, and `then` with what it returned or raised."""
        future = self._thread.submit(work)
        self._steps.append((future, lambda: then(future)))
        self._open += 1
        self._catch_up(self._most)

    def then(self, step: Callable[[], None]) -> None:
        """A step that needs no work of its own."""
        self._steps.append((None, step))
        self._catch_up(self._most)

    def finish(self) -> None:
        """Until nothing is left."""
        self._catch_up(0)

    def close(self) -> None:
        """What has not begun will not."""
        self._thread.shutdown(cancel_futures=True)

    def _catch_up(self, most: int) -> None:
        """Every step that is due: those of work that is done, and all before the newest `most` pieces of work."""
        while self._steps:
            future, step = self._steps[0]
            if future is not None and self._open <= most and not future.done():
                return
            self._steps.popleft()
            self._open -= future is not None
            step()
