"""A bag -> labelled frames to train on, in the layout of `sample_folder.py`. No ROS needed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from anyseg_core.runtime.geometry.depth_geometry import measured_pixels
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.label_files import check_classes, is_same_view
from anyseg_core.runtime.model_card import ClassSpec, DepthEncoding, InputSpec, LidarEncoding, ModelCard
from anyseg_core.runtime.model_faults import told
from anyseg_core.runtime.sample_folder import (
    DESCRIPTION_NAME,
    MAX_DEPTH_M,
    RIG_NAME,
    FolderDescription,
    RigSpec,
    endings,
    write_description,
    write_rig,
    write_sample,
)
from anyseg_core.runtime.sensors import DEPTH, Sensor, SensorFrame, point_sensor
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S
from anyseg_ros.bags.ground_truth import FolderLabels
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.bags.samples import BagSamples, BagTiming, BagTopics, FrameSample, LabelSample, RigSample, look_ahead
from anyseg_ros.bags.topics import find_companions, find_topics, mapping_by, parse_mapping, taken_instead
from anyseg_ros.messages.sensor_messages import COMPRESSED_IMAGE, IMAGE
from anyseg_ros.pipeline.parameters import Parameters

_KEPT_FRAMES = 40
"""Per sensor, while the frames that belong to a moment arrive."""


SPLITS = ("train", "val", "test")
_SAME_PLACE = 1e-3
"""Of a LiDAR, in metres and radians: less is the noise of a transform that is sent again and again."""
_LONGEST_S = 1e6
"""Between samples, and between the frames of one; nobody means more, and nanoseconds still fit 64 bits."""
_OFFSET_MS = 15.0
"""Sensors whose frames lie further than this from their moments, in the median, are said to."""
_SCANS_LOOKED_AT = 20
"""From which the range of intensity is learnt."""
_DEPTH_VALUES = 200
"""Depths of each sample from which percentiles are taken, evenly spread."""


class NothingToWriteError(ValueError):
    """A bag of which no sample can be made, or not for this data set; the message says why, and what to do."""


@dataclass(frozen=True)
class FolderOptions:
    """How a bag becomes samples. Raises ValueError for a split that no training knows."""

    split: str = "train"
    every_s: float = 1.0
    """Least time between two samples: neighbouring frames teach little."""
    max_time_diff_s: float = 0.06
    """Frames further than this from their moment do not belong to it."""
    mapping: tuple[str, ...] = ()
    """ROLE:=TOPIC, where names and types leave a choice."""
    labels: Path | None = None
    """A folder of label images named by stamp; None: the bag's label topic, if it has one."""
    classes: tuple[ClassSpec, ...] = ()
    """Of a new data set; empty: those of the card."""
    val_share: float = 0.0
    """Of the bag's duration, at its end, whose samples go to the split `val` instead; 0 to 1."""
    parameters: Parameters = field(default_factory=Parameters)
    """Of the node that the student will run in: whether pictures are rectified, depth registered, how events count."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r} is not known; known: {', '.join(SPLITS)}")
        for name in ("every_s", "max_time_diff_s"):
            if not 0 <= getattr(self, name) <= _LONGEST_S:
                raise ValueError(f"{name} must be seconds from 0 to {_LONGEST_S:g}, not {getattr(self, name):g}")
        if not 0 <= self.val_share < 1:
            raise ValueError(f"the share of the bag for val must be from 0 to below 1, not {self.val_share:g}")


@dataclass
class Written:
    """What came of a bag."""

    samples: int = 0
    validation: int = 0
    """Of them, those that went to `val` by `FolderOptions.val_share`."""
    labelled: int = 0
    incomplete: int = 0
    """Moments left out because a sensor had no frame near them."""
    rejected: int = 0
    """Messages that were no frame."""
    modalities: tuple[Sensor, ...] = ()
    problems: list[str] = field(default_factory=list)
    """What is wrong with the bag itself, and what of it could not be used."""
    advice: list[str] = field(default_factory=list)
    """What should be looked at before training: offsets between stamps, the range of depth."""


@dataclass(frozen=True, eq=False)
class _Moment:
    stamp_ns: int
    labels: NDArray[np.uint8] | None


def write_folder(bag: Path, root: Path, card: ModelCard, options: FolderOptions) -> Written:
    """Write a bag's samples to `<root>/<split>/<bag's name>`, its end to `val` where asked for, with its calibration.

    A sample is taken at each label image, where there are any, else at each frame of the first sensor: such samples
    wait for their `_label.png`. Only moments that every sensor saw are written. A new data set gets the card's
    encodings, with the bag's range of intensity, and the classes of options or card; the dataset.json of one that is
    there already is never changed: a bag that does not fit it is refused, its intensity brought to that range.

    Raises BagError, TopicError, GroundTruthError, NothingToWriteError, OSError.
    """
    reader = BagReader(bag)
    connections = [(choice.topic, choice.msgtype) for choice in reader.topics]
    mapping = _mapping(options, connections)
    sensors = find_topics(connections, mapping, wanted=card.modalities)
    if not sensors:
        raise NothingToWriteError(
            f"{bag} has no topic of {', '.join(card.modalities)}: name them with --map ROLE:=TOPIC"
        )
    description = _description_for(root, card, tuple(sensors), options)
    topics = BagTopics(sensors, find_companions(connections, sensors, mapping))
    timing = look_ahead(reader, topics)
    samples = BagSamples(reader, topics, options.parameters, uses_stamps=timing.uses_stamps)
    full_intensity = _full_intensity(samples) if point_sensor(sensors) is not None else 0.0
    description = _with_intensity(description, 0.0 if (root / DESCRIPTION_NAME).exists() else full_intensity)
    collector = _Collector(tuple(m for m in card.modalities if m in sensors), topics, options)
    if collector.folder is not None and not timing.uses_stamps:
        collector.folder.require_within(reader.start_ns - NS_PER_S, reader.end_ns + NS_PER_S)
    drive = drive_name(bag)
    span_ns = (1 - options.val_share) * (reader.end_ns - reader.start_ns)
    cut_ns: float | None = None  # from here on samples are for validation
    written = Written(modalities=collector.modalities)
    for stamp_ns, frames, labels in _with_their_rig(collector, samples, root, drive, options):
        if labels is not None:
            _check_labels(labels, f"the label image of {stamp_ns}", len(description.classes), frames)
        cut_ns = stamp_ns + span_ns if cut_ns is None else cut_ns
        validates = options.val_share > 0 and stamp_ns >= cut_ns
        split, name = "val" if validates else options.split, f"{stamp_ns:019d}"
        _require_in_no_other_split(root, drive, split, f"{name}{endings(collector.modalities[0])[0]}")
        stored = [_in_units_of(description, frame, full_intensity) for frame in frames]
        write_sample(root / split / drive, name, stored, labels)
        written.samples += 1
        written.validation += validates
        written.labelled += labels is not None
    written.incomplete = collector.incomplete
    written.rejected = samples.rejected.total()
    written.problems = [problem.text for problem in reader.problems] + _unusable(samples, timing)
    _require_samples(written, bag, options)
    if collector.rig is not None:
        _write_rigs(collector.rig, root, drive, {options.split, "val"} if written.validation else {options.split})
    if not (root / DESCRIPTION_NAME).exists():
        write_description(root, description)
    written.advice = [
        *taken_instead(options.parameters, sensors, topics.companions, mapping),
        *collector.offsets(),
        *collector.depth_range(description),
        *collector.left_out(),
        *collector.moved_lidar(),
        *collector.bent_pictures(),
        *_about_labels(written, connections, topics, options),
        *_about_validation(written, options),
    ]
    return written


def _check_labels(labels: NDArray[np.uint8], name: str, classes: int, frames: Sequence[SensorFrame]) -> None:
    """Raises ValueError where labels have other classes, or do not show what the first picture of the frames shows."""
    check_classes(labels, classes, name)
    picture = next((frame for frame in frames if not frame.kind.is_points), None)
    if picture is not None and not is_same_view(picture.data.shape, labels.shape):
        size, label_size = (f"{shape[1]}x{shape[0]}" for shape in (picture.data.shape, labels.shape))
        raise NothingToWriteError(
            f"{name} is {label_size}, but the {picture.modality} is {size}: they do not show the same view. Give the "
            "label images of these pictures"
        )


def _require_samples(written: Written, bag: Path, options: FolderOptions) -> None:
    if written.samples:
        return
    why = "; ".join(written.problems) or "raise --max-time-diff-s, or leave a sensor out with --map ROLE:="
    raise NothingToWriteError(
        f"{bag} has no moment that {', '.join(written.modalities)} all saw within {options.max_time_diff_s:g} s "
        f"({written.incomplete} moments, {written.rejected} bad messages): {why}"
    )


def drive_name(bag: Path) -> str:
    """What the drive of a bag is called: as its folder or file, also where that was given as `.`."""
    named = bag if bag.name not in ("", "..") else bag.resolve()
    return named.stem if named.is_file() else named.name


def _require_in_no_other_split(root: Path, drive: str, split: str, file: str) -> None:
    """Raises NothingToWriteError where a sample would be in two splits: a network is not scored on what it learned."""
    for folder in (root / other / drive for other in SPLITS if other != split):
        if (folder / file).exists():
            raise NothingToWriteError(
                f"{file} is in {folder} already, and would be in {split}, too, where scores on it would flatter: take "
                f"another bag or data set, or remove that folder if {split} is right"
            )


def _mapping(options: FolderOptions, connections: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Role to topic as options and parameters name them; labels from a folder are no topic's."""
    named = parse_mapping(options.mapping) | ({"labels": ""} if options.labels is not None else {})
    return mapping_by(options.parameters, connections, named)


def _about_labels(
    written: Written, connections: Iterable[tuple[str, str]], topics: BagTopics, options: FolderOptions
) -> list[str]:
    """Where labels may be, when there is none."""
    if written.labelled or options.labels is not None or topics.companions.labels is not None:
        return []
    images = {topic for topic, msgtype in connections if msgtype in (IMAGE, COMPRESSED_IMAGE)}
    others = sorted(images - set(topics.names()))
    if not others:
        return []
    return [f"no label image was found; if one of {', '.join(others)} holds them: --map labels:=TOPIC"]


def _with_their_rig(
    collector: _Collector, samples: Iterable[object], root: Path, drive: str, options: FolderOptions
) -> Iterator[tuple[int, list[SensorFrame], NDArray[np.uint8] | None]]:
    """The collector's moments. Raises NothingToWriteError before the first where one of the drive's folders has the
    calibration of another bag of that name, or one that somebody has corrected: it holds for all samples there.
    """
    splits = {options.split, "val"} if options.val_share else {options.split}
    for number, moment in enumerate(collector.complete_moments(samples)):
        if number == 0 and collector.rig is not None and not collector.rig.missing:
            own = RigSpec.of(collector.rig).model_dump(mode="json")
            for path in (root / split / drive / RIG_NAME for split in splits):
                if path.is_file() and _stored_rig(path) != own:
                    raise NothingToWriteError(
                        f"{path} is another calibration than this bag's, and would hold for its samples, too: rename "
                        f"the bag, or, where it is the bag that {path.parent} was made of, remove that file"
                    )
        yield moment


def _stored_rig(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise NothingToWriteError(f"{path} is no JSON file ({error}): remove it, and it is written anew") from None


def _write_rigs(rig: Rig, root: Path, drive: str, splits: set[str]) -> None:
    for split in splits:
        write_rig(root / split / drive, rig)


def _about_validation(written: Written, options: FolderOptions) -> list[str]:
    if not options.val_share:
        return []
    if written.validation in (0, written.samples):
        return [f"{written.validation} of {written.samples} samples are in val: change --val-share or --every-s"]
    return ["val is the end of the same drive, so scores on it flatter: a drive of its own tells more"]


def _description_for(
    root: Path, card: ModelCard, sensors: tuple[Sensor, ...], options: FolderOptions
) -> FolderDescription:
    """That of the data set where there is one, which the bag must fit, else a new one."""
    path = root / DESCRIPTION_NAME
    classes = options.classes or card.classes
    inputs = tuple(_of_frames(spec) for spec in card.inputs if spec.modality in sensors)
    if not path.exists():
        return FolderDescription(classes=classes, inputs=inputs)
    try:
        there = FolderDescription.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise NothingToWriteError(f"{path} is not valid: {told(error, FolderDescription)}") from None
    if options.classes and [c.name for c in there.classes] != [c.name for c in options.classes]:
        raise NothingToWriteError(f"{path} has other classes: leave out --classes, or choose another folder")
    lacking = [spec.modality for spec in there.inputs if spec.modality not in sensors]
    if lacking:
        raise NothingToWriteError(
            f"the data set {root} has {', '.join(lacking)}, and this bag has not: choose another folder for it, or "
            f"take that sensor out of {path}"
        )
    return there


def _of_frames(spec: InputSpec) -> InputSpec:
    """As the student has it, but its size of drawn points, which is that of the images that it was trained on."""
    if not isinstance(spec.encoding, LidarEncoding):
        return spec
    return spec.encoded_with(drawn_at=None)


def _full_intensity(samples: BagSamples) -> float:
    """What the strongest echo of the bag's scans has, by the first of them; 0 where they do not tell."""
    scans = (s.frame for s in samples if isinstance(s, FrameSample) and s.frame.intensity is not None)
    scales = [scan.intensity.full_scale for scan in islice(scans, _SCANS_LOOKED_AT) if scan.intensity is not None]
    return max(scales, default=0.0)


def _with_intensity(description: FolderDescription, full_scale: float) -> FolderDescription:
    """The description of a new data set, with the range of intensity that its bag has."""
    if not full_scale:
        return description

    def with_range(spec: InputSpec) -> InputSpec:
        if not isinstance(spec.encoding, LidarEncoding):
            return spec
        return spec.encoded_with(max_intensity=full_scale)

    return description.model_copy(update={"inputs": tuple(with_range(spec) for spec in description.inputs)})


def _in_units_of(description: FolderDescription, frame: SensorFrame, full_scale: float) -> SensorFrame:
    """A scan whose intensity has the range of the data set; any other frame as it is."""
    encoding = next(spec.encoding for spec in description.inputs if spec.modality == frame.modality)
    if not isinstance(encoding, LidarEncoding) or not full_scale or full_scale == encoding.max_intensity:
        return frame
    points = frame.data.copy()
    points[:, 3] *= encoding.max_intensity / full_scale
    return replace(frame, data=points)


def _unusable(samples: BagSamples, timing: BagTiming) -> list[str]:
    """What of the bag could not be used, with reasons."""
    found = [f"{count} x {text}" for text, count in samples.ignored.items()]
    for modality, reasons in samples.reasons.items():
        reason, count = reasons.most_common(1)[0]
        found.append(f"{modality}: {count} messages rejected: {reason}")
    return found + [
        f"{modality}: the stamps of {number} messages are 0" for modality, number in timing.without_stamps.items()
    ]


class _Collector:
    """Puts the frames together that belong to a moment, which may arrive before and after it."""

    def __init__(self, modalities: tuple[Sensor, ...], topics: BagTopics, options: FolderOptions) -> None:
        self.modalities = modalities
        self.rig: Rig | None = None
        self.incomplete = 0
        self.thinned = 0
        """Labelled moments that came too soon after the one before."""
        self.folder = FolderLabels(options.labels) if options.labels else None
        self._matched: set[int] = set()
        """Stamps of the label images that are of a frame."""
        self._has_labels = topics.companions.labels is not None
        self._apart_ms: dict[Sensor, list[float]] = {}
        self._depths_m: dict[Sensor, list[float]] = {}
        self._every_ns = int(options.every_s * NS_PER_S)
        self._reach_ns = int(options.max_time_diff_s * NS_PER_S)
        self._frames: dict[Sensor, deque[SensorFrame]] = {m: deque(maxlen=_KEPT_FRAMES) for m in modalities}
        self._waiting: deque[_Moment] = deque()
        self._last_ns: int | None = None
        self._lidar_moves = False

    def complete_moments(
        self, samples: Iterable[object]
    ) -> Iterator[tuple[int, list[SensorFrame], NDArray[np.uint8] | None]]:
        """Stamp, frames and labels of each moment that every sensor saw."""
        for sample in samples:
            if isinstance(sample, RigSample):
                self._take_rig(sample.rig)
            elif isinstance(sample, LabelSample):
                self._take(_Moment(sample.stamp_ns, sample.labels))
            elif isinstance(sample, FrameSample):
                frame = sample.frame
                self._frames[frame.modality].append(frame)
                if not self._has_labels and frame.modality == self.modalities[0]:
                    self._take_frame(frame.stamp_ns)
                yield from self._ready(frame.stamp_ns - 2 * self._reach_ns)
        yield from self._ready(None)

    def _take_rig(self, rig: Rig) -> None:
        if not rig.missing and self.rig is not None and not self.rig.missing:
            self._lidar_moves |= not np.allclose(rig.picture_from_lidar, self.rig.picture_from_lidar, atol=_SAME_PLACE)
        self.rig = rig

    def bent_pictures(self) -> list[str]:
        """That the data set's calibration has no lens, as the node's has."""
        if Sensor.LIDAR not in self.modalities or self.rig is None or self.rig.camera.distortion is None:
            return []
        return [
            f"camera_info tells of a lens' distortion, which {RIG_NAME} does not hold: LiDAR is drawn beside its place "
            "in training, and where it belongs in the node; set rig.rectify in --params-file, for both"
        ]

    def moved_lidar(self) -> list[str]:
        """That one calibration cannot hold for all samples."""
        if not self._lidar_moves:
            return []
        return [
            f"the LiDAR moves against the camera within the bag, and {RIG_NAME} has its last place for all samples: "
            "leave it out with --map lidar:=, or cut the bag where it moves"
        ]

    def _take_frame(self, stamp_ns: int) -> None:
        """A moment at a frame of the first sensor; with a folder of labels only where one is near."""
        if self.folder is None:
            self._take(_Moment(stamp_ns, None))
        elif (truth := self.folder.near(stamp_ns, self._reach_ns // 2)) is not None:
            self._matched.add(truth.stamp_ns)
            self._take(_Moment(stamp_ns, truth.labels))

    def offsets(self) -> list[str]:
        """The sensors whose frames are not of their moments, with how far they are away."""
        medians = {modality: float(np.median(apart)) for modality, apart in self._apart_ms.items()}
        return [
            f"{modality} lies {ms:+.0f} ms (median) from the moments of its samples: check the clocks"
            for modality, ms in medians.items()
            if abs(ms) > _OFFSET_MS
        ]

    def left_out(self) -> list[str]:
        """Labels are dear: how many of them came too soon to be taken, or are of no frame."""
        apart = f"less than {self._every_ns / NS_PER_S:g} s after another"
        told = [f"{self.thinned} labelled moments {apart} were left out: --every-s 0 takes all"] if self.thinned else []
        lost = self.folder.available - len(self._matched) if self.folder is not None else 0
        if self.folder is not None and lost:
            told.append(
                f"{lost} of {self.folder.available} label images in {self.folder.origin} are of no frame of "
                f"{self.modalities[0]}: name them by its stamps"
            )
        return told

    def depth_range(self, description: FolderDescription) -> list[str]:
        """What the encoding's range should be, by the depths that were measured."""
        advice = []
        for spec in description.inputs:
            values = self._depths_m.get(spec.modality)
            if values and isinstance(spec.encoding, DepthEncoding):
                near, middle, far = np.percentile(values, (1, 50, 99))
                beyond = 100 * float(np.mean(np.array(values) > MAX_DEPTH_M))
                text = (
                    f"{spec.modality}: 1, 50 and 99 % of the depths are below {near:.2g}, {middle:.2g} and {far:.2g} m"
                )
                text += f"; near_m is {spec.encoding.near_m:g}, far_m {spec.encoding.far_m:g} in {DESCRIPTION_NAME}"
                text += ": change them there before you train where they cut off or squeeze the scene"
                if beyond >= 0.1:
                    text += f"; {beyond:.1f} % are beyond {MAX_DEPTH_M:g} m, which are stored as not measured"
                advice.append(text)
        return advice

    def _look_at(self, moment_ns: int, frames: list[SensorFrame]) -> None:
        for frame in frames:
            self._apart_ms.setdefault(frame.modality, []).append((frame.stamp_ns - moment_ns) / NS_PER_MS)
            if frame.kind is DEPTH:
                depth_m = np.asarray(frame.data, np.float32)
                depths = depth_m[measured_pixels(depth_m)]
                step = max(1, len(depths) // _DEPTH_VALUES)
                self._depths_m.setdefault(frame.modality, []).extend(depths[::step].tolist())

    def _take(self, moment: _Moment) -> None:
        """Keep a moment that is not too soon after the last one."""
        if self._last_ns is None or moment.stamp_ns - self._last_ns >= self._every_ns:
            self._waiting.append(moment)
            self._last_ns = moment.stamp_ns
        elif moment.labels is not None:
            self.thinned += 1

    def _ready(self, before_ns: int | None) -> Iterator[tuple[int, list[SensorFrame], NDArray[np.uint8] | None]]:
        while self._waiting and (before_ns is None or self._waiting[0].stamp_ns < before_ns):
            moment = self._waiting.popleft()
            frames = [self._nearest(modality, moment.stamp_ns) for modality in self.modalities]
            whole = [frame for frame in frames if frame is not None]
            if len(whole) == len(self.modalities):
                self._look_at(moment.stamp_ns, whole)
                yield moment.stamp_ns, whole, moment.labels
            else:
                self.incomplete += 1

    def _nearest(self, modality: Sensor, stamp_ns: int) -> SensorFrame | None:
        near = min(self._frames[modality], key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None)
        return near if near is not None and abs(near.stamp_ns - stamp_ns) <= self._reach_ns else None
