"""The tutorials as they are written: the commands of "Your robot" and "Your data", in their order, in one folder."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import REPOSITORY
from small_bags import CAMERA, DEPTH, INFO, LABELS, drive, write_ros2
from typer.testing import CliRunner

from anyseg_core.injection.schedule import InjectionSchedule
from anyseg_ros.cli import app
from anyseg_ros.pipeline.parameters import flattened, from_values, load_parameters

DOCS = REPOSITORY / "docs"
TINY = " ".join(
    f"--set {setting}"
    for setting in (
        "data.size=[64,64]",
        "data.cache=null",
        "optim.batch_size=2",
        "budget.max_steps=3",
        "record.validations=1",
        "machine.accelerator=cpu",
        "machine.torch_threads=1",
    )
)
ADDED = {"anyseg data from-bag": "--every-s 0.1", "anyseg train": TINY}
"""Options that make a command one of seconds."""
ELSEWHERE = {
    "anyseg run": "a node over DDS: test/ros/process, and `make test-extras`",
    "ros2 launch": "test/ros/launch",
    "anyseg watch": "serves until Ctrl-C",
    "anyseg play": "a node: test/ros/replay, and `make test-extras`",
    "anyseg access-policy": "test/ros/access",
    "ros2 security": "a distribution's, with DDS security, which the wheels are built without",
    "export": "the environment of the same",
    "ros2 run": "a node over DDS in an enclave of the same",
    "tensorboard": "runs until Ctrl-C; what it shows: test/core/training/test_training_watched.py",
    "anyseg inject live": "a node: test/ros/inject, and `make test-extras`",
    "anyseg replay my_bag --injections": "ten scenarios, and `make test-extras`",
    "anyseg doctor": "test/ros/doctor",
}
"""Commands of these pages that this test does not run, and where they are."""


def commands(page: str) -> Iterator[str]:
    """Every line of the page's bash blocks, without comments."""
    text = (DOCS / page).read_text()
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield shlex.join(words)


def is_elsewhere(command: str) -> bool:
    return any(command.startswith(words) for words in ELSEWHERE)


def follow(command: str) -> None:
    """Run one command as the page has it, in the working folder; it has to succeed."""
    words = shlex.split(command)
    if words[0] == "cp":
        shutil.copy(*words[1:])
        return
    added = next((options for start, options in ADDED.items() if command.startswith(start)), "")
    assert words[0] == "anyseg", f"nothing here runs {command}"
    done = CliRunner().invoke(app, [*words[1:], *shlex.split(added)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, f"{command}\n{done.output}"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the package's `config` and a short bag of camera and depth with labels, as a newcomer has them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "config", "config")
    write_ros2(tmp_path / "my_bag", drive(10, {CAMERA, DEPTH, INFO, LABELS}))
    return tmp_path


@pytest.mark.timeout(600)  # trains, exports and replays: half a minute on an idle machine
def test_from_a_bag_to_masks_of_the_own_student(workplace: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    done = [command for page in ("robot.md", "data.md") for command in commands(page) if not is_elsewhere(command)]
    for command in done:
        follow(command)
    words = " | ".join(done)
    path = ("inspect", "replay", "data from-bag", "data check", "train", "evaluate", "export", "replay")
    assert re.search(".*".join(f"anyseg {step}" for step in path), words), words
    assert load_parameters(workplace / "my_vehicle.yaml")
    assert (workplace / "runs/my_robot/report/report.html").is_file()
    assert "my_robot" in (workplace / "students/my_robot/model.json").read_text()
    masks = (workplace / "out/replay/masks.jsonl").read_text().splitlines()
    assert len(masks) == 10


def test_what_is_run_elsewhere_is_still_on_the_pages() -> None:
    there = [command for page in ("robot.md", "data.md") for command in commands(page)]
    assert not [words for words in ELSEWHERE if not any(command.startswith(words) for command in there)]


@pytest.mark.timeout(600)
def test_replay_from_python_as_written(workplace: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "replay.md").read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # our own documentation
    assert {"all", "camera", "depth"} <= set(names["result"].scores)
    assert (workplace / "out" / "masks.jsonl").stat().st_size > 0


def test_the_layout_for_foxglove_as_written(workplace: Path) -> None:
    (command,) = re.findall(r"`(anyseg layout [^`]*)`", (DOCS / "planners.md").read_text())
    follow(command)
    assert "/car/segmentation_node/" in (workplace / "car.json").read_text()


def yaml_blocks() -> Iterator[tuple[str, str]]:
    for page in ("index", "robot", "data", "sensor", "planners", "replay"):
        text = (DOCS / f"{page}.md").read_text()
        yield from ((page, block) for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(("page", "block"), list(yaml_blocks()))
def test_files_on_the_pages_are_valid(page: str, block: str, tmp_path: Path) -> None:
    tree = yaml.safe_load(block)
    if "/**" in tree:
        (tmp_path / "parameters.yaml").write_text(block)
        assert load_parameters(tmp_path / "parameters.yaml")
    elif "injections" in tree:
        assert InjectionSchedule.parse(tree)
    else:
        assert from_values(flattened(tree))
