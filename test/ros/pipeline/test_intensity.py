"""Intensity has no unit: its field is found, its range learnt or set, and the student gets what it was trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from living_sensors import live_frame
from small_bags import LIDAR as LIDAR_TOPIC
from small_bags import TYPES, drive, write_ros2
from toy_student import write_toy_student

from anyseg_core.runtime.full_scale import INTENSITY_MEMORY, INTENSITY_SCALES, FullScale
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.geometry.rigid_transform import rigid_transform
from anyseg_core.runtime.health.monitor import HealthConfig, ModalityStatus
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.model_card import InputSpec, LidarEncoding
from anyseg_core.runtime.sensors import Intensity, Sensor, SensorFrame
from anyseg_ros.messages import conversions
from anyseg_ros.messages.sensor_messages import BRIGHT_SHARE, POINT_CLOUD, reader_of
from anyseg_ros.pipeline.pipeline import Pipeline, SyncConfig
from anyseg_ros.replay.offline import ReplayOptions, replay

LIDAR = Sensor.LIDAR
MS = 10**6
HEADER = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=0), frame_id="lidar")
RIG = Rig(PinholeCamera(64, 32, 40.0, 40.0, 31.5, 15.5))
"""Of points that are in the camera's own axes."""
PLACED = Rig(RIG.camera, rigid_transform((0.0, 0.0, 0.0), (0.5, -0.5, 0.5, 0.5)), source="TF (lidar in optical)")
"""Of a LiDAR that looks where the camera does."""
_CODES = {"u1": 2, "u2": 4, "f4": 7, "f8": 8}


