"""What stands comes nearer by as much as odometry says, or the sensor does not move, or is of another scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.examiner import CrossExaminer
from anyseg_core.runtime.cross_examination.heading import turned_right
from anyseg_core.runtime.cross_examination.judge import DRIVEN_SCALE
from anyseg_core.runtime.cross_examination.nearing import Nearing
from anyseg_core.runtime.cross_examination.own_turns import OwnTurns
from anyseg_core.runtime.cross_examination.panorama import Place, panorama
from anyseg_core.runtime.cross_examination.views import view_of
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, Twist
from anyseg_core.runtime.health.state import Dispute
from anyseg_core.runtime.health.thresholds import DEFAULT_CHECKS, Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S

_, DEPTH, _, LIDAR = DEFAULT_SENSORS
PERIOD_S = 0.1
OPTICAL_FROM_BODY = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
CAMERA = PinholeCamera(96, 48, 48, 48, 47.5, 23.5)
RIG = Rig(CAMERA, OPTICAL_FROM_BODY)
SPEED_MPS = 4.0
Poses = Sequence[tuple[float, float, float]]
Change = Callable[[NDArray, int], NDArray]


@lru_cache(maxsize=1)
def posts() -> NDArray[np.float64]:
    """Round pillars beside a street, [N, 3]: x, y, radius."""
    rng = np.random.default_rng(0)
    side = rng.choice([-1, 1], 160)
    return np.stack([rng.uniform(-40, 100, 160), side * rng.uniform(3.5, 14, 160), rng.uniform(0.3, 1.5, 160)], axis=1)


def ranges(pose: tuple[float, float, float], azimuths: NDArray) -> NDArray[np.float64]:
    """Distance over the ground to the first pillar at each azimuth to the left; not finite where there is none."""
    x, y, yaw = pose
    ray = np.stack([np.cos(azimuths + yaw), np.sin(azimuths + yaw)], axis=1)  # [A, 2]
    place = posts()[:, :2] - [x, y]
    along = ray @ place.T
    beside = np.abs(ray[:, :1] * place[None, :, 1] - ray[:, 1:] * place[None, :, 0])
    reach = posts()[:, 2] ** 2 - beside**2
    hit = np.where((reach > 0) & (along > 0), along - np.sqrt(np.maximum(reach, 0)), np.inf)
    return hit.min(axis=1)


def scan(pose: tuple[float, float, float], rng: np.random.Generator) -> NDArray[np.float32]:
    azimuth = np.deg2rad(np.arange(-180, 180, 0.5) + 0.1)
    flat = ranges(pose, azimuth)
    seen = np.isfinite(flat)
    flat, azimuth = flat[seen] + rng.normal(0, 0.02, seen.sum()), azimuth[seen]
    rows = [
        np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), flat * slope, 0 * flat + 9], axis=1)
        for slope in (0.0, 0.1, 0.2)
    ]
    return np.vstack(rows).astype(np.float32)


def image(pose: tuple[float, float, float], rng: np.random.Generator) -> NDArray[np.float32]:
    right = (np.arange(CAMERA.width) - CAMERA.cx) / CAMERA.fx
    depth = ranges(pose, -np.arctan(right)) / np.sqrt(1 + right**2)
    depth = np.where(np.isfinite(depth), depth, 0.0)
    noise = 1 + 0.01 * rng.standard_normal((CAMERA.height, CAMERA.width))
    return (depth[None] * noise).astype(np.float32)


def straight(seconds: float, speed_mps: float = SPEED_MPS) -> Poses:
    return [(speed_mps * PERIOD_S * number, 0.0, 0.0) for number in range(round(seconds / PERIOD_S))]


def circle(seconds: float, turn_rate: float) -> Poses:
    poses = [(0.0, 0.0, 0.0)]
    for _ in range(round(seconds / PERIOD_S) - 1):
        x, y, yaw = poses[-1]
        middle = yaw + 0.5 * turn_rate * PERIOD_S
        step = SPEED_MPS * PERIOD_S
        poses.append((x + step * np.cos(middle), y + step * np.sin(middle), yaw + turn_rate * PERIOD_S))
    return poses


def unchanged(data: NDArray, _number: int) -> NDArray:
    return data


def scaled(factor: float) -> Change:
    return lambda data, _number: (data * np.float32(factor)).astype(np.float32)


def driven(
    poses: Poses,
    change: dict[Sensor, Change],
    speed_mps: float | None = SPEED_MPS,
    turn_rate: float = 0.0,
    frozen_from: dict[Sensor, int] | None = None,
) -> dict[Sensor, Dispute]:
    """The disputes in the end, of the sensors that `change` names."""
    examiner, rng = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault]), np.random.default_rng(1)
    twist = None if speed_mps is None else Twist(np.array([speed_mps, 0, 0]), np.array([0, 0, turn_rate]))
    for number in range(len(poses)):
        frames, stamp_ns = {}, NS_PER_S + round(number * PERIOD_S * NS_PER_S)
        for sensor, changed in change.items():
            pose = poses[min(number, (frozen_from or {}).get(sensor, number))]
            data = (scan if sensor == LIDAR else image)(pose, rng)
            frames[sensor] = SensorFrame(sensor, changed(data, number), stamp_ns)
        examiner.examine(frames, RIG, twist, stamp_ns)
    return dict(examiner.disputes)


BOTH: dict[Sensor, Change] = {DEPTH: unchanged, LIDAR: unchanged}
EACH = pytest.mark.parametrize("sensor", [DEPTH, LIDAR])


@pytest.mark.parametrize("sensors", [(DEPTH,), (LIDAR,), (DEPTH, LIDAR)])
@pytest.mark.parametrize("turn_rate", [0.0, 0.25, -0.25])
def test_what_comes_nearer_as_it_should_is_not_in_dispute(sensors: tuple[Sensor, ...], turn_rate: float) -> None:
    poses = circle(7, turn_rate) if turn_rate else straight(7)
    assert not driven(poses, dict.fromkeys(sensors, unchanged), turn_rate=turn_rate)


@EACH
@pytest.mark.parametrize("factor", [1.3, 0.75])
def test_a_wrong_scale_is_named_without_another_sensor_but_odometry_may_be_wrong(sensor: Sensor, factor: float) -> None:
    dispute = driven(straight(7), {sensor: scaled(factor)})[sensor]
    assert dispute.fault is Fault.WRONG_SCALE
    assert dispute.value == pytest.approx(factor, rel=0.1)
    assert not dispute.is_blamed


@EACH
def test_of_two_that_disagree_from_the_start_odometry_tells_which_is_wrong(sensor: Sensor) -> None:
    disputes = driven(straight(7), {**BOTH, sensor: scaled(1.3)})
    assert {(s, d.fault, d.is_blamed) for s, d in disputes.items()} == {(sensor, Fault.WRONG_SCALE, True)}


@EACH
@pytest.mark.parametrize("is_confirmed", [False, True])
def test_one_whose_distances_another_measures_alike_is_of_no_other_scale(sensor: Sensor, *, is_confirmed: bool) -> None:
    """Traffic that moves along looks like another scale to odometry alone."""
    nearing, rng = Nearing(OwnTurns()), np.random.default_rng(1)
    twist, scales = Twist(np.array([SPEED_MPS, 0, 0]), np.zeros(3)), list[float]()
    for number, pose in enumerate(straight(5)):
        data = scaled(0.75)((scan if sensor == LIDAR else image)(pose, rng), number)
        view = view_of(SensorFrame(sensor, data, NS_PER_S + round(number * PERIOD_S * NS_PER_S)), RIG)
        said = nearing.testimonies({sensor: view}, RIG, twist, lambda _sensor, _multiple: is_confirmed)
        scales += [each.against for each in said if each.witness == DRIVEN_SCALE]
    assert scales
    assert all(against < 0 for against in scales) == is_confirmed


@EACH
def test_a_frozen_one_is_named_on_its_own_on_a_slow_road_too(sensor: Sensor) -> None:
    disputes = driven(straight(9, 1.5), {sensor: unchanged}, 1.5, frozen_from={sensor: 40})
    assert {(s, d.fault, d.is_blamed) for s, d in disputes.items()} == {(sensor, Fault.NOT_MOVING, True)}


@pytest.mark.parametrize("speed_mps", [1.4 * SPEED_MPS, 0.7 * SPEED_MPS, 3.6 * SPEED_MPS])
def test_odometry_that_is_wrong_is_no_fault_of_two_that_agree(speed_mps: float) -> None:
    assert not any(dispute.is_blamed for dispute in driven(straight(7), BOTH, speed_mps).values())


def test_odometry_that_moves_a_vehicle_that_stands_is_no_fault_of_two_that_agree() -> None:
    assert not driven([(0.0, 0.0, 0.0)] * 60, BOTH)


@pytest.mark.parametrize("speed_mps", [0.0, None])
def test_without_motion_by_odometry_nothing_is_said(speed_mps: float | None) -> None:
    assert not driven(straight(6), BOTH, speed_mps)


@pytest.mark.parametrize("degrees", [2.0, -2.0, 0.0])
@pytest.mark.parametrize("turn_rate", [0.0, 0.25])
def test_a_scan_that_was_turned_on_its_mount_is_measured(degrees: float, turn_rate: float) -> None:
    rng, (pose, later) = np.random.default_rng(1), (circle(7, turn_rate) if turn_rate else straight(7))[20:29:8]
    new = scan(later, rng)
    turn = np.deg2rad(degrees)  # what a sensor sees that is turned to the right appears farther to the left
    x, y = new[:, 0].copy(), new[:, 1].copy()
    new[:, 0], new[:, 1] = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    old, now = (panorama(view_of(SensorFrame(LIDAR, data, 0), RIG), RIG) for data in (scan(pose, rng), new))  # type: ignore[arg-type]
    assert old is not None
    assert now is not None
    moved = Place(8 * PERIOD_S * SPEED_MPS, later[2] - pose[2])
    assert turned_right(old, now, Place(), moved) == pytest.approx(degrees, abs=0.5)


def test_a_narrow_view_does_not_tell_whether_it_was_turned() -> None:
    view = view_of(SensorFrame(DEPTH, image((0.0, 0.0, 0.0), np.random.default_rng(1)), 0), RIG)
    seen = panorama(view, RIG)  # type: ignore[arg-type]
    assert seen is not None
    assert turned_right(seen, seen, Place(), Place()) is None


def wrong_way_round(data: NDArray, _number: int) -> NDArray:
    return data * np.array([-1, -1, 1, 1], np.float32)


def test_a_scanner_mounted_the_wrong_way_round_is_known_by_where_things_pass_to() -> None:
    dispute = driven(straight(7), {LIDAR: wrong_way_round})[LIDAR]
    assert (dispute.fault, dispute.value, dispute.is_blamed) == (Fault.MISALIGNED, pytest.approx(180.0), False)


def test_beside_one_that_fits_odometry_it_is_to_blame() -> None:
    disputes = driven(straight(7), {**BOTH, LIDAR: wrong_way_round})
    assert {s for s, d in disputes.items() if d.is_blamed} == {LIDAR}


def test_one_that_turns_round_on_the_way_is_found_and_comes_back() -> None:
    def for_a_while(data: NDArray, number: int) -> NDArray:
        return wrong_way_round(data, number) if 40 <= number < 70 else data

    halfway = driven(straight(6.9), {LIDAR: for_a_while})
    assert {(s, d.fault) for s, d in halfway.items()} == {(LIDAR, Fault.MISALIGNED)}
    assert not driven(straight(13), {LIDAR: for_a_while})
