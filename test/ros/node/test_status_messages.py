"""Diagnostics: what people and tools read of a sensor's health, and the strip on the overlay."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from repository import REPOSITORY

pytest.importorskip("diagnostic_msgs", reason="messages come with ROS or pip install anyseg_ros[ros]")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from anyseg_core.runtime.engines.protocol import BuildProgress, EngineInfo
from anyseg_core.runtime.health.monitor import Fault, ModalityStatus, State
from anyseg_core.runtime.health.quality import Quality
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.segmenter import Segmentation
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_ros.drawing.state_strip import AMBER, GREEN, RED, draw_strip, sensor_cell
from anyseg_ros.node.status_messages import (
    InferenceRecord,
    diagnostics_array,
    for_node,
    inference_status,
    mask_array,
    modality_status,
    status_key,
    topic_status,
)
from anyseg_ros.pipeline.engine_owner import EnginePhase, EngineState
from anyseg_ros.pipeline.jobs import Job, Result
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.planner_products import output_classes
from anyseg_ros.replay.scenarios import ALL_SENSORS, Scenario

CONFIG = REPOSITORY / "config"
LEFT_OUT = "quality 0.19 (noise) < 0.30"


def status(
    modality: Sensor = Sensor.CAMERA,
    state: State = State.ACTIVE,
    fault: Fault | None = None,
    left_out: str = "",
) -> ModalityStatus:
    first_ns = 5_000_000_000 if fault else None
    return ModalityStatus(
        modality, state, fault, "why" if fault else "", 12.34, 9.87, 50, 2, {Fault.DARK: 3}, first_ns, first_ns,
        4_000_000_000, Quality(0.19, "noise"), 10.0, left_out,
    )  # fmt: skip


NOW_NS = 100 * 10**9
ALL_ACTIVE = [status(m) for m in DEFAULT_SENSORS]
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def values_of(message: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in message.values}


def test_a_fault_is_told_with_its_reason_times_and_counts() -> None:
    message = modality_status(status(state=State.FAILED, fault=Fault.DARK), None)
    assert (message.name, message.level) == ("anyseg: camera status", DiagnosticStatus.ERROR)
    assert message.message == "failed: dark: why"
    values = values_of(message)
    assert (values["first_s"], values["last_s"], values["since_s"]) == ("5.000", "5.000", "4.000")
    assert (values["count.dark"], values["quality"], values["quality_cause"]) == ("3", "0.19", "noise")
    assert values["used"] == "false"


def test_what_is_to_be_mended_and_what_else_is_known_is_told_whatever_the_state() -> None:
    details = {"extrinsics": "TF (lidar in optical)", "intensity": "i, 0 to 1 (learnt)"}
    for state, level in ((State.ACTIVE, DiagnosticStatus.WARN), (State.FAILED, DiagnosticStatus.ERROR)):
        fault = Fault.NEVER_RECEIVED if state is State.FAILED else None
        told = replace(status(Sensor.LIDAR, state, fault), remark="the topic has another type", details=details)
        message = modality_status(told, None)
        assert (message.level, message.message.endswith("; the topic has another type")) == (level, True)
        assert details.items() <= values_of(message).items()


def test_a_sensor_that_is_left_out_is_a_warning_that_says_why() -> None:
    message = modality_status(status(left_out=LEFT_OUT), None)
    assert message.level == DiagnosticStatus.WARN
    assert message.message == f"active, left out: {LEFT_OUT}"
    assert values_of(message)["left_out"] == LEFT_OUT


def test_inference_warns_of_what_it_does_without() -> None:
    statuses = [status(left_out=LEFT_OUT), status(Sensor.DEPTH), status(Sensor.LIDAR, State.FAILED, Fault.SILENT)]
    message = inference_status(statuses, made_of(Sensor.DEPTH), NOW_NS)
    assert (message.level, message.message) == (DiagnosticStatus.WARN, "segmenting without camera, lidar")


def test_greenwave_monitor_s_dashboard_finds_the_topic_and_its_keys() -> None:
    """Its rows are topics: of a status' name it takes what begins with the first slash; it reads these keys."""
    message = topic_status(status(), "/vehicle/camera/image_raw")
    assert message.name[message.name.index("/") :] == "/vehicle/camera/image_raw"
    values = values_of(message)
    assert (values["frame_rate_node"], values["current_delay_from_realtime_ms"]) == ("9.9", "12.3")
    assert (values["expected_frequency"], values["tolerance"]) == ("10.0", "50.0")


