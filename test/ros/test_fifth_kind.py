"""A fifth kind of sensor: radar, points with a velocity. What it takes is in the rows below, each in one file:

1. `runtime/sensors.py`: what it delivers, and which kind's checks and injections fit it;
2. `runtime/model_card.py`: its encoding and that encoding's settings;
3. `runtime/input_images.py`: the encoding itself;
4. `messages/sensor_messages.py`: its messages.
"""

from __future__ import annotations

import json
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml
from pydantic import Field
from small_bags import CAMERA as CAMERA_TOPIC
from small_bags import INFO, PERIOD_NS, START_NS, TF, TYPES, Written, drive, header, write_ros2
from toy_student import write_toy_student

from anyseg_core.data.folder import Folder
from anyseg_core.injection import InjectionSchedule
from anyseg_core.runtime import input_images
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, project_points
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.model_card import ENCODINGS, ClassSpec, Encoding, InputSpec, load_card
from anyseg_core.runtime.sample_folder import FolderDescription, RigSpec, write_description, write_sample
from anyseg_core.runtime.sensors import LIDAR, SENSOR_KINDS, Sensor, SensorFrame, SensorKind
from anyseg_ros.bags.topics import find_topics
from anyseg_ros.inject.bag import inject_bag
from anyseg_ros.messages import conversions
from anyseg_ros.messages.sensor_messages import POINT_CLOUD, SENSOR_MESSAGES, SensorMessages, default_topic
from anyseg_ros.pipeline.parameters import from_values
from anyseg_ros.replay.mask_records import read_records
from anyseg_ros.replay.offline import MASKS, STATES, ReplayOptions, replay

RIG = Rig(PinholeCamera(64, 48, 50.0, 50.0, 32.0, 24.0), np.eye(4))
TOPIC = "/radar/points"


# --- 1. runtime/sensors.py -------------------------------------------------------------------------------------------

RADAR = SensorKind("radar", (None, 5), "float32", like=LIDAR)  # x, y, z, intensity, radial velocity in m/s


# --- 2. runtime/model_card.py ----------------------------------------------------------------------------------------


class RadarEncoding(Encoding):
    """Projected points -> [range, intensity, velocity]; 0 where no point falls."""

    kind: Literal["radar_projection"] = "radar_projection"
    max_range_m: float = Field(default=100.0, gt=1.0)
    max_speed_mps: float = Field(default=30.0, gt=0)


# --- 3. runtime/input_images.py --------------------------------------------------------------------------------------


def encode_radar(frame: SensorFrame, spec: InputSpec, size: tuple[int, int], rig: Rig | None) -> Any:
    assert rig is not None
    encoding, points = spec.encoding, np.asarray(frame.data, np.float32)
    assert isinstance(encoding, RadarEncoding)
    rows, cols, index, xyz = project_points(points[:, :4], rig, *size)
    shares = np.stack(
        [
            1 - np.linalg.norm(xyz, axis=1) / encoding.max_range_m,
            points[index, 3] / 255,
            0.5 + 0.5 * points[index, 4] / encoding.max_speed_mps,
        ],
        axis=1,
    )
    image = np.zeros((*size, 3), np.uint8)
    image[rows, cols] = np.clip(255 * shares, 0, 255)
    return image


# --- 4. messages/sensor_messages.py ----------------------------------------------------------------------------------


def radar_frame(message: Any, sensor: Sensor) -> SensorFrame:
    frame = conversions.lidar_frame(message, sensor)
    velocity = next(field for field in message.fields if field.name == "velocity")
    dtype, offset = conversions.field_type(velocity, message)
    raw = np.frombuffer(message.data, np.uint8).reshape(-1, message.point_step)[:, offset : offset + 4]
    column = np.ascontiguousarray(raw).view(dtype)
    return replaced(frame, data=np.column_stack([frame.data, column]).astype(np.float32))


# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the four tables, and no trace of them afterwards."""
    monkeypatch.setitem(SENSOR_KINDS, "radar", RADAR)
    monkeypatch.setitem(ENCODINGS, RADAR, (RadarEncoding,))
    monkeypatch.setitem(input_images.ENCODERS, RADAR, encode_radar)
    monkeypatch.setitem(
        SENSOR_MESSAGES, RADAR, SensorMessages("radar/points", {POINT_CLOUD: radar_frame}, words=("radar",))
    )
    monkeypatch.setattr(Sensor, "_declared", dict(Sensor._declared))


def points(index: int) -> np.ndarray:
    """A wall 20 m ahead that comes nearer, float32 [400, 5]."""
    rng = np.random.default_rng(index)
    azimuth = np.linspace(-0.5, 0.5, 400)
    reach = 20 - 0.1 * index + rng.normal(0, 0.02, 400)
    columns = [reach * np.cos(azimuth), reach * np.sin(azimuth), 0 * azimuth, 60 + 0 * azimuth, -3 + 0 * azimuth]
    return np.stack(columns, axis=1).astype(np.float32)


