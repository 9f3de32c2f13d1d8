"""A sensor that is alive and wrong is found by the others, and nobody else is blamed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from fitting_sensors import HEIGHT, PERIOD_NS, RIG, START_NS, WIDTH, Scene, at_stamp, driving

from anyseg_core.injection import InjectionSchedule, Injector
from anyseg_core.runtime.cross_examination.examiner import ROUND, WHOLE, CrossExaminer
from anyseg_core.runtime.cross_examination.judge import JUMPED, Judge
from anyseg_core.runtime.cross_examination.judge import Testimony as Said
from anyseg_core.runtime.cross_examination.memory import Memory
from anyseg_core.runtime.cross_examination.policy import CrossExaminationConfig, left_out
from anyseg_core.runtime.cross_examination.views import GRID, CameraView, DepthView, LidarView
from anyseg_core.runtime.cross_examination.witnesses import changes_between, comparable, range_agreement
from anyseg_core.runtime.health.state import Dispute
from anyseg_core.runtime.health.thresholds import DEFAULT_CHECKS, Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS
BROKEN_FROM, BROKEN_TO, LAST = 32, 62, 92
WITHIN = 30
"""Frames, 3 s."""
SCENE = Scene()
CLEAN = [SCENE.frames(number) for number in range(LAST)]

Moments = Iterator[tuple[int, Mapping[Sensor, Dispute]]]


def examined(
    hazard: tuple[Sensor, str] | None = None,
    sensors: Sequence[Sensor] = DEFAULT_SENSORS,
    speed_mps: float | None = 8.0,
    frames: Sequence[Mapping[Sensor, SensorFrame]] = CLEAN,
    first: int = BROKEN_FROM,
) -> Moments:
    """The number of each moment and the disputes after it."""
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault])
    entries = []
    if hazard is not None:
        duration_s = (BROKEN_TO - first) / 10
        entries = [
            {"modality": str(hazard[0]), "kind": hazard[1], "start_s": first / 10, "duration_s": duration_s},
        ]
    injector = Injector(InjectionSchedule.parse({"injections": entries}))
    for number, moment in enumerate(frames):
        sent = {sensor: injector.apply(moment[sensor], number / 10 + 1e-6) for sensor in sensors}
        arrived = {sensor: each[0] for sensor, each in sent.items() if each}
        examiner.examine(arrived, RIG, driving(speed_mps), START_NS + number * PERIOD_NS)
        yield number, examiner.disputes


GEOMETRY, CONTENT = {Fault.INCONSISTENT_GEOMETRY}, {Fault.INCONSISTENT_CONTENT}
HAZARDS = [
    (CAMERA, "mirror", GEOMETRY | CONTENT),
    (CAMERA, "swap_channels", CONTENT),
    (CAMERA, "lost_color", CONTENT),
    (CAMERA, "old_content", CONTENT | {Fault.TIME_OFFSET}),
    (CAMERA, "torn", {Fault.NOT_MOVING}),
    (CAMERA, "freeze_noise", {Fault.NOT_MOVING}),
    (CAMERA, "freeze_alternating", {Fault.NOT_MOVING}),
    (DEPTH, "depth_scale", {Fault.WRONG_SCALE}),
    (DEPTH, "depth_constant", GEOMETRY),
    (DEPTH, "depth_levels", GEOMETRY),
    (LIDAR, "lidar_constant_range", GEOMETRY),
    (LIDAR, "lidar_yaw", GEOMETRY),
    (LIDAR, "lidar_intensity", {Fault.WRONG_SCALE}),
    (LIDAR, "freeze_noise", {Fault.NOT_MOVING} | GEOMETRY),
    (LIDAR, "freeze_alternating", {Fault.NOT_MOVING} | GEOMETRY),
    (DEPTH, "freeze_alternating", {Fault.NOT_MOVING} | GEOMETRY),
    (EVENT, "event_polarity", CONTENT),
    (EVENT, "no_events", {Fault.NOT_MOVING}),
    (EVENT, "old_content", {Fault.TIME_OFFSET}),
]


@pytest.mark.parametrize(("sensor", "kind", "faults"), HAZARDS, ids=[f"{sensor}-{kind}" for sensor, kind, _ in HAZARDS])
def test_a_wrong_sensor_is_named_soon_and_no_other_is_and_it_comes_back(
    sensor: Sensor, kind: str, faults: set[Fault]
) -> None:
    found: int | None = None
    disputes: Mapping[Sensor, Dispute] = {}
    for number, disputes in examined((sensor, kind)):
        blamed = {s for s, dispute in disputes.items() if dispute.is_blamed}
        assert blamed <= {sensor}, (number, disputes)
        if blamed and found is None:
            found = number
            assert disputes[sensor].fault in faults
            assert disputes[sensor].reason
    assert found is not None
    assert BROKEN_FROM < found <= BROKEN_FROM + WITHIN
    assert not disputes


@pytest.mark.parametrize("speed_mps", [8.0, None])
@pytest.mark.parametrize("sensors", [DEFAULT_SENSORS, (CAMERA, LIDAR), (DEPTH, LIDAR), (CAMERA, EVENT)])
def test_sensors_that_fit_are_not_in_dispute(sensors: tuple[Sensor, ...], speed_mps: float | None) -> None:
    assert not any(disputes for _, disputes in examined(sensors=sensors, speed_mps=speed_mps))


@pytest.mark.parametrize("speed_mps", [0.0, None])
def test_where_nothing_moves_nothing_is_called_frozen(speed_mps: float | None) -> None:
    still = [SCENE.frames(number, speed=0) for number in range(35)]
    assert not any(disputes for _, disputes in examined(speed_mps=speed_mps, frames=still))


@pytest.mark.parametrize("kind", ["mirror", "upside_down"])
def test_a_picture_whose_outlines_fit_a_scan_poorly_is_found_when_it_turns(kind: str) -> None:
    noisy = [{**moment, CAMERA: _noisier(moment[CAMERA], levels=25)} for moment in CLEAN[:BROKEN_TO]]
    assert not any(disputes for _, disputes in examined(sensors=(CAMERA, LIDAR), frames=noisy))
    found = {s for _, disputes in examined((CAMERA, kind), (CAMERA, LIDAR), frames=noisy) for s in disputes}
    assert CAMERA in found


def test_without_odometry_two_sensors_that_move_tell_that_the_third_is_frozen() -> None:
    moments = list(examined((CAMERA, "freeze_noise"), speed_mps=None))
    assert moments[BROKEN_TO - 1][1][CAMERA].fault is Fault.NOT_MOVING


def test_two_that_disagree_from_the_start_are_both_in_dispute_and_nobody_is_blamed() -> None:
    *_, (_, disputes) = ((n, d) for n, d in examined((DEPTH, "depth_scale"), (DEPTH, LIDAR), first=0) if n < BROKEN_TO)
    assert set(disputes) == {DEPTH, LIDAR}
    assert not any(dispute.is_blamed for dispute in disputes.values())
    assert disputes[DEPTH].partner == LIDAR
    assert disputes[DEPTH].confidence == 0.5
    assert disputes[DEPTH].value == pytest.approx(1.3, rel=0.02)


def test_a_late_camera_is_told_by_how_much() -> None:
    moments = list(examined((CAMERA, "old_content")))
    dispute = moments[BROKEN_TO - 1][1][CAMERA]
    assert (dispute.fault, dispute.unit) == (Fault.TIME_OFFSET, "ms")
    assert dispute.value == pytest.approx(1000, abs=100)


def test_a_dispute_ends_when_the_partner_is_gone() -> None:
    wrong = [{**moment, DEPTH: _scaled(moment[DEPTH])} if n > 20 else moment for n, moment in enumerate(CLEAN)]
    frames = [moment if n < 36 else {CAMERA: moment[CAMERA], DEPTH: moment[DEPTH]} for n, moment in enumerate(wrong)]
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault])
    seen = []
    for number, moment in enumerate(frames):
        examiner.examine(moment, RIG, None, START_NS + number * PERIOD_NS)
        seen.append(set(examiner.disputes))
    assert seen[35] == {DEPTH}
    assert not seen[-1]


def test_a_frame_that_was_seen_before_says_nothing_again() -> None:
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault])
    for number in range(20):
        examiner.examine(CLEAN[0], RIG, driving(8.0), START_NS + number * PERIOD_NS)
    assert not examiner.disputes


def test_points_without_a_rig_are_compared_with_nothing() -> None:
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault])
    for number, moment in enumerate(CLEAN[:40]):
        examiner.examine({**moment, DEPTH: _scaled(moment[DEPTH])}, None, driving(8.0), START_NS + number * PERIOD_NS)
    assert not examiner.disputes


def test_a_clock_that_jumps_back_is_no_dispute() -> None:
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault])
    for number in [*range(30), *range(30)]:
        moment = {s: at_stamp(frame, START_NS + number * PERIOD_NS) for s, frame in CLEAN[number].items()}
        examiner.examine(moment, RIG, driving(8.0), START_NS + number * PERIOD_NS)
        assert not examiner.disputes


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (33, 47)])
def test_frames_of_any_size_are_looked_at(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    examiner = CrossExaminer(lambda _sensor, fault: DEFAULT_CHECKS[fault])
    for number in range(20):
        stamp = START_NS + number * PERIOD_NS
        data = {
            CAMERA: rng.integers(0, 255, (*shape, 3), np.uint8),
            DEPTH: np.full(shape, np.nan, np.float32),
            EVENT: np.zeros((*shape, 2), np.uint8),
            LIDAR: np.full((3, 4), np.nan, np.float32),
        }
        examiner.examine({s: SensorFrame(s, each, stamp) for s, each in data.items()}, RIG, None, stamp)
    assert not examiner.disputes


def test_range_agreement_is_what_was_measured() -> None:
    depth, lidar = CLEAN[0][DEPTH], LidarView(CLEAN[0][LIDAR], RIG)
    right = range_agreement(DepthView(depth), lidar)
    assert right is not None
    assert right.same > 0.95
    assert right.ratio == pytest.approx(1, abs=0.01)
    wrong = range_agreement(DepthView(_scaled(depth)), lidar)
    assert wrong is not None
    assert wrong.same < 0.1
    assert wrong.same_scaled > 0.95
    nothing = SensorFrame(DEPTH, np.zeros((HEIGHT, WIDTH), np.float32), 0)
    assert range_agreement(DepthView(nothing), lidar) is None


def test_between_two_whole_looks_of_a_round_lies_any_number_of_looks() -> None:
    assert {(later - earlier) % ROUND for later in WHOLE for earlier in WHOLE} == set(range(ROUND))


def test_change_is_what_is_missing_to_the_correlation_of_cells_that_both_know() -> None:
    rng = np.random.default_rng(0)
    then, now = (rng.normal(3, 1, GRID).astype(np.float32) for _ in range(2))
    now += then
    then[:5], now[40:] = 0, 0
    expected = [1 - np.corrcoef(then[rows].ravel(), now[rows].ravel())[0, 1] for rows in (slice(5, 40), slice(24, 40))]
    assert changes_between(comparable(then), comparable(now)) == pytest.approx(expected, abs=1e-6)
    assert changes_between(comparable(then), comparable(np.where(then == 0, 0, then + 1))) == pytest.approx(
        (0, 0), abs=1e-9
    )
    now[3:] = 0
    assert changes_between(comparable(then), comparable(now)) is None


def noisy_grids(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Of a view that changes so much from look to look that nothing is a multiple of it."""
    rng = np.random.default_rng(0)
    scenery = rng.normal(3, 1, shape)
    return [(scenery + rng.normal(0, 0.6, shape)).astype(np.float32) for _ in range(12)]