def test_the_shipped_aggregator_sorts_every_status_into_one_group() -> None:
    parameters = yaml.safe_load((CONFIG / "diagnostic_aggregator.yaml").read_text())["/**"]["ros__parameters"]
    groups = {name: group for name, group in parameters.items() if isinstance(group, dict)}
    assert {group["type"] for group in groups.values()} == {"diagnostic_aggregator/GenericAnalyzer"}
    names = [modality_status(status(m), None).name for m in DEFAULT_SENSORS]
    names += [topic_status(status(m), f"/ns/{m}/topic").name for m in DEFAULT_SENSORS]
    names += [inference_status([status()], InferenceRecord(), 0).name, "anyseg: engine"]
    array = for_node(DiagnosticArray(status=[DiagnosticStatus(name=name) for name in names]), "/front/node")
    for name in (status.name for status in array.status):
        matching = [group for group in groups.values() if is_sorted_into(group, name)]
        assert len(matching) == 1, name


def test_the_shipped_foxglove_layout_selects_the_status_of_the_mask() -> None:
    panel = json.loads((CONFIG / "foxglove.json").read_text())["configById"]["DiagnosticStatusPanel!mask"]
    array = for_node(mask_array(from_camera_alone((status(),))), "/segmentation_node")
    assert (panel["selectedHardwareId"], panel["selectedName"]) in {(s.hardware_id, s.name) for s in array.status}


def test_the_page_of_topics_has_every_key_of_a_status() -> None:
    building = EngineState(EnginePhase.BUILDING, progress=BuildProgress("parsing", 10.0, 0.0))
    ready = EngineState(EnginePhase.READY, EngineInfo("onnxruntime", "cpu", "fp32", "why"))
    topics = {Sensor.CAMERA: "/camera"}
    arrays = [diagnostics_array(Time(), [status()], InferenceRecord(), e, {}, topics) for e in (building, ready)]
    arrays.append(mask_array(from_camera_alone((status(),))))
    keys = {value.key for array in arrays for each in array.status for value in each.values}
    page = (REPOSITORY / "docs" / "reference" / "topics.md").read_text()
    documented = set(re.findall(r"`([\w.<>]+)`", page.partition("## Statuses")[2]))
    assert not {"count.<fault>" if key.startswith("count.") else key for key in keys} - documented


def is_sorted_into(group: dict[str, list[str]], name: str) -> bool:
    """As GenericAnalyzer does it."""
    return name.startswith(tuple(group.get("startswith", ["?"]))) or any(p in name for p in group.get("contains", []))


def test_two_nodes_of_a_vehicle_have_statuses_of_their_own() -> None:
    def names(node: str) -> set[tuple[str, str]]:
        array = DiagnosticArray(status=[modality_status(status(m), None) for m in DEFAULT_SENSORS])
        array.status = [*array.status, *(topic_status(status(m), f"{node}/{m}/topic") for m in DEFAULT_SENSORS)]
        return {(s.name, s.hardware_id) for s in for_node(array, node).status}

    front, rear = names("/front/segmentation_node"), names("/rear/segmentation_node")
    assert not {name for name, _ in front} & {name for name, _ in rear}
    assert {hardware for _, hardware in front} == {"/front/segmentation_node"}
    assert {status_key(name) for name, _ in front} >= {f"{m} status" for m in DEFAULT_SENSORS}


def made_of(*modalities: Sensor, camera_ns: int | None = None) -> InferenceRecord:
    """After a mask of these just now; the camera was in one at `camera_ns`."""
    in_mask_ns = dict.fromkeys(modalities, NOW_NS) | ({} if camera_ns is None else {Sensor.CAMERA: camera_ns})
    ages = dict.fromkeys(modalities, 20.0)
    return InferenceRecord(
        masks=9, used_ages_ms=ages, last_mask_ns=NOW_NS, in_mask_ns=in_mask_ns, max_mask_age_ms=500.0
    )


