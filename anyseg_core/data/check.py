"""A look at a data set before training: every file read, classes counted, and a contact sheet of samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.packed import pixel_counts
from anyseg_core.data.sample import FileDataset, evenly_spread
from anyseg_core.data.usable import BrokenSample, UsableSamples
from anyseg_core.runtime.label_sets import UNLABELLED

Image = NDArray[np.uint8]
_SHEET_WIDTH_PX = 200
_TITLE_PX = 22


@dataclass(frozen=True, eq=False)
class SplitCheck:
    """What was found in one split."""

    description: str
    samples: int
    broken: list[BrokenSample]
    class_share: dict[str, float]
    """Percent of the labelled pixels, of every class."""
    unlabelled: float
    """Percent of all pixels."""
    empty: dict[str, float]
    """Percent of pixels that are zero in every channel, per modality: 100 means that a sensor is not there at all."""

    @property
    def never_seen(self) -> list[str]:
        """Classes without a pixel; a label without a name is no class."""
        return [name for name, share in self.class_share.items() if name and share == 0]


def check_split(dataset: FileDataset, *, show_progress: bool = True) -> tuple[SplitCheck, UsableSamples]:
    """Read every sample; returns what was found, and the samples that can be used. Raises DataError if none can."""
    usable = UsableSamples(dataset, show_progress=show_progress)
    counts = pixel_counts(usable)
    total = len(usable) * dataset.size[0] * dataset.size[1]
    shares = 100 * counts / max(1, counts.sum())
    found = SplitCheck(
        dataset.description,
        len(dataset),
        usable.skipped,
        {entry.name: float(share) for entry, share in zip(dataset.classes, shares, strict=True)},
        100 * (1 - float(counts.sum()) / total),
        _empty_shares(usable),
    )
    return found, usable


def _empty_shares(dataset: UsableSamples, most: int = 50) -> dict[str, float]:
    """Of at most so many samples, evenly spread."""
    chosen = evenly_spread(len(dataset), most)
    empty = np.mean([[(~image.any(axis=2)).mean() for image in dataset[i].images] for i in chosen], axis=0)
    return {str(spec.modality): 100 * float(share) for spec, share in zip(dataset.inputs, empty, strict=True)}


def contact_sheet(dataset: UsableSamples, rows: int = 6) -> Image:
    """RGB: a row per sample, evenly spread: every modality as the network gets it, the labels, and both together."""
    chosen = evenly_spread(len(dataset), rows)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(dataset.classes)] = [entry.color for entry in dataset.classes]
    titles = [*(str(spec.modality) for spec in dataset.inputs), "labels", "labels on the first"]
    strips = [np.hstack([_title(title) for title in titles])]
    for index in chosen:
        sample = dataset[int(index)]
        labels = palette[sample.labels]
        labels[sample.labels == UNLABELLED] = 0
        blend = cv2.addWeighted(np.array(sample.images[0]), 0.5, labels, 0.5, 0)
        strips.append(np.hstack([_thumbnail(picture) for picture in (*sample.images, labels, blend)]))
        strips.append(_caption(sample.name, strips[0].shape[1]))
    return np.vstack(strips)


def _thumbnail(picture: NDArray[Any]) -> Image:
    height = round(_SHEET_WIDTH_PX * picture.shape[0] / picture.shape[1])
    small = cast("Image", cv2.resize(np.array(picture), (_SHEET_WIDTH_PX, height), interpolation=cv2.INTER_AREA))
    return np.pad(small, ((2, 2), (2, 2), (0, 0)), constant_values=255)


def _title(text: str) -> Image:
    return _caption(text, _SHEET_WIDTH_PX + 4)


def _caption(text: str, width: int) -> Image:
    strip = np.full((_TITLE_PX, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


def write_sheet(path: Path, sheet: Image) -> None:
    """Write a PNG; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise OSError(f"cannot write {path}: the name must end in .png or .jpg")
