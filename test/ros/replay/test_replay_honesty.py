"""A replay says what it did: which labels it used, what its scores are, and why a sensor is in no mask."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_bags import (
    CAMERA,
    DEPTH,
    EVENTS,
    HEIGHT,
    INFO,
    LABELS,
    LIDAR,
    PERIOD_NS,
    SENSORS,
    START_NS,
    TF,
    TYPES,
    WIDTH,
    Written,
    drive,
    header,
    image,
    write_ros2,
)
from toy_student import write_toy_student
from typer.testing import CliRunner, Result

from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.bags.ground_truth import GroundTruthError
from anyseg_ros.cli import app
from anyseg_ros.pipeline.parameters import from_values
from anyseg_ros.replay.conditions import ConditionError, Conditions
from anyseg_ros.replay.inspection import inspect
from anyseg_ros.replay.offline import MASKS, ReplayError, ReplayOptions, replay
from anyseg_ros.replay.scenarios import ALL_SENSORS, ScenarioError
from anyseg_ros.replay.summary import summarise

FRAMES = 6


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("student") / "toy")


@pytest.fixture(scope="module")
def segmenter(student: Path) -> Segmenter:
    return Segmenter.open(student, threads=1)


def shifted(written: Iterator[Written], topic: str, by_ns: int) -> Iterator[Written]:
    """The stamps of a topic moved; it is received as before."""
    for w in written:
        if w.topic == topic:
            w.message.header = header(w.received_ns + by_ns, w.message.header.frame_id)
        yield w


def command(*words: object) -> Result:
    return CliRunner().invoke(app, ["replay", *map(str, words)], env={"COLUMNS": "200"})


# --- scores ----------------------------------------------------------------------------------------------------------


def test_a_mask_without_the_camera_is_scored_with_the_same_labels(tmp_path: Path, segmenter: Segmenter) -> None:
    """Depth is stamped 4 ms after the camera, and labels are of the camera's pictures."""
    written = shifted(drive(FRAMES, {CAMERA, DEPTH, LABELS}), DEPTH, 4_000_000)
    options = ReplayOptions(subsets=True)
    result = replay(write_ros2(tmp_path / "bag", written), tmp_path / "out", options, segmenter=segmenter)
    assert {name: score.scored for name, score in result.scores.items()} == dict.fromkeys(result.scores, FRAMES)
    summary = summarise(result, tmp_path / "out")
    assert (
        str(summary.labels) == f"{FRAMES} of {FRAMES} label images of {LABELS} were used, 4 ms (median) from the frames"
    )


def test_scores_and_agreement_are_never_one_figure(tmp_path: Path, segmenter: Segmenter) -> None:
    """Two of six frames are labelled: the others agree with the masks from all sensors, and score nothing."""
    few = (
        w
        for w in drive(FRAMES, {CAMERA, DEPTH, LABELS})
        if w.topic != LABELS or w.received_ns < START_NS + 2 * PERIOD_NS
    )
    result = replay(
        write_ros2(tmp_path / "bag", few), tmp_path / "out", ReplayOptions(subsets=True), segmenter=segmenter
    )
    depth = summarise(result, tmp_path / "out").scenarios["depth"].tally
    assert int(depth.confusion.counts.sum()) == 2 * HEIGHT * WIDTH
    assert depth.agreement.counts.any()
    assert depth.miou == pytest.approx(result.scores["depth"].confusion.miou())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (lambda i: f"{(START_NS + i * PERIOD_NS) // 1000}.png", "counts microseconds"),
        (lambda i: f"{(START_NS + i * PERIOD_NS) // 10**6}.png", "counts milliseconds"),
        (lambda i: f"{i:06d}.png", "000000.png is no stamp of it"),
    ],
)
def test_label_files_of_other_names_are_an_error(
    tmp_path: Path, segmenter: Segmenter, name: Callable[[int], str], says: str
) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / name(number)), np.zeros((HEIGHT, WIDTH), np.uint8))
    bag = write_ros2(tmp_path / "bag", drive(FRAMES, {CAMERA}))
    with pytest.raises(GroundTruthError, match=says):
        replay(bag, None, ReplayOptions(labels=tmp_path), segmenter=segmenter)


