"""Batches by step number: what is in a batch depends on seed, process and step alone, so a run can resume anywhere."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch.utils.data import Dataset

from anyseg_core.data.augmentation import AugmentConfig, augment
from anyseg_core.data.decoupled import DecoupledConfig, augment_apart
from anyseg_core.data.degradation import DegradeConfig, SampleDegrader
from anyseg_core.data.mixture import Mixture
from anyseg_core.data.paste import Paster
from anyseg_core.data.sample import Sample, SegmentationDataset
from anyseg_core.methods import Batch


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
        self.dataset, self.size, self.batch_size = dataset, size, batch_size
        self._full_size = full_size
        self.augment, self.label_stride, self.seed = augment, label_stride, seed
        self.rank, self.world = rank, world
        self.apart = apart
        self.modalities = tuple(spec.modality for spec in dataset.inputs)
        self._paste = Paster(dataset, augment.paste) if augment.paste is not None else None
        self._degrade = SampleDegrader(degrade, dataset.inputs) if degrade is not None else None

    def at_size(self, size: tuple[int, int]) -> Batches:
        """The same batches with images of another size; what was looked up in the data set serves both."""
        other = copy.copy(self)
        other.size = size
        return other

    def __getitem__(self, step: int) -> Batch:
        rng, indices = np.random.default_rng([self.seed, self.rank, step]), self.indices(step)
        samples = [self.dataset[index] for index in indices]
        if self.apart is not None:
            return self._apart(samples, self.apart, rng)
        if self._paste is not None:
            samples = [self._paste(*pair, rng) for pair in zip(indices, samples, strict=True)]
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
        share = self.size[0] / self._full_size[0] if self._full_size and self.augment.crops else 1.0
        images, labels = augment(seen, sample.labels, modalities, self.size, self.augment, rng, share)
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
