"""What a robot installs, by package and megabyte: `make robot-size`. It needs a package index, and no Jetson.

For each board the wheels of its own Python and processor are unpacked into a temporary folder, with the commands of
docker/Dockerfile. Not counted are TensorRT, CUDA, ROS 2 with its numpy, and pycuda, which a board compiles (2 MB).
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPOSITORY / "requirements" / "image.txt"
LIMIT_MB = 300
MB = 1e6


class Board(NamedTuple):
    """A machine to install for."""

    name: str
    python: str
    processor: str
    glibc: int
    """Minor version: which wheels it takes."""
    cuda_bindings: str
    """Versions, of its CUDA."""


BOARDS = (
    Board("Orin, JetPack 6", "3.10", "aarch64", 35, ">=12.8,<13"),
    Board("Orin or Thor, JetPack 7", "3.12", "aarch64", 39, ">=13,<14"),
    Board("x86-64, Ubuntu 22.04", "3.10", "x86_64", 35, ">=12.8,<13"),
    Board("x86-64, Ubuntu 24.04", "3.12", "x86_64", 39, ">=13,<14"),
)


def main() -> int:
    """Print the table; the exit code says whether the install on every Jetson is below the limit."""
    with tempfile.TemporaryDirectory() as scratch:
        pip("wheel", "--no-deps", "--wheel-dir", scratch, str(REPOSITORY))
        wheel = next(Path(scratch).glob("*.whl"))
        sizes = {board: install(Path(scratch) / board.name, wheel, board) for board in BOARDS}
    print_table(sizes)
    return int(any(sum(sizes[board].values()) > LIMIT_MB for board in BOARDS if board.processor == "aarch64"))


def print_table(sizes: dict[Board, dict[str, float]]) -> None:
    """A row for each package, the largest first, and the sums."""
    largest: dict[str, float] = {}
    for found in sizes.values():
        largest |= {name: max(size, largest.get(name, 0.0)) for name, size in found.items()}
    table = Table("MB", *(board.name for board in sizes))
    for name in sorted(largest, key=lambda name: -largest[name]):
        table.add_row(name, *(f"{found[name]:.1f}" if name in found else "" for found in sizes.values()))
    table.add_section()
    table.add_row("all", *(f"{sum(found.values()):.0f}" for found in sizes.values()))
    Console(width=130).print(table)


def install(folder: Path, wheel: Path, board: Board) -> dict[str, float]:
    """Unpack what pip would install there; returns the megabytes on disk of each distribution."""
    platforms = [f"manylinux_2_{minor}_{board.processor}" for minor in range(board.glibc, 16, -1)]
    target = ["--target", str(folder), "--python-version", board.python, "--only-binary", ":all:"]
    target += [word for platform in platforms for word in ("--platform", platform)]
    pip("install", *target, "--no-deps", "--requirement", str(REQUIREMENTS))
    pip("install", *target, "--no-deps", str(wheel))
    pip("install", *target, f"cuda-bindings{board.cuda_bindings}")
    return {
        found.metadata["Name"]: sum(on_disk(Path(str(file.locate()))) for file in found.files or ()) / MB
        for found in importlib.metadata.distributions(path=[str(folder)])
        if found.metadata["Name"] != "numpy"
    }


def on_disk(file: Path) -> int:
    """In whole blocks, as `du` counts."""
    return file.stat().st_blocks * 512 if file.exists() else 0


def pip(*words: str) -> None:
    """What it prints is told only where it fails: it warns of this environment, which it does not change."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"pip {' '.join(words)}:\n{done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
