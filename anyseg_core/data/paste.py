"""Rare things copied from one sample into another (simple copy-paste, Ghiasi et al., arXiv 2012.07177).

A bus in one of 155 frames is seen once in 155 draws, always before the same houses. Cut out and set into other frames
of its data set it is met often, and in many places.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from anyseg_core.data.mixture import Mixture
from anyseg_core.data.sample import DataError, Sample, SegmentationDataset
from anyseg_core.runtime.sensors import CAMERA

MIN_PIXELS = 40
"""A smaller thing is a few blurred pixels, of which nothing is learned."""
GAP_PX = 5
"""Things closer than this go together: a rider and the bicycle below."""


class PasteConfig(BaseModel):
    """What is copied, and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: tuple[str, ...] = Field(min_length=1)
    """Classes that are things, by name: person, bicycle, bus. Road or sky have no outline that could be moved."""
    probability: float = Field(default=0.5, ge=0, le=1)
    """Of a sample getting something pasted."""


class Paster:
    """Pastes things of other samples of the same data set, or of the same part of a mixture.

    What is pasted keeps its height in the image and its size, as the camera would see it further left or right; every
    sensor's pixels go with it, so that depth stays that of the thing. Samples without a camera stay as they are: points
    of a LiDAR have no outline.

    Raises DataError for a label that is no class, or where no sample has any of them.
    """

    def __init__(self, dataset: SegmentationDataset, config: PasteConfig) -> None:
        names = [entry.name for entry in dataset.classes]
        unknown = [name for name in config.labels if name not in names]
        if unknown:
            raise DataError(f"augment.paste: no class is called {', '.join(unknown)}; known: {', '.join(names)}")
        self._dataset, self._probability = dataset, config.probability
        self._is_thing = np.zeros(256, bool)
        self._is_thing[: len(names)] = np.isin(names, config.labels)
        if isinstance(dataset, Mixture):  # a coarse label all of whose classes are things is one, too
            of_others = dataset.members[:, ~np.isin(names, config.labels)]
            self._is_thing[: len(of_others)] = ~of_others.any(axis=1)
        self._donors = self._find_donors()
        if not self._donors:
            raise DataError(f"augment.paste: no sample with a camera has {' or '.join(config.labels)} in it")

    def _find_donors(self) -> dict[int, dict[int, list[int]]]:
        """Part -> label -> samples that have enough of it."""
        donors: dict[int, dict[int, list[int]]] = {}
        for index in range(len(self._dataset)):
            sample = self._dataset[index]
            if not self._has_camera(sample):
                continue
            counts = np.bincount(sample.labels.ravel(), minlength=256)
            for label in np.flatnonzero(self._is_thing & (counts >= MIN_PIXELS)).tolist():
                donors.setdefault(self._part_of(index), {}).setdefault(label, []).append(index)
        return donors

    def _part_of(self, index: int) -> int:
        return self._dataset.locate(index)[0] if isinstance(self._dataset, Mixture) else 0

    def _has_camera(self, sample: Sample) -> bool:
        slots = [number for number, spec in enumerate(self._dataset.inputs) if spec.modality.kind.family is CAMERA]
        return any(sample.present is None or sample.present[slot] for slot in slots)

    def __call__(self, index: int, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample, or a copy with something pasted: a label drawn evenly, then one of its things.

        Args:
            index: of the sample in the data set.
        """
        donors = self._donors.get(self._part_of(index))
        if not donors or not self._has_camera(sample) or rng.random() >= self._probability:
            return sample
        label = int(rng.choice(list(donors)))
        donor = self._dataset[int(rng.choice(donors[label]))]
        things = self._is_thing[donor.labels]
        return _pasted(sample, donor, _thing_with(things, donor.labels == label, rng) & things, rng)


def _thing_with(things: NDArray[np.bool_], wanted: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """One of the connected things that hold a wanted pixel."""
    kernel = np.ones((GAP_PX, GAP_PX), np.uint8)
    _, numbers = cv2.connectedComponents(cv2.dilate(things.astype(np.uint8), kernel))
    return numbers == rng.choice(numbers[wanted])


def _pasted(sample: Sample, donor: Sample, thing: NDArray[np.bool_], rng: np.random.Generator) -> Sample:
    """A copy of the sample with the donor's pixels of `thing`, moved sideways, mirrored half the time."""
    rows, cols = np.nonzero(thing)
    left, width = int(cols.min()), int(np.ptp(cols)) + 1
    start = int(rng.integers(thing.shape[1] - width + 1))
    inside = width - 1 - (cols - left) if rng.random() < 0.5 else cols - left
    images, labels = np.array(sample.images), np.array(sample.labels)
    images[:, rows, start + inside] = donor.images[:, rows, cols]
    labels[rows, start + inside] = donor.labels[rows, cols]
    return Sample(images, labels, sample.name, sample.present)
