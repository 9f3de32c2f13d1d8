"""Settings of the process that decide how fast a CPU trains."""

from __future__ import annotations

import ctypes
import os
import re
import resource
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def wait_without_spinning() -> None:
    """Let waiting OpenMP threads sleep; call it before torch is imported.

    Spinning threads gain little on an idle machine and, where another program wants a core, slow a step several
    times: 2 threads on 2 cores beside one busy process went from 1.6 s to 1.0 s per step.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def tune_process(torch_threads: int) -> None:
    """Set torch's CPU threads (0 = torch's choice), flush denormal numbers, keep freed memory.

    glibc gives every large tensor back to the system when it is freed; asking for it again, page by page, costs a
    tenth to a fifth of a step.
    """
    import torch  # deferred: `wait_without_spinning` must come first

    if torch_threads:
        torch.set_num_threads(torch_threads)
    torch.set_flush_denormal(True)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc: its allocator has its own habits
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 2**26)


def peak_memory_mb() -> float:
    """The most memory that this process has had; on a GPU, that its tensors have had."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would be the parent's where that was larger
        return float(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
