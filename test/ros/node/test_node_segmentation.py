"""segmentation_node over real DDS with a toy student."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

import rclpy
from builtin_interfaces.msg import Time
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_harness import HEIGHT, NS, RIG, WIDTH, Vehicle, live_frame, running, status_values, toy_parameters
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.drawing.state_strip import AMBER
from anyseg_ros.messages.conversions import image_message, stamp_ns
from anyseg_ros.messages.headers import STATE_QOS
from anyseg_ros.pipeline.engine_owner import EngineOwner
from anyseg_ros.pipeline.pipeline import Pipeline
from anyseg_ros.pipeline.status_lines import status_key
from anyseg_ros.vehicle.publisher import camera_info_message

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros")]

ALL = {str(m) for m in DEFAULT_SENSORS}


@pytest.fixture
def vehicle(tmp_path: Path) -> Iterator[Vehicle]:
    with running(toy_parameters(tmp_path)) as started:
        yield started


def lose(vehicle: Vehicle, *modalities: Sensor) -> None:
    """Stop their drivers and wait until the node says so."""
    vehicle.alive -= set(modalities)
    vehicle.spin_until(lambda: all(vehicle.fault_of(m) == "silent" for m in modalities), f"loss of {modalities}")


def test_a_mask_for_each_anchor_frame_with_its_header_and_size(vehicle: Vehicle) -> None:
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    vehicle.masks.clear()
    vehicle.spin_masks(20)
    stamps = [stamp_ns(mask.header) for mask in vehicle.masks]
    assert set(stamps) <= set(vehicle.sent)
    assert stamps == sorted(set(stamps))
    mask = vehicle.masks[-1]
    assert (mask.height, mask.width, mask.encoding, mask.header.frame_id) == (HEIGHT, WIDTH, "mono8", "camera_frame")
    assert len(mask.data) == HEIGHT * WIDTH
    labels = np.frombuffer(mask.data, np.uint8)
    assert {15, 16} & set(labels.tolist())  # the toy's labels for all four: 1 + 2 + 4 + 8, plus brightness


def test_a_status_comes_with_each_mask(vehicle: Vehicle) -> None:
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    vehicle.masks.clear()
    vehicle.spin_masks(5)
    vehicle.spin_until(lambda: stamp_ns(vehicle.statuses[-1].header) >= stamp_ns(vehicle.masks[4].header), "the status")
    status_stamps = {stamp_ns(status.header) for status in vehicle.statuses}
    assert {stamp_ns(mask.header) for mask in vehicle.masks[:5]} <= status_stamps


def test_a_late_subscriber_is_told_the_names_of_the_classes(vehicle: Vehicle) -> None:
    vision_msgs = pytest.importorskip("vision_msgs.msg", reason="vision_msgs comes with a ROS 2 distribution")
    heard: list[Any] = []
    topic = f"/{NS}/segmentation_node/segmentation/label_info"
    vehicle.driver.create_subscription(vision_msgs.LabelInfo, topic, heard.append, STATE_QOS)
    vehicle.spin_until(lambda: bool(heard), "the label info")
    assert vehicle.node._card is not None
    classes = vehicle.node._card.classes
    assert [(c.class_id, c.class_name) for c in heard[0].class_map] == [(i, c.name) for i, c in enumerate(classes)]


@pytest.mark.parametrize("hours", [1, 24 * 365 * 10])
def test_a_clock_that_is_set_forward_is_no_sensor_s_fault(
    vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """By NTP, when a robot whose clock has no battery finds a network."""
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    node, ahead_ns, told = vehicle.node, hours * 3600 * 10**9, []
    monkeypatch.setattr(node, "on_clock_step", told.append)
    vehicle.statuses.clear()
    vehicle.ahead_ns = ahead_ns
    assert node._worker is not None
    monkeypatch.setattr(node._worker, "_now_ns", lambda: node.get_clock().now().nanoseconds + ahead_ns)
    before = len(vehicle.masks)
    vehicle.spin_until(lambda: vehicle.used() == ALL and len(vehicle.masks) > before + 10, "all modalities again")
    assert told == pytest.approx([hours * 3600], rel=1e-3)
    states = {values.get("state") for array in vehicle.statuses for values in status_values(array).values()}
    assert "failed" not in states
    assert stamp_ns(vehicle.masks[-1].header) > ahead_ns


def test_a_clock_that_is_set_back_is_one_line_and_no_mask_of_the_time_before_goes_out(
    vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a bag does that plays in a loop, while a mask is being made."""
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    node, back_ns, results = vehicle.node, 5_442_000_000, []
    worker = node._worker
    assert worker is not None
    publish = node.on_result
    monkeypatch.setattr(node, "on_result", lambda result: results.append(result) or publish(result))
    vehicle.spin_until(lambda: bool(results), "a mask")
    vehicle.ahead_ns = -back_ns
    monkeypatch.setattr(worker, "_now_ns", lambda: node.get_clock().now().nanoseconds - back_ns)
    in_work, too_old = results[-1], node._record.too_old
    worker._hand_over(in_work)
    vehicle.masks.clear()
    vehicle.spin_until(lambda: len(vehicle.masks) > 5 and vehicle.used() == ALL, "all modalities again")
    assert stamp_ns(vehicle.masks[-1].header) < in_work.job.born_ns
    assert node._record.too_old == too_old
    told = capfd.readouterr().err
    assert told.count("the clock was set back by 5.4 s: every sensor starts anew") == 1
    assert "[ERROR]" not in told
    assert "ms old" not in told
    assert "failed" not in told