def test_ok_means_that_every_sensor_is_in_masks_that_come() -> None:
    record = made_of(*DEFAULT_SENSORS)
    for later_s, expected in ((0.0, OK), (0.9, OK), (1.1, ERROR), (60.0, ERROR)):
        assert inference_status(ALL_ACTIVE, record, NOW_NS + int(later_s * 1e9)).level == expected
    never = inference_status(ALL_ACTIVE, InferenceRecord(), NOW_NS)
    assert (never.level, never.message) == (ERROR, "no label image: none was made of the sensors that live")


def test_masks_of_before_the_clock_was_set_back_come_no_more() -> None:
    """An hour back: they are no time ago until then, whether the node has been told or not."""
    record, back_ns = made_of(*DEFAULT_SENSORS), NOW_NS - 3600 * 10**9
    for at_ns, known in ((back_ns, record), (back_ns, record.without_times()), (NOW_NS, record.without_times())):
        assert inference_status(ALL_ACTIVE, known, at_ns).level == ERROR
    again = replace(record, last_mask_ns=back_ns)
    assert "without camera" in inference_status(ALL_ACTIVE, again, back_ns).message


def test_what_keeps_the_masks_from_coming_is_said() -> None:
    lidar = replace(status(Sensor.LIDAR), left_out="camera intrinsics are not known")
    dead = [status(m, State.FAILED, Fault.SILENT) for m in DEFAULT_SENSORS[:3]]
    message = inference_status([*dead, lidar], InferenceRecord(), NOW_NS)
    told = "no label image: lidar: camera intrinsics are not known"
    assert (message.level, message.message) == (ERROR, told)
    assert inference_status(dead, InferenceRecord(), NOW_NS).message == "no label image: no modality is usable"
    withheld = InferenceRecord().with_too_old("the mask was 900 ms old", 900.0)
    assert inference_status(ALL_ACTIVE, withheld, NOW_NS).message == "no label image: the mask was 900 ms old"


def test_a_sensor_that_is_active_and_in_no_mask_is_missing() -> None:
    message = inference_status(ALL_ACTIVE, made_of(*DEFAULT_SENSORS[1:]), NOW_NS)
    assert (message.level, message.message) == (WARN, "segmenting without camera")
    dead = [status(state=State.FAILED, fault=Fault.SILENT), *ALL_ACTIVE[1:]]
    at_once = inference_status(dead, made_of(*DEFAULT_SENSORS[1:], camera_ns=NOW_NS - 1), NOW_NS)
    assert (at_once.level, at_once.message) == (WARN, "segmenting without camera")


def test_a_slow_sensor_s_masks_are_waited_for() -> None:
    slow = replace(status(), rate_hz=0.5, expected_rate_hz=0.5)
    record = made_of(Sensor.CAMERA)
    levels = [inference_status([slow], record, NOW_NS + int(s * 1e9)).level for s in (0, 2, 5, 7)]
    assert levels == [OK, OK, OK, ERROR]


@pytest.mark.parametrize(
    ("latency_ms", "lag_ns", "told"),
    [(260.0, 0, "masks are 260 ms old when they leave"), (50.0, 800_000_000, "the executor is 800 ms late")],
)
def test_high_latency_and_an_overloaded_computer_are_warnings(latency_ms: float, lag_ns: int, told: str) -> None:
    message = inference_status(ALL_ACTIVE, replace(made_of(*DEFAULT_SENSORS), latency_ms=latency_ms), NOW_NS, lag_ns)
    assert message.level == WARN
    assert told in message.message


def test_a_remark_on_a_sensor_that_is_used_is_a_warning() -> None:
    message = modality_status(replace(status(), remark="two publishers"), 20.0)
    assert (message.level, message.message) == (WARN, "active; two publishers")
    used = modality_status(status(state=State.FAILED, fault=Fault.SILENT), 20.0)
    assert used.level == WARN


