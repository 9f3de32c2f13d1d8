"""Recordings of simulated drives, kept in a folder: a drive is rendered once, not at every start."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from anyseg_core.processes import Progress
from anyseg_core.sim.drive import DriveConfig
from anyseg_core.sim.recorded_drive import RecordedDrive, RecordingError, record_drive


def user_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/anyseg_ros`; where that is not set, `~/.cache/anyseg_ros`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anyseg_ros"


def recording_path(config: DriveConfig, folder: Path) -> Path:
    """Where the drive's recording belongs: another name for every config and every version of the simulator."""
    return folder / f"{_drive_name(config)}_{_simulator_version()}.npz"


def is_recorded(path: Path) -> bool:
    """Whether there is a recording at `path`, and a readable one."""
    try:
        RecordedDrive.load(path)
    except RecordingError:
        return False
    return True


def render_to(folder: Path, config: DriveConfig, workers: int, progress: Progress | None = None) -> Path:
    """Render the drive over `workers` processes into `folder`, in place of what older simulators made of it.

    Returns the recording's path. Raises OSError where it cannot be written, WorkerError where a process died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):  # said now, not when all is rendered
        raise PermissionError(f"no permission to write in {folder}")
    path = recording_path(config, folder)
    record_drive(config, workers, progress).save(path)
    for other in folder.glob(f"{_drive_name(config)}_*.npz"):
        if other != path:
            other.unlink(missing_ok=True)
    return path


def _drive_name(config: DriveConfig) -> str:
    return f"drive_{_short_hash(repr(config).encode())}"


@lru_cache(maxsize=1)
def _simulator_version() -> str:
    """Of the simulator's sources: whatever changes in them may change every drive."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return _short_hash(b"".join(source.read_bytes() for source in sources))


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
