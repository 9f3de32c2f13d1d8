"""Which topic of a bag is which sensor: found by type and name, asked for only where that leaves a choice. No ROS."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from anyseg_core.runtime.modality import MODALITIES, Modality
from anyseg_ros.messages.default_topics import DEFAULT_TOPICS

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ODOMETRY = "nav_msgs/msg/Odometry"
EVENT_STREAMS = (
    "event_camera_msgs/msg/EventPacket",
    "dvs_msgs/msg/EventArray",
    "prophesee_event_msgs/msg/EventArray",
)
"""Types that carry single events. An event camera may also be an Image of counts, found by its name."""

_IMAGES = (IMAGE, COMPRESSED_IMAGE)
SENSOR_TYPES: Mapping[Modality, tuple[str, ...]] = MappingProxyType(
    {
        Modality.CAMERA: _IMAGES,
        Modality.DEPTH: _IMAGES,
        Modality.EVENT: (*EVENT_STREAMS, IMAGE),
        Modality.LIDAR: (POINT_CLOUD,),
    }
)
"""The message types that a sensor may have, the preferred one first."""

_LABEL_WORDS = ("label", "ground_truth", "semantic", "segmentation", "mask")
_DEPTH_WORDS = ("depth", "disparity")
_EVENT_WORDS = ("event", "dvs")
_TRANSPORTS = ("/compressed", "/compressedDepth")
"""Suffixes of image_transport: the same pictures as on the topic without it."""


class TopicError(ValueError):
    """A topic that is not there, does not fit or is one of several; the message lists the candidates and the remedy."""


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
        "clock": ("rosgraph_msgs/msg/Clock",),
        "tf": ("tf2_msgs/msg/TFMessage",),
        "tf_static": ("tf2_msgs/msg/TFMessage",),
        "odometry": (ODOMETRY,),
    }
)
_USUAL_NAMES: Mapping[str, str] = MappingProxyType(
    {**{m.value: topic for m, topic in DEFAULT_TOPICS.items()}, "odometry": "odometry"}
)
ROLES: tuple[str, ...] = (*(m.value for m in MODALITIES), *_COMPANION_TYPES)
"""What a topic can be named to be with `--map ROLE:=TOPIC`."""


def parse_mapping(arguments: Iterable[str]) -> dict[str, str]:
    """`["camera:=/front/image", "lidar:="]` -> role to topic; an empty topic leaves the role out.

    Raises TopicError for an argument of another form, an unknown role, or a role named twice.
    """
    mapping: dict[str, str] = {}
    for argument in arguments:
        role, separator, topic = argument.partition(":=")
        if not separator:
            raise TopicError(f"--map {argument!r} must be ROLE:=TOPIC, such as camera:=/front/image_raw")
        if role not in ROLES:
            raise TopicError(f"--map {argument!r}: unknown role {role!r}; known: {', '.join(ROLES)}")
        if role in mapping:
            raise TopicError(f"--map {role} is given twice: {mapping[role]} and {topic}")
        mapping[role] = topic
    return mapping


def find_topics(
    connections: Iterable[tuple[str, str]],
    mapping: Mapping[str, str] = MappingProxyType({}),
    wanted: Collection[Modality] = MODALITIES,
) -> dict[Modality, TopicChoice]:
    """The topic of each wanted sensor that the bag has.

    Args:
        connections: (topic, message type) of everything in the bag.
        mapping: role to topic, as `parse_mapping` gives it: named topics are not searched for.
        wanted: the sensors to look for; the others may be as ambiguous as they like.

    A topic with the name that `segmentation_node` subscribes to, in any namespace, wins; so does a raw image over its
    own compressed transport. Raises TopicError where several candidates remain, and for a named topic that is absent
    or of a type that the sensor cannot have.
    """
    topics = _distinct(connections)
    found = {
        modality: _choose(modality.value, topics, mapping, SENSOR_TYPES[modality], _candidates(modality, topics))
        for modality in MODALITIES
        if modality in wanted
    }
    return {modality: choice for modality, choice in found.items() if choice is not None}


def find_companions(
    connections: Iterable[tuple[str, str]],
    sensors: Mapping[Modality, TopicChoice],
    mapping: Mapping[str, str] = MappingProxyType({}),
) -> CompanionTopics:
    """Ground truth, calibration, clock and transforms beside those sensors. Raises TopicError as `find_topics` does."""
    topics = _distinct(connections)
    candidates = {
        "labels": [t for t in topics if t.msgtype in _IMAGES and _has_word(t.topic, _LABEL_WORDS)],
        "camera_info": _info_beside(sensors.get(Modality.CAMERA), topics),
        "depth_info": _info_beside(sensors.get(Modality.DEPTH), topics),
        **{role: [t for t in topics if t.topic.rpartition("/")[2] == role] for role in ("clock", "tf", "tf_static")},
        "odometry": [t for t in topics if t.msgtype == ODOMETRY and Modality.LIDAR in sensors],
    }
    return CompanionTopics(
        **{role: _choose(role, topics, mapping, types, candidates[role]) for role, types in _COMPANION_TYPES.items()}
    )


def _distinct(connections: Iterable[tuple[str, str]]) -> list[TopicChoice]:
    """A topic that several publishers wrote to has several connections in a bag."""
    return sorted({TopicChoice(*connection) for connection in connections}, key=lambda t: (t.topic, t.msgtype))


def _candidates(modality: Modality, topics: Iterable[TopicChoice]) -> list[TopicChoice]:
    """The topics that by type and name may be that sensor, of the most telling type only."""
    fitting = [t for t in topics if t.msgtype in SENSOR_TYPES[modality] and _sensor_by_name(t) is modality]
    if modality is Modality.EVENT:  # a stream of single events is surer than an image called "events"
        fitting = [t for t in fitting if t.msgtype in EVENT_STREAMS] or fitting
    names = {t.topic for t in fitting}
    return [t for t in fitting if _base(t.topic) == t.topic or _base(t.topic) not in names]


def _base(topic: str) -> str:
    """The topic whose pictures are here in another transport; the topic itself where it is no such."""
    for suffix in _TRANSPORTS:
        topic = topic.removesuffix(suffix)
    return topic


def _sensor_by_name(topic: TopicChoice) -> Modality | None:
    """What a topic's type, or the words in the name of an image, say that it is; None for label images."""
    if topic.msgtype == POINT_CLOUD:
        return Modality.LIDAR
    if topic.msgtype in EVENT_STREAMS:
        return Modality.EVENT
    if topic.msgtype not in _IMAGES or _has_word(topic.topic, _LABEL_WORDS):
        return None
    if _has_word(topic.topic, _EVENT_WORDS):
        return Modality.EVENT
    return Modality.DEPTH if _has_word(topic.topic, _DEPTH_WORDS) else Modality.CAMERA


def _info_beside(sensor: TopicChoice | None, topics: Iterable[TopicChoice]) -> list[TopicChoice]:
    """The camera_info in the namespace of a sensor's topic, as image_transport has it."""
    if sensor is None:
        return []
    expected = f"{_base(sensor.topic).rpartition('/')[0]}/camera_info"
    return [t for t in topics if t.msgtype == CAMERA_INFO and t.topic == expected]


def _choose(
    role: str,
    topics: list[TopicChoice],
    mapping: Mapping[str, str],
    types: tuple[str, ...],
    candidates: list[TopicChoice],
) -> TopicChoice | None:
    """The named topic, or the only candidate."""
    if role in mapping:
        return _named(role, mapping[role], topics, types) if mapping[role] else None
    taken = set(mapping.values())
    left = [c for c in candidates if c.topic not in taken]
    usual = _USUAL_NAMES.get(role)
    left = [c for c in left if usual and f"/{c.topic}".endswith(f"/{usual}")] or left
    if len(left) > 1:
        listed = ", ".join(f"{c.topic} ({c.msgtype})" for c in left)
        raise TopicError(f"several topics may be {role}: {listed}. Say which with --map {role}:={left[0].topic}")
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
