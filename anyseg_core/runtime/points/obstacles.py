"""Which labelled points are obstacles for a costmap: those of chosen classes, within limits, one a voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.points.labelled import LabelledPoints
from anyseg_core.runtime.ranges import Range, Ranges, check_ranges

_VOXELS = 1 << 20
"""Along each axis: what lies further away than the half of them would share voxels."""


@dataclass(frozen=True)
class ObstacleLimits:
    """Which points of the chosen classes are kept. Raises ValueError that names the field."""

    RANGES: ClassVar[Ranges] = {
        "min_range_m": Range(0.0, 1000.0),
        "max_range_m": Range(0.0, 1000.0),
        "min_height_m": Range(-1000.0, 1000.0),
        "max_height_m": Range(-1000.0, 1000.0),
        "min_confidence": Range(0.0, 1.0),
        "voxel_m": Range(0.0, 100.0),
    }
    min_range_m: float = 0.5
    """From the sensor: nearer points are the vehicle's own."""
    max_range_m: float = 60.0
    """From the sensor; farther points are left out."""
    min_height_m: float = -1.0
    """Above the origin of the vehicle's base, where that is known; else heights are not limited."""
    max_height_m: float = 3.0
    """What hangs higher is driven under."""
    min_confidence: float = 0.0
    """0 to 1. An uncertain obstacle is one, too: 0 keeps all."""
    voxel_m: float = 0.1
    """One point is kept in a cube of this size; 0 keeps all."""
    unlabelled: bool = False
    """Keep also points without a label, outside the picture or hidden in it: nobody knows that they are none."""

    def __post_init__(self) -> None:
        check_ranges(self, self.RANGES)
        if not self.min_range_m < self.max_range_m:
            raise ValueError(f"min_range_m {self.min_range_m} must be < max_range_m {self.max_range_m}")
        if not self.min_height_m < self.max_height_m:
            raise ValueError(f"min_height_m {self.min_height_m} must be < max_height_m {self.max_height_m}")
        finest = 2 * self.max_range_m / _VOXELS
        if 0 < self.voxel_m < finest:
            raise ValueError(
                f"voxel_m {self.voxel_m} must be 0, or {finest:.2g} or more for max_range_m {self.max_range_m}"
            )


def obstacle_index(
    cloud: LabelledPoints,
    wanted: NDArray[np.bool_],
    limits: ObstacleLimits,
    base_from_sensor: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """The points that are obstacles.

    Args:
        wanted: [256], by label: which classes are obstacles.
        base_from_sensor: 4x4, to the axes of the vehicle's base (z up); None = not known, heights are not limited.

    Returns:
        [K], ascending, into the cloud.
    """
    table = wanted.copy()
    table[UNLABELLED] = limits.unlabelled
    index = np.flatnonzero(table.take(cloud.labels))  # [K]
    points = cloud.points[:, :3].take(index, axis=0)  # [K, 3]
    with np.errstate(invalid="ignore", over="ignore"):  # NaN compares false: points without measurement go
        distance = np.sqrt(np.einsum("ij,ij->i", points, points))
        keep = (distance >= limits.min_range_m) & (distance <= limits.max_range_m)
        keep &= (cloud.confidence.take(index) >= 255 * limits.min_confidence) | (cloud.labels.take(index) == UNLABELLED)
        if base_from_sensor is not None:
            height = points @ base_from_sensor[2, :3].astype(np.float32) + np.float32(base_from_sensor[2, 3])
            keep &= (height >= limits.min_height_m) & (height <= limits.max_height_m)
    index, points = index[keep], points[keep]
    return index[_first_in_voxel(points, limits.voxel_m)] if limits.voxel_m > 0 else index


def _first_in_voxel(points: NDArray[np.float32], voxel_m: float) -> NDArray[np.int64]:
    """[K, 3] -> the first point of each voxel, ascending."""
    cell = np.floor(points * np.float32(1 / voxel_m)).astype(np.int64) + _VOXELS // 2  # [K, 3]
    x, y, z = np.clip(cell, 0, _VOXELS - 1).T
    _, first = np.unique((x * _VOXELS + y) * _VOXELS + z, return_index=True)
    return np.sort(first)
