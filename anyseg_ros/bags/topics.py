"""Which topic of a bag is which sensor: found by type and name, asked for only where that leaves a choice. No ROS."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorKind, in_order
from anyseg_ros.messages.default_topics import ODOMETRY as ODOMETRY_TOPIC
from anyseg_ros.messages.sensor_messages import COMPRESSED_IMAGE, IMAGE, POINT_CLOUD, SENSOR_MESSAGES, default_topic
from anyseg_ros.pipeline.parameters import Parameters

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ODOMETRY = "nav_msgs/msg/Odometry"
_IMAGES = (IMAGE, COMPRESSED_IMAGE)
_LABEL_WORDS = ("label", "annotation", "ground_truth", "semantic", "segmentation", "mask")
"""Pictures of classes: no camera's."""
_TRUTH_WORDS = ("label", "annotation", "ground_truth", "semantic")
"""Of those, the ones that are taken for ground truth: a mask may as well be what a network gave."""
_PREDICTION = re.compile(r"segmentation/(mask|color_mask|overlay|confidence)$")
"""What `segmentation_node` publishes."""
_DRAWING_WORDS = ("debug", "dbg", "overlay", "annotated", "visuali", "heatmap", "detections")
"""Pictures that were drawn for people."""
_TRANSPORTS = ("/compressed", "/compressedDepth")
"""Suffixes of image_transport: the same pictures as on the topic without it."""


class TopicError(ValueError):
    """A topic that is not there, does not fit or is one of several; the message lists the candidates and the remedy."""

    def __init__(self, message: str, role: str = "") -> None:
        super().__init__(message)
        self.role = role
        """That of several topics each may have; empty where the message is of something else."""


@dataclass(frozen=True)
class TopicChoice:
    """A topic of a bag with its type, `sensor_msgs/msg/Image` for example."""

    topic: str
    msgtype: str


@dataclass(frozen=True)
class CompanionTopics:
    """The topics that are not sensors; None where the bag has none."""

    labels: TopicChoice | None = None
    """Ground truth: mono8 images of class indices."""
    camera_info: TopicChoice | None = None
    depth_info: TopicChoice | None = None
    event_info: TopicChoice | None = None
    clock: TopicChoice | None = None
    tf: TopicChoice | None = None
    tf_static: TopicChoice | None = None
    odometry: TopicChoice | None = None
    """The vehicle's motion, which is taken out of LiDAR scans."""


_COMPANION_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "labels": _IMAGES,
        "camera_info": (CAMERA_INFO,),
        "depth_info": (CAMERA_INFO,),
        "event_info": (CAMERA_INFO,),
        "clock": ("rosgraph_msgs/msg/Clock",),
        "tf": ("tf2_msgs/msg/TFMessage",),
        "tf_static": ("tf2_msgs/msg/TFMessage",),
        "odometry": (ODOMETRY,),
    }
)


def parse_mapping(arguments: Iterable[str]) -> dict[str, str]:
    """`["camera:=/front/image", "lidar:="]` -> role (a sensor, or a companion) to topic; an empty one leaves it out.

    Raises TopicError for an argument of another form, or a role named twice; `find_topics` for an unknown role.
    """
    mapping: dict[str, str] = {}
    for argument in arguments:
        role, separator, topic = argument.partition(":=")
        if not separator:
            raise TopicError(f"--map {argument!r} must be ROLE:=TOPIC, such as camera:=/front/image_raw")
        if role in mapping:
            raise TopicError(f"--map {role} is given twice: {mapping[role]} and {topic}")
        mapping[role] = topic
    return mapping


def find_topics(
    connections: Iterable[tuple[str, str]],
    mapping: Mapping[str, str] = MappingProxyType({}),
    wanted: Collection[Sensor] = DEFAULT_SENSORS,
) -> dict[Sensor, TopicChoice]:
    """The topic of each wanted sensor that the bag has.

    Args:
        connections: (topic, message type) of everything in the bag.
        mapping: role to topic, as `parse_mapping` gives it: named topics are not searched for.
        wanted: the sensors to look for; the others may be as ambiguous as they like.

    A topic with the name that `segmentation_node` subscribes to, in any namespace, wins; so does a raw image over its
    own compressed transport. Raises TopicError where several candidates remain, for a named topic that is absent or of
    a type that the sensor cannot have, and for a name that is neither a sensor nor a companion.
    """
    topics, sensors = _distinct(connections), in_order(wanted)
    _check_roles(mapping, sensors)
    found = {
        sensor: _choose(
            sensor,
            topics,
            mapping,
            SENSOR_MESSAGES[sensor.kind].types,
            _candidates(sensor, topics, sensors),
            default_topic(sensor),
        )
        for sensor in sensors
    }
    return {sensor: choice for sensor, choice in found.items() if choice is not None}


