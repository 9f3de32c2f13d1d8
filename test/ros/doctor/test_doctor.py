"""`anyseg doctor`: what it finds, and that what it says can be read and done."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from blocked_imports import run_without
from rich.console import Console
from toy_student import write_toy_student

from anyseg_core.runtime import model_card
from anyseg_ros.doctor import doctor
from anyseg_ros.doctor.doctor import Finding, Level
from anyseg_ros.process.setup import PROFILE_ENV, profile_path

RUN_DOCTOR = "from anyseg_ros.cli import app; app(['doctor'])"


@pytest.fixture
def students(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled students with a sound one in it."""
    write_toy_student(tmp_path / "students" / "sound")
    monkeypatch.setattr(model_card, "STUDENTS", tmp_path / "students")
    return tmp_path / "students"


def report(width: int = 80) -> tuple[str, bool]:
    """The report as text, and its verdict."""
    console = Console(file=io.StringIO(), width=width)
    verdict = doctor.report(console)
    return console.file.getvalue(), verdict  # type: ignore[attr-defined]


def only(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    """Have the doctor find just these."""
    monkeypatch.setattr(doctor, "SECTIONS", {"Part": lambda: iter(findings)})


def findings_of(section: str) -> Mapping[str, Finding]:
    return {finding.subject: finding for finding in doctor.SECTIONS[section]()}


def test_every_finding_that_is_not_ok_has_a_remedy(students: Path) -> None:
    findings = [finding for section in doctor.examine().values() for finding in section]
    assert len(findings) > 10
    assert not [f.subject for f in findings if (f.level is Level.OK) == bool(f.remedy)]


def test_this_machine_has_what_the_tests_run_on(students: Path) -> None:
    assert findings_of("Machine")["Python"].level is Level.OK
    assert findings_of("Engines")["onnxruntime"].detail.endswith("CPU")
    assert findings_of("Students")["sound"].detail == "64x64, 25 classes, camera, depth, event, lidar"


@pytest.mark.parametrize("width", [80, 120])
def test_the_report_fits_the_terminal_and_says_every_remedy(students: Path, width: int) -> None:
    text, _ = report(width)
    assert max(map(len, text.splitlines())) <= width
    unwrapped = "".join(text.split())
    for finding in (finding for section in doctor.examine().values() for finding in section):
        assert "".join(finding.remedy.split()) in unwrapped


def test_extras_in_brackets_are_not_taken_for_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, Finding("[gpu]", Level.OPTIONAL, "[red]", "pip install anyseg_ros[gpu]"))
    lines = report()[0].splitlines()
    assert lines[1].split() == ["optional", "[gpu]", "[red]"]
    assert lines[2].split() == ["→", "pip", "install", "anyseg_ros[gpu]"]


def test_only_what_is_missing_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    optional = Finding("tensorrt", Level.OPTIONAL, "not found", "install it")
    only(monkeypatch, optional)
    text, verdict = report()
    assert (verdict, "can run the node" in text) == (True, True)
    only(monkeypatch, optional, Finding("Students", Level.MISSING, "none", "reinstall"))
    text, verdict = report()
    assert not verdict
    assert text.rstrip().endswith("mend first: Students")


def test_no_student_and_a_damaged_one_are_named(students: Path) -> None:
    (students / "sound" / "student.onnx").write_bytes(b"")
    damaged = findings_of("Students")["sound"]
    assert damaged.level is Level.MISSING
    assert "SHA-256 differs" in damaged.remedy
    (students / "sound" / model_card.CARD_NAME).unlink()
    assert findings_of("Students")["Students"].level is Level.MISSING


def test_the_transport_s_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROFILE_ENV, raising=False)
    unset = findings_of("Transport")["Fast DDS profile"]
    assert unset.level is Level.OPTIONAL
    assert f"export {PROFILE_ENV}={profile_path()}" in unset.remedy
    monkeypatch.setenv(PROFILE_ENV, str(profile_path()))
    assert findings_of("Transport")["Fast DDS profile"].level is Level.OK
    monkeypatch.setenv(PROFILE_ENV, str(tmp_path / "none.xml"))
    assert findings_of("Transport")["Fast DDS profile"].level is Level.MISSING


def test_without_rclpy_the_exit_code_is_1_and_the_remedy_is_said() -> None:
    done = run_without("rclpy,torch,tensorrt,embreex,rosbags", RUN_DOCTOR)
    assert done.returncode == 1, done.stderr
    assert "mend first: ROS 2 (rclpy)" in done.stdout
    for extra in ("[ros]", "[gpu]", "[train]", "[sim]", "[replay]"):
        assert f'install-e".{extra}"' in "".join(done.stdout.split())


def test_the_command_s_exit_code_is_the_verdict() -> None:
    done = run_without("", RUN_DOCTOR)
    assert done.returncode == (0 if "This machine can run the node." in done.stdout else 1), done.stderr
