"""Pictures with label pictures beside them, wherever they lie: the layout says where (`data/layouts.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anyseg_core.data.files import (
    FileSamples,
    Size,
    read_image,
    read_label_image,
    require_same_view,
    resize_nearest,
)
from anyseg_core.data.layouts import PictureLayout
from anyseg_core.data.sample import IMAGENET_MEAN, IMAGENET_STD, DataError, Sample
from anyseg_core.runtime.files import files_below
from anyseg_core.runtime.input_images import camera_image
from anyseg_core.runtime.model_card import InputSpec, RgbEncoding
from anyseg_core.runtime.sensors import Sensor

CAMERA_INPUT = InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding(), mean=IMAGENET_MEAN, std=IMAGENET_STD)


def split_files(root: Path, pattern: str, split: str, splits: dict[str, tuple[int, int | None]]) -> list[Path]:
    """The files of a split, sorted by name: a folder of its own, or a part of all files. Raises DataError."""
    found = files_below(root, pattern.replace("{split}", split))
    if "{split}" not in pattern:
        if split not in splits:
            raise DataError(f"{root} has no split {split!r}; known: {', '.join(splits) or 'none'}")
        first, end = splits[split]
        found = found[first:end]
    if not found:
        raise DataError(f"no {pattern.replace('{split}', split)} in {root}")
    return found


class Pictures(FileSamples):
    """A split of a data set of pictures, at `size` (height, width).

    Raises DataError when the root, the split or a file is missing.
    """

    inputs: tuple[InputSpec, ...] = (CAMERA_INPUT,)

    def __init__(self, root: Path, split: str, size: Size, layout: PictureLayout, limit: int | None = None) -> None:
        self.root, self.split, self.size, self.layout = root, split, size, layout
        self.classes = layout.label_classes()
        self._images = split_files(root, layout.images, split, layout.splits)[:limit]

    @property
    def description(self) -> str:
        return f"{self.root.name} {self.split}: {len(self)} samples, {self.size[0]}x{self.size[1]}"

    @property
    def settings(self) -> tuple[object, ...]:
        """As `FileSamples`."""
        return self.size, self.inputs

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return f"{self.root.name}/{self._images[index].stem}"

    def files(self, index: int) -> tuple[Path, ...]:
        image = self._images[index]
        label = self.layout.labels.replace("{split}", self.split).replace("{stem}", image.stem)
        return image, self.root / label

    def __getitem__(self, index: int) -> Sample:
        image_file, label_file = self.files(index)
        image = read_image(image_file)
        if image.ndim != 3 or image.dtype != np.uint8:
            raise DataError(f"{image_file} is {image.dtype} {list(image.shape)}: an 8-bit colour picture was expected")
        labels = read_label_image(label_file, len(self.classes))
        require_same_view(image_file, image, label_file, labels)
        return Sample(camera_image(image, self.size)[None], resize_nearest(labels, self.size), self.name(index))
