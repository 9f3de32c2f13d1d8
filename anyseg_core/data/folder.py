"""One's own data: raw frames and labels in the layout of `runtime/sample_folder.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from anyseg_core.data.files import (
    Size,
    fingerprint_of,
    known_words,
    read_image,
    read_label_image,
    require_same_view,
    resize_nearest,
)
from anyseg_core.data.sample import DataError, Sample
from anyseg_core.runtime.input_images import InputError, encode_frame
from anyseg_core.runtime.label_sets import LabelClass
from anyseg_core.runtime.modality import MODALITIES, Modality, ModalityFrame
from anyseg_core.runtime.model_card import InputSpec
from anyseg_core.runtime.sample_folder import (
    DESCRIPTION_NAME,
    LABEL_ENDING,
    FolderDescription,
    endings,
    frame_from_stored,
)


def read_description(root: Path) -> FolderDescription:
    """dataset.json; raises DataError that names every fault."""
    path = root / DESCRIPTION_NAME
    try:
        return FolderDescription.model_validate_json(path.read_bytes())
    except OSError:
        raise DataError(f"{path} is missing: `anyseg data from-bag` writes it, docs/training.md describes it") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"{path} is not valid: {faults}") from None


def folder_inputs(description: FolderDescription, modalities: Sequence[Modality]) -> tuple[InputSpec, ...]:
    """The inputs of these modalities; raises DataError where none remains."""
    inputs = tuple(spec for spec in description.inputs if spec.modality in modalities)
    if not inputs:
        known_words("data.modalities", modalities, [spec.modality for spec in description.inputs])
    return inputs


class Folder:
    """A split of one's own data, encoded as the robot encodes it, at `size` (height, width).

    `modalities` are those to use of the ones that dataset.json lists. Raises DataError.
    """

    def __init__(
        self, root: Path, split: str, size: Size, modalities: Sequence[Modality] = MODALITIES, limit: int | None = None
    ) -> None:
        self.root, self.split, self.size = root, split, size
        description = read_description(root)
        self.inputs = folder_inputs(description, modalities)
        self.classes = tuple(LabelClass(entry.name, entry.color, entry.surface) for entry in description.classes)
        self._rig = description.rig.rig() if description.rig else None
        self._labels = sorted((root / split).glob(f"*/*{LABEL_ENDING}"))[:limit]
        if not self._labels:
            raise DataError(f"no labels *{LABEL_ENDING} in {root}/{split}/*; the layout is in docs/training.md")

    @property
    def description(self) -> str:
        return f"{self.root.name} {self.split}: {len(self)} samples, {self.size[0]}x{self.size[1]}"

    @property
    def fingerprint(self) -> str:
        files = [file for index in range(len(self)) for file in self.files(index)]
        return fingerprint_of(files, self.size, self.inputs, self._rig and self._rig.camera_from_lidar.tobytes())

    def __len__(self) -> int:
        return len(self._labels)

    def name(self, index: int) -> str:
        return str(self._labels[index].relative_to(self.root)).removesuffix(LABEL_ENDING)

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._labels[index], *(self._file(index, spec.modality) for spec in self.inputs))

    def __getitem__(self, index: int) -> Sample:
        labels = read_label_image(self._labels[index], len(self.classes))
        images = [self._image(index, spec, labels) for spec in self.inputs]
        return Sample(np.stack(images), resize_nearest(labels, self.size), self.name(index))

    def _image(self, index: int, spec: InputSpec, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        path = self._file(index, spec.modality)
        try:
            frame = self._frame(spec.modality, path)
            if not spec.modality.kind.is_points:
                require_same_view(path, frame.data, self._labels[index], labels)
            return encode_frame(frame, spec, self.size, self._rig)
        except InputError as error:
            raise DataError(f"{path}: {error} (`rig` in {DESCRIPTION_NAME})") from None
        except ValueError as error:
            raise DataError(f"{path} cannot be used: {error}") from None

    def _frame(self, modality: Modality, path: Path) -> ModalityFrame:
        if not modality.kind.is_points:
            return frame_from_stored(modality, read_image(path))
        try:
            return frame_from_stored(modality, np.load(path))
        except (OSError, EOFError):
            fault = "is damaged: a NumPy array was expected" if path.is_file() else "is missing"
            raise DataError(f"{path} {fault}") from None

    def _file(self, index: int, modality: Modality) -> Path:
        stem = str(self._labels[index]).removesuffix(LABEL_ENDING)
        candidates = [Path(stem + ending) for ending in endings(modality)]
        return next((path for path in candidates if path.is_file()), candidates[0])
