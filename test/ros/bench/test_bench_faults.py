"""The fault benchmark: what reaches the node and when, how trials are judged, the bars; and the soak's figures."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_student import write_toy_student

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, ScheduledInjection
from anyseg_core.runtime.health.monitor import Fault, State
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_core.sim.drive import Drive, DriveConfig, DriveFrame
from anyseg_core.sim.weather import Weather
from anyseg_ros.bench import fault_miou
from anyseg_ros.bench.fault_drives import (
    MESSAGE_FAULTS,
    PERIOD_NS,
    START_NS,
    Delivery,
    Hiccups,
    Play,
    PlayableDrive,
    Scene,
    Transport,
    scenes,
    with_fresh_noise,
)
from anyseg_ros.bench.fault_trials import (
    Alarm,
    Change,
    CleanRun,
    FlapTrial,
    Outcome,
    RunRecord,
    SimulatedNode,
    Trial,
    flap_changes,
    judge,
    run_trial,
)
from anyseg_ros.bench.faults import HARD_FAULTS, add_detection, add_false_alarms, detection_table
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.messages import conversions

CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS
MS = 1_000_000
SCENE = Scene("test", DriveConfig(77, Weather.CLOUD, 2.0, width=64, height=48))
QUIET = Transport(jitter=0.05, hiccup_every_s=1e9)


@pytest.fixture(scope="session")
def drive() -> PlayableDrive:
    """Two rendered seconds, again and again."""
    rendered = Drive(SCENE.config)
    frames: list[DriveFrame] = list(rendered)
    return PlayableDrive(SCENE, rendered.rig(), frames * 12)


# --- what reaches the node -------------------------------------------------------------------------------------------


def recovers_s(state: State) -> float | None:
    return 0.5 if state in (State.FAILED, State.RECOVERING) else None


def test_messages_of_a_sensor_arrive_in_order_within_their_delays(drive: PlayableDrive) -> None:
    deliveries = list(Play(drive, 6.0, seed=3).deliveries())
    assert [d.at_ns for d in deliveries] == sorted(d.at_ns for d in deliveries)
    assert len(deliveries) == 4 * 60
    hiccups = Play(drive, 6.0, seed=3).hiccups()
    for modality in DEFAULT_SENSORS:
        own = [d for d in deliveries if d.modality is modality]
        assert [d.frame.stamp_ns for d in own if d.frame] == [START_NS + tick * PERIOD_NS for tick in range(60)]
        late_ms = [(d.at_ns - START_NS) / MS - 1000 * d.measured_s for d in own]
        longest = 14 + 2 * 15 + (50 if hiccups.begins_ns else 0)
        assert min(late_ms) >= 4
        assert max(late_ms) <= longest


def test_two_plays_of_one_seed_are_the_same_and_of_another_are_not(drive: PlayableDrive) -> None:
    times = [[d.at_ns for d in Play(drive, 3.0, seed).deliveries()] for seed in (5, 5, 6)]
    assert times[0] == times[1] != times[2]


def test_nothing_arrives_in_a_hiccup() -> None:
    hiccups = Hiccups((100, 130, 500), 50)
    assert [hiccups.after(t) for t in (99, 100, 149, 150, 179, 180, 505)] == [99, 180, 180, 180, 180, 180, 550]


def test_fresh_noise_changes_a_living_sensor_and_leaves_a_static_scene_without_events(drive: PlayableDrive) -> None:
    rng = np.random.default_rng(0)
    still = replace(drive, scene=replace(SCENE, is_static=True))
    for modality in DEFAULT_SENSORS:
        frame = drive.frame(3, modality)
        again = with_fresh_noise(frame, rng)
        assert again.data.shape == frame.data.shape
        assert not np.array_equal(again.data, frame.data)
        assert (still.frame(1, modality).data == still.frame(9, modality).data).all()
    assert not with_fresh_noise(still.frame(1, EVENT), rng).data.any()


def test_the_scenes_have_every_weather_and_vehicles_that_stand() -> None:
    names = {scene.name for scene in scenes()}
    assert {*map(str, Weather), "parked, night", "static scene, sun"} <= names
    assert len({scene.config.seed for scene in scenes()}) == 7


@pytest.mark.parametrize("kind", [kind for kind, fault in INJECTION_KINDS.items() if fault.stage.name == "MESSAGE"])
def test_an_unreadable_message_is_called_what_the_conversions_call_it(kind: str) -> None:
    message = SimpleNamespace(encoding="rgb8", is_bigendian=0, width=4, height=2, step=12, data=b"\0" * 24)
    message.data = message.data[:12] if kind == "truncate" else message.data
    message.encoding = "nv24" if kind == "wrong_encoding" else message.encoding
    with pytest.raises(conversions.ConversionError) as raised:
        conversions.camera_frame(message)
    assert MESSAGE_FAULTS[kind] is raised.value.fault


# --- trials ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fault", "messages"), [("drop", Fault.SILENT, 1), ("truncate", Fault.WRONG_SIZE, 2)])
def test_a_trial_finds_the_fault_and_the_recovery(drive: PlayableDrive, kind: str, fault: Fault, messages: int) -> None:
    outcome = run_trial(Trial(kind, DEPTH, SCENE, 1), drive)
    assert outcome.detected
    assert (outcome.named, outcome.messages, outcome.wrongly_named) == (fault, messages, False)
    assert outcome.detection_ms is not None
    assert outcome.detection_ms <= 250
    assert outcome.recovery_ms is not None
    assert 500 <= outcome.recovery_ms <= 700


def test_a_clean_run_of_the_simulated_node_makes_a_mask_of_every_instant(drive: PlayableDrive) -> None:
    jobs: list[int] = []
    node = SimulatedNode(
        Play(drive, 4.0, 2, transport=QUIET, fresh_noise=True), lambda job: jobs.append(len(job.frames))
    )
    record = node.run()
    stamps = [mask.stamp_ns for mask in record.masks]
    assert all(later - earlier == PERIOD_NS for earlier, later in pairwise(stamps))
    assert len(stamps) >= 39
    assert jobs[5:] == [4] * (len(jobs) - 5)
    assert all(change.state in (State.WAITING, State.ACTIVE) for change in record.changes)


def entry(kind: str = "freeze", start_s: float = 1.0, end_s: float = 2.0) -> ScheduledInjection:
    return ScheduledInjection(modality=CAMERA, kind=kind, start_s=start_s, duration_s=end_s - start_s)


def record_of(*changes: tuple[float, State, Fault | None], lost: tuple[float, float] = (9, 9)) -> RunRecord:
    """Camera messages each 100 ms, received 10 ms later, but those that are `lost`; and what became of the camera."""
    times = [t for t in np.arange(0, 4, 0.1) if not lost[0] <= t < lost[1]]
    deliveries = [Delivery(START_NS + round((t + 0.01) * NS_PER_S), CAMERA, None, float(t)) for t in times]
    made = [
        Change(START_NS + round(at_s * NS_PER_S), CAMERA, state, fault, "", recovers_s(state))
        for at_s, state, fault in changes
    ]
    return RunRecord(made, [], deliveries)


def test_a_fault_of_content_counts_from_its_first_message_and_recovery_from_the_first_good_one() -> None:
    record = record_of(
        (1.11, State.SUSPECT, Fault.FROZEN), (1.21, State.FAILED, Fault.FROZEN), (2.61, State.ACTIVE, None)
    )
    outcome = judge(Trial("freeze", CAMERA, SCENE, 0), entry(), record)
    assert outcome.first_sign_ms == pytest.approx(100)
    assert outcome.detection_ms == pytest.approx(200)
    assert outcome.messages == 3
    assert outcome.recovery_ms == pytest.approx(610)
    assert not outcome.wrongly_named


def test_silence_counts_from_the_last_message() -> None:
    record = record_of((1.07, State.FAILED, Fault.SILENT), (2.6, State.ACTIVE, None), lost=(0.999, 2.0))
    outcome = judge(Trial("drop", CAMERA, SCENE, 0), entry("drop"), record)
    assert outcome.detection_ms == pytest.approx(160)
    assert outcome.messages == 1


def test_what_is_never_found_or_found_too_late_is_not_detected() -> None:
    for changes in ((), ((1.2, State.SUSPECT, Fault.FROZEN),), ((2.5, State.FAILED, Fault.FROZEN),)):
        assert not judge(Trial("freeze", CAMERA, SCENE, 0), entry(), record_of(*changes)).detected


def test_a_wrong_name_is_the_one_that_people_read_last() -> None:
    early = (1.1, State.FAILED, Fault.SILENT)
    right = judge(Trial("freeze", CAMERA, SCENE, 0), entry(), record_of(early, (1.3, State.FAILED, Fault.FROZEN)))
    assert (right.named, right.last_named, right.wrongly_named) == (Fault.SILENT, Fault.FROZEN, False)
    assert judge(Trial("freeze", CAMERA, SCENE, 0), entry(), record_of(early)).wrongly_named


# --- bars ------------------------------------------------------------------------------------------------------------


def outcomes(**changes: object) -> list[Outcome]:
    """One good outcome of every fault of every sensor; the changes are made to all of them."""
    good = Outcome(Trial("drop", CAMERA, SCENE, 0), True, 100.0, 160.0, 2, Fault.SILENT, Fault.SILENT, 600.0, 500.0)
    trials = [Trial(kind, m, SCENE, 0) for kind, fault in INJECTION_KINDS.items() for m in fault.modalities]
    expected = {trial: (INJECTION_KINDS[trial.kind].expected or (Fault.BLANK,))[0] for trial in trials}
    return [
        replace(good, **{"trial": trial, "named": expected[trial], "last_named": expected[trial], **changes})
        for trial in trials
    ]


def missed(result: Benchmark) -> list[str]:
    return [figure.name for figure in result.figures if figure.met is False]


def bars(group: list[Outcome]) -> Benchmark:
    result = Benchmark("test")
    add_detection(result, group)
    return result


def test_every_bar_is_met_by_good_outcomes_and_missed_by_bad_ones() -> None:
    assert missed(bars(outcomes())) == []
    assert len(missed(bars(outcomes(detected=False, detection_ms=None, messages=None)))) >= 2 * len(HARD_FAULTS)
    assert missed(bars(outcomes(detection_ms=201.0))) == ["silent: last message to FAILED"]
    assert len(missed(bars(outcomes(messages=6)))) == len(HARD_FAULTS) - 1
    assert missed(bars(outcomes(recovery_ms=None))) == [
        "recovery beyond recover_time, hard faults",
        "recovery beyond recover_time, other faults",
    ]


def test_a_bar_that_is_missed_names_the_trial() -> None:
    group = outcomes()
    group[0] = replace(group[0], detection_ms=500.0)
    assert any("drop camera test (1 x)" in note for note in bars(group).notes)


def test_an_undetected_fault_is_shown_as_such() -> None:
    table = detection_table(outcomes(detected=False))
    assert set(table.columns[3]._cells) == {"0%"}


def test_false_alarms_are_counted_by_the_hour() -> None:
    alarm = Alarm("sun", CAMERA, State.FAILED, Fault.DARK, "why", 3.0)
    result = Benchmark("test")
    add_false_alarms(result, [CleanRun("sun", 0.5, (alarm, alarm), 100, 10), CleanRun("fog", 1.5, (), 100, 0)])
    values = {figure.name: figure.samples[0] for figure in result.figures}
    assert values["false alarms (FAILED), all sensors"] == 1.0
    assert values["masks that a late frame is missing from"] == 5.0
    assert missed(result) == []
    add_false_alarms(result, [CleanRun("sun", 0.5, (alarm,), 100, 10)])
    assert len(missed(result)) == 2


# --- flapping, mIoU --------------------------------------------------------------------------------------------------


def test_a_flapping_sensor_leaves_the_masks_once(drive: PlayableDrive) -> None:
    assert flap_changes(FlapTrial("drop", LIDAR, SCENE, 1), drive) in (1, 2)


def test_a_fault_that_blinds_the_camera_is_scored_in_four_ways(drive: PlayableDrive, tmp_path: Path) -> None:
    segmenter = Segmenter.open(write_toy_student(tmp_path / "toy"), threads=1)
    try:
        trial = Trial("black", CAMERA, SCENE, 2)
        score = fault_miou._score(trial, drive, fault_miou._Instants(drive, segmenter))
    finally:
        segmenter.close()
    assert 1 <= score.instants <= fault_miou.MAX_INSTANTS
    counts = {name: matrix.counts for name, matrix in score.scores.items()}
    assert len({matrix.sum() for matrix in counts.values()}) == 1
    assert not np.array_equal(counts[fault_miou.BROKEN_IN], counts[fault_miou.HEALTHY])
    # The toy says which sensors it was given: what is made until then is made without the camera.
    np.testing.assert_array_equal(counts[fault_miou.AS_MADE], counts[fault_miou.WITHOUT])


# --- soak ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), minutes=st.floats(1, 20))
def test_some_sensor_always_lives_but_in_the_stretches_that_say_so(seed: int, minutes: float) -> None:
    pytest.importorskip("rclpy")
    from anyseg_ros.bench.soak import ALL_LOST_S, random_plan

    plan = random_plan(60 * minutes, seed)
    InjectionSchedule.parse({"injections": [dict(fault) for fault in plan.faults]})
    spans = [(str(f["modality"]), float(str(f["start_s"])), float(str(f["duration_s"]))) for f in plan.faults]
    for _, start_s, _ in spans:
        broken = {m for m, begin_s, length_s in spans if begin_s <= start_s < begin_s + length_s}
        assert len(broken) < 4 or any(abs(lost.start_s - start_s) < ALL_LOST_S for lost in plan.all_lost)


FAILURE = f"[WARN] [{START_NS / 1e9 + 4:.9f}] [segmentation_node]: camera failed: silent: x\n"


def soak_figures(gap_ms: float = 200.0, age_ms: float = 120.0, log: str = FAILURE, slope: float = 0.0) -> Benchmark:
    """The figures of half a minute in which the camera fails once."""
    pytest.importorskip("rclpy")
    from anyseg_ros.bench.soak import SoakPlan, figures
    from anyseg_ros.live_run.recording import ReceivedMask, Recording, StatusSample

    stamps = [START_NS + i * 200 * MS for i in range(150)]
    late = [round(gap_ms - 200) * MS * (stamp >= stamps[75]) for stamp in stamps]
    received = [stamp + round(age_ms * MS) + extra for stamp, extra in zip(stamps, late, strict=True)]
    empty = np.empty((0, 0), np.uint8)
    recording = Recording(truth=dict.fromkeys(stamps, empty))
    recording.masks = [ReceivedMask(stamp, at, empty) for stamp, at in zip(stamps, received, strict=True)]
    for number, (stamp, at) in enumerate(zip(stamps, received, strict=True)):
        failed = 20 <= number < 40
        state, fault = (State.FAILED, "silent") if failed else (State.ACTIVE, "")
        recording.statuses.append(StatusSample(stamp, at, CAMERA, state, fault, not failed, 50.0, 30.0))
        recording.statuses.append(StatusSample(stamp, at, DEPTH, State.ACTIVE, "", True, 50.0, 30.0))
    seconds = [float(s) for s in range(30)]
    memory = [300 + slope * s / 60 + 0.01 * (s % 2) for s in seconds]
    return figures(SoakPlan(({"kind": "drop"},), ()), recording, seconds, memory, log)


def test_a_good_soak_meets_every_bar() -> None:
    assert missed(soak_figures()) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"gap_ms": 900.0, "age_ms": 10.0}, "gaps longer than"),
        ({"age_ms": 600.0}, "label images older than"),
        ({"log": ""}, "lines of the log"),
        ({"log": 2 * FAILURE}, "lines of the log"),
        ({"log": FAILURE.replace("silent", "frozen")}, "lines of the log"),
        ({"slope": 2.0}, "growth of resident memory"),
    ],
)
def test_a_broken_promise_of_the_soak_is_a_missed_bar(changes: dict, what: str) -> None:
    assert any(name.startswith(what) for name in missed(soak_figures(**changes)))
