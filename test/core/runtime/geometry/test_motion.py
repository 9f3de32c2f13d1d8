"""The vehicle's own motion taken out of LiDAR scans: times, odometry, pipeline, replay and the live node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from living_sensors import live_frame
from numpy.typing import NDArray
from small_bags import CAMERA, INFO, LIDAR, TF, TYPES, Written, drive, header, write_ros2
from toy_student import write_toy_student

from anyseg_core.runtime.geometry.motion import MAX_APART_NS, LidarMotion, MotionHistory, point_seconds
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, Twist
from anyseg_core.runtime.health.monitor import HealthConfig
from anyseg_core.runtime.segmenter import Segmentation, Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.bags.topics import TopicError, find_companions, find_topics
from anyseg_ros.messages.conversions import ConversionError, lidar_frame
from anyseg_ros.messages.odometry import Odometer
from anyseg_ros.pipeline.calibration import Calibration
from anyseg_ros.pipeline.jobs import segment
from anyseg_ros.pipeline.parameters import Parameters, RigParameters
from anyseg_ros.pipeline.pipeline import Pipeline, SyncConfig
from anyseg_ros.replay.offline import ReplayOptions, replay

MS, S = 1_000_000, 1_000_000_000
STAMP = 1_700_000_000 * S
AHEAD = Twist(np.array([20.0, 0.0, 0.0]), np.zeros(3))
"""20 m/s straight on."""


# --- times of points -------------------------------------------------------------------------------------------------

OFFSETS = np.array([0.0, 0.025, 0.1])


@pytest.mark.parametrize(
    "times",
    [
        pytest.param((OFFSETS * 1e9).astype(np.uint32), id="ouster t, livox offset_time"),
        pytest.param(OFFSETS.astype(np.float32), id="velodyne time"),
        pytest.param(OFFSETS + STAMP / 1e9, id="hesai, robosense timestamp"),
        pytest.param(OFFSETS * 1e9 + float(STAMP), id="livox timestamp"),
        pytest.param((OFFSETS * 1e9).astype(np.uint64) + np.uint64(STAMP), id="absolute nanoseconds"),
    ],
)
def test_every_drivers_times_count_from_the_stamp(times: NDArray[Any]) -> None:
    seconds = point_seconds(times, STAMP)
    assert seconds is not None
    np.testing.assert_allclose(seconds, OFFSETS, atol=1e-6)


def test_times_of_another_clock_are_not_used_and_lost_ones_are_those_of_the_stamp() -> None:
    assert point_seconds(OFFSETS + 12_345_678.0, STAMP) is None
    assert point_seconds(None, STAMP) is None
    seconds = point_seconds(np.array([np.nan, 0.05]), STAMP)
    assert seconds is not None
    np.testing.assert_allclose(seconds, [0.0, 0.05], atol=1e-7)


# --- scans -----------------------------------------------------------------------------------------------------------


def wall_scan(lidar_stamp_ns: int, start_m: float = 10.0, speed: float = 20.0) -> tuple[Any, NDArray[np.float32]]:
    """A cloud of a wall that stands `start_m` ahead at the stamp, swept in 100 ms by a LiDAR that drives at it.

    And its times. Every later point is nearer, as the vehicle has moved on.
    """
    seconds = np.linspace(0.0, 0.1, 200).astype(np.float32)
    points = np.zeros(200, [(n, "<f4") for n in ("x", "y", "z", "intensity")] + [("t", "<u4")])
    points["x"], points["y"] = start_m - speed * seconds, np.linspace(-4, 4, 200)
    points["t"] = np.round(seconds * 1e9)
    points["z"] = np.random.default_rng(lidar_stamp_ns).normal(0, 0.01, 200)  # no scan is that of before
    raw = points.view(np.uint8)
    field = TYPES["sensor_msgs/msg/PointField"]
    fields = [field(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate(("x", "y", "z", "intensity"))]
    message = TYPES["sensor_msgs/msg/PointCloud2"](
        header=header(lidar_stamp_ns, "lidar"), height=1, width=200, is_bigendian=False, point_step=20,
        fields=[*fields, field(name="t", offset=16, datatype=6, count=1)], row_step=len(raw), data=raw, is_dense=True,
    )  # fmt: skip
    return message, seconds


@pytest.mark.parametrize("late_ms", [-40, 0, 40])
def test_a_wall_swept_on_the_way_to_it_stands_straight_where_the_camera_sees_it(late_ms: int) -> None:
    """Uncompensated it leans by 2 m; compensated it is where it was at the anchor's stamp."""
    message, _ = wall_scan(STAMP)
    frame = lidar_frame(message)
    assert np.ptp(frame.data[:, 0]) == pytest.approx(2.0, abs=0.02)
    compensated = LidarMotion(STAMP + late_ms * MS, AHEAD).compensate(frame)
    np.testing.assert_allclose(compensated.data[:, 0], 10.0 - 0.02 * late_ms, atol=1e-4)
    np.testing.assert_array_equal(compensated.data[:, 1:], frame.data[:, 1:])


