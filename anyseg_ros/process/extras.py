"""A part that is not installed ends a command with one line and the extra that brings it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from anyseg_core.runtime.extras import missing_module, missing_part


@contextmanager
def missing_part_named() -> Iterator[None]:
    """A module of an extra that the block does not find is named with its extra, without a traceback; exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = missing_module(error)
        if not module:
            raise
        print(f"error: {missing_part(module)}", file=sys.stderr)
        sys.exit(2)