@pytest.mark.parametrize(
    ("shape", "change", "jumped"),
    [
        (GRID, np.asarray, False),
        (GRID, np.fliplr, True),
        (GRID, lambda grid: np.rot90(grid, 2), True),
        ((180,), np.asarray, False),
        ((180,), lambda sectors: np.roll(sectors, 90), True),
        ((180,), lambda sectors: sectors[::-1], True),
    ],
)
def test_a_view_that_is_mirrored_or_turned_by_half_jumps_however_much_it_changes(
    shape: tuple[int, ...], change: Callable[[np.ndarray], np.ndarray], jumped: bool
) -> None:
    memory = Memory()
    for number, grid in enumerate(noisy_grids(shape)):
        levels = change(grid) if number == 11 else grid
        frame = SensorFrame(CAMERA, np.zeros((1, 1, 3), np.uint8), number * PERIOD_NS)
        memory.see({CAMERA: cast("CameraView", SimpleNamespace(frame=frame, levels=levels))})
        memory.measure_steps(number * 4 * PERIOD_NS)
    assert (memory.jump(CAMERA, 44 * PERIOD_NS) > JUMPED) is jumped


# ----------------------------------------------------------------------------------------------------- judge, policy


def say(sensors: tuple[Sensor, ...], against: float) -> Said:
    return Said("edges", Fault.INCONSISTENT_GEOMETRY, sensors, against, 0.0, "", "as they say")


