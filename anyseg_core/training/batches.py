"""Batches by step number: what is in a batch depends on seed, process and step alone, so a run can resume anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from anyseg_core.data.augmentation import AugmentConfig, augment
from anyseg_core.data.deliver import Deliver
from anyseg_core.data.packed import PackedDataset
from anyseg_core.data.pothole import Pothole
from anyseg_core.data.sample import SegmentationDataset
from anyseg_core.methods import Batch
from anyseg_core.training.config import DataConfig


def open_dataset(config: DataConfig, split: str) -> PackedDataset:
    """A split of the configured data set, packed; raises DataError when it cannot be read."""
    source: SegmentationDataset
    if config.kind == "pothole":
        source = Pothole(config.root, split, config.size, config.limit)
    else:
        source = Deliver(config.root, split, config.size, config.modalities, config.limit)
    return PackedDataset(source, Path(config.cache))


class Batches(Dataset[Batch]):
    """Augmented batches of a data set, indexed by training step.

    Args:
        size: (height, width) of the images.
        label_stride: labels are taken on a grid of this stride.
        rank, world: of this process; each process draws its own part of every epoch.
    """

    def __init__(
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
    ) -> None:
        self.dataset, self.size, self.batch_size = dataset, size, batch_size
        self.augment, self.label_stride, self.seed = augment, label_stride, seed
        self.rank, self.world = rank, world
        self.modalities = tuple(spec.modality for spec in dataset.inputs)

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, self.rank, step])
        samples = [self.dataset[index] for index in self.indices(step)]
        changed = [augment(s.images, s.labels, self.modalities, self.size, self.augment, rng) for s in samples]
        images = np.stack([images for images, _ in changed])  # [B, M, H, W, 3]
        stride = self.label_stride
        labels = np.stack([labels[stride // 2 :: stride, stride // 2 :: stride] for _, labels in changed])
        return Batch(torch.from_numpy(images), torch.from_numpy(labels).long())

    def indices(self, step: int) -> list[int]:
        """Sample indices of a step: every sample once per epoch, in an order that is new each epoch."""
        first = (step * self.world + self.rank) * self.batch_size
        count = len(self.dataset)
        positions = range(first, first + self.batch_size)
        orders = {epoch: self._order(epoch) for epoch in {position // count for position in positions}}
        return [int(orders[position // count][position % count]) for position in positions]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
