"""What the pipelines of all scenarios decide, moment by moment. The masks have no say in it, so it can run ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.bags.samples import (
    BagSamples,
    FrameSample,
    LabelSample,
    MotionSample,
    RejectedSample,
    RigSample,
    Sample,
)
from anyseg_ros.pipeline.jobs import Job
from anyseg_ros.replay.lane import Lane, StateChange

AFTERWARDS_NS = NS_PER_S // 10
"""Simulated time after the last message: what waits for companions need not wait any longer."""


@dataclass(frozen=True, eq=False)
class Decided:
    """A mask is to be made."""

    number: int
    """From 0, in the order of all scenarios' masks."""
    lane: Lane
    job: Job
    scene: SensorFrame | None
    """What the bag's camera (or another sensor) saw last."""


@dataclass(frozen=True, eq=False)
class MomentEnd:
    """All that was received until now has been delivered, and every mask that is due has been decided."""

    now_ns: int
    messages: int
    """Read so far."""
    changes: tuple[StateChange, ...]


Decision = Decided | LabelSample | MomentEnd


class Decisions:
    """Iterate over it, once."""

    def __init__(
        self,
        samples: BagSamples,
        scene: Sensor,
        open_lanes: Callable[[int], list[Lane]],
        encode_ahead: Callable[[Job], None],
        encode_from: int = 0,
    ) -> None:
        """What to decide on.

        Args:
            scene: whose frames are for people to look at.
            open_lanes: is told the time at which the bag begins.
            encode_ahead: called with each job as soon as it is decided.
            encode_from: number of the first mask whose network images are made ahead; those before it are there.
        """
        self._samples = samples
        self._scene_of = scene
        self._open_lanes = open_lanes
        self._encode_ahead = encode_ahead
        self._encode_from = encode_from
        self._number = 0
        self._scene: SensorFrame | None = None
        self.start_ns = 0
        self.end_ns = 0
        self.rig: Rig | None = None
        """The newest calibration."""

    def __iter__(self) -> Iterator[Decision]:
        lanes: list[Lane] = []
        for now_ns, samples in _moments(iter(self._samples)):
            if not lanes:
                first_ns = self._samples.first_ns
                self.start_ns = now_ns if first_ns is None else min(now_ns, first_ns)
                lanes = self._open_lanes(self.start_ns)
            yield from self._play(lanes, now_ns, samples)
            yield self._end_of_moment(lanes, now_ns)
        self.end_ns = max(self._samples.last_ns, self.start_ns)
        for lane in lanes:
            yield from self._decided(lane, lane.advance(self.end_ns + AFTERWARDS_NS))
        yield self._end_of_moment(lanes, self.end_ns + AFTERWARDS_NS)

    def _play(self, lanes: list[Lane], now_ns: int, samples: list[Sample]) -> Iterator[Decision]:
        """Deliver what is received at one time to every scenario, and see what they want segmented."""
        for lane in lanes:  # what happens before this moment does not know of its messages
            yield from self._decided(lane, lane.advance(now_ns))
        for sample in samples:
            if isinstance(sample, LabelSample):
                yield sample
            else:
                self._deliver(sample, lanes)
        for lane in lanes:
            yield from self._decided(lane, lane.poll())

    def _deliver(self, sample: Sample, lanes: list[Lane]) -> None:
        if isinstance(sample, FrameSample) and sample.frame.modality is self._scene_of:
            self._scene = sample.frame
        if isinstance(sample, RigSample):
            self.rig = sample.rig
        for lane in lanes:
            if isinstance(sample, FrameSample):
                lane.send(sample.frame)
            elif isinstance(sample, RejectedSample):
                lane.reject(sample.modality, sample.fault, sample.reason)
            elif isinstance(sample, RigSample):
                lane.set_rig(sample.rig)
            elif isinstance(sample, MotionSample):
                lane.on_motion(sample.stamp_ns, sample.twist)

    def _decided(self, lane: Lane, jobs: Iterator[Job]) -> Iterator[Decided]:
        for job in jobs:
            if self._number >= self._encode_from:
                self._encode_ahead(job)
            yield Decided(self._number, lane, job, self._scene)
            self._number += 1

    def _end_of_moment(self, lanes: list[Lane], now_ns: int) -> MomentEnd:
        changes = tuple(change for lane in lanes for change in lane.changes)
        for lane in lanes:
            lane.changes.clear()
        return MomentEnd(now_ns, self._samples.messages, changes)


def _moments(samples: Iterator[Sample]) -> Iterator[tuple[int, list[Sample]]]:
    """Samples of the same time together."""
    moment: list[Sample] = []
    for sample in samples:
        if moment and sample.now_ns != moment[0].now_ns:
            yield moment[0].now_ns, moment
            moment = []
        moment.append(sample)
    if moment:
        yield moment[0].now_ns, moment