def test_masks_go_on_from_depth_when_the_camera_dies(vehicle: Vehicle) -> None:
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    lose(vehicle, Sensor.CAMERA)
    vehicle.masks.clear()
    vehicle.spin_until(lambda: vehicle.is_without(Sensor.CAMERA, "state", "failed"), "a mask from the others")
    vehicle.spin_until(lambda: "depth_frame" in {mask.header.frame_id for mask in vehicle.masks}, "depth's masks")
    assert "camera_frame" not in {mask.header.frame_id for mask in vehicle.masks}


def test_only_lidar_left_gives_masks_of_the_camera_s_size(vehicle: Vehicle) -> None:
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    lose(vehicle, Sensor.CAMERA, Sensor.DEPTH, Sensor.EVENT)
    vehicle.masks.clear()
    vehicle.spin_masks(3)
    mask = vehicle.masks[-1]
    assert (mask.height, mask.width, mask.header.frame_id) == (RIG.camera.height, RIG.camera.width, "camera_frame")


def test_no_mask_when_all_are_lost_and_recovery(vehicle: Vehicle) -> None:
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    lose(vehicle, *DEFAULT_SENSORS)
    vehicle.masks.clear()
    vehicle.spin_for(0.5)
    assert not vehicle.masks
    assert vehicle.used() == set()
    vehicle.alive = set(DEFAULT_SENSORS)
    vehicle.spin_until(lambda: vehicle.used() == ALL, "recovery")
    assert vehicle.masks


def test_diagnostics_name_the_lost_sensor_and_warn_of_inference(vehicle: Vehicle) -> None:
    vehicle.alive = {Sensor.DEPTH}
    vehicle.spin_masks(1)

    def warned() -> bool:
        newest = vehicle.diagnostics[-1] if vehicle.diagnostics else None
        return newest is not None and "without camera" in status_values(newest)["inference"]["message"]

    vehicle.spin_until(warned, "the warning")
    levels = {status_key(status.name): status.level for status in vehicle.diagnostics[-1].status}
    assert levels["depth status"] == b"\x00"
    assert levels["inference"] == b"\x01"
    assert levels["engine"] == b"\x00"


