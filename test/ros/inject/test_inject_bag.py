"""Bag to bag: what no fault touches is the same to the byte, what one touches is what the scenario says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from repository import REPOSITORY
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from typer.testing import CliRunner

from anyseg_core.injection import InjectionSchedule, InjectionScheduleError
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.sim.bag_writer import TOPICS, write_bag
from anyseg_core.sim.drive import DriveFrame
from anyseg_ros.bags.topics import TopicError
from anyseg_ros.cli import app
from anyseg_ros.inject.bag import BagError, inject_bag
from anyseg_ros.inject.messages import sensor_types
from anyseg_ros.messages.conversions import camera_frame
from anyseg_ros.messages.sensor_messages import EVENT_STREAMS, IMAGE

HEIGHT, WIDTH = 12, 16
START_NS = 1_700_000_000_000_000_001
PERIOD_NS = 100_000_000
RIG = Rig(PinholeCamera(WIDTH, HEIGHT, 10.0, 10.0, 7.5, 5.5), np.eye(4))
STORE = get_typestore(Stores.ROS2_HUMBLE)

Stored = tuple[str, str, str, str, int, bytes]
"""(topic, type, definition, QoS, record time, message)."""


def drive_frame(index: int) -> DriveFrame:
    rng = np.random.default_rng(index)
    data: Mapping[Sensor, Any] = {
        Sensor.CAMERA: rng.integers(1, 255, (HEIGHT, WIDTH, 3), np.uint8),
        Sensor.DEPTH: rng.uniform(1, 50, (HEIGHT, WIDTH)).astype(np.float32),
        Sensor.EVENT: rng.integers(0, 3, (HEIGHT, WIDTH, 2), np.uint8),
        Sensor.LIDAR: rng.uniform(-1, 20, (50, 4)).astype(np.float32),
    }
    stamp = START_NS + index * PERIOD_NS
    frames = {m: SensorFrame(m, data[m], stamp, str(m)) for m in DEFAULT_SENSORS}
    return DriveFrame(stamp, frames, np.zeros((HEIGHT, WIDTH), np.uint8))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a drive."""
    folder = tmp_path_factory.mktemp("bags") / "drive"
    write_bag(folder, map(drive_frame, range(30)), RIG)
    return folder


def stored(path: Path) -> list[Stored]:
    with Reader(path) as reader:
        return [
            (c.topic, c.msgtype, c.msgdef.data + c.digest, str(c.ext), time_ns, bytes(raw))
            for c, time_ns, raw in reader.messages()
        ]


def schedule(*entries: dict[str, Any]) -> InjectionSchedule:
    return InjectionSchedule.parse({"injections": list(entries)})


def on_topic(messages: list[Stored], topic: str) -> list[Stored]:
    return [message for message in messages if message[0] == topic]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_without_a_fault_the_bag_is_the_same_to_the_byte(bag: Path, tmp_path: Path, storage: str) -> None:
    report = inject_bag(bag, tmp_path / "out", InjectionSchedule(), storage=storage)
    before, after = stored(bag), stored(tmp_path / "out")
    assert sorted(m[0::4] + m[5:] for m in after) == sorted(m[0::4] + m[5:] for m in before)
    if storage == "mcap":  # sqlite3 files as rosbags writes them have no definitions in this form
        assert after == before
    assert report.read == report.written
    assert set(report.written) == set(TOPICS)


def test_a_fault_touches_its_topic_in_its_time_and_nothing_else(bag: Path, tmp_path: Path) -> None:
    fault = {"modality": "camera", "kind": "black", "start_s": 1, "duration_s": 1}
    report = inject_bag(bag, tmp_path / "out", schedule(fault))
    before, after = stored(bag), stored(tmp_path / "out")
    changed = [b for a, b in zip(before, after, strict=True) if a != b]
    assert {message[0] for message in changed} == {"/camera/image_raw"}
    assert [message[4] for message in changed] == [START_NS + i * PERIOD_NS for i in range(10, 20)]
    for message in changed:
        frame = camera_frame(STORE.deserialize_cdr(message[5], IMAGE))
        assert not frame.data.any()
        assert frame.stamp_ns == message[4]
    assert [hits for _, hits in report.hits] == [10]


