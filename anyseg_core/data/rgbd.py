"""What the RGB-D data sets share: camera and depth as a robot would get them, encoded as the robot encodes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import (
    FileSamples,
    Size,
    known_words,
    optional_module,
    require_same_view,
    resize_nearest,
)
from anyseg_core.data.sample import IMAGENET_MEAN, IMAGENET_STD, DataError, Sample
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.label_sets import LabelClass
from anyseg_core.runtime.model_card import DepthEncoding, HhaEncoding, InputSpec, RgbEncoding
from anyseg_core.runtime.sensors import Sensor, SensorFrame

Part = TypeVar("Part")
RGBD = (Sensor.CAMERA, Sensor.DEPTH)


def rgbd_inputs(depth: DepthEncoding | HhaEncoding, modalities: Sequence[Sensor]) -> tuple[InputSpec, ...]:
    """Camera and depth, or the one of them that is wanted; raises DataError where neither is."""
    std = (0.25, 0.25, 0.5) if isinstance(depth, DepthEncoding) else (0.25, 0.25, 0.25)
    inputs = (
        InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding(), mean=IMAGENET_MEAN, std=IMAGENET_STD),
        InputSpec(modality=Sensor.DEPTH, encoding=depth, mean=(0.5, 0.5, 0.5), std=std),
    )
    chosen = tuple(spec for spec in inputs if spec.modality in modalities)
    if not chosen:
        known_words("data.modalities", modalities, RGBD)
    return chosen


class RgbdDataset(FileSamples):
    """A split of an RGB-D data set at `size` (height, width). Raises DataError for files that cannot be read."""

    classes: tuple[LabelClass, ...]
    rig: Rig | None = None
    """The camera's intrinsics, where they are known: HHA needs them."""

    def __init__(self, title: str, size: Size, inputs: tuple[InputSpec, ...], names: Sequence[str]) -> None:
        self.title, self.size, self.inputs, self._names = title, size, inputs, names

    @abstractmethod
    def frame(self, index: int, modality: Sensor) -> SensorFrame:
        """RGB, or depth in metres, as a message would bring it."""

    @abstractmethod
    def labels(self, index: int) -> NDArray[np.uint8]:
        """[h, w], class index, 255 = ignored."""

    @property
    def description(self) -> str:
        return f"{self.title}: {len(self)} samples, {self.size[0]}x{self.size[1]}"

    @property
    def settings(self) -> tuple[object, ...]:
        """As `FileSamples`."""
        return self.size, self.inputs, self._names

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def __getitem__(self, index: int) -> Sample:
        labels = self.labels(index)
        images = [self.image(index, spec, labels) for spec in self.inputs]
        return Sample(np.stack(images), resize_nearest(labels, self.size), self.name(index))

    def image(self, index: int, spec: InputSpec, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, 3], as the network gets it; `labels` [h, w] are those of the sample, which must show the same view."""
        frame = self.frame(index, spec.modality)
        require_same_view(Path(f"{spec.modality} of {self.name(index)}"), frame.data, Path("its labels"), labels)
        return encode_frame(frame, spec, self.size, self.rig)


def camera_frame(rgb: NDArray[np.uint8], origin: Path) -> SensorFrame:
    """[h, w, 3]; raises DataError for other images."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise DataError(f"{origin} is {rgb.dtype} {list(rgb.shape)}: an 8 bit RGB image was expected")
    return SensorFrame(Sensor.CAMERA, rgb, 0)


def depth_frame(depth_m: NDArray[np.floating]) -> SensorFrame:
    """[h, w], metres; 0, NaN and infinity mean that nothing was measured."""
    return SensorFrame(Sensor.DEPTH, np.ascontiguousarray(depth_m, np.float32), 0)


def require_16_bit(stored: NDArray[Any], origin: Path, unit: str = "") -> None:
    """Raises DataError where a depth image is something else than one channel of uint16."""
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise DataError(f"{origin} is {stored.dtype} {list(stored.shape)}: 16 bit depth{unit} was expected")


def read_hdf5(path: Path, part: Callable[[Any], Part], expected: str) -> Part:
    """What `part` takes from the opened file; raises DataError that names the file and what was expected in it."""
    if not path.is_file():
        raise DataError(f"{path} is missing: {expected} were expected")
    h5py = optional_module("h5py", path)
    try:
        with h5py.File(path) as file:
            return part(file)
    except KeyError as error:
        raise DataError(f"{path} has no {expected}: {error}") from None
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} is damaged, perhaps half downloaded: {expected} were expected: {error}") from None
