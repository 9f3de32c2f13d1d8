"""The simulated vehicle: deterministic, geometrically consistent, and hurt by weather as a real one is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import project_points
from anyseg_core.runtime.geometry.rigid_transform import quaternion
from anyseg_core.runtime.label_sets import DELIVER
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.sim import Drive, DriveConfig, DriveFrame, Weather
from anyseg_core.sim.drive import CAMERA_HEIGHT_M, EGO_OFFSET_M, base_from_lidar, lidar_odometry
from anyseg_core.sim.motion import ego_motion
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.sim.shapes import LABEL, yaw_matrix
from anyseg_core.sim.street import START_M
from anyseg_core.sim.world import build_world

CONFIG = DriveConfig(seed=11, weather=Weather.SUN, duration_s=12.0, width=160, height=120)


@cache
def drive(config: DriveConfig = CONFIG) -> Drive:
    return Drive(config)


@cache
def frame(config: DriveConfig = CONFIG, index: int = 20) -> DriveFrame:
    return drive(config).frame(index)


def in_weather(weather: Weather, **changes: object) -> DriveConfig:
    return replace(CONFIG, weather=weather, **changes)  # type: ignore[arg-type]


def data(a_frame: DriveFrame, modality: Sensor) -> NDArray:
    return a_frame.frames[modality].data


def same(a: DriveFrame, b: DriveFrame) -> bool:
    sensors_agree = all(np.array_equal(data(a, m), data(b, m)) for m in DEFAULT_SENSORS)
    return a.stamp_ns == b.stamp_ns and np.array_equal(a.labels, b.labels) and sensors_agree


# --- determinism ---


@pytest.mark.parametrize("weather", list(Weather))
def test_frame_is_the_same_in_order_and_at_random(weather: Weather) -> None:
    config = in_weather(weather)
    in_order = Drive(config)
    in_order.frame(19)
    assert same(in_order.frame(20), frame(config))


def test_seeds_give_different_worlds() -> None:
    other = frame(replace(CONFIG, seed=12))
    assert (other.labels != frame().labels).mean() > 0.1


def test_weather_does_not_change_the_street() -> None:
    assert np.array_equal(frame(in_weather(Weather.NIGHT)).labels, frame().labels)


def test_consecutive_images_are_never_identical_even_when_parked() -> None:
    parked = drive(replace(CONFIG, speed_mps=0.0))
    before, after = parked.frame(30), parked.frame(31)
    for modality in (Sensor.CAMERA, Sensor.DEPTH, Sensor.LIDAR):
        assert not np.array_equal(data(before, modality), data(after, modality)), modality


# --- the contract of a frame ---


def test_frame_has_every_modality_in_the_form_of_the_contract() -> None:
    height, width = CONFIG.height, CONFIG.width
    form = {
        Sensor.CAMERA: (np.uint8, (height, width, 3)),
        Sensor.DEPTH: (np.float32, (height, width)),
        Sensor.EVENT: (np.uint8, (height, width, 2)),
    }
    for modality, (dtype, shape) in form.items():
        assert data(frame(), modality).dtype == dtype
        assert data(frame(), modality).shape == shape
    points = data(frame(), Sensor.LIDAR)
    assert points.dtype == np.float32
    assert points.shape[1] == 4
    assert np.isfinite(points).all()
    assert 0 <= points[:, 3].min() <= points[:, 3].max() <= 255


def test_stamps_follow_the_rate() -> None:
    step = drive().frame(21).stamp_ns - frame().stamp_ns
    assert step == 100_000_000
    assert {f.stamp_ns for f in frame().frames.values()} == {frame().stamp_ns}


@settings(max_examples=12)
@given(seed=st.integers(0, 2**31 - 1), weather=st.sampled_from(list(Weather)))
def test_any_seed_renders(seed: int, weather: Weather) -> None:
    a_frame = Drive(DriveConfig(seed, weather, duration_s=2.0, width=64, height=48)).frame(10)
    assert a_frame.labels.max() < len(DELIVER)
    assert np.isfinite(data(a_frame, Sensor.DEPTH)).all()
    assert data(a_frame, Sensor.DEPTH).min() >= 0
    assert LABEL["Road"] in a_frame.labels
    assert len(data(a_frame, Sensor.LIDAR)) > 1000


def test_most_classes_occur() -> None:
    seen: set[int] = set()
    for seed in range(10):
        world = build_world(seed, ego_motion(seed, 30.0, 8.0))
        seen |= {m.label for m in world.static.materials}
        seen |= {m.label for actor in world.actors for m in actor.phases[0].materials}
    assert seen == set(range(len(DELIVER))) - {LABEL["Sky"]}


@pytest.mark.parametrize("index", [-1, len(Drive(replace(CONFIG, duration_s=1.0)))])
def test_frame_outside_the_drive(index: int) -> None:
    with pytest.raises(IndexError, match="outside the drive of 10 frames"):
        Drive(replace(CONFIG, duration_s=1.0)).frame(index)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"duration_s": 0.0}, "duration_s"),
        ({"width": 8}, "too small"),
        ({"horizontal_fov_deg": 180.0}, "horizontal_fov_deg"),
        ({"speed_mps": -1.0}, "speed_mps"),
    ],
)
def test_impossible_configuration_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)  # type: ignore[arg-type]


def test_unknown_weather_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"snow.*cloud, fog, night, rain, sun"):
        Weather.parse("snow")


# --- geometry ---


def test_sky_has_no_depth_and_lies_above_the_road() -> None:
    labels, depth = frame().labels, data(frame(), Sensor.DEPTH)
    rows = np.indices(labels.shape)[0]
    assert (depth[labels == LABEL["Sky"]] == 0).all()
    assert rows[labels == LABEL["Sky"]].mean() < rows[labels == LABEL["Road"]].mean()


def test_depth_of_the_road_is_that_of_a_plane_below_the_camera() -> None:
    camera = CONFIG.camera()
    rows = np.indices(frame().labels.shape)[0]
    depth = data(frame(), Sensor.DEPTH)
    near_road = (frame().labels == LABEL["Road"]) & (depth > 0) & (rows > 0.8 * CONFIG.height)
    expected = CAMERA_HEIGHT_M * camera.fy / (rows - camera.cy)
    error = np.abs(depth - expected)[near_road] / expected[near_road]
    assert np.median(error) < 0.05


@pytest.mark.parametrize("weather", [Weather.SUN, Weather.NIGHT])
def test_lidar_points_fall_on_the_depth_they_measure(weather: Weather) -> None:
    a_frame = frame(in_weather(weather))
    points = data(a_frame, Sensor.LIDAR)
    rows, cols, _, xyz = project_points(points, drive().rig(), CONFIG.height, CONFIG.width)
    depth = data(a_frame, Sensor.DEPTH)[rows, cols]
    comparable = (depth > 0) & (depth < 15)
    error = np.abs(depth - xyz[:, 2])[comparable] / depth[comparable]
    assert comparable.sum() > 300
    assert np.median(error) < 0.03


def test_lidar_points_on_the_road_are_on_the_ground() -> None:
    rows, cols, _, xyz = project_points(data(frame(), Sensor.LIDAR), drive().rig(), CONFIG.height, CONFIG.width)
    on_road = (frame().labels[rows, cols] == LABEL["Road"]) & (xyz[:, 2] < 12)
    assert np.median(np.abs(xyz[on_road, 1] - CAMERA_HEIGHT_M)) < 0.1


@pytest.mark.parametrize("weather", [Weather.SUN, Weather.RAIN])
def test_points_have_the_label_of_what_the_camera_sees_at_their_depth(weather: Weather) -> None:
    config = in_weather(weather, width=320, height=240)
    seen, truth = frame(config), drive(config).true_depth(20)
    points, labels = data(seen, Sensor.LIDAR), seen.point_labels
    assert labels is not None
    assert len(labels) == len(points)
    rows, cols, index, xyz = project_points(points, drive(config).rig(), 240, 320)
    same_surface = np.abs(xyz[:, 2] - truth[rows, cols]) < 0.05
    assert same_surface.sum() > 500
    assert (labels[index] == seen.labels[rows, cols])[same_surface].mean() > 0.95  # edges are half a pixel wide
    assert (labels == 255).any() == (weather is Weather.RAIN)  # drops have no class


def test_a_recording_keeps_the_labels_of_points() -> None:
    recorded = RecordedDrive.of([frame()], drive().rig()).frame(0)
    np.testing.assert_array_equal(recorded.point_labels, frame().point_labels)


def test_lidar_hits_no_sky() -> None:
    rows, cols, *_ = project_points(data(frame(), Sensor.LIDAR), drive().rig(), CONFIG.height, CONFIG.width)
    in_sky = frame().labels[rows, cols] == LABEL["Sky"]
    assert in_sky.mean() < 0.06  # parallax at outlines: the LiDAR sits above and behind the camera


def test_quaternion_turns_back_into_the_rotation() -> None:
    rotation = drive().rig().camera_from_lidar[:3, :3]
    x, y, z, w = quaternion(rotation)
    again = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    np.testing.assert_allclose(again, rotation, atol=1e-9)


# --- weather ---


def contrast(a_frame: DriveFrame) -> float:
    return float(data(a_frame, Sensor.CAMERA)[..., 1].astype(np.float32).std())


def test_fog_takes_the_cameras_contrast_and_the_lidars_range() -> None:
    fog, clear = frame(in_weather(Weather.FOG)), frame(in_weather(Weather.CLOUD))
    assert contrast(fog) < 0.7 * contrast(clear)

    def far(a_frame: DriveFrame) -> int:
        return int((np.linalg.norm(data(a_frame, Sensor.LIDAR)[:, :3], axis=1) > 25).sum())

    assert far(fog) < 0.7 * far(clear)


def test_rain_thins_lidar_and_depth() -> None:
    rain, clear = frame(in_weather(Weather.RAIN)), frame(in_weather(Weather.CLOUD))
    assert len(data(rain, Sensor.LIDAR)) < 0.92 * len(data(clear, Sensor.LIDAR))
    assert (data(rain, Sensor.DEPTH) > 0).mean() < 0.97 * (data(clear, Sensor.DEPTH) > 0).mean()


def test_night_darkens_the_camera_and_leaves_the_lidar() -> None:
    night, day = frame(in_weather(Weather.NIGHT)), frame()
    assert data(night, Sensor.CAMERA).mean() < 0.7 * data(day, Sensor.CAMERA).mean()
    assert len(data(night, Sensor.LIDAR)) == pytest.approx(len(data(day, Sensor.LIDAR)), rel=0.02)


def test_events_need_motion() -> None:
    moving = data(frame(), Sensor.EVENT).astype(int).sum()
    parked = data(frame(replace(CONFIG, speed_mps=0.0)), Sensor.EVENT).astype(int).sum()
    assert parked < 0.3 * moving


def test_vehicle_stops_and_moves_on() -> None:
    motion = ego_motion(seed=3, duration_s=60.0, speed_mps=8.0)
    stop = motion.stop_times_s[0]
    assert motion.speed_at(stop + 5.0) == 0.0
    assert motion.speed_at(stop + 15.0) > 3.0
    assert motion.distance_at(0.0) == pytest.approx(0.0, abs=0.05)


def test_odometry_is_that_of_the_lidar_in_its_own_axes() -> None:
    """What it adds up to is how the LiDAR has moved between two moments."""
    config = DriveConfig(3, Weather.CLOUD, duration_s=6.0)
    ego, twist_at, poses = ego_motion(3, 6.0, 8.0), lidar_odometry(config), []
    for t in (3.0, 3.2):
        x, y, heading = build_world(3, ego).road.street.place(START_M + ego.distance_at(t), EGO_OFFSET_M)
        base = np.eye(4)
        base[:3, :3], base[:2, 3] = yaw_matrix(float(heading)), (x, y)
        poses.append(base @ base_from_lidar())
    moved = np.linalg.inv(poses[0]) @ poses[1]
    twist = twist_at(3.1)
    assert np.allclose(0.2 * twist.linear, moved[:3, 3], atol=0.02)
    assert 0.2 * twist.angular[2] == pytest.approx(np.arctan2(moved[1, 0], moved[0, 0]), abs=1e-3)
    assert abs(twist.angular[2]) > 1e-3  # the road is not straight there