def test_lost_messages_are_gone_and_counted(bag: Path, tmp_path: Path) -> None:
    report = inject_bag(bag, tmp_path / "out", schedule({"kind": "crash", "start_s": 1, "duration_s": 1}))
    times = [message[4] for message in on_topic(stored(tmp_path / "out"), "/lidar/points")]
    assert times == [START_NS + i * PERIOD_NS for i in range(30) if not 10 <= i < 20]
    assert {topic: report.read[topic] - n for topic, n in report.written.items() if n < report.read[topic]} == {
        "/camera/image_raw": 10, "/depth/image_rect": 10, "/events": 10, "/lidar/points": 10,
    }  # fmt: skip


def test_delayed_messages_have_later_record_times_and_their_own_bytes(bag: Path, tmp_path: Path) -> None:
    fault = {"modality": "depth", "kind": "delay", "start_s": 2, "parameters": {"delay_s": 1.25}}
    inject_bag(bag, tmp_path / "out", schedule(fault))
    before, after = (on_topic(stored(path), "/depth/image_rect") for path in (bag, tmp_path / "out"))
    assert [message[5] for message in after] == [message[5] for message in before]
    late = [a[4] - b[4] for a, b in zip(after, before, strict=True)]
    assert late == [0] * 20 + [1_250_000_000] * 10
    times = [message[4] for message in stored(tmp_path / "out")]
    assert times == sorted(times)


def test_a_bare_file_is_a_bag_too(bag: Path, tmp_path: Path) -> None:
    (file,) = bag.glob("*.mcap")
    inject_bag(file, tmp_path / "out", schedule({"modality": "lidar", "kind": "sparse", "start_s": 0}))
    before, after = stored(bag), stored(tmp_path / "out")
    assert [m for m in after if m[0] != "/lidar/points"] == [m for m in before if m[0] != "/lidar/points"]


def write_events(folder: Path, topics: dict[str, str]) -> None:
    """A bag of event packets."""
    store = sensor_types()
    types: Any = store.types
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, name in topics.items():
            connection = writer.add_connection(topic, name, typestore=store)
            for i in range(20):
                stamp = types["builtin_interfaces/msg/Time"](5 + i, 0)
                header = types["std_msgs/msg/Header"](stamp, "events")
                packet = types[name](header, 4, 4, i, 0, "evt3", False, np.arange(40, dtype=np.uint8))
                writer.write(connection, START_NS + i * PERIOD_NS, store.serialize_cdr(packet, name))


def test_a_type_that_only_the_bag_defines_is_copied(tmp_path: Path) -> None:
    name = "my_msgs/msg/Sweep"
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg("std_msgs/Header header\nstring format\nuint8[] data\n", name))
    types: Any = store.types
    with Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/sweeps", name, typestore=store)
        sweep = types[name](drive_header(), "mine", np.zeros(4, np.uint8))
        writer.write(connection, START_NS, store.serialize_cdr(sweep, name))
    inject_bag(tmp_path / "in", tmp_path / "same", schedule({"kind": "crash", "start_s": 1}))
    assert stored(tmp_path / "in") == stored(tmp_path / "same")


def drive_header() -> Any:
    types: Any = STORE.types
    return types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](5, 0), "lidar")