def radar_message(index: int) -> Written:
    field, stamp_ns = TYPES["sensor_msgs/msg/PointField"], START_NS + index * PERIOD_NS
    raw = points(index).view(np.uint8).ravel()
    names = ("x", "y", "z", "intensity", "velocity")
    message = TYPES["sensor_msgs/msg/PointCloud2"](
        header=header(stamp_ns, "lidar"), height=1, width=400, point_step=20, row_step=8000, data=raw,
        fields=[field(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate(names)],
        is_bigendian=False, is_dense=True,
    )  # fmt: skip
    return Written(TOPIC, stamp_ns, message)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    written = [*drive(30, {CAMERA_TOPIC, INFO, TF}), *(radar_message(index) for index in range(30))]
    return write_ros2(tmp_path / "bag", sorted(written, key=lambda w: w.received_ns))


def test_it_has_a_card_a_topic_parameters_and_an_image(tmp_path: Path) -> None:
    radar = Sensor("radar")
    assert radar.kind is RADAR
    assert default_topic(radar) == "radar/points"
    assert default_topic(Sensor("radar_rear", "radar")) == "radar_rear/points"
    connections = {TOPIC: POINT_CLOUD, "/velodyne/points": POINT_CLOUD}
    found = find_topics(connections.items(), wanted=[Sensor.LIDAR, radar])
    assert {sensor: choice.topic for sensor, choice in found.items()} == {"radar": TOPIC, "lidar": "/velodyne/points"}
    parameters = from_values({"modalities.radar.kind": "radar", "modalities.radar.faults.few_points.threshold": 0.5})
    assert parameters.modalities[radar].topic == "radar/points"
    assert parameters.health([radar])[radar].check(Fault.FEW_POINTS).threshold == 0.5
    assert parameters.health([radar])[radar].check(Fault.NOISY).threshold == 0.08
    card = load_card(write_toy_student(tmp_path / "toy", modalities=[Sensor.CAMERA, radar]))
    assert isinstance(card.inputs[1].encoding, RadarEncoding)
    wall = points(0)[:, [1, 2, 0, 3, 4]]  # as the camera of RIG sees it
    image = encode_frame(SensorFrame(radar, wall, 0), card.inputs[1], (48, 64), RIG)
    assert image[..., 2].max() == int(255 * (0.5 - 0.5 * 3 / 30))


def test_a_bag_with_it_is_replayed_and_its_loss_of_points_found(bag: Path, tmp_path: Path) -> None:
    radar = Sensor("radar")
    student = write_toy_student(tmp_path / "toy", modalities=[Sensor.CAMERA, radar])
    thin = tmp_path / "thin.yaml"
    sparse = {"modality": "radar", "kind": "sparse", "start_s": 1.0, "parameters": {"keep": 0.05}}
    thin.write_text(yaml.safe_dump({"injections": [sparse]}))
    options = ReplayOptions(student=student, subsets=True, injections=(thin,))
    replay(bag, tmp_path / "out", options)
    masks = list(read_records(tmp_path / "out" / MASKS))
    assert {mask.used for mask in masks if mask.scenario == "all"} == {(Sensor.CAMERA, radar)}
    assert {mask.used for mask in masks if mask.scenario == "radar"} == {(radar,)}
    changes = [json.loads(line) for line in (tmp_path / "out" / STATES).read_text().splitlines()]
    failures = {(c["scenario"], c["modality"], c["fault"]) for c in changes if c["state"] == "failed"}
    assert failures == {("thin", "radar", "few_points")}


def test_a_fault_is_written_into_its_messages_and_the_velocity_stays_with_its_point(bag: Path, tmp_path: Path) -> None:
    sector = {"modality": "radar", "kind": "sector_loss", "start_s": 0, "parameters": {"from_deg": 0, "to_deg": 90}}
    report = inject_bag(bag, tmp_path / "out", InjectionSchedule.parse({"injections": [sector]}))
    assert sum(count for _, count in report.hits) == 30
    from rosbags.highlevel import AnyReader

    with AnyReader([tmp_path / "out"]) as reader:
        connection, _, raw = next(m for m in reader.messages() if m[0].topic == TOPIC)
        frame = radar_frame(reader.deserialize(raw, connection.msgtype), Sensor("radar"))
    assert RADAR.fits(frame.data)
    assert 0 < len(frame.data) < 400
    assert (frame.data[:, 4] == -3).all()


def test_samples_of_it_are_kept_and_read(tmp_path: Path) -> None:
    radar = Sensor("radar")
    description = FolderDescription(
        classes=(ClassSpec(name="a", color=(0, 0, 0)), ClassSpec(name="b", color=(0, 0, 1))),
        inputs=(InputSpec(modality=radar, encoding=RadarEncoding()),),
        rig=RigSpec.of(RIG),
    )
    write_description(tmp_path, description)
    frame = SensorFrame(radar, points(0)[:, [1, 2, 0, 3, 4]], 0)
    write_sample(tmp_path / "train" / "drive", "000", [frame], np.zeros((48, 64), np.uint8))
    assert (tmp_path / "train" / "drive" / "000_radar.npy").is_file()
    sample = Folder(tmp_path, "train", (32, 32), [radar])[0]
    np.testing.assert_array_equal(sample.images[0], encode_frame(frame, description.inputs[0], (32, 32), RIG))