def cloud(values: np.ndarray, name: str = "intensity", code: str = "f4") -> Any:
    """A wall 10 m ahead of a camera, with these values [N] in a field of that name."""
    points = np.zeros(len(values), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("v", f"<{code}")])
    points["x"], points["y"], points["z"], points["v"] = np.linspace(-7, 7, len(values)), 0.1, 10, values
    fields = [("x", 0, 7), ("y", 4, 7), ("z", 8, 7), (name, 12, _CODES[code])]
    return SimpleNamespace(
        header=HEADER, height=1, width=len(values), is_bigendian=False, is_dense=True,
        fields=[SimpleNamespace(name=n, offset=o, datatype=d, count=1) for n, o, d in fields],
        point_step=points.itemsize, row_step=points.nbytes, data=points.tobytes(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["intensity", "reflectivity", "reflectance", "i", "signal", "Intensity", "remission", "Reflectivity"]
)
@pytest.mark.parametrize("code", ["u1", "u2", "f4", "f8"])
def test_the_field_is_found_by_its_names(name: str, code: str) -> None:
    frame = reader_of(LIDAR, POINT_CLOUD)(cloud(np.array([7, 77, 200]), name, code))
    np.testing.assert_array_equal(frame.data[:, 3], [7, 77, 200])
    assert frame.intensity == Intensity(name, 255.0, is_learnt=True)


def test_intensity_itself_comes_before_the_others() -> None:
    message = cloud(np.array([1, 2, 3]), "reflectivity")
    message.fields.append(SimpleNamespace(name="intensity", offset=0, datatype=7, count=1))
    assert conversions.intensity_field(message) == "intensity"


def test_a_cloud_without_one_says_so() -> None:
    frame = reader_of(LIDAR, POINT_CLOUD)(cloud(np.array([1, 2, 3]), "ring", "u2"))
    assert frame.intensity == Intensity("", 0.0, is_learnt=True)
    assert not frame.data[:, 3].any()


@pytest.mark.parametrize(
    ("top", "full_scale"),
    [(0.4, 1), (0.99, 1), (1.0, 1), (30, 255), (255, 255), (300, 512), (1500, 2048), (6e4, 65536)],
)
def test_the_range_is_learnt(top: float, full_scale: float) -> None:
    read = reader_of(LIDAR, POINT_CLOUD)
    rng = np.random.default_rng(0)
    frames = [read(cloud(np.append(rng.uniform(0, top, 2000), [top] * 20))) for _ in range(6)]
    assert [frame.intensity.full_scale for frame in frames if frame.intensity] == [full_scale] * 6


def test_a_range_that_is_set_is_kept() -> None:
    frame = reader_of(LIDAR, POINT_CLOUD, 100.0)(cloud(np.linspace(0, 250, 50)))
    assert frame.intensity == Intensity("intensity", 100.0, is_learnt=False)


def test_mirrors_torn_scans_and_rays_without_a_return_teach_nothing() -> None:
    scale = FullScale(INTENSITY_SCALES, BRIGHT_SHARE)
    good = np.linspace(0, 1, 1000)
    for values in (np.append(good, [9.0, 1e30]), good, np.append(good, [np.nan, np.inf]), np.zeros(9), np.zeros(0)):
        assert scale.learn(values.astype(np.float32)) == 1.0
    assert scale.learn(np.full(1000, 1e30, np.float32)) == 1.0
    message = cloud(np.array([200.0, 0.5, 0.7]))
    data = np.frombuffer(message.data, np.float32).copy()
    data[:3] = 0  # no return, and noise where its intensity would be
    message.data = data.tobytes()
    frame = reader_of(LIDAR, POINT_CLOUD)(message)
    assert frame.intensity is not None
    assert frame.intensity.full_scale == 1


@pytest.mark.parametrize(("factor", "kept"), [(64.0, 255), (1e30, 255), (3.0, 1024)])
def test_what_a_fault_of_some_seconds_taught_is_forgotten(factor: float, kept: float) -> None:
    """A LiDAR that is wrong for a while must not lose its intensity for good; a factor of 3 may be another street."""
    read, values = reader_of(LIDAR, POINT_CLOUD), np.linspace(0, 200, 400)
    for _ in range(60):
        read(cloud(values))
    for _ in range(60):
        read(cloud(values * factor))
    frames = [read(cloud(values)) for _ in range(INTENSITY_MEMORY + 10)]
    assert frames[0].intensity is not None
    assert frames[0].intensity.full_scale > 255
    assert frames[-1].intensity is not None
    assert frames[-1].intensity.full_scale == kept


@pytest.mark.parametrize("trained", [1.0, 255.0])
def test_the_student_sees_the_same_whatever_the_driver_s_unit(trained: float) -> None:
    shares = np.linspace(0, 1, 400)
    spec = InputSpec(modality=LIDAR, encoding=LidarEncoding(max_intensity=trained))
    images = [
        encode_frame(reader_of(LIDAR, POINT_CLOUD)(cloud(shares * unit)), spec, (32, 64), RIG).astype(int)
        for unit in (1.0, 255.0, 65535.0)
    ]
    assert images[0][..., 1].max() == 255
    for other in images[1:]:
        np.testing.assert_allclose(other, images[0], atol=1)
    without = SensorFrame(LIDAR, conversions.lidar_frame(cloud(shares * trained)).data, 0)  # a file of training
    np.testing.assert_allclose(encode_frame(without, spec, (32, 64), RIG), images[0], atol=1)


def status_with(intensity: Intensity | None, trained: float = 255.0, rig: Rig | None = PLACED) -> ModalityStatus:
    """The LiDAR's, after one scan."""
    encodings = {LIDAR: LidarEncoding(max_intensity=trained)}
    pipeline = Pipeline({LIDAR: HealthConfig(10.0)}, SyncConfig(), 0, encodings)
    if rig is not None:
        pipeline.set_rig(rig)
    pipeline.on_frame(replace(live_frame(LIDAR, 1000 * MS), intensity=intensity), 1005 * MS)
    return pipeline.statuses(1006 * MS)[0]


@pytest.mark.parametrize(
    ("intensity", "text", "remark"),
    [
        (Intensity("i", 1.0, True), "field i, 0 to 1 (learnt), brought to the student's 0 to 255", ""),
        (Intensity("i", 255.0, False), "field i, 0 to 255 (set)", ""),
        (Intensity("i", 0.0, True), "field i, 0 in every point so far", ""),
        (Intensity("", 0.0, True), "none", "the points have no intensity"),
        (
            Intensity("signal", 2048.0, True),
            "field signal, 0 to 2048 (learnt), brought",
            "set modalities.lidar.full_scale",
        ),
        (Intensity("signal", 2048.0, False), "field signal, 0 to 2048 (set), brought", ""),
    ],
)
def test_the_status_says_what_comes_and_what_is_to_be_mended(intensity: Intensity, text: str, remark: str) -> None:
    status = status_with(intensity)
    assert status.details["intensity"].startswith(text)
    assert remark in status.remark
    assert bool(remark) == bool(status.remark)


def test_nothing_is_said_of_what_nobody_looked_at() -> None:
    status = status_with(None)
    assert "intensity" not in status.details
    assert status.remark == ""


@pytest.mark.parametrize(
    ("rig", "source"),
    [
        (PLACED, "TF (lidar in optical)"),
        (None, "none"),
        (replace(PLACED, source="", missing="not used: nobody"), "none"),
    ],
)
def test_the_status_says_where_the_extrinsics_come_from(rig: Rig | None, source: str) -> None:
    assert status_with(None, rig=rig).details["extrinsics"] == source


def test_a_replay_says_the_same(tmp_path: Path) -> None:
    written = list(drive(12))
    for each in written:
        if each.topic == LIDAR_TOPIC:
            field = TYPES["sensor_msgs/msg/PointField"]
            each.message.fields[3] = field(name="reflectivity", offset=12, datatype=7, count=1)
            each.message.data.view(np.float32)[3::4] /= 60
    student = write_toy_student(tmp_path / "student")
    options = ReplayOptions(student=str(student))
    result = replay(write_ros2(tmp_path / "bag", written), tmp_path / "out", options)
    assert "lidar: intensity: field reflectivity, 0 to 1 (learnt), brought to the student's 0 to 255" in result.notes


@pytest.mark.parametrize(
    ("quaternion", "lidar_frame", "is_said"),
    [
        ((0.5, -0.5, 0.5, 0.5), "lidar", False),
        ((0.0, 0.0, 0.0, 1.0), "lidar", True),
        ((0.0, 0.1, 0.0, 0.995), "lidar", True),
        ((0.0, 0.0, 0.0, 1.0), "camera_depth_optical_frame", False),
        ((0.0, 0.0, 1.0, 0.0), "lidar", False),
    ],
    ids=["as it should be", "a camera's body", "one that is pitched", "points of a depth camera", "upside down"],
)
def test_a_camera_frame_with_the_axes_of_a_lidar_is_said(
    quaternion: tuple[float, ...], lidar_frame: str, is_said: bool
) -> None:
    """camera_info of `camera_link`: what is ahead of the vehicle would be at the right edge of the picture."""
    rig = Rig(RIG.camera, rigid_transform((0.0, 0.0, 0.0), quaternion), frame_id="camera_link")
    assert rig.odd_axes(lidar_frame).startswith("camera_info's camera_link has the axes of lidar") is is_said
    pipeline = Pipeline({Sensor.LIDAR: HealthConfig(checks={})}, SyncConfig(), 0)
    pipeline.set_rig(rig)
    points = np.random.default_rng(0).uniform(1, 30, (5000, 4)).astype(np.float32)
    pipeline.on_frame(SensorFrame(Sensor.LIDAR, points, 10**9, lidar_frame), 10**9)
    (status,) = pipeline.statuses(10**9)
    assert ("an optical frame is needed" in status.remark) is is_said
