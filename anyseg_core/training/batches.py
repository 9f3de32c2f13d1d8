"""Batches by step number: what is in a batch depends on seed, process and step alone, so a run can resume anywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from anyseg_core.data.augmentation import AugmentConfig, augment
from anyseg_core.data.decoupled import DecoupledConfig, augment_apart
from anyseg_core.data.degradation import DegradeConfig, SampleDegrader
from anyseg_core.data.deliver import Deliver, deliver_inputs
from anyseg_core.data.folder import Folder, folder_inputs, read_description
from anyseg_core.data.mid_air import MidAir, mid_air_inputs
from anyseg_core.data.mixture import Mixture, MixturePart
from anyseg_core.data.muses import Muses, muses_inputs
from anyseg_core.data.nyu_depth import nyu_depth, nyu_inputs
from anyseg_core.data.packed import PackedDataset
from anyseg_core.data.pictures import CAMERA_INPUT, Pictures
from anyseg_core.data.pothole import Pothole
from anyseg_core.data.potsdam import Potsdam, potsdam_inputs
from anyseg_core.data.sample import DataError, FileDataset, Sample, SegmentationDataset
from anyseg_core.data.scans import LIDAR_INPUT, Scans
from anyseg_core.data.usable import UsableSamples
from anyseg_core.methods import Batch
from anyseg_core.runtime.label_sets import CITYSCAPES, NYU40, LabelClass
from anyseg_core.runtime.model_card import InputSpec
from anyseg_core.runtime.sensors import DEPTH, Sensor
from anyseg_core.training.config import DataConfig, PartConfig


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
        MixturePart(open_dataset(part, split), part_meaning(part), part.root.name, part.weight)
        for part in parts_of(config, split)
        if has_split(part, split)
    ]
    inputs, classes = describe_data(config)
    return Mixture(parts, inputs, classes, config.size)


def parts_of(config: DataConfig, split: str) -> list[PartConfig]:
    """A mixture's parts as they are read for a split: in training at their own sizes and from all views, else at the
    network's size, and from the vehicle's own camera.
    """
    common = {"cache": config.cache, "skip_broken": config.skip_broken}
    if split != config.train_split:
        common |= {"size": config.size, "views": 1, "label_radius": 0}
    return [part.model_copy(update={"root": config.root / part.root, **common}) for part in config.parts]


def has_split(part: PartConfig, split: str) -> bool:
    """False where the part's layout says that all of it is in other splits."""
    if part.kind not in ("pictures", "scans"):
        return True
    layout = part.picture_layout() if part.kind == "pictures" else part.scan_layout()
    return not layout.splits or split in layout.splits


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
    if config.kind == "mixture":
        raise DataError("a mixture has no files of its own: look at each of its parts")
    return _OPENERS[config.kind](config, split)


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


_OPENERS: dict[str, Callable[[DataConfig, str], FileDataset]] = {
    "deliver": _open_deliver,
    "muses": _open_muses,
    "folder": _open_folder,
    "pothole": _open_pothole,
    "nyu_depth": _open_nyu_depth,
    "potsdam": _open_potsdam,
    "mid_air": _open_mid_air,
    "pictures": _open_pictures,
    "scans": _open_scans,
}
"""How each kind of data set is opened; a mixture opens its parts."""

DataDescription = tuple[tuple[InputSpec, ...], tuple[LabelClass, ...]]
"""Inputs and classes."""


def describe_data(config: DataConfig) -> DataDescription:
    """Inputs and classes of a data set, of public ones also where the data is not at hand. Raises DataError."""
    return _DESCRIPTIONS[config.kind](config)


def _describe_folder(config: DataConfig) -> DataDescription:
    description = read_description(config.root)
    classes = tuple(LabelClass(entry.name, entry.color, entry.surface) for entry in description.classes)
    return folder_inputs(description, config.modalities), classes


def _describe_muses(config: DataConfig) -> DataDescription:
    return muses_inputs(_without_depth(config), released_protocol=config.released_protocol), Muses.classes


def _describe_mixture(config: DataConfig) -> DataDescription:
    first = parts_of(config, config.train_split)[0]
    return mixture_inputs(config), CITYSCAPES if config.label_set == "cityscapes" else describe_data(first)[1]


