"""Memory that a long-lived process has no more use for, given back to the system."""

from __future__ import annotations

import ctypes
import gc


def give_back_memory() -> None:
    """Free objects that hold each other, and have the allocator return its free pages. Takes 0.1 to 0.2 s.

    glibc has a heap for each of several threads and keeps what was freed in them; with the settings of `process.setup`
    it never returns any. New threads take any of these heaps, so that each grows to the size of the largest student.
    """
    # `node_process` freezes what was loaded at the start, of which some is garbage by now. What an executor still holds
    # on to is frozen again, and freed the next time.
    frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another libc than glibc
        return
    trim(0)
