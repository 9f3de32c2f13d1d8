"""Every kind of data set that can be trained on: one table, and the configuration that chooses from it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from anyseg_core.data.deliver import Deliver, deliver_inputs
from anyseg_core.data.folder import Folder, folder_inputs, read_description
from anyseg_core.data.layouts import PICTURE_LAYOUTS, SCAN_LAYOUTS, PictureLayout, ScanLayout, find_layout
from anyseg_core.data.mid_air import RECORDS_NAME, MidAir, mid_air_inputs
from anyseg_core.data.mixture import Mixture, MixturePart
from anyseg_core.data.muses import Muses, muses_inputs
from anyseg_core.data.nyu_depth import MAT_NAME, nyu_depth, nyu_inputs
from anyseg_core.data.packed import PackedDataset
from anyseg_core.data.pictures import CAMERA_INPUT, Pictures
from anyseg_core.data.pothole import Pothole
from anyseg_core.data.potsdam import Potsdam, potsdam_inputs
from anyseg_core.data.sample import DataError, FileDataset, SegmentationDataset
from anyseg_core.data.scans import LIDAR_INPUT, Scans
from anyseg_core.data.usable import UsableSamples
from anyseg_core.runtime.label_sets import CITYSCAPES, NYU40, LabelClass
from anyseg_core.runtime.model_card import InputSpec
from anyseg_core.runtime.sample_folder import DESCRIPTION_NAME
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, DEPTH, Sensor
from anyseg_core.runtime.user_paths import UserPath

DataDescription = tuple[tuple[InputSpec, ...], tuple[LabelClass, ...]]
"""Inputs and classes."""


class DataConfig(BaseModel):
    """What to train on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = "deliver"
    """A name of `DATASETS`: `folder` is one's own data; `pictures` and `scans` are described by a layout, `mixture` is
    several data sets at once: docs/training/data_sets.md."""
    root: UserPath
    """Folder of the data set; of a mixture, the folder that its parts' roots are in."""
    cache: UserPath | None = Path("datasets/cache")
    """Folder for the decoded samples; null decodes them anew each time, for data sets too large for the disk."""
    train_split: str = "train"
    """The split that is trained on."""
    val_split: str = "val"
    """The split by which checkpoints are chosen."""
    size: tuple[int, int] = (256, 256)
    """(height, width) of samples and of the exported network, in pixels; multiples of 32."""
    sensors: dict[str, str] = {}
    """Kinds of the sensors of one's own data that are not named as their kind: `{thermal: camera}`."""
    modalities: tuple[Sensor, ...] = Field(default=DEFAULT_SENSORS, min_length=1)
    """Which of the data set's modalities to use: of RGB-D data camera and depth, or one of them (pothole: both)."""
    limit: int | None = Field(default=None, gt=0)
    """Use only the first samples of each split."""
    skip_broken: bool = False
    """Leave out samples with a missing or damaged file, and say how many; else the first one ends the run."""
    conditions: tuple[str, ...] = ()
    """DELIVER's weathers, MUSES' weathers and times of day, Mid-Air's climates; all where empty."""
    cases: tuple[str, ...] = ()
    """DELIVER's failure cases, such as motionblur; where empty, all drives."""
    depth: Literal["auto", "depth", "hha"] = "auto"
    """DELIVER's or NYUDepth's folder of the depth modality, as AnySeg, CMNeXt and CroDiNo-KD read hha."""
    source: Literal["auto", "raw", "png"] = "auto"
    """MUSES' raw sensors, or the images of its SDK."""
    motion_compensation: bool = True
    """Of MUSES' raw LiDAR points."""
    released_protocol: bool = False
    """Read MUSES or DELIVER as AnySeg's release does, faults included, to compare with its tables."""

    window: tuple[int, int] | None = None
    """(height, width) in pixels of Potsdam's tiles that make a sample; as many as `size` has where null."""
    every: int = Field(default=1, gt=0)
    """Only every n-th of Mid-Air's 25 frames per second."""
    layout: str | PictureLayout | ScanLayout | None = None
    """Of `pictures` and `scans`: a name of `data/layouts.py`, or the layout itself."""
    views: int = Field(default=1, gt=0)
    """Cameras that see each of the `scans`: the first is KITTI's, the others look anywhere."""
    label_radius: int = Field(default=0, ge=0)
    """Of `scans`: a point's label is a square of 2 * label_radius + 1 pixels."""
    licence: str = ""
    """Of the data, for the student's card; that of a known layout, and of a mixture's parts, is known."""
    non_commercial: bool = False
    """Whether the licence allows research and non-commercial use only: the robot says so when it loads the student."""
    labels: UserPath | None = None
    """Of a `folder`: where its label pictures are, if not beside the frames."""
    held_out: str = "dataset1"
    """Of `pothole`: the drive that val and test are; all other drives are for training."""
    parts: tuple[PartConfig, ...] = ()
    """The data sets of a mixture."""
    label_set: Literal["cityscapes", "first_part"] = "cityscapes"
    """The classes of a mixture: Cityscapes' 19, or those of its first part."""

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        if kind not in DATASETS:
            raise ValueError(f"{kind!r} is unknown; known kinds of data sets: {', '.join(DATASETS)}")
        return kind

    @field_validator("sensors")
    @classmethod
    def _declare(cls, sensors: dict[str, str]) -> dict[str, str]:
        for name, kind in sensors.items():
            Sensor(name, kind)
        return sensors

    @model_validator(mode="after")
    def _layout_is_known(self) -> DataConfig:
        if self.kind == "pictures":
            self.picture_layout()
        if self.kind == "scans":
            self.scan_layout()
        if self.kind == "mixture" and not self.parts:
            raise ValueError("a mixture needs parts: a list of data sets")
        return self

    def terms(self) -> tuple[str, bool]:
        """The licence of the data, or of all parts of a mixture, and whether it is non-commercial."""
        if self.kind == "mixture":
            parts = [part.terms() for part in self.parts]
            return "; ".join(dict.fromkeys(words for words, _ in parts if words)), any(bound for _, bound in parts)
        known = self.picture_layout() if self.kind == "pictures" else None
        known = self.scan_layout() if self.kind == "scans" else known
        of_layout = (known.licence, known.non_commercial) if known else ("", False)
        return self.licence or of_layout[0], self.non_commercial or of_layout[1]

    def picture_layout(self) -> PictureLayout:
        """Of kind `pictures`; raises ValueError where there is none of that name."""
        own = self.layout if isinstance(self.layout, PictureLayout) else None
        return find_layout(PICTURE_LAYOUTS, self.layout if isinstance(self.layout, str) else None, own)

    def scan_layout(self) -> ScanLayout:
        """Of kind `scans`; raises ValueError where there is none of that name."""
        own = self.layout if isinstance(self.layout, ScanLayout) else None
        return find_layout(SCAN_LAYOUTS, self.layout if isinstance(self.layout, str) else None, own)

    @model_validator(mode="after")
    def _size_fits_the_encoder(self) -> DataConfig:
        if any(side <= 0 or side % 32 for side in self.size):
            raise ValueError(f"size {self.size} must be positive multiples of 32")
        return self

    @model_validator(mode="after")
    def _settings_fit_the_kind(self) -> DataConfig:
        foreign = {key for row in DATASETS.values() for key in row.settings} - set(DATASETS[self.kind].settings)
        for key in sorted(foreign):
            if getattr(self, key) != type(self).model_fields[key].default:
                kinds = [name for name, row in DATASETS.items() if key in row.settings]
                kind = f"kind{'s' * (len(kinds) > 1)} {' and '.join(kinds)}"
                raise ValueError(f"{key} is a setting of {kind}, not of {self.kind}")
        return self


