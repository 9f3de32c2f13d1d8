"""A sensor that is turned by degrees, or late by milliseconds, is named with the number."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from fitting_sensors import PERIOD_NS, RIG, Scene, at_stamp

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, Injector
from anyseg_core.runtime.cross_examination.alignment import Alignment, TurnSum
from anyseg_core.runtime.cross_examination.examiner import CrossExaminer
from anyseg_core.runtime.cross_examination.judge import TILT
from anyseg_core.runtime.cross_examination.judge import Testimony as Said
from anyseg_core.runtime.cross_examination.outlines import COLUMN_DEG, direction_grid, scan_outlines
from anyseg_core.runtime.cross_examination.own_turns import OwnTurns
from anyseg_core.runtime.cross_examination.views import view_of
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.health.thresholds import DEFAULT_CHECKS, Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

CAMERA, DEPTH, _, LIDAR = DEFAULT_SENSORS
SEERS = (CAMERA, DEPTH, LIDAR)
SCENE = Scene()
Change = Callable[[SensorFrame], SensorFrame]


def as_it_is(frame: SensorFrame) -> SensorFrame:
    return frame


def turned(degrees: float) -> Change:
    """Of a scan whose LiDAR was turned to the right: what it sees appears farther to the left."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))

    def change(frame: SensorFrame) -> SensorFrame:
        points = frame.data.copy()
        x, y = frame.data[:, 0], frame.data[:, 1]
        points[:, 0], points[:, 1] = cosine * x - sine * y, sine * x + cosine * y
        return SensorFrame(frame.modality, points, frame.stamp_ns)

    return change


