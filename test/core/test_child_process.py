"""Processes that end with the one that started them, also where that one was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from anyseg_core.child_process import module_arguments

END_S = 20.0
linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel's parent-death signal is Linux'"
)
WAITING = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(300)\n"
CHILD = """
import subprocess, sys
from anyseg_core.child_process import module_arguments
subprocess.run([sys.executable, *module_arguments("waiting", [])])
"""
POOL = """
import sys
from anyseg_core.processes import map_over_processes
import waiting_job
if __name__ == "__main__":
    list(map_over_processes(waiting_job.wait, [0, 1], 2))
"""
WAITING_JOB = "import os, time\ndef wait(_):\n    os.write(1, b'%d\\n' % os.getpid())\n    time.sleep(300)\n"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that processes can import."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    (tmp_path / "waiting.py").write_text(WAITING)
    (tmp_path / "waiting_job.py").write_text(WAITING_JOB)
    return tmp_path


@linux_only
@pytest.mark.parametrize(("script", "children"), [(CHILD, 1), (POOL, 2)])
def test_children_end_with_a_killed_parent(modules: Path, script: str, children: int) -> None:
    (modules / "parent.py").write_text(script)
    with subprocess.Popen([sys.executable, str(modules / "parent.py")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        processes = [psutil.Process(int(parent.stdout.readline())) for _ in range(children)]
        parent.kill()
    assert not psutil.wait_procs(processes, END_S)[1]


@linux_only
def test_a_child_whose_parent_is_gone_already_does_not_begin(modules: Path) -> None:
    arguments = module_arguments("waiting", [])
    arguments[2] = "1"
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")


def test_a_module_runs_as_with_python_m(modules: Path) -> None:
    (modules / "shown.py").write_text("import sys\nprint(__name__, __spec__.name, sys.argv[1:])\nsys.exit(3)\n")
    commands = [["-m", "shown", "-a", "b c"], module_arguments("shown", ["-a", "b c"])]
    done = [subprocess.run([sys.executable, *command], capture_output=True, check=False) for command in commands]
    assert [(one.returncode, one.stdout) for one in done] == [(3, b"__main__ shown ['-a', 'b c']\n")] * 2


def test_no_process_of_ours_is_started_any_other_way() -> None:
    root = Path(__file__).resolve().parents[2]
    files = [file for package in ("anyseg_core", "anyseg_ros") for file in (root / package).rglob("*.py")]
    starting = {file for file in files if "[sys.executable" in (text := file.read_text()) and "Popen" in text}
    assert starting
    assert not [file for file in starting if "module_arguments(" not in file.read_text()]