def judged(
    *said: Said, jumps: Mapping[Sensor, float] | None = None, doubted: Sequence[Sensor] = (), looks: int = 20
) -> Mapping[Sensor, Dispute]:
    judge = Judge(lambda _sensor, fault: DEFAULT_CHECKS[fault], lambda sensor, _at: (jumps or {}).get(sensor, 1.0))
    for number in range(looks):
        judge.hear(said, DEFAULT_SENSORS, number * PERIOD_NS, doubted)
    return judge.disputes


def test_of_three_the_one_that_disagrees_with_the_others_is_blamed() -> None:
    disputes = judged(say((CAMERA, DEPTH), 1.0), say((CAMERA, LIDAR), 1.0), say((DEPTH, LIDAR), -1.0))
    assert [(s, d.is_blamed) for s, d in disputes.items()] == [(CAMERA, True)]
    assert disputes[CAMERA].confidence > 0.8


def test_one_that_another_vouches_for_is_not_blamed() -> None:
    assert list(judged(say((CAMERA, DEPTH), 1.0), say((DEPTH, LIDAR), -1.0))) == [CAMERA]


def test_of_two_the_one_whose_view_has_jumped_is_blamed() -> None:
    disputes = judged(say((DEPTH, LIDAR), 1.0), jumps={LIDAR: 20.0})
    assert [(s, d.is_blamed) for s, d in disputes.items()] == [(LIDAR, True)]


