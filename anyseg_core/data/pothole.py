"""The stereo pothole data set of Rui Fan (github.com/ruirangerfan/stereo_pothole_datasets): RGB and disparity.

The disparity is transformed so that an even road is nearly constant and a pothole lies below it.
"""

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
from anyseg_core.data.sample import IMAGENET_MEAN, IMAGENET_STD, DataError, Sample
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.label_sets import POTHOLE, LabelClass
from anyseg_core.runtime.model_card import DepthEncoding, InputSpec, RgbEncoding
from anyseg_core.runtime.sensors import Sensor, SensorFrame

SPLITS = ("train", "val", "test")
"""All drives but one to train on, and that one to test on; none is left for validation."""
HELD_OUT = "dataset1"
"""The drive of 12 frames; the other one has 40."""
RAW_PER_METRE = 1000.0
"""A 16UC1 depth message counts millimetres, so a raw disparity of 50000 reaches the node as 50 "metres"."""

_ENCODING = DepthEncoding(scale="linear", near_m=24.0, far_m=66.0)
"""Road 40 to 65, holes 24 to 52 in both sequences; below is the far bottom of a few holes."""


def _drive(name: str) -> str:
    """`dataset1_03` -> `dataset1`."""
    return name.rpartition("_")[0]


class Pothole(FileSamples):
    """Drives, encoded by the functions the robot uses, at `size` (height, width).

    `held_out` is the drive of the splits val and test; frames of a drive are neighbours, so it is never cut.

    `split` is `train` (dataset2, 40 images), `val` or `test` (both dataset1, 12 images).
    Raises DataError when the folder is not this data set.
    """

    classes: tuple[LabelClass, ...] = POTHOLE
    inputs: tuple[InputSpec, ...] = (
        InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding(), mean=IMAGENET_MEAN, std=IMAGENET_STD),
        InputSpec(modality=Sensor.DEPTH, encoding=_ENCODING, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.5)),
    )

    def __init__(self, root: Path, split: str, size: Size, limit: int | None = None, held_out: str = HELD_OUT) -> None:
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r} of the pothole data; known splits: {', '.join(SPLITS)}")
        self.root, self.split, self.size = root, split, size
        names = sorted(path.stem for path in (root / "rgb").glob("*_*.jpg"))
        self._names = [name for name in names if (_drive(name) == held_out) == (split != "train")][:limit]
        if not self._names:
            wanted = f"drive beside {held_out}" if split == "train" else f"{held_out}_*.jpg"
            drives = ", ".join(sorted(set(map(_drive, names)))) or "none"
            raise DataError(f"no {wanted} in {root}/rgb (drives: {drives}); is {root} the stereo pothole data set?")

    @property
    def description(self) -> str:
        drives = ", ".join(sorted(set(map(_drive, self._names))))
        return f"stereo pothole {drives}: {len(self)} samples, {self.size[0]}x{self.size[1]}"

    @property
    def settings(self) -> tuple[object, ...]:
        """As `FileSamples`."""
        return self.size, self.inputs

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def files(self, index: int) -> tuple[Path, ...]:
        folders = (("rgb", "jpg"), ("disparity", "png"), ("label", "png"))
        return tuple(self.root / folder / f"{self._names[index]}.{end}" for folder, end in folders)

    def __getitem__(self, index: int) -> Sample:
        name = self._names[index]
        path = self.root / "label" / f"{name}.png"
        labels = read_label_image(path, len(self.classes))
        images = []
        for file, frame, spec in zip(self.files(index), self.frames(name), self.inputs, strict=False):
            require_same_view(file, frame.data, path, labels)
            images.append(encode_frame(frame, spec, self.size))
        return Sample(np.stack(images), resize_nearest(labels, self.size), name)

    def frames(self, name: str) -> tuple[SensorFrame, SensorFrame]:
        """Camera and depth of one image as they reach the network through ROS messages."""
        rgb = read_image(self.root / "rgb" / f"{name}.jpg")
        disparity = read_image(self.root / "disparity" / f"{name}.png")
        depth_m = (disparity / RAW_PER_METRE).astype(np.float32)
        return SensorFrame(Sensor.CAMERA, rgb, 0), SensorFrame(Sensor.DEPTH, depth_m, 0)
