"""Batches by step number: what is in a batch depends on seed, process and step alone, so a run can resume anywhere."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch.utils.data import Dataset

from anyseg_core.data.augmentation import AugmentConfig, augment
from anyseg_core.data.decoupled import DecoupledConfig, augment_apart
from anyseg_core.data.degradation import DegradeConfig, SampleDegrader
from anyseg_core.data.deliver import Deliver, deliver_inputs
from anyseg_core.data.folder import Folder, folder_inputs, read_description
from anyseg_core.data.mid_air import MidAir, mid_air_inputs
from anyseg_core.data.muses import Muses, muses_inputs
from anyseg_core.data.nyu_depth import nyu_depth, nyu_inputs
from anyseg_core.data.packed import PackedDataset
from anyseg_core.data.pothole import Pothole
from anyseg_core.data.potsdam import Potsdam, potsdam_inputs
from anyseg_core.data.sample import FileDataset, Sample, SegmentationDataset
from anyseg_core.data.usable import UsableSamples
from anyseg_core.methods import Batch
from anyseg_core.runtime.label_sets import NYU40, LabelClass
from anyseg_core.runtime.modality import Modality
from anyseg_core.runtime.model_card import InputSpec
from anyseg_core.training.config import DataConfig


def open_dataset(config: DataConfig, split: str) -> SegmentationDataset:
    """A split of the configured data set, packed unless `config.cache` is null; raises DataError."""
    source = open_files(config, split)
    if config.skip_broken:
        usable = UsableSamples(source)
        for broken in usable.skipped:
            print(f"skipped {broken.name}: {broken.error}", file=sys.stderr)
        source = usable
    return source if config.cache is None else PackedDataset(source, config.cache)


def open_files(config: DataConfig, split: str) -> FileDataset:
    """A split of the configured data set, read from its files; raises DataError."""
    place = (config.root, split, config.size)
    if config.kind == "pothole":
        return Pothole(*place, config.limit)
    if config.kind == "folder":
        return Folder(*place, config.modalities, config.limit)
    if config.kind in ("nyu_depth", "potsdam", "mid_air"):
        return _open_rgbd(config, split)
    if config.kind == "muses":
        return Muses(
            *place,
            [modality for modality in config.modalities if modality is not Modality.DEPTH],
            config.limit,
            conditions=config.conditions,
            source=config.source,
            motion_compensation=config.motion_compensation,
            released_protocol=config.released_protocol,
        )
    choice = {"conditions": config.conditions, "cases": config.cases, "depth": config.depth}
    return Deliver(*place, config.modalities, config.limit, **choice)  # type: ignore[arg-type]


def _open_rgbd(config: DataConfig, split: str) -> FileDataset:
    place = (config.root, split, config.size, config.modalities, config.limit)
    if config.kind == "nyu_depth":
        return nyu_depth(*place, config.depth)
    if config.kind == "potsdam":
        return Potsdam(*place, window=config.window)
    return MidAir(*place, conditions=config.conditions, every=config.every)


def describe_data(config: DataConfig) -> tuple[tuple[InputSpec, ...], tuple[LabelClass, ...]]:
    """Inputs and classes of a data set, of public ones also where the data is not at hand. Raises DataError."""
    if config.kind == "pothole":
        return Pothole.inputs, Pothole.classes
    if config.kind in ("nyu_depth", "potsdam", "mid_air"):
        return _describe_rgbd(config)
    if config.kind == "folder":
        description = read_description(config.root)
        classes = tuple(LabelClass(entry.name, entry.color, entry.surface) for entry in description.classes)
        return folder_inputs(description, config.modalities), classes
    if config.kind == "muses":
        modalities = [modality for modality in config.modalities if modality is not Modality.DEPTH]
        return muses_inputs(modalities, released_protocol=config.released_protocol), Muses.classes
    return deliver_inputs(config.root, config.modalities), Deliver.classes


def _describe_rgbd(config: DataConfig) -> tuple[tuple[InputSpec, ...], tuple[LabelClass, ...]]:
    if config.kind == "nyu_depth":
        return nyu_inputs(config.root, config.modalities, config.depth), NYU40
    if config.kind == "potsdam":
        return potsdam_inputs(config.modalities), Potsdam.classes
    return mid_air_inputs(config.modalities), MidAir.classes


class Batches(Dataset[Batch]):
    """Augmented batches of a data set, indexed by training step.

    Args:
        size: (height, width) of the images.
        label_stride: labels are taken on a grid of this stride.
        rank, world: of this process; each process draws its own part of every epoch.
        degrade: faults that some samples get after augmentation.
        apart: a pipeline per modality, which takes the place of `augment`.
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
    ) -> None:
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
        changed = [augment(s.images, s.labels, self.modalities, self.size, self.augment, rng) for s in samples]
        if self._degrade is not None:
            changed = [(self._degrade(images, rng), labels) for images, labels in changed]
        images = np.stack([images for images, _ in changed])  # [B, M, H, W, 3]
        stride = self.label_stride
        labels = np.stack([labels[stride // 2 :: stride, stride // 2 :: stride] for _, labels in changed])
        return Batch(torch.from_numpy(images), torch.from_numpy(labels).long())

    def _apart(self, samples: list[Sample], config: DecoupledConfig, rng: np.random.Generator) -> Batch:
        """Every modality's own view of each sample, with its labels and the way to it."""
        views = [augment_apart(s.images, s.labels, self.modalities, self.size, config, rng) for s in samples]
        start, stride = self.label_stride // 2, self.label_stride
        labels = np.stack([view.labels[:, start::stride, start::stride] for view in views])  # [B, M, H/s, W/s]
        images, to_view = np.stack([view.images for view in views]), np.stack([view.to_view for view in views])
        return Batch(torch.from_numpy(images), torch.from_numpy(labels).long(), torch.from_numpy(to_view))

    def indices(self, step: int) -> list[int]:
        """Sample indices of a step: every sample once per epoch, in an order that is new each epoch."""
        first = (step * self.world + self.rank) * self.batch_size
        count = len(self.dataset)
        positions = range(first, first + self.batch_size)
        orders = {epoch: self._order(epoch) for epoch in {position // count for position in positions}}
        return [int(orders[position // count][position % count]) for position in positions]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
