"""Real sensors raise no alarm: the content checks on recorded data."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from event_messages import recorded_messages

from anyseg_core.runtime.events.stream import EventStream
from anyseg_core.runtime.health.checks import failed_checks
from anyseg_core.runtime.health.history import History
from anyseg_core.runtime.health.quality import quality_of
from anyseg_core.runtime.health.statistics import statistics_of
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.pipeline.parameters import Parameters

PERIOD_NS = 100_000_000
SHIPPED = Parameters().health()


def verdict(frame: SensorFrame) -> tuple[Fault, str] | None:
    """What the checks that need no history say."""
    history = History(statistics_of(frame), None, frame.stamp_ns, None, PERIOD_NS, None)
    distrust, untimely = failed_checks(frame, history, SHIPPED[frame.modality].check)
    return distrust or untimely


def rgb(path: Path) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(cv2.imread(str(path)))[..., ::-1])


def test_real_roads_by_day_are_clean(pothole_data: Path) -> None:
    frames = [SensorFrame(Sensor.CAMERA, rgb(path), 0) for path in sorted(pothole_data.glob("rgb/*.jpg"))]
    assert len(frames) == 52
    assert [verdict(frame) for frame in frames] == [None] * 52
    assert min(quality_of(statistics_of(frame), None).value for frame in frames) > 0.5


def test_real_stereo_is_clean(pothole_data: Path) -> None:
    for path in sorted(pothole_data.glob("disparity/*.png")):
        disparity = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.float32)
        depth = np.divide(1e4, disparity, out=np.zeros_like(disparity), where=disparity > 0)
        assert verdict(SensorFrame(Sensor.DEPTH, depth, 0)) is None


def test_a_real_street_and_its_scan_are_clean(recorded_data: Path) -> None:
    pictures, scans = (sorted((recorded_data / "kitti").rglob(pattern)) for pattern in ("*.png", "*.bin"))
    if not pictures or not scans:
        pytest.skip("the recorded kitti frames are not there")
    assert [verdict(SensorFrame(Sensor.CAMERA, rgb(path), 0)) for path in pictures] == [None] * len(pictures)
    for path in scans:
        points = np.fromfile(path, np.float32).reshape(-1, 4)
        assert verdict(SensorFrame(Sensor.LIDAR, points, 0)) is None
        shuffled = points[np.random.default_rng(0).permutation(len(points))]
        assert verdict(SensorFrame(Sensor.LIDAR, shuffled, 0)) is None


def test_a_real_event_stream_is_clean(recorded_data: Path) -> None:
    stream = EventStream("event_camera_msgs/msg/EventPacket", PERIOD_NS)
    messages = recorded_messages(recorded_data / "event_bags" / "test_events_1")
    frames = [frame for message in messages if (frame := stream.add(message)) is not None]
    assert len(frames) >= 20
    assert [verdict(frame) for frame in frames] == [None] * len(frames)
