"""`anyseg inspect`: what is in a bag, what is odd about it, and a parameter file that the other commands take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mcap_bytes import McapForm, write_mcap
from repository import REPOSITORY
from small_bags import (
    CAMERA,
    DEPTH,
    INFO,
    LABELS,
    LIDAR,
    SENSORS,
    TF,
    TYPES,
    Written,
    drive,
    header,
    transforms,
    write_ros2,
)
from toy_student import write_toy_student
from typer.testing import CliRunner, Result

from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.bags.topics import TopicError
from anyseg_ros.cli import app
from anyseg_ros.pipeline.parameters import load_parameters
from anyseg_ros.replay.inspection import inspect
from anyseg_ros.replay.inspection_report import picture_of, write_parameters

FRAMES = 12
EVERYTHING = {*SENSORS, INFO, LABELS, TF}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "250"})


def elsewhere(written: Iterator[Written]) -> Iterator[Written]:
    """The topics of another vehicle; its depth is stamped 20 ms late."""
    names = {
        CAMERA: "/front/image_raw",
        INFO: "/front/camera_info",
        DEPTH: "/front/depth/image",
        LIDAR: "/ouster/points",
    }
    for w in written:
        if w.topic == DEPTH:
            w.message.header = header(w.received_ns + 20_000_000)
        yield w._replace(topic=names.get(w.topic, w.topic))


def test_everything_that_is_in_a_bag(tmp_path: Path) -> None:
    bag = write_ros2(tmp_path / "bag", elsewhere(drive(FRAMES, EVERYTHING)))
    found = inspect(bag)
    assert [(each.sensor, each.choice.topic) for each in found.sensors] == [
        ("camera", "/front/image_raw"),
        ("depth", "/front/depth/image"),
        ("event", "/events"),
        ("lidar", "/ouster/points"),
    ]
    assert {facts.choice.topic: facts.delivered for facts in found.topics}["/front/image_raw"] == FRAMES
    assert found.topics[0].rate_hz == pytest.approx(10.0)
    assert [each.offset_ms for each in found.sensors] == [None, 20.0, 0.0, 0.0]
    assert found.calibration == [
        "intrinsics: /front/camera_info",
        "extrinsics of the LiDAR: /tf_static: TF (lidar in camera_optical_frame)",
        "transforms: all 2 frames are connected",
    ]
    assert found.companions.labels is not None
    encodings = {facts.role: facts.encoding for facts in found.topics}
    assert encodings["camera"] == "rgb8 64x48"
    assert encodings["lidar"] == "x, y, z, intensity"
    for each in found.sensors:
        assert each.frame is not None
        assert picture_of(each.frame).any()


def test_the_command_writes_a_page_and_parameters_that_replay_takes(tmp_path: Path) -> None:
    bag = write_ros2(tmp_path / "bag", elsewhere(drive(FRAMES, EVERYTHING)))
    parameters, page = tmp_path / "my_vehicle.yaml", tmp_path / "page.html"
    result = run("inspect", bag, "--write", parameters, "--page", page)
    assert result.exit_code == 0, result.output
    assert "/front/depth/image" in result.output
    assert "+20.0" in result.output
    assert page.read_text().count("data:image/jpeg") == 4
    loaded = load_parameters(parameters)
    assert loaded.modalities[Sensor.LIDAR].topic == "/ouster/points"
    camera = loaded.rig.camera()
    assert camera is not None
    assert (camera.width, camera.fx) == (64, 50.0)
    np.testing.assert_allclose(loaded.rig.camera_from_lidar()[2, :3], [1, 0, 0], atol=1e-6)
    student = write_toy_student(tmp_path / "toy")
    out = tmp_path / "out"
    done = run("replay", bag, "--params-file", parameters, "--student", student, "--out", out)
    assert done.exit_code == 0, done.output
    about = json.loads((out / "results.jsonl").read_text().splitlines()[0])
    assert about["topics"]["lidar"] == "/ouster/points"


@pytest.mark.ros
def test_the_node_takes_the_parameters_as_they_are(tmp_path: Path) -> None:
    """`anyseg run` and the launch files give the file to the node like this."""
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    parameters = tmp_path / "my_vehicle.yaml"
    bag = write_ros2(tmp_path / "bag", elsewhere(drive(FRAMES, EVERYTHING)))
    assert run("inspect", bag, "--write", parameters, "--page", tmp_path / "p.html").exit_code == 0
    student = write_toy_student(tmp_path / "toy")
    words = ["--params-file", str(parameters), "-p", "model.build_only:=true", "-p", f"model.student:={student}"]
    done = subprocess.run(
        [sys.executable, "-m", "anyseg_ros.node.segmentation_node", "--ros-args", *words],
        cwd=REPOSITORY, text=True, capture_output=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "configured: toy" in said, said
    assert "cannot configure" not in said


def test_transforms_that_nothing_connects_are_said_and_no_extrinsics_are_written(tmp_path: Path) -> None:
    """An identity in the file would place the LiDAR at the camera without a word."""

    def unconnected(w: Written) -> Written:
        return w._replace(message=transforms("base_link", "rear_lidar", (0, 0, 0, 1), w.received_ns))

    written = [unconnected(w) if w.topic == TF else w for w in drive(FRAMES, EVERYTHING)]
    written.insert(1, written[0]._replace(message=transforms("mast", "radar", (0, 0, 0, 1), written[0].received_ns)))
    parameters = tmp_path / "my.yaml"
    result = run("inspect", write_ros2(tmp_path / "bag", written), "--write", parameters, "--page", tmp_path / "p.html")
    assert result.exit_code == 0, result.output
    assert "extrinsics of the LiDAR: NOT known: TF does not connect lidar with camera_optical_frame" in result.output
    assert "transforms: 2 trees that nothing connects: base_link, rear_lidar; mast, radar" in result.output
    rig = load_parameters(parameters).rig
    assert rig.camera() is not None
    assert not rig.knows_extrinsics


def test_a_sensor_that_is_not_there_is_disabled(tmp_path: Path) -> None:
    parameters = tmp_path / "my.yaml"
    bag = write_ros2(tmp_path / "bag", drive(FRAMES, {CAMERA}))
    assert run("inspect", bag, "--write", parameters, "--page", tmp_path / "p.html").exit_code == 0
    enabled = {str(sensor): load_parameters(parameters).modalities[sensor].enabled for sensor in DEFAULT_SENSORS}
    assert enabled == {"camera": True, "depth": False, "event": False, "lidar": False}


def test_why_a_sensor_is_disabled_that_several_topics_may_be_stands_in_the_file(tmp_path: Path) -> None:
    left = [w._replace(topic="/left/image") for w in drive(FRAMES, {CAMERA})]
    two = [*left, *(w._replace(topic="/rear/image") for w in drive(FRAMES, {CAMERA})), *drive(FRAMES, {LIDAR})]
    bag, parameters = write_ros2(tmp_path / "bag", sorted(two, key=lambda w: w.received_ns)), tmp_path / "my.yaml"
    assert run("inspect", bag, "--write", parameters, "--page", tmp_path / "p.html").exit_code == 0
    lines = [line.strip() for line in parameters.read_text().splitlines()]
    reason = lines[lines.index("camera: {enabled: false}") - 1]
    assert reason.startswith("# several topics may be camera: /left/image (sensor_msgs/msg/Image), /rear/image (")
    assert "--map camera:=TOPIC" in reason
    assert not lines[lines.index("depth: {enabled: false}") - 1].startswith("#")  # which is not there at all
    assert not load_parameters(parameters).modalities[Sensor.CAMERA].enabled


def test_no_name_of_a_topic_gets_out_of_its_comment(tmp_path: Path) -> None:
    """Neither as a line of its own nor as a reference of the pattern that the comment is put in by."""
    names = "/left/image", "/rear\\1\nspoilt/image"
    two = [w._replace(topic=name) for w in drive(FRAMES, {CAMERA}) for name in names]
    bag, parameters = write_ros2(tmp_path / "bag", [*two, *drive(FRAMES, {LIDAR})]), tmp_path / "my.yaml"
    assert run("inspect", bag, "--write", parameters, "--page", tmp_path / "p.html").exit_code == 0
    assert "/rear\\1 spoilt/image (sensor_msgs/msg/Image)" in parameters.read_text()
    assert not load_parameters(parameters).modalities[Sensor.CAMERA].enabled


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    def broken(w: Written) -> Written:
        if w.topic == CAMERA:
            w.message.encoding = "strange8"
        if w.topic == DEPTH:
            w.message.header = header(0)
        return w._replace(topic="/radar/points") if w.topic == LIDAR else w

    bag = write_mcap(tmp_path / "a.mcap", map(broken, drive(FRAMES, EVERYTHING)), McapForm(has_message_index=False))
    result = run("inspect", bag, "--page", tmp_path / "p.html")
    assert result.exit_code == 0, result.output
    for said in (
        "chunks have no message index",
        "encoding 'strange8' is not known",
        f"depth: the stamps of {FRAMES} of {FRAMES} messages are 0",
        "--map lidar:=/radar/points",
    ):
        assert said in result.output


def test_a_choice_that_only_a_person_can_make(tmp_path: Path) -> None:
    left = [w._replace(topic="/left/image") for w in drive(FRAMES, {CAMERA})]
    two = left + [w._replace(topic="/rear/image") for w in drive(FRAMES, {CAMERA})]
    bag = write_ros2(tmp_path / "bag", sorted(two, key=lambda w: w.received_ns))
    result = run("inspect", bag, "--page", tmp_path / "p.html")
    assert result.exit_code == 1
    assert "several topics may be camera" in result.output
    assert run("inspect", bag, "--map", "camera:=/rear/image", "--page", tmp_path / "p.html").exit_code == 0


def odometry(topics: Collection[str], written: Iterable[Written]) -> Iterator[Written]:
    """The drive, with the vehicle's odometry on each of these topics."""
    geometry = "geometry_msgs/msg/"
    zero = TYPES[geometry + "Vector3"](x=0.0, y=0.0, z=0.0)
    turn = TYPES[geometry + "Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
    pose = TYPES[geometry + "Pose"](position=TYPES[geometry + "Point"](x=0.0, y=0.0, z=0.0), orientation=turn)
    for w in written:
        yield w
        for topic in topics if w.topic == CAMERA else ():
            message = TYPES["nav_msgs/msg/Odometry"](
                header=header(w.received_ns, "odom"),
                child_frame_id="base_link",
                pose=TYPES[geometry + "PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
                twist=TYPES[geometry + "TwistWithCovariance"](
                    twist=TYPES[geometry + "Twist"](linear=zero, angular=zero), covariance=np.zeros(36)
                ),
            )
            yield Written(topic, w.received_ns, message)


def test_what_several_topics_may_be_hides_nothing_else(tmp_path: Path) -> None:
    """Wheel odometry and a filter's: one line asks which; camera_info, TF and labels are still there."""
    bag = write_ros2(tmp_path / "bag", odometry(["/odom", "/odometry/filtered"], drive(FRAMES, EVERYTHING)))
    found = inspect(bag)
    assert [note for note in found.notes if "several topics may be odometry" in note] == found.notes
    assert found.calibration[:2] == [
        f"intrinsics: {INFO}",
        f"extrinsics of the LiDAR: {TF}: TF (lidar in camera_optical_frame)",
    ]
    assert found.companions.labels is not None
    assert found.companions.odometry is None
    with pytest.raises(TopicError, match="no topic /nope for odometry"):
        inspect(bag, {"odometry": "/nope"})


def test_the_file_names_the_topics_that_the_node_would_not_look_at(tmp_path: Path) -> None:
    """And only those: replay takes them from it as the node does."""
    written = (w._replace(topic="/calibration/front") if w.topic == INFO else w for w in drive(FRAMES, EVERYTHING))
    bag = write_ros2(tmp_path / "bag", odometry(["/odom"], written))
    found = inspect(bag, {"camera_info": "/calibration/front"})
    write_parameters(tmp_path / "vehicle.yaml", found)
    rig = load_parameters(tmp_path / "vehicle.yaml").rig
    assert (rig.camera_info_topic, rig.odometry_topic) == ("/calibration/front", "/odom")
    assert (rig.depth_info_topic, rig.event_info_topic) == ("", "")
    usual = write_ros2(tmp_path / "usual", odometry(["/odometry"], drive(FRAMES, EVERYTHING)))
    write_parameters(tmp_path / "usual.yaml", inspect(usual))
    assert load_parameters(tmp_path / "usual.yaml").rig.camera_info_topic == ""
    assert "odometry_topic" not in (tmp_path / "usual.yaml").read_text()


def test_the_driver_of_known_topics_is_named(tmp_path: Path) -> None:
    def renamed() -> Iterator[Written]:
        for written in drive(3, {CAMERA, LIDAR}):
            yield written._replace(topic="/velodyne_points" if written.topic == LIDAR else "/front/image_raw")

    notes = inspect(write_ros2(tmp_path / "bag", renamed())).notes
    assert [note for note in notes if "preset" in note] == [
        "topics of the preset velodyne: Velodyne VLP-16, VLP-32C, VLS-128 with velodyne_driver and velodyne_pointcloud."
    ]
