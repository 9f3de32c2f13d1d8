"""What is in a bag, before anything is done with it: topics, sensors, clocks, calibration, and what is odd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_core.wording import counted
from anyseg_ros.bags.reader import BagMessage, BagReader
from anyseg_ros.bags.samples import BagSamples, BagTopics, FrameSample, RigSample, look_ahead
from anyseg_ros.bags.topics import (
    CompanionTopics,
    TopicChoice,
    TopicError,
    find_companions,
    find_topics,
    left_out,
)
from anyseg_ros.bags.transforms import TransformTree
from anyseg_ros.messages.header_stamp import header_stamp_ns
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.presets import matching_presets, notes_of

LOOKED_AT_S = 5.0
"""Of the bag's beginning are decoded: encodings, calibration and pictures are from there."""
_KEPT_STAMPS = 5000
"""Per sensor, from which offsets are taken."""
_TRANSFORMS_LOOKED_AT = 2000
"""Messages per topic of TF: frames that come later than these are rare."""
_TF_TYPE = "tf2_msgs/msg/TFMessage"
_MOST_NAMED = 4
"""Frames of a tree that a sentence lists."""


@dataclass
class TopicFacts:
    """One topic."""

    choice: TopicChoice
    counted: int
    """Messages that the storage has, ..."""
    delivered: int = 0
    """... and those that could be read."""
    first_ns: int = 0
    last_ns: int = 0
    encoding: str = ""
    """Of its first message: of an image, of compressed data, or the fields of a point cloud."""
    role: str = ""

    @property
    def rate_hz(self) -> float:
        """Mean over the bag; 0 where there are not two messages."""
        span_ns = self.last_ns - self.first_ns
        return (self.delivered - 1) * NS_PER_S / span_ns if self.delivered > 1 and span_ns > 0 else 0.0


@dataclass
class SensorFacts:
    """One sensor that was found."""

    sensor: Sensor
    choice: TopicChoice
    reason: str
    """Why this topic was taken for it."""
    frame: SensorFrame | None = None
    """The first one that could be decoded."""
    frames: int = 0
    rejected: int = 0
    """Messages of the beginning that were no frame."""
    offset_ms: float | None = None
    """Of its stamps from those of the first sensor, median; None where it is the first, or nothing is near."""
    delay_ms: float | None = None
    """From stamp to reception, median."""


@dataclass
class Inspection:
    """Everything that `anyseg inspect` says."""

    bag: Path
    duration_s: float
    topics: list[TopicFacts]
    sensors: list[SensorFacts]
    companions: CompanionTopics
    rig: Rig | None
    calibration: list[str]
    """Where intrinsics and extrinsics come from, or that they are not there."""
    problems: list[str]
    """What is wrong with the bag, lost messages first."""
    notes: list[str]
    """What must be decided by a person, and what was assumed."""
    undecided: Mapping[Sensor, str]
    """The sensors that several topics may be, with how to choose: also in `notes`."""


def inspect(
    bag: Path, mapping: Mapping[str, str] | None = None, progress: Callable[[int, int], None] | None = None
) -> Inspection:
    """Read a bag once as a whole, and decode its beginning.

    Args:
        bag: folder or file.
        mapping: role to topic, as `parse_mapping` gives it.
        progress: called with the messages read and their number.

    Raises BagError where there is none, TopicError for a named topic that is not there or does not fit.
    """
    reader = BagReader(bag)
    chosen = dict(mapping or {})
    connections = [(choice.topic, choice.msgtype) for choice in reader.topics]
    sensors, undecided = _sensors(connections, chosen)
    notes = list(undecided.values())
    companions = _companions(connections, sensors, chosen, notes)
    notes += left_out(connections, sensors, companions, mapping=chosen)
    notes += [
        f"topics of the preset {name}: {notes_of(name)[0]}" for name in matching_presets([t for t, _ in connections])
    ]
    topics = {choice.topic: TopicFacts(choice, count) for choice, count in reader.topics.items()}
    transforms = TransformTree()
    sensor_of = {choice.topic: sensor for sensor, choice in sensors.items()}
    stamps = _read_all(reader, topics, sensor_of, transforms, progress)
    facts = [
        SensorFacts(sensor, choice, "named with --map" if sensor in chosen else "by its type and name")
        for sensor, choice in sensors.items()
    ]
    _add_clocks(facts, stamps)
    rig = _decode_beginning(reader, BagTopics(sensors, companions), facts, notes) if sensors else None
    for role, choice in [*((str(s), c) for s, c in sensors.items()), *vars(companions).items()]:
        if choice is not None:
            topics[choice.topic].role = role
    duration_s = max(0, reader.end_ns - reader.start_ns) / NS_PER_S
    problems = [p.text for p in sorted(reader.problems, key=lambda problem: not problem.lost)]
    calibration = _calibration(companions, rig, sensors, transforms)
    ordered = sorted(topics.values(), key=lambda each: each.choice.topic)
    return Inspection(bag, duration_s, ordered, facts, companions, rig, calibration, problems, notes, undecided)


