"""The road's course: arc length `s` along it and offset `d` to its left, in metres, to world positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from anyseg_core.sim.shapes import Material, Shape, of_material

Array = NDArray[np.float64]
_STEP_M = 4.0

LANE_M = 3.4
KERB_M = 0.15
START_M = 40.0
"""Arc length at which the vehicle starts."""


@dataclass(frozen=True, eq=False)
class Centreline:
    """A smooth curve sampled each metre of arc length: `x`, `y` in metres, `heading` in radians, all [S]."""

    x: Array
    y: Array
    heading: Array

    @property
    def length_m(self) -> float:
        return float(len(self.x) - 1)

    def place(self, s: float | Array, d: float | Array = 0.0) -> tuple[Array, Array, Array]:
        """World x, y and heading at arc length `s`, `d` metres to the left."""
        grid = np.arange(len(self.x))
        heading = np.interp(s, grid, self.heading)
        x = np.interp(s, grid, self.x) - d * np.sin(heading)
        y = np.interp(s, grid, self.y) + d * np.cos(heading)
        return np.asarray(x), np.asarray(y), np.asarray(heading)

    def strip(self, s: tuple[float, float], d: tuple[float, float], z: float, material: Material) -> Shape:
        """A flat strip of ground from s[0] to s[1] and d[0] to d[1] at height `z`."""
        stations = self._stations(s)
        return _quads(self._edge(stations, d[0], z), self._edge(stations, d[1], z), material)

    def upright(self, s: tuple[float, float], d: float, z: tuple[float, float], material: Material) -> Shape:
        """A thin upright surface along the road at offset `d`, from z[0] to z[1]."""
        stations = self._stations(s)
        return _quads(self._edge(stations, d, z[0]), self._edge(stations, d, z[1]), material)

    def _stations(self, s: tuple[float, float]) -> Array:
        return np.linspace(s[0], s[1], max(2, int(np.ceil((s[1] - s[0]) / _STEP_M)) + 1))

    def _edge(self, stations: Array, d: float, z: float) -> NDArray[np.float32]:
        x, y, _ = self.place(stations, d)
        return np.stack([x, y, np.full_like(x, z)], axis=1).astype(np.float32)


def _quads(right: NDArray[np.float32], left: NDArray[np.float32], material: Material) -> Shape:
    """The band between two polylines [P, 3] of the same length."""
    count = len(right)
    i = np.arange(count - 1)
    faces = np.concatenate([np.stack([i, i + 1, i + 1 + count], 1), np.stack([i, i + 1 + count, i + count], 1)])
    return of_material(np.concatenate([right, left]), faces, material)


def winding_centreline(length_m: float, rng: Generator) -> Centreline:
    """A course of that length whose bends have a radius of at least about 90 m; some are nearly straight."""
    s = np.arange(int(np.ceil(length_m)) + 1, dtype=np.float64)
    heading = np.zeros_like(s)
    for wavelength in (rng.uniform(250, 500), rng.uniform(120, 200)):
        amplitude = rng.uniform(0.0, 1.0) * wavelength / (2 * np.pi * 200)
        heading += amplitude * np.sin(2 * np.pi * s / wavelength + rng.uniform(0, 2 * np.pi))
    x = np.concatenate([[0.0], np.cumsum(np.cos(heading[:-1]))])
    y = np.concatenate([[0.0], np.cumsum(np.sin(heading[:-1]))])
    return Centreline(x, y, heading)


@dataclass(frozen=True, eq=False)
class Road:
    """The cross-section along a street: `lanes` per direction, perhaps a parking lane, and pavements."""

    street: Centreline
    lanes: int
    parking: bool
    walk_m: float
    """Width of the pavements."""

    @property
    def kerb_d(self) -> float:
        """Offset of the kerbs, to both sides, in metres."""
        return self.lanes * LANE_M + (2.3 if self.parking else 0.4)

    def ground_height(self, d: float) -> float:
        """Height of road or pavement at offset `d`, in metres."""
        return 0.0 if abs(d) < self.kerb_d else KERB_M


def irregular(rng: Generator, start: float, stop: float, gap: tuple[float, float]) -> list[float]:
    """Places from `start` to `stop`, each a gap of gap[0] to gap[1] metres after the last."""
    at, found = start + rng.uniform(0, gap[1]), []
    while at < stop:
        found.append(at)
        at += rng.uniform(*gap)
    return found
