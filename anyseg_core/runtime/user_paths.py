"""Paths as people write them where no shell reads them: in a configuration, a parameter, an option `--out=~/runs`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def from_home(path: str | Path) -> Path:
    """With `~` or `~user` at its beginning as the home folder; of an unknown user as it is: not found later."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises for an unknown user


UserPath = Annotated[Path, AfterValidator(from_home)]
"""A field of a configuration: without this `~/cache` would be a folder of that name where the command was started."""
