"""A thread that does the newest of what it is given, so that nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class NewestJob:
    """Runs one job at a time; one that is given meanwhile waits, and is dropped for a newer one."""

    def __init__(self, name: str, on_error: Callable[[Exception], None]) -> None:
        """`on_error` is called on the thread with what a job raised."""
        self._on_error = on_error
        self._changed = threading.Condition()
        self._next: Callable[[], None] | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Do this next."""
        with self._changed:
            self._next = job
            self._changed.notify()

    def close(self) -> None:
        """Finish the job in work and end the thread; what waits is dropped."""
        with self._changed:
            self._ended = True
            self._next = None
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (job := self._wait()) is not None:
            try:
                job()
            except Exception as error:  # one cloud that nobody foresaw must not end all others
                self._on_error(error)

    def _wait(self) -> Callable[[], None] | None:
        """The next job; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._next is not None)
            job, self._next = self._next, None
            return job
