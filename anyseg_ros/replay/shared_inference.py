"""One run of the network for all scenarios that want the same frames.

What is shared: the decoded frames, what the segmenter keeps of each (its network image, and its features where the
engine runs in parts), and whole results. A scenario whose fault is a lost camera has, meanwhile, the masks of the
subset without it, and before and after those of all sensors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from anyseg_core.runtime.cross_examination.agreement import Shown
from anyseg_core.runtime.segmenter import Segmentation, Segmenter
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_MS
from anyseg_ros.pipeline.jobs import Job, NetworkLook, encode_ahead, segment

_KEPT_NS = 200 * NS_PER_MS
"""Scenarios run side by side: they want the same frames within the time a pipeline waits for companions."""

_Key = tuple[object, ...]


@dataclass
class _Made:
    """A result."""

    job: Job
    """Keeps its frames alive, so that their ids stay theirs."""
    segmentation: Segmentation
    is_in_mask: bool = False
    """Whether a mask was made of it, and not only asked what one sensor shows."""


class SharedInference:
    """Remembers the results of the last moments."""

    def __init__(self, segmenter: Segmenter, min_confidence: float) -> None:
        """`min_confidence`: 0..1; a pixel below it has no label."""
        self._segmenter, self._min_confidence = segmenter, min_confidence
        self._recent: OrderedDict[_Key, _Made] = OrderedDict()
        self.runs = 0
        """Of the network."""
        self.reused = 0
        """Masks that needed no run."""
        self.engine_s = 0.0
        self.encode_s = 0.0

    def encode_ahead(self, job: Job) -> None:
        """As `jobs.encode_ahead`, on any thread."""
        encode_ahead(self._segmenter, job)

    def look(self, job: Job) -> Mapping[Sensor, Shown]:
        """What the network makes of each examined sensor alone. Raises EngineError."""
        return NetworkLook(job).complete(lambda alone: self._made(alone).segmentation)

    def run(self, job: Job) -> Segmentation:
        """Segment a job's frames, or take the result of the same ones. Raises InputError and EngineError."""
        made = self._made(job)
        if made.is_in_mask:
            self.reused += 1
            return made.segmentation
        made.is_in_mask = True
        self.runs += 1
        self.engine_s += made.segmentation.engine_s
        self.encode_s += made.segmentation.encode_s
        return made.segmentation

    def _made(self, job: Job) -> _Made:
        self._forget(job.created_ns)
        key: _Key = (
            id(job.rig),
            job.motion,
            *((modality, id(job.frames[modality])) for modality in sorted(job.frames)),
        )
        if key not in self._recent:
            segmentation = segment(self._segmenter, job, self._min_confidence).segmentation
            self._recent[key] = _Made(job, segmentation)
        return self._recent[key]

    def _forget(self, now_ns: int) -> None:
        while self._recent:
            key, made = next(iter(self._recent.items()))
            if abs(now_ns - made.job.created_ns) <= _KEPT_NS:
                return
            del self._recent[key]
