"""The road under a sensor is found among what stands on it, and tells of scale, of made-up distances and of turning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.judge import Testimony as Said
from anyseg_core.runtime.cross_examination.own_turns import OwnTurns, Turn
from anyseg_core.runtime.cross_examination.road import LIFTED_NS, LOOKS, Roads, points_of, road_in
from anyseg_core.runtime.cross_examination.views import DepthView, LidarView, view_of
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.health.thresholds import DEFAULT_CHECKS, Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S

_, DEPTH, _, LIDAR = DEFAULT_SENSORS
OPTICAL_FROM_BODY = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
CAMERA = PinholeCamera(160, 120, 90, 90, 79.5, 59.5)
RIG = Rig(CAMERA, OPTICAL_FROM_BODY)
PERIOD_NS = NS_PER_S // 4
HEIGHT_M = 1.6
Change = Callable[[NDArray, int], NDArray]


def scene(
    rng: np.random.Generator, height_m: float = HEIGHT_M, up: float = 0.0, clockwise: float = 0.0, standing: float = 0.3
) -> NDArray[np.float32]:
    """Points in the camera's axes [3, N]: a road, of which a share is hidden; slopes in radians."""
    z = np.exp(rng.uniform(np.log(2.0), np.log(17.0), 800))
    x = rng.uniform(-0.45, 0.45, 800) * z
    y = height_m + np.tan(up) * z + np.tan(clockwise) * x + rng.normal(0, 0.01, 800)
    y -= np.where(rng.random(800) < standing, rng.uniform(0.2, 1.2, 800) * height_m, 0.0)
    return np.stack([x, y, z]).astype(np.float32)


@given(st.floats(0.5, 2.5), st.floats(-5.0, 5.0), st.floats(-4.0, 4.0), st.floats(0.0, 0.5), st.integers(0, 2**32 - 1))
def test_the_plane_is_found_whatever_stands_on_it(
    height_m: float, up_deg: float, clockwise_deg: float, standing: float, seed: int
) -> None:
    points = scene(np.random.default_rng(seed), height_m, np.deg2rad(up_deg), np.deg2rad(clockwise_deg), standing)
    road = road_in(points)
    assert road is not None
    assert road.height_m == pytest.approx(height_m, abs=0.08)
    assert road.up_deg == pytest.approx(up_deg, abs=0.6)
    assert road.clockwise_deg == pytest.approx(clockwise_deg, abs=0.6)


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((3, 0), np.float32),
        np.full((3, 900), np.nan, np.float32),
        np.full((3, 900), 5.0, np.float32),  # a wall
        np.random.default_rng(0).uniform(0.2, 17.0, (3, 900)).astype(np.float32),
    ],
)
def test_where_no_plane_lies_there_is_no_road(points: NDArray[np.float32]) -> None:
    assert road_in(points) is None


def image(change: Change, number: int) -> SensorFrame:
    """A depth image of a road with a wall 15 m ahead."""
    row = (np.arange(CAMERA.height) - CAMERA.cy) / CAMERA.fy
    road = np.where(row > 0.01, HEIGHT_M / np.maximum(row, 0.01), 99.0)
    depth = np.broadcast_to(np.minimum(road, 15.0)[:, None], (CAMERA.height, CAMERA.width))
    noise = 1 + 0.005 * np.random.default_rng(number).standard_normal(depth.shape)
    return SensorFrame(DEPTH, change((depth * noise).astype(np.float32), number), number * PERIOD_NS)


def scan(change: Change, number: int) -> SensorFrame:
    """The same road as points, in the LiDAR's axes."""
    x, y, z = scene(np.random.default_rng(number))
    points = np.stack([z, -x, -y, np.ones_like(x)], axis=1)
    return SensorFrame(LIDAR, change(points.astype(np.float32), number), number * PERIOD_NS)


def broken_after(looks: int, broken: Callable[[NDArray], NDArray]) -> Change:
    return lambda data, number: broken(data) if number >= looks else data


def said_of(
    sensor: Sensor, change: Change, looks: int = 40, *, fits_odometry: bool = False, turns: OwnTurns | None = None
) -> list[Said]:
    roads = Roads(turns or OwnTurns())
    said = []
    for number in range(looks):
        frame = (scan if sensor == LIDAR else image)(change, number)
        fitting = [sensor] if fits_odometry else []
        said += roads.testimonies({sensor: view_of(frame, RIG)}, RIG, fitting, number * PERIOD_NS)
    return said


EACH = pytest.mark.parametrize("sensor", [DEPTH, LIDAR])


@EACH
def test_a_sensor_that_is_well_sees_the_road_where_it_was(sensor: Sensor) -> None:
    said = said_of(sensor, lambda data, _number: data)
    assert said
    assert all(each.against < 0 and each.value == pytest.approx(1.0, abs=0.03) for each in said)


@EACH
@pytest.mark.parametrize("factor", [1.3, 0.75])
def test_another_scale_is_seen_in_the_height_over_the_road(sensor: Sensor, factor: float) -> None:
    said = said_of(sensor, broken_after(25, lambda data: (data * np.float32(factor)).astype(np.float32)))
    assert (said[-1].fault, said[-1].sensors, said[-1].against) == (Fault.WRONG_SCALE, (sensor,), 1.0)
    assert said[-1].value == pytest.approx(factor, rel=0.05)
    assert sum(each.against > 0 for each in said) >= 3


def test_one_look_is_not_enough() -> None:
    assert DEFAULT_CHECKS[Fault.WRONG_SCALE].fail_count > LOOKS