class PartConfig(DataConfig):
    """A data set of a mixture: its own settings, and its place in the mixture.

    Samples to train on are kept at the part's own `size`, of which training cuts its windows; all other splits are read
    at the mixture's size, as the robot would read them.
    """

    weight: float = Field(default=1.0, gt=0)
    """How often its samples are drawn, relative to the other parts."""
    meaning: dict[str, tuple[str, ...]] = {}
    """Of a class, the classes of the mixture that it may be; of known layouts this is known."""

    @model_validator(mode="after")
    def _is_no_mixture(self) -> PartConfig:
        if self.kind == "mixture":
            raise ValueError("a part of a mixture cannot be a mixture: list its parts beside the others")
        return self


DataConfig.model_rebuild()


def open_dataset(config: DataConfig, split: str) -> SegmentationDataset:
    """A split of the configured data set, packed unless `config.cache` is null; raises DataError."""
    if config.kind == "mixture":
        return open_mixture(config, split)
    source = open_files(config, split)
    if config.skip_broken:
        usable = UsableSamples(source)
        for broken in usable.skipped:
            print(f"skipped {broken.name}: {broken.error}", file=sys.stderr)
        source = usable
    return source if config.cache is None else PackedDataset(source, config.cache)


def open_mixture(config: DataConfig, split: str) -> Mixture:
    """A split of a mixture: the parts that have it. Raises DataError, also where none has."""
    parts = [
        MixturePart(open_dataset(part, own), part_meaning(part), name, part.weight)
        for name, part, own in parts_with_split(config, split)
    ]
    inputs, classes = describe_data(config)
    return Mixture(parts, inputs, classes, config.size)


