"""Fault injection: every kind does what its name says, the same way each time, and touches nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, InjectionScheduleError, Injector, Stage, degrade
from anyseg_core.runtime.health.monitor import Fault, HealthConfig, HealthMonitor, State
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

S = 1_000_000_000
CONTENT_FAULTS = [
    (kind, modality)
    for kind, fault in INJECTION_KINDS.items()
    for modality in fault.modalities
    if fault.degradation is not None
]


def make_frame(modality: Sensor, seed: int = 0, stamp_ns: int = 5 * S) -> SensorFrame:
    rng = np.random.default_rng(seed)
    data: NDArray
    if modality is Sensor.CAMERA:
        data = rng.integers(20, 200, (40, 60, 3), np.uint8)
    elif modality is Sensor.DEPTH:
        data = rng.uniform(1, 50, (40, 60)).astype(np.float32)
    elif modality is Sensor.EVENT:
        data = rng.poisson(0.5, (40, 60, 2)).astype(np.uint8)
    else:
        data = rng.uniform(-30, 30, (800, 4)).astype(np.float32)
    data.setflags(write=False)
    return SensorFrame(modality, data, stamp_ns, frame_id="optical")


def spoil(modality: Sensor, kind: str, seed: int = 0, **parameters: float) -> tuple[NDArray, NDArray]:
    """Content before and after."""
    frame = make_frame(modality)
    return frame.data, degrade(frame, kind, np.random.default_rng(seed), **parameters).data


def played(modality: Sensor, kind: str, count: int = 4, **parameters: float) -> list[tuple[NDArray, NDArray]]:
    """Contents before and after of successive frames, 1 s apart, all of them hit."""
    entry = {"modality": str(modality), "kind": kind, "start_s": 0, "parameters": parameters}
    injector = Injector(InjectionSchedule.parse({"injections": [entry]}))
    frames = [make_frame(modality, seed, seed * S) for seed in range(count)]
    return [(frame.data, injector.apply(frame, float(at))[0].data) for at, frame in enumerate(frames)]


# -------------------------------------------------------------------------------------------------- one frame


@pytest.mark.parametrize(("kind", "modality"), CONTENT_FAULTS)
def test_a_degraded_frame_is_changed_well_formed_and_repeatable(kind: str, modality: Sensor) -> None:
    frame = make_frame(modality)
    before = frame.data.copy()
    first, second = (degrade(frame, kind, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(frame.data, before)
    np.testing.assert_array_equal(first.data, second.data)
    assert (first.modality, first.frame_id, first.data.dtype) == (modality, "optical", frame.data.dtype)
    assert first.data.ndim == frame.data.ndim
    assert first.stamp_ns != frame.stamp_ns or not np.array_equal(first.data, before)
    if modality is not Sensor.LIDAR and kind != "half_size":
        assert first.data.shape == frame.data.shape


def test_black_and_saturated_are_what_they_say() -> None:
    assert not spoil(Sensor.CAMERA, "black")[1].any()
    assert (spoil(Sensor.CAMERA, "saturate")[1] == 255).all()


def test_blur_takes_contrast_and_keeps_brightness() -> None:
    before, after = spoil(Sensor.CAMERA, "blur")
    assert after.std() < 0.2 * before.std()
    assert after.mean() == pytest.approx(before.mean(), abs=2)


def test_noise_is_relative_to_full_scale_depth_and_range() -> None:
    before, after = spoil(Sensor.CAMERA, "noise", sigma=0.05)
    assert (after.astype(float) - before).std() == pytest.approx(12.75, rel=0.1)
    before, after = spoil(Sensor.DEPTH, "noise", sigma=0.05)
    assert (after / before).std() == pytest.approx(0.05, rel=0.1)
    before, after = spoil(Sensor.LIDAR, "noise", sigma=0.05)
    ranges = np.linalg.norm(after[:, :3], axis=1) / np.linalg.norm(before[:, :3], axis=1)
    assert ranges.std() == pytest.approx(0.05, rel=0.1)
    np.testing.assert_allclose(np.arctan2(after[:, 1], after[:, 0]), np.arctan2(before[:, 1], before[:, 0]), rtol=1e-4)
    np.testing.assert_array_equal(after[:, 3], before[:, 3])


@pytest.mark.parametrize("modality", [Sensor.CAMERA, Sensor.DEPTH, Sensor.EVENT])
def test_blockage_covers_its_share_of_the_image(modality: Sensor) -> None:
    before, after = spoil(modality, "blockage", fraction=0.3)
    covered = np.abs(np.indices((40, 60)).T - [20, 30]).max(axis=-1).T < 10
    assert not after[covered].any()
    kept = np.hypot(*(np.indices((40, 60)).T - [20, 30]).T) > 16
    np.testing.assert_array_equal(after[kept], before[kept])
    if modality is Sensor.DEPTH:
        assert (after == 0).mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("kind", ["nan_depth", "zero_depth"])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_lost_depth_pixels_are_the_fraction(kind: str, fraction: float) -> None:
    before, after = spoil(Sensor.DEPTH, kind, fraction=fraction)
    lost = np.isnan(after) if kind == "nan_depth" else after == 0
    assert lost.mean() == pytest.approx(fraction, abs=0.04)
    np.testing.assert_array_equal(after[~lost], before[~lost])


@pytest.mark.parametrize(
    ("from_deg", "to_deg", "lost_share"), [(-30, 30, 1 / 6), (150, -150, 1 / 6), (0, 360, 1), (-90, 180, 0.75)]
)
def test_a_lost_sector_has_no_points(from_deg: float, to_deg: float, lost_share: float) -> None:
    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, 4000)
    points = np.column_stack([np.cos(angle), np.sin(angle), angle, angle]).astype(np.float32)
    frame = SensorFrame(Sensor.LIDAR, points, 0)
    after = degrade(frame, "sector_loss", rng, from_deg=from_deg, to_deg=to_deg).data
    optical = np.column_stack([-points[:, 1], angle, points[:, 0], angle]).astype(np.float32)  # x right, z ahead
    frame = SensorFrame(Sensor.LIDAR, optical, 0, "front_optical_frame")
    optical = degrade(frame, "sector_loss", rng, from_deg=from_deg, to_deg=to_deg).data
    np.testing.assert_array_equal(optical[:, 3], after[:, 3])
    assert 1 - len(after) / 4000 == pytest.approx(lost_share, abs=0.03)
    degrees = np.degrees(after[:, 2])
    inside = (degrees - from_deg) % 360 <= (to_deg - from_deg) % 360 - 0.01
    assert not inside.any()


def test_sparse_points_are_a_subset() -> None:
    before, after = spoil(Sensor.LIDAR, "sparse", keep=0.25)
    assert len(after) == pytest.approx(200, abs=50)
    assert {row.tobytes() for row in after} <= {row.tobytes() for row in before}


def test_an_event_flood_only_adds_and_saturates() -> None:
    before, after = spoil(Sensor.EVENT, "event_flood", events_per_pixel=4)
    assert (after >= before).all()
    assert (after.astype(int) - before).mean() == pytest.approx(4, rel=0.1)
    assert (spoil(Sensor.EVENT, "event_flood", events_per_pixel=255)[1] > 150).all()


@pytest.mark.parametrize("modality", DEFAULT_SENSORS)
def test_corruption_hits_its_share_of_rows(modality: Sensor) -> None:
    before, after = spoil(modality, "corrupt", fraction=0.5)
    touched = [a.tobytes() != b.tobytes() for a, b in zip(before, after, strict=True)]
    assert np.mean(touched) == pytest.approx(0.5, abs=0.2)


def test_some_light_left_dims_the_picture() -> None:
    before, after = spoil(Sensor.CAMERA, "black", light=0.5)
    np.testing.assert_allclose(after, before / 2, atol=0.51)


@pytest.mark.parametrize("modality", [Sensor.CAMERA, Sensor.DEPTH, Sensor.EVENT])
def test_dead_rows_are_always_the_same_and_more_at_full_strength(modality: Sensor) -> None:
    schedule = InjectionSchedule.parse(
        {"injections": [{"modality": modality, "kind": "dead_rows", "start_s": 0, "ramp_s": 2}]}
    )
    injector = Injector(schedule)
    dead = []
    for elapsed_s in (1.0, 1.0, 2.0, 3.0):
        (after,) = injector.apply(make_frame(modality), elapsed_s)
        dead.append({row for row in range(40) if not after.data[row].any()})
    assert dead[0] == dead[1] < dead[2] == dead[3]
    assert 4 <= len(dead[3]) <= 20


def test_dead_lasers_take_whole_rings() -> None:
    elevation, azimuth = np.meshgrid(np.radians(np.arange(-15, 15)), np.linspace(-3, 3, 50), indexing="ij")
    xyz = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    points = np.stack([*(10 * axis.ravel() for axis in xyz), elevation.ravel()], axis=1).astype(np.float32)
    after = degrade(SensorFrame(Sensor.LIDAR, points, 0), "dead_rows", np.random.default_rng(0), fraction=0.4).data
    _, counts = np.unique(after[:, 3], return_counts=True)
    assert (counts == 50).all()
    assert 10 <= len(counts) <= 26


def test_a_scaled_depth_keeps_what_is_not_measured() -> None:
    frame = SensorFrame(Sensor.DEPTH, np.array([[2.0, 0.0, np.nan]], np.float32), 0)
    after = degrade(frame, "depth_scale", np.random.default_rng(0), scale=1.5).data
    np.testing.assert_array_equal(after, np.array([[3.0, 0.0, np.nan]], np.float32))


def test_an_event_gap_takes_its_share_of_the_events() -> None:
    before, after = spoil(Sensor.EVENT, "event_gap", fraction=0.25)
    assert (after <= before).all()
    assert after.sum() / before.sum() == pytest.approx(0.75, abs=0.05)


def test_counted_packets_of_events_are_lost_whole() -> None:
    injector = Injector(
        InjectionSchedule.parse({"injections": [{"modality": "event", "kind": "event_gap", "start_s": 0}]})
    )
    frames = [replace(make_frame(Sensor.EVENT), sequence=i) for i in range(100)]
    arrived = [one for i, frame in enumerate(frames) for one in injector.apply(frame, i / 10)]
    assert 30 < len(arrived) < 70
    assert all(one is frames[one.sequence or 0] for one in arrived)


def test_a_stamp_offset_moves_the_stamp_only() -> None:
    frame = make_frame(Sensor.DEPTH)
    shifted = degrade(frame, "stamp_offset", np.random.default_rng(0), offset_s=-1.5)
    assert shifted.stamp_ns == frame.stamp_ns - 1_500_000_000
    assert shifted.data is frame.data


@pytest.mark.parametrize(
    ("kind", "parameters", "named"),
    [
        ("melt", {}, "unknown kind of injection 'melt'; known kinds: drop"),
        ("sparse", {}, "sparse does not apply to camera, only to lidar"),
        ("blur", {"radius": 3}, "blur has no parameter 'radius'; its parameters: sigma_px"),
        ("blur", {"sigma_px": -3}, "sigma_px is -3, outside 0.1 to 100"),
        ("blur", {"sigma_px": float("nan")}, "sigma_px is nan"),
        ("black", {"level": 3}, "its parameters: light"),
        ("freeze", {}, "fault of timing"),
    ],
)
def test_a_wrong_degradation_is_refused_by_name(kind: str, parameters: dict[str, float], named: str) -> None:
    with pytest.raises(InjectionScheduleError, match=named):
        degrade(make_frame(Sensor.CAMERA), kind, np.random.default_rng(0), **parameters)


# ---------------------------------------------------------------------------------------------------- over time


def play(
    entries: list[dict], seconds: float = 3.0, modality: Sensor = Sensor.CAMERA, seed: int = 0
) -> list[tuple[float, SensorFrame]]:
    """(arrival in seconds, frame) of a 10 Hz sensor under a schedule; stamps are 5 s + departure."""
    injector = Injector(InjectionSchedule.parse({"seed": seed, "injections": entries}))
    arrivals = []
    for index in range(round(seconds * 10)):
        frame = make_frame(modality, seed=index, stamp_ns=5 * S + index * S // 10)
        arrivals += [(index / 10, arrived) for arrived in injector.apply(frame, index / 10)]
    return arrivals


def entry(kind: str, modality: str = "camera", **parameters: float) -> dict:
    return {"modality": modality, "kind": kind, "start_s": 1.0, "duration_s": 1.0, "parameters": parameters}


@pytest.mark.parametrize(
    ("kind", "modality"), [(k, m) for k, fault in INJECTION_KINDS.items() for m in fault.modalities]
)
def test_outside_its_interval_and_modality_nothing_is_touched(kind: str, modality: Sensor) -> None:
    schedule = InjectionSchedule.parse({"injections": [entry(kind, str(modality))]})
    for other in DEFAULT_SENSORS:
        injector = Injector(schedule)
        times = (0.0, 0.999, 2.0, 9.0) if other is modality else (0.0, 1.0, 1.5, 9.0)
        for elapsed_s in times:
            frame = make_frame(other)
            (arrived,) = injector.apply(frame, elapsed_s)
            assert arrived is frame


def test_dropped_frames_never_arrive() -> None:
    arrivals = play([entry("drop")])
    assert [t for t, _ in arrivals] == [i / 10 for i in range(30) if not 10 <= i < 20]
    assert 3 <= len(play([entry("drop") | {"probability": 0.5}])) - 20 <= 8


def test_a_fault_without_an_end_stays() -> None:
    assert len(play([{"modality": "camera", "kind": "drop", "start_s": 1}], seconds=9)) == 10


def test_a_frozen_sensor_repeats_one_content_under_new_stamps() -> None:
    arrivals = [frame for _, frame in play([entry("freeze")])]
    stamps = [frame.stamp_ns for frame in arrivals]
    assert stamps == sorted(set(stamps))
    contents = [frame.data.tobytes() for frame in arrivals]
    assert len(set(contents[10:20])) == 1
    assert len(set(contents)) == 21


def test_delayed_frames_arrive_late_with_their_old_stamps_and_none_is_lost() -> None:
    arrivals = play([entry("delay", delay_s=0.25)])
    assert len(arrivals) == 30
    sent = [round((frame.stamp_ns - 5 * S) / S, 1) for _, frame in arrivals]
    assert sent == [i / 10 for i in range(30)]  # none overtakes another
    lateness = [t - s for (t, _), s in zip(arrivals, sent, strict=True)]
    assert all(0.25 <= late < 0.36 for late in lateness[10:20])
    assert all(late < 0.25 for late in lateness[:10] + lateness[20:])
    assert max(lateness[:10] + lateness[23:]) < 0.01


def test_a_live_player_polls_for_delayed_frames() -> None:
    injector = Injector(InjectionSchedule.parse({"injections": [entry("delay", delay_s=0.5)]}))
    frame = make_frame(Sensor.CAMERA)
    assert injector.apply(frame, 1.0) == []
    assert injector.due(1.49) == []
    assert injector.due(1.5, Sensor.DEPTH) == []
    assert injector.due(1.5) == [frame]
    assert injector.due(9.0) == []


def test_regressing_stamps_run_backwards() -> None:
    stamps = [frame.stamp_ns for _, frame in play([entry("stamp_regression")])]
    assert (np.diff(stamps[10:20]) == -S // 10).all()
    assert stamps[20] > stamps[19]


def test_a_ramp_grows_to_full_strength() -> None:
    ramped = [{"modality": "camera", "kind": "black", "start_s": 1, "ramp_s": 1}]
    light = [
        frame.data.mean() / make_frame(Sensor.CAMERA, seed=i).data.mean() for i, (_, frame) in enumerate(play(ramped))
    ]
    np.testing.assert_allclose(light[:11], 1.0, atol=0.01)
    np.testing.assert_allclose(light[10:20], np.linspace(1.0, 0.1, 10), atol=0.02)
    assert max(light[20:]) == 0


def test_a_kind_without_a_strength_becomes_more_frequent_in_its_ramp() -> None:
    ramped = [{"modality": "camera", "kind": "drop", "start_s": 0, "ramp_s": 20}]
    arrived = np.array([t for t, _ in play(ramped, seconds=30)])
    in_ten = [int(((arrived >= start) & (arrived < start + 10)).sum()) for start in (0, 10, 20)]
    assert in_ten[0] > 60 > in_ten[1] > 8
    assert in_ten[2] == 0


def test_the_probability_is_that_of_a_frame() -> None:
    spoiled = [frame for _, frame in play([entry("black") | {"probability": 0.3, "duration_s": 20}], seconds=21)]
    assert 40 <= sum(not frame.data.any() for frame in spoiled) <= 80


def test_a_cut_rate_is_evenly_spaced() -> None:
    arrivals = [t for t, _ in play([entry("rate_cut", keep=0.25) | {"start_s": 0, "duration_s": 9}], seconds=4)]
    np.testing.assert_allclose(np.diff(arrivals), 0.4)


def test_jitter_delays_by_chance_and_keeps_the_order() -> None:
    arrivals = play([entry("jitter", jitter_s=0.3)])
    stamps = [frame.stamp_ns for _, frame in arrivals]
    assert stamps == sorted(stamps)
    assert len(stamps) == 30
    lateness = [t - (stamp / S - 5) for (t, _), stamp in zip(arrivals, stamps, strict=True)]
    assert max(lateness[:10]) < 0.01
    assert 0.1 < max(lateness[10:20]) < 0.45


def test_a_drifting_clock_runs_away_from_the_true_one() -> None:
    stamps = [frame.stamp_ns for _, frame in play([entry("stamp_drift", drift_s_per_s=0.5)])]
    ahead = [(stamp - 5 * S) / S - i / 10 for i, stamp in enumerate(stamps)]
    np.testing.assert_allclose(ahead[10:20], np.arange(10) * 0.05, atol=1e-6)
    assert max(map(abs, ahead[:10] + ahead[20:])) < 1e-6


def test_a_crashed_process_does_not_deliver_what_it_still_had() -> None:
    arrivals = play([entry("delay", delay_s=0.3) | {"start_s": 0}, {"kind": "crash", "start_s": 1, "duration_s": 1}])
    assert [round(t, 1) for t, _ in arrivals if 0.95 < t < 2] == []
    assert len(arrivals) == 7 + 10  # of the first second all that had arrived by then


def test_only_a_crash_that_kills_ends_a_live_player() -> None:
    for kill, expected in ((0.0, False), (1.0, True)):
        fault = {"kind": "crash", "start_s": 1, "duration_s": 1, "parameters": {"kill": kill}}
        injector = Injector(InjectionSchedule.parse({"injections": [fault]}))
        assert [injector.must_die(t) for t in (0.9, 1.0, 2.0)] == [False, expected, False]


@pytest.mark.parametrize("kind", ["truncate", "wrong_encoding"])
def test_faults_of_messages_leave_no_readable_frame_and_are_reported(kind: str) -> None:
    unreadable: list[tuple[SensorFrame, str]] = []
    schedule = InjectionSchedule.parse({"injections": [entry(kind, "depth")]})
    injector = Injector(schedule, lambda frame, name: unreadable.append((frame, name)))
    frame = make_frame(Sensor.DEPTH)
    assert injector.apply(frame, 1.5) == []
    assert unreadable == [(frame, kind)]
    assert Injector(schedule).apply(frame, 1.5) == []


def test_faults_act_from_the_sensor_to_the_wire_whatever_the_order_in_the_file() -> None:
    late, dark = entry("delay", delay_s=0.2), entry("black")
    for entries in ([late, dark], [dark, late]):
        spoiled = [frame for _, frame in play(entries) if not frame.data.any()]
        assert [frame.stamp_ns for frame in spoiled] == [5 * S + i * S // 10 for i in range(10, 20)]


def test_an_entry_with_a_seed_of_its_own_is_the_same_in_every_schedule() -> None:
    own = entry("noise") | {"seed": 5}
    alone = {frame.data.tobytes() for _, frame in play([own])}
    assert alone == {frame.data.tobytes() for _, frame in play([entry("drop", "depth"), own], seed=9)}
    assert alone != {frame.data.tobytes() for _, frame in play([own | {"seed": 6}])}


def test_the_player_says_what_is_on_and_what_it_has_hit() -> None:
    injector = Injector(
        InjectionSchedule.parse({"injections": [entry("black") | {"ramp_s": 1}, entry("drop", "depth")]})
    )
    assert injector.active(0.9) == []
    injector.apply(make_frame(Sensor.CAMERA), 1.5)
    assert [(f.entry.kind, f.strength, f.hits) for f in injector.active(1.5)] == [("black", 0.5, 1), ("drop", 1.0, 0)]
    assert injector.hits() == [1, 0]


def test_arrivals_tell_their_time_in_order_over_all_sensors() -> None:
    injector = Injector(InjectionSchedule.parse({"injections": [entry("delay", delay_s=0.5), entry("drop", "event")]}))
    for modality in DEFAULT_SENSORS:
        injector.send(make_frame(modality), 1.0)
    assert injector.next_arrival_s() == 1.0
    arrivals = injector.arrivals()
    assert [(a.elapsed_s, a.item.modality) for a in arrivals] == [
        (1.0, Sensor.DEPTH), (1.0, Sensor.LIDAR), (1.5, Sensor.CAMERA),
    ]  # fmt: skip
    assert injector.next_arrival_s() == float("inf")


def test_a_player_of_some_stages_leaves_the_rest_to_another() -> None:
    schedule = InjectionSchedule.parse({"injections": [entry("noise"), entry("drop")]})
    content = Injector(schedule, stages=(Stage.CONTENT,))
    (frame,) = content.apply(make_frame(Sensor.CAMERA), 1.5)
    (whole,) = Injector(InjectionSchedule.parse({"injections": [entry("noise")]})).apply(make_frame(Sensor.CAMERA), 1.5)
    np.testing.assert_array_equal(frame.data, whole.data)


def test_entries_of_one_sensor_add_up_in_order() -> None:
    (_, first), *_ = play([entry("black") | {"start_s": 0}, entry("stamp_offset", offset_s=2) | {"start_s": 0}])
    assert not first.data.any()
    assert first.stamp_ns == 7 * S


def test_a_reset_plays_the_same_drive_again() -> None:
    injector = Injector(InjectionSchedule.parse({"injections": [entry("noise"), entry("drop") | {"probability": 0.5}]}))
    runs = []
    for _ in range(2):
        injector.reset()
        arrivals = [injector.apply(make_frame(Sensor.CAMERA, seed=i), i / 10) for i in range(30)]
        runs.append([frame.data.tobytes() for arrived in arrivals for frame in arrived])
    assert runs[0] == runs[1]


def test_another_seed_gives_another_drive() -> None:
    drives = [{frame.data.tobytes() for _, frame in play([entry("noise")], seed=seed)} for seed in (1, 1, 2)]
    assert drives[0] == drives[1]
    assert len(drives[0] & drives[2]) == 20  # all but the ten spoiled frames


@given(st.integers(0, 2**32))
def test_interleaving_with_other_sensors_changes_nothing(seed: int) -> None:
    entries = [entry("drop") | {"probability": 0.5}, entry("drop", "depth") | {"probability": 0.5}]
    alone = [t for t, _ in play(entries, seed=seed)]
    both = Injector(InjectionSchedule.parse({"seed": seed, "injections": entries}))
    among_others = []
    for index in range(30):
        both.apply(make_frame(Sensor.DEPTH), index / 10)
        among_others += [index / 10] * len(both.apply(make_frame(Sensor.CAMERA), index / 10))
    assert among_others == alone


def scene(seed: int, stamp_ns: int) -> SensorFrame:
    """What a camera with a little noise sees."""
    rng = np.random.default_rng(seed)
    stripes = 90.0 + 60.0 * np.sin(np.indices((48, 64)).sum(axis=0) / 4.0 + seed / 5.0)  # [H, W]
    data = np.clip(stripes[..., None] + rng.normal(0, 2, (48, 64, 3)), 0, 255).astype(np.uint8)
    return SensorFrame(Sensor.CAMERA, data, stamp_ns)


@pytest.mark.parametrize(
    ("kind", "parameters", "fault"),
    [
        ("drop", {}, Fault.SILENT),
        ("freeze", {}, Fault.FROZEN),
        ("delay", {"delay_s": 0.6}, Fault.STALE_STAMP),  # older than max_age_ms: younger frames are late, and used
        ("stamp_offset", {"offset_s": -2.0}, Fault.STALE_STAMP),
        ("stamp_offset", {"offset_s": 2.0}, Fault.FUTURE_STAMP),
        ("stamp_regression", {}, Fault.STAMP_REGRESSION),
        ("stamp_drift", {"drift_s_per_s": 1.0}, Fault.FUTURE_STAMP),
        ("crash", {}, Fault.SILENT),
        ("rate_cut", {"keep": 0.3}, Fault.SILENT),
        ("jitter", {"jitter_s": 0.8}, Fault.STALE_STAMP),
    ],
)
def test_health_names_the_injected_fault_and_recovers(kind: str, parameters: dict[str, float], fault: Fault) -> None:
    """The two halves of the project meet: what is injected is what is reported."""
    injector = Injector(InjectionSchedule.parse({"injections": [entry(kind, "camera", **parameters)]}))
    monitor = HealthMonitor(Sensor.CAMERA, HealthConfig(expected_rate_hz=10.0), 5 * S)
    reported = []
    status = monitor.status(5 * S)
    for index in range(40):
        now = 5 * S + index * S // 10
        for frame in injector.apply(scene(index, now), index / 10):
            monitor.on_frame(frame, now)
        monitor.on_time(now)
        status = monitor.status(now)
        if status.state is State.FAILED:
            reported.append(status.fault)
    assert fault in reported
    assert (status.state, status.fault) == (State.ACTIVE, None)


# --------------------------------------------------------------------------------------------- alive and wrong


def test_a_camera_can_be_mirrored_turned_swapped_halved_and_lose_a_color() -> None:
    before, mirrored = spoil(Sensor.CAMERA, "mirror")
    np.testing.assert_array_equal(mirrored[:, 0], before[:, -1])
    np.testing.assert_array_equal(spoil(Sensor.CAMERA, "upside_down")[1][0, 0], before[-1, -1])
    np.testing.assert_array_equal(spoil(Sensor.CAMERA, "swap_channels")[1][..., 0], before[..., 2])
    np.testing.assert_array_equal(spoil(Sensor.CAMERA, "half_size")[1], before[::2, ::2])
    lost = spoil(Sensor.CAMERA, "lost_color", channel=2)[1]
    assert not lost[..., 2].any()
    np.testing.assert_array_equal(lost[..., :2], before[..., :2])


def test_old_content_is_that_of_the_time_before_under_a_fresh_stamp() -> None:
    frames = played(Sensor.CAMERA, "old_content", age_s=2.0)
    for now, of in ((0, 0), (1, 0), (2, 0), (3, 1)):
        np.testing.assert_array_equal(frames[now][1], frames[of][0])


@pytest.mark.parametrize("modality", [Sensor.CAMERA, Sensor.DEPTH])
def test_a_torn_picture_has_old_rows_below(modality: Sensor) -> None:
    for stuck, old in ((1, 0), (0, 2)):
        frames = played(modality, "torn", fraction=0.25, stuck=stuck)
        np.testing.assert_array_equal(frames[3][1][:30], frames[3][0][:30])
        np.testing.assert_array_equal(frames[3][1][30:], frames[old][0][30:])


@pytest.mark.parametrize("modality", [Sensor.CAMERA, Sensor.DEPTH, Sensor.LIDAR])
def test_a_sensor_can_be_frozen_and_never_send_the_same_bytes_twice(modality: Sensor) -> None:
    for kind, most_changed in (("freeze_one_value", 2), ("freeze_noise", np.inf)):
        after = [each for _, each in played(modality, kind)]
        changed = (after[2] != after[3]).sum()
        assert 0 < changed <= most_changed
        np.testing.assert_allclose(after[3].astype(float), after[0].astype(float), rtol=0.05, atol=8)
    frames = played(modality, "freeze_alternating")
    np.testing.assert_array_equal(frames[2][1], frames[0][0])
    np.testing.assert_array_equal(frames[3][1], frames[1][0])


def test_depth_can_be_one_value_or_grey_levels() -> None:
    constant = spoil(Sensor.DEPTH, "depth_constant", depth_m=7)[1]
    np.testing.assert_allclose(constant, 7, atol=0.001)
    before, levels = spoil(Sensor.DEPTH, "depth_levels")
    assert (levels == np.rint(levels)).all()
    assert levels[before < 2].min() > levels[before > 20].max()


def test_a_lidar_can_range_the_same_everywhere_be_turned_and_change_its_units() -> None:
    before, after = spoil(Sensor.LIDAR, "lidar_constant_range", range_m=20)
    np.testing.assert_allclose(np.linalg.norm(after[:, :3], axis=1), 20, atol=0.01)
    np.testing.assert_allclose(spoil(Sensor.LIDAR, "lidar_yaw")[1], before * [-1, -1, 1, 1], atol=1e-4)
    ahead = spoil(Sensor.LIDAR, "lidar_yaw", angle_deg=90)[1]
    np.testing.assert_allclose(ahead[:, :2], np.stack([-before[:, 1], before[:, 0]], axis=1), atol=1e-4)
    down = spoil(Sensor.LIDAR, "lidar_pitch", angle_deg=90)[1]
    np.testing.assert_allclose(down[:, :3], np.stack([before[:, 2], before[:, 1], -before[:, 0]], axis=1), atol=1e-4)
    ahead = np.array([0.2, 0, 0, 0], np.float32)
    np.testing.assert_allclose(spoil(Sensor.LIDAR, "lidar_moved")[1], before + ahead, atol=1e-4)
    np.testing.assert_allclose(spoil(Sensor.LIDAR, "lidar_axes")[1][:, 2], before[:, 0], atol=1e-4)
    np.testing.assert_allclose(spoil(Sensor.LIDAR, "lidar_intensity")[1][:, 3], 100 * before[:, 3], rtol=1e-6)


def test_events_can_change_their_sign_or_be_none() -> None:
    before, swapped = spoil(Sensor.EVENT, "event_polarity")
    np.testing.assert_array_equal(swapped, before[..., ::-1])
    assert not spoil(Sensor.EVENT, "no_events")[1].any()


def test_a_fault_that_remembers_starts_anew_with_the_drive() -> None:
    schedule = InjectionSchedule.parse({"injections": [{"modality": "depth", "kind": "freeze_noise", "start_s": 0}]})
    injector = Injector(schedule)
    injector.apply(make_frame(Sensor.DEPTH, 0), 0.0)
    injector.reset()
    (after,) = injector.apply(make_frame(Sensor.DEPTH, 1), 0.0)
    np.testing.assert_allclose(after.data, make_frame(Sensor.DEPTH, 1).data, rtol=0.05)
