"""Extrinsics come from TF or from a user; where neither knows them, it is said and the LiDAR is not used."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from living_sensors import live_frame
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.health.monitor import HealthConfig
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.pipeline.alignment import Lookup
from anyseg_ros.pipeline.calibration import Calibration
from anyseg_ros.pipeline.parameters import RigParameters
from anyseg_ros.pipeline.pipeline import Pipeline, SyncConfig

CAMERA, DEPTH, LIDAR = Sensor.CAMERA, Sensor.DEPTH, Sensor.LIDAR
LENS = PinholeCamera(64, 48, 50.0, 50.0, 31.5, 23.5)
SET = RigParameters(camera_from_lidar_rotation_xyzw=(0.5, -0.5, 0.5, 0.5))
MS = 1_000_000


def tf(target: str, source: str) -> NDArray[np.float64] | None:
    """A tree of two frames."""
    return np.diag([1.0, 1.0, 1.0, 1.0]) if (target, source) == ("optical", "lidar") else None


def calibration(parameters: RigParameters, lidar_frame: str = "lidar", optical_frame: str = "optical") -> Calibration:
    found = Calibration(parameters)
    found.set_camera(CAMERA, LENS, optical_frame)
    found.lidar_frame = lidar_frame
    return found


@pytest.mark.parametrize("frame", ["lidar", "/lidar"])
def test_tf_comes_before_the_parameters(frame: str) -> None:
    for parameters in (RigParameters(), SET):
        rig = calibration(parameters, frame).rig(tf)
        assert rig is not None
        assert (rig.missing, rig.source, rig.frame_id) == ("", "TF (lidar in optical)", "optical")


def test_a_lens_beside_its_frame_is_said_and_seen_by_who_is_taken_for_aligned() -> None:
    found = Calibration(RigParameters())
    found.set_camera(CAMERA, replace(LENS, center=(0.12, 0.0)), "optical")
    found.set_camera(DEPTH, LENS, "optical")
    found.lidar_frame = "lidar"
    rig = found.rig(tf)
    assert rig is not None
    beside = "P of camera_info puts the lens 0.120 m to the right of that frame and 0.000 m below it"
    assert rig.source.startswith(f"TF (lidar in optical); {beside}")
    assert "set rig.stereo_offset to false" in rig.source
    assert found.unregistered == {DEPTH: "its lens is 0.120 m beside the camera's, by P of camera_info"}


@pytest.mark.parametrize(
    ("parameters", "lookup", "place"),
    [
        pytest.param(RigParameters(), tf, (-0.12, 0.0, 0.0), id="TF of the left one's frame"),
        pytest.param(RigParameters(stereo_offset=False), tf, (0.0, 0.0, 0.0), id="TF of its own frame"),
        pytest.param(
            replace(SET, camera_from_lidar_translation_m=(0.1, 0.2, 0.3)),
            None,
            (-0.2, 0.1, 0.3),
            id="measured by a user",
        ),
    ],
)
def test_a_baseline_counts_once(
    parameters: RigParameters, lookup: Lookup | None, place: tuple[float, float, float]
) -> None:
    turned_left = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    found = Calibration(parameters)
    found.set_camera(CAMERA, replace(LENS, center=(0.12, 0.0), rectification=turned_left), "optical")
    found.lidar_frame = "lidar"
    rig = found.rig(lookup)
    assert rig is not None
    assert np.allclose(rig.picture_from_lidar[:3, 3], place)


@pytest.mark.parametrize(
    ("lidar", "optical", "words"),
    [
        ("velodyne", "optical", "TF does not connect velodyne with optical"),
        ("", "optical", "the points have no frame_id"),
        ("lidar", "", "camera_info has no frame_id"),
    ],
)
def test_what_tf_does_not_know_is_said_or_taken_from_the_user(lidar: str, optical: str, words: str) -> None:
    rig = calibration(RigParameters(), lidar, optical).rig(tf)
    assert rig is not None
    assert rig.missing.startswith(words)
    rig = calibration(SET, lidar, optical).rig(tf)
    assert rig is not None
    assert (rig.missing, rig.source) == ("", "the parameters rig.camera_from_lidar_*")


def test_without_tf_and_parameters_nothing_is_guessed() -> None:
    rig = calibration(RigParameters()).rig(None)
    assert rig is not None
    assert "TF is not used" in rig.missing


def test_the_rig_is_the_same_object_until_something_changes() -> None:
    found = calibration(SET)
    rig = found.rig(None)
    assert found.rig(None) is rig
    found.lidar_frame = "other"
    assert found.rig(None) is rig
    assert found.rig(tf) is rig  # not in the tree
    found.lidar_frame = "lidar"
    assert found.rig(tf) is not rig


def test_extrinsics_that_were_valid_do_not_outlive_tf() -> None:
    found = calibration(RigParameters())
    assert not cast("Rig", found.rig(tf)).missing
    assert cast("Rig", found.rig(lambda _target, _source: None)).missing


def test_depth_s_intrinsics_stand_in_until_the_camera_s_come() -> None:
    found = Calibration(SET)
    assert found.rig(None) is None
    found.set_camera(DEPTH, LENS, "depth_optical")
    rig = cast("Rig", found.rig(None))
    assert (rig.sensor, rig.frame_id) == (DEPTH, "depth_optical")
    found.set_camera(CAMERA, LENS, "optical")
    rig = cast("Rig", found.rig(None))
    assert (rig.sensor, rig.frame_id) == (CAMERA, "optical")


def pipeline(rig: Rig) -> Pipeline:
    """All sensors once at 1 s."""
    config = {m: HealthConfig(10.0) for m in DEFAULT_SENSORS}
    made = Pipeline(config, SyncConfig(), 0)
    made.set_rig(rig)
    for sensor in DEFAULT_SENSORS:
        made.on_frame(live_frame(sensor, 1000 * MS), 1005 * MS)
    return made


def test_a_lidar_that_nobody_has_placed_is_left_out_and_said() -> None:
    job = pipeline(Rig(LENS, missing="TF does not connect a with b")).poll(1100 * MS)
    assert job is not None
    assert LIDAR not in job.frames
    lidar = next(s for s in job.statuses if s.modality == LIDAR)
    assert lidar.left_out == "TF does not connect a with b"


def test_intrinsics_of_other_pictures_place_no_lidar() -> None:
    other = PinholeCamera(640, 480, 500.0, 500.0, 319.5, 239.5)
    job = pipeline(Rig(other, sensor=CAMERA)).poll(1100 * MS)
    assert job is not None
    assert LIDAR not in job.frames
    lidar = next(s for s in job.statuses if s.modality == LIDAR)
    assert lidar.left_out == "camera_info is of 640x480 pixels, the pictures of camera are 64x48"
    job = pipeline(Rig(LENS, sensor=CAMERA)).poll(1100 * MS)
    assert job is not None
    assert LIDAR in job.frames
