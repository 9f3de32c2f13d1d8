"""DELIVER (CMNeXt, arXiv 2303.01480) and data in its layout, as the simulator writes it.

    <root>/{img,depth|hha,event,lidar,semantic}/<weather>/<split>/<map>/<id>_{rgb,depth,event,lidar,semantic}_front.png

A drive with a failing sensor has the failure's name in its folder's. Our own simulator adds `<root>/inputs.json`, the
list of `InputSpec` its images were encoded with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from anyseg_core.data.files import (
    FileSamples,
    Size,
    known_words,
    read_image_of_8_bits,
    read_label_image,
    require_same_view,
    resize_nearest,
)
from anyseg_core.data.sample import IMAGENET_MEAN, IMAGENET_STD, DataError, Sample
from anyseg_core.runtime.files import files_below
from anyseg_core.runtime.input_images import camera_image
from anyseg_core.runtime.label_sets import DELIVER, UNLABELLED, LabelClass
from anyseg_core.runtime.model_card import DepthEncoding, EventEncoding, InputSpec, LidarEncoding, RgbEncoding
from anyseg_core.runtime.model_faults import told
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor

INPUTS_NAME = "inputs.json"
_SUFFIX = {Sensor.CAMERA: "rgb", Sensor.DEPTH: "depth", Sensor.EVENT: "event", Sensor.LIDAR: "lidar"}
_PUBLISHED_INPUTS = (
    InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding(), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    InputSpec(modality=Sensor.DEPTH, encoding=DepthEncoding()),
    InputSpec(modality=Sensor.EVENT, encoding=EventEncoding()),
    InputSpec(modality=Sensor.LIDAR, encoding=LidarEncoding()),
)
"""Normalisation as published. The encodings are stand-ins: the public images come encoded by their authors."""


CONDITIONS = ("cloud", "fog", "night", "rain", "sun")
CASES = ("motionblur", "overexposure", "underexposure", "lidarjitter", "eventlowres")
"""Failures of a sensor, by the word in the folder of a drive."""


class Deliver(FileSamples):
    """A split of DELIVER or of data in its layout, resized to `size` (height, width).

    Args:
        conditions: the weathers to take; all where empty.
        cases: the failure cases to take; where empty, all drives, with and without a failure.
        released_protocol: resize as AnySeg's release does: HHA, LiDAR and events bilinearly, events first to the size
            of the camera's image by the nearest pixel. Zeros, which mean "nothing measured", then bleed into edges.
        depth: the folder of the depth modality; AnySeg and CMNeXt read `hha`. `auto` takes `depth` where it is there.

    Raises DataError when the root, the split or a file is missing, or a condition or case is unknown.
    """

    classes: tuple[LabelClass, ...] = DELIVER

    def __init__(  # noqa: PLR0913 - the choices of one data set, named by keyword
        self,
        root: Path,
        split: str,
        size: Size,
        modalities: Sequence[Sensor] = DEFAULT_SENSORS,
        limit: int | None = None,
        *,
        conditions: Sequence[str] = (),
        cases: Sequence[str] = (),
        depth: Literal["auto", "depth", "hha"] = "auto",
        released_protocol: bool = False,
    ) -> None:
        self.released_protocol = released_protocol
        self.root, self.split, self.size = root, split, size
        if not root.is_dir():
            raise DataError(f"no data at {root}; set data.root to a data set, or write one with `anyseg simulate`")
        self.inputs = deliver_inputs(root, modalities)
        if depth == "auto":
            depth = "depth" if (root / "depth").is_dir() else "hha"
        self._folders = {
            Sensor.CAMERA: "img",
            Sensor.DEPTH: depth,
            Sensor.EVENT: "event",
            Sensor.LIDAR: "lidar",
        }
        known_words("data.conditions", conditions, CONDITIONS)
        known_words("data.cases", cases, CASES)
        found = files_below(root / "semantic", f"*/{split}/**/*_semantic_front.png")
        if not found:
            raise DataError(f"no labels in {root}/semantic/*/{split}; is {root} a data set in DELIVER's layout?")
        chosen = [path for path in found if self._is_chosen(path, conditions, cases)]
        if not chosen:
            raise DataError(f"{root}/semantic/*/{split} has no drive of {', '.join([*conditions, *cases])}")
        self._labels = chosen[:limit]

    def _is_chosen(self, label: Path, conditions: Sequence[str], cases: Sequence[str]) -> bool:
        relative = label.relative_to(self.root / "semantic")
        fits = not conditions or relative.parts[0] in conditions
        return fits and (not cases or any(case in str(relative.parent) for case in cases))

    @property
    def description(self) -> str:
        return f"{self.root.name} {self.split}: {len(self)} samples, {self.size[0]}x{self.size[1]}"

    @property
    def settings(self) -> tuple[object, ...]:
        """As `FileSamples`."""
        return self.size, self.inputs, self.released_protocol

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        path = self._labels[index]
        labels = shift_labels(read_label_image(path, first_channel=True), len(self.classes), path)
        images = [self._image(index, spec.modality, labels) for spec in self.inputs]
        return Sample(np.stack(images), resize_nearest(labels, self.size), self.name(index))

    def name(self, index: int) -> str:
        return str(self._labels[index].relative_to(self.root / "semantic"))

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._labels[index], *(self.image_path(index, spec.modality) for spec in self.inputs))

    def image_path(self, index: int, modality: Sensor) -> Path:
        """The image file of one modality of one sample."""
        relative = self._labels[index].relative_to(self.root / "semantic")
        name = relative.name.replace("_semantic_front.png", f"_{_SUFFIX[modality]}_front.png")
        return self.root / self._folders[modality] / relative.parent / name

    def _image(self, index: int, modality: Sensor, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        path = self.image_path(index, modality)
        image = read_image_of_8_bits(path)
        require_same_view(path, image, self._labels[index], labels)
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=2)
        if self.released_protocol and modality is not Sensor.CAMERA:
            return _resized_as_released(image, self.size, labels.shape if modality is Sensor.EVENT else image.shape)
        # Zeros of the other modalities mean "nothing measured" and must not bleed into their neighbours.
        return camera_image(image, self.size) if modality is Sensor.CAMERA else resize_nearest(image, self.size)


def _resized_as_released(image: NDArray[np.uint8], size: Size, view: tuple[int, ...]) -> NDArray[np.uint8]:
    """[h, w, 3] -> [H, W, 3], bilinear; before that by the nearest pixel to the (height, width) of `view`."""
    whole = resize_nearest(image, (view[0], view[1]))
    return np.asarray(cv2.resize(whole, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)


def shift_labels(raw: NDArray[np.uint8], num_classes: int, path: Path) -> NDArray[np.uint8]:
    """Labels as stored, which count from 1, 0 and 255 being void -> class index [h, w], 255 = ignored.

    Raises DataError that names the file of a label which is no class.
    """
    highest = int(raw[raw != UNLABELLED].max(initial=0))
    if highest > num_classes:
        raise DataError(
            f"{path} has label {highest} of {num_classes} classes: 0 for void and 1 to {num_classes} were expected"
        )
    shifted = raw - np.uint8(1)  # 0 wraps round to 255
    shifted[raw == UNLABELLED] = UNLABELLED
    return shifted


def deliver_inputs(root: Path, modalities: Sequence[Sensor] = DEFAULT_SENSORS) -> tuple[InputSpec, ...]:
    """How the images of a data set were encoded: its inputs.json, else as published. Raises DataError."""
    inputs = tuple(spec for spec in _read_inputs(root) if spec.modality in modalities)
    unknown = set(modalities) - {spec.modality for spec in inputs}
    if unknown:
        raise DataError(f"{root} has no {', '.join(sorted(unknown))}; drop it from data.modalities")
    return inputs


def _read_inputs(root: Path) -> tuple[InputSpec, ...]:
    path = root / INPUTS_NAME
    if not path.is_file():
        return _PUBLISHED_INPUTS
    try:
        return TypeAdapter(tuple[InputSpec, ...]).validate_python(json.loads(path.read_text()))
    except ValueError as error:  # ValidationError is a ValueError
        raise DataError(f"{path} is not a list of input specs: {told(error, InputSpec)}") from None
