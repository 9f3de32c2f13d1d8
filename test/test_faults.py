"""Fault injection: every kind does what its name says, the same way each time, and touches nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anyseg_core.runtime.faults import (
    FAULT_KINDS,
    FaultInjector,
    FaultSchedule,
    FaultScheduleError,
    degrade,
)
from anyseg_core.runtime.health import Fault, HealthConfig, HealthMonitor, State
from anyseg_core.runtime.modality import MODALITIES, Modality, ModalityFrame

S = 1_000_000_000
CONTENT_FAULTS = [
    (kind, modality)
    for kind, fault in FAULT_KINDS.items()
    for modality in fault.modalities
    if fault.degradation is not None
]


def make_frame(modality: Modality, seed: int = 0, stamp_ns: int = 5 * S) -> ModalityFrame:
    rng = np.random.default_rng(seed)
    data: NDArray
    if modality is Modality.CAMERA:
        data = rng.integers(20, 200, (40, 60, 3), np.uint8)
    elif modality is Modality.DEPTH:
        data = rng.uniform(1, 50, (40, 60)).astype(np.float32)
    elif modality is Modality.EVENT:
        data = rng.poisson(0.5, (40, 60, 2)).astype(np.uint8)
    else:
        data = rng.uniform(-30, 30, (800, 4)).astype(np.float32)
    data.setflags(write=False)
    return ModalityFrame(modality, data, stamp_ns, frame_id="optical")


def spoil(modality: Modality, kind: str, seed: int = 0, **parameters: float) -> tuple[NDArray, NDArray]:
    """Content before and after."""
    frame = make_frame(modality)
    return frame.data, degrade(frame, kind, np.random.default_rng(seed), **parameters).data


# -------------------------------------------------------------------------------------------------- one frame


@pytest.mark.parametrize(("kind", "modality"), CONTENT_FAULTS)
def test_a_degraded_frame_is_changed_well_formed_and_repeatable(kind: str, modality: Modality) -> None:
    frame = make_frame(modality)
    before = frame.data.copy()
    first, second = (degrade(frame, kind, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(frame.data, before)
    np.testing.assert_array_equal(first.data, second.data)
    assert (first.modality, first.frame_id, first.data.dtype) == (modality, "optical", frame.data.dtype)
    assert first.data.ndim == frame.data.ndim
    assert first.stamp_ns != frame.stamp_ns or not np.array_equal(first.data, before)
    if modality is not Modality.LIDAR:
        assert first.data.shape == frame.data.shape


def test_black_and_saturated_are_what_they_say() -> None:
    assert not spoil(Modality.CAMERA, "black")[1].any()
    assert (spoil(Modality.CAMERA, "saturate")[1] == 255).all()


def test_blur_takes_contrast_and_keeps_brightness() -> None:
    before, after = spoil(Modality.CAMERA, "blur")
    assert after.std() < 0.2 * before.std()
    assert after.mean() == pytest.approx(before.mean(), abs=2)


def test_noise_is_relative_to_full_scale_depth_and_range() -> None:
    before, after = spoil(Modality.CAMERA, "noise", sigma=0.05)
    assert (after.astype(float) - before).std() == pytest.approx(12.75, rel=0.1)
    before, after = spoil(Modality.DEPTH, "noise", sigma=0.05)
    assert (after / before).std() == pytest.approx(0.05, rel=0.1)
    before, after = spoil(Modality.LIDAR, "noise", sigma=0.05)
    ranges = np.linalg.norm(after[:, :3], axis=1) / np.linalg.norm(before[:, :3], axis=1)
    assert ranges.std() == pytest.approx(0.05, rel=0.1)
    np.testing.assert_allclose(np.arctan2(after[:, 1], after[:, 0]), np.arctan2(before[:, 1], before[:, 0]), rtol=1e-4)
    np.testing.assert_array_equal(after[:, 3], before[:, 3])


@pytest.mark.parametrize("modality", [Modality.CAMERA, Modality.DEPTH, Modality.EVENT])
def test_blockage_covers_its_share_of_the_image(modality: Modality) -> None:
    before, after = spoil(modality, "blockage", fraction=0.3)
    covered = np.abs(np.indices((40, 60)).T - [20, 30]).max(axis=-1).T < 10
    assert not after[covered].any()
    kept = np.hypot(*(np.indices((40, 60)).T - [20, 30]).T) > 16
    np.testing.assert_array_equal(after[kept], before[kept])
    if modality is Modality.DEPTH:
        assert (after == 0).mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("kind", ["nan_depth", "zero_depth"])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_lost_depth_pixels_are_the_fraction(kind: str, fraction: float) -> None:
    before, after = spoil(Modality.DEPTH, kind, fraction=fraction)
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
    frame = ModalityFrame(Modality.LIDAR, points, 0)
    after = degrade(frame, "sector_loss", rng, from_deg=from_deg, to_deg=to_deg).data
    assert 1 - len(after) / 4000 == pytest.approx(lost_share, abs=0.03)
    degrees = np.degrees(after[:, 2])
    inside = (degrees - from_deg) % 360 <= (to_deg - from_deg) % 360 - 0.01
    assert not inside.any()


def test_sparse_points_are_a_subset() -> None:
    before, after = spoil(Modality.LIDAR, "sparse", keep=0.25)
    assert len(after) == pytest.approx(200, abs=50)
    assert {row.tobytes() for row in after} <= {row.tobytes() for row in before}


def test_an_event_flood_only_adds_and_saturates() -> None:
    before, after = spoil(Modality.EVENT, "event_flood", events_per_pixel=4)
    assert (after >= before).all()
    assert (after.astype(int) - before).mean() == pytest.approx(4, rel=0.1)
    assert (spoil(Modality.EVENT, "event_flood", events_per_pixel=255)[1] > 150).all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_corruption_hits_its_share_of_rows(modality: Modality) -> None:
    before, after = spoil(modality, "corrupt", fraction=0.5)
    touched = [a.tobytes() != b.tobytes() for a, b in zip(before, after, strict=True)]
    assert np.mean(touched) == pytest.approx(0.5, abs=0.2)


def test_a_stamp_offset_moves_the_stamp_only() -> None:
    frame = make_frame(Modality.DEPTH)
    shifted = degrade(frame, "stamp_offset", np.random.default_rng(0), offset_s=-1.5)
    assert shifted.stamp_ns == frame.stamp_ns - 1_500_000_000
    assert shifted.data is frame.data


@pytest.mark.parametrize(
    ("kind", "parameters", "named"),
    [
        ("melt", {}, "unknown fault kind 'melt'; known kinds: drop"),
        ("sparse", {}, "sparse does not apply to camera, only to lidar"),
        ("blur", {"radius": 3}, "blur has no parameter 'radius'; its parameters: sigma_px"),
        ("blur", {"sigma_px": -3}, "sigma_px is -3, outside 0.1 to 100"),
        ("blur", {"sigma_px": float("nan")}, "sigma_px is nan"),
        ("black", {"level": 3}, "its parameters: none"),
        ("freeze", {}, "fault of timing"),
    ],
)
def test_a_wrong_degradation_is_refused_by_name(kind: str, parameters: dict[str, float], named: str) -> None:
    with pytest.raises(FaultScheduleError, match=named):
        degrade(make_frame(Modality.CAMERA), kind, np.random.default_rng(0), **parameters)


# ---------------------------------------------------------------------------------------------------- over time


def play(
    entries: list[dict], seconds: float = 3.0, modality: Modality = Modality.CAMERA, seed: int = 0
) -> list[tuple[float, ModalityFrame]]:
    """(arrival in seconds, frame) of a 10 Hz sensor under a schedule; stamps are 5 s + departure."""
    injector = FaultInjector(FaultSchedule.parse({"seed": seed, "faults": entries}))
    arrivals = []
    for index in range(round(seconds * 10)):
        frame = make_frame(modality, seed=index, stamp_ns=5 * S + index * S // 10)
        arrivals += [(index / 10, arrived) for arrived in injector.apply(frame, index / 10)]
    return arrivals


def entry(kind: str, modality: str = "camera", **parameters: float) -> dict:
    return {"modality": modality, "kind": kind, "start_s": 1.0, "duration_s": 1.0, "parameters": parameters}


@pytest.mark.parametrize(("kind", "modality"), [(k, m) for k, fault in FAULT_KINDS.items() for m in fault.modalities])
def test_outside_its_interval_and_modality_nothing_is_touched(kind: str, modality: Modality) -> None:
    schedule = FaultSchedule.parse({"faults": [entry(kind, modality.value)]})
    for other in MODALITIES:
        injector = FaultInjector(schedule)
        times = (0.0, 0.999, 2.0, 9.0) if other is modality else (0.0, 1.0, 1.5, 9.0)
        for elapsed_s in times:
            frame = make_frame(other)
            (arrived,) = injector.apply(frame, elapsed_s)
            assert arrived is frame


def test_dropped_frames_never_arrive() -> None:
    arrivals = play([entry("drop")])
    assert [t for t, _ in arrivals] == [i / 10 for i in range(30) if not 10 <= i < 20]
    assert 3 <= len(play([entry("drop", probability=0.5)])) - 20 <= 8


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
    late = [(t, frame) for t, frame in arrivals if t - (frame.stamp_ns - 5 * S) / S > 0.01]
    assert [round((frame.stamp_ns - 5 * S) / S, 1) for _, frame in late] == [i / 10 for i in range(10, 20)]
    assert all(0.25 <= t - (frame.stamp_ns - 5 * S) / S < 0.36 for t, frame in late)


def test_a_live_player_polls_for_delayed_frames() -> None:
    injector = FaultInjector(FaultSchedule.parse({"faults": [entry("delay", delay_s=0.5)]}))
    frame = make_frame(Modality.CAMERA)
    assert injector.apply(frame, 1.0) == []
    assert injector.due(1.49) == []
    assert injector.due(1.5, Modality.DEPTH) == []
    assert injector.due(1.5) == [frame]
    assert injector.due(9.0) == []


def test_regressing_stamps_run_backwards() -> None:
    stamps = [frame.stamp_ns for _, frame in play([entry("stamp_regression")])]
    assert (np.diff(stamps[10:20]) == -S // 10).all()
    assert stamps[20] > stamps[19]


def test_entries_of_one_sensor_add_up_in_order() -> None:
    (_, first), *_ = play([entry("black") | {"start_s": 0}, entry("stamp_offset", offset_s=2) | {"start_s": 0}])
    assert not first.data.any()
    assert first.stamp_ns == 7 * S


def test_a_reset_plays_the_same_drive_again() -> None:
    injector = FaultInjector(FaultSchedule.parse({"faults": [entry("noise"), entry("drop", probability=0.5)]}))
    runs = []
    for _ in range(2):
        injector.reset()
        arrivals = [injector.apply(make_frame(Modality.CAMERA, seed=i), i / 10) for i in range(30)]
        runs.append([frame.data.tobytes() for arrived in arrivals for frame in arrived])
    assert runs[0] == runs[1]


def test_another_seed_gives_another_drive() -> None:
    drives = [{frame.data.tobytes() for _, frame in play([entry("noise")], seed=seed)} for seed in (1, 1, 2)]
    assert drives[0] == drives[1]
    assert len(drives[0] & drives[2]) == 20  # all but the ten spoiled frames


@given(st.integers(0, 2**32))
def test_interleaving_with_other_sensors_changes_nothing(seed: int) -> None:
    entries = [entry("drop", probability=0.5), entry("drop", "depth", probability=0.5)]
    alone = [t for t, _ in play(entries, seed=seed)]
    both = FaultInjector(FaultSchedule.parse({"seed": seed, "faults": entries}))
    among_others = []
    for index in range(30):
        both.apply(make_frame(Modality.DEPTH), index / 10)
        among_others += [index / 10] * len(both.apply(make_frame(Modality.CAMERA), index / 10))
    assert among_others == alone


@pytest.mark.parametrize(
    ("kind", "parameters", "fault"),
    [
        ("drop", {}, Fault.SILENT),
        ("freeze", {}, Fault.FROZEN),
        ("delay", {"delay_s": 0.3}, Fault.STALE_STAMP),
        ("stamp_offset", {"offset_s": -2.0}, Fault.STALE_STAMP),
        ("stamp_offset", {"offset_s": 2.0}, Fault.FUTURE_STAMP),
        ("stamp_regression", {}, Fault.STAMP_REGRESSION),
    ],
)
def test_health_names_the_injected_fault_and_recovers(kind: str, parameters: dict[str, float], fault: Fault) -> None:
    """The two halves of the project meet: what is injected is what is reported."""
    injector = FaultInjector(FaultSchedule.parse({"faults": [entry(kind, "camera", **parameters)]}))
    monitor = HealthMonitor(Modality.CAMERA, HealthConfig(), 5 * S)
    reported = []
    status = monitor.status(5 * S)
    for index in range(40):
        now = 5 * S + index * S // 10
        for frame in injector.apply(make_frame(Modality.CAMERA, seed=index, stamp_ns=now), index / 10):
            monitor.on_frame(frame, now)
        monitor.on_time(now)
        status = monitor.status(now)
        if status.state is State.FAILED:
            reported.append(status.fault)
    assert fault in reported
    assert (status.state, status.fault) == (State.ACTIVE, None)


# ------------------------------------------------------------------------------------------------------- loading


def test_a_schedule_is_read_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(
        "seed: 7\nfaults:\n"
        "  - {modality: camera, kind: drop, start_s: 5, duration_s: 5}\n"
        "  - {modality: depth, kind: noise, start_s: 8, parameters: {sigma: 0.3}}\n"
    )
    schedule = FaultSchedule.load(file)
    assert schedule.seed == 7
    drop, noise = schedule.faults
    assert (drop.modality, drop.kind, drop.active(9.99), drop.active(10.0)) == (Modality.CAMERA, "drop", True, False)
    assert (noise.parameters, noise.active(7.9), noise.active(1e9)) == ({"sigma": 0.3}, False, True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "faults: [{modality: camera, kind: drop, start_s: 1}, {modality: camera, kind: melt, start_s: 1}]",
            "fault 2.*melt",
        ),
        ("faults: [{modality: sonar, kind: drop, start_s: 1}]", "fault 1, modality"),
        ("faults: [{modality: depth, kind: blur, start_s: 1}]", "fault 1: blur does not apply to depth"),
        ("faults: [{modality: camera, kind: blur, start_s: 1, parameters: {size: 3}}]", "no parameter 'size'"),
        (
            "faults: [{modality: camera, kind: blur, start_s: 1, parameters: {sigma_px: much}}]",
            "fault 1, parameters, sigma_px",
        ),
        ("faults: [{modality: camera, kind: drop, start_s: -1}]", "fault 1, start_s"),
        ("faults: [{modality: camera, kind: drop, start_s: 1, duration_s: 0}]", "fault 1, duration_s"),
        ("faults: [{modality: camera, kind: drop}]", "fault 1, start_s: Field required"),
        ("faults: [{modality: camera, kind: drop, start_s: 1, until: 3}]", "fault 1, until"),
        ("speed: 3", "speed"),
        ("- drop", "the whole"),
        ("", "the whole"),
        ("faults: [", "cannot be read"),
    ],
)
def test_a_wrong_schedule_is_refused_by_entry(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(FaultScheduleError, match=rf"broken\.yaml.*{named}"):
        FaultSchedule.load(file)


def test_a_missing_schedule_is_named(tmp_path: Path) -> None:
    with pytest.raises(FaultScheduleError, match=r"absent\.yaml cannot be read"):
        FaultSchedule.load(tmp_path / "absent.yaml")
