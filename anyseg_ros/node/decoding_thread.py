"""A thread that decodes one sensor's messages, so that no sensor's pictures keep another sensor's messages waiting.

To hand a message over costs a millisecond or more where threads share the interpreter, so messages that have proven
quick are decoded by the caller.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

BUDGET_S = 0.25
"""Of one message, by the thread's own processor time: a computer that is busy with something else is no sensor's fault.
What takes longer is no live sensor's picture, or the computer is too slow for it."""
REST_FACTOR = 3
"""After a message over budget the thread rests this many times as long: one sensor gets a quarter of a core at most."""
QUICK_S = 0.005
"""What takes the caller no longer keeps nobody waiting."""
PROVEN = 10
"""So many quick messages in a row prove that the next one is quick."""
STOP_TIMEOUT_S = 2.0


class DecodingThread:
    """Calls `decode(message)` for the newest message, or for up to `depth` waiting ones in their order.

    `decode` must not raise. `on_slow(seconds)` is told of a message that took longer than `BUDGET_S`; those that come
    while the thread rests afterwards are dropped. Where messages are `alike`, the caller decodes the next one itself
    after `PROVEN` quick ones; two messages are never decoded at once.
    """

    def __init__(
        self,
        name: str,
        decode: Callable[[Any], None],
        on_slow: Callable[[float], None],
        depth: int = 1,
        budget_s: float = BUDGET_S,
        *,
        alike: bool = False,
    ) -> None:
        self._decode, self._on_slow, self._budget_s = decode, on_slow, budget_s
        self._waiting: deque[Any] = deque(maxlen=depth)
        self._changed = threading.Condition()
        self._stopped = False
        self._is_busy = False
        self.alike = alike
        """Whether the messages of its sensor take about the same time each."""
        self._quick = 0
        """Quick messages in a row."""
        self._rests_until_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"decode {name}", daemon=True)
        self._thread.start()

    def put(self, message: Any) -> None:
        """Decode a message that will be quick; leave another one to the thread, where the oldest makes way if too many
        wait.
        """
        with self._changed:
            if time.monotonic() < self._rests_until_s:
                return
            if self.alike and self._quick >= PROVEN and not (self._is_busy or self._waiting or self._stopped):
                self._is_busy = True
            else:
                self._waiting.append(message)
                self._changed.notify()
                return
        self._decode_one(message)

    def stop(self) -> None:
        """Drop what waits and end; a message that is being decoded is waited for, within reason."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        while (message := self._next()) is not None:
            self._decode_one(message)
            del message  # a picture of 25 MB is not kept until the next one comes

    def _next(self) -> Any | None:
        with self._changed:
            self._changed.wait_for(lambda: (self._waiting and not self._is_busy) or self._stopped)
            if self._stopped:
                return None
            self._is_busy = True
            return self._waiting.popleft()

    def _decode_one(self, message: Any) -> None:
        begun_s = time.thread_time()
        self._decode(message)
        taken_s = time.thread_time() - begun_s
        with self._changed:
            self._is_busy = False
            self._quick = self._quick + 1 if taken_s <= QUICK_S else 0
            if self._waiting:
                self._changed.notify()
        if taken_s > self._budget_s:
            self._rest(taken_s)

    def _rest(self, taken_s: float) -> None:
        with self._changed:
            self._waiting.clear()
            self._rests_until_s = time.monotonic() + REST_FACTOR * taken_s
        self._on_slow(taken_s)
