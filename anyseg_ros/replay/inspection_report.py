"""What `anyseg inspect` shows: tables in the terminal, a page with a picture per sensor, and a file of parameters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anyseg_core.html_report import render_report
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.geometry.rigid_transform import quaternion
from anyseg_core.runtime.sensors import CAMERA, DEFAULT_SENSORS, EVENT, Sensor, SensorFrame, forward_left_up
from anyseg_ros.drawing.pictures import ABSENT, jpeg_uri
from anyseg_ros.messages.default_topics import ODOMETRY, camera_info_topic
from anyseg_ros.pipeline.parameters import INFO_PARAMETERS
from anyseg_ros.replay.inspection import Inspection, SensorFacts, TopicFacts

Image = NDArray[np.uint8]
_PICTURE_PX = 480
_REACH_M = 40.0
"""From the LiDAR to the border of its picture."""


def print_inspection(found: Inspection, console: Console) -> None:
    """Everything, in the order in which it matters."""
    console.print(f"[bold]{escape(str(found.bag))}[/]: {found.duration_s:.1f} s", highlight=False)
    for problem in found.problems:
        console.print(f"[yellow]bag:[/] {escape(problem)}", soft_wrap=True, highlight=False)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    longest = max((len(facts.choice.topic) for facts in found.topics), default=0)
    for column in ("topic", "type", "messages", "Hz", "is", "encoding"):
        table.add_column(
            column,
            justify="right" if column in ("messages", "Hz") else "left",
            overflow="fold",
            min_width=longest if column == "topic" else None,  # a name in one piece can be copied
        )
    for facts in found.topics:
        table.add_row(*(escape(cell) for cell in topic_row(facts)))
    console.print(table)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("sensor", "topic", "chosen", "stamps, ms from first", "reception, ms after stamp", "decoded"):
        table.add_column(column)
    for each in found.sensors:
        table.add_row(*(escape(cell) for cell in sensor_row(each)))
    console.print(table if found.sensors else "[red]no topic is a sensor that is known: name them with --map[/]")
    for line in found.calibration:
        console.print(line, soft_wrap=True, highlight=False)
    labels = found.companions.labels
    console.print(f"labels: {labels.topic if labels else 'none'}", highlight=False)
    for note in found.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True, highlight=False)


def topic_row(facts: TopicFacts) -> list[str]:
    """Topic, type, delivered messages (of how many where fewer), rate, role, encoding."""
    counted = f"{facts.delivered}" + (f" of {facts.counted}" if facts.delivered != facts.counted else "")
    rate = f"{facts.rate_hz:.3g}" if facts.rate_hz else ABSENT
    return [facts.choice.topic, facts.choice.msgtype, counted, rate, facts.role, facts.encoding]


def sensor_row(each: SensorFacts) -> list[str]:
    """Sensor, topic, why, offset, delay, and what became of its first messages."""
    decoded = f"{each.frames} of {each.frames + each.rejected} messages of the beginning"
    offset = ABSENT if each.offset_ms is None else f"{each.offset_ms:+.1f}"
    delay = ABSENT if each.delay_ms is None else f"{each.delay_ms:.1f}"
    return [str(each.sensor), each.choice.topic, each.reason, offset, delay, decoded]


# --- parameters ------------------------------------------------------------------------------------------------------


def write_parameters(path: Path, found: Inspection) -> None:
    """A parameter file that run, launch and replay take as it is. Raises OSError."""
    topics = {each.sensor: each.choice.topic for each in found.sensors}
    modalities: dict[str, Any] = {
        str(sensor): {"topic": topics[sensor]} if sensor in topics else {"enabled": False} for sensor in DEFAULT_SENSORS
    }
    content: dict[str, Any] = {"modalities": modalities}
    rig = _companion_topics(found) | ({} if found.rig is None else _rig_parameters(found.rig))
    if rig:
        content["rig"] = rig
    head = f"# Of {found.bag.name}, by `anyseg inspect`. config/vehicle.yaml has every other parameter.\n"
    head += "".join(map(_comment, found.calibration))
    tree = {"/**": {"ros__parameters": content}}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None)
    for sensor, why in found.undecided.items():
        disabled = re.compile(rf"^( +)(?={sensor}: \{{enabled: false\}}$)", re.MULTILINE)
        text = disabled.sub(lambda indent, why=why: f"{indent[0]}{_comment(why)}{indent[0]}", text)
    path.write_text(head + text)


def _comment(text: str) -> str:
    """A line of YAML that is no content, whatever names of topics and frames a bag has brought into the text."""
    return f"# {' '.join(text.split())}\n"


def _companion_topics(found: Inspection) -> dict[str, Any]:
    """Those that the node would not look at by itself: camera_info that is not beside the pictures, odometry."""
    beside = {each.sensor: camera_info_topic(each.choice.topic) for each in found.sensors}
    infos = {
        Sensor.CAMERA: found.companions.camera_info,
        Sensor.DEPTH: found.companions.depth_info,
        Sensor.EVENT: found.companions.event_info,
    }
    named = {
        INFO_PARAMETERS[sensor]: choice.topic
        for sensor, choice in infos.items()
        if choice is not None and choice.topic != beside.get(sensor)
    }
    odometry = found.companions.odometry
    if odometry is not None and odometry.topic.lstrip("/") != ODOMETRY:
        named["odometry_topic"] = odometry.topic
    return named


def _rig_parameters(rig: Rig) -> dict[str, list[float]]:
    """What the bag says; extrinsics that nobody knows are left out, so that the node says so, too."""
    camera, transform = rig.camera, rig.camera_from_lidar
    numbers = (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
    intrinsics = {"intrinsics": [float(number) for number in numbers]}
    if rig.missing:
        return intrinsics
    return intrinsics | {
        "camera_from_lidar_translation_m": [round(float(value), 6) for value in transform[:3, 3]],
        "camera_from_lidar_rotation_xyzw": [round(float(value), 9) for value in quaternion(transform[:3, :3])],
    }


# --- the page --------------------------------------------------------------------------------------------------------


def write_page(path: Path, found: Inspection) -> None:
    """One HTML file with a picture per sensor. Raises OSError."""
    pictures = [(str(each.sensor), jpeg_uri(picture_of(each.frame))) for each in found.sensors if each.frame]
    html = render_report(
        Path(__file__).with_name("inspection.html.j2"),
        bag=found.bag.name,
        duration_s=found.duration_s,
        problems=found.problems,
        notes=found.notes,
        topics=[topic_row(facts) for facts in found.topics],
        sensors=[sensor_row(each) for each in found.sensors],
        calibration=found.calibration,
        labels=found.companions.labels.topic if found.companions.labels else "none",
        pictures=pictures,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def picture_of(frame: SensorFrame) -> Image:
    """What a sensor saw, RGB for people: depth from near (bright) to far, events red and green, points from above."""
    kind = frame.kind.family
    if kind.is_points:
        return _from_above(np.asarray(frame.data, np.float32), frame.frame_id)
    if kind is CAMERA:
        picture = np.asarray(frame.data, np.uint8)
    elif kind is EVENT:
        counts = np.minimum(frame.data.astype(np.int32) * 60, 255).astype(np.uint8)
        picture = np.dstack([counts, np.zeros(counts.shape[:2], np.uint8)])
    else:
        picture = _depth_picture(np.asarray(frame.data, np.float32))
    size = _PICTURE_PX, max(1, round(_PICTURE_PX * picture.shape[0] / picture.shape[1]))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _depth_picture(depth_m: NDArray[np.float32]) -> Image:
    measured = np.isfinite(depth_m) & (depth_m > 0)
    near, far = np.percentile(depth_m[measured], (1, 99)) if measured.any() else (0.0, 1.0)
    share = np.clip((far - np.nan_to_num(depth_m, posinf=far)) / max(far - near, 1e-6), 0.0, 1.0)
    colored = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(measured[..., None], colored, 0).astype(np.uint8)


def _from_above(points: NDArray[np.float32], frame_id: str) -> Image:
    """Points [N, 4]: ahead is up in the picture."""
    picture = np.zeros((_PICTURE_PX, _PICTURE_PX, 3), np.uint8)
    forward, left, _ = forward_left_up(points, frame_id)
    ground = np.stack([forward, left], axis=-1)  # [N, 2]
    with np.errstate(invalid="ignore", over="ignore"):
        near = ground[(np.abs(ground) < _REACH_M).all(axis=1)]
    cells = ((_REACH_M - near) / (2 * _REACH_M) * (_PICTURE_PX - 1)).astype(int)  # [M, 2] row, column
    picture[cells[:, 0], cells[:, 1]] = (120, 220, 120)
    return picture
