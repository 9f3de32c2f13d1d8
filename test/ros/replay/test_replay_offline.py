"""Replay in simulated time: deterministic, resumable, from any bag; scenarios, ground truth, what a scenario loses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from repository import REPOSITORY
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Writer
from small_bags import (
    CAMERA,
    DEPTH,
    HEIGHT,
    INFO,
    LABELS,
    LIDAR,
    PERIOD_NS,
    SENSORS,
    START_NS,
    STORE,
    TF,
    WIDTH,
    Written,
    drive,
    image,
    write_ros1,
    write_ros2,
)
from toy_student import toy_output, write_toy_student

from anyseg_core.runtime.cross_examination.policy import CrossExaminationConfig
from anyseg_core.runtime.health.monitor import Fault, State
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.bags.ground_truth import FolderLabels, GroundTruthError, stamp_of
from anyseg_ros.bags.topics import TopicError
from anyseg_ros.messages.conversions import camera_frame
from anyseg_ros.pipeline.parameters import ParameterError, Parameters, from_values, load_parameters
from anyseg_ros.pipeline.planner_products import output_classes
from anyseg_ros.replay.consistency import FlickerMeter
from anyseg_ros.replay.mask_records import MaskRecord, read_records
from anyseg_ros.replay.mask_scoring import mask_hash
from anyseg_ros.replay.offline import MASKS, STATES, ReplayError, ReplayOptions, replay
from anyseg_ros.replay.prefetch import Prefetch, StoppedError
from anyseg_ros.replay.run import MaskBag
from anyseg_ros.replay.scenarios import ALL_SENSORS, ScenarioError, scenarios_for
from anyseg_ros.replay.summary import Tally

ROOT = REPOSITORY
ALL_TOPICS = (*SENSORS, INFO, LABELS, TF)
CAMERA_DIES = """
description: the camera dies for a second
injections:
  - {modality: camera, kind: drop, start_s: 0.95, duration_s: 1.0}
"""


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("student") / "toy")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ros2(tmp_path_factory.mktemp("bag") / "drive", drive(30))


@pytest.fixture(scope="module")
def two_sensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bag with fewer subsets."""
    return write_ros2(tmp_path_factory.mktemp("bag") / "drive", drive(30, {CAMERA, DEPTH, LABELS}))


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "camera_dies.yaml"
    path.write_text(CAMERA_DIES)
    return path


@pytest.fixture(scope="module")
def segmenter(student: Path) -> Segmenter:
    return Segmenter.open(student, threads=1)


def records(out: Path, scenario: str = ALL_SENSORS) -> list[MaskRecord]:
    return [record for record in read_records(out / MASKS) if record.scenario == scenario]


def comparable(out: Path) -> list[MaskRecord]:
    """Without what is measured."""
    return [replace(record, encode_ms=0.0, engine_ms=0.0) for record in read_records(out / MASKS)]


def changes(out: Path, scenario: str) -> list[tuple[float, str, str, str]]:
    lines = [json.loads(line) for line in (out / STATES).read_text().splitlines()]
    return [(e["t_s"], e["modality"], e["state"], e["fault"]) for e in lines if e["scenario"] == scenario]


# --- masks -----------------------------------------------------------------------------------------------------------


def test_every_set_is_segmented_as_the_segmenter_alone_would(tmp_path: Path, bag: Path, segmenter: Segmenter) -> None:
    result = replay(bag, tmp_path, ReplayOptions(), segmenter=segmenter)
    made = records(tmp_path)
    assert [record.stamp_ns for record in made] == [START_NS + i * PERIOD_NS for i in range(30)]
    assert {record.used for record in made} == {DEFAULT_SENSORS}
    assert {record.size for record in made} == {(HEIGHT, WIDTH)}
    assert {record.age_ms for record in made} == {0.0}
    assert not result.problems
    assert {m: result.received[m] for m in DEFAULT_SENSORS} == dict.fromkeys(DEFAULT_SENSORS, 30)


