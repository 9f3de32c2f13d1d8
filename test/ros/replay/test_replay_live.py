"""Live beside offline: the list of differences on records made by hand, and a bag through real processes over DDS."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from toy_student import write_toy_student

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from anyseg_core.runtime.sensors import Sensor, in_order
from anyseg_core.sim import Drive, DriveConfig, Weather
from anyseg_core.sim.bag_writer import write_bag
from anyseg_ros.pipeline.jobs import Result
from anyseg_ros.replay.live import plan_of
from anyseg_ros.replay.live_comparison import LiveMask, LiveOptions, LiveOutputs, compare, differences_between
from anyseg_ros.replay.mask_records import MaskRecord
from anyseg_ros.replay.mask_scoring import mask_hash
from anyseg_ros.replay.offline import ReplayOptions, replay
from anyseg_ros.replay.scenarios import Scenario

BOTH = (Sensor.CAMERA, Sensor.DEPTH)
LABELS = np.zeros((4, 6), np.uint8)


def record(stamp_ns: int, labels: np.ndarray = LABELS, used: tuple[Sensor, ...] = BOTH, error: str = "") -> MaskRecord:
    size, mask = (4, 6), "" if error else mask_hash(LABELS)
    return MaskRecord(0, "all", 0.0, stamp_ns, Sensor.CAMERA, BOTH, 5.0, size, mask, 1.0, 1.0, 1.0, error=error)


def heard(stamp_ns: int, labels: np.ndarray = LABELS, late_ms: float = 50.0) -> LiveMask:
    return LiveMask(stamp_ns, late_ms, mask_hash(labels), np.asarray(cv2.imencode(".png", labels)[1]))


@pytest.mark.parametrize(
    ("records", "masks", "used", "same", "kinds"),
    [
        ([record(1)], [heard(1)], BOTH, 1, []),
        ([record(1), record(2)], [heard(2)], BOTH, 1, ["dropped"]),
        ([record(1)], [heard(1), heard(2)], BOTH, 1, ["extra"]),
        ([record(1)], [heard(1)], (Sensor.DEPTH,), 0, ["sensors"]),
        ([record(1)], [heard(1, LABELS + 1)], BOTH, 0, ["pixels"]),
        ([record(1)], [heard(1, late_ms=105.5)], BOTH, 1, ["late"]),
        ([record(1, error="no engine")], [], BOTH, 0, []),
        ([], [], BOTH, 0, []),
    ],
)
def test_every_difference_is_listed(
    records: list[MaskRecord], masks: list[LiveMask], used: tuple[Sensor, ...], same: int, kinds: list[str]
) -> None:
    found, differences = differences_between(records, LiveOutputs(masks, {mask.stamp_ns: used for mask in masks}))
    assert found == same
    assert [difference.kind for difference in differences] == kinds


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drive = Drive(DriveConfig(seed=3, weather=Weather.SUN, duration_s=1.0, width=96, height=64, rate_hz=5.0))
    path = tmp_path_factory.mktemp("live") / "bag"
    write_bag(path, (drive.frame(i) for i in range(5)), drive.rig())
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("student") / "toy")


def test_the_plan_gives_the_node_what_the_bag_tells(bag: Path, student: Path, tmp_path: Path) -> None:
    faults = tmp_path / "lost.yaml"
    faults.write_text("injections: []\n")
    result = replay(bag, None, ReplayOptions(student=student))
    plain = plan_of(LiveOptions(bag, tmp_path, str(student)), result)
    assert plain.node_parameters["modalities.lidar.topic"] == "/lidar/points"
    assert plain.node_parameters["modalities.camera.expected_rate_hz"] == pytest.approx(5.0)
    assert plain.node_parameters["rig.intrinsics"][:2] == [96.0, 64.0]
    assert len(plain.node_parameters["rig.camera_from_lidar_rotation_xyzw"]) == 4
    assert not [name for name in plain.node_parameters if "base_from_lidar" in name], "which the bag does not tell"
    assert set(plain.await_topics) == {"/camera/image_raw", "/depth/image_rect", "/events", "/lidar/points"}
    assert not plain.injector_parameters
    broken = plan_of(LiveOptions(bag, tmp_path, str(student), faults), result)
    assert broken.remap["/events"] == broken.injector_parameters["topics.event.input"] == "/injected/events"
    assert broken.injector_parameters["topics.event.output"] == "/events"
    assert broken.node_parameters["modalities.event.topic"] == "/events"


def test_live_masks_are_scored_as_offline_ones(bag: Path, student: Path, tmp_path: Path) -> None:
    """The offline masks, as if the live node had published them, have the offline score."""

    class Sink:
        def on_mask(self, scenario: Scenario, result: Result) -> None:  # noqa: ARG002
            stamp = result.job.anchor_frame.stamp_ns
            everything.masks.append(heard(stamp, result.segmentation.resized_labels(*result.mask_size)))
            everything.used[stamp] = in_order(result.job.frames)

    everything = LiveOutputs()
    result = replay(bag, tmp_path / "offline", ReplayOptions(student=student), sink=Sink())
    comparison = compare(LiveOptions(bag, tmp_path, str(student)), everything)
    assert comparison.same == result.scores["all"].masks > 0
    assert comparison.is_equal
    assert not comparison.differences
    np.testing.assert_array_equal(comparison.live.confusion.counts, result.scores["all"].confusion.counts)
    assert comparison.live.scored == comparison.offline.scored > 0


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("with_faults", [False, True])
def test_a_bag_through_node_and_player(bag: Path, student: Path, tmp_path: Path, with_faults: bool) -> None:
    """At a fifth of its speed, so that a busy machine keeps up with some of it."""
    command = [sys.executable, "-m", "anyseg_ros.cli", "replay-live", str(bag), "--out", str(tmp_path / "out")]
    command += ["--student", str(student), "--rate", "0.2"]
    if with_faults:
        schedule = tmp_path / "camera_dead.yaml"
        schedule.write_text("injections:\n  - {modality: camera, kind: drop, start_s: 0.0, duration_s: 60.0}\n")
        command += ["--injections", str(schedule)]
    run = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=110, check=False)
    assert "--student takes another" in run.stdout
    assert re.search(r"offline.*│ *\d+ │", run.stdout), run.stdout + run.stderr
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    logs = "".join(path.read_text() for path in sorted((tmp_path / "out" / "log").iterdir()))
    assert content["masks"]["live"] > 0, run.stdout + logs
    assert not [d for d in content["differences"] if d["kind"] == "pixels"]
    used = [json.loads(line)["used"] for line in (tmp_path / "out" / "live_masks.jsonl").read_text().splitlines()]
    assert len(used) == content["masks"]["live"]
    assert any("camera" in names for names in used) != with_faults
