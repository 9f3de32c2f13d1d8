"""A ROS domain that nobody else on this machine tests on: nodes of two runs on one domain would hear each other."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

DOMAINS = range(1, 102)
"""Those of DDS whose ports lie below the ephemeral ones of Linux."""
FOLDER = Path(tempfile.gettempdir())
_held: list[ExitStack] = []


def reserve_domain() -> int:
    """A free domain, this process' own until it ends. Raises RuntimeError where all are taken."""
    first = os.getpid() % len(DOMAINS)
    for domain in (*DOMAINS[first:], *DOMAINS[:first]):
        with suppress(OSError), ExitStack() as files:  # another process' own, or another user's
            lock = files.enter_context((FOLDER / f"anyseg_test_domain_{domain}.lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held.append(files.pop_all())  # closed by the system, which frees it
            return domain
    raise RuntimeError(f"ROS domains {DOMAINS.start} to {DOMAINS.stop - 1} are all in use by tests")