def test_a_cloud_without_times_moves_as_a_whole_and_a_standing_vehicle_s_not_at_all() -> None:
    frame = SensorFrame(Sensor.LIDAR, np.array([[10, 1, 2, 3]], np.float32), STAMP)
    moved = LidarMotion(STAMP + 50 * MS, AHEAD).compensate(frame)
    np.testing.assert_allclose(moved.data, [[9, 1, 2, 3]], atol=1e-5)
    assert LidarMotion(STAMP, AHEAD).compensate(frame) is frame
    assert LidarMotion(STAMP + 50 * MS, Twist(np.zeros(3), np.zeros(3))).compensate(frame) is frame


def test_a_turn_moves_points_sideways_alike_with_and_without_times() -> None:
    turn = Twist(np.array([5.0, 0, 0]), np.array([0, 0, 1.0]))
    points = np.random.default_rng(0).normal(0, 20, (50, 4)).astype(np.float32)
    frame = SensorFrame(Sensor.LIDAR, points, STAMP)
    motion = LidarMotion(STAMP + 80 * MS, turn)
    timed = motion.compensate(replace(frame, point_times=np.zeros(50, np.float32)))
    whole = motion.compensate(frame)
    np.testing.assert_allclose(timed.data, whole.data, atol=1e-4)
    assert np.abs(whole.data - points).max() > 1.0


def test_points_taken_away_by_a_fault_leave_the_whole_scan_s_motion() -> None:
    frame = replace(lidar_frame(wall_scan(STAMP)[0]), data=np.full((3, 4), 10, np.float32))
    moved = LidarMotion(STAMP + 50 * MS, AHEAD).compensate(frame)
    np.testing.assert_allclose(moved.data[:, 0], 9.0, atol=1e-5)


# --- odometry --------------------------------------------------------------------------------------------------------


def odometry(stamp_ns: int, linear: tuple[float, ...] = (20.0, 0.0, 0.0), x: float = 0.0) -> Any:
    geometry = "geometry_msgs/msg/"
    vector, covariance = TYPES[geometry + "Vector3"], np.zeros(36)
    twist = TYPES[geometry + "Twist"](linear=vector(*linear), angular=vector(0.0, 0.0, 0.0))
    pose = TYPES[geometry + "Pose"](
        TYPES[geometry + "Point"](x, 0.0, 0.0), TYPES[geometry + "Quaternion"](0.0, 0.0, 0.0, 1.0)
    )
    return TYPES["nav_msgs/msg/Odometry"](
        header=header(stamp_ns, "odom"), child_frame_id="base_link",
        pose=TYPES[geometry + "PoseWithCovariance"](pose, covariance),
        twist=TYPES[geometry + "TwistWithCovariance"](twist, covariance),
    )  # fmt: skip


def test_a_publisher_that_tells_poses_only_is_understood() -> None:
    odometer = Odometer()
    still = (0.0, 0.0, 0.0)
    assert not odometer.read(odometry(STAMP, still))[1].linear.any()
    stamp_ns, twist = odometer.read(odometry(STAMP + 100 * MS, still, x=2.0))
    assert stamp_ns == STAMP + 100 * MS
    np.testing.assert_allclose(twist.linear, [20.0, 0, 0], atol=1e-9)
    assert not odometer.read(odometry(STAMP + 900 * MS, still, x=9.0))[1].linear.any()  # too long ago to tell


def test_impossible_odometry_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"odometry.*finite"):
        Odometer().read(odometry(STAMP, (np.nan, 0.0, 0.0)))


