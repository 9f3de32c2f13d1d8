"""A bag -> labelled frames to train on, in the layout of `sample_folder.py`. No ROS needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.modality import Modality, ModalityFrame
from anyseg_core.runtime.model_card import ModelCard
from anyseg_core.runtime.sample_folder import FolderDescription, RigSpec, write_description, write_sample
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.bags.samples import BagSamples, BagTopics, FrameSample, LabelSample, RigSample, look_ahead
from anyseg_ros.bags.topics import find_companions, find_topics, parse_mapping
from anyseg_ros.pipeline.parameters import Parameters

_KEPT_FRAMES = 40
"""Per sensor, while the frames that belong to a moment arrive."""


class NothingToWriteError(ValueError):
    """A bag of which no sample can be made; the message says why, and what to do."""


@dataclass(frozen=True)
class FolderOptions:
    """How a bag becomes samples."""

    split: str = "train"
    every_s: float = 1.0
    """Least time between two samples: neighbouring frames teach little."""
    max_time_diff_s: float = 0.06
    """Frames further than this from their moment do not belong to it."""
    mapping: tuple[str, ...] = ()
    """ROLE:=TOPIC, where names and types leave a choice."""


@dataclass
class Written:
    """What came of a bag."""

    samples: int = 0
    labelled: int = 0
    incomplete: int = 0
    """Moments left out because a sensor had no frame near them."""
    rejected: int = 0
    """Messages that were no frame."""
    modalities: tuple[Modality, ...] = ()
    problems: list[str] = field(default_factory=list)
    """What is wrong with the bag itself."""


@dataclass(frozen=True, eq=False)
class _Moment:
    stamp_ns: int
    labels: NDArray[np.uint8] | None


def write_folder(bag: Path, root: Path, card: ModelCard, options: FolderOptions) -> Written:
    """Write a bag's samples to `<root>/<split>/<bag's name>`; classes and encodings are those of the card.

    A sample is taken at each label image, where the bag has them, else at each frame of its first sensor: such
    samples wait for their `_label.png`. Only moments that every sensor saw are written.

    Raises BagError, TopicError, NothingToWriteError, OSError.
    """
    reader = BagReader(bag)
    connections = [(choice.topic, choice.msgtype) for choice in reader.topics]
    mapping = parse_mapping(options.mapping)
    sensors = find_topics(connections, mapping, wanted=card.modalities)
    if not sensors:
        raise NothingToWriteError(
            f"{bag} has no topic of {', '.join(card.modalities)}: name them with --map ROLE:=TOPIC"
        )
    topics = BagTopics(sensors, find_companions(connections, sensors, mapping))
    samples = BagSamples(reader, topics, Parameters(), uses_stamps=look_ahead(reader, topics).uses_stamps)
    collector = _Collector(tuple(m for m in card.modalities if m in sensors), topics, options)
    folder = root / options.split / (bag.stem if bag.is_file() else bag.name)
    written = Written(modalities=collector.modalities)
    for stamp_ns, frames, labels in collector.complete_moments(samples):
        write_sample(folder, f"{stamp_ns:019d}", frames, labels)
        written.samples += 1
        written.labelled += labels is not None
    written.incomplete = collector.incomplete
    written.rejected = samples.rejected.total()
    written.problems = [problem.text for problem in reader.problems]
    if not written.samples:
        raise NothingToWriteError(
            f"{bag} has no moment that {', '.join(collector.modalities)} all saw within {options.max_time_diff_s:g} s "
            f"({collector.incomplete} moments, {written.rejected} bad messages): raise --max-time-diff-s, or leave a "
            "sensor out with --map ROLE:="
        )
    inputs = tuple(spec for spec in card.inputs if spec.modality in sensors)
    rig = RigSpec.of(collector.rig) if collector.rig is not None else None
    write_description(root, FolderDescription(classes=card.classes, inputs=inputs, rig=rig))
    return written


class _Collector:
    """Puts the frames together that belong to a moment, which may arrive before and after it."""

    def __init__(self, modalities: tuple[Modality, ...], topics: BagTopics, options: FolderOptions) -> None:
        self.modalities = modalities
        self.rig: Rig | None = None
        self.incomplete = 0
        self._has_labels = topics.companions.labels is not None
        self._every_ns = int(options.every_s * NS_PER_S)
        self._reach_ns = int(options.max_time_diff_s * NS_PER_S)
        self._frames: dict[Modality, deque[ModalityFrame]] = {m: deque(maxlen=_KEPT_FRAMES) for m in modalities}
        self._waiting: deque[_Moment] = deque()
        self._last_ns: int | None = None

    def complete_moments(
        self, samples: Iterable[object]
    ) -> Iterator[tuple[int, list[ModalityFrame], NDArray[np.uint8] | None]]:
        """Stamp, frames and labels of each moment that every sensor saw."""
        for sample in samples:
            if isinstance(sample, RigSample):
                self.rig = sample.rig
            elif isinstance(sample, LabelSample):
                self._take(_Moment(sample.stamp_ns, sample.labels))
            elif isinstance(sample, FrameSample):
                frame = sample.frame
                self._frames[frame.modality].append(frame)
                if not self._has_labels and frame.modality is self.modalities[0]:
                    self._take(_Moment(frame.stamp_ns, None))
                yield from self._ready(frame.stamp_ns - 2 * self._reach_ns)
        yield from self._ready(None)

    def _take(self, moment: _Moment) -> None:
        """Keep a moment that is not too soon after the last one."""
        if self._last_ns is None or moment.stamp_ns - self._last_ns >= self._every_ns:
            self._waiting.append(moment)
            self._last_ns = moment.stamp_ns

    def _ready(self, before_ns: int | None) -> Iterator[tuple[int, list[ModalityFrame], NDArray[np.uint8] | None]]:
        while self._waiting and (before_ns is None or self._waiting[0].stamp_ns < before_ns):
            moment = self._waiting.popleft()
            frames = [self._nearest(modality, moment.stamp_ns) for modality in self.modalities]
            whole = [frame for frame in frames if frame is not None]
            if len(whole) == len(self.modalities):
                yield moment.stamp_ns, whole, moment.labels
            else:
                self.incomplete += 1

    def _nearest(self, modality: Modality, stamp_ns: int) -> ModalityFrame | None:
        near = min(self._frames[modality], key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None)
        return near if near is not None and abs(near.stamp_ns - stamp_ns) <= self._reach_ns else None
