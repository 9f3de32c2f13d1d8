"""DELIVER (CMNeXt, arXiv 2303.01480) and data in its layout, as the simulator writes it.

    <root>/{img,depth|hha,event,lidar,semantic}/<weather>/<split>/<map>/<id>_{rgb,depth,event,lidar,semantic}_front.png

Our own simulator adds `<root>/inputs.json`, the list of `InputSpec` its images were encoded with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from anyseg_core.data.files import Size, fingerprint_of, read_image, resize_nearest
from anyseg_core.data.sample import IMAGENET_MEAN, IMAGENET_STD, DataError, Sample
from anyseg_core.runtime.input_images import camera_image
from anyseg_core.runtime.label_sets import DELIVER, UNLABELLED, LabelClass
from anyseg_core.runtime.modality import MODALITIES, Modality
from anyseg_core.runtime.model_card import DepthEncoding, EventEncoding, InputSpec, LidarEncoding, RgbEncoding

INPUTS_NAME = "inputs.json"
_SUFFIX = {Modality.CAMERA: "rgb", Modality.DEPTH: "depth", Modality.EVENT: "event", Modality.LIDAR: "lidar"}
_PUBLISHED_INPUTS = (
    InputSpec(modality=Modality.CAMERA, encoding=RgbEncoding(), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    InputSpec(modality=Modality.DEPTH, encoding=DepthEncoding()),
    InputSpec(modality=Modality.EVENT, encoding=EventEncoding()),
    InputSpec(modality=Modality.LIDAR, encoding=LidarEncoding()),
)
"""Normalisation as published. The encodings are stand-ins: the public images come encoded by their authors."""


class Deliver:
    """A split of DELIVER or of data in its layout, resized to `size` (height, width).

    Depth is read from `depth/`, or from `hha/` as AnySeg and CMNeXt do, whichever is there.
    Raises DataError when the root, the split or a file is missing.
    """

    classes: tuple[LabelClass, ...] = DELIVER

    def __init__(
        self, root: Path, split: str, size: Size, modalities: Sequence[Modality] = MODALITIES, limit: int | None = None
    ) -> None:
        self.root, self.split, self.size = root, split, size
        self.inputs = tuple(spec for spec in _read_inputs(root) if spec.modality in modalities)
        unknown = set(modalities) - {spec.modality for spec in self.inputs}
        if unknown:
            raise DataError(f"{root} has no {', '.join(sorted(unknown))}; drop it from data.modalities")
        self._folders = {
            Modality.CAMERA: "img",
            Modality.DEPTH: "depth" if (root / "depth").is_dir() else "hha",
            Modality.EVENT: "event",
            Modality.LIDAR: "lidar",
        }
        self._labels = sorted((root / "semantic").glob(f"*/{split}/**/*_semantic_front.png"))[:limit]
        if not self._labels:
            raise DataError(f"no labels in {root}/semantic/*/{split}; is {root} a data set in DELIVER's layout?")

    @property
    def description(self) -> str:
        return f"{self.root.name} {self.split}: {len(self)} samples, {self.size[0]}x{self.size[1]}"

    @property
    def fingerprint(self) -> str:
        files = [self.image_path(i, spec.modality) for i in range(len(self)) for spec in self.inputs]
        return fingerprint_of([*self._labels, *files], self.size, self.inputs)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        label_path = self._labels[index]
        images = [self._image(index, spec.modality) for spec in self.inputs]
        labels = resize_nearest(shift_labels(read_image(label_path)), self.size)
        return Sample(np.stack(images), labels, str(label_path.relative_to(self.root / "semantic")))

    def image_path(self, index: int, modality: Modality) -> Path:
        """The image file of one modality of one sample."""
        relative = self._labels[index].relative_to(self.root / "semantic")
        name = relative.name.replace("_semantic_front.png", f"_{_SUFFIX[modality]}_front.png")
        return self.root / self._folders[modality] / relative.parent / name

    def _image(self, index: int, modality: Modality) -> NDArray[np.uint8]:
        image = read_image(self.image_path(index, modality))
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        # Zeros of the other modalities mean "nothing measured" and must not bleed into their neighbours.
        return camera_image(image, self.size) if modality is Modality.CAMERA else resize_nearest(image, self.size)


def shift_labels(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label image as stored -> class index: the first channel counts from 1; 0 and 255 are ignored."""
    label = raw if raw.ndim == 2 else raw[..., 0]
    shifted = label - np.uint8(1)  # 0 wraps round to 255
    shifted[label == UNLABELLED] = UNLABELLED
    return shifted


def _read_inputs(root: Path) -> tuple[InputSpec, ...]:
    path = root / INPUTS_NAME
    if not root.is_dir():
        raise DataError(f"no data at {root}; set data.root to a data set, or write one with `anyseg simulate`")
    if not path.is_file():
        return _PUBLISHED_INPUTS
    try:
        return TypeAdapter(tuple[InputSpec, ...]).validate_python(json.loads(path.read_text()))
    except (json.JSONDecodeError, ValidationError) as error:
        raise DataError(f"{path} is not a list of input specs: {error}") from None
