"""Many bags: merged exactly, in one process and over a local Ray; a worker is killed on the way."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from toy_student import write_toy_student

from anyseg_core.runtime.model_card import StudentError
from anyseg_core.sim import Drive, DriveConfig, Weather
from anyseg_core.sim.bag_writer import write_bag
from anyseg_ros.replay import fleet
from anyseg_ros.replay.fleet import (
    ATTEMPTS,
    SCORE,
    BagScore,
    FleetError,
    FleetOptions,
    FleetResult,
    bag_folders,
    read_score,
    replay_serial,
    run_fleet,
)
from anyseg_ros.replay.offline import ReplayOptions

BAGS = 4


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The same short drive in several files: other stamps and labels are not what is tested here."""
    root = tmp_path_factory.mktemp("fleet")
    drive = Drive(DriveConfig(seed=3, weather=Weather.SUN, duration_s=0.6, width=96, height=64, rate_hz=5.0))
    write_bag(root / "first", (drive.frame(i) for i in range(len(drive))), drive.rig())
    (recorded,) = (root / "first").glob("*.mcap")
    paths = [root / f"drive_{i}.mcap" for i in range(BAGS)]
    for path in paths:
        shutil.copy(recorded, path)
    return tuple(paths)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ReplayOptions:
    return ReplayOptions(student=write_toy_student(tmp_path_factory.mktemp("student") / "toy"), subsets=True)


@pytest.fixture(scope="module")
def serial_options(
    bags: tuple[Path, ...], settings: ReplayOptions, tmp_path_factory: pytest.TempPathFactory
) -> FleetOptions:
    return FleetOptions(bags, tmp_path_factory.mktemp("serial"), settings)


@pytest.fixture(scope="module")
def serial(serial_options: FleetOptions) -> FleetResult:
    return replay_serial(serial_options)


def assert_equal(result: FleetResult, expected: FleetResult) -> None:
    assert list(result.scores) == list(expected.scores)
    for name, score in result.scores.items():
        other = expected.scores[name]
        np.testing.assert_array_equal(score.confusion.counts, other.confusion.counts)
        np.testing.assert_array_equal(score.against_reference.counts, other.against_reference.counts)
        assert (score.masks, score.failures, score.scored) == (other.masks, other.failures, other.scored)


def test_the_sum_of_the_bags_is_that_of_each(serial: FleetResult, serial_options: FleetOptions) -> None:
    assert len(serial.bags) == BAGS
    assert not serial.failed
    stored = [read_score(bag, folder / SCORE) for bag, folder in bag_folders(serial_options).items()]
    for name, score in serial.scores.items():
        parts = [bag.scores[name] for bag in stored]
        np.testing.assert_array_equal(score.confusion.counts, sum(part.confusion.counts for part in parts))
        assert score.masks == sum(part.masks for part in parts) > 0
    assert serial.scores["all"].scored == serial.scores["all"].masks
    backwards = FleetResult()
    for bag in stored[::-1]:
        backwards.add(bag)
    assert_equal(backwards, serial)


def test_a_bag_that_cannot_be_read_stops_no_other(
    bags: tuple[Path, ...], settings: ReplayOptions, serial: FleetResult, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"no bag at all")
    result = replay_serial(FleetOptions((bags[0], broken, *bags[1:]), tmp_path / "out", settings))
    assert [bag.bag.name for bag in result.failed] == ["broken.mcap"]
    assert "broken.mcap" in result.failed[0].error
    assert_equal(result, serial)


