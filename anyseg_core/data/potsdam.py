"""ISPRS 2D Semantic Labeling, Potsdam: aerial images at 5 cm per pixel with the height above ground.

    <root>/**/top_potsdam_<row>_<column>_RGBIR.tif (or _RGB.tif)          6000x6000, 8 bit
    <root>/**/top_potsdam_<row>_<column>_label.tif                        colours of classes, black = ignored
    <root>/**/dsm_potsdam_<row>_<column>_normalized_lastools.jpg          8 bit height above ground

A sample is a window of a tile, read with GDAL: strips or blocks of a TIFF that are in the window, lines of a JPEG until
its end; never a whole tile in memory. Because a JPEG has no other way in, and a TIFF with few strips hardly one,
`data.cache` should be left on: every window is then decoded once.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import Size, known_words, optional_module
from anyseg_core.data.rgbd import RgbdDataset, camera_frame, depth_frame, rgbd_inputs
from anyseg_core.data.sample import DataError
from anyseg_core.runtime.files import files_below
from anyseg_core.runtime.label_sets import POTSDAM, UNLABELLED
from anyseg_core.runtime.model_card import DepthEncoding, InputSpec
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

SPLITS = ("train", "val", "test")
"""`val` and `test` are the same tiles: there is no third split for validation."""
_TRAIN_COLUMNS = range(13)
"""The contest's 24 tiles to train on are those west of column 13, its 14 to test on the others."""
_TILE = re.compile(r"top_potsdam_(\d+)_(\d+)_label\.tif")
_LABEL, _HEIGHT = "label", "height"
_MOST_LACKING_PX = 8
"""A height image may be a line smaller than its tile."""
_HIGHEST = 256
_DEPTH = DepthEncoding(scale="linear", near_m=1.0, far_m=float(_HIGHEST))
"""The camera looks down from 256 grey levels above the ground, and sees all of them; the file has no unit."""
_CLASS_OF_CORNER = np.full(8, UNLABELLED, np.uint8)
"""By the corner of the colour cube: red 4, green 2, blue 1."""
_CLASS_OF_CORNER[[(np.array(entry.color) > 127) @ (4, 2, 1) for entry in POTSDAM]] = np.arange(len(POTSDAM))


class Window(NamedTuple):
    """A part of a tile, in pixels."""

    tile: str
    top: int
    left: int
    height: int
    width: int


def potsdam_inputs(modalities: Sequence[Sensor] = DEFAULT_SENSORS) -> tuple[InputSpec, ...]:
    """Camera and depth, or the one of them that is wanted."""
    return rgbd_inputs(_DEPTH, modalities)


class Potsdam(RgbdDataset):
    """Windows of the tiles of a split, without gaps; the last of a line or column overlaps the one before.

    `window` is their (height, width) in pixels of the tile; `size` where None. Raises DataError.
    """

    classes = POTSDAM

    def __init__(
        self,
        root: Path,
        split: str,
        size: Size,
        modalities: Sequence[Sensor] = DEFAULT_SENSORS,
        limit: int | None = None,
        *,
        window: Size | None = None,
    ) -> None:
        known_words("split", [split], SPLITS)
        found = {path.name: path for path in reversed(files_below(root, "**/*potsdam_*"))}
        tiles = sorted((int(match[1]), int(match[2])) for match in map(_TILE.fullmatch, found) if match)
        chosen = [tile for tile in tiles if (tile[1] in _TRAIN_COLUMNS) == (split == "train")]
        if not chosen:
            raise DataError(f"no top_potsdam_*_label.tif of split {split} in {root}; is it ISPRS Potsdam?")
        self._files = {f"{row}_{column}": _files_of(root, found, row, column) for row, column in chosen}
        self._windows = [
            place for tile, files in self._files.items() for place in _cut(tile, files[_LABEL], window or size)
        ][:limit]
        names = [f"{at.tile}/{at.top:04d}_{at.left:04d}_{at.height}x{at.width}" for at in self._windows]
        super().__init__(f"Potsdam {split}", size, potsdam_inputs(modalities), names)

    def files(self, index: int) -> tuple[Path, ...]:
        files = self._files[self._windows[index].tile]
        return (files[_LABEL], *(files[_key(spec.modality)] for spec in self.inputs))

    def frame(self, index: int, modality: Sensor) -> SensorFrame:
        place = self._windows[index]
        path = self._files[place.tile][_key(modality)]
        if modality is Sensor.CAMERA:
            return camera_frame(np.ascontiguousarray(np.moveaxis(read_window(path, place, 3), 0, 2)), path)
        return depth_frame(_HIGHEST - read_window(path, place, 1)[0].astype(np.float32))

    def labels(self, index: int) -> NDArray[np.uint8]:
        place = self._windows[index]
        red, green, blue = read_window(self._files[place.tile][_LABEL], place, 3) > 127  # a few tiles are off by some
        return _CLASS_OF_CORNER[4 * red + 2 * green + blue]


