"""Drives on which hazards are played: what is delivered, and the node's own pipeline that it is delivered to."""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from anyseg_core.injection import Injector
from anyseg_core.runtime.cross_examination.agreement import Shown
from anyseg_core.runtime.geometry.projection import Rig, Twist
from anyseg_core.runtime.health.monitor import ModalityStatus, State
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.segmenter import Segmentation, Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_core.sim.drive import DriveConfig, lidar_odometry
from anyseg_core.sim.drive_cache import recording_path
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.bags.samples import BagSamples, BagTopics, FrameSample, RigSample, look_ahead
from anyseg_ros.bags.topics import find_companions, find_topics
from anyseg_ros.pipeline.jobs import Job, NetworkLook, network_knowledge
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.pipeline import Pipeline

copyreg.pickle(MappingProxyType, lambda mapping: (MappingProxyType, (dict(mapping),)))  # for `Playing.copy`

RATE_HZ = 10.0
START_NS = 1_800_000_000 * NS_PER_S
LATENCY_NS = 5 * NS_PER_MS
MOST_OF_BAG_S = 60.0
"""Of a recorded drive that is played."""
ROUNDING_S = 1e-6


@dataclass(frozen=True, eq=False)
class Drive:
    """What is delivered: seconds and frames, in the order of time."""

    frames: Sequence[tuple[float, SensorFrame]]
    """Stamped as they are delivered, from `START_NS` on."""
    rig: Rig
    twists: Sequence[Twist | None]
    """What odometry says of the LiDAR, `RATE_HZ` times a second; None: there is none. A recorded drive is played
    without: a speed that is made up calls sensors frozen which stand."""
    labels: Sequence[NDArray[np.uint8]] = ()
    """What is right, as often; empty where it is not known."""

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """Those that it has."""
        return tuple(s for s in DEFAULT_SENSORS if any(frame.modality == s for _, frame in self.frames))

    @property
    def end_s(self) -> float:
        """When it ends."""
        return len(self.twists) / RATE_HZ

    @cached_property
    def own(self) -> Mapping[int, object]:
        """What a copy of something that uses the drive shares with it, by `id`."""
        return {id(each): each for each in (self, self.rig, *(frame for _, frame in self.frames))}

    @cached_property
    def by_stamp(self) -> Mapping[tuple[int, Sensor], SensorFrame]:
        """Its frames."""
        return {(frame.stamp_ns, frame.modality): frame for _, frame in self.frames}


@lru_cache(maxsize=1)
def load_drive(drive: DriveConfig | str, recordings: Path) -> Drive:
    """The drive, unpacked once in a process and not for each of its trials.

    Raises RecordingError, BagError or TopicError; ValueError for a bag without calibration.
    """
    return _bag(Path(drive)) if isinstance(drive, str) else _simulated(drive, recordings)


def _simulated(config: DriveConfig, recordings: Path) -> Drive:
    recording = RecordedDrive.load(recording_path(config, recordings))
    twist_at = lidar_odometry(config)
    times = [number / RATE_HZ for number in range(len(recording))]
    moments = list(recording)
    frames = [
        (t, _stamped(frame, t)) for t, moment in zip(times, moments, strict=True) for frame in moment.frames.values()
    ]
    return Drive(frames, recording.rig(), [twist_at(t) for t in times], [moment.labels for moment in moments])


def _bag(path: Path) -> Drive:
    reader = BagReader(path)
    connections = [(choice.topic, choice.msgtype) for choice in reader.topics]
    sensors = find_topics(connections)
    topics = BagTopics(sensors, find_companions(connections, sensors))
    samples = BagSamples(reader, topics, Parameters(), uses_stamps=look_ahead(reader, topics).uses_stamps)
    frames: list[tuple[float, SensorFrame]] = []
    rig: Rig | None = None
    for sample in samples:
        at_s = (sample.now_ns - (samples.first_ns or sample.now_ns)) / NS_PER_S
        if at_s > MOST_OF_BAG_S:
            break
        if isinstance(sample, RigSample):
            rig = sample.rig
        elif isinstance(sample, FrameSample):
            frames.append((at_s, _stamped(sample.frame, at_s)))
    if rig is None or not frames:
        raise ValueError(f"{path} has no frame, or no camera_info: nothing can be compared in it")
    return Drive(frames, rig, [None] * (1 + int(frames[-1][0] * RATE_HZ)))


def _stamped(frame: SensorFrame, at_s: float) -> SensorFrame:
    return replace(frame, stamp_ns=ns_at(at_s))


def ns_at(at_s: float) -> int:
    """The time of a drive's second on its clock."""
    return START_NS + round(at_s * NS_PER_S)


