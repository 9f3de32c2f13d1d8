"""The nearest distance in each direction around the vehicle, of a scan or a depth image."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.views import DepthView, Floats, LidarView
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig

Ranging: TypeAlias = "DepthView | LidarView"

COLUMNS = 720
"""Directions around the vehicle."""
BANDS: Floats = np.array([-0.04, 0.05, 0.15, 0.3], np.float32)
"""Limits of the slopes above the horizon: the road has the same distances wherever the vehicle is."""
MOST_ROWS = 30
"""Of a depth image in all bands."""
NEAREST_M, FARTHEST_M = 1.5, 60.0
MOST_MISFIT = 0.2
"""Of a logarithm of distance: what is behind an edge says no more than that."""


class Place(NamedTuple):
    """Where a sensor was, by odometry."""

    driven_m: float = 0.0
    turned: float = 0.0
    """In radians to the left."""
    heading: float = 0.0
    """Of its motion, in radians to the left of the camera's axis."""

    def way_from(self, then: Place) -> tuple[float, float, float]:
        """Metres driven and radians turned to the left since then, and the bearing of the way in the axes of then."""
        turned = self.turned - then.turned
        return self.driven_m - then.driven_m, turned, self.heading + 0.5 * turned  # on an arc: that of its chord


def panorama(view: Ranging, rig: Rig) -> Floats | None:
    """Logarithm of the nearest distance over the ground in each band and direction, [len(BANDS) - 1, COLUMNS], not
    finite where nothing is; None where no pixel of the camera looks there."""
    if isinstance(view, LidarView):
        return _of_scan(view.camera_xyz)
    return _of_depth(view.frame.data, rig.camera)


def _of_scan(xyz: Floats) -> Floats:
    """Of points [3, N] in the camera's axes."""
    x, y, z = xyz
    with np.errstate(invalid="ignore", divide="ignore"):
        flat = np.sqrt(x * x + z * z)
        slope = -y / flat
        inside = (flat > NEAREST_M) & (flat < FARTHEST_M) & (slope >= BANDS[0]) & (slope < BANDS[-1])
    x, z, flat, slope = (values[inside] for values in (x, z, flat, slope))
    cell = (np.searchsorted(BANDS, slope, side="right") - 1) * COLUMNS + columns_of(np.arctan2(-x, z))
    nearest = np.full((len(BANDS) - 1) * COLUMNS, np.inf, np.float32)
    np.minimum.at(nearest, cell, np.log(flat))
    return nearest.reshape(-1, COLUMNS)


class _Pixels(NamedTuple):
    """Pixels of a depth image in the order of the cells of the panorama that they look into."""

    place: NDArray[np.intp]
    """In the flattened picture."""
    stretch: Floats
    """Distance over the ground for a depth of 1."""
    first: NDArray[np.intp]
    """Where in `place` each cell begins, ..."""
    cell: NDArray[np.intp]
    """... and which it is."""


def _of_depth(depth_m: NDArray, camera: PinholeCamera) -> Floats | None:
    pixels = _pixels(camera, depth_m.shape[0], depth_m.shape[1])
    if not len(pixels.place):
        return None
    with np.errstate(invalid="ignore"):
        flat = depth_m.reshape(-1)[pixels.place].astype(np.float32) * pixels.stretch
        flat = np.where((flat > NEAREST_M) & (flat < FARTHEST_M), flat, np.float32(np.inf))
    nearest = np.full((len(BANDS) - 1) * COLUMNS, np.inf, np.float32)
    nearest[pixels.cell] = np.log(np.minimum.reduceat(flat, pixels.first))
    return nearest.reshape(-1, COLUMNS)


@lru_cache(maxsize=8)
def _pixels(camera: PinholeCamera, height: int, width: int) -> _Pixels:
    """Of a depth image of that size, which shows what the camera does: at most two of every column of the panorama."""
    camera = camera.undistorted.resized(height, width)
    across = max(1, int(camera.fx * np.deg2rad(360 / COLUMNS) / 2))
    down = max(1, int(camera.fy * float(BANDS[-1] - BANDS[0]) / MOST_ROWS))
    row, col = (places.ravel() for places in np.mgrid[0:height:down, 0:width:across])
    right, down = (col - camera.cx) / camera.fx, (row - camera.cy) / camera.fy
    stretch = np.sqrt(1 + right * right)
    slope = -down / stretch
    inside = np.flatnonzero((slope >= BANDS[0]) & (slope < BANDS[-1]))
    cell = (np.searchsorted(BANDS, slope[inside], side="right") - 1) * COLUMNS + columns_of(
        np.arctan2(-right, 1)[inside]
    )
    order = np.argsort(cell, kind="stable")
    cells, first = np.unique(cell[order], return_index=True)
    chosen = inside[order]
    return _Pixels((row * width + col)[chosen], stretch[chosen].astype(np.float32), first, cells)


@lru_cache(maxsize=1)
def azimuths() -> Floats:
    """Of the middle of each column of a panorama, in radians to the left of the camera's axis, [COLUMNS]."""
    return ((np.arange(COLUMNS) + 0.5) * (2 * np.pi / COLUMNS) - np.pi).astype(np.float32)


def columns_of(azimuth: NDArray) -> NDArray[np.intp]:
    """The column of a panorama in which each azimuth lies, in radians to the left; those of full turns are the same."""
    return cast("NDArray[np.intp]", ((azimuth + np.pi) * (COLUMNS / (2 * np.pi))).astype(np.intp) % COLUMNS)


def mean_misfits(
    band: NDArray[np.intp], azimuth: Floats, log_distance: Floats, seen: Floats
) -> tuple[Floats, NDArray[np.intp]]:
    """Mean difference of the logarithms of distance of what is expected and a panorama, each of them at most
    `MOST_MISFIT`, [motions]; and in how many directions something is seen, [motions].

    Args:
        band: of what is expected, [N].
        azimuth, log_distance: where it is expected after each of some motions, [motions, N] or [1, N].
        seen: the panorama.
    """
    found = seen[band[None], columns_of(azimuth)]
    known = np.isfinite(found)
    with np.errstate(invalid="ignore"):
        apart = np.minimum(np.abs(found - log_distance), np.float32(MOST_MISFIT))
    counts = known.sum(axis=1)
    return (np.where(known, apart, np.float32(0.0)).sum(axis=1) / np.maximum(counts, 1)).astype(np.float32), counts