def _sensors(
    connections: list[tuple[str, str]], mapping: Mapping[str, str]
) -> tuple[dict[Sensor, TopicChoice], dict[Sensor, str]]:
    """The topic of each sensor, and for those that several may be how to choose."""
    found: dict[Sensor, TopicChoice] = {}
    undecided: dict[Sensor, str] = {}
    for sensor in DEFAULT_SENSORS:
        try:
            found |= find_topics(connections, mapping, [sensor])
        except TopicError as error:
            if sensor in mapping:
                raise
            undecided[sensor] = str(error)
    return found, undecided


def _companions(
    connections: list[tuple[str, str]],
    sensors: Mapping[Sensor, TopicChoice],
    mapping: dict[str, str],
    notes: list[str],
) -> CompanionTopics:
    """Those that are known; one that several topics may be is noted, and left out in `mapping`."""
    while True:
        try:
            return find_companions(connections, sensors, mapping)
        except TopicError as error:
            if not error.role:
                raise
            notes.append(str(error))
            mapping[error.role] = ""


def _read_all(
    reader: BagReader,
    topics: dict[str, TopicFacts],
    sensor_of: Mapping[str, Sensor],
    transforms: TransformTree,
    progress: Callable[[int, int], None] | None,
) -> dict[Sensor, list[tuple[int, int]]]:
    """Count every message, collect the transforms; returns (stamp, time of reception) of the sensors' messages."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    total = sum(facts.counted for facts in topics.values())
    stamps: dict[Sensor, list[tuple[int, int]]] = {}
    for done, message in enumerate(reader.messages(set(topics)), 1):
        facts = topics[message.topic]
        if not facts.delivered:
            facts.first_ns = message.received_ns
            facts.encoding = _encoding_of(store, message.msgtype, message.cdr)
        facts.delivered += 1
        facts.last_ns = message.received_ns
        if message.msgtype == _TF_TYPE and facts.delivered <= _TRANSFORMS_LOOKED_AT:
            _add_transforms(store, message, transforms)
        sensor = sensor_of.get(message.topic)
        if sensor is not None and len(stamps.setdefault(sensor, [])) < _KEPT_STAMPS:
            stamp_ns = header_stamp_ns(message.cdr)
            if stamp_ns is not None:
                stamps[sensor].append((stamp_ns, message.received_ns))
        if progress is not None and done % 50 == 0:
            progress(done, total)
    return stamps


def _add_transforms(store: Any, message: BagMessage, transforms: TransformTree) -> None:
    """Of a message that is one; of another the calibration says that it is missing."""
    try:
        transforms.add(store.deserialize_cdr(message.cdr, _TF_TYPE), is_static=message.topic.endswith("_static"))
    except Exception:  # bytes that are no such message
        return


def _encoding_of(store: Any, msgtype: str, cdr: bytes | memoryview) -> str:
    """Of images and point clouds; empty for every other message, and for one that cannot be read."""
    if msgtype not in store.fielddefs:
        return ""
    try:
        message = store.deserialize_cdr(cdr, msgtype)
    except Exception:  # bytes that are no such message: the sensor's rejections say so
        return "not readable as its type"
    if hasattr(message, "fields") and hasattr(message, "point_step"):
        return ", ".join(each.name for each in message.fields)
    size = f" {message.width}x{message.height}" if hasattr(message, "encoding") else ""
    return f"{getattr(message, 'encoding', '') or getattr(message, 'format', '')}{size}"


def _add_clocks(facts: list[SensorFacts], stamps: Mapping[Sensor, list[tuple[int, int]]]) -> None:
    """Offsets between the sensors' stamps, and from stamp to reception."""
    reference = np.array(sorted(stamp for stamp, _ in stamps.get(facts[0].sensor, ())) if facts else [], np.int64)
    for each in facts:
        pairs = np.array(stamps.get(each.sensor, ()), np.int64).reshape(-1, 2)
        if not len(pairs):
            continue
        each.delay_ms = float(np.median(pairs[:, 1] - pairs[:, 0])) / NS_PER_MS
        if each is not facts[0] and len(reference):
            at = np.clip(np.searchsorted(reference, pairs[:, 0]), 1, max(len(reference) - 1, 1))
            around = np.stack([reference[np.minimum(at, len(reference) - 1)], reference[at - 1]])  # [2, N]
            apart = pairs[:, 0] - around
            nearest = np.take_along_axis(apart, np.abs(apart).argmin(axis=0)[None], axis=0)[0]
            each.offset_ms = float(np.median(nearest)) / NS_PER_MS


