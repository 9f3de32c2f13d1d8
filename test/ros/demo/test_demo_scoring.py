"""The demo's verdict: what it must notice, and what it must not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from anyseg_core.injection import ScheduledInjection
from anyseg_core.injection.phases import Phase, phases_of
from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.demo.report import DriveRecord
from anyseg_ros.demo.scoring import Promise, broken_promises, score_phase
from anyseg_ros.live_run.recording import ReceivedMask, Recording, StatusSample

if TYPE_CHECKING:
    from anyseg_core.runtime.geometry.projection import Rig

PERIOD_NS = 100_000_000
ENGINE_MS = 40.0
PROMISE = Promise(period_ms=100, deadline_ms=150, max_age_ms=300)
START_NS = 1_700_000_000_000_000_000
CAMERA_DROP = ScheduledInjection(modality=Sensor.CAMERA, kind="drop", start_s=1.0, duration_s=1.0)


def stamp_of(index: int) -> int:
    return START_NS + index * PERIOD_NS


def perfect_drive(frames: int = 30, lost: range = range(0)) -> Recording:
    """Every frame has its mask, 60 ms later; the camera is not used in the frames of `lost`."""
    recording = Recording()
    for index in range(frames):
        stamp = stamp_of(index)
        labels = np.full((8, 8), index % 3, np.uint8)
        recording.truth[stamp] = labels
        recording.masks.append(ReceivedMask(stamp, stamp + 60_000_000, labels))
        for modality in DEFAULT_SENSORS:
            used = modality is not Sensor.CAMERA or index not in lost
            state = State.ACTIVE if used else State.FAILED
            age = 50.0 if used else 500.0
            recording.statuses.append(
                StatusSample(stamp, stamp + 60_000_000, modality, state, "", used, age, ENGINE_MS)
            )
    return recording


def test_a_perfect_drive_breaks_no_promise() -> None:
    assert broken_promises(perfect_drive(), PROMISE) == []


def test_a_computer_that_is_too_slow_for_the_vehicle_is_named_and_no_other() -> None:
    card = load_card(find_student("vehicle_sim"), verify=False)
    rig = cast("Rig", None)  # of the pictures, which are not drawn here
    record = DriveRecord(perfect_drive(), [], [], [], card, rig, {}.get, "", "", 0, "cloud", rate_hz=10.0)  # type: ignore[arg-type]
    assert record.slowness == ""
    assert "drove at 10.0 Hz instead of 16.4" in replace(record, rate_hz=16.4).slowness


def test_a_drive_without_masks_is_broken() -> None:
    recording = perfect_drive()
    recording.masks.clear()
    assert broken_promises(recording, PROMISE) == ["no label image was received at all"]


def test_a_stamp_that_no_sensor_measured_is_noticed() -> None:
    recording = perfect_drive()
    recording.masks[5] = replace(recording.masks[5], stamp_ns=stamp_of(5) + 1)
    assert any("no sensor measured" in line for line in broken_promises(recording, PROMISE))


def test_a_repeated_stamp_is_noticed() -> None:
    recording = perfect_drive()
    recording.masks[5] = replace(recording.masks[4], received_ns=recording.masks[5].received_ns)
    assert any("came after" in line for line in broken_promises(recording, PROMISE))


def test_an_old_mask_is_noticed() -> None:
    recording = perfect_drive()
    last = recording.masks[-1]
    recording.masks[-1] = replace(last, received_ns=last.stamp_ns + 600_000_000)
    assert any("600 ms old" in line for line in broken_promises(recording, PROMISE))


def test_missing_masks_are_noticed() -> None:
    recording = perfect_drive()
    del recording.masks[10:15]
    assert any("no mask for 600 ms" in line for line in broken_promises(recording, PROMISE))


def test_silence_at_the_end_is_noticed() -> None:
    recording = perfect_drive()
    del recording.masks[20:]
    assert any("no mask for" in line for line in broken_promises(recording, PROMISE))


def test_an_old_frame_in_a_mask_is_noticed() -> None:
    recording = perfect_drive()
    recording.statuses[0] = replace(recording.statuses[0], frame_age_ms=350.0)
    assert any("frame 350 ms old" in line for line in broken_promises(recording, PROMISE))


def test_phases_are_cut_at_every_begin_and_end() -> None:
    other = ScheduledInjection(modality=Sensor.LIDAR, kind="drop", start_s=1.5, duration_s=10.0)
    phases = phases_of([CAMERA_DROP, other], 3.0)
    assert [(p.start_s, p.end_s, p.name) for p in phases] == [
        (0.0, 1.0, "all alive"),
        (1.0, 1.5, "camera drop"),
        (1.5, 2.0, "camera drop, lidar drop"),
        (2.0, 3.0, "lidar drop"),
    ]


def test_a_phase_is_scored_against_the_truth_of_its_own_stamps() -> None:
    recording = perfect_drive()
    recording.masks[12] = replace(recording.masks[12], labels=recording.masks[12].labels + 1)
    right = score_phase(recording, Phase(0.0, 1.0, ()), num_classes=5)
    wrong = score_phase(recording, Phase(1.0, 2.0, ()), num_classes=5)
    assert right.miou == 1.0
    assert wrong.miou is not None
    assert wrong.miou < 1.0
    assert right.masks == 10
    assert right.rate_hz == pytest.approx(10.0)
    assert right.latency_p50_ms == pytest.approx(60.0)
    assert right.used == {DEFAULT_SENSORS: 10}


def test_the_reaction_is_the_first_mask_without_the_faulty_sensor() -> None:
    recording = perfect_drive(lost=range(12, 20))
    score = score_phase(recording, Phase(1.0, 2.0, (CAMERA_DROP,)), num_classes=5)
    assert score.reaction_ms == pytest.approx(260.0)
    assert score_phase(perfect_drive(), Phase(1.0, 2.0, (CAMERA_DROP,)), num_classes=5).reaction_ms is None