def test_two_runs_give_identical_masks_and_states(
    tmp_path: Path, two_sensors: Path, segmenter: Segmenter, faults: Path
) -> None:
    options = ReplayOptions(subsets=True, injections=(faults,))
    for name in ("a", "b"):
        replay(two_sensors, tmp_path / name, options, segmenter=segmenter)
    assert comparable(tmp_path / "a") == comparable(tmp_path / "b")
    assert (tmp_path / "a" / STATES).read_bytes() == (tmp_path / "b" / STATES).read_bytes()
    assert len({record.hash for record in comparable(tmp_path / "a")}) > 30


def test_the_hash_is_that_of_the_published_pixels(tmp_path: Path, segmenter: Segmenter) -> None:
    written = list(drive(1, {CAMERA}))
    replay(write_ros2(tmp_path / "bag", written), tmp_path / "out", ReplayOptions(), segmenter=segmenter)
    (record,) = records(tmp_path / "out")
    frame = camera_frame(written[0].message)
    mask = segmenter.segment({Sensor.CAMERA: frame}).resized_labels(HEIGHT, WIDTH)
    assert record.hash == mask_hash(mask)
    images = segmenter.network_image(frame)[None]
    labels, _ = toy_output(images, np.array([0]))
    published = cv2.resize(labels, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST_EXACT)
    assert record.hash == mask_hash(np.asarray(published, np.uint8))


def test_a_ros1_bag_gives_the_same_masks(tmp_path: Path, segmenter: Segmenter) -> None:
    topics = {CAMERA, DEPTH, LABELS}
    write_ros2(tmp_path / "two", drive(5, topics))
    write_ros1(tmp_path / "one.bag", drive(5, topics))
    for name, path in (("two", tmp_path / "two"), ("one", tmp_path / "one.bag")):
        replay(path, tmp_path / f"out_{name}", ReplayOptions(), segmenter=segmenter)
    assert comparable(tmp_path / "out_one") == comparable(tmp_path / "out_two")


def test_lidar_needs_its_calibration(tmp_path: Path, segmenter: Segmenter) -> None:
    """From the bag, from parameters, or it is not used."""
    rig = {"rig.intrinsics": [64.0, 48.0, 50.0, 50.0, 32.0, 24.0]}
    rig["rig.camera_from_lidar_rotation_xyzw"] = [0.5, -0.5, 0.5, 0.5]
    calibrated = ReplayOptions(parameters=from_values(rig))
    for name, topics, options in (
        ("bag", {LIDAR, INFO, TF, CAMERA}, ReplayOptions()),
        ("parameters", {LIDAR, CAMERA}, calibrated),
        ("none", {LIDAR, CAMERA}, ReplayOptions()),
    ):
        replay(write_ros2(tmp_path / name, drive(3, topics)), tmp_path / f"{name}_out", options, segmenter=segmenter)
    hashes = {name: [r.hash for r in records(tmp_path / f"{name}_out")] for name in ("bag", "parameters", "none")}
    assert hashes["bag"] == hashes["parameters"]
    assert hashes["bag"] != hashes["none"]
    assert {r.used for r in records(tmp_path / "none_out")} == {(Sensor.CAMERA,)}


def test_the_network_may_take_simulated_time(tmp_path: Path, bag: Path, segmenter: Segmenter) -> None:
    replay(bag, tmp_path, ReplayOptions(engine_ms=150.0), segmenter=segmenter)
    made = records(tmp_path)
    assert len(made) == pytest.approx(3000 / 150, abs=1)
    times = [record.t_s for record in made]
    assert min(np.diff(times)) >= 0.15 - 1e-6


def test_stamps_of_another_clock(tmp_path: Path, segmenter: Segmenter) -> None:
    """A bag recorded in simulation: its stamps begin at zero."""
    seconds = [Written(w.topic, w.received_ns + 10**18, w.message) for w in drive(10, {CAMERA, DEPTH})]
    result = replay(write_ros2(tmp_path / "bag", seconds), tmp_path / "out", ReplayOptions(), segmenter=segmenter)
    assert len(records(tmp_path / "out")) == 10
    assert "another clock" in result.notes[0]


