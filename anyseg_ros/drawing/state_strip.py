"""The strip on the overlay that says which sensors the mask is made from, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.health.monitor import ModalityStatus, State
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.drawing.captions import write_line

Color = tuple[int, int, int]

GREEN, AMBER, RED, GREY = (0, 140, 60), (200, 130, 0), (200, 30, 30), (110, 110, 110)
_COLORS: Mapping[State, Color] = MappingProxyType(
    {
        State.ACTIVE: GREEN,
        State.WAITING: AMBER,
        State.SUSPECT: AMBER,
        State.RECOVERING: AMBER,
        State.FAILED: RED,
        State.DISPUTED: RED,
        State.DISABLED: GREY,
    }
)
_PAPER = 0.25
_PADDING = 0.3
"""Of a line's height."""


class Cell(NamedTuple):
    """One sensor's part of the strip."""

    title: str
    text: str
    color: Color


def sensor_cell(status: ModalityStatus, used: Sequence[Sensor]) -> Cell:
    """Name and state of a sensor, why it is not in the mask, and the colour of its state."""
    color, state = _COLORS[status.state], str(status.state)
    if status.fault:
        text = f"{status.fault}"
    elif status.left_out:
        color, state, text = AMBER, "left out", status.left_out
    elif status.modality in used:
        state, text = "used", f"quality {status.quality.value:.2f}" if status.quality else ""
    else:
        color, text = (AMBER if status.state is State.ACTIVE else color), "not in this mask"
    return Cell(f"{status.modality}: {state}", text, color)


def draw_strip(rgb: NDArray[np.uint8], cells: Sequence[Cell]) -> None:
    """Draw the cells side by side along the upper edge of an image uint8 [H, W, 3], in place."""
    height, width = rgb.shape[:2]
    line = max(11, round(min(height / 26, width / 34)))  # 18 pixels at 640x480
    strip = rgb[: min(height // 3, round((2 + 3 * _PADDING) * line))]
    strip[:] = (strip * _PAPER).astype(np.uint8)
    for index, cell in enumerate(cells):
        left, right = (width * k // len(cells) for k in (index, index + 1))
        area = strip[:, left + 1 : right - 1]
        if area.size:  # a picture may be too small for four cells
            _draw_cell(area, cell, line)


def _draw_cell(area: NDArray[np.uint8], cell: Cell, line: int) -> None:
    padding = round(_PADDING * line)
    canvas = np.ascontiguousarray(area)
    bottom = line + 2 * padding
    cv2.rectangle(canvas, (0, 0), (canvas.shape[1], bottom), cell.color, cv2.FILLED)
    write_line(canvas, cell.title, line + padding, line, padding)
    write_line(canvas, cell.text, bottom + line - padding // 2, line, padding)
    area[:] = canvas
