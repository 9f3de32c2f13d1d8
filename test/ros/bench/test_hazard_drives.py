"""What comes before a hazard is played once, and the masks during it are held against the labels in four ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fitting_sensors import HEIGHT, RIG, WIDTH, Scene, at_stamp
from toy_student import write_toy_student

from anyseg_core.injection import InjectionSchedule, Injector
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS
from anyseg_ros.bench.hazard_drives import Drive, Moment, Network, Playing, ns_at
from anyseg_ros.bench.hazard_masks import (
    ALL_RIGHT,
    LATER,
    WITH_POLICY,
    WITHOUT_POLICY,
    WITHOUT_SENSOR,
    HazardMasks,
    pooled_miou,
)
from anyseg_ros.bench.hazard_trials import Hazard, schedule_of

CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS
FROM_S, LASTS_S = 3.0, 4.0
MOMENTS = 70


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    segmenter = Segmenter.open(write_toy_student(tmp_path_factory.mktemp("toy")), threads=1)
    yield Network(segmenter)
    segmenter.close()


@pytest.fixture(scope="module")
def drive() -> Drive:
    scene, times = Scene(), [number / 10 for number in range(MOMENTS)]
    frames = [(t, at_stamp(f, ns_at(t))) for n, t in enumerate(times) for f in scene.frames(n).values()]
    return Drive(frames, RIG, [None] * MOMENTS, [np.full((HEIGHT, WIDTH), 15, np.uint8)] * MOMENTS)


def injector(hazard: Hazard | None) -> Injector:
    return Injector(schedule_of(hazard) if hazard is not None else InjectionSchedule())


def said(moments: list[Moment]) -> list[object]:
    return [(m.at_s, {s: (d.fault, d.reason) for s, d in m.disputes.items()}, m.levels) for m in moments]


@pytest.mark.parametrize("sensors", [DEFAULT_SENSORS, (CAMERA, LIDAR)])
@pytest.mark.parametrize("kind", ["mirror", "old_content", "freeze_noise", "torn"])
def test_a_copy_goes_on_as_the_drive_itself_would(drive: Drive, network: Network, sensors, kind: str) -> None:
    hazard = Hazard(kind, CAMERA, from_s=FROM_S, lasts_s=LASTS_S)
    whole = Playing(drive, sensors, network)
    whole.play_until(drive.end_s, injector(hazard))
    before = Playing(drive, sensors, network)
    before.play_until(FROM_S, injector(None), includes_end=False)
    copies = [before.copy() for _ in range(2)]
    for copied in copies:
        copied.play_until(drive.end_s, injector(hazard))
        assert said(copied.moments) == said(whole.moments)
    assert len(sensors) == 2 or any(moment.disputes for moment in whole.moments)
    assert len(before.moments) == round(10 * FROM_S)  # the original has not moved


def test_masks_are_scored_in_four_ways(drive: Drive, network: Network) -> None:
    hazard = Hazard("depth_constant", DEPTH, from_s=FROM_S, lasts_s=LASTS_S)
    playing = Playing(drive, DEFAULT_SENSORS, network)
    playing.play_until(FROM_S, injector(None), includes_end=False)
    masks = HazardMasks(drive, DEFAULT_SENSORS, DEPTH, FROM_S, network)
    playing.play_until(drive.end_s, injector(hazard), masks.add)
    counts = masks.counts
    assert {ALL_RIGHT, WITHOUT_POLICY, WITH_POLICY, WITHOUT_SENSOR} < set(counts)
    assert counts[WITH_POLICY + LATER] == counts[WITHOUT_SENSOR + LATER]  # it is out by then
    assert counts[WITHOUT_POLICY + LATER] != counts[WITHOUT_SENSOR + LATER]
    pixels = sum(n for _, _, n in counts[ALL_RIGHT])
    assert pixels == 8 * HEIGHT * WIDTH  # every fifth of 40


def test_miou_is_that_of_all_pixels_together() -> None:
    half_right = [(0, 0, 50), (0, 1, 50)]
    assert pooled_miou([half_right]) == pytest.approx(50.0)
    assert pooled_miou([half_right, [(1, 1, 50)]]) == pytest.approx(100 * (50 / 100 + 50 / 100) / 2)
    assert pooled_miou([[(2, 25, 10)], [(2, 2, 10)]]) == pytest.approx(50.0)  # 25: no prediction
    assert pooled_miou([]) is None


def test_what_was_made_of_a_drive_is_made_once(drive: Drive, network: Network, monkeypatch) -> None:
    frames = {f.modality: f for t, f in drive.frames if t == 1.0}
    first = network.segment(frames, drive)
    monkeypatch.setattr(network._segmenter, "segment", None)
    assert network.segment(frames, drive) is first


def test_a_drive_knows_its_sensors_and_its_end(drive: Drive, tmp_path: Path) -> None:
    assert drive.sensors == DEFAULT_SENSORS
    assert drive.end_s == pytest.approx(MOMENTS / 10)