@pytest.mark.parametrize("far_m", [5.0, 12.0, 150.0])
def test_distances_that_are_made_up_lie_below_the_road(far_m: float) -> None:
    said = said_of(DEPTH, broken_after(25, lambda data: np.full_like(data, far_m)))
    assert (said[-1].fault, said[-1].against) == (Fault.INCONSISTENT_GEOMETRY, 1.0)


def test_traffic_that_hides_the_road_says_nothing() -> None:
    said = said_of(DEPTH, broken_after(25, lambda data: np.minimum(data, np.float32(2.0))))
    assert all(each.against < 0 for each in said)


def test_a_slope_that_begins_says_nothing() -> None:
    """A plane through what lies before it and behind it has another height."""

    def hill(points: NDArray) -> NDArray:
        rising = points.copy()
        rising[:, 2] += 0.12 * np.maximum(points[:, 0] - 5.0, 0.0)
        return rising

    assert all(each.against < 0 for each in said_of(LIDAR, broken_after(25, hill)))


def test_a_body_that_was_lifted_is_believed_when_odometry_fits_it() -> None:
    lifted = broken_after(25, lambda points: points - np.array([0, 0, 0.5, 0], np.float32))
    looks = 25 + 4 * LIFTED_NS // NS_PER_S + 40
    assert said_of(LIDAR, lifted, looks)[-1].against == 1.0
    assert said_of(LIDAR, lifted, looks, fits_odometry=True)[-1].against < 0


@pytest.mark.parametrize("fits_odometry", [True, False])
def test_the_road_confirms_a_scale_only_where_odometry_has(*, fits_odometry: bool) -> None:
    roads = Roads(OwnTurns())
    for number in range(20):
        view = view_of(image(lambda data, _number: data, number), RIG)
        fitting = [DEPTH] if fits_odometry and number < 12 else []
        list(roads.testimonies({DEPTH: view}, RIG, fitting, number * PERIOD_NS))
    assert roads.refutes(DEPTH, 0.7) == fits_odometry


@pytest.mark.parametrize(("multiple", "refuted"), [(0.13, True), (0.32, True), (0.59, False), (1.3, False)])
def test_a_scale_that_would_hang_the_sensor_above_all_vehicles_is_refuted(multiple: float, *, refuted: bool) -> None:
    """Before anything has fitted odometry: traffic all around moves along."""
    roads = Roads(OwnTurns())
    list(roads.testimonies({DEPTH: view_of(image(lambda data, _number: data, 0), RIG)}, RIG, [], 0))
    assert roads.refutes(DEPTH, multiple) == refuted
    assert not roads.refutes(LIDAR, multiple)


@pytest.mark.parametrize(("degrees", "changed"), [(2.0, 2.0), (-2.0, -2.0), (0.3, 0.0)])
def test_a_scan_that_was_turned_up_sees_the_road_fall_away(degrees: float, changed: float) -> None:
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))

    def turned_up(points: NDArray) -> NDArray:
        turned = points.copy()
        turned[:, 0] = cosine * points[:, 0] + sine * points[:, 2]
        turned[:, 2] = cosine * points[:, 2] - sine * points[:, 0]
        return turned

    turns = OwnTurns()
    said_of(LIDAR, broken_after(25, turned_up), turns=turns)
    assert turns.change(LIDAR, Turn.UP) == pytest.approx(changed, abs=0.2)
    assert turns.change(LIDAR, Turn.CLOCKWISE) == 0.0


def test_both_kinds_give_points_in_the_axes_of_the_camera() -> None:
    for frame in (image(lambda data, _number: data, 0), scan(lambda data, _number: data, 0)):
        view = view_of(frame, RIG)
        assert isinstance(view, (DepthView, LidarView))
        road = road_in(points_of(view, RIG))
        assert road is not None
        assert road.height_m == pytest.approx(HEIGHT_M, abs=0.05)


@pytest.mark.parametrize(
    ("name", "ahead", "mounted_m"), [("semantic_kitti", (0, 1), 1.73), ("nuscenes", (1, -1), 1.84)]
)
def test_the_road_of_recorded_scans_is_as_far_below_as_their_scanner_was_mounted(
    recorded_data: Path, name: str, ahead: tuple[int, int], mounted_m: float
) -> None:
    """By the data sets' papers: 1.73 m (KITTI, Geiger et al. 2013) and 1.84 m (nuScenes, Caesar et al. 2020)."""
    files = sorted((recorded_data / "street" / "lidar_range" / name).rglob("*.npz"))
    assert len(files) > 20
    column, sign = ahead  # which axis of the scan looks ahead, and how its other one looks to the left
    for file in files:
        xyz = np.load(file)["xyz_cm"].reshape(-1, 3).astype(np.float32) / 100
        xyz = xyz[np.abs(xyz).sum(axis=1) > 0]
        road = road_in(np.stack([-sign * xyz[:, 1 - column], -xyz[:, 2], xyz[:, column]]))
        assert road is not None, file
        assert road.height_m == pytest.approx(mounted_m, rel=0.06), file
        assert abs(road.up_deg) < 3.0, file


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, -1.0, 1e-30, 5.0, 1e9, np.inf, np.nan])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (120, 160)])
def test_an_image_of_anything_is_no_error(value: float, shape: tuple[int, int]) -> None:
    roads = Roads(OwnTurns())
    for number in range(16):
        data = image(lambda data, _number: data, number).data if number < 10 else np.full(shape, value, np.float32)
        view = view_of(SensorFrame(DEPTH, data, number * PERIOD_NS), RIG)
        list(roads.testimonies({DEPTH: view}, RIG, [DEPTH], number * PERIOD_NS))
        assert isinstance(roads.refutes(DEPTH, 0.5), bool)