def parts_of(config: DataConfig, split: str) -> list[PartConfig]:
    """A mixture's parts as they are read for a split: in training at their own sizes and from all views, else at the
    network's size, and from the vehicle's own camera.
    """
    common: dict[str, Any] = {"cache": config.cache}
    if split != config.train_split:
        common |= {"size": config.size, "views": 1, "label_radius": 0}
    return [
        part.model_copy(
            update={"root": config.root / part.root, "skip_broken": config.skip_broken or part.skip_broken, **common}
        )
        for part in config.parts
    ]


def split_of_part(config: DataConfig, part: PartConfig, split: str) -> str:
    """What a mixture's split is called in a part that names its own `train_split` or `val_split`."""
    for key in ("train_split", "val_split"):
        if split == getattr(config, key) and key in part.model_fields_set:
            return getattr(part, key)
    return split


def named_parts(config: DataConfig, split: str) -> list[tuple[str, PartConfig]]:
    """The same with a name each, by which they are scored: the last folder of its root, as many of the last ones as
    tell its root from the others' where it does not, and a number where several parts have one root.
    """
    parts = parts_of(config, split)
    roots = [part.root.parts for part in parts]
    depth, names = 1, [root[-1] for root in roots]
    while len({*names}) < len({*roots}):
        depth += 1
        names = ["/".join(root[-depth:]) for root in roots]
    earlier = [names[:place].count(name) for place, name in enumerate(names)]
    named = [f"{name} {count + 1}" if count else name for name, count in zip(names, earlier, strict=True)]
    return list(zip(named, parts, strict=True))


def has_split(part: PartConfig, split: str) -> bool:
    """False where the part's layout says that all of it is in other splits."""
    if part.kind not in ("pictures", "scans"):
        return True
    layout = part.picture_layout() if part.kind == "pictures" else part.scan_layout()
    return not layout.splits or split in layout.splits


def parts_with_split(config: DataConfig, split: str) -> list[tuple[str, PartConfig, str]]:
    """Name and configuration of a mixture's parts that have a split, and what it is called in each."""
    own = [(name, part, split_of_part(config, part, split)) for name, part in named_parts(config, split)]
    return [(name, part, called) for name, part, called in own if has_split(part, called)]


