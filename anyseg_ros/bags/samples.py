"""Messages of a bag -> frames, rejections, calibration and label images, in the order of a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from anyseg_core.runtime.events.decoder import EventDecodeError
from anyseg_core.runtime.events.stream import EventStream
from anyseg_core.runtime.geometry.motion import point_seconds
from anyseg_core.runtime.geometry.projection import Rig, Twist
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.label_files import LabelFileError, decode_labels
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.bags.reader import BagMessage, BagReader
from anyseg_ros.bags.rig import BagRig
from anyseg_ros.bags.topics import CompanionTopics, TopicChoice
from anyseg_ros.messages import conversions
from anyseg_ros.messages.conversions import ConversionError
from anyseg_ros.messages.header_stamp import header_stamp_ns
from anyseg_ros.messages.sensor_messages import COMPRESSED_IMAGE, EVENT_STREAMS, reader_of
from anyseg_ros.pipeline.alignment import REGISTERED_BY
from anyseg_ros.pipeline.parameters import Parameters

LOOK_AHEAD_S = 3.0
"""How much of the bag's beginning is looked at for its clocks and rates."""
_SCANS_LOOKED_AT = 10
"""The times of the points of so many scans are compared with their stamps."""
_MOST_REASONS = 100
"""Different texts that are kept of why a sensor's messages were no frames: some have numbers in them."""
FOREIGN_CLOCK_S = 5.0
"""Stamps that lie further than this from the times of reception were made by another clock."""


@dataclass(frozen=True, eq=False)
class FrameSample:
    """A sensor's frame."""

    now_ns: int
    frame: SensorFrame


@dataclass(frozen=True)
class RejectedSample:
    """A message that is no frame."""

    now_ns: int
    modality: Sensor
    fault: Fault
    reason: str


@dataclass(frozen=True, eq=False)
class RigSample:
    """The calibration became known, or changed."""

    now_ns: int
    rig: Rig


@dataclass(frozen=True, eq=False)
class LabelSample:
    """A label image uint8 [H, W]: ground truth."""

    now_ns: int
    stamp_ns: int
    labels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MotionSample:
    """How the LiDAR moved."""

    now_ns: int
    stamp_ns: int
    twist: Twist


Sample = FrameSample | RejectedSample | RigSample | LabelSample | MotionSample


@dataclass(frozen=True)
class BagTopics:
    """Which topic is what."""

    sensors: Mapping[Sensor, TopicChoice]
    companions: CompanionTopics

    def names(self) -> set[str]:
        """Every topic that is read."""
        others = vars(self.companions).values()
        return {choice.topic for choice in (*self.sensors.values(), *others) if choice is not None}


@dataclass(frozen=True)
class BagTiming:
    """What the bag's beginning tells."""

    rates_hz: Mapping[Sensor, float]
    """Of the sensors that send frames: what nine of ten gaps between two keep. Event streams have none."""
    uses_stamps: bool
    """Whether the stamps are of another clock than the recorder's, and so are the time."""
    without_stamps: Mapping[Sensor, str] = field(default_factory=dict)
    """The sensors some of whose stamps are 0, with how many: their driver does not set header.stamp."""


def look_ahead(reader: BagReader, topics: BagTopics) -> BagTiming:
    """Rates and clock from the first seconds."""
    modality_of = {choice.topic: modality for modality, choice in topics.sensors.items()}
    times: dict[Sensor, list[int]] = {}
    zeros: Counter[Sensor] = Counter()
    stamped: Counter[Sensor] = Counter()
    apart_s: list[float] = []
    first_ns: int | None = None
    for message in reader.messages(modality_of):
        first_ns = message.received_ns if first_ns is None else first_ns
        if message.received_ns - first_ns > LOOK_AHEAD_S * NS_PER_S:
            break
        times.setdefault(modality_of[message.topic], []).append(message.received_ns)
        stamp = header_stamp_ns(message.cdr)
        if stamp is not None:
            stamped[modality_of[message.topic]] += 1
            zeros[modality_of[message.topic]] += stamp == 0
        if stamp:
            apart_s.append(abs(stamp - message.received_ns) / NS_PER_S)
    streams = {m for m, choice in topics.sensors.items() if choice.msgtype in EVENT_STREAMS}
    rates = {m: rate for m, received in times.items() if m not in streams and (rate := _rate_hz(received))}
    without = {modality: f"{number} of {stamped[modality]}" for modality, number in (+zeros).items()}
    return BagTiming(rates, bool(apart_s) and median(apart_s) > FOREIGN_CLOCK_S, without)


