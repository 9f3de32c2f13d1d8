"""Words on pictures: as large as fits, a caption, and which class has which colour."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.model_card import ClassSpec

Image = NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _PAPER = (255, 255, 255), 24
_LINE, _PADDING = 20, 4
"""Pixels: of a line, and around its words."""


def write_line(canvas: Image, text: str, baseline: int, line: int, padding: int) -> None:
    """In place, as large as fits into the line and the canvas; all are pixels."""
    (width, height), _ = cv2.getTextSize(text or " ", _FONT, 1.0, 1)
    scale = min(0.72 * line / height, (canvas.shape[1] - 2 * padding) / max(width, 1))
    cv2.putText(canvas, text, (padding, baseline), _FONT, scale, _INK, 1, cv2.LINE_AA)


def caption(width: int, text: str) -> Image:
    """RGB uint8 [20, width, 3]: one line."""
    canvas = np.full((_LINE, width, 3), _PAPER, np.uint8)
    write_line(canvas, text, _LINE - _PADDING, _LINE - _PADDING, _PADDING)
    return canvas


def legend(width: int, classes: Sequence[ClassSpec]) -> Image:
    """RGB uint8 [H, width, 3]: every class beside its colour, in columns of 120 pixels or one."""
    columns = max(1, width // 120)
    edges = [width * column // columns for column in range(columns + 1)]
    rows = []
    for first in range(0, len(classes), columns):
        row = np.full((_LINE, width, 3), _PAPER, np.uint8)
        for spec, left, right in zip(classes[first : first + columns], edges, edges[1:], strict=False):
            cell = np.ascontiguousarray(row[:, left + _LINE : right])
            write_line(cell, spec.name, _LINE - _PADDING, _LINE - _PADDING, 0)
            row[:, left + _LINE : right] = cell
            row[_PADDING:-_PADDING, left + _PADDING : left + _LINE - _PADDING] = spec.color
        rows.append(row)
    return np.vstack(rows)
