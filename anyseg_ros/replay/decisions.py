"""What the pipelines of all scenarios decide, moment by moment. The masks have no say in it, so it can run ahead; what
the network says as a witness it waits for."""

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
from anyseg_ros.replay.scenario_run import ScenarioRun, StateChange

AFTERWARDS_NS = NS_PER_S // 10
"""Simulated time after the last message: what waits for companions need not wait any longer."""


@dataclass(frozen=True, eq=False)
class PlannedMask:
    """A mask is to be made."""

    number: int
    """From 0, in the order of all scenarios' masks."""
    run: ScenarioRun
    job: Job
    scene: SensorFrame | None
    """What the bag's camera (or another sensor) saw last."""


@dataclass(frozen=True, eq=False)
class MomentEnd:
    """All that was received until now has been delivered, and every mask that is due has been given."""

    now_ns: int
    messages: int
    """Read so far."""
    changes: tuple[StateChange, ...]


Decision = PlannedMask | LabelSample | MomentEnd


class Decisions:
    """Iterate over it, once."""

    def __init__(
        self,
        samples: BagSamples,
        scene: Sensor,
        open_runs: Callable[[int], list[ScenarioRun]],
        encode_ahead: Callable[[Job], None],
        encode_from: int = 0,
    ) -> None:
        """What to decide on.

        Args:
            scene: whose frames are for people to look at.
            open_runs: called with the time at which the bag begins.
            encode_ahead: called with each job as soon as it is due.
            encode_from: number of the first mask whose network images are made ahead; those before it are there.
        """
        self._samples = samples
        self._scene_of = scene
        self._open_runs = open_runs
        self._encode_ahead = encode_ahead
        self._encode_from = encode_from
        self._number = 0
        self._scene: SensorFrame | None = None
        self.start_ns = 0
        self.end_ns = 0
        self.rig: Rig | None = None
        """The newest calibration."""

    def __iter__(self) -> Iterator[Decision]:
        runs: list[ScenarioRun] = []
        for now_ns, samples in _moments(iter(self._samples)):
            if not runs:
                first_ns = self._samples.first_ns
                self.start_ns = now_ns if first_ns is None else min(now_ns, first_ns)
                runs = self._open_runs(self.start_ns)
            yield from self._play(runs, now_ns, samples)
            yield self._end_of_moment(runs, now_ns)
        self.end_ns = max(self._samples.last_ns, self.start_ns)
        for run in runs:
            yield from self._planned(run, run.advance(self.end_ns + AFTERWARDS_NS))
        yield self._end_of_moment(runs, self.end_ns + AFTERWARDS_NS)

    def _play(self, runs: list[ScenarioRun], now_ns: int, samples: list[Sample]) -> Iterator[Decision]:
        """Deliver what is received at one time to every scenario, and see what they want segmented."""
        for run in runs:  # what happens before this moment does not know of its messages
            yield from self._planned(run, run.advance(now_ns))
        for sample in samples:
            if isinstance(sample, LabelSample):
                yield sample
            else:
                self._deliver(sample, runs)
        for run in runs:
            yield from self._planned(run, run.poll())

    def _deliver(self, sample: Sample, runs: list[ScenarioRun]) -> None:
        if isinstance(sample, FrameSample) and sample.frame.modality is self._scene_of:
            self._scene = sample.frame
        if isinstance(sample, RigSample):
            self.rig = sample.rig
        for run in runs:
            if isinstance(sample, FrameSample):
                run.send(sample.frame)
            elif isinstance(sample, RejectedSample):
                run.reject(sample.modality, sample.fault, sample.reason)
            elif isinstance(sample, RigSample):
                run.set_rig(sample.rig)
            elif isinstance(sample, MotionSample):
                run.on_motion(sample.stamp_ns, sample.twist)

    def _planned(self, run: ScenarioRun, jobs: Iterator[Job]) -> Iterator[PlannedMask]:
        for job in jobs:
            if self._number >= self._encode_from:
                self._encode_ahead(job)
            yield PlannedMask(self._number, run, job, self._scene)
            self._number += 1

    def _end_of_moment(self, runs: list[ScenarioRun], now_ns: int) -> MomentEnd:
        changes = tuple(change for run in runs for change in run.changes)
        for run in runs:
            run.changes.clear()
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