def test_event_packets_break_and_keep_their_definition(tmp_path: Path) -> None:
    write_events(tmp_path / "in", {"/events": EVENT_STREAMS[0]})
    for kind in ("corrupt", "truncate", "wrong_encoding", "event_gap", "stamp_offset"):
        report = inject_bag(
            tmp_path / "in", tmp_path / kind, schedule({"modality": "event", "kind": kind, "start_s": 1})
        )
        before, after = stored(tmp_path / "in"), stored(tmp_path / kind)
        assert before[:10] == after[:10]
        assert before[10:] != after[10:]
        assert [m[2] for m in before][: len(after)] == [m[2] for m in after]  # definition and hash
        assert not report.unreadable


def test_a_sensor_that_the_bag_lacks_is_named_with_the_remedy(tmp_path: Path) -> None:
    write_events(tmp_path / "in", {"/events": EVENT_STREAMS[0]})
    with pytest.raises(
        InjectionScheduleError, match=r"breaks lidar, and .*no such topic.*--map lidar:=.*/events \(event_c"
    ):
        inject_bag(tmp_path / "in", tmp_path / "out", schedule({"modality": "lidar", "kind": "drop", "start_s": 1}))
    for fault in ({"kind": "crash", "start_s": 0}, {"modality": "all", "kind": "drop", "start_s": 0}):
        inject_bag(tmp_path / "in", tmp_path / fault["kind"], schedule(fault))
        assert stored(tmp_path / fault["kind"]) == []


def test_topics_are_asked_for_only_where_the_scenario_needs_them(tmp_path: Path) -> None:
    write_events(tmp_path / "in", {"/left/events": EVENT_STREAMS[0], "/right/events": EVENT_STREAMS[0]})
    fault = {"modality": "event", "kind": "drop", "start_s": 0}
    with pytest.raises(TopicError, match="several topics may be event: /left/events"):
        inject_bag(tmp_path / "in", tmp_path / "out", schedule(fault))
    inject_bag(tmp_path / "in", tmp_path / "none", InjectionSchedule())
    inject_bag(tmp_path / "in", tmp_path / "out", schedule(fault), {"event": "/right/events"})
    assert {message[0] for message in stored(tmp_path / "out")} == {"/left/events"}


def test_a_target_that_exists_is_refused_and_a_failure_leaves_none(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="exists already"):
        inject_bag(bag, bag, InjectionSchedule())
    with pytest.raises(BagError, match="no bag at"):
        inject_bag(tmp_path / "none", tmp_path / "out", InjectionSchedule())

    def stop(done: int, _total: int) -> None:
        if done > 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inject_bag(bag, tmp_path / "out", InjectionSchedule(), progress=stop)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------ commands


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_the_command_writes_the_bag_and_prints_what_it_did(bag: Path, tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(yaml.safe_dump({"injections": [{"modality": "camera", "kind": "drop", "start_s": 2}]}))
    code, output = invoke("inject", "bag", bag, tmp_path / "out", "--injections", scenario)
    assert code == 0
    assert "drop" in output
    assert "201 of 211 messages" in output
    code, output = invoke("inject", "bag", bag, tmp_path / "out", "--injections", scenario)
    assert code == 2
    assert "exists already" in output


def test_the_command_names_wrong_input(bag: Path, tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("injections: [{modality: camera, kind: melt, start_s: 1}]")
    code, output = invoke("inject", "bag", bag, tmp_path / "out", "--injections", scenario)
    assert (code, "injection 1: unknown kind of injection 'melt'" in output) == (2, True)
    code, output = invoke("inject", "check", scenario)
    assert (code, "known kinds: drop" in output) == (2, True)
    scenario.write_text("injections: [{modality: camera, kind: drop, start_s: 1}]")
    code, output = invoke("inject", "bag", bag, tmp_path / "out", "--injections", scenario, "--map", "sonar:=/ping")
    assert (code, "unknown role 'sonar'" in output) == (2, True)


def test_the_catalogue_and_a_scenario_are_printed() -> None:
    assert "stamp_regression" in invoke("inject", "kinds")[1]
    code, output = invoke("inject", "check", REPOSITORY / "config/injections/busy_network.yaml")
    assert code == 0
    assert "rate_cut" in output
