"""By how much two sensors are turned against each other up and down, and about their line of sight.

The outlines of one are moved over those of the other, part of the view by part. A sensor that is turned up or down
moves them by the same rows everywhere; one that is rolled moves what is at the left up and what is at the right down,
and what is above and below to opposite sides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple, cast

import cv2
import numpy as np

from anyseg_core.runtime.cross_examination.outlines import (
    COLUMN_DEG,
    ROW_DEG,
    ROW_SLOPE,
    DirectionGrid,
    Floats,
    are_alike,
)
from anyseg_core.runtime.cross_examination.own_turns import Turn
from anyseg_core.runtime.cross_examination.small_arrays import shifted_products

PARTS = (2, 3)
"""Rows and columns of parts of the view."""
WIDE_DEG = 2 * COLUMN_DEG
"""Of azimuth in a column here: two of the grid's as one."""
MOST_ROWS, MOST_COLUMNS = 5, 3
"""Cells by which outlines are moved: +-5 degrees up and down, +-2.4 to the side."""
KEPT = 16
"""Looks that are summed up, ..."""
LEAST = 8
"""... and that must be there before anything is said."""
SURELY = 4.0
"""Standard errors by which a tilt must fit better than none, ..."""
BETTER = 0.08
"""... and the share of its fit."""
_PITCHES: Floats = np.arange(-4.0, 4.01, 0.25, dtype=np.float32)
_ROLLS: Floats = np.arange(-6.0, 6.01, 0.5, dtype=np.float32)


class Tilt(NamedTuple):
    """How the second of two sensors is turned against the first."""

    pitch_deg: float
    """Up."""
    roll_deg: float
    """Clockwise, as seen from behind it."""
    is_sure: bool
    """Whether it fits clearly better than none does."""

    @property
    def axis(self) -> Turn:
        """About which it is turned most."""
        return Turn.UP if abs(self.pitch_deg) >= abs(self.roll_deg) else Turn.CLOCKWISE

    @property
    def signed_deg(self) -> float:
        """By how much about that axis."""
        return self.pitch_deg if self.axis is Turn.UP else self.roll_deg

    @property
    def greatest(self) -> tuple[str, float]:
        """How it is turned most, in words, and by how many degrees."""
        up, down = (
            ("turned up", "turned down") if self.axis is Turn.UP else ("rolled clockwise", "rolled counterclockwise")
        )
        return up if self.signed_deg > 0 else down, abs(self.signed_deg)


class TiltSum:
    """Of the last looks at a pair."""

    def __init__(self) -> None:
        self._looks: deque[tuple[Floats, Floats]] = deque(maxlen=KEPT)
        self._last: tuple[Floats, Floats] | None = None

    def learn(self, first: Floats, second: Floats) -> bool:
        """Take the outlines of one moment into account; returns False where they are those of before."""
        if are_alike(self._last, (first, second)):
            return False
        self._last = first.copy(), second.copy()
        surfaces, centres = zip(*_parts(_wide(first), _wide(second)), strict=True)
        self._looks.append((np.stack(surfaces), np.array(centres, np.float32)))
        return True

    def tilt(self, grid: DirectionGrid, right_deg: float) -> Tilt | None:
        """What fits best; None before there were enough looks, and where nothing fits.

        Args:
            grid: on which the outlines were drawn.
            right_deg: by which the second sensor is turned to the right, as is known.
        """
        if len(self._looks) < LEAST:
            return None
        centres = np.mean([centre for _, centre in self._looks], axis=0)
        at = _moves(grid, centres, right_deg)  # [2, parts, candidates]
        total = _fits(np.sum([surfaces for surfaces, _ in self._looks], axis=0), at)
        best, none = int(total.argmax()), len(total) // 2
        if total[best] <= 0:
            return None
        two = at[:, :, [best, none]]
        fits = _fits_of_each(np.array([surfaces for surfaces, _ in self._looks]), two)
        gain = fits[:, 0] - fits[:, 1]
        error = float(gain.std()) / np.sqrt(len(gain))
        is_sure = gain.mean() > max(SURELY * error, BETTER * float(fits[:, 0].mean()))
        pitch_deg, roll_deg = _candidates()[:, best]
        return Tilt(float(pitch_deg), float(roll_deg), bool(is_sure))


