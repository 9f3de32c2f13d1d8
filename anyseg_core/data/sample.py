"""A labelled sample, and what every data set offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.label_sets import LabelClass
from anyseg_core.runtime.model_card import InputSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class DataError(Exception):
    """Data that cannot be read; the message names the file or folder and the remedy."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One moment, seen by the modalities of the data set, with its labels."""

    images: NDArray[np.uint8]
    """[M, H, W, 3], the encoded image of each modality in the order of the data set's `inputs`."""
    labels: NDArray[np.uint8]
    """[H, W], class index, 255 = ignored. Of a mixture, an index beyond the classes is a coarse label, which stands
    for several of them: see `data/mixture.py`."""
    name: str
    present: NDArray[np.bool_] | None = None
    """[M], which modalities this sample has; None = all. The image of one that it lacks is zero."""


class SegmentationDataset(Protocol):
    """Samples of one size with the description that goes into a student's card."""

    @property
    def inputs(self) -> tuple[InputSpec, ...]: ...

    @property
    def classes(self) -> tuple[LabelClass, ...]: ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every sample."""
        ...

    @property
    def description(self) -> str:
        """What the samples are, in words: name, split, number."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the samples would."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class FileDataset(SegmentationDataset, Protocol):
    """A data set that reads its samples from files, which may be missing or damaged."""

    def name(self, index: int) -> str:
        """Of a sample, without reading it."""
        ...

    def files(self, index: int) -> tuple[Path, ...]:
        """All files of a sample."""
        ...

    @property
    def settings(self) -> tuple[object, ...]:
        """What its samples follow from beside their own files: encodings, calibration, protocol; in the fingerprint."""
        ...


def evenly_spread(count: int, wanted: int) -> list[int]:
    """Indices of at most so many of `count` samples, the first and the last among them."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist()