@pytest.mark.parametrize("broken", [(EngineOwner, "segment"), (Pipeline, "poll")])
def test_a_bug_is_told_with_its_traceback_and_the_next_frames_are_segmented(
    vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], broken: tuple[type, str]
) -> None:
    vehicle.spin_masks(2)

    def fail(*_arguments: object) -> None:
        raise KeyError("a bug")

    def told() -> bool:
        values = status_values(vehicle.diagnostics[-1]) if vehicle.diagnostics else {}
        return "no label image: KeyError('a bug')" in values.get("inference", {}).get("message", "")

    with monkeypatch.context() as patch:
        patch.setattr(*broken, fail)
        vehicle.spin_until(told, "the bug in diagnostics")
        levels = {status_key(status.name): status.level for status in vehicle.diagnostics[-1].status}
    assert levels["inference"] == b"\x02"
    logged = capfd.readouterr().err
    assert "Traceback" in logged
    assert ", in fail" in logged
    vehicle.spin_masks(2)
    vehicle.spin_until(lambda: not told(), "diagnostics that forget it")


MALFORMED = [
    Image(encoding="rgb8", height=4, width=4, step=12, data=[0] * 47),
    Image(encoding="yuv999", height=4, width=4, step=12, data=[0] * 48),
    Image(encoding="rgb8"),
    Image(encoding="rgb8", height=2**31, width=2**31, step=2**31),
]


@pytest.mark.parametrize("message", MALFORMED, ids=["short", "encoding", "empty", "absurd"])
def test_malformed_images_are_counted_and_named(vehicle: Vehicle, message: Image) -> None:
    vehicle.alive = {Sensor.DEPTH}
    vehicle.spin_masks(1)
    bad = vehicle.driver.create_publisher(Image, "camera/image_raw", 5)

    def rejected_twice() -> bool:
        bad.publish(message)
        return int(vehicle.states()["camera"]["rejected"]) >= 2

    vehicle.spin_until(rejected_twice, "two rejected images")
    assert vehicle.fault_of(Sensor.CAMERA) in ("wrong_size", "decode_error")
    vehicle.spin_masks(2)
    assert vehicle.used() == {"depth"}


def test_an_encoding_that_is_refused_is_logged_once_and_stays_in_the_status(
    vehicle: Vehicle, capfd: pytest.CaptureFixture[str]
) -> None:
    vehicle.alive = set()
    bad = vehicle.driver.create_publisher(Image, "camera/image_raw", 5)
    for count in range(3, 12, 3):

        def rejected(count: int = count) -> bool:
            bad.publish(Image(encoding="nv24", height=4, width=4, step=4, data=[count] * 48))
            return int(vehicle.states().get("camera", {"rejected": "0"})["rejected"]) >= count

        vehicle.spin_until(rejected, f"{count} rejected images")
        assert "encoding 'nv24' is not known; known here: rgb8" in vehicle.states()["camera"]["message"]
    assert capfd.readouterr().err.count("malformed camera message: encoding 'nv24' is not known") == 1


def test_a_topic_of_another_type_is_named_in_the_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = "is sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image: set modalities.camera.topic or remap it"
    others = rclpy.Context()  # of another process: in one a topic has one type
    rclpy.init(context=others)
    try:
        driver = rclpy.create_node("other_driver", namespace=NS, context=others)
        driver.create_publisher(CompressedImage, "packed/image", 5)
        with running({**toy_parameters(tmp_path), "modalities.camera.topic": "packed/image"}) as vehicle:

            def is_told() -> bool:
                vehicle.node._check_connections()
                camera = vehicle.states().get("camera", {"remark": "", "message": ""})
                return words in camera["remark"] and words in camera["message"]

            vehicle.spin_until(is_told, "the remark")
            vehicle.spin_masks(2)
    finally:
        rclpy.shutdown(context=others)
    assert capfd.readouterr().err.count(words) == 1


def test_points_without_coordinates_are_counted_and_named(vehicle: Vehicle) -> None:
    vehicle.alive = {Sensor.DEPTH}
    vehicle.spin_masks(1)
    bad = vehicle.driver.create_publisher(PointCloud2, "lidar/points", 5)

    def named() -> bool:
        bad.publish(PointCloud2(height=1, width=1, point_step=4, row_step=4, data=[0] * 4))
        return vehicle.fault_of(Sensor.LIDAR) == "decode_error"

    vehicle.spin_until(named, "the fault")
    assert "lacks x, y, z" in vehicle.states()["lidar"]["message"]


