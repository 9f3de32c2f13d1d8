"""requirements/: what is locked is what setup.py asks for, whole, hashed, and what the environments are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from declared_requirements import declared_setup
from packaging.requirements import Requirement
from repository import REPOSITORY

LOCKS = REPOSITORY / "requirements"
FILES = {
    "demo.txt": ("ros", "sim", "replay"),
    "test.txt": (
        "ros",
        "sim",
        "replay",
        "train",
        "muses",
        "nyu",
        "potsdam",
        "openvino",
        "fleet",
        "events",
        "test",
        "dev",
    ),
    "docs.txt": ("docs",),
    "image.txt": (),
}
"""Lock file -> the extras of setup.py that it is written from."""
LEFT_OUT = {"test.txt": {"torch"}, "image.txt": {"numpy"}}
"""torch has a build for CPUs and one for CUDA; numpy comes with ROS 2."""


def pins(file: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Every requirement of a lock file with its hashes."""
    text = re.sub(r"^\s*#.*\n", "", (LOCKS / file).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement, *hashes = re.split(r"\s+--hash=", line)
        yield Requirement(requirement), hashes


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def holding(requirements: Iterable[Requirement], python: str) -> dict[str, Requirement]:
    """Those whose marker holds on Linux with this Python, by name."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    return {
        canonical(r.name): r
        for r in requirements
        if r.marker is None or r.marker.evaluate({**environment, "extra": ""})
    }


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("file", FILES)
def test_every_requirement_of_setup_py_is_locked_within_its_range(file: str, python: str) -> None:
    declared = declared_setup()
    lines = [
        *declared["install_requires"],
        *(line for extra in FILES[file] for line in declared["extras_require"][extra]),
    ]
    locked = holding((requirement for requirement, _ in pins(file)), python)
    asked = holding(map(Requirement, lines), python)
    assert set(asked) - set(locked) == LEFT_OUT.get(file, set())
    for name, requirement in asked.items():
        if name in locked:
            (exact,) = locked[name].specifier
            assert exact.operator == "=="
            assert requirement.specifier.contains(exact.version), f"{locked[name]} is not {requirement}: make lock"


@pytest.mark.parametrize("file", FILES)
def test_every_pin_is_hashed_and_no_index_is_named(file: str) -> None:
    assert all(hashes and all(h.startswith("sha256:") for h in hashes) for _, hashes in pins(file))
    assert not re.search(r"https?:|--index|--find-links|@ file:", (LOCKS / file).read_text())


def test_the_tests_lock_is_the_demo_s_and_more_without_torch() -> None:
    demo, test = (holding((r for r, _ in pins(file)), "3.11") for file in ("demo.txt", "test.txt"))
    assert {name: str(r.specifier) for name, r in demo.items()}.items() <= {
        n: str(r.specifier) for n, r in test.items()
    }.items()
    assert not [name for name in test if name == "torch" or name.startswith(("nvidia-", "triton", "cuda-"))]


def test_every_environment_is_made_of_its_lock() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for file in ("demo.txt", "test.txt"):
        assert f"$(PIP) --no-deps --require-hashes -r $(LOCKS)/{file}" in makefile
    for text in (
        Path(REPOSITORY / "docker" / "Dockerfile").read_text(),
        (REPOSITORY / "docs" / "jetson.md").read_text(),
    ):
        assert re.search(r" install --no-deps --require-hashes -r \S*image\.txt", text)


def test_what_the_image_installs_is_what_onnxruntime_and_the_robot_import() -> None:
    """onnxruntime's wheels for Python 3.10 ask for sympy, 86 MB with mpmath, which only its tools import."""
    locked = holding((requirement for requirement, _ in pins("image.txt")), "3.10")
    assert {"flatbuffers", "packaging", "protobuf"} <= set(locked)
    assert not {"sympy", "mpmath", "coloredlogs", "humanfriendly", "numpy"} & set(locked)
