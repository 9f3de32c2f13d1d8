"""Sensors are data: a sensor is a name with a kind, and a kind is a row that says what its sensors deliver.

The four sensors of the default student are named as their kinds. Any other is configuration: an input of a student's
card with a `kind`, and a block `modalities.<name>.{kind, topic, ...}` of the node's parameters. A new kind is a row
here, an encoding in `model_card` and `input_images`, and a row in `anyseg_ros/messages/sensor_messages.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


@dataclass(frozen=True, eq=False)
class SensorKind:
    """What every sensor of a kind delivers: the arrays of its frames, before any encoding for the network."""

    name: str
    shape: tuple[int | None, ...]
    """Of a frame's `data`; None is any length. Two numbers of which the second is given: points, a row each."""
    dtype: str
    """Of a frame's `data`."""
    like: SensorKind | None = None
    """A kind whose health checks, injections and augmentation fit this one, too."""

    def __str__(self) -> str:
        return self.name

    @property
    def family(self) -> SensorKind:
        """The kind by which its frames are checked, spoiled and augmented: itself, or the one that it is like."""
        return self.like or self

    @property
    def is_points(self) -> bool:
        """Whether it delivers points, which need a calibration to be projected and have no image size of their own."""
        return len(self.shape) == 2 and self.shape[1] is not None

    def fits(self, data: NDArray[Any]) -> bool:
        """Whether an array may be the data of such a frame."""
        if data.dtype != self.dtype or data.ndim != len(self.shape):
            return False
        return all(wanted in (size, None) for size, wanted in zip(data.shape, self.shape, strict=True))


CAMERA = SensorKind("camera", (None, None, 3), "uint8")
"""RGB. A grey or thermal picture has three equal channels."""
DEPTH = SensorKind("depth", (None, None), "float32")
"""Metres along the optical axis; 0 or NaN = no measurement."""
EVENT = SensorKind("event", (None, None, 2), "uint8")
"""Saturating counts of positive and negative events since the last frame."""
LIDAR = SensorKind("lidar", (None, 4), "float32")
"""x, y, z in metres in the sensor's own frame, and intensity."""

SENSOR_KINDS: dict[str, SensorKind] = {kind.name: kind for kind in (CAMERA, DEPTH, EVENT, LIDAR)}
"""Every kind by its name, in the order of the paper's R, D, E, L (AnySeg, arXiv 2411.17141)."""

_T = TypeVar("_T")

_NAME = re.compile("[a-z][a-z0-9_]*")
"""A sensor's name is part of parameters, topics and file names."""


class Sensor(str):
    """A sensor's name, which knows its kind. It equals the plain name, and files and messages hold it as that.

    In a process a name has one kind: `Sensor("thermal", "camera")` declares it, `Sensor("thermal")` finds it from then
    on. The four sensors that are named as their kinds are always there.

    Raises ValueError for a name without a kind, with two, or that is no lower-case identifier.
    """

    CAMERA: ClassVar[Sensor]
    DEPTH: ClassVar[Sensor]
    EVENT: ClassVar[Sensor]
    LIDAR: ClassVar[Sensor]
    _declared: ClassVar[dict[str, Sensor]] = {}

    kind: SensorKind

    def __new__(cls, name: str, kind: SensorKind | str | None = None) -> Sensor:
        name, kind = str(name), _kind_of(name, kind)
        declared = cls._declared.get(name)
        if declared is None:
            declared = str.__new__(cls, name)
            declared.kind = _checked(name, kind)
            cls._declared[name] = declared
        elif kind not in (None, declared.kind):
            raise ValueError(f"sensor {name} is of kind {declared.kind} and cannot be of kind {kind}: use another name")
        return declared

    def __reduce__(self) -> tuple[type[Sensor], tuple[str, str]]:
        """Another process declares it anew."""
        return Sensor, (str(self), self.kind.name)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            lambda name: cls(name) if isinstance(name, str) else name,
            core_schema.is_instance_schema(cls),
            serialization=core_schema.to_string_ser_schema(),
        )


def _kind_of(name: str, kind: SensorKind | str | None) -> SensorKind | None:
    """The kind that is asked for, or that a sensor of that name has without being asked for."""
    if isinstance(kind, SensorKind):
        return kind
    if kind is None:
        return SENSOR_KINDS.get(str(name))
    if kind not in SENSOR_KINDS:
        raise ValueError(f"sensor {name} is of the unknown kind {kind!r}; known kinds: {', '.join(SENSOR_KINDS)}")
    return SENSOR_KINDS[kind]