def test_a_compressed_camera_by_the_name_of_its_topic(tmp_path: Path) -> None:
    import cv2

    overrides = {**toy_parameters(tmp_path), "modalities.camera.topic": "camera/image_raw/compressed"}
    with running(overrides) as vehicle:
        vehicle.alive = set()
        publisher = vehicle.driver.create_publisher(CompressedImage, "camera/image_raw/compressed", 5)

        def masked() -> bool:
            now = vehicle.driver.get_clock().now()
            pixels = live_frame(Sensor.CAMERA, now.nanoseconds).data
            message = CompressedImage(format="jpeg", data=cv2.imencode(".jpg", pixels)[1].tobytes())
            message.header.stamp = now.to_msg()
            publisher.publish(message)
            vehicle.spin_for(0.05)
            return bool(vehicle.masks)

        vehicle.spin_until(masked, "a mask")
        assert vehicle.used() == {"camera"}


def test_a_camera_info_of_smaller_pictures_costs_no_camera(tmp_path: Path) -> None:
    """As in a replay: only LiDAR cannot be drawn in such pictures."""
    with running(toy_parameters(tmp_path)) as vehicle:
        vehicle.alive = set()
        infos = vehicle.driver.create_publisher(CameraInfo, "camera/camera_info", 5)
        images = vehicle.driver.create_publisher(Image, "camera/image_raw", 5)

        def masked() -> bool:
            now = vehicle.driver.get_clock().now()
            header = Header(stamp=now.to_msg(), frame_id="camera")
            k = [8.0, 0.0, 8.0, 0.0, 8.0, 8.0, 0.0, 0.0, 1.0]
            infos.publish(CameraInfo(header=header, width=16, height=16, k=k))
            vehicle.spin_for(0.05)
            frame = live_frame(Sensor.CAMERA, now.nanoseconds)
            images.publish(image_message(np.asarray(frame.data, np.uint8), "rgb8", header))
            vehicle.spin_for(0.05)
            return len(vehicle.masks) > 3

        vehicle.spin_until(masked, "masks")
        assert vehicle.used() == {"camera"}


def test_a_simulated_clock_that_does_not_run_is_named(tmp_path: Path) -> None:
    def says(vehicle: Vehicle) -> str:
        last = [status_values(array).get("inference", {}) for array in vehicle.diagnostics[-1:]]
        return last[0]["message"] if last else ""

    with running({**toy_parameters(tmp_path), "use_sim_time": True}) as vehicle:
        vehicle.spin_until(lambda: says(vehicle).endswith("no time has come on /clock"), "what is missing")
        clock = vehicle.driver.create_publisher(ClockMessage, "/clock", 10)
        timer = vehicle.driver.create_timer(0.01, lambda: clock.publish(ClockMessage(clock=now(vehicle))))
        vehicle.spin_until(lambda: says(vehicle).startswith("segmenting"), "masks")
        timer.cancel()
        vehicle.spin_until(lambda: says(vehicle) == "no label image: /clock stands still", "the pause")
        timer.reset()
        vehicle.spin_until(lambda: says(vehicle).startswith("segmenting"), "masks after the pause")


def now(vehicle: Vehicle) -> Time:
    return vehicle.driver.get_clock().now().to_msg()


def test_a_camera_info_that_was_published_once_before_the_node_came_is_heard(tmp_path: Path) -> None:
    values = {**toy_parameters(tmp_path), "rig.camera_info_topic": "/calibration/camera"}
    calibrator = rclpy.create_node("calibrator")
    try:
        infos = calibrator.create_publisher(CameraInfo, "/calibration/camera", STATE_QOS)
        infos.publish(camera_info_message(RIG.camera, Header(frame_id="camera")))
        with running(values, (Sensor.CAMERA, Sensor.LIDAR)) as vehicle:
            vehicle.spin_until(lambda: "lidar" in vehicle.used(), "a mask made with LiDAR")
    finally:
        calibrator.destroy_node()


