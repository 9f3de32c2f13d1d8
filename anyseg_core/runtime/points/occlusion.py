"""Which LiDAR points the camera cannot see, because something stands before them.

A LiDAR on the roof looks over a car that the camera looks at: the road behind the car falls on the car's pixels. A
dense depth buffer would tell; the points are sparse. So a point counts as hidden where a nearer point lies so close to
it in the picture that no visible surface joins the two:

- On a plane the inverse depth is linear in the image, with a slope of at most 1 / (focal length x distance of the plane
  from the camera). The plane that is seen at a grazing angle everywhere is the ground, a camera's height away, and what
  is nearer on it lies lower in the picture. A nearer point *below* hides where that slope does not explain it.
- A nearer point beside or above hides where it is nearer by more than the bound.

"Close" is a little more than the gap between the points, which is taken from how many fall into the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_CELLS_PER_GAP = 3.3
"""Cells of the depth buffer between two points, on average."""
_REACH = (0.9, 1.8)
"""How far a point hides others, in gaps: sideways, and up and down, where LiDARs are sparser."""
_LEAST_CELL_PX = 2.0
_SLACK_CELLS = 0.3
"""Where a point lies inside its cell is not known."""


@dataclass(frozen=True)
class Occlusion:
    """When a point counts as hidden. Raises ValueError that names the field."""

    bound_m: float = 1.0
    """A point further than this behind what the camera sees at its place has no label. Of the simulated drives' points
    that are, some 2 % keep a wrong one all the same (`anyseg bench points`)."""
    camera_height_m: float = 1.6
    """Of the camera above the ground."""

    def __post_init__(self) -> None:
        for name in ("bound_m", "camera_height_m"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be a finite number > 0, not {getattr(self, name)}")


def hidden_points(
    row: Floats, col: Floats, depth_m: Floats, size: tuple[int, int], focal_px: float, occlusion: Occlusion
) -> NDArray[np.bool_]:
    """Which of the points in the picture the camera cannot see.

    Args:
        row, col: [K], where each falls, in pixels from the picture's upper left corner.
        depth_m: [K], along the optical axis, > 0.
        size: (height, width) of the picture.
        focal_px: vertical focal length.

    Returns:
        [K].
    """
    if len(depth_m) == 0:
        return np.zeros(0, np.bool_)
    height, width = size
    gap_px = float(np.sqrt(width * max(float(np.ptp(row)), 1.0) / len(row)))
    cell_px = max(gap_px / _CELLS_PER_GAP, _LEAST_CELL_PX)
    rows, cols = int(height / cell_px) + 1, int(width / cell_px) + 1
    cell = (row * np.float32(1 / cell_px)).astype(np.int32) * cols + (col * np.float32(1 / cell_px)).astype(np.int32)
    nearest = np.zeros(rows * cols, np.float32)  # inverse depth; 0 = no point
    np.maximum.at(nearest, cell, 1 / depth_m)
    before = _before(nearest.reshape(rows, cols), gap_px / cell_px, cell_px / (focal_px * occlusion.camera_height_m))
    before = before.ravel().take(cell)  # [K], inverse depth of what stands before each point
    # depth > 1 / before + bound, where something does
    return depth_m * before > 1 + np.float32(occlusion.bound_m) * before


def _before(nearest: Floats, gap: float, ground_slope: float) -> Floats:
    """Inverse depth [rows, cols] of the nearest surface that a point in each cell must not lie behind.

    `gap` is that between points in cells, `ground_slope` the change of the ground's inverse depth from cell to cell.
    """
    above, below = _kernels(int(np.ceil(_REACH[0] * gap)), int(np.ceil(_REACH[1] * gap)))
    before = cv2.dilate(nearest, above)
    # The greatest of `nearest - slope * cells below` by one dilation: the slope is taken off before, given back after.
    ramp = np.arange(len(nearest), dtype=np.float32)[:, None] * np.float32(ground_slope)  # [rows, 1]
    lower = cv2.dilate(nearest - ramp, below)
    lower += ramp - np.float32(_SLACK_CELLS * ground_slope)
    return np.maximum(before, lower, out=before)  # type: ignore[return-value]


@lru_cache(maxsize=32)
def _kernels(across: int, along: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An ellipse of cells around a point: its upper half with the middle row, and its lower half."""
    y, x = np.mgrid[-along : along + 1, -across : across + 1]
    inside = (x / (across + 0.5)) ** 2 + (y / (along + 0.5)) ** 2 <= 1
    return (inside & (y <= 0)).astype(np.uint8), (inside & (y > 0)).astype(np.uint8)