_DESCRIPTIONS: dict[str, Callable[[DataConfig], DataDescription]] = {
    "deliver": lambda config: (deliver_inputs(config.root, config.modalities), Deliver.classes),
    "muses": _describe_muses,
    "folder": _describe_folder,
    "pothole": lambda _config: (Pothole.inputs, Pothole.classes),
    "nyu_depth": lambda config: (nyu_inputs(config.root, config.modalities, config.depth), NYU40),
    "potsdam": lambda config: (potsdam_inputs(config.modalities), Potsdam.classes),
    "mid_air": lambda config: (mid_air_inputs(config.modalities), MidAir.classes),
    "pictures": lambda config: ((CAMERA_INPUT,), config.picture_layout().label_classes()),
    "scans": lambda config: ((LIDAR_INPUT,), config.scan_layout().label_classes()),
    "mixture": _describe_mixture,
}


class Batches(Dataset[Batch]):
    """Augmented batches of a data set, indexed by training step.

    Args:
        size: (height, width) of the images.
        label_stride: labels are taken on a grid of this stride.
        rank, world: of this process; each process draws its own part of every epoch.
        degrade: faults that some samples get after augmentation.
        apart: a pipeline per modality, which takes the place of `augment`.
        full_size: (height, width) of the network; where `augment.crops`, a smaller `size` shows a part of it.
    """

    def __init__(  # noqa: PLR0913  # settings of a run, named by the caller
        self,
        dataset: SegmentationDataset,
        size: tuple[int, int],
        batch_size: int,
        augment: AugmentConfig,
        *,
        label_stride: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        degrade: DegradeConfig | None = None,
        apart: DecoupledConfig | None = None,
        full_size: tuple[int, int] | None = None,
    ) -> None:
        self.share = size[0] / full_size[0] if full_size and augment.crops else 1.0
        self.dataset, self.size, self.batch_size = dataset, size, batch_size
        self.augment, self.label_stride, self.seed = augment, label_stride, seed
        self.rank, self.world = rank, world
        self.apart = apart
        self.modalities = tuple(spec.modality for spec in dataset.inputs)
        self._degrade = SampleDegrader(degrade, dataset.inputs) if degrade is not None else None

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, self.rank, step])
        samples = [self.dataset[index] for index in self.indices(step)]
        if self.apart is not None:
            return self._apart(samples, self.apart, rng)
        changed = [self._changed(sample, rng) for sample in samples]
        images = np.stack([images for images, _ in changed])  # [B, M, H, W, 3]
        stride = self.label_stride
        labels = np.stack([labels[stride // 2 :: stride, stride // 2 :: stride] for _, labels in changed])
        batch = Batch(torch.from_numpy(images), torch.from_numpy(labels).long())
        if not isinstance(self.dataset, Mixture):
            return batch
        present = np.stack([_presence(sample) for sample in samples])  # [B, M]
        return batch._replace(present=torch.from_numpy(present), members=torch.from_numpy(self.dataset.members))

    def _changed(self, sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """images [M, H, W, 3] and labels [H, W] of an augmented sample; what it lacks stays zero."""
        there = _presence(sample)
        modalities = tuple(modality for modality, is_there in zip(self.modalities, there, strict=True) if is_there)
        seen = sample.images if there.all() else sample.images[there]
        images, labels = augment(seen, sample.labels, modalities, self.size, self.augment, rng, self.share)
        if not there.all():
            everything = np.zeros((len(there), *images.shape[1:]), np.uint8)
            everything[there] = images
            images = everything
        return (self._degrade(images, rng) if self._degrade is not None else images), labels

    def _apart(self, samples: list[Sample], config: DecoupledConfig, rng: np.random.Generator) -> Batch:
        """Every modality's own view of each sample, with its labels and the way to it."""
        views = [augment_apart(s.images, s.labels, self.modalities, self.size, config, rng) for s in samples]
        start, stride = self.label_stride // 2, self.label_stride
        labels = np.stack([view.labels[:, start::stride, start::stride] for view in views])  # [B, M, H/s, W/s]
        images, to_view = np.stack([view.images for view in views]), np.stack([view.to_view for view in views])
        return Batch(torch.from_numpy(images), torch.from_numpy(labels).long(), torch.from_numpy(to_view))

    def indices(self, step: int) -> list[int]:
        """Sample indices of a step: every sample once per epoch, in an order that is new each epoch; of a mixture, its
        own draw.
        """
        if isinstance(self.dataset, Mixture):
            return self.dataset.draw(self.batch_size, np.random.default_rng([self.seed, self.rank, step, 1]))
        first = (step * self.world + self.rank) * self.batch_size
        count = len(self.dataset)
        positions = range(first, first + self.batch_size)
        orders = {epoch: self._order(epoch) for epoch in {position // count for position in positions}}
        return [int(orders[position // count][position % count]) for position in positions]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))


def _presence(sample: Sample) -> np.ndarray:
    """[M], which modalities a sample has."""
    return np.ones(len(sample.images), bool) if sample.present is None else sample.present
