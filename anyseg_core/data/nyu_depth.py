"""NYUDepth v2 (Silberman et al., ECCV 2012) with the 40 classes of Gupta et al. (CVPR 2013), in its two public forms.

    <root>/nyu_depth_v2_labeled.mat                 MATLAB 7.3: images, depths (holes filled in), labels of 894 kinds
    <root>/{splits,classMapping40}.mat              beside it: trainNdxs and testNdxs, and mapClass, all from 1
    <root>/{RGB,HHA|Depth,Label}/<name>.{jpg,png}   with train.txt and test.txt: per line a name, or its image's path

In the folders labels are 0 for void and 1 to 40, depth is 16 bit in millimetres, and HHA is as its authors encoded it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.deliver import shift_labels
from anyseg_core.data.files import (
    Size,
    optional_module,
    read_image,
    read_label_image,
    require_same_view,
    resize_nearest,
)
from anyseg_core.data.rgbd import RgbdDataset, camera_frame, depth_frame, read_hdf5, require_16_bit, rgbd_inputs
from anyseg_core.data.sample import DataError
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.label_sets import NYU40, UNLABELLED
from anyseg_core.runtime.model_card import DepthEncoding, HhaEncoding, InputSpec
from anyseg_core.runtime.sensors import Sensor, SensorFrame

MAT_NAME = "nyu_depth_v2_labeled.mat"
DepthForm = Literal["auto", "depth", "hha"]
_SPLITS = {"train": "train", "val": "test", "test": "test"}
"""There is no third split for validation."""
SPLITS_NAME, MAPPING_NAME = "splits.mat", "classMapping40.mat"
_KINDS = 894
_DEPTH = DepthEncoding(scale="log", near_m=0.5, far_m=10.0)
"""Kinect's range, indoors."""
_HHA = HhaEncoding(
    near_m=0.5, camera_height_m=1.2, min_height_m=-0.5, max_height_m=3.0, estimate_gravity=True, normals="fitted"
)
"""A camera in the hand."""
_KINECT = Rig(PinholeCamera(640, 480, 518.857901, 519.469611, 324.582449, 252.736166))
"""The RGB camera of the toolbox's camera_params.m, whose pixels count from 1."""


def nyu_depth(
    root: Path, split: str, size: Size, modalities: Sequence[Sensor], limit: int | None, depth: DepthForm
) -> NyuDepthMat | NyuDepthFolder:
    """A split of whichever form lies at `root`. Raises DataError."""
    if split not in _SPLITS:
        raise DataError(f"unknown split {split!r} of NYUDepth v2; known splits: {', '.join(_SPLITS)}")
    form = NyuDepthMat if (root / MAT_NAME).is_file() else NyuDepthFolder
    return form(root, _SPLITS[split], size, nyu_inputs(root, modalities, depth), limit)


def nyu_inputs(root: Path, modalities: Sequence[Sensor], depth: DepthForm) -> tuple[InputSpec, ...]:
    """`auto` is depth, but HHA where `root` has a folder of it and none of depth."""
    if depth == "auto":
        depth = "hha" if (root / "HHA").is_dir() and not (root / "Depth").is_dir() else "depth"
    return rgbd_inputs(_HHA if depth == "hha" else _DEPTH, modalities)


def _published(root: Path, name: str, variable: str) -> NDArray[np.int64]:
    """A row of numbers from one of the two small files that are published with the data. Raises DataError."""
    path = root / name
    if not path.is_file():
        raise DataError(
            f"{path} is missing. {SPLITS_NAME} is on the page of NYUDepth v2, {MAPPING_NAME} in the benchmark of Gupta "
            f"et al. (CVPR 2013); put both beside {MAT_NAME}, or use the data set as folders of images"
        )
    scipy_io = optional_module("scipy.io", path)
    try:
        return np.asarray(scipy_io.loadmat(path)[variable], np.int64).ravel()
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise DataError(f"{path} has no {variable}, as NYUDepth v2 has it: {error!r}") from None


def _class_of_label(root: Path) -> NDArray[np.uint8]:
    """Label [0 to 894] -> class index, and void for label 0. Raises DataError."""
    classes = _published(root, MAPPING_NAME, "mapClass")
    if len(classes) != _KINDS or classes.min() < 1 or classes.max() > len(NYU40):
        raise DataError(f"{root / MAPPING_NAME}: mapClass must have {_KINDS} classes from 1 to {len(NYU40)}")
    return np.concatenate(([UNLABELLED], classes - 1)).astype(np.uint8)


