"""Real frames through the node over DDS: the masks that come back are those of the offline segmenter, to the label."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from toy_student import write_toy_student

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

from living_sensors import live_data
from ros_harness import Vehicle, running, status_values
from sensor_msgs.msg import Image

from anyseg_core.data.files import read_image
from anyseg_core.data.pothole import Pothole
from anyseg_core.runtime.label_sets import POTHOLE
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.model_card import bundled_students
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.messages.conversions import stamp_ns

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("ros"), pytest.mark.slow]

Labels = NDArray[np.uint8]
RUN_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 1.5
BOTH = frozenset({Sensor.CAMERA, Sensor.DEPTH})
RUNS = {
    "camera and depth": BOTH,
    "camera lost": frozenset({Sensor.DEPTH}),
    "camera back": BOTH,
    "depth lost": frozenset({Sensor.CAMERA}),
}
TOPICS = {Sensor.CAMERA: "camera/image_raw", Sensor.DEPTH: "depth/image_rect"}

PATIENT: Mapping[str, Any] = {
    "model.threads": 1,
    "sync.max_time_diff_ms": 1.0,
    "sync.deadline_ms": 1000.0,
    "faults.silent.threshold": 2.0,
    **{f"modalities.{m}.expected_rate_hz": 1.0 for m in TOPICS},
    **{f"modalities.{m}.max_age_ms": 10_000.0 for m in TOPICS},
    **{f"modalities.{m}.qos": "reliable" for m in TOPICS},
}
"""No frame is lost, frames of one stamp meet and no others; a sensor is lost after two seconds' silence."""


@dataclass(frozen=True)
class Source:
    """A student and the folder of the frames that it is given."""

    student: str
    root: Path


@pytest.fixture(params=["toy", "pothole"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """A toy with frames made here, which always runs; the bundled student with the recorded ones."""
    if request.param == "toy":
        student = write_toy_student(tmp_path / "toy", modalities=(Sensor.CAMERA, Sensor.DEPTH), classes=POTHOLE)
        return Source(str(student), write_frames(tmp_path / "data", count=3))
    if "pothole" not in bundled_students():
        pytest.skip("the student `pothole` is not bundled: make students")
    return Source("pothole", request.getfixturevalue("pothole_data"))


def write_frames(root: Path, count: int) -> Path:
    """A few frames in the layout of the pothole data: a pattern, noise on a road at 50, a hole at 35."""
    rng = np.random.default_rng(0)
    for folder in ("rgb", "disparity", "label"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        name = f"dataset1_{index:02}"
        labels = np.zeros((60, 100), np.uint8)
        labels[20:40, 10 * index : 10 * index + 30] = 1
        disparity = np.where(labels, 35_000, 50_000) + rng.integers(0, 9000, labels.shape)
        cv2.imwrite(str(root / "rgb" / f"{name}.jpg"), live_data(Sensor.CAMERA, rng, 60, 100))
        cv2.imwrite(str(root / "disparity" / f"{name}.png"), disparity.astype(np.uint16))
        cv2.imwrite(str(root / "label" / f"{name}.png"), labels)
    return root


class Drivers:
    """A camera and a stereo camera that send the files' own bytes: rgb8, and raw disparity as 16UC1."""

    def __init__(self, vehicle: Vehicle, root: Path) -> None:
        self.vehicle, self.root = vehicle, root
        self.publishers = {m: vehicle.driver.create_publisher(Image, topic, 5) for m, topic in TOPICS.items()}

    def send(self, name: str, alive: frozenset[Sensor]) -> int:
        """Publish a frame of the living sensors, the anchor's last, so that depth is there; returns its stamp."""
        messages = {
            Sensor.DEPTH: (read_image(self.root / "disparity" / f"{name}.png"), "16UC1"),
            Sensor.CAMERA: (read_image(self.root / "rgb" / f"{name}.jpg"), "rgb8"),
        }
        stamp = self.vehicle.driver.get_clock().now()
        for modality in (m for m in messages if m in alive):
            array, encoding = messages[modality]
            height, width = array.shape[:2]
            message = Image(encoding=encoding, height=height, width=width, step=array.strides[0], data=array.tobytes())
            message.header.stamp, message.header.frame_id = stamp.to_msg(), f"{modality}_frame"
            self.publishers[modality].publish(message)
        return stamp.nanoseconds

    def masks(self, names: list[str], alive: frozenset[Sensor]) -> Iterator[tuple[str, frozenset[Sensor], Labels]]:
        """(frame, modalities it was made from, mask), until every frame had a mask from just the living sensors."""
        missing = set(names)
        end = time.monotonic() + RUN_TIMEOUT_S
        for name in itertools.takewhile(lambda _: missing and time.monotonic() < end, itertools.cycle(names)):
            used = self.made_from(self.send(name, alive))
            if used == alive:
                missing.discard(name)
            if used:  # not before everybody has found each other
                yield name, used, pixels(self.vehicle.masks[-1])
        if missing:
            pytest.fail(f"no mask of {sorted(missing)} from {sorted(alive)}: {self.vehicle.states()}")

    def made_from(self, stamp: int) -> frozenset[Sensor]:
        """Wait for the mask of that stamp and its status; what it was made from, nothing where none comes."""
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while not (self.newest_mask(stamp) and self.used(stamp)) and time.monotonic() < end:
            self.vehicle.executor.spin_once(timeout_sec=0.05)
        return self.used(stamp) if self.newest_mask(stamp) else frozenset()

    def newest_mask(self, stamp: int) -> bool:
        """Whether the newest mask is of that stamp."""
        return bool(self.vehicle.masks) and stamp_ns(self.vehicle.masks[-1].header) == stamp

    def used(self, stamp: int) -> frozenset[Sensor]:
        """The modalities in the mask of that stamp; none while its status has not come."""
        statuses = [status_values(status) for status in self.vehicle.statuses if stamp_ns(status.header) == stamp]
        return frozenset(m for m in TOPICS for status in statuses if status[str(m)]["used"] == "true")


def pixels(mask: Image) -> Labels:
    return np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width)


def miou(root: Path, masks: Mapping[str, Labels]) -> float:
    """Of the masks of all frames, at the cameras' resolution."""
    confusion = ConfusionMatrix(len(POTHOLE))
    for name, mask in masks.items():
        confusion.add(read_image(root / "label" / f"{name}.png"), mask)
    return confusion.miou()


def test_masks_over_dds_are_the_offline_ones(source: Source) -> None:
    segmenter = Segmenter.open(source.student, threads=1)
    dataset = Pothole(source.root, "test", segmenter.card.input_size)
    names = [dataset[index].name for index in range(len(dataset))]
    frames: dict[str, dict[Sensor, SensorFrame]] = {n: {f.modality: f for f in dataset.frames(n)} for n in names}
    with running({**PATIENT, "model.student": source.student}) as vehicle:
        vehicle.alive = set()  # its own drivers keep quiet
        drivers = Drivers(vehicle, source.root)
        for run, alive in RUNS.items():
            masks: dict[str, Labels] = {}
            for name, used, mask in drivers.masks(names, alive):
                offline, _ = segmenter.segment({m: frames[name][m] for m in used}).resized(*mask.shape)
                np.testing.assert_array_equal(mask, offline)
                if used == alive:
                    masks[name] = mask
            print(f"{segmenter.card.name}, {run}: mIoU {100 * miou(source.root, masks):.2f} %")
    segmenter.close()
