"""Reading images for the data sets, with errors that name the file."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.sample import DataError
from anyseg_core.runtime.extras import missing_part
from anyseg_core.runtime.image_files import ImageFileError, decode_picture
from anyseg_core.runtime.label_files import LabelFileError, is_same_view, read_labels

Size = tuple[int, int]
_REMEDY = "Restore it, or set data.skip_broken to leave such samples out"


def read_image(path: Path) -> NDArray[Any]:
    """A whole JPEG or PNG as stored, colour as RGB, read by the robot's own function; raises DataError."""
    try:
        image = decode_picture(np.frombuffer(path.read_bytes(), np.uint8))
    except OSError:
        raise DataError(f"{path} is missing. {_REMEDY}") from None
    except ImageFileError as error:
        raise DataError(f"{path} is damaged: an image was expected: {error}. {_REMEDY}") from None
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., 2::-1])


def read_image_of_8_bits(path: Path) -> NDArray[np.uint8]:
    """As `read_image`; raises DataError for one of 16 bits, whose values would be cut to their lower byte."""
    image = read_image(path)
    if image.dtype != np.uint8:
        raise DataError(f"{path} is {image.dtype} {list(image.shape)}: an image of 8 bits was expected. {_REMEDY}")
    return image


def read_label_image(path: Path, num_classes: int | None = None, *, first_channel: bool = False) -> NDArray[np.uint8]:
    """A PNG of class indices as stored; see `runtime.label_files`. Raises DataError."""
    try:
        return read_labels(path, num_classes, first_channel=first_channel)
    except LabelFileError as error:
        raise DataError(str(error)) from None


def require_same_view(path: Path, image: NDArray[Any], labels: Path, label_image: NDArray[Any]) -> None:
    """Raises DataError where an image and its labels [h, w] cannot show the same view."""
    if not is_same_view(image.shape, label_image.shape):
        size, label_size = (f"{shape[1]}x{shape[0]}" for shape in (image.shape, label_image.shape))
        raise DataError(f"{labels} is {label_size}, but {path} is {size}: they do not show the same view")


def resize_nearest(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """Nearest-neighbour resize to (height, width): for labels and images whose zeros mean "nothing"."""
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def fingerprint_of(files: Iterable[Path], *settings: object) -> str:
    """SHA-256 over settings and each file's name, size and modification time; raises DataError for a missing file."""
    digest = hashlib.sha256(repr(settings).encode())
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:
            raise DataError(
                f"{file} is missing, though its sample's label is there. "
                "Restore it, or set data.skip_broken to leave such samples out"
            ) from None
        digest.update(f"{file}|{status.st_size}|{status.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()


class FileSamples(ABC):
    """A data set of files: its fingerprint follows from them and from its settings, as in `FileDataset`."""

    @property
    @abstractmethod
    def settings(self) -> tuple[object, ...]:
        """What the samples follow from beside their own files: encodings, calibration, protocol."""

    @abstractmethod
    def files(self, index: int) -> tuple[Path, ...]:
        """All files of a sample; several samples may be in one."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the samples would; raises DataError for a missing file."""
        files = dict.fromkeys(file for index in range(len(self)) for file in self.files(index))
        return fingerprint_of(files, *self.settings)


def optional_module(name: str, path: Path) -> Any:
    """A module that it takes to read `path`; raises DataError that names its extra where it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise DataError(f"{path} cannot be read: {missing_part(name.partition('.')[0])}") from None


def known_words(setting: str, words: Iterable[str], known: Sequence[str]) -> None:
    """Raises DataError that lists the known words where one is not among them."""
    unknown = [word for word in words if word not in known]
    if unknown:
        raise DataError(f"{setting} {', '.join(unknown)} is unknown; known: {', '.join(known)}")
