"""Files that are found through links, and files that a kill leaves whole."""

from __future__ import annotations

from glob import glob
from pathlib import Path


def files_below(root: Path, pattern: str) -> list[Path]:
    """As `Path.glob`, sorted, and `**` enters links to folders, too: data sets are often linked from another disk."""
    found = glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207  # which Path.glob does not enter
    return sorted(root / name for name in found)


def replace_text(path: Path, text: str) -> None:
    """Write a file at once: whenever the process ends, it is as it was before or as it is to be."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
