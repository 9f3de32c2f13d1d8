"""Where things end, as each sensor sees it: pictures, depth images and scans drawn on one grid of directions.

Steps of brightness and steps of distance lie on the outlines of things (Levinson and Thrun, "Automatic Online
Calibration of Cameras and Lasers", RSS 2013). The grid has equal angles from left to right, so that a sensor that is
turned about the vertical axis shows the same outlines, moved by the same number of columns everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.depth_geometry import measured_pixels
from anyseg_core.runtime.geometry.projection import PinholeCamera

Floats = NDArray[np.float32]

COLUMN_DEG, ROW_DEG = 0.4, 1.0
"""Of a cell; at the horizon: scans have fewer rows than columns."""
ROW_SLOPE = float(np.tan(np.deg2rad(ROW_DEG)))
"""From row to row."""
STEEPEST = 0.5
"""Slope above and below the horizon that is looked at: elsewhere are the sky and the vehicle."""
DARK = 8.0
"""Added to grey levels before their logarithm: below it is mostly noise."""
MOST_ALIKE = 0.45
"""Correlation of a sensor's outlines with those of the last look that counted, above which nothing new is seen. In
0.4 s of driving: at most 0.35; standing: mostly above 0.55."""
_MOST_CELLS = 60_000
_MOST_STEP = 1.0
"""Of a logarithm: of brightness, or of distance."""
_LEAST_STEP = 0.1
"""Of log distance that is the end of something: a slope and noise have less from cell to cell."""
_SURROUNDINGS = (25, 3)
"""Columns and rows that an outline is compared with: what is strong all over the place says nothing of where."""
_LOG: Floats = np.log(np.arange(256, dtype=np.float32) + np.float32(DARK))
"""Of each grey level."""
_NOTHING = 99.0
_WIDE = np.ones((1, 5), np.uint8)
"""The points of a scan may be two cells apart."""


@dataclass(frozen=True, eq=False)
class DirectionGrid:
    """Cells of `COLUMN_DEG` of azimuth and, upwards, of equal steps of the tangent of the elevation."""

    first_azimuth: float
    """Of the left edge, in radians to the right of the optical axis."""
    first_slope: float
    """Of the upper edge: tangent of the angle below the horizon."""
    shape: tuple[int, int]
    """Rows and columns."""
    pixels: tuple[Floats, Floats]
    """Column and row of a picture of the camera's size in the middle of each cell, [shape] each."""
    size: tuple[int, int]
    """Height and width of that picture."""

    def drawn(self, picture: NDArray, interpolation: int) -> NDArray:
        """What a picture [h, w] or [h, w, C] of any size that shows the camera's view has in each cell, [shape] or
        [shape, C]."""
        places = _pixels_at(self, (picture.shape[0], picture.shape[1]), is_nearest=interpolation == cv2.INTER_NEAREST)
        return cv2.remap(picture, *places, interpolation, borderMode=cv2.BORDER_REPLICATE)

    def nearest(self, xyz: Floats) -> Floats:
        """Logarithm of the least distance in each cell, [shape]; `_NOTHING` where no point is.

        Args:
            xyz: [3, N] points in metres in the axes of the camera: right, down, forward.
        """
        x, y, z = xyz
        flat = np.sqrt(x * x + z * z)
        col = (np.arctan2(x, z) - self.first_azimuth) / np.deg2rad(COLUMN_DEG)
        row = (y / np.maximum(flat, 0.1) - self.first_slope) / ROW_SLOPE
        rows, cols = self.shape
        inside = (col >= 0) & (col < cols) & (row >= 0) & (row < rows) & (flat > 0.5)
        place = row[inside].astype(np.intp) * cols + col[inside].astype(np.intp)
        found = np.full(rows * cols, _NOTHING, np.float32)
        np.minimum.at(found, place, np.log(flat[inside]))
        return found.reshape(self.shape)


@lru_cache(maxsize=16)
def _pixels_at(grid: DirectionGrid, size: tuple[int, int], *, is_nearest: bool) -> tuple[NDArray, NDArray]:
    """As `DirectionGrid.pixels`, of a picture of another size, in integers, with which cv2.remap is faster."""
    across, along = size[1] / grid.size[1], size[0] / grid.size[0]
    col, row = (grid.pixels[0] + 0.5) * np.float32(across) - 0.5, (grid.pixels[1] + 0.5) * np.float32(along) - 0.5
    return cv2.convertMaps(col, row, cv2.CV_16SC2, nninterpolation=is_nearest)