@pytest.mark.parametrize("encoding", ["mono16", "bgra8", "32SC1"])
def test_labels_that_cannot_be_read_fail_the_replay(tmp_path: Path, student: Path, encoding: str) -> None:
    pixels = {"mono16": np.uint16, "bgra8": np.uint8, "32SC1": np.int32}
    shape = (HEIGHT, WIDTH, 4) if encoding == "bgra8" else (HEIGHT, WIDTH)
    written = [
        w._replace(message=image(np.zeros(shape, pixels[encoding]), encoding, w.received_ns))
        if w.topic == LABELS
        else w
        for w in drive(FRAMES, {CAMERA, LABELS})
    ]
    result = command(write_ros2(tmp_path / "bag", written), "--out", tmp_path / "out", "--student", student)
    assert result.exit_code == 1, result.output
    assert f"0 of {FRAMES} label images of {LABELS} were used" in result.output
    assert f"encoding '{encoding}' is not known" in result.output


def test_labels_of_another_view_are_not_used(tmp_path: Path, segmenter: Segmenter) -> None:
    wide = (
        w._replace(message=image(np.zeros((HEIGHT // 2, WIDTH), np.uint8), "mono8", w.received_ns))
        if w.topic == LABELS
        else w
        for w in drive(FRAMES, {CAMERA, LABELS})
    )
    result = replay(write_ros2(tmp_path / "bag", wide), None, ReplayOptions(), segmenter=segmenter)
    assert result.scores[ALL_SENSORS].scored == 0
    assert any("do not show the same view" in problem.text for problem in result.problems)


def test_recorded_masks_are_no_ground_truth(tmp_path: Path, segmenter: Segmenter) -> None:
    mask = "/segmentation_node/segmentation/mask"
    written = (w._replace(topic=mask) if w.topic == LABELS else w for w in drive(FRAMES, {CAMERA, LABELS}))
    result = replay(write_ros2(tmp_path / "bag", written), None, ReplayOptions(), segmenter=segmenter)
    assert result.scores[ALL_SENSORS].scored == 0
    assert any(f"--map labels:={mask}" in note for note in result.notes)


def test_labels_that_the_user_left_out_need_no_note(tmp_path: Path, student: Path) -> None:
    bag = write_ros2(tmp_path / "bag", drive(FRAMES, {CAMERA, LABELS}))
    replayed = command(bag, "--map", "labels:=", "--student", student, "--out", tmp_path / "out")
    inspected = inspect(bag, {"labels": ""})
    assert replayed.exit_code == 0, replayed.output
    assert "ground truth" not in replayed.output
    assert not any("ground truth" in note for note in inspected.notes)


# --- what was not done -----------------------------------------------------------------------------------------------


def test_messages_that_are_all_rejected_are_named_with_the_reason(tmp_path: Path, student: Path) -> None:
    def bayer(w: Written) -> Written:
        w.message.encoding = "strange_rggb8"
        return w

    written = (bayer(w) if w.topic == CAMERA else w for w in drive(FRAMES, {CAMERA}))
    result = command(write_ros2(tmp_path / "bag", written), "--out", tmp_path / "out", "--student", student)
    assert result.exit_code == 1, result.output
    assert f"camera: {FRAMES} of {FRAMES} messages rejected: encoding 'strange_rggb8'" in result.output
    assert "no mask was made of this bag" in result.output
    about = json.loads((tmp_path / "out" / "results.jsonl").read_text().splitlines()[0])
    assert any("no mask was made" in problem["text"] and problem["fails"] for problem in about["problems"])
    assert "no mask was made" in (tmp_path / "out" / "report.html").read_text()


def test_a_lidar_without_calibration_is_said(tmp_path: Path, segmenter: Segmenter) -> None:
    bag = write_ros2(tmp_path / "bag", drive(FRAMES, {CAMERA, LIDAR}))
    result = replay(bag, None, ReplayOptions(), segmenter=segmenter)
    (text,) = (problem.text for problem in result.problems if problem.text.startswith("lidar"))
    assert text.startswith(f"lidar is in 0 of {FRAMES} masks: ")
    assert "intrinsics" in text


def test_a_calibration_of_other_pictures_is_said(tmp_path: Path, segmenter: Segmenter) -> None:
    written = list(drive(FRAMES, {CAMERA, LIDAR, INFO, TF}))
    for w in written:
        if w.topic == INFO:
            w.message.width, w.message.height = 640, 480
    result = replay(write_ros2(tmp_path / "bag", written), None, ReplayOptions(), segmenter=segmenter)
    (text,) = (problem.text for problem in result.problems if problem.text.startswith("lidar"))
    assert "camera_info is of 640x480 pixels, the pictures of camera are 64x48" in text


def test_a_picture_that_the_node_would_not_decode_is_none_of_a_replay(tmp_path: Path, segmenter: Segmenter) -> None:
    """By the same limits, with the same words."""
    written = []
    for w in drive(FRAMES, {CAMERA, DEPTH, INFO}):
        if w.topic == INFO:
            w.message.width, w.message.height = WIDTH // 2, HEIGHT // 2
        if w.topic == CAMERA:
            data = cv2.imencode(".png", np.asarray(w.message.data).reshape(HEIGHT, WIDTH, 3))[1].ravel()
            png = TYPES["sensor_msgs/msg/CompressedImage"](header=w.message.header, format="png", data=data)
            w = w._replace(topic=f"{CAMERA}/compressed", message=png)  # noqa: PLW2901
        written.append(w)
    bag = write_ros2(tmp_path / "bag", written)
    parameters = from_values({"modalities.depth.max_pixels": WIDTH * HEIGHT - 1})
    result = replay(bag, None, ReplayOptions(parameters=parameters), segmenter=segmenter)
    said = " ".join(problem.text for problem in result.problems)
    assert f"a picture of {WIDTH}x{HEIGHT}, and camera_info says {WIDTH // 2}x{HEIGHT // 2}" in said
    assert f"a picture of {WIDTH}x{HEIGHT}, and modalities.depth.max_pixels is {WIDTH * HEIGHT - 1}" in said


def test_topics_of_the_parameters_are_those_of_the_replay(tmp_path: Path, segmenter: Segmenter) -> None:
    """Intrinsics that the node would find are found; what is taken for a topic that the bag lacks is said."""
    elsewhere = {INFO: "/calibration/front", CAMERA: "/rear/image_raw"}
    written = (w._replace(topic=elsewhere.get(w.topic, w.topic)) for w in drive(FRAMES, {CAMERA, LIDAR, INFO, TF}))
    values = {"rig.camera_info_topic": "/calibration/front", "modalities.camera.topic": "/front/image_raw"}
    options = ReplayOptions(parameters=from_values(values))
    result = replay(write_ros2(tmp_path / "bag", written), None, options, segmenter=segmenter)
    assert result.scores[ALL_SENSORS].used == {"camera": FRAMES, "lidar": FRAMES}
    said = "the parameters name /front/image_raw for camera, which the bag does not have: /rear/image_raw is taken"
    assert said in result.notes


@pytest.mark.parametrize(("size", "is_used"), [((64, 48), True), ((128, 96), True), ((64, 36), False)])
def test_intrinsics_of_pictures_of_another_shape_place_no_lidar(
    size: tuple[int, int], is_used: bool, tmp_path: Path, segmenter: Segmenter
) -> None:
    """A smaller picture of the same view has the same lens; a driver's wide mode is another cut of it."""
    width, height = map(float, size)
    values = {
        "rig.intrinsics": [width, height, 50.0, 50.0, width / 2, height / 2],
        "rig.camera_from_lidar_rotation_xyzw": [0.5, -0.5, 0.5, 0.5],
    }
    bag = write_ros2(tmp_path / "bag", drive(FRAMES, {CAMERA, LIDAR}))
    result = replay(bag, None, ReplayOptions(parameters=from_values(values)), segmenter=segmenter)
    said = " ".join(problem.text for problem in result.problems)
    assert ("lidar" in result.scores[ALL_SENSORS].used) is is_used
    assert ("rig.intrinsics are of 64x36 pixels, the pictures of camera are 64x48" in said) is not is_used


@pytest.mark.parametrize("topics", [SENSORS, (LIDAR,), (CAMERA, DEPTH)])
def test_stamps_of_0_are_named(tmp_path: Path, segmenter: Segmenter, topics: tuple[str, ...]) -> None:
    written = list(drive(FRAMES, {*SENSORS}))
    for w in written:
        if w.topic in topics:
            w.message.header = header(0, w.message.header.frame_id)
    result = replay(write_ros2(tmp_path / "bag", written), None, ReplayOptions(), segmenter=segmenter)
    sensor = {CAMERA: "camera", DEPTH: "depth", EVENTS: "event", LIDAR: "lidar"}
    for topic in topics:
        said = f"{sensor[topic]}: the stamps of {FRAMES} of {FRAMES} messages"
        assert any(problem.text.startswith(said) for problem in result.problems)
    assert not any("another clock" in note for note in result.notes)
    assert result.duration_s < 10


def test_times_of_points_of_another_clock_are_said(tmp_path: Path, segmenter: Segmenter) -> None:
    written = []
    for w in drive(FRAMES, {CAMERA, LIDAR}):
        if w.topic == LIDAR:  # what was intensity is now a time of the wrong epoch
            w.message.fields[3].name = "time"
            w.message.data = np.ascontiguousarray(w.message.data)
            w.message.data.view(np.float32).reshape(-1, 4)[:, 3] = 5e8
        written.append(w)
    result = replay(write_ros2(tmp_path / "bag", written), None, ReplayOptions(), segmenter=segmenter)
    assert any("times of another clock than its stamp" in problem.text for problem in result.problems)


# --- before the run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"metric": "agreement", "at_least": 0.1, "scenario": "radar*"}, "no scenario 'radar"),
        ({"metric": "miou", "at_least": 0.1}, "needs label images"),
        ({"metric": "age_ms", "at_most": 9, "time": {"start_s": 60}}, "begins at 60 s, but the bag is 0.5 s long"),
    ],
)
def test_what_cannot_be_judged_is_an_error_before_the_run(
    tmp_path: Path, segmenter: Segmenter, entry: dict, says: str
) -> None:
    bag = write_ros2(tmp_path / "bag", drive(FRAMES, {CAMERA}))
    conditions = Conditions.parse({"conditions": [{"name": "it", **entry}]})
    with pytest.raises(ConditionError, match=says):
        replay(bag, tmp_path / "out", ReplayOptions(conditions=conditions), segmenter=segmenter)
    assert not (tmp_path / "out" / MASKS).exists()


def test_injections_that_never_begin_are_an_error(tmp_path: Path, segmenter: Segmenter) -> None:
    bag = write_ros2(tmp_path / "bag", drive(FRAMES, {CAMERA}))
    late, some = tmp_path / "late.yaml", tmp_path / "some.yaml"
    late.write_text("injections: [{modality: camera, kind: drop, start_s: 30, duration_s: 1}]")
    some.write_text(
        "injections: [{modality: camera, kind: drop, start_s: 0.2, duration_s: 0.1, every_s: 10, times: 3}]"
    )
    with pytest.raises(
        ScenarioError, match=r"scenario late: its first injection begins at 30 s, but the bag is 0\.5 s long"
    ):
        replay(bag, None, ReplayOptions(injections=(late,)), segmenter=segmenter)
    result = replay(bag, None, ReplayOptions(injections=(some,)), segmenter=segmenter)
    assert any("2 of its 3 injections begin after the bag's end" in problem.text for problem in result.problems)


def test_a_run_is_not_resumed_on_another_recording(tmp_path: Path, segmenter: Segmenter) -> None:
    """Same name, topics and counts; the pictures are other ones."""
    first = write_ros2(tmp_path / "first" / "bag", drive(FRAMES, {CAMERA}))
    turned = list(drive(FRAMES, {CAMERA}))
    for w in turned:
        w.message.data = np.ascontiguousarray(w.message.data[::-1])
    second = write_ros2(tmp_path / "second" / "bag", turned)
    replay(first, tmp_path / "out", ReplayOptions(), segmenter=segmenter)
    again = replay(first, tmp_path / "out", ReplayOptions(resume=True), segmenter=segmenter)
    assert again.timings.resumed == FRAMES
    with pytest.raises(ReplayError, match="had other content"):
        replay(second, tmp_path / "out", ReplayOptions(resume=True), segmenter=segmenter)


def test_masks_are_counted_for_each_sensor(tmp_path: Path, segmenter: Segmenter) -> None:
    written = (
        w for w in drive(FRAMES, {CAMERA, DEPTH}) if w.topic == CAMERA or w.received_ns < START_NS + 3 * PERIOD_NS
    )
    result = replay(write_ros2(tmp_path / "bag", written), tmp_path / "out", ReplayOptions(), segmenter=segmenter)
    with_sensor = summarise(result, tmp_path / "out").masks_with()
    assert with_sensor[Sensor.CAMERA] == FRAMES
    assert 3 <= with_sensor[Sensor.DEPTH] < FRAMES
    assert result.scores[ALL_SENSORS].used == with_sensor


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": np.zeros(9)}, "camera intrinsics are not known"),
        ({"width": 640, "height": 480}, "camera_info is of 640x480 pixels, the pictures of camera are 64x48"),
    ],
    ids=["not calibrated", "of another resolution"],
)
def test_a_lidar_that_cannot_be_placed_names_the_camera_info(
    tmp_path: Path, student: Path, segmenter: Segmenter, change: dict[str, Any], says: str
) -> None:
    written = list(drive(FRAMES, {*SENSORS, INFO, TF}))
    for w in written:
        if w.topic == INFO:
            for name, value in change.items():
                setattr(w.message, name, value)
    result = replay(
        write_ros2(tmp_path / "bag", written), tmp_path / "out", ReplayOptions(student=student), segmenter=segmenter
    )
    assert any(f"lidar is in 0 of {FRAMES} masks: {says}" in problem.text for problem in result.problems)