def _rate_hz(received_ns: list[int]) -> float | None:
    gaps = sorted(later - earlier for earlier, later in pairwise(received_ns) if later > earlier)
    return float(f"{NS_PER_S / gaps[int(0.9 * (len(gaps) - 1))]:.3g}") if gaps else None


class BagSamples:
    """Iterate over it for the samples of a bag, from its beginning each time."""

    def __init__(self, reader: BagReader, topics: BagTopics, parameters: Parameters, *, uses_stamps: bool) -> None:
        """With `uses_stamps` the time is that of the messages' stamps, else that of their reception."""
        self._reader = reader
        self._topics = topics
        self._parameters = parameters
        self._uses_stamps = uses_stamps
        self._sensor_topics = {choice.topic for choice in topics.sensors.values()}
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self.messages = 0
        """Read so far, of all topics."""
        self.first_ns: int | None = None
        """Time of the first message of a sensor, ..."""
        self.last_ns = 0
        """... and of the last one so far."""
        self.received: Counter[Sensor] = Counter()
        """Frames so far."""
        self.rejected: Counter[Sensor] = Counter()
        """Messages so far that were no frame."""
        self.newest_scan: SensorFrame | None = None
        """The last one so far that has points."""
        self.reasons: dict[Sensor, Counter[str]] = {}
        """Why they were none, and how many."""
        self.ignored: Counter[str] = Counter()
        """Other messages that could not be used, and what is not exact, by reason."""
        self.assumed_place = ""
        """As `Calibration.assumed_place`, of the last odometry."""

    def __iter__(self) -> Iterator[Sample]:
        self.messages, self.first_ns, self.last_ns = 0, None, 0
        for counts in (self.received, self.rejected, self.ignored):
            counts.clear()
        self.reasons.clear()
        handlers = self._handlers(
            BagRig(self._parameters.rig, {m: choice.topic for m, choice in self._topics.sensors.items()})
        )
        latest_ns = 0
        for message in self._reader.messages(self._topics.names()):
            self.messages += 1
            is_sensor = message.topic in self._sensor_topics
            if not self._uses_stamps:
                latest_ns = message.received_ns
            elif is_sensor:  # transforms have no header
                latest_ns = max(latest_ns, header_stamp_ns(message.cdr) or 0)
            if is_sensor:
                self.first_ns = latest_ns if self.first_ns is None else self.first_ns
                self.last_ns = max(self.last_ns, latest_ns)
            yield from handlers[message.topic](message, latest_ns)

    def _handlers(self, rig: BagRig) -> dict[str, _Handler]:
        companions = self._topics.companions
        sensors = {choice.topic: self._sensor_handler(m, choice, rig) for m, choice in self._topics.sensors.items()}
        others: list[tuple[TopicChoice | None, _Handler]] = [
            (companions.labels, self._on_labels),
            (companions.camera_info, self._info_handler(Sensor.CAMERA, rig)),
            (companions.depth_info, self._info_handler(Sensor.DEPTH, rig)),
            (companions.event_info, self._info_handler(Sensor.EVENT, rig)),
            (companions.tf, self._transform_handler(rig, is_static=False)),
            (companions.tf_static, self._transform_handler(rig, is_static=True)),
            (companions.clock, lambda _m, _now: iter(())),
            (companions.odometry, lambda m, now: self._on_odometry(m, now, rig)),
        ]
        return {**{choice.topic: handler for choice, handler in others if choice is not None}, **sensors}

    def _info_handler(self, sensor: Sensor, rig: BagRig) -> _Handler:
        return lambda message, now_ns: self._on_calibration(message, now_ns, rig, partial(rig.on_camera_info, sensor))

    def _transform_handler(self, rig: BagRig, *, is_static: bool) -> _Handler:
        take = partial(rig.on_transforms, is_static=is_static)
        return lambda message, now_ns: self._on_calibration(message, now_ns, rig, take)

    def _sensor_handler(self, modality: Sensor, choice: TopicChoice, rig: BagRig) -> _Handler:
        frames_of = self._converter(modality, choice.msgtype, rig)

        def on_message(message: BagMessage, now_ns: int) -> Iterator[Sample]:
            try:
                frames = [rig.aligned(frame) for frame in frames_of(message)]
            except Exception as error:  # also a message that nobody foresaw is counted, as in the node
                self.rejected[modality] += 1
                fault = error.fault if isinstance(error, ConversionError) else Fault.DECODE_ERROR
                named = str(error) if isinstance(error, (ConversionError, EventDecodeError)) else repr(error)
                self._count_reason(modality, named)
                yield RejectedSample(now_ns, modality, fault, named)
                return
            if modality == Sensor.EVENT and rig.events_note:
                self.ignored[f"places of events are not exact: {rig.events_note}"] = 1
            for frame in frames:
                self.received[modality] += 1
                self._look_at_times(frame)
                if frame.kind.is_points and len(frame.data):
                    self.newest_scan = frame
                if modality.kind.is_points:
                    rig.on_scan(frame)
                    yield from self._changed_rig(rig, now_ns)
                yield FrameSample(now_ns, frame)

        return on_message

    def _look_at_times(self, frame: SensorFrame) -> None:
        """Say it where the times of a scan's points are of another clock than its stamp."""
        times = frame.point_times
        if times is None or self.received[frame.modality] > _SCANS_LOOKED_AT or len(times) == 0:
            return
        if point_seconds(times, frame.stamp_ns) is None:
            self.ignored["scan whose points have times of another clock than its stamp: taken for one moment"] += 1

    def _count_reason(self, modality: Sensor, reason: str) -> None:
        reasons = self.reasons.setdefault(modality, Counter())
        reasons[reason if reason in reasons or len(reasons) < _MOST_REASONS else "other reasons"] += 1

    def _converter(self, modality: Sensor, msgtype: str, rig: BagRig) -> Callable[[BagMessage], Iterable[SensorFrame]]:
        if msgtype in EVENT_STREAMS:
            period_ns = self._parameters.health([modality])[modality].period_ns
            stream = EventStream(msgtype, period_ns, self._parameters.events.window_ns, modality)
            return lambda message: [] if (frame := stream.add(message.cdr)) is None else [frame]  # type: ignore[arg-type]
        parameters = self._parameters.modalities[modality]
        read = reader_of(modality, msgtype, parameters.full_scale)

        def frame_of(message: BagMessage) -> list[SensorFrame]:
            decoded = self._decoded(message)
            conversions.require_affordable(decoded, modality, rig.camera_of(modality), parameters.max_pixels)
            return [read(decoded)]

        return frame_of

    def _decoded(self, message: BagMessage) -> Any:
        return self._store.deserialize_cdr(message.cdr, message.msgtype)

    def _on_calibration(
        self, message: BagMessage, now_ns: int, rig: BagRig, take: Callable[[Any], None]
    ) -> Iterator[Sample]:
        try:
            take(self._decoded(message))
        except Exception as error:  # as in the node: it is ignored and said
            self.ignored[f"{message.topic}: {error}"] += 1
            return
        for sensor, why in rig.unregistered.items():
            self.ignored[f"place of {sensor}: {why}; it is used as it is: see {REGISTERED_BY[sensor]}"] = 1
        yield from self._changed_rig(rig, now_ns)

    def _on_odometry(self, message: BagMessage, now_ns: int, rig: BagRig) -> Iterator[Sample]:
        if not self._parameters.rig.compensate_motion:
            return
        try:
            stamp_ns, twist = rig.lidar_twist(self._decoded(message))
            self.assumed_place = rig.assumed_place
        except Exception as error:
            self.ignored[f"{message.topic}: {error}"] += 1
            return
        yield MotionSample(now_ns, stamp_ns, twist)

    def _on_labels(self, message: BagMessage, now_ns: int) -> Iterator[Sample]:
        try:
            decoded = self._decoded(message)
            labels = label_image(decoded, compressed=message.msgtype == COMPRESSED_IMAGE)
        except Exception as error:
            self.ignored[f"{message.topic}: {error}"] += 1
            return
        yield LabelSample(now_ns, conversions.stamp_ns(decoded.header), labels)

    @staticmethod
    def _changed_rig(rig: BagRig, now_ns: int) -> Iterator[Sample]:
        known = rig.changed()
        if known is not None:
            yield RigSample(now_ns, known)


_Handler = Callable[[BagMessage, int], "Iterator[Sample]"]


def label_image(message: Any, *, compressed: bool) -> NDArray[np.uint8]:
    """Image (mono8, 8UC1) or CompressedImage (PNG of class indices) -> class indices uint8 [H, W].

    Raises ConversionError.
    """
    if not compressed:
        return conversions.image_view(message, ("mono8", "8UC1"))
    try:
        return decode_labels(bytes(message.data), "the label image")
    except LabelFileError as error:
        raise ConversionError(Fault.DECODE_ERROR, str(error)) from None