def part_meaning(part: PartConfig) -> dict[str, tuple[str, ...]]:
    """What a part's classes are in the mixture's terms: by its layout, and by the configuration, which goes first."""
    if part.kind == "pictures":
        return part.picture_layout().meaning | part.meaning
    return (part.scan_layout().meaning if part.kind == "scans" else {}) | part.meaning


def mixture_inputs(config: DataConfig) -> tuple[InputSpec, ...]:
    """The sensors of a mixture: those that one of its parts has, in the order of the modalities, encoded as by the
    first such part. Raises DataError where none is wanted.
    """
    found: dict[Sensor, InputSpec] = {}
    for part in parts_of(config, config.train_split):
        for spec in describe_data(part)[0]:
            found.setdefault(spec.modality, spec)
    inputs = tuple(found[modality] for modality in config.modalities if modality in found)
    if len(inputs) < len(found):
        raise DataError(
            f"data.modalities {', '.join(map(str, config.modalities))} leaves out {', '.join(map(str, found))} of the "
            "parts: remove those parts, or set their own modalities"
        )
    return inputs


def open_files(config: DataConfig, split: str) -> FileDataset:
    """A split of the configured data set, read from its files; raises DataError."""
    return DATASETS[config.kind].open(config, split)


def require_splits(config: DataConfig, splits: Iterable[str]) -> None:
    """Raises DataError where one of these splits is not there: their files are looked for, and none is read."""
    for split in dict.fromkeys(splits):
        if config.kind != "mixture":
            open_files(config, split)
            continue
        having = parts_with_split(config, split)
        if not having:
            raise DataError(f"none of the parts of the mixture has a split {split}")
        for _, part, own in having:
            open_files(part, own)


def _open_mixture_files(_config: DataConfig, _split: str) -> FileDataset:
    raise DataError("a mixture has no files of its own: look at each of its parts")


def _open_pictures(config: DataConfig, split: str) -> FileDataset:
    return Pictures(config.root, split, config.size, config.picture_layout(), config.limit)


def _open_scans(config: DataConfig, split: str) -> FileDataset:
    choice = {"views": config.views, "label_radius": config.label_radius}
    return Scans(config.root, split, config.size, config.scan_layout(), config.limit, **choice)


def _open_pothole(config: DataConfig, split: str) -> FileDataset:
    return Pothole(config.root, split, config.size, config.limit, config.held_out)


def _open_folder(config: DataConfig, split: str) -> FileDataset:
    return Folder(config.root, split, config.size, config.modalities, config.limit, labels=config.labels)


def _open_nyu_depth(config: DataConfig, split: str) -> FileDataset:
    return nyu_depth(config.root, split, config.size, config.modalities, config.limit, config.depth)


def _open_potsdam(config: DataConfig, split: str) -> FileDataset:
    return Potsdam(config.root, split, config.size, config.modalities, config.limit, window=config.window)


def _open_mid_air(config: DataConfig, split: str) -> FileDataset:
    choice = {"conditions": config.conditions, "every": config.every}
    return MidAir(config.root, split, config.size, config.modalities, config.limit, **choice)  # type: ignore[arg-type]


def _open_muses(config: DataConfig, split: str) -> FileDataset:
    return Muses(
        config.root,
        split,
        config.size,
        _without_depth(config),
        config.limit,
        conditions=config.conditions,
        source=config.source,
        motion_compensation=config.motion_compensation,
        released_protocol=config.released_protocol,
    )


def _open_deliver(config: DataConfig, split: str) -> FileDataset:
    choice = {"conditions": config.conditions, "cases": config.cases, "depth": config.depth}
    choice["released_protocol"] = config.released_protocol
    return Deliver(config.root, split, config.size, config.modalities, config.limit, **choice)  # type: ignore[arg-type]


def _without_depth(config: DataConfig) -> list[Sensor]:
    return [modality for modality in config.modalities if modality.kind is not DEPTH]