def test_the_rates_of_the_bag_are_expected(tmp_path: Path, segmenter: Segmenter) -> None:
    stamps = [START_NS + i * 20 * PERIOD_NS for i in range(6)]
    slow = [
        Written(CAMERA, stamp, image(np.asarray(w.message.data).reshape(HEIGHT, WIDTH, 3), "rgb8", stamp))
        for w, stamp in zip(drive(6, {CAMERA}), stamps, strict=True)
    ]
    bag = write_ros2(tmp_path / "bag", slow)
    result = replay(bag, tmp_path / "out", ReplayOptions(), segmenter=segmenter)
    assert result.parameters.modalities[Sensor.CAMERA].expected_rate_hz == 0.5
    assert "camera 0.5 Hz" in result.notes[0]
    assert not [c for c in changes(tmp_path / "out", ALL_SENSORS) if c[3]]
    replay(bag, tmp_path / "strict", ReplayOptions(parameters=Parameters()), segmenter=segmenter)
    assert [c for c in changes(tmp_path / "strict", ALL_SENSORS) if c[3] == Fault.SILENT.value]


# --- scenarios -------------------------------------------------------------------------------------------------------


def test_subsets_and_faults_share_what_they_can(tmp_path: Path, segmenter: Segmenter, faults: Path) -> None:
    bag = write_ros2(tmp_path / "bag", drive(15))
    result = replay(bag, tmp_path, ReplayOptions(subsets=True, injections=(faults,)), segmenter=segmenter)
    assert len(result.scenarios) == 16
    assert result.scenarios[0].name == ALL_SENSORS
    for scenario in result.scenarios[:15]:
        assert {r.used for r in records(tmp_path, scenario.name)} == {scenario.modalities}
        assert len(records(tmp_path, scenario.name)) == 15
    assert result.timings.runs == 15 * 15
    assert result.timings.reused == 15  # every mask of the fault is one of `all` or of `depth+event+lidar`


