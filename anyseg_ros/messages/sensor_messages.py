"""How each kind of sensor speaks ROS: the message types it may have, what reads them, and its usual topic. No ROS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from anyseg_core.runtime.events.stream import MESSAGE_READERS
from anyseg_core.runtime.full_scale import GREY_16_SCALES, INTENSITY_MEMORY, INTENSITY_SCALES, FullScale
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, Sensor, SensorFrame, SensorKind
from anyseg_ros.messages import conversions

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
EVENT_STREAMS = tuple(MESSAGE_READERS)
"""Types that carry single events. An event camera may also be an Image of counts, found by its name."""

Reader = Callable[..., SensorFrame]
"""Of a message and the sensor that sent it, and a keyword `scale` where the kind has one. Raises ConversionError."""
BRIGHT_SHARE = 0.995
"""Of a scan's points: the others may be mirrors."""


class SensorMessages(NamedTuple):
    """The messages of one kind of sensor."""

    topic: str
    """Of the sensor that is named as its kind, relative to the node's namespace."""
    readers: Mapping[str, Reader]
    """By message type, the usual one first: each message is a frame."""
    streams: tuple[str, ...] = ()
    """Message types of which many make a frame; preferred to the others."""
    words: tuple[str, ...] = ()
    """In the name of a topic, they tell this kind from others with the same message types."""

    other_words: tuple[str, ...] = ()
    """In the name of a topic, they tell that it is of another source though its type would fit."""
    full_scale: Callable[[float], FullScale] | None = None
    """Makes what learns the full scale of such a sensor's numbers, where messages do not tell it; of the scale that
    is set, or 0."""

    @property
    def types(self) -> tuple[str, ...]:
        """Every message type that it may have, the preferred one first."""
        return (*self.streams, *self.readers)


SENSOR_MESSAGES: dict[SensorKind, SensorMessages] = {
    CAMERA: SensorMessages(
        "camera/image_raw",
        {IMAGE: conversions.camera_frame, COMPRESSED_IMAGE: conversions.compressed_camera_frame},
        full_scale=lambda known: FullScale(GREY_16_SCALES, known=known),
    ),
    DEPTH: SensorMessages(
        "depth/image_rect",
        {IMAGE: conversions.depth_frame, COMPRESSED_IMAGE: conversions.compressed_depth_frame},
        words=("depth", "disparity"),
    ),
    EVENT: SensorMessages(
        "events",
        {IMAGE: conversions.event_frame},
        EVENT_STREAMS,
        words=("event", "dvs"),
        other_words=("image_raw", "image_mono", "image_color", "image_rect"),  # pictures of a DAVIS beside its events
    ),
    LIDAR: SensorMessages(
        "lidar/points",
        {POINT_CLOUD: conversions.lidar_frame},
        other_words=(
            "radar",
            "map",
            "depth",
            "camera",
            "stereo",
            "color",
            "obstacle",
            "cluster",
            "segment",
            "voxel",
            "object",
            "detect",
        ),  # clouds of other sensors, or what somebody made of scans
        full_scale=lambda known: FullScale(INTENSITY_SCALES, BRIGHT_SHARE, known, INTENSITY_MEMORY),
    ),
}
"""A row for every kind of `SENSOR_KINDS`."""


def reader_of(sensor: Sensor, msgtype: str, full_scale: float = 0.0) -> Callable[[Any], SensorFrame]:
    """What reads the messages of one sensor, one after the other: it learns from them.

    `full_scale` as the parameter `modalities.<name>.full_scale`; 0 = learnt. The reader raises ConversionError.
    """
    row = SENSOR_MESSAGES[sensor.kind]
    read = partial(row.readers[msgtype], sensor=sensor)
    return read if row.full_scale is None else partial(read, scale=row.full_scale(full_scale))


def default_topic(sensor: Sensor) -> str:
    """Where a sensor is looked for unless something else is configured: `camera/image_raw`, `thermal/image_raw`."""
    usual = SENSOR_MESSAGES[sensor.kind].topic
    return usual if sensor == sensor.kind.name else f"{sensor}/{usual.rpartition('/')[2]}"