def test_finished_bags_are_left_out_on_resume(
    bags: tuple[Path, ...],
    settings: ReplayOptions,
    serial: FleetResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = FleetOptions(bags, tmp_path, settings, resume=True)
    folders = bag_folders(options)
    replay_serial(FleetOptions(bags[:2], tmp_path, settings))
    assert all((folders[bag.resolve()] / SCORE).is_file() for bag in bags[:2])
    replayed: list[str] = []
    original = fleet.replay
    monkeypatch.setattr(
        fleet, "replay", lambda bag, *rest, **more: replayed.append(bag.name) or original(bag, *rest, **more)
    )
    assert_equal(replay_serial(options), serial)
    assert replayed == [bag.name for bag in bags[2:]]
    (folders[bags[0].resolve()] / SCORE).write_text("{}")
    with pytest.raises(FleetError, match="no score of a bag"):
        read_score(bags[0], folders[bags[0].resolve()] / SCORE)


def test_folders_are_named_after_the_bags(tmp_path: Path) -> None:
    bags = (Path("/a/drive.mcap"), Path("/b/drive.mcap"), Path("/c/other"), Path("/a/drive.mcap"))
    names = [folder.name for folder in bag_folders(FleetOptions(bags, tmp_path)).values()]
    assert names == ["drive", "drive_2", "other"]


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="no_such_student"):
        replay_serial(FleetOptions((Path("a"),), tmp_path, ReplayOptions(student="no_such_student")))
    with pytest.raises(ValueError, match="no bags"):
        FleetOptions((), tmp_path)
    with pytest.raises(ValueError, match="workers"):
        FleetOptions((Path("a"),), tmp_path, workers=-1)


def test_a_bag_that_failed_adds_nothing() -> None:
    result = FleetResult()
    result.add(BagScore(Path("a"), {}, error="no"))
    assert not result.scores
    assert len(result.failed) == 1


@pytest.fixture
def ray() -> Any:
    return pytest.importorskip("ray", reason="ray is not installed: pip install anyseg_ros[fleet]")


def test_a_bag_is_given_up_after_the_workers_that_have_begun_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that Ray lost before a worker had them count apart: a machine that is gone loses many in a second."""
    monkeypatch.setattr(fleet, "RETRY_S", 0.0)
    job = fleet._Job(tmp_path / "a.mcap", tmp_path)
    for _ in range(20):
        assert job.lost(ConnectionError("the machine is gone")) is None
    for number in range(1, fleet.MAX_RETRIES + 1):
        (tmp_path / ATTEMPTS).write_text("robot 1\n" * number)
        assert job.lost(ConnectionError("killed")) is None
    (tmp_path / ATTEMPTS).write_text("robot 1\n" * (fleet.MAX_RETRIES + 1))
    given_up = job.lost(ConnectionError("killed"))
    assert given_up is not None
    assert given_up.error == "given up: it was begun by 6 workers, and all have died"


def test_a_bag_that_no_worker_can_begin_is_given_up_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "RETRY_S", 0.0)
    job = fleet._Job(tmp_path / "a.mcap", tmp_path)
    answers = [job.lost(ConnectionError("no machine")) for _ in range(fleet.MAX_UNBEGUN + 1)]
    assert answers[:-1] == [None] * fleet.MAX_UNBEGUN
    assert answers[-1] is not None
    assert answers[-1].error == "no worker could begin it: no machine"


@pytest.mark.slow
def test_a_cluster_gives_the_serial_result_though_a_worker_is_killed(
    ray: Any, bags: tuple[Path, ...], settings: ReplayOptions, serial: FleetResult, tmp_path: Path
) -> None:
    """The first worker that has begun a bag is killed at once, as by the kernel when memory runs out."""
    killed: list[int] = []
    ended = threading.Event()

    def kill_one() -> None:
        while not killed and not ended.wait(0.005):
            for file in tmp_path.glob(f"*/{ATTEMPTS}"):
                words = file.read_text().split()
                if len(words) == 2 and not (file.parent / SCORE).is_file():
                    os.kill(int(words[1]), signal.SIGKILL)
                    killed.append(int(words[1]))
                    return

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        result = run_fleet(FleetOptions(bags, tmp_path, settings, workers=2), Console(quiet=True), cluster=True)
    finally:
        ended.set()
        killer.join()
    assert killed
    assert sum(bag.attempts - 1 for bag in result.bags) >= 1
    assert not result.failed
    assert [bag.bag for bag in result.bags] == [bag.resolve() for bag in bags]
    assert_equal(result, serial)
    assert (tmp_path / "fleet.json").is_file()
