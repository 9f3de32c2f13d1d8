"""A network file's content, read once: what was hashed is what an engine opens, whatever happens on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from anyseg_core.runtime.external_data import external_tensors, with_values_inside


class NetworkFileError(Exception):
    """A network file that cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class NetworkContent:
    """An ONNX file and the files that it takes weights from, in memory. `str` is its path, for messages."""

    path: Path
    data: bytes = field(repr=False)
    external: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Files that it takes weights from, by the name that it has for them, relative to its folder."""

    @classmethod
    def read(cls, path: Path) -> NetworkContent:
        """Raises NetworkFileError where the file cannot be read, and what `of` raises."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise NetworkFileError(f"cannot read {path}: {error}. Copy the student folder again.") from error
        return cls.of(path, data)

    @classmethod
    def of(cls, path: Path, data: bytes) -> NetworkContent:
        """The content of the file at `path`, and what it takes from others, read now.

        Raises NetworkFileError where one cannot be read or is too short, it is no ONNX, or it names a file outside of
        its own folder.
        """
        try:
            tensors = external_tensors(data)
            names = {inside(tensor.location) for tensor in tensors}
            external = {name: (path.parent / name).read_bytes() for name in names}
            for tensor in tensors:
                tensor.values(external[tensor.location])
        except OSError as error:
            raise NetworkFileError(f"{path} needs a file: {error}. Copy the student folder again.") from error
        except (ValueError, OverflowError) as error:
            raise NetworkFileError(
                f"cannot load {path}, it is no sound ONNX file: {error}. "
                "Copy the student folder again, or export it again."
            ) from error
        return cls(path, data, external)

    def alone(self) -> bytes:
        """The network as one file with all weights inside."""
        return with_values_inside(self.data, self.external) if self.external else self.data

    @cached_property
    def sha256(self) -> str:
        """Of the network with all weights inside, as hexadecimal: of the file, where it needs no other."""
        return hashlib.sha256(self.alone()).hexdigest()

    def __str__(self) -> str:
        return str(self.path)


def inside(name: str) -> str:
    """The name of a file below a folder, as it was. Raises ValueError where it leads out of the folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no file of the student's folder")
    return name