def _checked(name: str, kind: SensorKind | None) -> SensorKind:
    """The kind of a new sensor. Raises ValueError."""
    if kind is None:
        known = ", ".join(Sensor._declared)
        raise ValueError(
            f"unknown sensor {name!r}; known sensors: {known}. "
            f"Another one needs a kind ({', '.join(SENSOR_KINDS)}), as in modalities.{name or 'NAME'}.kind"
        )
    if not _NAME.fullmatch(name) or SENSOR_KINDS.get(name, kind) is not kind:
        raise ValueError(
            f"a sensor of kind {kind} cannot be called {name!r}: a name is lower-case letters, digits and _, "
            "and that of a kind belongs to that kind"
        )
    return kind


Sensor.CAMERA, Sensor.DEPTH, Sensor.EVENT, Sensor.LIDAR = map(Sensor, SENSOR_KINDS)
DEFAULT_SENSORS: tuple[Sensor, ...] = (Sensor.CAMERA, Sensor.DEPTH, Sensor.EVENT, Sensor.LIDAR)


def in_order(sensors: Collection[Sensor]) -> tuple[Sensor, ...]:
    """Each of them once: those of `DEFAULT_SENSORS` in its order, then the others by name."""
    others = sorted(set(sensors) - set(DEFAULT_SENSORS))
    return tuple(sensor for sensor in (*DEFAULT_SENSORS, *others) if sensor in sensors)


def point_sensor(sensors: Collection[Sensor]) -> Sensor | None:
    """The one among them that delivers points, to which calibration and odometry belong; None where there is none.

    Raises ValueError for two: in this version extrinsics are known of one.
    """
    found = [sensor for sensor in sensors if sensor.kind.is_points]
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(found)} deliver points, and the extrinsics of only one such sensor can be given (rig.*): "
            "export the student with one of them, and run a node of its own for the other"
        )
    return found[0] if found else None


def number_of(sensor: Sensor) -> int:
    """A number for seeds: the position in `DEFAULT_SENSORS`, and for others one that depends on the name alone."""
    return DEFAULT_SENSORS.index(sensor) if sensor in DEFAULT_SENSORS else crc32(sensor.encode())


@dataclass(frozen=True)
class Intensity:
    """What the fourth column of a scan's points is."""

    field: str
    """Its name in the cloud; empty where the cloud has none and the column is 0."""
    full_scale: float
    """Of the strongest echo: 1, 255, ...; 0 where it is not known (yet)."""
    is_learnt: bool
    """Whether the scale follows from the data, and was not set."""


@dataclass(frozen=True, eq=False)
class SensorFrame:
    """One measurement of one sensor, as arrays, before any encoding for the network.

    `data` is as the kind of `modality` says. `stamp_ns` is the acquisition time from the message header. `data` may be
    a read-only view of the message it came from: never write to it.
    """

    modality: Sensor
    data: NDArray[np.uint8] | NDArray[np.float32]
    stamp_ns: int
    frame_id: str = ""
    sequence: int | None = None
    """The sender's own count of its messages (`seq` of an EventPacket), where there is one: a gap in it is loss."""
    point_times: NDArray | None = None
    """Of points: [N], the cloud's own time field as it was sent, where it has one; see geometry/motion.py."""
    cloud_shape: tuple[int, int] = (0, 0)
    """Of points: (rows, columns) of an organised cloud; anything else than N points means that it is not organised."""
    intensity: Intensity | None = None
    """Of points: what their intensity is; None = what the student was trained with."""

    @property
    def kind(self) -> SensorKind:
        """Of its sensor."""
        return self.modality.kind

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, or None for points, which have no image size of their own."""
        if self.kind.is_points:
            return None
        return int(self.data.shape[0]), int(self.data.shape[1])


def all_subsets(sensors: Sequence[_T]) -> list[tuple[_T, ...]]:
    """The 2^M - 1 non-empty subsets of sensors, or of their indices, small ones first: as the published tables."""
    return [subset for size in range(1, len(sensors) + 1) for subset in combinations(sensors, size)]


def subset_name(sensors: Iterable[str]) -> str:
    """`camera+depth`."""
    return "+".join(sensors)


OPTICAL_SUFFIXES = ("_optical_frame", "_optical")
"""Of the names of frames whose axes are those of a camera's picture."""


def forward_left_up(points: NDArray[np.float32], frame_id: str) -> tuple[NDArray[np.float32], ...]:
    """Points [N, 3 or more] -> how far each lies ahead, to the left and above [N], in metres.

    A LiDAR's axes are these. A frame that is named `..._optical_frame`, as of depth cameras, has x to the right, y down
    and z ahead (REP-103).
    """
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    return (z, -x, -y) if frame_id.endswith(OPTICAL_SUFFIXES) else (x, y, z)
