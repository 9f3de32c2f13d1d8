"""MUSES (arXiv 2401.12761), raw or as images that its SDK projected into the camera.

    <root>/{frame_camera,event_camera,lidar}/<split>/{clear,fog,rain,snow}/{day,night}/<scene>_<modality>.<ending>
    <root>/gt_semantic/<split>/…/<scene>_gt_labelTrainIds.png       19 Cityscapes classes, 255 = ignored
    <root>/{calib,meta}.json, gnss/…                                for the raw sensors

The SDK writes its images to `<root>/projected_to_rgb/{event_camera,lidar}/…png`; both places are looked at. A LiDAR
image has range, intensity and height (metres, in OpenCV's order of channels) as uint16 = (value + 100) * 150; an event
image has positive and negative counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import (
    FileSamples,
    Size,
    fingerprint_of,
    known_words,
    read_image,
    read_image_of_8_bits,
    read_label_image,
    require_same_view,
    resize_nearest,
)
from anyseg_core.data.muses_sensors import (
    Calibration,
    compensate_motion,
    event_counts,
    read_calibration,
    read_events,
    read_json,
    read_lidar,
)
from anyseg_core.data.sample import IMAGENET_MEAN, IMAGENET_STD, DataError, Sample
from anyseg_core.runtime.input_images import camera_image, event_image, lidar_image
from anyseg_core.runtime.label_sets import CITYSCAPES, UNLABELLED, LabelClass
from anyseg_core.runtime.model_card import EventEncoding, InputSpec, LidarEncoding, RgbEncoding
from anyseg_core.runtime.sensors import Sensor

Image = NDArray[np.uint8]
WEATHERS, TIMES = ("clear", "fog", "rain", "snow"), ("day", "night")
MODALITIES = (Sensor.CAMERA, Sensor.EVENT, Sensor.LIDAR)
"""F, E, L of the tables. MUSES' radar is not a modality here."""
_FOLDER = {Sensor.CAMERA: "frame_camera", Sensor.EVENT: "event_camera", Sensor.LIDAR: "lidar"}
_RAW_ENDING = {Sensor.EVENT: ".h5", Sensor.LIDAR: ".bin"}
_LIDAR = LidarEncoding(max_range_m=120.0, max_intensity=255.0, camera_height_m=1.8, max_height_m=12.0)
_LIDAR_HEIGHT_M = 2.0
"""Of the sensor above the road: the SDK's images hold heights above the sensor."""
_OURS = (
    InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding(), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    InputSpec(modality=Sensor.EVENT, encoding=EventEncoding(gain=40.0)),
    InputSpec(modality=Sensor.LIDAR, encoding=_LIDAR),
)
_AS_NUMBERS = (1 / 255, 1 / 255, 1 / 255)
_RELEASED = tuple(spec.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": _AS_NUMBERS}) for spec in _OURS)
"""No normalisation at all: the network sees 0 to 255."""


def muses_inputs(modalities: Sequence[Sensor], *, released_protocol: bool = False) -> tuple[InputSpec, ...]:
    """How the modalities are encoded and normalised; raises DataError for one that MUSES has not."""
    known_words("data.modalities", modalities, MODALITIES)
    return tuple(spec for spec in (_RELEASED if released_protocol else _OURS) if spec.modality in modalities)


class Muses(FileSamples):
    """A split of MUSES, resized to `size` (height, width).

    Args:
        conditions: weathers and times of day to take, such as fog or night; all where empty.
        source: `raw` sensors, `png` of the SDK, or `auto`: raw where it is there. The SDK's LiDAR images also hold
            points from behind the camera, mirrored into the picture.
        motion_compensation: of raw LiDAR points, by the GNSS' speed and turn.
        released_protocol: read the files as AnySeg's release does, faults included: void is road, of 16-bit images
            the high byte remains, red and blue of the SDK's images are swapped, nothing is normalised.

    Raises DataError when the root, the split or a file is missing.
    """

    classes: tuple[LabelClass, ...] = CITYSCAPES

    def __init__(  # noqa: PLR0913 - the choices of one data set, named by keyword
        self,
        root: Path,
        split: str,
        size: Size,
        modalities: Sequence[Sensor] = MODALITIES,
        limit: int | None = None,
        *,
        conditions: Sequence[str] = (),
        source: Literal["auto", "raw", "png"] = "auto",
        motion_compensation: bool = True,
        released_protocol: bool = False,
    ) -> None:
        self.root, self.split, self.size = root, split, size
        self.motion_compensation, self.released_protocol = motion_compensation, released_protocol
        self.inputs = muses_inputs(modalities, released_protocol=released_protocol)
        known_words("data.conditions", conditions, (*WEATHERS, *TIMES))
        found = sorted((root / "frame_camera" / split).glob("*/*/*_frame_camera.png"))
        if not found:
            raise DataError(f"no images in {root}/frame_camera/{split}/*/*; is {root} MUSES, unzipped?")
        self._frames = [path.relative_to(root / "frame_camera") for path in found if _fits(path, conditions)][:limit]
        if not self._frames:
            raise DataError(f"{root}/frame_camera/{split} has no image of {', '.join(conditions)}")
        self.source = self._source(source)

    def _source(self, wanted: Literal["auto", "raw", "png"]) -> Literal["raw", "png"]:
        if self.released_protocol and wanted == "raw":
            raise DataError("data.released_protocol needs data.source png: the release knows no raw sensors")
        if wanted != "auto":
            return wanted
        beside = [spec.modality for spec in self.inputs if spec.modality is not Sensor.CAMERA]
        has_raw = all(self._raw(0, modality).is_file() for modality in beside) and (self.root / "calib.json").is_file()
        return "raw" if has_raw and not self.released_protocol else "png"

    @property
    def description(self) -> str:
        protocol = ", as AnySeg's release reads it" if self.released_protocol else ""
        return f"MUSES {self.split} ({self.source}{protocol}): {len(self)} samples, {self.size[0]}x{self.size[1]}"

    @property
    def settings(self) -> tuple[object, ...]:
        """As `FileSamples`."""
        names = ("calib.json", "meta.json") if self.source == "raw" else ()
        calibration = [file for name in names if (file := self.root / name).is_file()]
        return self.size, self.inputs, self.motion_compensation, self.released_protocol, fingerprint_of(calibration)

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, index: int) -> str:
        return str(self._frames[index])

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._label(index), *(self._file(index, spec.modality) for spec in self.inputs))

    def __getitem__(self, index: int) -> Sample:
        whole = read_label_image(self._label(index), len(self.classes), first_channel=True)
        labels = resize_nearest(whole, self.size)
        if self.released_protocol:
            labels = np.where(labels == UNLABELLED, np.uint8(0), labels)
        images = [self._image(index, spec, whole) for spec in self.inputs]
        return Sample(np.stack(images), labels, self.name(index))

    def _image(self, index: int, spec: InputSpec, labels: Image) -> Image:
        if self.released_protocol:
            return released_image(read_stored(self._file(index, spec.modality)), self.size)
        if spec.modality is Sensor.CAMERA:
            path = self._file(index, spec.modality)
            image = read_image_of_8_bits(path)
            require_same_view(path, image, self._label(index), labels)
            return camera_image(image, self.size)
        return self._events(index, spec) if spec.modality is Sensor.EVENT else self._lidar(index, spec)

    def _events(self, index: int, spec: InputSpec) -> Image:
        path = self._file(index, Sensor.EVENT)
        if self.source == "png":
            counts = np.ascontiguousarray(read_stored(path)[..., :2])
        else:
            counts = event_counts(*read_events(path), self._calibration.events_to_image())
        return event_image(counts, self.size, cast("EventEncoding", spec.encoding))

    def _lidar(self, index: int, spec: InputSpec) -> Image:
        path, encoding = self._file(index, Sensor.LIDAR), cast("LidarEncoding", spec.encoding)
        if self.source == "png":
            return projected_lidar_image(read_stored(path), self.size, encoding)
        points = read_lidar(path)
        if self.motion_compensation:
            meta = self._meta_of(index)
            gnss = self.root / str(meta.get("path_to_gnss", "gnss"))
            points = compensate_motion(points, meta, gnss, self._calibration.gnss_from_lidar)
        return lidar_image(points[:, :4].astype(np.float32), self.size, encoding, self._calibration.rig())

    def _meta_of(self, index: int) -> dict[str, Any]:
        path = self._file(index, Sensor.LIDAR).relative_to(self.root).as_posix()
        if path not in self._meta:
            raise DataError(f"{self.root / 'meta.json'} has no entry with path_to_lidar {path}")
        return self._meta[path]

    @cached_property
    def _calibration(self) -> Calibration:
        return read_calibration(self.root / "calib.json")

    @cached_property
    def _meta(self) -> dict[str, dict[str, Any]]:
        """Scenes by the path of their LiDAR file."""
        return {str(entry.get("path_to_lidar")): entry for entry in read_json(self.root / "meta.json").values()}

    def _label(self, index: int) -> Path:
        frame = self._frames[index]
        return self.root / "gt_semantic" / frame.parent / frame.name.replace("frame_camera", "gt_labelTrainIds")

    def _file(self, index: int, modality: Sensor) -> Path:
        if modality is Sensor.CAMERA or self.source == "png":
            return self._png(index, modality)
        return self._raw(index, modality)

    def _raw(self, index: int, modality: Sensor) -> Path:
        return self._beside(index, modality, self.root, _RAW_ENDING[modality])

    def _png(self, index: int, modality: Sensor) -> Path:
        projected = self._beside(index, modality, self.root / "projected_to_rgb", ".png")
        return projected if projected.is_file() else self._beside(index, modality, self.root, ".png")

    def _beside(self, index: int, modality: Sensor, root: Path, ending: str) -> Path:
        frame = self._frames[index]
        name = frame.stem.replace("frame_camera", _FOLDER[modality]) + ending
        return root / _FOLDER[modality] / frame.parent / name