def _parts(first: Floats, second: Floats) -> Iterator[tuple[Floats, tuple[float, float]]]:
    """Of each part of the view: its correlation where the second is moved, and where its outlines are (row, column)."""
    height, width = second.shape
    first = _with_border(first)  # so that every cell of a part counts, however far it is moved
    for row, col in product(range(PARTS[0]), range(PARTS[1])):
        top, bottom = (edge * height // PARTS[0] for edge in (row, row + 1))
        left, right = (edge * width // PARTS[1] for edge in (col, col + 1))
        here = first[top : bottom + 2 * MOST_ROWS, left : right + 2 * MOST_COLUMNS]
        there = second[top:bottom, left:right]
        surface = shifted_products([here], _with_border(there), MOST_ROWS, MOST_COLUMNS)[0]
        norm = max(float(np.linalg.norm(here) * np.linalg.norm(there)), 1e-9)
        smooth = cv2.GaussianBlur((surface - np.median(surface)) / np.float32(norm), (3, 3), sigmaX=0.6)
        at_row, at_col = _centre(there * there)
        yield cast("Floats", smooth), (top + at_row, left + at_col)


def _wide(outlines: Floats) -> Floats:
    """Two columns as one."""
    cols = outlines.shape[1] // 2 * 2
    return outlines[:, :cols:2] + outlines[:, 1:cols:2]


def _with_border(cells: Floats) -> Floats:
    """With as many cells of 0 around as outlines are moved."""
    height, width = cells.shape
    wide = np.zeros((height + 2 * MOST_ROWS, width + 2 * MOST_COLUMNS), np.float32)
    wide[MOST_ROWS : MOST_ROWS + height, MOST_COLUMNS : MOST_COLUMNS + width] = cells
    return wide


def _centre(weight: Floats) -> tuple[float, float]:
    """Row and column."""
    rows, cols, total = weight.sum(axis=1), weight.sum(axis=0), max(float(weight.sum()), 1e-9)
    return float(rows @ np.arange(len(rows))) / total, float(cols @ np.arange(len(cols))) / total


@lru_cache(maxsize=1)
def _candidates() -> Floats:
    """[2, candidates]: pitch and roll in degrees; none of both in the middle."""
    return np.stack(np.meshgrid(_PITCHES, _ROLLS, indexing="ij")).reshape(2, -1)


def _moves(grid: DirectionGrid, centres: Floats, right_deg: float) -> Floats:
    """Rows and columns by which each candidate moves the outlines of each part, [2, parts, candidates]."""
    pitch, roll = _candidates()[:, None]  # [1, candidates]
    down = grid.first_slope + centres[:, :1] * ROW_SLOPE  # [parts, 1]
    right = np.tan(grid.first_azimuth + centres[:, 1:] * np.deg2rad(WIDE_DEG))
    return np.stack([(roll * right - pitch) / ROW_DEG, (right_deg - roll * down) / WIDE_DEG]).astype(np.float32)


def _fits(surfaces: Floats, at: Floats) -> Floats:
    """Sum of the parts' correlations where each candidate moves them, [candidates]."""
    total = np.zeros(at.shape[2], np.float32)
    for surface, rows, cols in zip(surfaces, *at, strict=True):
        total += cv2.remap(surface, cols + MOST_COLUMNS, rows + MOST_ROWS, cv2.INTER_CUBIC).ravel()
    return total


def _fits_of_each(surfaces: Floats, at: Floats) -> Floats:
    """As `_fits`, of the surfaces of many looks [looks, parts, rows, cols] at few candidates, [looks, candidates]."""
    rows, cols = (
        np.maximum(1 - np.abs(place[..., None] + most - np.arange(2 * most + 1)), 0).astype(np.float32)
        for place, most in zip(at, (MOST_ROWS, MOST_COLUMNS), strict=True)
    )  # [parts, candidates, rows or cols]
    weights = (rows[..., None] * cols[..., None, :]).swapaxes(0, 1)  # between the cells
    return surfaces.reshape(len(surfaces), -1) @ weights.reshape(len(weights), -1).T