def _key(modality: Sensor) -> str:
    return _HEIGHT if modality is Sensor.DEPTH else str(modality)


def _files_of(root: Path, found: dict[str, Path], row: int, column: int) -> dict[str, Path]:
    """A tile's files; where one is missing, the path that an error should name."""
    tile, padded = f"{row}_{column}", f"{row:02d}_{column:02d}"
    names = {
        str(Sensor.CAMERA): [f"top_potsdam_{tile}_RGBIR.tif", f"top_potsdam_{tile}_RGB.tif"],
        _LABEL: [f"top_potsdam_{tile}_label.tif"],
        _HEIGHT: [f"dsm_potsdam_{name}_normalized_lastools.jpg" for name in (padded, tile)],
    }
    return {
        key: next((found[name] for name in candidates if name in found), root / candidates[0])
        for key, candidates in names.items()
    }


def _cut(tile: str, path: Path, window: Size) -> list[Window]:
    """Windows that cover the tile. One for a tile that cannot be opened: reading it says why."""
    try:
        with _open(path) as file:
            full = file.shape
    except DataError:
        full = window
    height, width = (min(side, whole) for side, whole in zip(window, full, strict=True))
    starts = [
        sorted({*range(0, whole - side, side), whole - side}) for side, whole in zip((height, width), full, strict=True)
    ]
    return [Window(tile, top, left, height, width) for top in starts[0] for left in starts[1]]


def read_window(path: Path, place: Window, bands: int) -> NDArray[np.uint8]:
    """[bands, height, width] of an image file, of which no more than this is kept in memory; raises DataError."""
    from rasterio.errors import RasterioError
    from rasterio.windows import Window as RasterWindow

    rows, columns = (place.top, place.top + place.height), (place.left, place.left + place.width)
    with _open(path) as file:
        if file.count < bands or file.dtypes[0] != "uint8":
            raise DataError(f"{path} has {file.count} bands of {file.dtypes[0]}: {bands} of uint8 were expected")
        try:
            part = file.read(list(range(1, bands + 1)), window=RasterWindow.from_slices(rows, columns))
        except RasterioError as error:
            raise DataError(f"{path} is damaged at line {place.top}, column {place.left}: {error}") from None
    lacking = (place.height - part.shape[1], place.width - part.shape[2])
    if max(lacking) > _MOST_LACKING_PX:
        raise DataError(f"{path} ends before line {rows[1]}, column {columns[1]}")
    return np.pad(part, ((0, 0), (0, lacking[0]), (0, lacking[1])), mode="edge")


def _open(path: Path) -> Any:
    """A rasterio dataset; raises DataError."""
    if not path.is_file():
        raise DataError(f"{path} is missing. Restore it, or set data.skip_broken to leave its samples out")
    rasterio = optional_module("rasterio", path)
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)  # a JPEG never is
    try:
        return rasterio.open(path)
    except RasterioIOError as error:
        raise DataError(f"{path} is damaged: an image was expected: {error}") from None
