"""`anyseg replay` as a user calls it: exit codes, the files it writes, and the report in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from small_bags import CAMERA, DEPTH, LABELS, SENSORS, drive, storage_file, write_ros2
from toy_student import write_toy_student
from typer.testing import CliRunner, Result

from anyseg_ros.cli import app

BROWSER_TIMEOUT_S = 60
FAULTS = """
description: the <camera> dies
injections:
  - {modality: camera, kind: drop, start_s: 0.5, duration_s: 0.5}
"""
CONDITIONS = """
conditions:
  - {name: always there, metric: age_ms, at_most: 300, type: all_of}
  - {name: "impossible & <wrong>", scenario: all, metric: miou, at_least: 0.999}
"""


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("student") / "toy")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ros2(tmp_path_factory.mktemp("bag") / "drive", drive(16, {*SENSORS[:2], LABELS}))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "camera_dies.yaml").write_text(FAULTS)
    (folder / "conditions.yaml").write_text(CONDITIONS)
    (folder / "of_subset.yaml").write_text(
        "conditions:\n  - {name: a, scenario: depth+event+lidar, metric: age_ms, at_most: 300}\n"
    )
    (folder / "kept.yaml").write_text(CONDITIONS.replace("0.999", "0.0"))
    return folder


def replay(*words: object) -> Result:
    return CliRunner().invoke(app, ["replay", *map(str, words)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, bag: Path, student: Path, files: Path) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("out")
    faults = files / "camera_dies.yaml"
    options = ["--subsets", "--injections", faults, "--conditions", files / "conditions.yaml"]
    return out, replay(bag, "--out", out, "--student", student, *options)


def test_a_failed_condition_is_exit_code_1(replayed: tuple[Path, Result]) -> None:
    _, result = replayed
    assert result.exit_code == 1, result.output
    assert "failed impossible" in result.output
    assert "passed always there" in result.output


def test_conditions_that_hold_are_exit_code_0(tmp_path: Path, bag: Path, student: Path, files: Path) -> None:
    result = replay(bag, "--out", tmp_path, "--student", student, "--conditions", files / "kept.yaml")
    assert result.exit_code == 0, result.output


def test_a_bag_that_was_not_read_completely_has_not_passed(tmp_path: Path, student: Path, files: Path) -> None:
    bag = write_ros2(tmp_path / "bag", drive(16, {CAMERA, LABELS}))
    file = storage_file(bag)
    file.write_bytes(file.read_bytes()[:-2000])
    result = replay(file, "--out", tmp_path / "out", "--student", student, "--conditions", files / "kept.yaml")
    assert result.exit_code == 1, result.output
    assert "failed the bag was read completely" in result.output
    assert replay(file, "--out", tmp_path / "out", "--student", student).exit_code == 0  # nothing was to be judged


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (lambda f, _b: [f / "none"], "no bag at"),
        (lambda _f, b: [b, "--student", "nobody"], "no student 'nobody'"),
        (lambda f, b: [b, "--injections", f / "none.yaml"], "there is no file "),
        (lambda f, b: [b, "--conditions", f / "none.yaml"], "there is no file "),
        (lambda f, b: [b, "--conditions", f / "camera_dies.yaml"], "conditions"),
        (lambda _f, b: [b, "--labels", "nowhere"], "no folder at"),
        (lambda _f, b: [b, "--labels", "/nowhere"], "no topic /nowhere"),
        (lambda _f, b: [b, "--map", "camera=/x"], "ROLE:=TOPIC"),
        (lambda _f, b: [b, "--map", "lidar:=/camera/image_raw"], "lidar can only be"),
        (lambda f, b: [b, "--params-file", f / "none.yaml"], "config/vehicle.yaml"),
        (lambda f, b: [b, "--params-file", f / "none.yaml"], "there is no file "),
        (lambda f, b: [b, "--conditions", f / "of_subset.yaml"], "; --subsets adds "),
        (lambda f, b: [b, "--params-file", f / "camera_dies.yaml"], "no ROS parameter file"),
        (lambda f, b: [b, "--write-bag", f], "exists already"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_line(
    tmp_path: Path, bag: Path, student: Path, files: Path, words: Callable[[Path, Path], list], says: str
) -> None:
    given = words(files, bag)
    chosen = [] if "--student" in given else ["--student", student]
    result = replay(*given, *chosen, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stderr.startswith("error: ")


def test_the_student_and_its_limits_are_told_before_it_runs_and_in_the_report(
    tmp_path: Path, bag: Path, student: Path
) -> None:
    bound = tmp_path / "bound"
    shutil.copytree(student, bound)
    card = json.loads((bound / "model.json").read_text())
    card["training"] |= {"data": "some streets: 3 samples", "licence": "CC BY-NC", "non_commercial": True}
    (bound / "model.json").write_text(json.dumps(card))
    notice = "is for research and non-commercial use only: CC BY-NC."
    for bags in ([bag], [bag, bag]):
        first, second, *_ = replay(*bags, "--out", tmp_path / "out", "--student", bound).stdout.splitlines()
        assert re.match(r"student \w+.*; trained on some streets\. --student takes another: pothole, ", first)
        assert notice in second
    replay(bag, "--out", tmp_path / "out", "--student", bound)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "; trained on some streets." in page
    assert notice in page


@pytest.mark.parametrize("options", [[], ["--cluster"]])
def test_what_is_no_bag_is_refused_before_the_first_one_is_begun(
    tmp_path: Path, bag: Path, student: Path, files: Path, options: list[str]
) -> None:
    kept = files / "kept.yaml"
    for other, hint in ((kept, f"--params-file {kept}"), (tmp_path / "none", f"no bag at {tmp_path / 'none'}")):
        result = replay(bag, other, "--student", student, "--out", tmp_path / "out", *options)
        assert result.exit_code == 2, result.output
        assert not result.stdout
        assert hint in result.stderr
        assert "BagError" not in result.stderr
        assert not (tmp_path / "out").exists()
    assert "--params-file" in replay(kept).stderr


def test_one_thing_is_singular_and_a_bad_bag_is_told_without_a_class_name(
    tmp_path: Path, bag: Path, student: Path
) -> None:
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"no bag at all")
    several = replay(bag, broken, "--student", student, "--out", tmp_path / "out")
    assert several.exit_code == 1, several.output
    assert "1 bag failed, 0 begun again" in several.stdout
    assert "BagError" not in several.output
    replay(bag, "--student", student, "--out", tmp_path / "alone")
    assert "s of driving, 1 scenario, 16 masks;" in (tmp_path / "alone" / "report.html").read_text()


def test_results_are_json_lines(replayed: tuple[Path, Result]) -> None:
    out, _ = replayed
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    kinds = [line["record"] for line in lines]
    assert kinds.count("replay") == 1
    assert kinds.count("scenario") == 4  # all, camera, depth, the fault
    assert kinds.count("phase") == 3
    assert kinds.count("condition") == 1 + 4 + 1
    by_name = {line["scenario"]: line for line in lines if line["record"] == "scenario"}
    assert by_name["all"]["masks"] == 16
    assert by_name["all"]["used"] == {"camera+depth": 16}
    phases = [line for line in lines if line["record"] == "phase"]
    assert [p["phase"] for p in phases] == ["all alive", "camera drop", "all alive"]
    assert phases[1]["used"] == {"depth": 5}
    assert 0 <= phases[1]["reaction_s"] < 0.1
    assert phases[1]["miou_all_sensors"] is not None
    assert lines[0]["topics"] == {"camera": CAMERA, "depth": DEPTH}


def test_junit_tells_each_condition(replayed: tuple[Path, Result]) -> None:
    out, _ = replayed
    (suite,) = ElementTree.parse(out / "junit.xml").getroot()
    cases = {(case.get("name"), case.get("classname")): case.find("failure") for case in suite.iter("testcase")}
    assert (suite.get("tests"), suite.get("failures")) == ("6", "1")
    assert cases["always there", "camera_dies"] is None
    failure = cases["impossible & <wrong>", "all"]
    assert failure is not None
    assert "required >= 0.999" in (failure.get("message") or "")


def test_the_report_in_a_browser(replayed: tuple[Path, Result]) -> None:
    browser = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if browser is None:
        pytest.skip("no browser to look at the report with: install chromium")
    out, _ = replayed
    url = (out / "report.html").as_uri()
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom", url],
        capture_output=True, text=True, timeout=BROWSER_TIMEOUT_S, check=True,
    )  # fmt: skip
    page = done.stdout
    assert '<span id="verdict" class="chip failed">failed: 5 of 6 conditions hold</span>' in page
    assert "impossible &amp; &lt;wrong&gt;" in page
    assert "the &lt;camera&gt; dies" in page
    assert page.count("<svg ") == 2  # all sensors and the fault
    assert page.count('fill="#e53935"') >= 1  # the camera's failed state
    assert 'class="fault"' in page
    assert page.count("data:image/jpeg;base64,") % 3 == 0
    assert page.count("data:image/jpeg;base64,") >= 3
    assert "without camera" in page
    assert "without depth" in page


def test_a_report_without_labels_and_scenarios_shows_masks_over_the_drive(tmp_path: Path, student: Path) -> None:
    bag = write_ros2(tmp_path / "bag", drive(21, {CAMERA, DEPTH}))
    result = replay(bag, "--out", tmp_path / "out", "--student", student)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "report.html").read_text()
    shown = re.findall(r"<figcaption>([\d.]+) s, made from CD··</figcaption>", page)
    assert shown == ["0.2", "0.5", "0.8", "1.2", "1.5", "1.8"]  # of two seconds
    assert page.count("data:image/jpeg;base64,") == len(shown)
    assert re.search(r'<p class="legend"><span><i style="background: rgb', page)


def test_a_report_without_labels_compares_with_all_sensors(tmp_path: Path, student: Path, files: Path) -> None:
    bag = write_ros2(tmp_path / "bag", drive(16, {CAMERA, DEPTH}))
    scenarios = "--subsets", "--injections", files / "camera_dies.yaml"
    result = replay(bag, "--out", tmp_path / "out", "--student", student, *scenarios)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert "agreement mIoU" in page.replace("&#39;", "'")
    assert "no conditions were given" in page
    assert "<figcaption>differs from the mask of all sensors</figcaption>" in page
    assert "<h2>The masks that differ most from those of all sensors</h2>" in page
    assert '<table id="losses">' in page
    for of_labels in ("wrong pixels", "worst masks", "IoU with all"):  # which would be 100 by construction
        assert of_labels not in page
    for word in ("agreement", "mIoU, %"):
        assert f'class="label">{word}</text>' in page


def test_a_report_with_labels_names_what_is_wrong(replayed: tuple[Path, Result]) -> None:
    page = (replayed[0] / "report.html").read_text()
    for of_labels in ("wrong pixels", "The worst masks", "IoU with all", 'class="label">mIoU, %</text>'):
        assert of_labels in page
    assert "differs from the mask" not in page


def test_a_rate_that_is_learnt_is_no_rate_of_0(tmp_path: Path, bag: Path, student: Path) -> None:
    parameters = tmp_path / "vehicle.yaml"
    found = CliRunner().invoke(app, ["inspect", str(bag), "--write", str(parameters), "--page", str(tmp_path / "p")])
    assert found.exit_code == 0, found.output
    result = replay(bag, "--out", tmp_path / "out", "--student", student, "--params-file", parameters)
    assert result.exit_code == 0, result.output
    table = (tmp_path / "out" / "report.html").read_text().partition("expected, Hz")[2]
    assert table.count("<td>learnt</td>") == 2
