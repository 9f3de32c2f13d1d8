"""Diagnostics: what people and tools read of a sensor's health, and the strip on the overlay."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from repository import REPOSITORY

pytest.importorskip("diagnostic_msgs", reason="messages come with ROS or pip install anyseg_ros[ros]")

from diagnostic_msgs.msg import DiagnosticStatus

from anyseg_core.runtime.health.monitor import Fault, ModalityStatus, State
from anyseg_core.runtime.health.quality import Quality
from anyseg_core.runtime.modality import MODALITIES, Modality
from anyseg_ros.drawing.state_strip import AMBER, GREEN, RED, draw_strip, sensor_cell
from anyseg_ros.node.status_messages import InferenceRecord, inference_status, modality_status, topic_status

CONFIG = REPOSITORY / "config"
LEFT_OUT = "quality 0.19 (noise) < 0.30"


def status(
    modality: Modality = Modality.CAMERA,
    state: State = State.ACTIVE,
    fault: Fault | None = None,
    left_out: str = "",
) -> ModalityStatus:
    first_ns = 5_000_000_000 if fault else None
    return ModalityStatus(
        modality, state, fault, "why" if fault else "", 12.34, 9.87, 50, 2, {Fault.DARK: 3}, first_ns, first_ns,
        4_000_000_000, Quality(0.19, "noise"), 10.0, left_out,
    )  # fmt: skip


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


def test_a_sensor_that_is_left_out_is_a_warning_that_says_why() -> None:
    message = modality_status(status(left_out=LEFT_OUT), None)
    assert message.level == DiagnosticStatus.WARN
    assert message.message == f"active, left out: {LEFT_OUT}"
    assert values_of(message)["left_out"] == LEFT_OUT


def test_inference_warns_of_what_it_does_without() -> None:
    statuses = [status(left_out=LEFT_OUT), status(Modality.DEPTH), status(Modality.LIDAR, State.FAILED, Fault.SILENT)]
    message = inference_status(statuses, InferenceRecord(masks=1))
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
    names = [modality_status(status(m), None).name for m in MODALITIES]
    names += [topic_status(status(m), f"/ns/{m}/topic").name for m in MODALITIES]
    names += [inference_status([status()], InferenceRecord()).name, "anyseg: engine"]
    for name in names:
        matching = [group for group in groups.values() if name.startswith(tuple(group["startswith"]))]
        assert len(matching) == 1, name


@pytest.mark.parametrize(
    ("sensor", "used", "title", "text", "color"),
    [
        (status(), [Modality.CAMERA], "camera: used", "quality 0.19", GREEN),
        (status(left_out=LEFT_OUT), [], "camera: left out", LEFT_OUT, AMBER),
        (status(state=State.FAILED, fault=Fault.DARK), [], "camera: failed", "dark", RED),
        (status(), [], "camera: active", "not in this mask", AMBER),
        (status(state=State.SUSPECT, fault=Fault.DARK), [Modality.CAMERA], "camera: suspect", "dark", AMBER),
    ],
)
def test_a_cell_says_state_and_cause(
    sensor: ModalityStatus, used: list[Modality], title: str, text: str, color: tuple[int, int, int]
) -> None:
    assert sensor_cell(sensor, used) == (title, text, color)


@pytest.mark.parametrize("size", [(1, 1), (20, 30), (48, 80), (480, 640), (1080, 1920)])
def test_the_strip_fits_any_picture_and_leaves_the_rest_alone(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 128, np.uint8)
    cells = [sensor_cell(status(m, State.FAILED, Fault.EVENT_SEQUENCE_GAP), []) for m in MODALITIES]
    draw_strip(picture, cells)
    if size[0] >= 48:
        assert (picture[size[0] // 2 :] == 128).all()
        assert tuple(picture[2, size[1] // 8]) != (128, 128, 128)
    if size == (480, 640):
        assert (picture[2, 100] == RED).all()