class Network:
    """A student that remembers what it made of a drive's own frames: trials differ in the broken ones only."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self.card = segmenter.card
        self._drive: Drive | None = None
        self._alone: dict[tuple[int, Sensor], Segmentation] = {}
        self._together: dict[tuple[tuple[Sensor, int], ...], Segmentation] = {}

    def look(self, job: Job, drive: Drive) -> Mapping[Sensor, Shown]:
        """What it makes of each examined sensor of a job alone."""
        self._begin(drive)
        return NetworkLook(job).complete(lambda alone: self._one(alone, job.examined[alone.anchor], drive))

    def segment(self, frames: Mapping[Sensor, SensorFrame], drive: Drive) -> Segmentation:
        """What it makes of these frames together."""
        self._begin(drive)
        key = tuple(sorted((sensor, frame.stamp_ns) for sensor, frame in frames.items()))
        is_own = all(id(frame) in drive.own for frame in frames.values())
        if is_own and key in self._together:
            return self._together[key]
        made = self._segmenter.segment(frames, drive.rig)
        if is_own:
            self._together[key] = made
        return made

    def _one(self, alone: Job, frame: SensorFrame, drive: Drive) -> Segmentation:
        key = frame.stamp_ns, frame.modality
        if id(frame) in drive.own and key in self._alone:
            return self._alone[key]
        made = self._segmenter.segment(alone.frames, alone.rig)
        if id(frame) in drive.own:
            self._alone[key] = made
        return made

    def _begin(self, drive: Drive) -> None:
        """Forget what was of another drive."""
        if drive is not self._drive:
            self._drive, self._alone, self._together = drive, {}, {}


@lru_cache(maxsize=1)
def network_of(student: str) -> Network:
    """Opened once in a process. Raises StudentError and EngineError."""
    return Network(Segmenter.open(student, threads=1))


@dataclass(frozen=True)
class Moment:
    """What is known after a tenth of a second."""

    at_s: float
    disputes: Mapping[Sensor, ModalityStatus]
    levels: Mapping[Fault, float]


OnMask = Callable[[Job, Pipeline], None]


@dataclass(eq=False)
class Playing:
    """A drive in the middle of being played to a pipeline, with some of its sensors and odometry."""

    drive: Drive
    sensors: tuple[Sensor, ...]
    network: Network
    moments: list[Moment] = field(default_factory=list)
    _next: int = 0
    """Of the drive's frames."""

    def __post_init__(self) -> None:
        parameters, knowledge = Parameters(), network_knowledge(self.network.card)
        health = parameters.health(self.sensors)
        self._pipeline = Pipeline(health, parameters.sync, START_NS, knowledge=knowledge)
        self._pipeline.set_rig(self.drive.rig)

    def copy(self) -> Playing:
        """Another one that goes on from here."""
        shared = {**self.drive.own, id(self.network): self.network}
        return copy.deepcopy(self, shared)

    def play_until(
        self, end_s: float, injector: Injector, on_mask: OnMask | None = None, *, includes_end: bool = True
    ) -> None:
        """Go on to a time; `on_mask` is called with each job before its frames are compared."""
        last_s = end_s + (ROUNDING_S if includes_end else -ROUNDING_S)
        for number in range(len(self.moments), len(self.drive.twists)):
            at_s = number / RATE_HZ
            if at_s > last_s:
                return
            if (twist := self.drive.twists[number]) is not None:
                self._pipeline.on_motion(ns_at(at_s), twist)
            self._deliver_until(at_s, injector, on_mask)
            statuses = self._pipeline.statuses(ns_at(at_s) + 3 * LATENCY_NS)
            disputes = {s.modality: s for s in statuses if s.state in (State.DISPUTED, State.FAILED)}
            self.moments.append(Moment(at_s, disputes, self._pipeline.suspicion_levels))

    def _deliver_until(self, at_s: float, injector: Injector, on_mask: OnMask | None) -> None:
        frames = self.drive.frames
        while self._next < len(frames) and frames[self._next][0] <= at_s + ROUNDING_S:
            frame_s, frame = frames[self._next]
            self._next += 1
            if frame.modality in self.sensors:
                self._deliver(injector.apply(frame, frame_s + ROUNDING_S), frame.stamp_ns, on_mask)

    def _deliver(self, sent: Sequence[SensorFrame], now_ns: int, on_mask: OnMask | None) -> None:
        """What is left of one frame, and what comes of it."""
        for frame in sent:
            self._pipeline.on_frame(frame, now_ns + LATENCY_NS)
        job = self._pipeline.poll(now_ns + 2 * LATENCY_NS)
        if job is None:
            return
        if on_mask is not None:
            on_mask(job, self._pipeline)
        self._pipeline.examine(job)
        if job.asks_network:
            self._pipeline.hear_network(job, self.network.look(job, self.drive))