def _check_roles(mapping: Mapping[str, str], sensors: Collection[Sensor]) -> None:
    """Raises TopicError for a role that nothing has."""
    known = [*in_order({*DEFAULT_SENSORS, *sensors}), *_COMPANION_TYPES]
    for role, topic in mapping.items():
        if role not in known:
            raise TopicError(f"--map {role}:={topic}: unknown role {role!r}; known: {', '.join(known)}")


def configured_topics(parameters: Parameters) -> dict[str, str]:
    """Role to topic of what parameters name themselves; what they leave at its default is found by type and name."""
    rig = parameters.rig
    sensors = {str(m): p.topic for m, p in parameters.modalities.items() if p.topic != default_topic(m)}
    return sensors | {
        role: topic
        for role, topic in (
            ("camera_info", rig.camera_info_topic),
            ("depth_info", rig.depth_info_topic),
            ("event_info", rig.event_info_topic),
            ("odometry", rig.odometry_topic if rig.odometry_topic != ODOMETRY_TOPIC else ""),
        )
        if topic
    }


def mapping_by(
    parameters: Parameters, connections: Iterable[tuple[str, str]], mapping: Mapping[str, str]
) -> dict[str, str]:
    """`mapping`, and for other roles the topics that a node with these parameters subscribes to, where the bag has
    them."""
    there = {topic.lstrip("/") for topic, _ in connections}
    usual = {str(sensor): each.topic for sensor, each in parameters.modalities.items()}
    named = {**usual, **configured_topics(parameters)}
    return {role: topic for role, topic in named.items() if topic.lstrip("/") in there} | dict(mapping)