def test_a_sensor_can_be_switched_off_and_on(vehicle: Vehicle) -> None:
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    assert vehicle.call(SetBool, "set_camera_enabled", SetBool.Request(data=False)).success
    vehicle.spin_until(lambda: vehicle.is_without(Sensor.CAMERA, "state", "disabled"), "masks without the camera")
    assert vehicle.call(SetBool, "set_camera_enabled", SetBool.Request(data=True)).success
    vehicle.spin_until(lambda: vehicle.used() == ALL, "masks with the camera")


def test_a_latched_fault_stays_until_it_is_cleared(tmp_path: Path) -> None:
    with running({**toy_parameters(tmp_path), "faults.silent.latch": True}) as vehicle:
        vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
        lose(vehicle, Sensor.EVENT)
        vehicle.alive = set(DEFAULT_SENSORS)
        vehicle.spin_masks(20)
        assert vehicle.states()["event"]["state"] == "failed"
        assert vehicle.call(Trigger, "clear_faults", Trigger.Request()).success
        vehicle.spin_until(lambda: vehicle.used() == ALL, "the event camera")


def test_an_incompatible_publisher_is_named(tmp_path: Path) -> None:
    with running({**toy_parameters(tmp_path), "modalities.camera.qos": "reliable"}) as vehicle:
        vehicle.alive = {Sensor.DEPTH}
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        vehicle.driver.create_publisher(Image, "camera/image_raw", best_effort)
        vehicle.spin_until(lambda: vehicle.fault_of(Sensor.CAMERA) == "incompatible_qos", "the fault")
        assert "/vehicle/camera/image_raw" in vehicle.states()["camera"]["message"]


def test_thresholds_change_at_run_time_and_bad_ones_are_refused(vehicle: Vehicle) -> None:
    def set_one(name: str, value: object) -> tuple[bool, str]:
        result = vehicle.node.set_parameters([Parameter(name, value=value)])[0]
        return result.successful, result.reason

    assert set_one("faults.silent.threshold", 5.0) == (True, "")
    refused = {
        "faults.silent.fail_count": (0, "out of range. Min: 1, Max: 1000"),
        "modalities.camera.max_age_ms": (1.0, "max_age_ms 1 is less than the period"),
        "sync.anchor_order": (["radar"], "unknown sensor 'radar'"),
        "model.student": ("other", "only before configure"),
        "modalities.camera.faults.dark.threshold": ("low", "must be a number"),
        "modalities.camera.faults.darkk.threshold": (1.0, "did you mean modalities.camera.faults.dark.threshold?"),
    }
    for name, (value, reason) in refused.items():
        successful, why = set_one(name, value)
        assert not successful
        assert reason in why


def test_one_sensor_s_threshold_changes_at_run_time_and_back(vehicle: Vehicle) -> None:
    name = "modalities.camera.faults.dark.threshold"
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    assert vehicle.node.set_parameters([Parameter(name, value=255)])[0].successful  # nothing is bright enough
    vehicle.spin_until(lambda: vehicle.is_without(Sensor.CAMERA, "fault", "dark"), "masks without the camera")
    assert vehicle.node.set_parameters([Parameter(name)])[0].successful  # as `ros2 param delete` does
    vehicle.spin_until(lambda: vehicle.used() == ALL, "masks with the camera")


def test_what_is_withheld_changes_at_run_time(vehicle: Vehicle) -> None:
    vehicle.spin_masks(1)
    assert vehicle.node.set_parameters([Parameter("output.min_confidence", value=1.0)])[0].successful
    vehicle.spin_until(lambda: 255 in bytes(vehicle.masks[-1].data), "a mask with pixels that have no label")
    assert vehicle.node.set_parameters([Parameter("output.max_mask_age_ms", value=1.0)])[0].successful
    vehicle.spin_until(lambda: vehicle.node._record.too_old > 0, "a mask that is withheld for its age")


