"""The README speaks of what is there: make targets, commands, links, the tree."""

from __future__ import annotations

import itertools
import re
import shlex
from typing import Any

import pytest
from repository import REPOSITORY
from typer.main import get_command
from typer.testing import CliRunner

from anyseg_ros.cli import app

README = (REPOSITORY / "README.md").read_text()
MADE_ELSEWHERE = ("out/", "http", "#")
"""Links and names of what a command makes, or of other places."""


def code_blocks(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in blocks if name == language]


def commands(program: str) -> list[list[str]]:
    """The command lines of a program in code blocks and in text, as words."""
    shell = "\n".join(code_blocks("bash")).splitlines()
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL))
    lines = [part for line in [*shell, *inline] for part in line.split("&&")]
    words = [shlex.split(line, comments=True) for line in lines if line.strip().startswith(f"{program} ")]
    return [line[1:] for line in words]


def tree_paths() -> list[str]:
    """The paths in the captioned tree: two spaces a level, several names a line, then the caption."""
    paths: list[str] = []
    folders: list[str] = []
    for line in code_blocks("")[0].splitlines():
        level = (len(line) - len(line.lstrip())) // 2
        words = re.split(r",? +", line.strip())
        names = list(itertools.takewhile(re.compile(r"[\w*]+(/|\.py)").fullmatch, words))
        folders = [*folders[:level], names[0]]
        paths += ["".join(folders[:level]) + name for name in names]
    return paths


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    used = {line[0] for line in commands("make")}
    assert {"demo", "test"} <= used <= targets


@pytest.mark.parametrize("words", commands("anyseg"), ids=" ".join)
def test_anyseg_commands_parse(words: list[str]) -> None:
    options = [word for word in words if word.startswith("--")]
    result = CliRunner().invoke(app, [*command_of(words), "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert not [option for option in options if option not in result.output]


def command_of(words: list[str]) -> list[str]:
    """The words that name the command: those after it are its arguments."""
    command: Any = get_command(app)
    names: list[str] = []
    for word in words:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        names.append(word)
    return names


def test_links_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    local = [target for target in targets if not target.startswith(MADE_ELSEWHERE)]
    assert local
    assert not [target for target in local if not (REPOSITORY / target).exists()]


def test_files_in_commands_exist() -> None:
    named = {word for line in commands("anyseg") for word in line if word.startswith(("config/", "launch/"))}
    assert named
    assert not [name for name in named if not (REPOSITORY / name).is_file()]


def test_the_tree_is_the_tree() -> None:
    paths = tree_paths()
    assert len(paths) > 20
    assert not [path for path in paths if not list(REPOSITORY.glob(path.rstrip("/")))]
    assert {path.rstrip("/") for path in paths if path.endswith("/")} >= {"anyseg_core", "anyseg_ros", "test", "docs"}


def test_launch_files_and_their_arguments_exist() -> None:
    launched = [line[2:] for line in commands("ros2")]
    assert launched
    for file, *arguments in launched:
        text = (REPOSITORY / "launch" / file).read_text()
        assert not [a for a in arguments if f'"{a.split(":=")[0]}"' not in text]
