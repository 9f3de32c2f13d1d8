"""Where the true labels of a mask come from: a topic of the bag, a folder of PNGs named by stamp, or nowhere."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.label_files import LabelFileError, read_labels
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S

Labels = NDArray[np.uint8]
TOLERANCE_NS = NS_PER_MS
"""A label image belongs to a mask whose stamp is this near: file names may be rounded to the millisecond."""
_KEPT = 40
"""Newest label images of a topic: masks are scored long before that many more have come."""
_NAME = re.compile(r"(?:^|[^0-9.])(\d+)(?:[._](\d{1,9}))?$")


class GroundTruthError(ValueError):
    """Labels that cannot be used; the message names the file and the remedy."""


class GroundTruth(Protocol):
    """Label images uint8 [H, W] of class indices by stamp."""

    def labels_at(self, stamp_ns: int) -> Labels | None:
        """The label image of that stamp, None where there is none (yet). Raises GroundTruthError."""
        ...

    def is_decided(self, stamp_ns: int) -> bool:
        """Whether no label image of that stamp is to come."""
        ...


class NoLabels:
    """There is no ground truth."""

    def labels_at(self, stamp_ns: int) -> Labels | None:  # noqa: ARG002
        return None

    def is_decided(self, stamp_ns: int) -> bool:  # noqa: ARG002
        return True


class TopicLabels:
    """Label images as they come out of the bag, oldest first."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, Labels]] = deque(maxlen=_KEPT)

    def add(self, stamp_ns: int, labels: Labels) -> None:
        """The next message of the topic."""
        self._recent.append((stamp_ns, labels))

    def labels_at(self, stamp_ns: int) -> Labels | None:
        near = [(abs(stamp - stamp_ns), labels) for stamp, labels in self._recent]
        distance, labels = min(near, key=lambda pair: pair[0], default=(TOLERANCE_NS + 1, None))
        return labels if distance <= TOLERANCE_NS else None

    def is_decided(self, stamp_ns: int) -> bool:
        return any(stamp >= stamp_ns - TOLERANCE_NS for stamp, _ in self._recent)


class FolderLabels:
    """A folder of 8-bit grey PNGs of class indices, 255 = unlabelled.

    Names end in the stamp: nanoseconds, `1700000000123456789.png`, or seconds with a fraction, `1700000000.123456.png`,
    or seconds and nanoseconds, `1700000000_123456789.png`; a prefix like `label_` does not matter.
    """

    def __init__(self, folder: Path) -> None:
        """Raises GroundTruthError where the folder has no such file."""
        found = {stamp: path for path in sorted(folder.glob("*.png")) if (stamp := stamp_of(path.stem)) is not None}
        if not found:
            raise GroundTruthError(
                f"no label image in {folder}: name PNGs by the stamp of the camera image in nanoseconds, "
                "such as 1700000000123456789.png"
            )
        self._stamps = sorted(found)
        self._paths = [found[stamp] for stamp in self._stamps]

    def labels_at(self, stamp_ns: int) -> Labels | None:
        at = bisect_left(self._stamps, stamp_ns - TOLERANCE_NS)
        near = [i for i in range(at, min(at + 2, len(self._stamps))) if abs(self._stamps[i] - stamp_ns) <= TOLERANCE_NS]
        if not near:
            return None
        return _read(self._paths[min(near, key=lambda i: abs(self._stamps[i] - stamp_ns))])

    def is_decided(self, stamp_ns: int) -> bool:  # noqa: ARG002
        return True


def stamp_of(stem: str) -> int | None:
    """The stamp in nanoseconds at the end of a file's name, None where there is none."""
    match = _NAME.search(stem)
    if match is None:
        return None
    whole, fraction = match.groups()
    if fraction is None:
        return int(whole)
    nanoseconds = int(fraction) if stem[match.end(1)] == "_" else int(fraction.ljust(9, "0"))
    return int(whole) * NS_PER_S + nanoseconds


def _read(path: Path) -> Labels:
    try:
        return read_labels(path)
    except LabelFileError as error:
        raise GroundTruthError(str(error)) from None
