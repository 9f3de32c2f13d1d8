"""Built engines (plans), kept on disk: built once for a machine and a network, never run on another.

A file holds the key that it was made for and the plan:

    ANYSEG-PLAN 1\n
    {"key": {...}, "sha256": "...", "size": 12345}\n
    <the plan>

It is written beside its place and renamed, so a reader finds a whole file or none. While a plan is being built its lock
file is held, so a second process waits for it instead of building it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from anyseg_core.runtime.engines.protocol import BuildCancelledError

MAGIC = b"ANYSEG-PLAN 1\n"
LOCK_POLL_S = 0.2
_LOCK_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
"""A lock file that is a link leads somewhere else, and is not followed."""


@dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on: with any other value it must not be run."""

    library: str
    """Name and version, such as `TensorRT 10.3.0`."""
    gpu: str
    compute_capability: str
    """Such as `8.7`."""
    network_sha256: str
    precision: str
    profiles: str
    """The optimisation profiles, such as `1,2,3,4` live modalities."""

    @property
    def digest(self) -> str:
        """Names the file: 20 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class CachedPlan:
    """A plan ready to be deserialised."""

    data: bytes
    origin: str
    """Where it comes from, in words."""
    warning: str = ""
    """Why it could not be kept, and what to do; empty where it was."""


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/anyseg_ros/engines`; where that is not set, `~/.cache/anyseg_ros/engines`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anyseg_ros" / "engines"


class PlanCache:
    """The plans in one folder, which is made when the first one is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def path(self, key: PlanKey) -> Path:
        """Where the plan of a key belongs."""
        return self.folder / f"{key.network_sha256[:12]}-{key.digest}.plan"

    def get(self, key: PlanKey, build: Callable[[], bytes], go_on: Callable[[], bool] = lambda: True) -> CachedPlan:
        """The plan of a key: from the folder, else from `build`, whose result is kept for the next time.

        While another process builds the same plan, it is waited for; `go_on` is asked meanwhile and ends the waiting
        with False. A folder that cannot be used costs nothing but the next build: the plan comes with a warning.
        """
        plan = self._read(key)
        if plan is not None:
            return plan
        try:
            with self._locked(key, go_on):
                return self._read(key) or self._build_and_keep(key, build)
        except _UnusableFolderError as error:
            return CachedPlan(build(), "built, not kept", self._remedy(error))

    def discard(self, key: PlanKey) -> None:
        """Remove a plan that its library refuses."""
        with suppress(OSError):
            self.path(key).unlink()

    def _build_and_keep(self, key: PlanKey, build: Callable[[], bytes]) -> CachedPlan:
        started = time.monotonic()
        data = build()
        built = f"built in {time.monotonic() - started:.0f} s"
        try:
            self._write(key, data)
        except OSError as error:
            return CachedPlan(data, f"{built}, not kept", self._remedy(error))
        return CachedPlan(data, f"{built}, kept in {self.path(key)}")

    def _read(self, key: PlanKey) -> CachedPlan | None:
        """The plan, where there is one, whole, and made for exactly this key."""
        try:
            self._check_folder()
            with self.path(key).open("rb") as file:
                if file.readline() != MAGIC:
                    return None
                header = json.loads(file.readline())
                data = file.read()
        except (OSError, ValueError):
            return None
        expected = {"key": asdict(key), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return CachedPlan(data, f"read from {self.path(key)}") if header == expected else None

    def _write(self, key: PlanKey, data: bytes) -> None:
        header = {"key": asdict(key), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        handle, name = tempfile.mkstemp(prefix=".writing-", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + json.dumps(header).encode() + b"\n")
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # a full disk says so now, and power may go at any time on a vehicle
            Path(name).replace(self.path(key))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @contextmanager
    def _locked(self, key: PlanKey, go_on: Callable[[], bool]) -> Iterator[None]:
        """Hold the key's lock, which the system releases with the process, however it ends.

        Raises _UnusableFolderError where there can be no lock file, BuildCancelledError.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_folder()
            lock = os.fdopen(os.open(self.path(key).with_suffix(".lock"), _LOCK_FLAGS, 0o600), "wb")
        except OSError as error:
            raise _UnusableFolderError(error) from error
        with lock:
            while not _try_lock(lock.fileno()):
                if not go_on():
                    raise BuildCancelledError("the wait for another process that builds this engine was given up")
                time.sleep(LOCK_POLL_S)
            yield

    def _check_folder(self) -> None:
        """Raises OSError where somebody else could have put a plan there: a plan is code that the GPU runs."""
        found = self.folder.stat()
        if found.st_uid not in (os.geteuid(), 0):
            raise PermissionError(f"{self.folder} belongs to another user (uid {found.st_uid})")
        if found.st_mode & stat.S_IWOTH:
            raise PermissionError(f"{self.folder} can be written by everybody")

    def _remedy(self, error: OSError | _UnusableFolderError) -> str:
        return (
            f"the engine was built in memory and will be built again at the next start: {error}. "
            f"Free space on, or allow writing to, {self.folder}, or set model.engine_cache_dir"
        )


class _UnusableFolderError(Exception):
    """There is no place for lock files."""


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a network drive without locks
        raise _UnusableFolderError(error) from error
    return True