class NyuDepthMat(RgbdDataset):
    """The `.mat` file, of which a frame at a time is read."""

    classes = NYU40
    rig = _KINECT

    def __init__(self, root: Path, split: str, size: Size, inputs: tuple[InputSpec, ...], limit: int | None) -> None:
        self.path = root / MAT_NAME
        self._class_of_label = _class_of_label(root)
        frames = self._read(lambda file: len(file["labels"]))
        numbers = np.sort(_published(root, SPLITS_NAME, f"{split}Ndxs")) - 1  # from 0
        self._frames = [int(number) for number in numbers if number < frames][:limit]
        if not self._frames:
            raise DataError(f"{self.path} has {frames} frames, and none of split {split}")
        super().__init__(f"NYUDepth v2 {split}", size, inputs, [f"{number + 1:04d}" for number in self._frames])

    def files(self, index: int) -> tuple[Path, ...]:  # noqa: ARG002  # all are in one
        return (self.path,)

    def frame(self, index: int, modality: Sensor) -> SensorFrame:
        number = self._frames[index]
        if modality is Sensor.CAMERA:
            return camera_frame(np.ascontiguousarray(self._read(lambda file: file["images"][number]).T), self.path)
        return depth_frame(self._read(lambda file: file["depths"][number]).T)

    def labels(self, index: int) -> NDArray[np.uint8]:
        raw = self._read(lambda file: file["labels"][self._frames[index]]).T
        if raw.max() > _KINDS:
            raise DataError(f"{self.path}: frame {self.name(index)} has label {raw.max()}: 0 to {_KINDS} were expected")
        return np.ascontiguousarray(self._class_of_label[raw])

    def _read(self, part: Callable[[Any], Any]) -> Any:
        """A part of the file, whose arrays have their axes in reverse: [frame, (channel,) width, height]."""
        return read_hdf5(self.path, part, "images, depths and labels of NYUDepth v2")


class NyuDepthFolder(RgbdDataset):
    """The folders of images that most RGB-D segmentation code reads."""

    classes = NYU40
    rig = _KINECT

    def __init__(self, root: Path, split: str, size: Size, inputs: tuple[InputSpec, ...], limit: int | None) -> None:
        self.root = root
        self._is_hha = any(isinstance(spec.encoding, HhaEncoding) for spec in inputs)
        super().__init__(f"NYUDepth v2 {split}", size, inputs, _read_names(root, split)[:limit])

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._file("Label", index), *(self._image_file(index, spec.modality) for spec in self.inputs))

    def image(self, index: int, spec: InputSpec, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if spec.modality is Sensor.DEPTH and self._is_hha:
            path = self._image_file(index, spec.modality)
            hha = np.asarray(camera_frame(read_image(path), path).data)
            require_same_view(path, hha, self._file("Label", index), labels)
            return resize_nearest(hha, self.size)
        return super().image(index, spec, labels)

    def frame(self, index: int, modality: Sensor) -> SensorFrame:
        path = self._image_file(index, modality)
        stored = read_image(path)
        if modality is Sensor.CAMERA:
            return camera_frame(stored, path)
        require_16_bit(stored, path, " in millimetres")
        return depth_frame(stored / 1000)

    def labels(self, index: int) -> NDArray[np.uint8]:
        path = self._file("Label", index)
        return shift_labels(read_label_image(path), len(NYU40), path)

    def _image_file(self, index: int, modality: Sensor) -> Path:
        if modality is Sensor.CAMERA:
            return self._file("RGB", index)
        return self._file("HHA" if self._is_hha else "Depth", index)

    def _file(self, folder: str, index: int) -> Path:
        """Of either ending; where neither is there, the one that an error should name."""
        endings = (".png", ".jpg") if folder in ("Label", "Depth") else (".jpg", ".png")
        candidates = [self.root / folder / f"{self.name(index)}{ending}" for ending in endings]
        return next((path for path in candidates if path.is_file()), candidates[0])


def _read_names(root: Path, split: str) -> list[str]:
    path = root / f"{split}.txt"
    try:
        lines = path.read_text().splitlines()
    except OSError:
        raise DataError(
            f"{path} is missing, and so is {root / MAT_NAME}; is {root} NYUDepth v2? "
            "docs/training/data_sets.md has its layouts"
        ) from None
    names = [Path(line.split()[0]).stem for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path} is empty: a name a line was expected")
    return names
