"""A fifth sensor costs no code: a thermal camera in a bag, in faults, in health, in replay, and live over DDS."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from toy_student import write_toy_student

from anyseg_core.injection import InjectionSchedule
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame, all_subsets, in_order
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.bags.topics import TopicChoice, find_topics
from anyseg_ros.inject.bag import inject_bag
from anyseg_ros.inject.live_topics import topic_arguments, topics_in
from anyseg_ros.messages.sensor_messages import IMAGE, SENSOR_MESSAGES
from anyseg_ros.pipeline.parameters import ParameterError, from_values, to_values
from anyseg_ros.replay.mask_records import read_records
from anyseg_ros.replay.offline import MASKS, STATES, ReplayOptions, replay

THERMAL = Sensor("thermal", "camera")
FIVE = (*DEFAULT_SENSORS, THERMAL)
FRAMES = 14
DARK = {
    "sensors": {"thermal": "camera"},
    "injections": [{"modality": "thermal", "kind": "black", "start_s": 0.25}],
}

PARAMETERS = from_values({"modalities.thermal.kind": "camera", "modalities.thermal.faults.blank.threshold": 0.7})
"""Thermal pictures are flat: a wall or a road has one temperature."""


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("embreex", reason="the simulator needs pip install anyseg_ros[sim]")
    from anyseg_core.sim.bag_writer import write_bag
    from anyseg_core.sim.drive import Drive, DriveConfig
    from anyseg_core.sim.weather import Weather

    drive = Drive(DriveConfig(5, Weather.SUN, FRAMES / 10, 10.0, width=96, height=64, thermal=True))
    folder = tmp_path_factory.mktemp("bags") / "five"
    write_bag(folder, drive, drive.rig())
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter.open(write_toy_student(tmp_path_factory.mktemp("students") / "five", modalities=FIVE), threads=1)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "dark_thermal.yaml"
    path.write_text(yaml.safe_dump(DARK))
    return path


def test_a_bag_holds_it_as_16_bits_and_it_is_found_by_its_name(bag: Path) -> None:
    connections = [(choice.topic, choice.msgtype) for choice in BagReader(bag).topics]
    assert find_topics(connections, wanted=FIVE)[THERMAL] == TopicChoice("/thermal/image_raw", IMAGE)
    assert THERMAL not in find_topics(connections)


def test_replay_plays_all_31_subsets(bag: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    result = replay(bag, tmp_path, ReplayOptions(subsets=True), segmenter=segmenter)
    assert tuple(result.topics.sensors) == FIVE
    used = {record.scenario: record.used for record in reversed(list(read_records(tmp_path / MASKS)))}
    assert len(used) == 31
    assert used.pop("all") == FIVE
    assert {name: in_order(sensors) for name, sensors in used.items()} == {
        "+".join(subset): subset for subset in all_subsets(FIVE)[:-1]
    }


def test_a_fault_of_it_is_played_found_and_survived(
    bag: Path, segmenter: Segmenter, faults: Path, tmp_path: Path
) -> None:
    replay(bag, tmp_path, ReplayOptions(injections=(faults,), parameters=PARAMETERS), segmenter=segmenter)
    masks = [record for record in read_records(tmp_path / MASKS) if record.scenario == "dark_thermal"]
    assert masks[0].used == FIVE
    assert masks[-1].used == DEFAULT_SENSORS
    assert len(masks) == FRAMES
    changes = [json.loads(line) for line in (tmp_path / STATES).read_text().splitlines()]
    failures = {(c["scenario"], c["modality"], c["fault"]) for c in changes if c["state"] == "failed"}
    assert failures == {("dark_thermal", "thermal", "dark")}


def test_the_fault_can_be_written_into_the_bag(bag: Path, tmp_path: Path) -> None:
    report = inject_bag(bag, tmp_path / "dark", InjectionSchedule.parse(DARK))
    assert report.topics[THERMAL].topic == "/thermal/image_raw"
    assert sum(count for _, count in report.hits) == FRAMES - 3
    from rosbags.highlevel import AnyReader

    with AnyReader([tmp_path / "dark"]) as reader:
        connections = [c for c in reader.connections if c.topic == "/thermal/image_raw"]
        messages = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections)]
    assert {message.encoding for message in messages} == {"mono16"}
    read = SENSOR_MESSAGES[THERMAL.kind].readers[IMAGE]
    brightest = [int(read(message, THERMAL).data.max()) for message in messages]
    assert min(brightest[:3]) > 100
    assert max(brightest[3:]) == 0


def test_all_means_it_too_where_it_is_known() -> None:
    everything = {"injections": [{"modality": "all", "kind": "drop", "start_s": 1}]}
    assert InjectionSchedule.parse(everything).modalities == DEFAULT_SENSORS
    assert InjectionSchedule.parse({**everything, "sensors": {"thermal": "camera"}}).modalities == FIVE
    assert InjectionSchedule.parse(everything, sensors=FIVE).modalities == FIVE


def test_its_parameters_are_a_block_of_their_own(tmp_path: Path) -> None:
    values = {
        "modalities.thermal.kind": "camera",
        "modalities.thermal.expected_rate_hz": 8.0,
        "modalities.thermal.faults.dark.threshold": 5.0,
        "sync.anchor_order": ["thermal", "camera"],
    }
    parameters = from_values(values)
    assert parameters.modalities[THERMAL].topic == "thermal/image_raw"
    assert parameters.health(FIVE)[THERMAL].expected_rate_hz == 8.0
    assert parameters.health(FIVE)[THERMAL].check(Fault.DARK).threshold == 5.0
    assert parameters.sync.anchor_order == (THERMAL, Sensor.CAMERA)
    assert from_values(to_values(parameters)) == parameters
    file = tmp_path / "parameters.yaml"
    block = {"thermal": {"kind": "camera", "topic": "/boson/image"}}
    file.write_text(yaml.safe_dump({"segmentation_node": {"ros__parameters": {"modalities": block}}}))
    assert topics_in(file)[THERMAL] == "/boson/image"
    assert "topics.thermal.input:=/boson/image" in topic_arguments({"thermal": "/boson/image"}, "faulty", FIVE)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"modalities.sonar.topic": "/ping"}, "Another sensor needs modalities.sonar.kind"),
        ({"modalities.sonar.kind": "sonar"}, "modalities.sonar.kind: .* known kinds: camera, depth, event, lidar"),
        ({"modalities.camera.kind": "lidar"}, "modalities.camera.kind: .* cannot be of kind lidar"),
        ({"modalities.thermal.kind": "camera", "modalities.thermal.qoss": "reliable"}, "modalities.thermal.qos"),
        ({"modalities.thermal.kind": "camera", "modalities.thermal.faults.few_points.threshold": 1.0}, "unknown"),
    ],
)
def test_wrong_blocks_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        from_values(values)


@pytest.mark.ros
@pytest.mark.usefixtures("ros")
def test_the_node_uses_it_loses_it_and_gets_it_back(tmp_path: Path) -> None:
    harness = pytest.importorskip("ros_harness", reason="rclpy is not installed")
    from std_srvs.srv import SetBool

    everything = set(FIVE)
    with harness.running(toy_parameters_of_five(harness, tmp_path), FIVE) as vehicle:
        vehicle.spin_until(lambda: vehicle.used() == everything, "all five in one mask")
        vehicle.alive.discard(THERMAL)
        vehicle.spin_until(lambda: vehicle.fault_of(THERMAL) == "silent", "the loss of thermal")
        vehicle.masks.clear()
        vehicle.spin_masks(3)
        vehicle.spin_until(lambda: vehicle.used() == set(DEFAULT_SENSORS), "masks without it")
        vehicle.alive = {THERMAL}
        vehicle.spin_until(lambda: vehicle.used() == {THERMAL}, "masks of thermal alone")
        answer = vehicle.call(SetBool, "set_thermal_enabled", SetBool.Request(data=False))
        assert answer.success, answer.message
        vehicle.spin_until(lambda: vehicle.states()["thermal"]["state"] == "disabled", "thermal switched off")


def toy_parameters_of_five(harness: object, folder: Path) -> dict[str, object]:
    values = harness.toy_parameters(folder, FIVE)  # type: ignore[attr-defined]
    return {**values, "sync.anchor_order": [*map(str, FIVE)]}


def test_a_frame_of_it_is_read_from_8_and_from_16_bits() -> None:
    from small_bags import image

    grey = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    read = SENSOR_MESSAGES[THERMAL.kind].readers[IMAGE]
    frames: list[SensorFrame] = [
        read(image(pixels, encoding, 1), THERMAL)
        for pixels, encoding in ((grey, "mono16"), ((grey >> 8).astype(np.uint8), "mono8"))
    ]
    assert [frame.modality for frame in frames] == [THERMAL, THERMAL]
    np.testing.assert_array_equal(frames[0].data, frames[1].data)
    np.testing.assert_array_equal(frames[0].data[..., 1], grey >> 8)