@lru_cache(maxsize=8)
def direction_grid(camera: PinholeCamera) -> DirectionGrid | None:
    """The grid of what a camera sees; None of a fisheye, of which it would be too large."""
    left, right = (np.arctan((edge - 0.5 - camera.cx) / camera.fx) for edge in (0.0, float(camera.width)))
    edges = ((edge - 0.5 - camera.cy) / camera.fy for edge in (0.0, float(camera.height)))
    top, bottom = (min(max(slope, -STEEPEST), STEEPEST) for slope in edges)
    rows, cols = int((bottom - top) / ROW_SLOPE), int(np.rad2deg(right - left) / COLUMN_DEG)
    if not 0 < rows * cols <= _MOST_CELLS:
        return None
    azimuth = left + (np.arange(cols) + 0.5) * np.deg2rad(COLUMN_DEG)  # [cols]
    slope = (top + (np.arange(rows) + 0.5) * ROW_SLOPE)[:, None]  # [rows, 1]
    x, y = np.broadcast_arrays(np.tan(azimuth), slope / np.cos(azimuth))  # [rows, cols] on the plane at 1 m
    if camera.distortion is not None:
        x, y = camera.distortion.apply(x, y)
    pixels = (x * camera.fx + camera.cx).astype(np.float32), (y * camera.fy + camera.cy).astype(np.float32)
    return DirectionGrid(float(left), float(top), (rows, cols), pixels, (camera.height, camera.width))


def brightness_outlines(picture: NDArray[np.uint8], grid: DirectionGrid) -> Floats:
    """Upright edges of the brightness of a picture [h, w, 3], [grid.shape]."""
    grey = cv2.cvtColor(grid.drawn(picture, cv2.INTER_LINEAR), cv2.COLOR_RGB2GRAY)
    edges = np.abs(cv2.Sobel(cv2.LUT(grey, _LOG), cv2.CV_32F, 1, 0, ksize=3))
    return _standing_out(np.minimum(edges, np.float32(_MOST_STEP)))


def depth_outlines(depth_m: Floats, grid: DirectionGrid) -> Floats:
    """Of a depth image [h, w] in metres, [grid.shape]."""
    drawn = grid.drawn(depth_m, cv2.INTER_NEAREST)
    measured = measured_pixels(drawn)
    return _ends(np.where(measured, np.log(np.where(measured, drawn, np.float32(1.0))), np.float32(_NOTHING)))


def scan_outlines(xyz: Floats, grid: DirectionGrid) -> Floats:
    """Of a scan's points [3, N] in the camera's axes, [grid.shape]."""
    ends = cv2.GaussianBlur(_ends(grid.nearest(xyz)), (1, 3), 0.6)  # between its rows a scan sees nothing
    return cast("Floats", ends)


def are_alike(then: tuple[Floats, Floats] | None, now: tuple[Floats, Floats]) -> bool:
    """Whether a pair of sensors, or one of them, sees what it saw then: the same evidence again is none."""
    return then is not None and any(float(np.vdot(*each)) > MOST_ALIKE for each in zip(then, now, strict=True))


def of_length_1(outlines: Floats) -> Floats:
    """Scaled, so that the sum of products of two is their correlation; 0 where nothing is."""
    norm = float(np.sqrt(np.vdot(outlines, outlines)))
    return cast("Floats", outlines / np.float32(norm)) if norm > 1e-6 else np.zeros_like(outlines)


def _ends(log_distance: Floats) -> Floats:
    """Where something ends before something farther away to its left or right, on both sides of that end."""
    known = log_distance < _NOTHING
    farthest = cv2.dilate(np.where(known, log_distance, np.float32(-_NOTHING)), _WIDE)
    nearest = cv2.erode(log_distance, _WIDE)
    step = np.minimum(farthest - nearest, np.float32(_MOST_STEP))  # of a cell with nothing around: below 0
    _, steps = cv2.threshold(step, _LEAST_STEP, 0, cv2.THRESH_TOZERO)
    return _standing_out(cast("Floats", steps))


def _standing_out(outlines: Floats) -> Floats:
    """Less what is around, and of length 1 in all."""
    return of_length_1(cast("Floats", outlines - cv2.blur(outlines, _SURROUNDINGS)))