def test_a_record_has_the_time_of_its_mask_alone_and_the_run_the_real_one(
    tmp_path: Path, two_sensors: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter.open(student, threads=1)
    segment = segmenter.segment
    monkeypatch.setattr(segmenter, "segment", lambda *a: replace(segment(*a), engine_s=1.0, alone_s=3.0))
    result = replay(two_sensors, tmp_path, ReplayOptions(subsets=True), segmenter=segmenter)
    assert {record.engine_ms for record in read_records(tmp_path / MASKS)} == {3000.0}
    assert result.timings.engine_s == result.timings.runs


def test_a_camera_that_dies(tmp_path: Path, bag: Path, segmenter: Segmenter, faults: Path) -> None:
    unexamined = Parameters(cross_examination=CrossExaminationConfig(enabled=False))  # events and pictures do not fit
    replay(bag, tmp_path, ReplayOptions(parameters=unexamined, injections=(faults,)), segmenter=segmenter)
    made = records(tmp_path, "camera_dies")
    without = [record for record in made if Sensor.CAMERA not in record.used]
    assert without[0].t_s == pytest.approx(1.0, abs=0.05)  # the first frame that is lost is at 1.0 s
    assert without[0].anchor is Sensor.DEPTH
    states = [(state, fault) for _, modality, state, fault in changes(tmp_path, "camera_dies") if modality == "camera"]
    lost = states.index((State.FAILED.value, Fault.SILENT.value))
    assert (State.ACTIVE.value, "") in states[lost:]
    assert Sensor.CAMERA in made[-1].used
    assert {record.used for record in records(tmp_path)} == {DEFAULT_SENSORS}


def test_scenarios_that_cannot_be(tmp_path: Path, faults: Path) -> None:
    (tmp_path / "all.yaml").write_text("injections: []")
    with pytest.raises(ScenarioError, match="two scenarios are named all"):
        scenarios_for(DEFAULT_SENSORS, True, [tmp_path / "all.yaml"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScenarioError, match="no fault file in"):
        scenarios_for(DEFAULT_SENSORS, True, [tmp_path / "empty"])


def test_the_shipped_fault_files_are_scenarios() -> None:
    scenarios = scenarios_for(DEFAULT_SENSORS, False, [ROOT / "config" / "injections"])
    assert len(scenarios) > 5


# --- ground truth ----------------------------------------------------------------------------------------------------


def perfect_bag(tmp_path: Path, segmenter: Segmenter, labelled: Sequence[int]) -> tuple[Path, Path]:
    """A bag whose labels are the student's own masks, at some of the frames; and the same labels as a folder."""
    folder = tmp_path / "labels"
    folder.mkdir()
    with_labels: list[Written] = []
    for index, w in enumerate(drive(10, {CAMERA})):
        mask = segmenter.segment({Sensor.CAMERA: camera_frame(w.message)}).resized_labels(HEIGHT, WIDTH)
        with_labels.append(w)
        if index in labelled:
            with_labels.append(Written(LABELS, w.received_ns, image(mask, "mono8", w.received_ns)))
            cv2.imwrite(str(folder / f"label_{w.received_ns}.png"), mask)
    return write_ros2(tmp_path / "bag", with_labels), folder


@pytest.mark.parametrize("source", ["topic", "folder"])
def test_a_mask_is_scored_with_the_labels_of_its_stamp(tmp_path: Path, segmenter: Segmenter, source: str) -> None:
    bag, folder = perfect_bag(tmp_path, segmenter, labelled=(0, 3, 9))
    options = ReplayOptions(labels=folder, topics={"labels": ""}) if source == "folder" else ReplayOptions()
    result = replay(bag, tmp_path / "out", options, segmenter=segmenter)
    score = result.scores[ALL_SENSORS]
    assert (score.masks, score.scored) == (10, 3)
    assert score.confusion.miou() == 1.0
    assert int(score.confusion.counts.sum()) == 3 * HEIGHT * WIDTH
    assert [r.number for r in records(tmp_path / "out") if r.against == "labels"] == [0, 3, 9]


def test_labels_of_classes_that_the_student_has_not(tmp_path: Path, segmenter: Segmenter) -> None:
    bad = image(np.full((HEIGHT, WIDTH), 77, np.uint8), "mono8", START_NS)
    bag = write_ros2(tmp_path / "bag", [*drive(2, {CAMERA}), Written(LABELS, START_NS + 1, bad)])
    result = replay(bag, None, ReplayOptions(), segmenter=segmenter)
    assert result.scores[ALL_SENSORS].scored == 0
    assert any("label 77 is out of range" in problem.text for problem in result.problems)


@pytest.mark.parametrize(
    ("stem", "stamp"),
    [
        ("1700000000123456789", 1700000000123456789),
        ("label_1700000000123456789", 1700000000123456789),
        ("1700000000.5", 1700000000500000000),
        ("1700000000_000000005", 1700000000000000005),
        ("front", None),
    ],
)
def test_stamps_in_file_names(stem: str, stamp: int | None) -> None:
    assert stamp_of(stem) == stamp


def test_a_folder_without_labels(tmp_path: Path) -> None:
    (tmp_path / "readme.png").touch()
    with pytest.raises(GroundTruthError, match="no label image in"):
        FolderLabels(tmp_path)


def test_label_images_in_a_folder_below_or_of_one_stamp_are_told(tmp_path: Path) -> None:
    (tmp_path / "7.png").touch()
    (tmp_path / "preview").mkdir()
    (tmp_path / "preview" / "7.png").touch()  # of a label image that is counted
    assert FolderLabels(tmp_path).available == 1
    (tmp_path / "preview" / "8.png").touch()
    with pytest.raises(GroundTruthError, match=r"8\.png lies in a folder below .*move them up"):
        FolderLabels(tmp_path)
    (tmp_path / "color_7.png").touch()
    with pytest.raises(GroundTruthError, match="one stamp"):
        FolderLabels(tmp_path)


def test_without_labels_scenarios_are_compared_with_all_sensors(tmp_path: Path, segmenter: Segmenter) -> None:
    bag = write_ros2(tmp_path / "bag", drive(5, {CAMERA, DEPTH}))
    result = replay(bag, tmp_path / "out", ReplayOptions(subsets=True), segmenter=segmenter)
    reference = result.scores[ALL_SENSORS]
    assert (reference.scored, reference.mean("agreement")) == (0, None)
    for name in ("camera", "depth"):
        assert {r.against for r in records(tmp_path / "out", name)} == {ALL_SENSORS}
        agreement = result.scores[name].against_reference.pixel_accuracy()
        assert result.scores[name].mean("agreement") == pytest.approx(agreement, abs=0.1)  # network against image size


def test_flicker_is_what_changes_back() -> None:
    meter = FlickerMeter()
    still = np.zeros((4, 5), np.uint8)
    moved = still.copy()
    moved[0] = 1  # a quarter of the pixels
    assert meter.add(1, still) == (None, None)
    assert meter.add(2, moved) == (0.25, None)
    assert meter.add(3, still) == (0.25, 0.25)
    assert meter.add(4, still) == (0.0, 0.0)
    assert meter.add(4 + 10**9, moved) == (None, None)  # too long ago


@pytest.mark.parametrize(("begun_s", "share"), [([0.0, 5.0, 30.0], 0.25), ([95.0], 0.05), ([], 0.0)])
def test_coverage_counts_each_moment_once(begun_s: list[float], share: float) -> None:
    tally = Tally(2, start_s=0.0, end_s=100.0, hold_s=10.0)
    for number, t_s in enumerate(begun_s):
        record = MaskRecord(number, "all", t_s, 0, Sensor.CAMERA, DEFAULT_SENSORS, 5.0, (2, 2), "", 1.0, 1.0, 1.0)
        tally.add(record, ConfusionMatrix(2))
    assert tally.coverage == pytest.approx(share)


# --- what is in the bag ----------------------------------------------------------------------------------------------


def test_messages_that_are_no_frame_are_counted_and_named(tmp_path: Path, segmenter: Segmenter) -> None:
    good = list(drive(10, {CAMERA, DEPTH}))
    bad = [
        Written(CAMERA, w.received_ns, image(np.zeros((2, 2, 3), np.uint8), "nv24", w.received_ns))
        if w.topic == CAMERA and 3 <= i < 9 else w for i, w in enumerate(good)
    ]  # fmt: skip
    result = replay(write_ros2(tmp_path / "bag", bad), tmp_path / "out", ReplayOptions(), segmenter=segmenter)
    assert result.rejected == {Sensor.CAMERA: 3}
    assert ("failed", "decode_error") in {c[2:] for c in changes(tmp_path / "out", ALL_SENSORS) if c[1] == "camera"}
    assert {r.used for r in records(tmp_path / "out")} >= {(Sensor.DEPTH,), (Sensor.CAMERA, Sensor.DEPTH)}


def test_bytes_of_another_type(tmp_path: Path, segmenter: Segmenter) -> None:
    """A topic that says Image and holds points."""
    with Writer(tmp_path / "bag", version=9) as writer:
        camera = writer.add_connection(CAMERA, "sensor_msgs/msg/Image", typestore=STORE)
        depth = writer.add_connection(DEPTH, "sensor_msgs/msg/Image", typestore=STORE)
        for w in drive(3, {LIDAR, DEPTH}):
            connection = depth if w.topic == DEPTH else camera
            writer.write(connection, w.received_ns, STORE.serialize_cdr(w.message, w.msgtype))
    bag = tmp_path / "bag"
    result = replay(bag, tmp_path / "out", ReplayOptions(), segmenter=segmenter)
    assert result.rejected == {Sensor.CAMERA: 3}
    assert {r.used for r in records(tmp_path / "out")} == {(Sensor.DEPTH,)}


def test_a_bag_without_a_sensor(tmp_path: Path, segmenter: Segmenter) -> None:
    bag = write_ros2(tmp_path / "bag", drive(2, {INFO, LABELS}))
    with pytest.raises(TopicError, match="Name them with --map"):
        replay(bag, None, ReplayOptions(), segmenter=segmenter)


def test_a_sensor_s_topic_without_messages(tmp_path: Path, segmenter: Segmenter) -> None:
    with Writer(tmp_path / "bag", version=9) as writer:
        writer.add_connection(CAMERA, "sensor_msgs/msg/Image", typestore=STORE)
    result = replay(tmp_path / "bag", tmp_path / "out", ReplayOptions(), segmenter=segmenter)
    assert result.scores[ALL_SENSORS].masks == 0
    assert any("not a single frame" in problem.text for problem in result.problems)


def test_masks_and_status_in_a_new_bag(tmp_path: Path, bag: Path, segmenter: Segmenter, faults: Path) -> None:
    classes = output_classes(segmenter.card, Parameters())
    with MaskBag(tmp_path / "masks", classes, Parameters()) as sink:
        replay(bag, tmp_path / "out", ReplayOptions(injections=(faults,)), segmenter=segmenter, sink=sink)
    with AnyReader([tmp_path / "masks"]) as reader:
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
        masks = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic.endswith("ion/mask")]
        statuses = [
            reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic.endswith("_status")
        ]
    assert counts == {
        f"/segmentation_node{part}/{name}": 30
        for part in ("", "/camera_dies")
        for name in ("segmentation/mask", "segmentation/overlay/compressed", "segmentation/points", "modality_status")
    }
    named = {(s.name.rpartition(": ")[0], s.hardware_id) for array in statuses for s in array.status}  # type: ignore[attr-defined]
    nodes = ("/segmentation_node", "/segmentation_node/camera_dies")
    assert named == {(f"anyseg {node}", node) for node in nodes}, "as the live node's, which panels filter by"
    by_scenario = [*records(tmp_path / "out"), *records(tmp_path / "out", "camera_dies")]
    hashes = {mask_hash(np.asarray(m.data).reshape(m.height, m.width)) for m in masks}  # type: ignore[attr-defined]
    assert hashes == {record.hash for record in by_scenario}
    assert any(v.value == "depth,event,lidar" for s in statuses for e in s.status for v in e.values)  # type: ignore[attr-defined]


# --- interrupted runs ------------------------------------------------------------------------------------------------

RUN = """
import sys
import threading
from pathlib import Path
from anyseg_ros.replay import offline
from anyseg_ros.replay.mask_records import MaskLog
bag, out, student, faults, limit = sys.argv[1:]
append = MaskLog.append
def counted(log, record):
    append(log, record)
    if record.number == int(limit):
        print("there", flush=True)
        sys.stdin.read()
MaskLog.append = counted
offline.replay(Path(bag), Path(out), offline.ReplayOptions(student, subsets=True, injections=(Path(faults),)))
"""
"""Replays until a mask, says so, and waits to be killed."""


@pytest.mark.parametrize("limit", [0, 70])
def test_a_killed_run_is_resumed_to_the_same_result(
    tmp_path: Path, two_sensors: Path, student: Path, segmenter: Segmenter, faults: Path, limit: int
) -> None:
    options = ReplayOptions(subsets=True, injections=(faults,))
    whole = replay(two_sensors, tmp_path / "whole", options, segmenter=segmenter)
    command = [sys.executable, "-c", RUN, *map(str, (two_sensors, tmp_path / "out", student, faults, limit))]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    with (tmp_path / "out" / MASKS).open("ab") as file:
        file.write(b'{"number":')  # a line that was cut off
    again = replay(two_sensors, tmp_path / "out", replace(options, resume=True), segmenter=segmenter)
    assert comparable(tmp_path / "out") == comparable(tmp_path / "whole")
    assert (tmp_path / "out" / STATES).read_bytes() == (tmp_path / "whole" / STATES).read_bytes()
    assert again.timings.resumed == limit + 1
    assert again.timings.runs <= whole.timings.runs - (0 if limit == 0 else 10)
    for name, score in whole.scores.items():
        np.testing.assert_array_equal(again.scores[name].confusion.counts, score.confusion.counts)
        assert again.scores[name].masks == score.masks
    shown = [[s.record.number for _, s in r.worst.worst_first(ALL_SENSORS)] for r in (whole, again)]
    assert shown[0] == shown[1] != []
    shown = [[mask.record.number for mask in r.even.masks()] for r in (whole, again)]
    assert shown[0] == shown[1] != []


def test_a_run_is_not_resumed_with_other_options(tmp_path: Path, bag: Path, segmenter: Segmenter) -> None:
    replay(bag, tmp_path, ReplayOptions(), segmenter=segmenter)
    other = ReplayOptions(parameters=from_values({"sync.deadline_ms": 20.0}), engine_ms=5.0, resume=True)
    with pytest.raises(ReplayError, match=r"other parameters, engine_ms\. Run it without --resume"):
        replay(bag, tmp_path, other, segmenter=segmenter)
    about = (tmp_path / "run.json").read_text()
    for damaged in (about[:40], "[]", ""):
        (tmp_path / "run.json").write_text(damaged)
        with pytest.raises(ReplayError, match=r"run\.json is damaged .*without --resume"):
            replay(bag, tmp_path, ReplayOptions(resume=True), segmenter=segmenter)
    (tmp_path / "run.json").write_text(about)
    (tmp_path / MASKS).write_text("{}\n")
    with pytest.raises(ReplayError, match="no record of a mask"):
        replay(bag, tmp_path, ReplayOptions(resume=True), segmenter=segmenter)
    replay(bag, tmp_path, ReplayOptions(), segmenter=segmenter)
    assert len(records(tmp_path)) == 30


def test_the_shipped_parameter_file_is_the_default(tmp_path: Path) -> None:
    assert load_parameters(ROOT / "config" / "vehicle.yaml") == Parameters()
    (tmp_path / "mine.yaml").write_text("/front/segmentation_node: {ros__parameters: {sync: {deadline_ms: 7.0}}}")
    assert load_parameters(tmp_path / "mine.yaml").sync.deadline_ms == 7.0
    (tmp_path / "mine.yaml").write_text("/**: {ros__parameters: {sync: {deadline_mss: 7.0}}}")
    with pytest.raises(ParameterError, match=r"mine\.yaml: unknown parameter sync\.deadline_mss: did you mean"):
        load_parameters(tmp_path / "mine.yaml")


# --- parts -----------------------------------------------------------------------------------------------------------


def test_prefetched_keeps_the_order_and_the_error() -> None:
    assert list(Prefetch(3).items(range(1000))) == list(range(1000))

    def broken():
        yield 1
        raise OSError("unplugged")

    items = Prefetch().items(broken())
    assert next(items) == 1
    with pytest.raises(OSError, match="unplugged"):
        next(items)


def test_a_reader_has_work_done_on_the_thread_it_reads_for() -> None:
    prefetch = Prefetch(2)

    def items() -> Iterator[tuple[int, int]]:
        for number in range(20):
            yield number, prefetch.on_caller(threading.get_ident) if number % 3 == 0 else 0

    ids = {ident for number, ident in prefetch.items(items()) if number % 3 == 0}
    assert ids == {threading.get_ident()}


def test_what_fails_on_the_other_thread_is_raised_where_it_was_asked_for() -> None:
    prefetch = Prefetch()

    def items() -> Iterator[str]:
        with pytest.raises(ZeroDivisionError):
            prefetch.on_caller(lambda: 1 // 0)
        yield "went on"

    assert list(prefetch.items(items())) == ["went on"]


def test_a_reader_that_waits_for_an_answer_is_let_go_when_nobody_reads() -> None:
    prefetch, was_read, ended = Prefetch(), threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        was_read.wait(10)
        try:
            prefetch.on_caller(lambda: 2)
        except StoppedError:
            ended.set()
            raise

    reading = prefetch.items(items())
    next(reading)
    was_read.set()
    reading.close()  # type: ignore[attr-defined]
    assert ended.is_set()


def test_a_prefetched_reader_that_nobody_wants_ends() -> None:
    items = Prefetch(2).items(iter(int, 1))
    next(items)
    before = time.monotonic()
    items.close()  # type: ignore[attr-defined]
    assert time.monotonic() - before < 10
