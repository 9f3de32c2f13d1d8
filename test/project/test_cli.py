"""The command `anyseg`: its help, its answers to bad input, and the simulator's commands at tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from blocked_imports import run_without
from repository import REPOSITORY
from toy_student import write_toy_student
from typer.testing import CliRunner, Result

from anyseg_core.runtime.extras import missing_part
from anyseg_core.runtime.sensors import DEFAULT_SENSORS
from anyseg_ros.cli import app, as_a_shell_would

ROOT = typer.main.get_command(app)
MAIN = "import sys; from anyseg_ros.cli import main; sys.argv = ['anyseg', *sys.argv[2:]]; main()"
TINY = ["--duration-s", "0.2", "--workers", "1"]
"""Two frames."""

simulator = pytest.mark.usefixtures("embree")


@pytest.fixture(scope="module")
def embree() -> None:
    pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def command_paths(command: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group."""
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from command_paths(child, (*path, name))


@pytest.mark.parametrize("path", list(command_paths()), ids=lambda path: " ".join(path) or "anyseg")
def test_help_says_what_every_command_and_option_is_for(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_the_commands_are_those_of_the_design() -> None:
    assert {"doctor", "demo", "run", "train", "evaluate", "export", "simulate live", "simulate bag", "bench robot"} <= {
        " ".join(path) for path in command_paths()
    }


def fails_with(result: Result, words: str) -> None:
    """Exit code 2 and one line that says what is wrong."""
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert words in result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "none.yaml"], "cannot read"),
        (["evaluate", "none"], "no checkpoint at"),
        (["export", "none", "student"], "no checkpoint at"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_training_cannot_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    pytest.importorskip("lightning_fabric", reason="training needs pip install anyseg_ros[train]")
    monkeypatch.chdir(tmp_path)
    fails_with(invoke(*words), says)
    assert not list(tmp_path.iterdir())


def test_a_setting_that_training_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric", reason="training needs pip install anyseg_ros[train]")
    config = REPOSITORY / "config" / "train" / "pothole.yaml"
    result = invoke("train", config, "--out", tmp_path, "--set", "epochz=3")
    assert result.exit_code == 2
    assert "epochz" in result.stderr


@simulator
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--weather", "hail"], "unknown weather 'hail'"),
        (["--duration-s", "0"], "must be positive"),
        (["--duration-s", "nan"], "must be positive"),
        (["--duration-s", "inf"], "at most 86400 s"),
        (["--duration-s", "0.01"], "have no frame"),
        (["--seed", "-1"], "seed must be 0 or more"),
        (["--rate-hz", "1e9"], "at most 86400 s and 1000 Hz"),
    ],
)
@pytest.mark.parametrize("command", ["drive", "bag"])
def test_a_drive_that_cannot_be(tmp_path: Path, command: str, options: list[str], says: str) -> None:
    fails_with(invoke("simulate", command, tmp_path / "out", *options), says)
    assert not list(tmp_path.iterdir())


@simulator
def test_a_bag_s_folder_must_be_new_and_its_storage_known(tmp_path: Path) -> None:
    fails_with(invoke("simulate", "bag", tmp_path), "exists already")
    result = invoke("simulate", "bag", tmp_path / "bag", "--storage", "zip")
    assert (result.exit_code, "'zip' is not one of" in result.stderr) == (2, True)


@simulator
def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke("simulate", "drive", tmp_path / "file" / "drive.npz", *TINY)
    assert result.exit_code == 2
    assert "error: " in result.stderr


PARAMETER_FILES = {
    "no such": (None, "none.yaml"),
    "no ros__parameters": ("segmentation_node:\n  model: {threads: 1}\n", "segmentation_node needs `ros__parameters:`"),
    "of another node": ("other:\n  ros__parameters: {a: 1}\n", "no section is for segmentation_node"),
    "no YAML": ("a: [1\n", "is no ROS parameter file"),
    "empty": ("", "is no ROS parameter file"),
    "a list": ("- 1\n", "is no ROS parameter file"),
    "mistyped name": ("/**:\n  ros__parameters: {modle: {threads: 1}}\n", "did you mean model.threads?"),
}


@pytest.mark.parametrize("name", PARAMETER_FILES)
def test_run_names_what_is_wrong_with_its_parameter_file(tmp_path: Path, name: str) -> None:
    content, says = PARAMETER_FILES[name]
    file = tmp_path / "none.yaml"
    if content is not None:
        file.write_text(content)
    fails_with(invoke("run", "--params-file", file), says)


