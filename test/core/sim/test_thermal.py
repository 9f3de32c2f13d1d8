"""The simulated thermal camera: warm things are bright whatever the light, and it changes nothing for the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")

from anyseg_core.runtime.sensors import CAMERA, DEFAULT_SENSORS
from anyseg_core.sim.drive import Drive, DriveConfig
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.sim.shapes import LABEL
from anyseg_core.sim.thermal import THERMAL, temperatures_c, thermal
from anyseg_core.sim.weather import WEATHERS, Weather


def config(*, has_thermal: bool) -> DriveConfig:
    return DriveConfig(5, Weather.NIGHT, 0.2, 10.0, width=96, height=64, thermal=has_thermal)


def test_the_other_sensors_see_the_same_with_it_and_without() -> None:
    bare, more = Drive(config(has_thermal=False)).frame(1), Drive(config(has_thermal=True)).frame(1)
    assert tuple(bare.frames) == DEFAULT_SENSORS
    assert tuple(more.frames) == (*DEFAULT_SENSORS, THERMAL)
    for sensor in DEFAULT_SENSORS:
        np.testing.assert_array_equal(bare.frames[sensor].data, more.frames[sensor].data)


def test_a_frame_is_a_grey_picture_that_only_depends_on_the_drive_and_its_number() -> None:
    drive = Drive(config(has_thermal=True))
    frame = drive.frame(1).frames[THERMAL]
    assert CAMERA.fits(frame.data)
    assert (frame.data == frame.data[..., :1]).all()
    np.testing.assert_array_equal(Drive(config(has_thermal=True)).frame(1).frames[THERMAL].data, frame.data)
    assert (drive.frame(0).frames[THERMAL].data != frame.data).any()


@pytest.mark.parametrize("weather", WEATHERS, ids=str)
def test_who_lives_is_warmer_than_leaves_and_the_sky_is_cold(weather: Weather) -> None:
    celsius = temperatures_c(weather)
    assert celsius[LABEL["Pedestrian"]] > celsius[LABEL["Vegetation"]] + 10
    assert celsius[LABEL["Sky"]] < celsius[LABEL["Building"]]


def test_the_sun_warms_the_road_more_than_leaves() -> None:
    def road_above_leaves(weather: Weather) -> float:
        celsius = temperatures_c(weather)
        return float(celsius[LABEL["Road"]] - celsius[LABEL["Vegetation"]])

    assert road_above_leaves(Weather.SUN) > road_above_leaves(Weather.CLOUD) > road_above_leaves(Weather.NIGHT) > 0


def test_a_pedestrian_is_brighter_than_the_wall_behind_until_fog_hides_both() -> None:
    labels = np.full((64, 96), LABEL["Wall"], np.uint8)
    labels[20:50, 40:60] = LABEL["Pedestrian"]
    light = np.zeros(labels.shape, np.float32)

    def contrast(distance_m: float) -> float:
        distance = np.full(labels.shape, distance_m, np.float32)
        picture = thermal(labels, distance, light, 0.07, Weather.FOG, np.random.default_rng(0))[..., 0].astype(float)
        return picture[labels == LABEL["Pedestrian"]].mean() - picture[labels == LABEL["Wall"]].mean()

    assert contrast(5) > 100
    assert 0 < contrast(120) < contrast(40)


def test_a_recording_keeps_it(tmp_path: Path) -> None:
    drive = Drive(config(has_thermal=True))
    RecordedDrive.of(drive, drive.rig()).save(tmp_path / "five.npz")
    loaded = RecordedDrive.load(tmp_path / "five.npz")
    assert loaded.sensors == (*DEFAULT_SENSORS, THERMAL)
    kept, made = loaded.frame(1).frames[THERMAL], drive.frame(1).frames[THERMAL]
    assert np.abs(kept.data.astype(int) - made.data).mean() < 3  # JPEG