def test_the_nearest_twist_is_taken_and_none_that_is_too_far() -> None:
    history = MotionHistory()
    assert not history
    assert history.between(STAMP, STAMP) is None
    twists = [Twist(np.array([float(i), 0, 0]), np.zeros(3)) for i in range(5)]
    for i, twist in enumerate(twists):
        history.add(STAMP + i * 100 * MS, twist)
    motion = history.between(STAMP + 180 * MS, STAMP + 240 * MS)
    assert motion == LidarMotion(STAMP + 240 * MS, twists[2])
    end_ns = STAMP + 400 * MS + MAX_APART_NS
    assert history.between(end_ns, end_ns) is not None
    assert history.between(end_ns + 1, end_ns + 1) is None
    history.add(STAMP - 2 * S, twists[0])  # the clock was set back
    assert history.between(STAMP, STAMP) is None


# --- pipeline --------------------------------------------------------------------------------------------------------


class Recorder:
    """A segmenter that keeps what it was given."""

    def __init__(self) -> None:
        self.frames: list[Mapping[Sensor, SensorFrame]] = []

    def segment(self, frames: Mapping[Sensor, SensorFrame], _rig: Rig | None = None) -> Segmentation:
        self.frames.append(frames)
        return Segmentation(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), tuple(frames), 0.0, 0.0)


def test_the_pipeline_segments_compensated_points_and_keeps_the_raw_frame_in_the_job() -> None:
    segmenter = Recorder()
    health = {m: HealthConfig(10.0, checks={}) for m in (Sensor.CAMERA, Sensor.LIDAR)}
    pipeline = Pipeline(health, SyncConfig(join_wait_ms=0.0), STAMP - S)
    pipeline.set_rig(Rig(PinholeCamera(40, 30, 20.0, 20.0, 19.5, 14.5)))
    pipeline.on_frame(live_frame(Sensor.LIDAR, STAMP - 95 * MS), STAMP - 90 * MS)
    assert pipeline.take_frame_to_encode() is not None
    pipeline.on_motion(STAMP, AHEAD)
    scan = live_frame(Sensor.LIDAR, STAMP + 5 * MS)
    pipeline.on_frame(scan, STAMP + 5 * MS)
    assert pipeline.take_frame_to_encode() is None  # it waits for its anchor
    pipeline.on_frame(live_frame(Sensor.CAMERA, STAMP + 45 * MS), STAMP + 45 * MS)
    job = pipeline.poll(STAMP + 45 * MS)
    assert job is not None
    assert str(job.motion) == "20.00 m/s, 0.000 rad/s"
    segment(cast(Segmenter, segmenter), job)
    moved = segmenter.frames[0][Sensor.LIDAR].data - scan.data
    np.testing.assert_allclose(moved[:, 0], -0.8, atol=1e-4)
    assert job.frames[Sensor.LIDAR].data is scan.data


# --- replay ----------------------------------------------------------------------------------------------------------


def moving_drive(topic: str = "/vehicle/odom") -> Iterator[Written]:
    """Scans stamped 40 ms before the pictures, and odometry."""
    for written in drive(8, {CAMERA, INFO, LIDAR, TF}):
        if written.topic != LIDAR:
            yield written
            continue
        stamp_ns = written.received_ns - 40 * MS
        yield Written(topic, written.received_ns, odometry(stamp_ns))
        message, _ = wall_scan(stamp_ns)
        yield Written(LIDAR, written.received_ns, message)


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[Sensor, SensorFrame]]:
    """The frames of every mask."""
    seen: list[Mapping[Sensor, SensorFrame]] = []
    segment = Segmenter.segment

    def recording(self: Segmenter, frames: Mapping[Sensor, SensorFrame], rig: Rig | None = None) -> Segmentation:
        seen.append(frames)
        return segment(self, frames, rig)

    monkeypatch.setattr(Segmenter, "segment", recording)
    return seen


def test_the_place_of_the_lidar_on_the_vehicle_is_never_assumed_in_silence() -> None:
    """By TF, by the parameters, by its being the body that odometry tells of; else it is said what is assumed."""
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])
    for parameters, base, lookup, place, is_said in [
        (RigParameters(), "base_link", lambda _t, _s: turned, turned, False),
        (RigParameters(base_from_lidar_rotation_xyzw=(0.0, 0.0, 1.0, 0.0)), "base_link", None, turned, False),
        (RigParameters(base_from_lidar_rotation_xyzw=(0.0, 0.0, 1.0, 0.0)), "lidar", None, np.eye(4), False),
        (RigParameters(), "base_link", lambda _t, _s: None, np.eye(4), True),
        (RigParameters(), "base_link", None, np.eye(4), True),
    ]:
        calibration = Calibration(parameters)
        calibration.lidar_frame = "lidar"
        np.testing.assert_allclose(calibration.lidar_from_base(base, lookup), place, atol=1e-9)
        assert bool(calibration.assumed_place) is is_said


