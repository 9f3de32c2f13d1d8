"""Frames are rectified and registered where the parameters ask for it, in a bag as in the node; never guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bags import (
    CAMERA,
    DEPTH,
    HEIGHT,
    INFO,
    TF,
    TYPES,
    WIDTH,
    Written,
    camera_info,
    drive,
    transforms,
    write_ros2,
)

from anyseg_core.runtime.geometry.distortion import PLUMB_BOB, Distortion
from anyseg_core.runtime.geometry.projection import PinholeCamera
from anyseg_core.runtime.geometry.registration import Rectification
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.bags.samples import BagSamples, BagTopics, FrameSample, RigSample, Sample
from anyseg_ros.bags.topics import find_companions, find_topics
from anyseg_ros.messages.conversions import ConversionError
from anyseg_ros.pipeline.alignment import Alignment, KnownCamera, why_unregistered
from anyseg_ros.pipeline.calibration import Calibration
from anyseg_ros.pipeline.parameters import Parameters, RigParameters

DEPTH_INFO = "/depth/camera_info"
LENS = (-0.2, 0.03, 0.0, 0.0, 0.0)
K = (50.0, 0, 32.0, 0, 50.0, 24.0, 0, 0, 1)
DEPTH_K = (30.0, 0, 32.0, 0, 30.0, 24.0, 0, 0, 1)
RAW = PinholeCamera(WIDTH, HEIGHT, 50.0, 50.0, 32.0, 24.0, Distortion(PLUMB_BOB, LENS))


def raw_drive(*, has_tf: bool = True, has_depth_info: bool = True) -> Iterator[Written]:
    """A raw camera, and a depth camera of another focal length, 0.1 m to its left, with frames of their own."""
    for written in drive(4, (CAMERA, DEPTH, INFO)):
        if written.topic == INFO:
            info = camera_info(HEIGHT, WIDTH, K, written.received_ns)
            info.d = np.array(LENS)
            yield written._replace(message=info)
            if has_tf:
                place = transforms("camera_optical_frame", "depth_optical", (0.0, 0.0, 0.0, 1.0), written.received_ns)
                place.transforms[0].transform.translation = TYPES["geometry_msgs/msg/Vector3"](x=-0.1, y=0.0, z=0.0)
                yield Written(TF, written.received_ns, place)
            if has_depth_info:
                other = camera_info(HEIGHT, WIDTH, DEPTH_K, written.received_ns)
                other.header.frame_id = "depth_optical"
                yield Written(DEPTH_INFO, written.received_ns, other)
        else:
            yield written


def samples_of(bag: Path, rig: RigParameters) -> tuple[list[Sample], BagSamples]:
    reader = BagReader(bag)
    connections = [(choice.topic, choice.msgtype) for choice in reader.topics]
    sensors = find_topics(connections, {}, wanted=(Sensor.CAMERA, Sensor.DEPTH))
    topics = BagTopics(sensors, find_companions(connections, sensors, {}))
    samples = BagSamples(reader, topics, Parameters(rig=rig), uses_stamps=False)
    return list(samples), samples


def last(samples: list[Sample], sensor: Sensor) -> SensorFrame:
    return [s.frame for s in samples if isinstance(s, FrameSample) and s.frame.modality == sensor][-1]


def test_a_bag_of_raw_pictures_becomes_aligned_ones(tmp_path: Path) -> None:
    bag = write_ros2(tmp_path / "raw", raw_drive())
    as_they_are, _ = samples_of(bag, RigParameters())
    aligned, _ = samples_of(bag, RigParameters(rectify=True, register_depth=True))
    camera = last(as_they_are, Sensor.CAMERA)
    expected = Rectification(RAW).rectify(camera.data, averages=True)
    assert np.array_equal(last(aligned, Sensor.CAMERA).data, expected)
    depth, registered = last(as_they_are, Sensor.DEPTH), last(aligned, Sensor.DEPTH)
    assert registered.frame_id == "camera_optical_frame"
    # A depth d at the centre is 50 * 0.1 / d pixels to the left in the camera's picture.
    distance = float(depth.data[24, 32])
    col = round(32 - 50 * 0.1 / distance)
    assert registered.data[24, col] == pytest.approx(distance, rel=0.02)
    (rig,) = [s.rig for s in aligned if isinstance(s, RigSample)][-1:]
    assert rig.camera.distortion is None


def test_depth_of_another_view_is_said(tmp_path: Path) -> None:
    _, samples = samples_of(write_ros2(tmp_path / "raw", raw_drive()), RigParameters())
    (said,) = [text for text in samples.ignored if "rig.register_depth" in text]
    assert "it is of depth_optical, the camera's pictures of camera_optical_frame" in said
    assert samples.ignored[said] == 1
    _, samples = samples_of(write_ros2(tmp_path / "same", drive(4, (CAMERA, DEPTH, INFO))), RigParameters())
    assert not [text for text in samples.ignored if "rig.register_depth" in text]


@pytest.mark.parametrize(
    ("missing", "words"),
    [("has_tf", "TF does not connect them"), ("has_depth_info", "no camera_info of the depth pictures has come")],
)
def test_what_is_not_known_is_refused_and_named(tmp_path: Path, missing: str, words: str) -> None:
    bag = write_ros2(tmp_path / "raw", raw_drive(**{missing: False}))
    _, samples = samples_of(bag, RigParameters(rectify=True, register_depth=True))
    assert samples.rejected[Sensor.DEPTH] == 4
    assert samples.received[Sensor.CAMERA] > 0
    assert all(words in reason for reason in samples.reasons[Sensor.DEPTH])


def frame(sensor: Sensor, height: int = HEIGHT, width: int = WIDTH) -> SensorFrame:
    is_camera = sensor == Sensor.CAMERA
    data: Any = np.ones((height, width, 3), np.uint8) if is_camera else np.ones((height, width), np.float32)
    return SensorFrame(sensor, data, 1, "optical")


def test_a_picture_of_another_size_than_its_camera_info_is_refused() -> None:
    alignment = Alignment(RigParameters(rectify=True))
    with pytest.raises(ConversionError, match="camera_info is of 64x48 pixels, and the picture is 32x24"):
        alignment.aligned(frame(Sensor.CAMERA, 24, 32), {Sensor.CAMERA: KnownCamera(RAW, "optical")}, None)


def test_depth_of_a_raw_lens_needs_both() -> None:
    cameras = {sensor: KnownCamera(RAW, "optical") for sensor in (Sensor.CAMERA, Sensor.DEPTH)}
    with pytest.raises(ConversionError, match=r"set rig\.rectify, too"):
        Alignment(RigParameters(register_depth=True)).aligned(frame(Sensor.DEPTH), cameras, None)
    both = Alignment(RigParameters(register_depth=True, rectify=True))
    assert both.aligned(frame(Sensor.DEPTH), cameras, None).image_size == (HEIGHT, WIDTH)


def test_other_sensors_are_left_alone() -> None:
    event = SensorFrame(Sensor.EVENT, np.zeros((5, 5, 2), np.uint8), 1, "optical")
    assert Alignment(RigParameters(register_depth=True, rectify=True)).aligned(event, {}, None) is event


def test_a_recalibration_is_followed() -> None:
    alignment, rng = Alignment(RigParameters(rectify=True)), np.random.default_rng(1)
    picture = replace(frame(Sensor.CAMERA), data=rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    first = alignment.aligned(picture, {Sensor.CAMERA: KnownCamera(RAW, "o")}, None).data
    other = replace(RAW, distortion=Distortion(PLUMB_BOB, (0.2, 0.0, 0.0, 0.0, 0.0)))
    assert not np.array_equal(first, alignment.aligned(picture, {Sensor.CAMERA: KnownCamera(other, "o")}, None).data)


def test_the_same_view_is_no_reason_to_warn() -> None:
    def of(camera: PinholeCamera, depth: PinholeCamera, frame_id: str = "o") -> str:
        cameras = {Sensor.CAMERA: KnownCamera(camera, "o"), Sensor.DEPTH: KnownCamera(depth, frame_id)}
        return why_unregistered(Sensor.DEPTH, cameras)

    half = RAW.resized(HEIGHT // 2, WIDTH // 2)
    assert of(RAW, half) == ""
    assert "focal length" in of(RAW, replace(RAW, fx=30.0, fy=30.0))
    assert "the camera's pictures of o" in of(RAW, half, "depth")
    assert why_unregistered(Sensor.DEPTH, {Sensor.CAMERA: KnownCamera(RAW, "o")}) == ""


PINHOLE = RAW.undistorted
EVENTS = SensorFrame(Sensor.EVENT, np.ones((HEIGHT, WIDTH, 2), np.uint8), 1, "event_optical")


def beside(_target: str, _source: str) -> Any:
    """The event camera sits 0.2 m to the right of the camera."""
    transform = np.eye(4)
    transform[0, 3] = -0.2
    return transform


def test_events_are_brought_into_the_cameras_picture_and_their_error_is_said() -> None:
    alignment = Alignment(RigParameters(register_events_at_m=10.0))
    cameras = {Sensor.CAMERA: KnownCamera(PINHOLE, "o"), Sensor.EVENT: KnownCamera(RAW, "event_optical")}
    assert alignment.events_note == ""
    found = alignment.aligned(EVENTS, cameras, beside)
    assert (found.frame_id, found.image_size, found.stamp_ns) == ("o", (HEIGHT, WIDTH), EVENTS.stamp_ns)
    assert alignment.events_note == (
        "registered at 10 m: what is 5 m ahead is 1.0 pixels of the camera beside its place, what is far away 1.0"
    )


@pytest.mark.parametrize(
    ("cameras", "lookup", "why"),
    [
        ({Sensor.CAMERA: KnownCamera(PINHOLE, "o")}, beside, "no camera_info of the event pictures has come"),
        ({Sensor.EVENT: KnownCamera(PINHOLE, "e")}, beside, "no camera_info of the camera pictures has come"),
        (
            {Sensor.CAMERA: KnownCamera(RAW, "o"), Sensor.EVENT: KnownCamera(PINHOLE, "e")},
            beside,
            r"set rig\.rectify, too",
        ),
        ({s: KnownCamera(PINHOLE, s) for s in (Sensor.CAMERA, Sensor.EVENT)}, None, "TF is not used"),
        (
            {Sensor.CAMERA: KnownCamera(PINHOLE, "o"), Sensor.EVENT: KnownCamera(PINHOLE.resized(24, 32), "e")},
            beside,
            "camera_info is of 32x24 pixels, and the picture is 64x48",
        ),
    ],
)
def test_events_that_cannot_be_registered_are_refused(cameras: Any, lookup: Any, why: str) -> None:
    with pytest.raises(ConversionError, match=why):
        Alignment(RigParameters(register_events_at_m=5.0)).aligned(EVENTS, cameras, lookup)


def test_unregistered_events_are_said_unless_they_are_registered() -> None:
    for distance_m, expected in ((0.0, {Sensor.EVENT}), (10.0, set())):
        calibration = Calibration(RigParameters(register_events_at_m=distance_m))
        calibration.set_camera(Sensor.CAMERA, PINHOLE, "o")
        calibration.set_camera(Sensor.EVENT, PINHOLE, "event_optical")
        assert set(calibration.unregistered) == expected
    with pytest.raises(ValueError, match="register_events_at_m"):
        RigParameters(register_events_at_m=-1.0)
