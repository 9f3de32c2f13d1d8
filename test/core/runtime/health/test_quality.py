"""Quality of a live sensor, and masks without the poor ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from living_sensors import live_data, live_frame
from numpy.typing import NDArray

from anyseg_core.injection import degrade
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.health.monitor import HealthConfig, ModalityStatus, State
from anyseg_core.runtime.health.quality import Quality, SmoothQuality, quality_of
from anyseg_core.runtime.health.statistics import statistics_of
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_ros.pipeline.pipeline import Pipeline, SyncConfig

CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS
PERIOD_NS = 100_000_000
START_NS = 10**12
RIG = Rig(PinholeCamera(64, 48, 40.0, 40.0, 31.5, 23.5))


def quality(modality: Sensor, data: NDArray, usual: NDArray | None = None) -> Quality:
    return quality_of(statistics_of(SensorFrame(modality, data, 0)), usual)


def noisy_night(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noise of 12 % of full scale: high gain, not yet a fault."""
    picture = live_data(CAMERA, rng, 144, 192).astype(float)
    return np.clip(picture + rng.normal(0, 0.12 * 255, picture.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("modality", DEFAULT_SENSORS)
def test_a_living_sensor_is_a_good_witness(modality: Sensor) -> None:
    assert quality(modality, live_data(modality, np.random.default_rng(0), 144, 192)).value > 0.7


def test_quality_falls_with_what_spoils_the_picture_and_says_what() -> None:
    rng = np.random.default_rng(0)
    clear = live_data(CAMERA, rng, 144, 192)
    fog = cv2.addWeighted(clear, 0.1, np.full_like(clear, 160), 0.9, 0)
    assert quality(CAMERA, fog).cause == "visibility"
    assert quality(CAMERA, noisy_night(rng)).cause == "noise"
    assert quality(CAMERA, cv2.convertScaleAbs(clear, alpha=0.25)).cause == "darkness"
    assert quality(CAMERA, cv2.convertScaleAbs(clear, alpha=3.0)).cause == "overexposure"
    assert max(quality(CAMERA, picture).value for picture in (fog, noisy_night(rng))) < 0.6


def test_less_depth_fewer_points_and_no_events_are_poorer() -> None:
    rng = np.random.default_rng(0)
    depth, points = live_data(DEPTH, rng), live_data(LIDAR, rng)
    depth[:36] = 0
    assert quality(DEPTH, depth) == (pytest.approx(0.25), "share of pixels with depth")
    usual = statistics_of(SensorFrame(LIDAR, points, 0)).profile  # type: ignore[union-attr]
    assert quality(LIDAR, points[::2], usual) == (pytest.approx(0.5, abs=0.02), "share of the usual points")
    assert quality(EVENT, np.zeros((48, 64, 2), np.uint8)) == (0.0, "share of pixels with events")


def test_noise_lowers_the_quality_of_every_sensor_that_measures() -> None:
    rng = np.random.default_rng(0)
    for modality in (CAMERA, DEPTH, LIDAR):
        frame = SensorFrame(modality, live_data(modality, rng, 144, 192), 0)
        values = [quality(modality, degrade(frame, "noise", rng, sigma=s).data).value for s in (0.0, 0.05, 0.1, 0.5)]
        assert values == sorted(values, reverse=True)
        assert values[-1] == 0.0


def test_one_frame_decides_nothing() -> None:
    smooth = SmoothQuality()
    for _ in range(20):
        smooth.learn(Quality(0.8, "noise"))
    smooth.learn(Quality(0.0, "darkness"))
    assert smooth.newest == (pytest.approx(0.72), "darkness")
    assert str(smooth.newest) == "0.72 (darkness)"


# ------------------------------------------------------------------------------------------------ the mask without it


class World:
    """Synchronous sensors at 10 Hz; the camera delivers what it is given."""

    def __init__(self, min_quality: Mapping[Sensor, float], keep_at_least: int = 2) -> None:
        health = {m: HealthConfig(min_quality=min_quality.get(m, 0.0)) for m in DEFAULT_SENSORS}
        self.sync = SyncConfig(keep_at_least=keep_at_least)
        self.pipeline = Pipeline(health, self.sync, START_NS)
        self.pipeline.set_rig(RIG)
        self.now = START_NS
        self.rng = np.random.default_rng(0)

    def drive(self, frames: int, night: bool, alive: tuple[Sensor, ...] = DEFAULT_SENSORS) -> list[set[Sensor]]:
        """What each mask is made from."""
        used = []
        for _ in range(frames):
            self.now += PERIOD_NS
            for modality in alive:
                frame = live_frame(modality, self.now, 144, 192)
                if modality is CAMERA and night:
                    frame = replace(frame, data=noisy_night(self.rng))
                self.pipeline.on_frame(frame, self.now)
            job = self.pipeline.poll(self.now)
            assert job is not None
            used.append(set(job.frames))
        return used

    def status(self, modality: Sensor) -> ModalityStatus:
        return next(s for s in self.pipeline.statuses(self.now) if s.modality is modality)


def test_a_poor_camera_is_left_out_and_comes_back() -> None:
    world = World({CAMERA: 0.4})
    assert all(used == set(DEFAULT_SENSORS) for used in world.drive(5, night=False))
    at_night = world.drive(30, night=True)
    assert at_night[-1] == {DEPTH, EVENT, LIDAR}
    status = world.status(CAMERA)
    assert (status.state, status.fault) == (State.ACTIVE, None)
    assert status.left_out.startswith("quality 0.2")
    assert status.left_out.endswith("(noise) < 0.40")
    assert world.drive(30, night=False)[-1] == set(DEFAULT_SENSORS)
    assert world.status(CAMERA).left_out == ""
    changes = [before != after for before, after in pairwise(at_night)]
    assert sum(changes) == 1


def test_without_a_limit_nobody_is_left_out() -> None:
    assert World({}).drive(30, night=True)[-1] == set(DEFAULT_SENSORS)


@pytest.mark.parametrize(
    ("alive", "expected"), [((CAMERA, DEPTH, LIDAR), {DEPTH, LIDAR}), ((CAMERA, DEPTH), {CAMERA, DEPTH})]
)
def test_enough_others_must_remain(alive: tuple[Sensor, ...], expected: set[Sensor]) -> None:
    assert World({CAMERA: 0.4}).drive(30, night=True, alive=alive)[-1] == expected


def test_the_last_one_is_never_left_out() -> None:
    world = World(dict.fromkeys(DEFAULT_SENSORS, 1.0), keep_at_least=1)
    assert world.drive(30, night=True, alive=(CAMERA,))[-1] == {CAMERA}
    assert len(world.drive(30, night=True)[-1]) == 1


def test_a_limit_that_is_lifted_at_run_time_takes_it_in_again() -> None:
    world = World({CAMERA: 0.4})
    assert CAMERA not in world.drive(30, night=True)[-1]
    world.pipeline.reconfigure({m: HealthConfig() for m in DEFAULT_SENSORS}, world.sync, world.now)
    assert CAMERA in world.drive(1, night=True)[-1]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_an_impossible_limit_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="min_quality must be in"):
        HealthConfig(min_quality=value)
    with pytest.raises(ValueError, match=r"keep_at_least must be in \[1, 100\]"):
        SyncConfig(keep_at_least=0)
