"""What the witnesses look at: each frame reduced to a small grid of cells, at most once, whatever its size."""

from __future__ import annotations

from functools import cached_property
from typing import TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.depth_geometry import measured_pixels
from anyseg_core.runtime.geometry.projection import Rig, points_in_view
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, SensorFrame

Floats = NDArray[np.float32]

GRID = (48, 64)
"""Rows and columns of cells; a camera of 640x480 has 10x10 pixels in each."""
_PER_CELL = 3
"""Rows and columns of pixels that are looked at in a cell."""
_MOST_POINTS = 12_000
_DARK = 8.0
"""Added to grey levels before their logarithm: below it is mostly noise."""
_SECTORS = 180
"""Of 2 degrees of azimuth each."""
_MOST_STEP = 1.0
"""Of log distance across an edge: what is farther behind is no more of an edge."""


class CameraView:
    """A picture."""

    def __init__(self, frame: SensorFrame) -> None:
        self.frame = frame
        self._sample = _sampled(frame.data)  # [h, w, 3]

    @cached_property
    def _grey(self) -> Floats:
        return cv2.cvtColor(self._sample, cv2.COLOR_RGB2GRAY).astype(np.float32)

    @cached_property
    def levels(self) -> Floats:
        """Logarithm of the grey level of each cell, [GRID]: an exposure that changes adds a constant."""
        return np.log(_cells(self._grey) + np.float32(_DARK))

    @cached_property
    def edges(self) -> Floats:
        """Strength of the edges in each cell, [GRID]."""
        grey = np.log(cv2.GaussianBlur(self._grey, (3, 3), 0) + np.float32(_DARK))
        across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3)
        along = cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3)
        return _cells(cast("Floats", cv2.magnitude(across, along)))

    @cached_property
    def light(self) -> Floats:
        """Mean level of red, green and blue, [3]."""
        return self._sample.reshape(-1, 3).mean(axis=0, dtype=np.float32)

    @cached_property
    def warmth(self) -> Floats:
        """How much redder than blue each cell is, as a share of its light, [GRID]."""
        red, blue = (_cells(self._sample[..., channel].astype(np.float32)) for channel in (0, 2))
        return cast("Floats", (red - blue) / (red + blue + np.float32(_DARK)))


class DepthView:
    """A depth image."""

    def __init__(self, frame: SensorFrame) -> None:
        self.frame = frame
        depth = np.ascontiguousarray(_strided(frame.data), np.float32)
        self._measured = measured_pixels(depth)
        self._log = np.log(np.where(self._measured, depth, np.float32(1.0)))  # [h, w]

    @cached_property
    def levels(self) -> Floats:
        """Mean logarithm of the distance in each cell, [GRID]; 0 where too little is measured."""
        share = _cells(self._measured.astype(np.float32))
        mean = _cells(self._log) / np.maximum(share, 1e-6)
        return np.where(share > 0.5, mean, np.float32(0.0))

    @cached_property
    def edges(self) -> Floats:
        """Greatest step of the log distance in each cell, [GRID]."""
        kernel = np.ones((3, 3), np.uint8)
        far = cv2.dilate(np.where(self._measured, self._log, np.float32(-99)), kernel)
        near = cv2.erode(np.where(self._measured, self._log, np.float32(99)), kernel)
        step = np.clip(np.where(far > near, far - near, 0.0), 0.0, _MOST_STEP).astype(np.float32)
        return _cells(step)


class LidarView:
    """A scan, and where its points are in the picture."""

    def __init__(self, frame: SensorFrame, rig: Rig | None) -> None:
        self.frame = frame
        step = max(1, len(frame.data) // _MOST_POINTS) | 1  # odd: no beat with the columns of a scan
        self.points = cast("Floats", frame.data[::step])
        self._rig = rig

    @cached_property
    def seen(self) -> tuple[Floats, Floats, Floats]:
        """Of the points in the picture: row and column as shares of its height and width, and depth in metres, [K]."""
        if self._rig is None:
            nothing = np.zeros(0, np.float32)
            return nothing, nothing, nothing
        camera = self._rig.camera
        view = points_in_view(self.points, self._rig, camera.height, camera.width)
        row, col = view.row / np.float32(camera.height), view.col / np.float32(camera.width)
        return row.astype(np.float32), col.astype(np.float32), view.xyz[2].astype(np.float32)

    @cached_property
    def levels(self) -> Floats:
        """Mean logarithm of the distance in each sector of azimuth, [_SECTORS]; 0 where nothing is."""
        x, y, z = np.nan_to_num(self.points[:, :3]).T
        distance = np.sqrt(x * x + y * y + z * z)
        sector = ((np.arctan2(y, x) + np.pi) * (_SECTORS / (2 * np.pi))).astype(np.intp) % _SECTORS
        seen = distance > 0.1
        count = np.bincount(sector[seen], minlength=_SECTORS)
        total = np.bincount(sector[seen], np.log(distance[seen]), minlength=_SECTORS)
        return (total / np.maximum(count, 1)).astype(np.float32)

    @cached_property
    def edges(self) -> Floats:
        """Greatest step of the log distance among the points of a cell and of the one beside it, [GRID]; 0 without."""
        row, col, depth = self.seen
        place = (row * GRID[0]).astype(np.intp) * GRID[1] + (col * GRID[1]).astype(np.intp)
        log = np.log(np.maximum(depth, 0.1))
        far, near = np.full(GRID[0] * GRID[1], -99, np.float32), np.full(GRID[0] * GRID[1], 99, np.float32)
        np.maximum.at(far, place, log)
        np.minimum.at(near, place, log)
        kernel = np.ones((1, 2), np.uint8)
        far_grid, near_grid = cv2.dilate(far.reshape(GRID), kernel), cv2.erode(near.reshape(GRID), kernel)
        return np.clip(far_grid - near_grid, 0.0, _MOST_STEP).astype(np.float32)

    @cached_property
    def intensity(self) -> float:
        """Median of the intensities."""
        return float(np.median(np.nan_to_num(self.points[:, 3]))) if len(self.points) else 0.0


class EventView:
    """Counts of events."""

    def __init__(self, frame: SensorFrame) -> None:
        self.frame = frame
        sample = _strided(frame.data)
        positive, negative = (_cells(np.ascontiguousarray(sample[..., i], np.float32)) for i in (0, 1))
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


def _strided(data: NDArray) -> NDArray:
    rows, cols = (max(1, size // (_PER_CELL * cells)) for size, cells in zip(data.shape[:2], GRID, strict=True))
    return data[::rows, ::cols]


def _sampled(data: NDArray) -> NDArray:
    return np.ascontiguousarray(_strided(data))


def _cells(values: Floats) -> Floats:
    """[h, w] -> the mean of each cell, [GRID]."""
    return cast("Floats", cv2.resize(values, GRID[::-1], interpolation=cv2.INTER_AREA))
