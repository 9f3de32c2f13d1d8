"""What the witnesses look at: each frame reduced to a small grid of cells, at most once, whatever its size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.outlines import (
    DARK,
    DirectionGrid,
    brightness_outlines,
    depth_outlines,
    scan_outlines,
)
from anyseg_core.runtime.cross_examination.small_arrays import median
from anyseg_core.runtime.geometry.depth_geometry import measured_pixels
from anyseg_core.runtime.geometry.projection import PointsInView, Rig, points_in_view
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, SensorFrame

Floats = NDArray[np.float32]

GRID = (48, 64)
"""Rows and columns of cells; a camera of 640x480 has 10x10 pixels in each."""
_PER_CELL = 3
"""Rows and columns of pixels that are looked at in a cell."""
_MOST_POINTS = 12_000
_ENOUGH_POINTS = 1000
"""For a median."""
_SECTORS = 180
"""Of 2 degrees of azimuth each."""


class OutlinedView(ABC):
    """A view in which things have outlines."""

    _outlines: tuple[DirectionGrid, Floats] | None = None

    def outlines(self, grid: DirectionGrid) -> Floats:
        """Where things end, by their directions, [grid.shape]: drawn once for a grid."""
        if self._outlines is None or self._outlines[0] is not grid:
            self._outlines = grid, self._outlines_on(grid)
        return self._outlines[1]

    @abstractmethod
    def _outlines_on(self, grid: DirectionGrid) -> Floats: ...


class CameraView(OutlinedView):
    """A picture."""

    def __init__(self, frame: SensorFrame) -> None:
        self.frame = frame
        self._sample = _sampled(frame.data)  # [h, w, 3]

    @cached_property
    def levels(self) -> Floats:
        """Logarithm of the grey level of each cell, [GRID]: an exposure that changes adds a constant."""
        grey = cv2.cvtColor(self._sample, cv2.COLOR_RGB2GRAY).astype(np.float32)
        return np.log(_cells(grey) + np.float32(DARK))

    def _outlines_on(self, grid: DirectionGrid) -> Floats:
        return brightness_outlines(cast("NDArray[np.uint8]", self.frame.data), grid)

    @cached_property
    def light(self) -> Floats:
        """Mean level of red, green and blue, [3]."""
        return np.array(cv2.mean(self._sample)[:3], np.float32)

    @cached_property
    def warmth(self) -> Floats:
        """How much redder than blue each cell is, as a share of its light, [GRID]."""
        red, _, blue = cv2.split(cv2.resize(self._sample, GRID[::-1], interpolation=cv2.INTER_AREA).astype(np.float32))
        return cast("Floats", (red - blue) / (red + blue + np.float32(DARK)))


class DepthView(OutlinedView):
    """A depth image."""

    def __init__(self, frame: SensorFrame) -> None:
        self.frame = frame

    @cached_property
    def levels(self) -> Floats:
        """Mean logarithm of the distance in each cell, [GRID]; 0 where too little is measured."""
        depth = _sampled(self.frame.data)
        measured = measured_pixels(depth)
        share = _cells(measured.astype(np.float32))
        mean = _cells(np.log(np.where(measured, depth, np.float32(1.0)))) / np.maximum(share, 1e-6)
        return np.where(share > 0.5, mean, np.float32(0.0))

    def _outlines_on(self, grid: DirectionGrid) -> Floats:
        return depth_outlines(cast("Floats", self.frame.data), grid)


class LidarView(OutlinedView):
    """A scan, and where its points are in the picture."""

    def __init__(self, frame: SensorFrame, rig: Rig | None) -> None:
        self.frame = frame
        step = max(1, len(frame.data) // _MOST_POINTS) | 1  # odd: no beat with the columns of a scan
        xyz, self._intensity = np.ascontiguousarray(frame.data[::step, :3].T), frame.data[::step, 3]
        self._points: Floats = xyz.T  # [N, 3]: coordinates apart, so that each step is contiguous
        self._rig = rig

    @cached_property
    def seen(self) -> tuple[Floats, Floats, Floats]:
        """Of the points in the picture: row and column as shares of its height and width, and depth in metres, [K]."""
        if self._rig is None:
            nothing = np.zeros(0, np.float32)
            return nothing, nothing, nothing
        camera, view = self._rig.camera, self._in_view
        row, col = view.row / np.float32(camera.height), view.col / np.float32(camera.width)
        return row.astype(np.float32), col.astype(np.float32), view.xyz[2].astype(np.float32)

    @cached_property
    def levels(self) -> Floats:
        """Mean logarithm of the distance in each sector of azimuth, [_SECTORS]; 0 where nothing is."""
        x, y, z = self._points.T
        distance = np.sqrt(x * x + y * y + z * z)
        with np.errstate(invalid="ignore"):
            seen = (distance > 0.1) & (distance < np.inf)
        x, y, distance = x[seen], y[seen], distance[seen]
        turns = np.arctan2(y, x) * np.float32(0.5 / np.pi) + np.float32(0.5)
        sector = (turns * _SECTORS).astype(np.intp) % _SECTORS
        count = np.bincount(sector, minlength=_SECTORS)
        total = np.bincount(sector, np.log(distance), minlength=_SECTORS)
        return (total / np.maximum(count, 1)).astype(np.float32)

    @cached_property
    def _in_view(self) -> PointsInView:
        assert self._rig is not None
        return points_in_view(self._points, self._rig, self._rig.camera.height, self._rig.camera.width)

    def _outlines_on(self, grid: DirectionGrid) -> Floats:
        return scan_outlines(self._in_view.xyz, grid)

    @cached_property
    def camera_xyz(self) -> Floats:
        """All points in the axes of the camera, [3, N] in metres; none without a rig."""
        if self._rig is None:
            return np.zeros((3, 0), np.float32)
        rotation, translation = (part.astype(np.float32) for part in np.split(self._rig.picture_from_lidar[:3], [3], 1))
        return rotation @ self._points.T + translation

    @cached_property
    def intensity(self) -> float:
        """Median of the intensities."""
        some = self._intensity[:: 1 + len(self._intensity) // _ENOUGH_POINTS]
        return median(np.nan_to_num(some)) if len(some) else 0.0


class EventView:
    """Counts of events."""

    def __init__(self, frame: SensorFrame) -> None:
        self.frame = frame
        cells = _cells(_sampled(frame.data).astype(np.float32))  # [GRID, 2]
        positive, negative = cast("list[Floats]", cv2.split(cells))
        self.change: Floats = positive - negative
        """Positive less negative events of each pixel, the mean of a cell, [GRID]: where it became brighter."""
        self.levels: Floats = positive + negative
        """Events of each pixel, the mean of a cell, [GRID]."""


View: TypeAlias = "CameraView | DepthView | LidarView | EventView"


def view_of(frame: SensorFrame, rig: Rig | None) -> View:
    """The view of a frame by its kind; the frame must not be empty."""
    if frame.kind.family is LIDAR:
        return LidarView(frame, rig)
    return {CAMERA: CameraView, DEPTH: DepthView, EVENT: EventView}[frame.kind.family](frame)


def _sampled(data: NDArray) -> NDArray:
    """[H, W] or [H, W, C] -> `_PER_CELL` rows and columns of pixels of each cell; all of a picture that has less."""
    rows, cols = (min(size, _PER_CELL * cells) for size, cells in zip(data.shape[:2], GRID, strict=True))
    return cv2.resize(data, (cols, rows), interpolation=cv2.INTER_NEAREST)


def _cells(values: Floats) -> Floats:
    """[h, w] or [h, w, C] -> the mean of each cell, [GRID] or [GRID, C]."""
    return cast("Floats", cv2.resize(values, GRID[::-1], interpolation=cv2.INTER_AREA))
