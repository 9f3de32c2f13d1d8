"""Reading ahead on a thread: the bag is read and decoded while the network runs."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerYet  # the built-in one only from Python 3.11 on
from contextlib import suppress
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_END, _WAKE = object(), object()
_PERIOD_S = 0.1


class StoppedError(Exception):
    """Nobody reads any more: what was asked for will not be answered."""


class Prefetch:
    """One thread reads ahead for another, and may have something done on it that belongs to it (an engine)."""

    def __init__(self, depth: int = 16) -> None:
        """`depth`: the most items that are read ahead."""
        self._waiting: queue.Queue[object] = queue.Queue(depth)
        self._errands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._stopped = threading.Event()

    def items(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The same items in the same order, read on a thread. What that thread raises is raised here."""
        thread = threading.Thread(target=self._read, args=(items,), name="bag reader", daemon=True)
        thread.start()
        try:
            while (item := self._next()) is not _END:
                if isinstance(item, _Raised):
                    raise item.error
                yield item  # type: ignore[misc]
        finally:
            self._stopped.set()
            thread.join()

    def on_caller(self, work: Callable[[], _Item]) -> _Item:
        """Have `work` done between two items on the thread that takes them; to be called on the one that reads.

        Raises what `work` raises, and StoppedError.
        """
        answer: Future[_Item] = Future()
        self._errands.append((work, answer))
        if not self._put(_WAKE):
            raise StoppedError
        while not self._stopped.is_set():
            with suppress(NoAnswerYet):
                return answer.result(timeout=_PERIOD_S)
        raise StoppedError

    def _next(self) -> object:
        item: object = _WAKE
        while item is _WAKE:
            while self._errands:
                _do(*self._errands.popleft())
            item = self._waiting.get()
        return item

    def _put(self, item: object) -> bool:
        while not self._stopped.is_set():
            try:
                self._waiting.put(item, timeout=_PERIOD_S)
            except queue.Full:
                continue
            return True
        return False

    def _read(self, items: Iterable[object]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    return
            self._put(_END)
        except BaseException as error:
            self._put(_Raised(error))


def _do(work: Callable[[], Any], answer: Future[Any]) -> None:
    try:
        answer.set_result(work())
    except Exception as error:
        answer.set_exception(error)


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error
