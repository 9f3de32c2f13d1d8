"""What the page shows of a node's messages."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from anyseg_ros.watch.node_view import HISTORY_S, LOST_S, RATE_WINDOW_S, NodeView

NODE = "/car/segmentation_node"


def status(key: str, *, level: bytes = b"\x00", node: str = NODE, message: str = "", **values: str) -> Any:
    pairs = [SimpleNamespace(key=name, value=value) for name, value in values.items()]
    name = f"anyseg {node}: {key}"
    return SimpleNamespace(name=name, hardware_id=node, level=level, message=message, values=pairs)


def array(*statuses: Any) -> Any:
    return SimpleNamespace(status=list(statuses))


def camera(state: str, used: str) -> Any:
    return array(status("camera status", message=state, state=state, used=used, rate_hz="10.0"))


def test_a_node_that_was_never_heard_is_not_there() -> None:
    shown = NodeView(NODE).snapshot(100.0)
    assert shown["silent_s"] is None
    assert not shown["is_there"]
    assert shown["sensors"] == []


def test_states_follow_one_another_without_a_gap_and_equal_ones_are_one() -> None:
    view = NodeView(NODE)
    for second, (state, used) in enumerate(
        [("active", "true"), ("active", "true"), ("failed", "false"), ("failed", "false"), ("active", "true")]
    ):
        view.add_status(camera(state, used), float(second))
    (sensor,) = view.snapshot(4.0)["sensors"]
    assert [(s["state"], s["used"], s["from_s"], s["to_s"]) for s in sensor["spans"]] == [
        ("active", True, 4.0, 3.0),
        ("failed", False, 3.0, 1.0),
        ("active", True, 1.0, 0.0),
    ]
    assert sensor["rate_hz"] == "10.0"


def test_a_time_in_which_the_node_was_silent_stays_empty() -> None:
    view = NodeView(NODE)
    view.add_status(camera("active", "true"), 0.0)
    view.add_status(camera("failed", "false"), LOST_S + 1)
    (sensor,) = view.snapshot(LOST_S + 1)["sensors"]
    assert [(span["from_s"], span["to_s"]) for span in sensor["spans"]] == [(LOST_S + 1, LOST_S + 1), (0.0, 0.0)]


def test_what_is_older_than_the_strip_is_forgotten() -> None:
    view = NodeView(NODE)
    view.add_status(camera("failed", "false"), 0.0)
    view.add_status(camera("active", "true"), 1.0)
    view.add_status(camera("active", "true"), HISTORY_S + 1)
    (sensor,) = view.snapshot(HISTORY_S + 2)["sensors"]
    assert [span["state"] for span in sensor["spans"]] == ["active"]


def test_a_node_that_is_silent_for_too_long_is_not_there_any_more() -> None:
    view = NodeView(NODE)
    view.add_diagnostics(array(status("inference", message="segmenting with every modality")), 0.0)
    assert view.snapshot(LOST_S)["is_there"]
    assert not view.snapshot(LOST_S + 0.1)["is_there"]


def test_diagnostics_of_another_vehicle_are_left_alone() -> None:
    view = NodeView(NODE)
    view.add_diagnostics(array(status("inference", node="/other/segmentation_node", message="fine")), 0.0)
    assert view.snapshot(0.0)["inference"] == {}
    assert not view.snapshot(0.0)["is_there"]


def test_levels_are_named_and_topics_are_known() -> None:
    view = NodeView(NODE)
    inference = status("inference", level=b"\x01", message="segmenting without camera")
    view.add_diagnostics(array(inference, status("camera topic/car/camera/image_raw")), 0.0)
    assert view.snapshot(0.0)["inference"]["level"] == "WARN"
    assert view.topic_of("camera") == "/car/camera/image_raw"
    assert view.topic_of("depth") is None


def test_sensors_of_another_student_do_not_stay_on_the_page() -> None:
    view = NodeView(NODE)
    view.add_status(array(status("camera status", state="active"), status("lidar status", state="active")), 0.0)
    view.add_status(camera("active", "true"), 1.0)
    assert [sensor["name"] for sensor in view.snapshot(1.0)["sensors"]] == ["camera"]


def test_how_a_mask_was_made_is_not_told_when_none_comes_any_more() -> None:
    view = NodeView(NODE)
    view.add_status(array(status("mask", used="camera")), 0.0)
    assert view.snapshot(RATE_WINDOW_S)["mask"] == {"used": "camera"}
    view.add_status(camera("failed", "false"), RATE_WINDOW_S + 0.1)
    later = view.snapshot(RATE_WINDOW_S + 0.1)
    assert (later["is_there"], later["mask"]) == (True, {})


def test_masks_are_counted() -> None:
    view = NodeView(NODE)
    for number in range(31):
        view.add_status(array(status("mask", used="camera,depth")), number / 10)
    shown = view.snapshot(3.0)
    assert abs(shown["mask_hz"] - 10) < 0.5
    assert shown["mask"]["used"] == "camera,depth"
    assert view.snapshot(30.0)["mask_hz"] == 0
    json.dumps(shown)
