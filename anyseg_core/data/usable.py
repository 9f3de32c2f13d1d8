"""Samples that cannot be read: found, named, and left out where that is wanted."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from anyseg_core.data.files import FileSamples
from anyseg_core.data.sample import DataError, FileDataset, Sample
from anyseg_core.terminal import tracked


class BrokenSample(NamedTuple):
    """A sample of which a file is missing or damaged."""

    position: int
    """In its data set."""
    name: str
    error: str
    """Names the file, and what was expected."""


def find_broken(dataset: FileDataset, *, show_progress: bool = True) -> list[BrokenSample]:
    """Read every sample, as training would; returns those that cannot be read."""

    def fault(index: int) -> BrokenSample | None:
        try:
            dataset[index]
        except DataError as error:
            return BrokenSample(index, dataset.name(index), str(error))
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(fault, range(len(dataset)))
        title = f"checking {dataset.description}"
        return [broken for broken in tracked(found, title, len(dataset), show=show_progress) if broken]


class UsableSamples(FileSamples):
    """A data set without its broken samples, which `skipped` lists and the description counts.

    Raises DataError when nothing is left.
    """

    def __init__(self, source: FileDataset, *, show_progress: bool = True) -> None:
        self.source = source
        self.inputs, self.classes, self.size = source.inputs, source.classes, source.size
        self.skipped = find_broken(source, show_progress=show_progress)
        broken = {sample.position for sample in self.skipped}
        self._indices = [index for index in range(len(source)) if index not in broken]
        if not self._indices:
            raise DataError(f"none of {source.description} can be read, such as: {self.skipped[0].error}")

    @property
    def description(self) -> str:
        skipped = f" ({len(self.skipped)} broken ones skipped)" if self.skipped else ""
        return self.source.description + skipped

    @property
    def settings(self) -> tuple[object, ...]:
        """As `FileSamples`."""
        names = [self.name(index) for index in range(len(self))]  # several samples may be in one file
        return names, *self.source.settings

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self._indices[index]]

    def name(self, index: int) -> str:
        return self.source.name(self._indices[index])

    def files(self, index: int) -> tuple[Path, ...]:
        return self.source.files(self._indices[index])
