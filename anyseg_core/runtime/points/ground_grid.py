"""A map around the vehicle of where it can drive, from labelled points of the last seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.points.labelled import LabelledPoints
from anyseg_core.runtime.ranges import Range, Ranges, check_ranges
from anyseg_core.runtime.time_units import NS_PER_S

FREE, BLOCKED, UNKNOWN = 0, 100, -1
"""Values of nav_msgs/OccupancyGrid."""
BLOCKED_SHARE = 0.3
"""A cell is not drivable where so much of what was seen in it is not: at the edge of a car the mask gives some of its
points to the road, never the other way round at no cost."""
_MOST_CELLS = 4_000_000


@dataclass(frozen=True)
class GridLimits:
    """Size and memory of the grid. Raises ValueError that names the field."""

    RANGES: ClassVar[Ranges] = {
        "seconds": Range(0.01, 3600.0),
        "resolution_m": Range(0.001, 100.0),
        "size_m": Range(0.01, 10_000.0),
        "max_height_m": Range(-1000.0, 1000.0),
    }
    seconds: float = 2.0
    """What was seen so long ago is forgotten; until then it counts less and less."""
    resolution_m: float = 0.2
    """Side of a cell."""
    size_m: float = 40.0
    """Side of the grid, with the vehicle in its middle."""
    max_height_m: float = 2.5
    """Above the origin of the vehicle's base: points that are higher count neither way."""

    def __post_init__(self) -> None:
        check_ranges(self, self.RANGES)
        if self.cells < 1 or self.cells**2 > _MOST_CELLS:
            raise ValueError(
                f"size_m {self.size_m} and resolution_m {self.resolution_m} make {self.cells} x {self.cells} cells: "
                f"there must be 1 to {_MOST_CELLS}"
            )

    @property
    def cells(self) -> int:
        """Along a side."""
        return round(self.size_m / self.resolution_m)


class Grid(NamedTuple):
    """What is known around the vehicle."""

    values: NDArray[np.int8]
    """[rows (y), columns (x)]: FREE, BLOCKED or UNKNOWN."""
    origin_m: tuple[float, float]
    """x, y of the lower corner of the first cell, in the grid's frame."""


class _Seen(NamedTuple):
    """What one cloud shows, by cell."""

    stamp_ns: int
    cell: NDArray[np.int64]
    """[C, 2]: x, y of the cells that have points, counted from the frame's origin."""
    free: NDArray[np.float32]
    """[C], drivable points."""
    blocked: NDArray[np.float32]
    """[C], the others that have a label."""


class GroundGrid:
    """Takes labelled clouds in the order of time and gives the grid. Unknown is never free: only points make a cell."""

    def __init__(self, limits: GridLimits) -> None:
        self._limits = limits
        self._seen: deque[_Seen] = deque()

    def clear(self) -> None:
        """Forget everything."""
        self._seen.clear()

    def add(
        self,
        cloud: LabelledPoints,
        drivable: NDArray[np.bool_],
        base_from_sensor: NDArray[np.float64],
        grid_from_base: NDArray[np.float64],
    ) -> None:
        """The next cloud; after one that is older than the last, the clock was set and everything is forgotten.

        Args:
            drivable: [256], by label.
            base_from_sensor: 4x4, to the axes of the vehicle's base (z up).
            grid_from_base: 4x4, the vehicle's pose in the grid's frame at the cloud's stamp.
        """
        if self._seen and cloud.stamp_ns < self._seen[-1].stamp_ns:
            self._seen.clear()
        index = np.flatnonzero(cloud.labels != UNLABELLED)
        points = cloud.points[:, :3].take(index, axis=0).astype(np.float64)  # [K, 3]
        height = points @ base_from_sensor[2, :3] + base_from_sensor[2, 3]
        transform = grid_from_base @ base_from_sensor
        place = points @ transform[:2, :3].T + transform[:2, 3]  # [K, 2]
        middle = grid_from_base[:2, 3]
        near = (height <= self._limits.max_height_m) & (np.abs(place - middle) < self._limits.size_m).all(axis=1)
        free = drivable.take(cloud.labels.take(index[near]))
        cells = np.floor(place[near] / self._limits.resolution_m).astype(np.int64)  # [K', 2]
        self._seen.append(_Seen(cloud.stamp_ns, *_counted(cells, free)))
        self._forget(cloud.stamp_ns)

    def at(self, stamp_ns: int, position_m: tuple[float, float]) -> Grid:
        """The grid around a position (x, y in its frame) as it is known at a time."""
        self._forget(stamp_ns)
        resolution, side = self._limits.resolution_m, self._limits.cells
        corner = np.floor(np.array(position_m) / resolution).astype(np.int64) - side // 2  # [2]
        weight = np.zeros((2, side * side))  # free, blocked
        for seen in self._seen:
            cell = seen.cell - corner
            inside = ((cell >= 0) & (cell < side)).all(axis=1)
            flat = cell[inside, 1] * side + cell[inside, 0]
            young = 1.0 - (stamp_ns - seen.stamp_ns) / (self._limits.seconds * NS_PER_S)
            weight[0, flat] += young * seen.free[inside]
            weight[1, flat] += young * seen.blocked[inside]
        total = weight.sum(axis=0)
        values = np.where(weight[1] >= BLOCKED_SHARE * total, BLOCKED, FREE)
        values = np.where(total > 0, values, UNKNOWN).astype(np.int8).reshape(side, side)
        return Grid(values, (float(corner[0] * resolution), float(corner[1] * resolution)))

    def _forget(self, now_ns: int) -> None:
        oldest_ns = now_ns - self._limits.seconds * NS_PER_S
        while self._seen and self._seen[0].stamp_ns <= oldest_ns:
            self._seen.popleft()


def _counted(
    cells: NDArray[np.int64], free: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Points [K, 2] by cell and whether each is drivable -> the cells [C, 2], their drivable and their other points."""
    if len(cells) == 0:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32)
    low = cells.min(axis=0)
    shape = cells.max(axis=0) - low + 1  # at most twice the grid's size: the caller has dropped what is further
    flat = (cells[:, 0] - low[0]) * shape[1] + cells[:, 1] - low[1]
    total = np.bincount(flat, minlength=shape[0] * shape[1])
    drivable = np.bincount(flat[free], minlength=len(total))
    at = np.flatnonzero(total)
    place = np.stack([at // shape[1], at % shape[1]], axis=1) + low
    return place, drivable[at].astype(np.float32), (total - drivable)[at].astype(np.float32)
