"""A process that ends with the one that started it, however that ended: one that is killed cannot end its own."""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def module_arguments(module: str, arguments: Sequence[str]) -> list[str]:
    """What `python` is given to run a module, as `python -m module arguments`, that ends with this process.

    The calling thread must not end before the child: the kernel takes it for the parent.
    """
    return ["-m", __name__, str(os.getpid()), module, *arguments]


def end_with_parent(parent: int) -> None:
    """Have this process be sent SIGTERM when the one that started it ends; at once if that is no longer `parent`.

    Only on Linux: elsewhere it has no effect.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it could be watched
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """`python -m anyseg_core.child_process PARENT MODULE ...`: what `module_arguments` starts."""
    parent, module, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