@pytest.mark.parametrize(
    ("sensor", "used", "title", "text", "color"),
    [
        (status(), [Sensor.CAMERA], "camera: used", "quality 0.19", GREEN),
        (status(left_out=LEFT_OUT), [], "camera: left out", LEFT_OUT, AMBER),
        (status(state=State.FAILED, fault=Fault.DARK), [], "camera: failed", "dark", RED),
        (status(), [], "camera: active", "not in this mask", AMBER),
        (status(state=State.SUSPECT, fault=Fault.DARK), [Sensor.CAMERA], "camera: suspect", "dark", AMBER),
    ],
)
def test_a_cell_says_state_and_cause(
    sensor: ModalityStatus, used: list[Sensor], title: str, text: str, color: tuple[int, int, int]
) -> None:
    assert sensor_cell(sensor, used) == (title, text, color)


@pytest.mark.parametrize("size", [(1, 1), (20, 30), (48, 80), (480, 640), (1080, 1920)])
def test_the_strip_fits_any_picture_and_leaves_the_rest_alone(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 128, np.uint8)
    cells = [sensor_cell(status(m, State.FAILED, Fault.EVENT_SEQUENCE_GAP), []) for m in DEFAULT_SENSORS]
    draw_strip(picture, cells)
    if size[0] >= 48:
        assert (picture[size[0] // 2 :] == 128).all()
        assert tuple(picture[2, size[1] // 8]) != (128, 128, 128)
    if size == (480, 640):
        assert (picture[2, 100] == RED).all()


def test_a_bag_of_masks_has_the_status_that_the_node_publishes(tmp_path: Path) -> None:
    statuses = (
        status(),
        status(Sensor.DEPTH, left_out=LEFT_OUT),
        status(Sensor.EVENT, State.FAILED, Fault.DARK),
        replace(status(Sensor.LIDAR), reason="not used: no camera_info", remark="look at it"),
    )
    needs = "bags need pip install anyseg_ros[replay]"
    mask_bag = pytest.importorskip("anyseg_ros.replay.mask_bag", reason=needs, exc_type=ImportError)
    result = from_camera_alone(statuses)
    card = load_card(find_student("pothole"), verify=False)
    with mask_bag.MaskBag(tmp_path / "masks", output_classes(card, Parameters()), Parameters()) as bag:
        bag.on_mask(Scenario(ALL_SENSORS, DEFAULT_SENSORS), result)
    with pytest.importorskip("rosbags.highlevel", reason=needs).AnyReader([tmp_path / "masks"]) as reader:
        (recorded,) = (reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if "status" in c.topic)
    live = for_node(mask_array(result), "/segmentation_node")
    assert recorded.header.stamp.sec == live.header.stamp.sec == 7  # type: ignore[attr-defined]
    assert list(map(line, recorded.status)) == list(map(line, live.status))  # type: ignore[attr-defined]
    assert [ord(s.level) for s in live.status] == [0, 1, 2, 1, 0]


def test_a_sensor_that_is_late_for_one_mask_says_so_and_is_no_warning() -> None:
    _, depth, _ = mask_array(from_camera_alone((status(), status(Sensor.DEPTH)))).status
    assert (depth.level, values_of(depth)["used"]) == (OK, "false")
    assert depth.message == "active: no frame of it lies near this mask's"


def from_camera_alone(statuses: tuple[ModalityStatus, ...]) -> Result:
    """A mask made of the camera's picture of 7 s, while the sensors were so."""
    picture = SensorFrame(Sensor.CAMERA, np.zeros((4, 4, 3), np.uint8), 7 * 10**9, "optical")
    job = Job(Sensor.CAMERA, {Sensor.CAMERA: picture}, None, 8 * 10**9, statuses, {Sensor.CAMERA: 7 * 10**9})
    blank = np.zeros((4, 4), np.uint8)
    return Result(job, Segmentation(blank, blank, (Sensor.CAMERA,), 0.001, 0.002))


def line(message: Any) -> tuple[object, ...]:
    level = message.level if isinstance(message.level, int) else ord(message.level)
    return message.name, level, message.message, message.hardware_id, [(v.key, v.value) for v in message.values]
