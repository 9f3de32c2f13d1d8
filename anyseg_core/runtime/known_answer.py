"""The answer that a network is known to give to an input that anybody can make: checked whenever it is opened.

A hash proves that a file is the one that was exported; this proves that what runs it here computes what it computed
there. Some labels may differ: rounding moves the borders between classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

GRID = 16
"""Labels are compared at as many rows and columns, evenly spaced."""
MIN_AGREEMENT = 0.85
"""Of the compared labels. The bundled students agree in all of them in parts and whole, in bf16 in 0.95 or more, and
with their answers to noise in 0.13 to 0.6 (zero-filled ones, which see little in either, in up to 0.98)."""


class KnownAnswer(BaseModel):
    """Labels of `known_images`, as the export's own engine gave them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    count: int = Field(ge=1)
    """How many images, of the first modalities that the network takes."""
    labels: str
    """At the places of the grid, row by row, two hexadecimal digits each."""
    min_agreement: float = Field(default=MIN_AGREEMENT, gt=0, le=1)
    """The share of these labels that must be the same."""

    @field_validator("labels")
    @classmethod
    def _whole(cls, labels: str) -> str:
        if len(bytes.fromhex(labels)) != GRID * GRID:
            raise ValueError(f"must be {GRID * GRID} labels of two hexadecimal digits")
        return labels

    @classmethod
    def of(cls, labels: NDArray[np.uint8], count: int) -> KnownAnswer:
        """From the labels uint8 [H, W] that a network gave to `known_images` of `count` modalities."""
        return cls(count=count, labels=_on_grid(labels).tobytes().hex())

    def agreement(self, labels: NDArray[np.uint8]) -> float:
        """The share of the compared labels in which labels uint8 [H, W] are the same, 0 to 1."""
        known = np.frombuffer(bytes.fromhex(self.labels), np.uint8)
        return float((_on_grid(labels).ravel() == known).mean())


def known_images(size: tuple[int, int], indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """uint8 [M, H, W, 3] for the modalities with these indices [M]: ramps and tiles, a little different for each.

    Made of whole numbers alone, so that every machine and version makes the same.
    """
    height, width = size
    y, x = np.mgrid[:height, :width]
    tile = (y * 4 // height + x * 4 // width) % 4  # [H, W]
    planes = [
        (y * 255 // height * (channel + 1) + x * 255 // width * (3 - channel) + 64 * tile + 37 * index) // 4 % 256
        for index in indices.tolist()
        for channel in range(3)
    ]
    return np.stack(planes).reshape(len(indices), 3, height, width).transpose(0, 2, 3, 1).astype(np.uint8)


def known_answers(
    run: Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint8]],
    size: tuple[int, int],
    indices: Sequence[int],
    counts: Iterable[int],
) -> tuple[KnownAnswer, ...]:
    """What `run` (images, modality -> labels) answers for each number of images, of modalities with these indices."""
    some = [np.array(indices[:count], np.int64) for count in counts]
    return tuple(KnownAnswer.of(run(known_images(size, index), index), len(index)) for index in some)


def _on_grid(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = (np.arange(GRID) * side // GRID + side // (2 * GRID) for side in labels.shape)
    return np.ascontiguousarray(labels[rows][:, columns])  # [GRID, GRID]