def test_a_poor_sensor_is_left_out_and_the_status_and_overlay_say_so(vehicle: Vehicle) -> None:
    overlays: list[Image] = []
    topic = "/vehicle/segmentation_node/segmentation/overlay"
    vehicle.driver.create_subscription(Image, topic, overlays.append, 5)
    vehicle.spin_until(lambda: vehicle.used() == ALL, "all modalities in one mask")
    assert vehicle.node.set_parameters([Parameter("modalities.lidar.min_quality", value=1.0)])[0].successful
    told = "active, left out: quality "
    vehicle.spin_until(lambda: vehicle.is_without(Sensor.LIDAR, "message", told), "masks without the LiDAR")
    assert vehicle.states()["lidar"]["state"] == "active"

    def lidar_is_amber() -> bool:
        picture = np.frombuffer(overlays[-1].data, np.uint8).reshape(HEIGHT, WIDTH, 3)
        return tuple(picture[1, -4]) == AMBER

    vehicle.spin_until(lambda: bool(overlays) and lidar_is_amber(), "an overlay that says so")


def test_diagnostics_tell_each_sensor_by_its_topic_too(vehicle: Vehicle) -> None:
    vehicle.spin_until(lambda: bool(vehicle.diagnostics), "diagnostics")
    names = {status.name for status in vehicle.diagnostics[-1].status}
    assert {"anyseg: camera topic/vehicle/camera/image_raw", "anyseg: lidar topic/vehicle/lidar/points"} <= names


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ({"model.student": "/nowhere"}, "no student '/nowhere'"),
        ({"modalities.camra.topic": "x"}, "did you mean modalities.camera.topic?"),
        ({"sync.anchor_order": ["sonar"]}, "unknown sensor 'sonar'"),
        ({"model.backend": "tflite"}, "backend must be one of"),
        ({"modalities.camera.topic": "1st"}, "modalities.camera.topic: '1st' is no name of a topic: topic name token"),
        ({"modalities.lidar.topic": "/" + "x" * 300}, "topic length should not exceed 247 characters"),
        ({"rig.odometry_topic": "my odometry"}, "rig.odometry_topic: 'my odometry' is no name of a topic"),
        ({"rig.camera_info_topic": "//info"}, "must not contain repeated '/'"),
    ],
)
def test_bad_configuration_is_one_clear_error_and_the_node_lives(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], overrides: dict[str, object], error: str
) -> None:
    node_overrides = {**toy_parameters(tmp_path), **overrides}
    vehicle = Vehicle(node_overrides)
    try:
        assert vehicle.node.trigger_configure().name == "FAILURE"
        vehicle.spin_for(0.1)
        told = capfd.readouterr().err
        assert error in told
        assert "Traceback" not in told
    finally:
        vehicle.destroy()


def test_the_lifecycle_goes_round_twice(tmp_path: Path) -> None:
    with running(toy_parameters(tmp_path)) as vehicle:
        vehicle.spin_masks(2)
        for transition in ("deactivate", "cleanup", "configure", "activate"):
            assert getattr(vehicle.node, f"trigger_{transition}")().name == "SUCCESS"
        vehicle.masks.clear()
        vehicle.spin_masks(2)


def test_a_switch_of_a_sensor_that_the_student_does_not_take_says_so(tmp_path: Path) -> None:
    sensors = (Sensor.CAMERA, Sensor.LIDAR)
    with running(toy_parameters(tmp_path, sensors), sensors=sensors) as vehicle:
        of_depth = vehicle.call(SetBool, "set_depth_enabled", SetBool.Request(data=False))
        of_camera = vehicle.call(SetBool, "set_camera_enabled", SetBool.Request(data=False))
        assert (of_depth.success, of_depth.message) == (True, "it makes no difference: student toy takes no depth")
        assert (of_camera.success, of_camera.message) == (True, "")


def test_a_node_that_was_shut_down_says_that_it_cannot_come_back(tmp_path: Path) -> None:
    with running(toy_parameters(tmp_path)) as vehicle:
        assert vehicle.node.trigger_shutdown().name == "SUCCESS"
        words = "the node is not configured: it was shut down"

        def says_so() -> bool:
            return any(words in status.message for array in vehicle.diagnostics[-1:] for status in array.status)

        vehicle.spin_until(says_so, words)
        assert vehicle.node.trigger_configure().name == "ERROR"
