"""A data set decoded once into two arrays on disk, mapped into memory: reading a sample costs nothing."""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.sample import DataError, Sample, SegmentationDataset
from anyseg_core.terminal import tracked

_IMAGES, _LABELS, _NAMES = "images.npy", "labels.npy", "names.txt"


class PackedDataset:
    """The samples of `source`, packed under `cache`; packed again only when the source has changed."""

    def __init__(self, source: SegmentationDataset, cache: Path) -> None:
        self.inputs, self.classes, self.size = source.inputs, source.classes, source.size
        self.description, self.fingerprint = source.description, source.fingerprint
        folder = cache / self.fingerprint[:24]
        if not folder.is_dir():
            _pack(source, folder)
        try:
            self._images, self._labels, self._names = _read(folder)
            if self._images.shape != _shape(source):
                raise ValueError(f"{self._images.shape} is packed, not {_shape(source)}")
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{folder} is damaged ({error}): remove it, and its samples are packed anew") from None

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self._images[index], self._labels[index], self._names[index])

    def pixel_counts(self) -> NDArray[np.int64]:
        """See the function below."""
        return pixel_counts(self)


def _shape(source: SegmentationDataset) -> tuple[int, ...]:
    """Of the packed images, [N, M, H, W, 3]."""
    return (len(source), len(source.inputs), *source.size, 3)


def _read(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """Images [N, M, H, W, 3], labels [N, H, W] and names. Raises OSError, EOFError or ValueError for damaged files."""
    images, labels = (np.load(folder / name, mmap_mode="r") for name in (_IMAGES, _LABELS))
    names = (folder / _NAMES).read_text(errors="surrogateescape").split("\n")
    if labels.shape != (len(images), *images.shape[2:4]) or len(names) != len(images):
        raise ValueError(f"{len(images)} images, labels {labels.shape} and {len(names)} names")
    return images, labels, names


def pixel_counts(dataset: SegmentationDataset) -> NDArray[np.int64]:
    """Labelled pixels per class [K]; of a data set that is not packed this reads every file."""
    counts = np.zeros(256, np.int64)
    for index in range(len(dataset)):
        counts += np.bincount(dataset[index].labels.ravel(), minlength=256)
    return counts[: len(dataset.classes)]


def _pack(source: SegmentationDataset, folder: Path) -> None:
    """Write the arrays to a folder of another name and rename it: what exists is complete."""
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        images = _new_array(partial / _IMAGES, _shape(source))
        labels = _new_array(partial / _LABELS, (len(source), *source.size))
        names = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            loaded = pool.map(source.__getitem__, range(len(source)))
            for i, sample in enumerate(tracked(loaded, f"packing {source.description}", len(source))):
                images[i], labels[i] = sample.images, sample.labels
                names.append(sample.name)
        images.flush()
        labels.flush()
        (partial / _NAMES).write_text("\n".join(names), errors="surrogateescape")
        if not folder.is_dir():  # another run may have packed the same data meanwhile
            partial.rename(folder)
    except OSError as error:
        raise DataError(
            f"{source.description} cannot be packed in {folder.parent}: {error.strerror or error}. Make room, name "
            "another data.cache, or set it to null to decode the samples anew each time"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _new_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A new array on disk, mapped into memory. Raises OSError where the disk has no room for all of it: to write into a
    mapped file without room kills the process.
    """
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
    return array


_CANNOT_RESERVE = (errno.EINVAL, errno.EOPNOTSUPP)
"""What a file system answers that has no way to reserve room."""