@pytest.mark.parametrize(("jump", "is_blamed"), [(1.0, False), (20.0, True)])
def test_one_that_contradicts_odometry_is_blamed_where_its_view_jumped(jump: float, *, is_blamed: bool) -> None:
    said = say((LIDAR,), 1.0)._replace(confidence=0.5)
    assert [(s, d.is_blamed) for s, d in judged(said, jumps={LIDAR: jump}).items()] == [(LIDAR, is_blamed)]


def test_of_two_that_are_turned_the_suspect_is_blamed() -> None:
    said = say((CAMERA, LIDAR), 1.0)._replace(witness="alignment", suspect=LIDAR)
    assert [(s, d.is_blamed) for s, d in judged(said).items()] == [(LIDAR, True)]


@pytest.mark.parametrize(
    ("jumps", "blamed"),
    [
        ({DEPTH: 11.0, CAMERA: 3.0}, set()),  # something passes near, in front of both
        ({DEPTH: 11.0, CAMERA: 2.0}, {DEPTH}),
        ({DEPTH: 5.0, EVENT: 2.0}, set()),
        ({LIDAR: 11.0, CAMERA: 3.0}, {LIDAR}),  # which looks all around
    ],
)
def test_a_jump_that_a_third_sensor_saw_too_blames_nobody(jumps: Mapping[Sensor, float], blamed: set[Sensor]) -> None:
    disputes = judged(say((DEPTH, LIDAR), 1.0), jumps=jumps)
    assert set(disputes) == (blamed or {DEPTH, LIDAR})
    assert {s for s, d in disputes.items() if d.is_blamed} == blamed


@pytest.mark.parametrize("witness", ["edges", "alignment"])
def test_who_has_not_spoken_since_or_sums_up_many_seconds_vouches_for_nobody(witness: str) -> None:
    judge = Judge(lambda _sensor, fault: DEFAULT_CHECKS[fault], lambda _sensor, _at: 1.0)
    vouching = say((CAMERA, LIDAR), -1.0)._replace(witness=witness)
    for number in range(40):
        said = [say((DEPTH, LIDAR), -1.0 if number < 20 else 1.0)]
        judge.hear([vouching, *said] if number < 20 or witness == "alignment" else said, DEFAULT_SENSORS, number)
    assert [(s, d.is_blamed) for s, d in judge.disputes.items()] == [(DEPTH, False), (LIDAR, False)]


@pytest.mark.parametrize(("witness", "silent"), [("edges", "alignment"), ("tilt", "alignment"), ("tilt", "edges")])
def test_who_vouches_for_one_of_two_is_heard_beside_who_cannot(witness: str, silent: str) -> None:
    said = [
        say((DEPTH, LIDAR), 1.0)._replace(witness=witness),
        say((CAMERA, DEPTH), -1.0)._replace(witness=witness),
        *(say((CAMERA, other), -1.0)._replace(witness=silent) for other in (DEPTH, LIDAR)),
    ]
    assert [(s, d.is_blamed) for s, d in judged(*said).items()] == [(LIDAR, True)]