def taken_instead(
    parameters: Parameters,
    sensors: Mapping[Sensor, TopicChoice],
    companions: CompanionTopics,
    mapping: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Which topics were taken for those that parameters name and the bag does not have: to be said."""
    found = {**{str(sensor): choice for sensor, choice in sensors.items()}, **vars(companions)}
    return [
        f"the parameters name {topic} for {role}, which the bag does not have: {choice.topic} is taken"
        for role, topic in configured_topics(parameters).items()
        if role not in mapping
        and (choice := found.get(role)) is not None
        and not f"/{choice.topic}".endswith(f"/{topic.lstrip('/')}")
    ]


def find_companions(
    connections: Iterable[tuple[str, str]],
    sensors: Mapping[Sensor, TopicChoice],
    mapping: Mapping[str, str] = MappingProxyType({}),
) -> CompanionTopics:
    """Ground truth, calibration, clock and transforms beside those sensors. Raises TopicError as `find_topics` does."""
    topics = _distinct(connections)
    candidates = {
        "labels": [t for t in topics if _is_truth_by_name(t)],
        "camera_info": _info_beside(sensors.get(Sensor.CAMERA), topics),
        "depth_info": _info_beside(sensors.get(Sensor.DEPTH), topics),
        "event_info": _own_event_info(sensors, topics),
        **{role: [t for t in topics if t.topic.rpartition("/")[2] == role] for role in ("clock", "tf", "tf_static")},
        "odometry": [t for t in topics if t.msgtype == ODOMETRY and any(s.kind.is_points for s in sensors)],
    }
    return CompanionTopics(
        **{
            role: _choose(role, topics, mapping, types, candidates[role], "odometry" if role == "odometry" else "")
            for role, types in _COMPANION_TYPES.items()
        }
    )


def left_out(
    connections: Iterable[tuple[str, str]],
    sensors: Mapping[Sensor, TopicChoice],
    companions: CompanionTopics,
    wanted: Collection[Sensor] = DEFAULT_SENSORS,
    mapping: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """What a topic was not taken for because of its name, where nothing else was found: to be said with the remedy.

    Nothing is said of a role that `mapping` leaves out.
    """
    topics = _distinct(connections)
    notes = []
    wanted = [sensor for sensor in wanted if mapping.get(sensor) != ""]
    if not any(sensor.kind.is_points for sensor in sensors) and any(s.kind.is_points for s in wanted):
        notes += [
            f"{t.topic} is not taken for a LiDAR, as its name says another source; if it is one: --map lidar:={t.topic}"
            for t in topics
            if t.msgtype == POINT_CLOUD
        ]
    if companions.labels is None and mapping.get("labels") != "":
        notes += [
            f"{t.topic} is not taken for ground truth, as a network may have made it; if it is: --map labels:={t.topic}"
            for t in topics
            if t.msgtype in _IMAGES and _has_word(t.topic, _LABEL_WORDS)
        ]
    if Sensor.CAMERA in set(wanted) - set(sensors):
        notes += [
            f"{t.topic} is not taken for a camera, as its name says a drawing; if it is one: --map camera:={t.topic}"
            for t in topics
            if t.msgtype in _IMAGES and _has_word(t.topic, _DRAWING_WORDS)
        ]
    return notes


def _distinct(connections: Iterable[tuple[str, str]]) -> list[TopicChoice]:
    """A topic that several publishers wrote to has several connections in a bag."""
    return sorted({TopicChoice(*connection) for connection in connections}, key=lambda t: (t.topic, t.msgtype))


def _candidates(sensor: Sensor, topics: Iterable[TopicChoice], wanted: Collection[Sensor]) -> list[TopicChoice]:
    """The topics that by type and name may be that sensor, of the most telling type only."""
    types, streams = SENSOR_MESSAGES[sensor.kind].types, SENSOR_MESSAGES[sensor.kind].streams
    fitting = [t for t in topics if t.msgtype in types and _sensor_by_name(t, wanted) == sensor]
    fitting = [t for t in fitting if t.msgtype in streams] or fitting  # surer than an image called "events"
    names = {t.topic for t in fitting}
    return [t for t in fitting if _base(t.topic) == t.topic or _base(t.topic) not in names]


def _base(topic: str) -> str:
    """The topic whose pictures are here in another transport; the topic itself where it is no such."""
    for suffix in _TRANSPORTS:
        topic = topic.removesuffix(suffix)
    return topic


def _sensor_by_name(topic: TopicChoice, wanted: Collection[Sensor]) -> str | None:
    """The sensor whose name is in the topic's; else the one that is named as the topic's kind, wanted or not."""
    kind = _kind_by_name(topic)
    if kind is None:
        return None
    named = [s for s in wanted if s.kind is kind and s != kind.name and s in topic.topic.lower()]
    return max(named, key=len, default=kind.name)


def _kind_by_name(topic: TopicChoice) -> SensorKind | None:
    """What a topic's type, and the words in its name, say that it is; None for label images and drawings."""
    types = _IMAGES if topic.msgtype in _IMAGES else (topic.msgtype,)
    if types is _IMAGES and _has_word(topic.topic, (*_LABEL_WORDS, *_DRAWING_WORDS)):
        return None
    fitting = {
        kind: row.words
        for kind, row in SENSOR_MESSAGES.items()
        if not set(types).isdisjoint(row.types) and not _has_word(topic.topic, row.other_words)
    }
    named = [kind for kind, words in fitting.items() if _has_word(topic.topic, words)]
    return (named or [kind for kind, words in fitting.items() if not words] or list(fitting) or [None])[-1]


def _is_truth_by_name(topic: TopicChoice) -> bool:
    """Whether an image's name says ground truth, and not what a network made of the pictures."""
    is_named = topic.msgtype in _IMAGES and _has_word(topic.topic, _TRUTH_WORDS)
    return is_named and not _PREDICTION.search(_base(topic.topic))


def _info_beside(sensor: TopicChoice | None, topics: Iterable[TopicChoice]) -> list[TopicChoice]:
    """The camera_info in the namespace of a sensor's topic, as image_transport has it."""
    if sensor is None:
        return []
    expected = f"{_base(sensor.topic).rpartition('/')[0]}/camera_info"
    return [t for t in topics if t.msgtype == CAMERA_INFO and t.topic == expected]


def _own_event_info(sensors: Mapping[Sensor, TopicChoice], topics: Iterable[TopicChoice]) -> list[TopicChoice]:
    """As `RigParameters.info_topics`: events beside the camera's images have none of their own there."""
    of_camera = _info_beside(sensors.get(Sensor.CAMERA), topics)
    return [choice for choice in _info_beside(sensors.get(Sensor.EVENT), topics) if choice not in of_camera]


def _choose(
    role: str,
    topics: list[TopicChoice],
    mapping: Mapping[str, str],
    types: tuple[str, ...],
    candidates: list[TopicChoice],
    usual: str,
) -> TopicChoice | None:
    """The named topic, or the only candidate, or the one with the `usual` name."""
    if role in mapping:
        return _named(role, mapping[role], topics, types) if mapping[role] else None
    taken = set(mapping.values())
    left = [c for c in candidates if c.topic not in taken]
    left = [c for c in left if usual and f"/{c.topic}".endswith(f"/{usual}")] or left
    if len(left) > 1:
        listed = ", ".join(f"{c.topic} ({c.msgtype})" for c in left)
        remedy = f"Say which with --map {role}:=TOPIC"
        if left[0].msgtype in _IMAGES and "labels" not in mapping:
            remedy += "; one that holds label images is named with --map labels:=TOPIC"
        raise TopicError(f"several topics may be {role}: {listed}. {remedy}", role)
    return left[0] if left else None


def _named(role: str, topic: str, topics: list[TopicChoice], types: tuple[str, ...]) -> TopicChoice:
    of_name = [t for t in topics if t.topic.lstrip("/") == topic.lstrip("/")]
    if not of_name:
        present = ", ".join(t.topic for t in topics) or "none"
        raise TopicError(f"no topic {topic} for {role}; topics there: {present}")
    fitting = [t for t in of_name if t.msgtype in types]
    if not fitting:
        raise TopicError(f"{topic} is {of_name[0].msgtype}, and {role} can only be {', '.join(types)}")
    return fitting[0]


def _has_word(topic: str, words: Iterable[str]) -> bool:
    return any(word in topic.lower() for word in words)
