"""A line of masks.jsonl for each mask: when, from what, how good. An interrupted run goes on from this file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.sensors import Sensor

LABELS = "labels"
"""`against` of a mask that was scored with ground truth; else it is the name of the scenario with all sensors."""


@dataclass(frozen=True)
class MaskRecord:
    """What is known of one mask. Measured times differ from run to run, everything else does not."""

    number: int
    """In the order of the file, 0, 1, 2, ..."""
    scenario: str
    t_s: float
    """Seconds from the bag's first sensor message to the mask's begin, in simulated time."""
    stamp_ns: int
    anchor: Sensor
    used: tuple[Sensor, ...]
    age_ms: float
    """Of the anchor's frame when the mask was begun, in simulated time."""
    size: tuple[int, int]
    """(height, width) of the published mask."""
    hash: str
    """Of its pixels; see `mask_hash`."""
    confidence: float
    """Mean over the pixels, 0..1."""
    encode_ms: float
    """Measured."""
    engine_ms: float
    """Measured, as if it were the only mask: with all its encodings, whoever asked for them first."""
    against: str = ""
    """What `cells` and `pixels` count against: LABELS, the scenario with all sensors, or nothing."""
    label_ns: int | None = None
    """Stamp of the label image that it was scored with."""
    cells: tuple[int, ...] = ()
    """The cells of the confusion matrix [K, K + 1] that are not 0, as indices into it flattened, ..."""
    pixels: tuple[int, ...] = ()
    """... and their counts."""
    agreement: float | None = None
    """Share of the pixels whose label is that of the mask from all sensors; None without one."""
    changed: float | None = None
    flicker: float | None = None
    """See consistency.py."""
    error: str = ""
    """Why there is no mask: the other fields but the first five are then empty."""

    def confusion(self, num_classes: int) -> ConfusionMatrix:
        """The confusion matrix of this mask; empty where it was not scored."""
        matrix = ConfusionMatrix(num_classes)
        matrix.counts.reshape(-1)[np.array(self.cells, np.intp)] = self.pixels
        return matrix

    def line(self) -> str:
        """As a line of JSON; floats keep six digits."""
        content = {name: _rounded(value) for name, value in vars(self).items()}
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def parse(cls, line: str) -> MaskRecord:
        """Of a line. Raises ValueError for anything else."""
        try:
            content: dict[str, Any] = json.loads(line)
            content |= {name: tuple(content[name]) for name in ("size", "cells", "pixels")}
            content |= {"anchor": Sensor(content["anchor"]), "used": tuple(map(Sensor, content["used"]))}
            return cls(**content)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no record of a mask: {error}") from None


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def sparse_cells(matrix: ConfusionMatrix) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(`cells`, `pixels`) of a record."""
    flat = matrix.counts.reshape(-1)
    cells = np.flatnonzero(flat)
    return tuple(cells.tolist()), tuple(flat[cells].tolist())


def read_records(path: Path) -> Iterator[MaskRecord]:
    """The records of a file, one at a time; nothing where there is no file. Raises ValueError where it is not ours."""
    if path.is_file():
        yield from map(MaskRecord.parse, _whole_lines(path))


def _whole_lines(path: Path) -> Iterator[str]:
    """A last line that was cut off when the process was killed is left out."""
    with path.open(encoding="utf-8", newline="\n") as file:
        yield from (line for line in file if line.endswith("\n"))


class MaskLog:
    """Appends records to a file, so that they survive the process; to nothing where there is no file."""

    def __init__(self, path: Path | None, *, resume: bool) -> None:
        """Without `resume` an old file is emptied. Raises ValueError where it is not ours."""
        self.kept = 0
        """Records that an interrupted run has left."""
        self._file = None
        if path is None:
            return
        size = 0
        if resume and path.is_file():
            for line in _whole_lines(path):
                MaskRecord.parse(line)
                self.kept += 1
                size += len(line.encode())
        self._file = path.open("r+b" if size else "wb")
        self._file.truncate(size)
        self._file.seek(size)

    def append(self, record: MaskRecord) -> None:
        """Write one record through to the operating system, which keeps it if this process is killed."""
        if self._file is not None and record.number >= self.kept:
            self._file.write(record.line().encode() + b"\n")
            self._file.flush()

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            self._file.close()
