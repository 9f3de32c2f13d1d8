"""Where the true labels of a mask come from: a topic of the bag, a folder of PNGs named by stamp, or nowhere."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.label_files import LabelFileError, files_at_other_depths, read_labels
from anyseg_core.runtime.time_units import NS_PER_S

Labels = NDArray[np.uint8]
_KEPT = 40
"""Newest label images of a topic: masks are scored long before that many more have come."""
_NAME = re.compile(r"(?:^|[^0-9.])(\d+)(?:[._](\d{1,9}))?$")
_UNITS = {"milliseconds": 10**6, "microseconds": 10**3}
"""Nanoseconds of the units that file names of other data sets count in."""


class GroundTruthError(ValueError):
    """Labels that cannot be used; the message names the file and the remedy."""


class Truth(NamedTuple):
    """A label image, uint8 [H, W], and the stamp of the picture that it is of."""

    stamp_ns: int
    labels: Labels


class GroundTruth(Protocol):
    """Label images of class indices by stamp."""

    origin: str
    """The topic or folder; empty where there is none."""
    available: int
    """Label images that there are, those of a topic as far as they have come."""

    def near(self, stamp_ns: int, within_ns: int) -> Truth | None:
        """The label image whose stamp is nearest, None where none is so near (yet). Raises GroundTruthError."""
        ...

    def is_decided(self, stamp_ns: int) -> bool:
        """Whether no label image that is nearer to that stamp is to come."""
        ...


class NoLabels:
    """There is no ground truth."""

    origin, available = "", 0

    def near(self, stamp_ns: int, within_ns: int) -> Truth | None:  # noqa: ARG002
        return None

    def is_decided(self, stamp_ns: int) -> bool:  # noqa: ARG002
        return True


class TopicLabels:
    """Label images as they come out of the bag, oldest first."""

    def __init__(self, topic: str = "") -> None:
        self.origin = topic
        self.available = 0
        self._recent: deque[Truth] = deque(maxlen=_KEPT)

    def add(self, stamp_ns: int, labels: Labels) -> None:
        """The next message of the topic."""
        self.available += 1
        self._recent.append(Truth(stamp_ns, labels))

    def near(self, stamp_ns: int, within_ns: int) -> Truth | None:
        found = min(self._recent, key=lambda truth: abs(truth.stamp_ns - stamp_ns), default=None)
        return found if found is not None and abs(found.stamp_ns - stamp_ns) <= within_ns else None

    def is_decided(self, stamp_ns: int) -> bool:
        return any(truth.stamp_ns >= stamp_ns for truth in self._recent)


class FolderLabels:
    """A folder of PNGs of class indices, 255 = unlabelled.

    Names end in the stamp: nanoseconds, `1700000000123456789.png`, or seconds with a fraction, `1700000000.123456.png`,
    or seconds and nanoseconds, `1700000000_123456789.png`; a prefix like `label_` does not matter.
    """

    def __init__(self, folder: Path) -> None:
        """Raises GroundTruthError where the folder has no such file."""
        found = {stamp: path for path in sorted(folder.glob("*.png")) if (stamp := stamp_of(path.stem)) is not None}
        if not folder.is_dir():
            raise GroundTruthError(
                f"{folder} is not a folder; a topic of label images is named with --map labels:=TOPIC"
            )
        _require_one_each(found, folder)
        if not found:
            raise GroundTruthError(
                f"no label image in {folder}: name PNGs by the stamp of the camera image in nanoseconds, "
                "such as 1700000000123456789.png"
            )
        self.origin = str(folder)
        self.available = len(found)
        self._stamps = sorted(found)
        self._paths = [found[stamp] for stamp in self._stamps]

    def require_within(self, start_ns: int, end_ns: int) -> None:
        """Raises GroundTruthError where not one stamp lies between the two: the names count in something else."""
        if _any_within(self._stamps, start_ns, end_ns):
            return
        example = self._paths[0].name
        fitting = (u for u, ns in _UNITS.items() if _any_within((ns * s for s in self._stamps), start_ns, end_ns))
        unit = next(fitting, None)
        wrong = f"counts {unit}, not nanoseconds" if unit else "is no stamp of it"
        raise GroundTruthError(
            f"0 of {self.available} label images in {self.origin} belong to the bag, which lasts from {start_ns} to "
            f"{end_ns} ns: {example} {wrong}. Name them by the stamp of the camera image, "
            "such as 1700000000123456789.png"
        )

    def near(self, stamp_ns: int, within_ns: int) -> Truth | None:
        at = bisect_left(self._stamps, stamp_ns)
        around = [i for i in (at - 1, at) if 0 <= i < len(self._stamps)]
        nearest = min(around, key=lambda i: abs(self._stamps[i] - stamp_ns))
        if abs(self._stamps[nearest] - stamp_ns) > within_ns:
            return None
        return Truth(self._stamps[nearest], _read(self._paths[nearest]))

    def is_decided(self, stamp_ns: int) -> bool:  # noqa: ARG002
        return True


def _require_one_each(found: Mapping[int, Path], folder: Path) -> None:
    """Raises GroundTruthError where two label images of `folder` have one stamp, or some lie in folders below it."""
    for path in folder.glob("*.png"):
        chosen = found.get(stamp) if (stamp := stamp_of(path.stem)) is not None else None
        if chosen is not None and chosen != path:
            raise GroundTruthError(
                f"{path} and {chosen} have one stamp, and only one of them can be its label image: remove the other"
            )
    deeper = [p for p in files_at_other_depths(folder, ".png", depth=0) if stamp_of(p.stem) not in (None, *found)]
    if deeper:
        raise GroundTruthError(
            f"{deeper[0]} lies in a folder below {folder}, where label images are not looked for, as {len(deeper)} of "
            f"them do: move them up, or out of {folder}"
        )


def _any_within(stamps: Iterable[int], start_ns: int, end_ns: int) -> bool:
    return any(start_ns <= stamp <= end_ns for stamp in stamps)


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
