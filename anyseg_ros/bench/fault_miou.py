"""What a fault costs in mIoU until the node reacts: the same instants segmented in four ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyseg_core.injection import INJECTION_KINDS, Stage
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_MS
from anyseg_ros.bench.fault_drives import PERIOD_NS, START_NS, Delivery, Play, PlayableDrive, Scene
from anyseg_ros.bench.fault_trials import FAULT_S, SimulatedNode, Trial, effect_of, judge
from anyseg_ros.pipeline.jobs import Job

HEALTHY, BROKEN_IN, WITHOUT, AS_MADE = "healthy", "broken sensor in", "without it", "as made"
MAX_INSTANTS = 5
"""Segmented of one fault, from its first frame on; fewer where it is found sooner."""


@dataclass(frozen=True, eq=False)
class OnsetScore:
    """One fault of one sensor in one scene, from its first frame to the node's reaction."""

    kind: str
    modality: Sensor
    instants: int
    scores: Mapping[str, ConfusionMatrix]
    """By the names at the top of this file. AS_MADE is what the node would segment: nothing where it makes no mask."""


def scored_kinds() -> list[tuple[str, Sensor]]:
    """Faults that change what is measured, and silence; those of stamps change no picture."""
    kinds = [kind for kind, fault in INJECTION_KINDS.items() if fault.stage is Stage.CONTENT or kind == "drop"]
    return [(kind, modality) for kind in kinds for modality in INJECTION_KINDS[kind].modalities]


def score_onsets(job: tuple[Scene, Sequence[Trial], Path, str]) -> list[OnsetScore]:
    """Those of one scene, in a worker process."""
    scene, trials, folder, student = job
    drive = PlayableDrive.load(scene, folder)
    segmenter = Segmenter.open(student, threads=1)
    try:
        instants = _Instants(drive, segmenter)
        return [_score(trial, drive, instants) for trial in trials]
    finally:
        segmenter.close()


def pooled(scores: Iterable[OnsetScore], variant: str, num_classes: int) -> float:
    """mIoU in percent over all of them together."""
    total = ConfusionMatrix(num_classes)
    for score in scores:
        total.merge(score.scores[variant])
    return 100.0 * total.miou()


class _Instants:
    """Label images of instants of a drive; those of unbroken frames are made once."""

    def __init__(self, drive: PlayableDrive, segmenter: Segmenter) -> None:
        self._drive = drive
        self._segmenter = segmenter
        self._known: dict[tuple[int, frozenset[Sensor]], NDArray[np.uint8]] = {}

    @property
    def num_classes(self) -> int:
        return len(self._segmenter.card.classes)

    def truth(self, index: int) -> NDArray[np.uint8]:
        return self._drive.frames[index].labels

    def clean(self, index: int, used: Iterable[Sensor]) -> NDArray[np.uint8]:
        """From these sensors, all of them well."""
        key = index, frozenset(used)
        if key not in self._known:
            self._known[key] = self.of(index, {m: self._drive.frame(index, m) for m in DEFAULT_SENSORS if m in key[1]})
        return self._known[key]

    def of(self, index: int, frames: Mapping[Sensor, SensorFrame]) -> NDArray[np.uint8]:
        """From these frames."""
        result = self._segmenter.segment(frames, self._drive.rig)
        return result.resized_labels(*self.truth(index).shape)


def _score(trial: Trial, drive: PlayableDrive, instants: _Instants) -> OnsetScore:
    play = trial.play(drive)
    entry = play.schedule.injections[0]
    seen = _Seen(trial.modality)
    node = SimulatedNode(play, seen.on_job, seen.on_delivery)
    outcome = judge(trial, entry, node.run())
    begin_ns, _ = effect_of(entry, node.record)
    first_tick = int(np.ceil(entry.start_s * 1e9 / PERIOD_NS))
    reacted_ns = begin_ns + round((outcome.detection_ms or 1000.0 * FAULT_S) * NS_PER_MS)
    count = int(np.clip((reacted_ns - START_NS) // PERIOD_NS - first_tick + 1, 1, MAX_INSTANTS))
    scores = {name: ConfusionMatrix(instants.num_classes) for name in (HEALTHY, BROKEN_IN, WITHOUT, AS_MADE)}
    for tick in range(first_tick, first_tick + count):
        for name, labels in _four_ways(play, tick, seen, instants).items():
            scores[name].add(instants.truth(play.start_index + tick), labels)
    return OnsetScore(trial.kind, trial.modality, count, scores)


class _Seen:
    """What the node got of one sensor, and what it would have segmented, by stamp."""

    def __init__(self, modality: Sensor) -> None:
        self._modality = modality
        self.frames: dict[int, SensorFrame] = {}
        self.jobs: dict[int, Job] = {}

    def on_job(self, job: Job) -> None:
        self.jobs[job.anchor_frame.stamp_ns] = job

    def on_delivery(self, delivery: Delivery) -> None:
        if delivery.modality is self._modality and delivery.frame is not None:
            self.frames[delivery.frame.stamp_ns] = delivery.frame

    def newest(self, stamp_ns: int) -> SensorFrame:
        """The sensor's frame of that stamp; the last one before it where none came."""
        return self.frames[max(stamp for stamp in self.frames if stamp <= stamp_ns)]


def _four_ways(play: Play, tick: int, seen: _Seen, instants: _Instants) -> dict[str, NDArray[np.uint8]]:
    index, stamp_ns = play.start_index + tick, START_NS + tick * PERIOD_NS
    broken = seen.newest(stamp_ns)
    clean = {m: play.drive.frame(index, m) for m in DEFAULT_SENSORS}
    others = [m for m in DEFAULT_SENSORS if m is not broken.modality]
    return {
        HEALTHY: instants.clean(index, DEFAULT_SENSORS),
        BROKEN_IN: instants.of(index, {**clean, broken.modality: replace(broken, stamp_ns=stamp_ns)}),
        WITHOUT: instants.clean(index, others),
        AS_MADE: _as_made(seen.jobs.get(stamp_ns), index, broken.modality, instants),
    }


def _as_made(job: Job | None, index: int, broken: Sensor, instants: _Instants) -> NDArray[np.uint8]:
    if job is None:
        return np.full_like(instants.truth(index), UNLABELLED)
    if broken in job.frames or len({frame.stamp_ns for frame in job.frames.values()}) > 1:
        return instants.of(index, job.frames)
    return instants.clean(index, job.frames)