def _fits(path: Path, conditions: Sequence[str]) -> bool:
    """Whether weather and time of day are among those wanted; a kind that is not named at all is not asked for."""
    weather, time = path.parts[-3:-1]
    weathers, times = set(conditions) & set(WEATHERS), set(conditions) & set(TIMES)
    return (not weathers or weather in weathers) and (not times or time in times)


def read_stored(path: Path) -> NDArray[Any]:
    """[h, w, 3], channels as OpenCV orders them, which is how the SDK counts them; raises DataError."""
    image = read_image(path)
    return image[..., ::-1] if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def projected_lidar_image(stored: NDArray[Any], size: Size, encoding: LidarEncoding) -> Image:
    """The SDK's LiDAR image uint16 [h, w, 3] -> what `lidar_image` makes of points: range, intensity, height.

    Each point is drawn at network resolution, so none is lost to a resize; the nearest wins.
    """
    rows, cols = np.nonzero(stored[..., 0] > 100 * 150)  # 0 metres = no point
    distance, intensity, height = stored[rows, cols].astype(np.float32).T / 150 - 100  # [K] each
    # The centre of each stored pixel, so that none is shifted by half a cell.
    rows = (2 * rows + 1) * size[0] // (2 * stored.shape[0])
    cols = (2 * cols + 1) * size[1] // (2 * stored.shape[1])
    span = encoding.max_height_m - encoding.min_height_m
    values = np.stack(
        [
            1 - np.log(np.clip(distance, 1, encoding.max_range_m)) / math.log(encoding.max_range_m),
            intensity / encoding.max_intensity,
            (height + _LIDAR_HEIGHT_M - encoding.min_height_m) / span,
        ],
        axis=1,
    )
    image = np.zeros((*size, 3), np.uint8)
    order = np.argsort(-distance)
    reach = range(-encoding.point_radius, encoding.point_radius + 1)
    offsets = np.array([(dy, dx) for dy in reach for dx in reach])  # [O, 2]
    rows = np.clip(rows[order][:, None] + offsets[:, 0], 0, size[0] - 1)  # [K, O], far to near
    cols = np.clip(cols[order][:, None] + offsets[:, 1], 0, size[1] - 1)
    image[rows, cols] = np.rint(255 * np.clip(values[order], 0, 1)).astype(np.uint8)[:, None]
    return image


def released_image(stored: NDArray[Any], size: Size) -> Image:
    """As AnySeg's release: the high byte of 16-bit images, RGB order of the file, bicubic resize with antialiasing."""
    from PIL import Image as Picture  # comes with matplotlib; needed for the release's own resize only

    rgb = np.ascontiguousarray(stored[..., ::-1])
    if rgb.dtype == np.uint16:
        rgb = (rgb >> 8).astype(np.uint8)
    return np.asarray(Picture.fromarray(rgb).resize((size[1], size[0])))
