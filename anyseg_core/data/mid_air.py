"""Mid-Air (Fonder and Van Droogenbroeck, CVPRW 2019): drones over synthetic landscapes, in all weathers.

    <root>/[<set>/]<climate>/sensor_records.hdf5      <trajectory>/camera_data/<stream>[i] = path of a frame, from there
    <root>/[<set>/]<climate>/<stream>/<trajectory>/<number>.{JPEG,PNG}

Streams are color_left, depth and segmentation, 1024x1024. A depth image holds half-precision floats in its 16 bit
integers: metres from the camera's centre along each pixel's ray. They become depths along the optical axis here, as ROS
has them (REP 118).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import Size, known_words, read_image, read_label_image
from anyseg_core.data.rgbd import RgbdDataset, camera_frame, depth_frame, read_hdf5, require_16_bit, rgbd_inputs
from anyseg_core.data.sample import DataError
from anyseg_core.runtime.label_sets import MID_AIR, UNLABELLED
from anyseg_core.runtime.model_card import DepthEncoding, InputSpec
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

RECORDS_NAME = "sensor_records.hdf5"
SPLITS = ("train", "val", "test")
_STREAMS = {Sensor.CAMERA: "color_left", Sensor.DEPTH: "depth"}
_SEGMENTATION = "segmentation"
_EMPTY_ID = 7
_CLASS_OF_ID = np.full(256, UNLABELLED, np.uint8)
_CLASS_OF_ID[[number for number in range(len(MID_AIR) + 1) if number != _EMPTY_ID]] = np.arange(len(MID_AIR))
_DEPTH = DepthEncoding(scale="log", near_m=1.0, far_m=1000.0)


def mid_air_inputs(modalities: Sequence[Sensor] = DEFAULT_SENSORS) -> tuple[InputSpec, ...]:
    """Camera and depth, or the one of them that is wanted."""
    return rgbd_inputs(_DEPTH, modalities)


class MidAir(RgbdDataset):
    """A split of Mid-Air. Raises DataError.

    A third of the trajectories that are not in a set named `<...>_test`, as M4Depth divides them, is `val`; the others
    are `train`. `test` is those sets, which were published for it.

    Args:
        conditions: the climates to take; all where empty.
        every: take only every n-th of the 25 frames per second.
    """

    classes = MID_AIR

    def __init__(
        self,
        root: Path,
        split: str,
        size: Size,
        modalities: Sequence[Sensor] = DEFAULT_SENSORS,
        limit: int | None = None,
        *,
        conditions: Sequence[str] = (),
        every: int = 1,
    ) -> None:
        known_words("split", [split], SPLITS)
        climates = sorted(
            path.parent for name in (RECORDS_NAME, f"*/{RECORDS_NAME}") for path in root.glob(f"*/{name}")
        )
        if not climates:
            raise DataError(f"no {RECORDS_NAME} in {root}/<climate> or {root}/<set>/<climate>; is {root} Mid-Air?")
        known_words("data.conditions", conditions, sorted({climate.name for climate in climates}))
        self.root, inputs = root, mid_air_inputs(modalities)
        streams = [*(_STREAMS[spec.modality] for spec in inputs), _SEGMENTATION]
        self._samples: list[dict[str, Path]] = []
        for climate in climates:
            if not conditions or climate.name in conditions:
                self._samples += _read_index(climate, split, streams, every)
        self._samples = self._samples[:limit]
        if not self._samples:
            raise DataError(
                f"{root} has no trajectory of split {split}{' in ' if conditions else ''}{', '.join(conditions)}"
            )
        names = [str(sample[_SEGMENTATION].relative_to(root)) for sample in self._samples]
        super().__init__(f"Mid-Air {split}", size, inputs, names)

    def files(self, index: int) -> tuple[Path, ...]:
        return tuple(self._samples[index].values())

    def frame(self, index: int, modality: Sensor) -> SensorFrame:
        path = self._samples[index][_STREAMS[modality]]
        stored = read_image(path)
        if modality is Sensor.CAMERA:
            return camera_frame(stored, path)
        require_16_bit(stored, path)
        return depth_frame(stored.view(np.float16) * _depth_per_distance(*stored.shape))

    def labels(self, index: int) -> NDArray[np.uint8]:
        path = self._samples[index][_SEGMENTATION]
        ids = read_label_image(path, first_channel=True)
        if ids.max() > len(MID_AIR):
            raise DataError(f"{path} has label {ids.max()}: 0 to {len(MID_AIR)} were expected")
        return _CLASS_OF_ID[ids]


def _read_index(climate: Path, split: str, streams: Sequence[str], every: int) -> list[dict[str, Path]]:
    """The files of each sample of a climate's trajectories, by stream."""

    def read(records: Any) -> list[dict[str, Path]]:
        samples = []
        for position, trajectory in enumerate(sorted(records)):
            if _split_of(climate, position) != split:
                continue
            paths = [_stored_paths(records[trajectory]["camera_data"][stream]) for stream in streams]
            for frame in list(zip(*paths, strict=False))[::every]:
                samples.append({stream: climate / path for stream, path in zip(streams, frame, strict=True)})
        return samples

    return read_hdf5(climate / RECORDS_NAME, read, "trajectories with camera_data/" + ", ".join(streams))


def _split_of(climate: Path, position: int) -> str:
    """Of a climate's trajectory, by its place among them."""
    if climate.parent.name.endswith("_test"):
        return "test"
    return "val" if position % 3 == 0 else "train"


def _stored_paths(entries: Any) -> list[PurePosixPath]:
    """Their slashes may have been turned for Windows by a script of Mid-Air's authors."""
    return [PurePosixPath(PureWindowsPath(path).as_posix()) for path in entries.asstr()[:]]


@cache
def _depth_per_distance(height: int, width: int) -> NDArray[np.float32]:
    """[h, w]: cosine between a pixel's ray and the optical axis; the field of view is 90 degrees."""
    x = (np.arange(width) + 0.5) / (width / 2) - 1
    y = (np.arange(height) + 0.5) / (height / 2) - 1
    return (1 / np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)).astype(np.float32)