@pytest.mark.parametrize(("compensate", "spread"), [(True, 0.0), (False, 2.0)])
def test_replay_finds_the_odometry_and_straightens_the_wall(
    compensate: bool, spread: float, tmp_path: Path, segmented: list[Mapping[Sensor, SensorFrame]]
) -> None:
    bag = write_ros2(tmp_path / "bag", moving_drive())
    student = write_toy_student(tmp_path / "toy", modalities=(Sensor.CAMERA, Sensor.LIDAR))
    parameters = Parameters(rig=RigParameters(compensate_motion=compensate))
    result = replay(bag, tmp_path / "out", ReplayOptions(student=student, parameters=parameters))
    scans = [frames[Sensor.LIDAR] for frames in segmented if len(frames) == 2]
    assert len(scans) >= 7
    assert not result.problems
    assert any("the LiDAR is taken to look ahead" in note for note in result.notes) is compensate
    for scan in scans:
        assert np.ptp(scan.data[:, 0]) == pytest.approx(spread, abs=0.02)
        assert scan.data[0, 0] == pytest.approx(10.0 - 0.8 * compensate, abs=1e-3)


def test_odometry_is_found_by_type_for_a_lidar_and_asked_for_where_ambiguous() -> None:
    sensors = [(LIDAR, "sensor_msgs/msg/PointCloud2"), (CAMERA, "sensor_msgs/msg/Image")]
    both = [("/wheel/odom", "nav_msgs/msg/Odometry"), ("/visual/odom", "nav_msgs/msg/Odometry")]
    found = find_topics(sensors)
    companions = find_companions([*sensors, both[0]], found)
    assert companions.odometry is not None
    assert companions.odometry.topic == "/wheel/odom"
    with pytest.raises(TopicError, match=r"--map odometry:=TOPIC"):
        find_companions([*sensors, *both], found)
    assert find_companions([*sensors, *both], found, {"odometry": ""}).odometry is None
    assert find_companions([*sensors, *both, ("/ekf/odometry", both[0][1])], found).odometry is not None
    assert find_companions([sensors[1], *both], find_topics(sensors[1:])).odometry is None


# --- the live node ---------------------------------------------------------------------------------------------------


@pytest.mark.ros
def test_the_node_compensates_where_odometry_is_published_and_says_so(ros: None, tmp_path: Path) -> None:
    messages = pytest.importorskip("nav_msgs.msg", reason="nav_msgs is not installed: pip install ros-nav-msgs")
    from ros_harness import running, toy_parameters

    from anyseg_ros.messages.headers import time_message

    with running(toy_parameters(tmp_path)) as vehicle:
        told = lambda: vehicle.states().get("mask", {}).get("lidar_motion", "")  # noqa: E731
        vehicle.spin_until(lambda: "not compensated: no odometry" in _inference(vehicle), "the reason in /diagnostics")
        publisher = vehicle.driver.create_publisher(messages.Odometry, "odometry", 10)

        def send() -> None:
            message = messages.Odometry(child_frame_id="base_link")
            message.header.stamp = time_message(vehicle.driver.get_clock().now().nanoseconds)
            message.twist.twist.linear.x = 3.0
            publisher.publish(message)

        vehicle.driver.create_timer(0.02, send)
        vehicle.spin_until(lambda: told() == "3.00 m/s, 0.000 rad/s", "compensation in the status")
        vehicle.spin_until(lambda: "3.00 m/s" in _inference(vehicle), "compensation in /diagnostics")
        assert "the LiDAR is taken to look ahead" in _inference(vehicle)


@pytest.mark.ros
def test_the_node_works_without_nav_msgs_and_says_why_nothing_is_compensated(
    ros: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ros_harness import running, toy_parameters

    monkeypatch.setattr("anyseg_ros.node.rig_source.message_class", lambda _name: None)
    with running(toy_parameters(tmp_path)) as vehicle:
        vehicle.spin_masks(2)
        vehicle.spin_until(lambda: "nav_msgs is not installed" in _inference(vehicle), "the reason in /diagnostics")


def _inference(vehicle: Any) -> str:
    from ros_harness import status_values

    values = status_values(vehicle.diagnostics[-1]) if vehicle.diagnostics else {}
    return values.get("inference", {}).get("lidar_motion", "")