def tilted(axis: str, degrees: float) -> Change:
    """Of a scan whose LiDAR was turned up, or rolled clockwise as seen from behind."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    one, other = (0, 2) if axis == "up" else (1, 2)

    def change(frame: SensorFrame) -> SensorFrame:
        points = frame.data.copy()
        points[:, one] = cosine * frame.data[:, one] + sine * frame.data[:, other]
        points[:, other] = cosine * frame.data[:, other] - sine * frame.data[:, one]
        return SensorFrame(frame.modality, points, frame.stamp_ns)

    return change


def stamped_later(ms: float) -> Change:
    return lambda frame: at_stamp(frame, frame.stamp_ns + round(ms * 1e6))


def moments(
    changed: Sensor, change: Change, *, speed: int, frames: int = 40, sensors: Iterable[Sensor] = SEERS
) -> list[dict[Sensor, SensorFrame]]:
    made = (SCENE.frames(number, speed) for number in range(frames))
    return [{s: change(frame[s]) if s == changed else frame[s] for s in sensors} for frame in made]


def said_last(
    frames: list[dict[Sensor, SensorFrame]],
    fault: Fault,
    pair: tuple[Sensor, Sensor] = (CAMERA, LIDAR),
    witness: str | None = None,
) -> Said | None:
    """What is said of the pair in the end, by that witness; None: by those of the side and of the lag."""
    alignment = Alignment(lambda _sensor, each: DEFAULT_CHECKS[each], OwnTurns())
    last: Said | None = None
    for number, moment in enumerate(frames):
        views = {sensor: view_of(frame, RIG) for sensor, frame in moment.items()}
        for said in alignment.testimonies(views, RIG, number * PERIOD_NS):
            is_asked = said.witness == witness if witness else said.witness != TILT
            last = said if said.fault is fault and said.sensors == pair and is_asked else last
    return last


@pytest.mark.parametrize("degrees", [2.0, -2.0, 1.5, 4.0])
@pytest.mark.parametrize("pair", [(CAMERA, LIDAR), (DEPTH, LIDAR)])
def test_the_angle_is_measured(degrees: float, pair: tuple[Sensor, Sensor]) -> None:
    said = said_last(moments(LIDAR, turned(degrees), speed=3), Fault.MISALIGNED, pair)
    assert said is not None
    assert said.against == 1.0
    assert said.value == pytest.approx(abs(degrees), abs=0.5)
    assert ("right" if degrees > 0 else "left") in said.text


@pytest.mark.parametrize("degrees", [0.0, 0.5])
def test_what_is_aligned_well_enough_is_vouched_for(degrees: float) -> None:
    said = said_last(moments(LIDAR, turned(degrees), speed=3), Fault.MISALIGNED)
    assert said is not None
    assert said.against == -1.0


@pytest.mark.parametrize(
    ("axis", "degrees", "how"),
    [
        ("up", 2.0, "turned up"),
        ("up", -2.0, "turned down"),
        ("roll", 2.5, "rolled clockwise"),
        ("roll", -2.5, "rolled counterclockwise"),
    ],
)
@pytest.mark.parametrize("seer", [CAMERA, DEPTH])
def test_a_tilt_is_named_with_its_axis_and_angle(seer: Sensor, axis: str, degrees: float, how: str) -> None:
    frames = moments(LIDAR, tilted(axis, degrees), speed=3, frames=60, sensors=(seer, LIDAR))
    said = said_last(frames, Fault.MISALIGNED, (seer, LIDAR), TILT)
    assert said is not None
    assert said.against == 1.0
    assert said.value == pytest.approx(abs(degrees), abs=0.5)
    assert how in said.text


@pytest.mark.parametrize("axis", ["up", "roll"])
def test_what_is_hardly_tilted_is_vouched_for(axis: str) -> None:
    frames = moments(LIDAR, tilted(axis, 0.3), speed=3, frames=60, sensors=(CAMERA, LIDAR))
    said = said_last(frames, Fault.MISALIGNED, (CAMERA, LIDAR), TILT)
    assert said is not None
    assert said.against == -1.0


def test_the_same_view_again_is_no_evidence_of_an_angle() -> None:
    assert said_last(moments(LIDAR, turned(2.0), speed=0), Fault.MISALIGNED) is None


@pytest.mark.parametrize("late", SEERS)
@pytest.mark.parametrize("ms", [80.0, 130.0])
def test_the_lag_is_measured_from_the_stamps(late: Sensor, ms: float) -> None:
    pair = (CAMERA, DEPTH) if late is DEPTH else (CAMERA, LIDAR)
    said = said_last(moments(late, stamped_later(ms), speed=3), Fault.TIME_OFFSET, pair)
    assert said is not None
    assert said.against == 1.0
    assert said.value == pytest.approx(ms, abs=20)
    assert said.suspect is late


def test_where_nothing_moves_no_lag_is_seen() -> None:
    assert said_last(moments(CAMERA, stamped_later(80), speed=0), Fault.TIME_OFFSET) is None


def test_the_one_that_is_turned_against_both_others_is_blamed() -> None:
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault])
    for number, moment in enumerate(moments(LIDAR, turned(2.0), speed=3, frames=60)):
        examiner.examine(moment, RIG, None, number * PERIOD_NS)
    assert {s: (d.fault, d.is_blamed) for s, d in examiner.disputes.items()} == {LIDAR: (Fault.MISALIGNED, True)}


@pytest.mark.parametrize("degrees", [2.0, -2.0])
def test_the_injection_of_a_bent_bracket_is_found_as_the_catalogue_says(degrees: float) -> None:
    entry = {
        "modality": "lidar",
        "kind": "lidar_pitch",
        "start_s": 0,
        "duration_s": 60,
        "parameters": {"angle_deg": degrees},
    }
    injector = Injector(InjectionSchedule.parse({"injections": [entry]}))
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault])
    for number, moment in enumerate(moments(LIDAR, as_it_is, speed=3, frames=60, sensors=(CAMERA, LIDAR))):
        sent = {sensor: injector.apply(frame, number / 10)[0] for sensor, frame in moment.items()}
        examiner.examine(sent, RIG, None, number * PERIOD_NS)
    assert INJECTION_KINDS["lidar_pitch"].expected == (Fault.MISALIGNED,)
    assert {dispute.fault for dispute in examiner.disputes.values()} == {Fault.MISALIGNED}


def test_sensors_that_see_nothing_are_not_compared() -> None:
    grid = direction_grid(RIG.camera)
    assert grid is not None
    nothing = scan_outlines(np.zeros((3, 0), np.float32), grid)
    assert not nothing.any()
    turns = TurnSum()
    for number in range(60):
        turns.learn(nothing, nothing, number * PERIOD_NS)
    assert turns.offset() is None


def test_the_grid_is_of_equal_angles_and_none_of_a_view_that_is_too_wide() -> None:
    grid = direction_grid(RIG.camera)
    assert grid is not None
    assert grid.shape[1] == pytest.approx(90 / COLUMN_DEG, abs=1)
    assert direction_grid(PinholeCamera(10, 10_000_000, 0.001, 0.001, 5, 5_000_000)) is not None
    assert direction_grid(PinholeCamera(10, 10, 1e6, 1e6, 5, 5)) is None


def test_another_calibration_begins_anew() -> None:
    alignment = Alignment(lambda _sensor, each: DEFAULT_CHECKS[each], OwnTurns())
    moved = RIG.camera_from_lidar.copy()
    moved[0, 3] += 0.5
    other = Rig(RIG.camera, moved)
    said: list[Said] = []
    for number, moment in enumerate(moments(LIDAR, turned(2.0), speed=3)):
        rig = RIG if number < 30 else other
        views = {sensor: view_of(frame, rig) for sensor, frame in moment.items()}
        said = list(alignment.testimonies(views, rig, number * PERIOD_NS))
    assert not said