@simulator
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--studnt", "x"], "no such option: --studnt; did you mean --student?"),
        (["run", "--student", "vehicle_sim", "--name-space=x"], "did you mean --namespace?"),
        (["run", "vehicle_sim"], "no such option: vehicle_sim"),
        (["run", "-p"], "-p needs a value"),
        (["run", "-p", "model.student"], "write name:=value"),
        (["run", "--student", "nope"], "no student 'nope'"),
        (["run", "--params-file", "{tmp_path}/nope.yaml"], "no student 'nope'"),
        (["run", "--", "--params-file", "{tmp_path}/bare.yaml"], "model has no `ros__parameters:`"),
        (["simulate", "live", "--wether", "fog"], "did you mean --weather?"),
        (["simulate", "live", "--weather", "snow"], "unknown weather 'snow'"),
        (["simulate", "live", "--duration-s", "0"], "must be positive"),
        (["simulate", "live", "--recording", "none.npz"], "no recording at"),
        (["simulate", "live", "--injections", "none.yaml"], "none.yaml"),
        (["inject", "live", "x.yaml", "--too", "y"], "did you mean --to?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_a_node_s_command_is_one_line_and_2(tmp_path: Path, words: list[str], says: str) -> None:
    (tmp_path / "nope.yaml").write_text("/**:\n  ros__parameters: {model: {student: nope}}\n")
    (tmp_path / "bare.yaml").write_text("segmentation_node:\n  model: 1\n")
    fails_with(invoke(*(word.format(tmp_path=tmp_path) for word in words)), says)


@pytest.mark.parametrize("domain", ["abc", "233", "-1", "1.5"])
def test_no_domain_is_named(monkeypatch: pytest.MonkeyPatch, domain: str) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    fails_with(invoke("run"), f"ROS_DOMAIN_ID={domain} is no domain")


@pytest.mark.ros
@simulator
def test_what_the_demo_cannot_use(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    toy = write_toy_student(tmp_path / "toy")
    out = tmp_path / "out"
    fails_with(invoke("demo", "--out", out, "--student", "nowhere"), "no student 'nowhere'")
    fails_with(invoke("demo", "--out", out, "--student", toy, "--injections", tmp_path / "none.yaml"), "none.yaml")
    fails_with(invoke("demo", "--out", out, "--student", toy, "--weather", "hail"), "unknown weather 'hail'")
    assert not out.exists()


@pytest.mark.parametrize(
    ("blocked", "command", "extra"),
    [
        ("torch", ["train", "x"], "train"),
        ("lightning_fabric", ["train", "x"], "train"),
        ("tensorboard", ["train", "x"], "train"),
        ("safetensors", ["evaluate", "x"], "train"),
        ("onnxscript", ["export", "x", "y"], "train"),
        ("torch", ["data", "check", "x", "--kind", "folder"], "train"),
        ("trimesh", ["simulate", "drive", "x"], "sim"),
        ("embreex", ["simulate", "drive", "x"], "sim"),
        ("embreex", ["simulate", "dataset", "x"], "sim"),
        ("rclpy", ["run"], "ros"),
        ("rosbags", ["replay", "x"], "replay"),
        ("jinja2", ["replay", "x"], "replay"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_part_that_is_not_installed_is_named_with_its_extra(blocked: str, command: list[str], extra: str) -> None:
    if extra == "train" and blocked != "torch":
        pytest.importorskip("torch", reason="torch itself would be named first")
    done = run_without(blocked, MAIN, *command)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [f"error: {missing_part(blocked)}"]
    assert f' install -e ".[{extra}]"' in done.stderr


WITHOUT_SIMULATOR = """
from typer.testing import CliRunner
from anyseg_ros.cli import app

SCHEDULE = "config/injections/camera_lost.yaml"
for command in ("replay", "replay-live", "play", "inspect", "data from-bag", "inject bag"):
    rest = {"data from-bag": ["nowhere"], "inject bag": ["nowhere", "--injections", SCHEDULE]}
    result = CliRunner().invoke(app, [*command.split(), "no_such_bag", *rest.get(command, [])])
    if not ("no_such_bag" in result.output and isinstance(result.exception, SystemExit)):
        print(command, result.output, repr(result.exception))
"""
"""Prints what does not end with a word on the bag."""


@pytest.mark.ros
def test_commands_on_bags_need_no_simulator() -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    done = run_without("trimesh,embreex", WITHOUT_SIMULATOR)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@simulator
def test_a_simulated_bag_reads_back(tmp_path: Path) -> None:
    from rosbags.highlevel import AnyReader

    from anyseg_core.sim.bag_writer import TOPICS

    result = invoke("simulate", "bag", tmp_path / "bag", "--storage", "sqlite3", *TINY)
    assert result.exit_code == 0, result.output
    with AnyReader([tmp_path / "bag"]) as reader:
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
    assert counts == {topic: 1 if topic == "/tf_static" else 2 for topic in TOPICS}
    assert "2 frames in" in result.output


@simulator
def test_a_simulated_drive_reads_back(tmp_path: Path) -> None:
    from anyseg_core.sim.recorded_drive import RecordedDrive

    file = tmp_path / "new folder" / "drive.npz"
    result = invoke("simulate", "drive", file, "--weather", "fog", *TINY)
    assert result.exit_code == 0, result.output
    drive = RecordedDrive.load(file)
    assert len(drive) == 2
    assert set(drive.frame(1).frames) == set(DEFAULT_SENSORS)


@pytest.mark.parametrize(("columns", "width"), [(None, "160"), ("100", "100")])
def test_a_table_in_a_file_is_wide_enough_to_be_read(columns: str | None, width: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {"COLUMNS": columns} if columns else {}
    code = "from anyseg_core.cli import console; print(console.width)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == width


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("--out=~/runs", "--out=/home/ann/runs"),
        ("~/bag", "/home/ann/bag"),
        ("--set=data.cache=~/x", "--set=data.cache=~/x"),  # the configuration reads that
        ("a~/b", "a~/b"),
        ("~nobody_here/b", "~nobody_here/b"),
    ],
)
def test_the_home_folder_in_an_option_is_no_folder_of_that_name(
    monkeypatch: pytest.MonkeyPatch, word: str, read: str
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert as_a_shell_would(word) == read


@pytest.mark.parametrize(
    "command",
    [
        "evaluate run --json {place}",
        "evaluate run --out {place}",
        "export run {place}",
        "train train.yaml --out {place}",
        "simulate drive {place}",
        "simulate bag {place}",
        "replay bag --json {place}",
        "bench train --json {place}",
        "data check data --json {place}",
    ],
)
def test_what_cannot_be_written_is_told_before_the_work(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, command.format(place=tmp_path / "file" / "x.npz").split())
    assert result.exit_code == 2
    assert f"cannot be written: {tmp_path / 'file'} is a file" in result.stderr
