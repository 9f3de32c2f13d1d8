"""Rendering beside a process that must go on: a process group of its own, which can be ended at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from anyseg_core.child_process import module_arguments
from anyseg_core.processes import WorkerError, available_cores
from anyseg_core.sim.drive import DriveConfig
from anyseg_core.sim.drive_cache import recording_path, render_to
from anyseg_core.sim.recorded_drive import partial_path
from anyseg_core.sim.weather import Weather

END_TIMEOUT_S = 1.0
"""Until processes that do not end on SIGTERM are killed."""


_QUIET_TRACKER = ("-W", "ignore::UserWarning:multiprocessing.resource_tracker")
"""Python's tracker of semaphores removes those of processes that were ended, and would warn of each time we do so."""


class RenderError(Exception):
    """A drive that could not be rendered; the message says why."""


class RenderProcess:
    """Renders a drive into a folder over all cores while this process does something else."""

    def __init__(self, config: DriveConfig, folder: Path) -> None:
        self.path = recording_path(config, folder)
        self._progress = (0, round(config.duration_s * config.rate_hz))
        # A session of its own: Ctrl-C in the terminal does not reach it, and `stop` reaches all of its processes.
        self._process = subprocess.Popen(
            [sys.executable, *_QUIET_TRACKER, *module_arguments(__name__, [json.dumps(asdict(config)), str(folder)])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)

    def progress(self) -> tuple[int, int]:
        """(frames done, frames); does not wait."""
        lines = (self._output.read() or b"").splitlines()
        if lines:
            done, total = lines[-1].split()
            self._progress = int(done), int(total)
        return self._progress

    def is_done(self) -> bool:
        """Whether the recording is there. Raises RenderError where rendering has failed."""
        code = self._process.poll()
        if code:
            raise RenderError(f"rendering the drive ended with code {code}; the lines above say why")
        return code == 0

    def stop(self) -> None:
        """End it, done or not, and leave nothing half written."""
        self._end_group()
        self._output.close()
        with suppress(OSError):  # a folder that is not one, or not ours, has nothing of ours in it
            partial_path(self.path, self._process.pid).unlink()

    def _end_group(self) -> None:
        """SIGTERM first: Python's tracker of the pool's semaphores outlives that, and removes them."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            deadline = time.monotonic() + END_TIMEOUT_S
            while time.monotonic() < deadline:
                self._process.poll()  # the leader must be waited for, or its group never ends
                os.killpg(self._process.pid, 0)  # raises when nobody of the group is left
                time.sleep(0.01)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _print_progress(done: int, total: int) -> None:
    print(done, total, flush=True)


def main() -> int:
    """`python -m anyseg_core.sim.render_process CONFIG_JSON FOLDER`: what a RenderProcess starts."""
    values = json.loads(sys.argv[1])
    config, folder = DriveConfig(**values | {"weather": Weather.parse(values["weather"])}), Path(sys.argv[2])
    try:
        render_to(folder, config, available_cores(), _print_progress)
    except BrokenPipeError:  # the one who asked for it is gone
        return 1
    except OSError as error:
        print(f"error: cannot keep the drive in {folder}: {error}", file=sys.stderr)
        return 1
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