@pytest.mark.parametrize(
    ("vouching", "accusing"), [("edges", "ranges"), ("alignment", "tilt"), ("lag", "events"), ("alignment", "edges")]
)
def test_who_does_not_see_the_kind_of_fault_vouches_for_nobody(vouching: str, accusing: str) -> None:
    said = [
        say((DEPTH, LIDAR), 1.0)._replace(witness=accusing),
        say((CAMERA, DEPTH), -1.0)._replace(witness=vouching),
    ]
    assert [(s, d.is_blamed) for s, d in judged(*said).items()] == [(DEPTH, False), (LIDAR, False)]


def test_one_that_its_own_checks_distrusted_is_blamed_and_on_half_the_evidence() -> None:
    said = say((DEPTH, LIDAR), 1.0)
    assert not judged(said, looks=5)
    assert [(s, d.is_blamed) for s, d in judged(said, looks=5, doubted=[LIDAR]).items()] == [(LIDAR, True)]
    assert not judged(say((DEPTH, LIDAR), -1.0), doubted=[LIDAR])


def test_one_look_decides_nothing() -> None:
    judge = Judge(lambda _sensor, fault: DEFAULT_CHECKS[fault], lambda _sensor, _at: 1.0)
    for number in range(100):
        judge.hear([say((DEPTH, LIDAR), 1.0 if number % 3 == 0 else -1.0)], DEFAULT_SENSORS, number * PERIOD_NS)
    assert not judge.disputes


@pytest.mark.parametrize(
    ("looks", "suspected"), [(0, set()), (2, set()), (4, {(CAMERA, LIDAR)}), (9, {(CAMERA, LIDAR)})]
)
def test_a_pair_that_is_near_to_a_suspicion_is_suspected_so_that_what_is_usual_stays(
    looks: int, suspected: set[tuple[Sensor, ...]]
) -> None:
    judge = Judge(lambda _sensor, fault: DEFAULT_CHECKS[fault], lambda _sensor, _at: 1.0)
    for number in range(looks):
        judge.hear([say((CAMERA, LIDAR), 1.0), say((DEPTH,), 1.0)], DEFAULT_SENSORS, number * PERIOD_NS)
    assert judge.suspected_pairs() == suspected


def dispute(partner: Sensor | None, *, is_blamed: bool) -> Dispute:
    return Dispute(Fault.WRONG_SCALE, "", 1.3, "x", partner, 0.5, is_blamed)


BLAMED = {CAMERA: dispute(DEPTH, is_blamed=True)}
BOTH = {DEPTH: dispute(LIDAR, is_blamed=False), LIDAR: dispute(DEPTH, is_blamed=False)}


@pytest.mark.parametrize(
    ("disputes", "alive", "config", "out"),
    [
        (BLAMED, (CAMERA, DEPTH), {}, {CAMERA}),
        (BLAMED, (CAMERA,), {}, set()),
        (BLAMED, (CAMERA, DEPTH), {"leave_out": False}, set()),
        (BOTH, (DEPTH, LIDAR), {}, {DEPTH}),
        (BOTH, (DEPTH, LIDAR), {"trust_order": (DEPTH,)}, {LIDAR}),
        (BOTH, (DEPTH, LIDAR), {"undecided": "keep_both"}, set()),
        (BOTH, (DEPTH, LIDAR), {"undecided": "keep_neither"}, {DEPTH, LIDAR}),
        (BOTH, (CAMERA, DEPTH), {}, set()),
    ],
)
def test_the_policy_decides_who_is_left_out(
    disputes: Mapping[Sensor, Dispute], alive: tuple[Sensor, ...], config: dict[str, object], out: set[Sensor]
) -> None:
    policy = CrossExaminationConfig(**{"leave_out": True, **config})  # type: ignore[arg-type]
    assert set(left_out(disputes, alive, policy)) == out


@pytest.mark.parametrize(
    ("config", "named"),
    [({"undecided": "coin"}, "undecided"), ({"rate_hz": 0.0}, "rate_hz"), ({"trust_order": (CAMERA, CAMERA)}, "twice")],
)
def test_a_wrong_policy_is_refused_by_name(config: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CrossExaminationConfig(**config)  # type: ignore[arg-type]


def _noisier(frame: SensorFrame, levels: float) -> SensorFrame:
    noise = np.random.default_rng(frame.stamp_ns // PERIOD_NS).normal(0, levels, frame.data.shape[:2])
    return SensorFrame(frame.modality, np.clip(frame.data + noise[..., None], 0, 255).astype(np.uint8), frame.stamp_ns)


def _scaled(frame: SensorFrame) -> SensorFrame:
    return SensorFrame(frame.modality, frame.data * np.float32(1.3), frame.stamp_ns)