def _decode_beginning(reader: BagReader, topics: BagTopics, facts: list[SensorFacts], notes: list[str]) -> Rig | None:
    """First frames, rejections and calibration of the first seconds."""
    timing = look_ahead(reader, topics)
    notes += [f"{s}: the stamps of {number} messages are 0" for s, number in timing.without_stamps.items()]
    if timing.uses_stamps:
        notes.append("the stamps are of another clock than the recorder's: time is that of the stamps")
    samples = BagSamples(reader, topics, Parameters(), uses_stamps=timing.uses_stamps)
    of_sensor = {each.sensor: each for each in facts}
    rig = None
    for sample in samples:
        if isinstance(sample, RigSample):
            rig = sample.rig
        elif isinstance(sample, FrameSample):
            each = of_sensor[sample.frame.modality]
            each.frames += 1
            each.frame = each.frame or sample.frame
        if samples.first_ns is not None and sample.now_ns - samples.first_ns > LOOKED_AT_S * NS_PER_S:
            break
    for sensor, reasons in samples.reasons.items():
        of_sensor[sensor].rejected = reasons.total()
        reason, count = reasons.most_common(1)[0]
        notes.append(f"{sensor}: {counted(count, 'message')} of the beginning rejected: {reason}")
    notes += [f"{count} x {text}" for text, count in samples.ignored.items()]
    if rig is not None and samples.newest_scan is not None:
        notes += filter(None, [rig.odd_axes(samples.newest_scan.frame_id)])
    return rig


def _calibration(
    companions: CompanionTopics, rig: Rig | None, sensors: Mapping[Sensor, TopicChoice], transforms: TransformTree
) -> list[str]:
    """Where intrinsics and extrinsics are from, and whether the transforms are connected."""
    infos = [choice.topic for choice in (companions.camera_info, companions.depth_info) if choice is not None]
    lines = [f"intrinsics: {', '.join(infos) or 'no camera_info beside the camera or depth'}"]
    if rig is None:
        lines[0] += "; none could be read: set rig.intrinsics"
    if any(sensor.kind.is_points for sensor in sensors):
        names = [choice.topic for choice in (companions.tf_static, companions.tf) if choice is not None]
        lines.append(f"extrinsics of the LiDAR: {_extrinsics(', '.join(names), rig)}")
    trees = transforms.trees()
    if len(trees) == 1:
        lines.append(f"transforms: all {len(trees[0])} frames are connected")
    elif trees:
        lines.append(f"transforms: {len(trees)} trees that nothing connects: {'; '.join(map(_few, trees))}")
    return lines


def _extrinsics(topics: str, rig: Rig | None) -> str:
    if not topics:
        return "no /tf or /tf_static: set them in rig"
    if rig is None:
        return f"{topics}, but the camera's frame is not known"
    return f"NOT known: {rig.missing}" if rig.missing else f"{topics}: {rig.source}"


def _few(frames: list[str]) -> str:
    """`a, b, c, d and 3 more`."""
    more = len(frames) - _MOST_NAMED
    return ", ".join(frames[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