def describe_data(config: DataConfig) -> DataDescription:
    """Inputs and classes of a data set, of public ones also where the data is not at hand. Raises DataError."""
    return DATASETS[config.kind].describe(config)


def _describe_folder(config: DataConfig) -> DataDescription:
    description = read_description(config.root)
    classes = tuple(LabelClass(entry.name, entry.color, entry.surface) for entry in description.classes)
    return folder_inputs(description, config.modalities), classes


def _describe_muses(config: DataConfig) -> DataDescription:
    return muses_inputs(_without_depth(config), released_protocol=config.released_protocol), Muses.classes


def _describe_mixture(config: DataConfig) -> DataDescription:
    first = parts_of(config, config.train_split)[0]
    return mixture_inputs(config), CITYSCAPES if config.label_set == "cityscapes" else describe_data(first)[1]


@dataclass(frozen=True)
class DatasetKind:
    """How a kind of data set is read."""

    open: Callable[[DataConfig, str], FileDataset]
    """A split, read from its files. Raises DataError."""
    describe: Callable[[DataConfig], DataDescription]
    """Inputs and classes, of public data sets also where the data is not at hand. Raises DataError."""
    settings: tuple[str, ...] = ()
    """Fields of `DataConfig` that this kind has and most others have not."""
    found_by: tuple[str, ...] = ()
    """What is in the root of such a data set, each as a pattern."""


DATASETS: dict[str, DatasetKind] = {
    "deliver": DatasetKind(
        _open_deliver,
        lambda config: (deliver_inputs(config.root, config.modalities), Deliver.classes),
        settings=("conditions", "cases", "depth", "released_protocol"),
        found_by=("semantic",),
    ),
    "muses": DatasetKind(
        _open_muses,
        _describe_muses,
        settings=("conditions", "source", "motion_compensation", "released_protocol"),
        found_by=("frame_camera",),
    ),
    "folder": DatasetKind(_open_folder, _describe_folder, settings=("labels",), found_by=(DESCRIPTION_NAME,)),
    "pothole": DatasetKind(
        _open_pothole,
        lambda _config: (Pothole.inputs, Pothole.classes),
        settings=("held_out",),
        found_by=("disparity",),
    ),
    "nyu_depth": DatasetKind(
        _open_nyu_depth,
        lambda config: (nyu_inputs(config.root, config.modalities, config.depth), NYU40),
        settings=("depth",),
        found_by=(MAT_NAME, "Label"),
    ),
    "mid_air": DatasetKind(
        _open_mid_air,
        lambda config: (mid_air_inputs(config.modalities), MidAir.classes),
        settings=("conditions", "every"),
        found_by=(f"*/{RECORDS_NAME}", f"*/*/{RECORDS_NAME}"),
    ),
    "potsdam": DatasetKind(
        _open_potsdam,
        lambda config: (potsdam_inputs(config.modalities), Potsdam.classes),
        settings=("window",),
        found_by=("top_potsdam_*", "*/top_potsdam_*"),
    ),
    "pictures": DatasetKind(
        _open_pictures, lambda config: ((CAMERA_INPUT,), config.picture_layout().label_classes()), settings=("layout",)
    ),
    "scans": DatasetKind(
        _open_scans,
        lambda config: ((LIDAR_INPUT,), config.scan_layout().label_classes()),
        settings=("layout", "views", "label_radius"),
    ),
    "mixture": DatasetKind(_open_mixture_files, _describe_mixture, settings=("parts", "label_set")),
}
"""Every kind of data set by its name in the configuration. Add one here: a row, and its own file."""


def kind_of(root: Path) -> str | None:
    """The kind of data set at `root`, by what lies there."""
    patterns = ((kind, pattern) for kind, row in DATASETS.items() for pattern in row.found_by)
    return next((kind for kind, pattern in patterns if any(root.glob(pattern))), None)
