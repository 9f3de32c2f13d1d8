"""Statistics of some hundred to some thousand values, for code that needs many of them within a millisecond."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Pearson's, of the values of two arrays of one shape; 0 where one of them is constant."""
    first, second = _centred(first.ravel()), _centred(second.ravel())
    norm = float(np.sqrt(float(first @ first) * float(second @ second)))
    return float(first @ second) / norm if norm > 1e-9 else 0.0


def _centred(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values - np.add.reduce(values) / np.float32(max(len(values), 1))


def spread(values: NDArray) -> float:
    """Standard deviation; 0 of none."""
    centred = values - values.sum() / max(values.size, 1)
    return float(np.sqrt(np.vdot(centred, centred) / max(values.size, 1)))


def median(values: NDArray) -> float:
    """Of one or more values; of an even number the upper of the two in the middle.

    These arrays are small: most of the time of NumPy's own goes into what it does around finding it.
    """
    middle = values.size // 2
    return float(np.partition(values, middle, axis=None)[middle])


def shifted_products(
    firsts: Sequence[NDArray[np.float32]], second: NDArray[np.float32], rows: int, columns: int
) -> list[NDArray[np.float32]]:
    """Of each of some arrays [h, w] with a second one: sum of their products where the second is moved, up to `rows`
    down and `columns` to the right and as far to the other side, [2 * rows + 1, 2 * columns + 1]. As far from its
    border the second one does not count.

    Lag by lag in one dimension, which for few of them costs a quarter of what cv2.matchTemplate's spectrum does.
    """
    height, width = second.shape
    inner = np.zeros_like(second)
    inside = slice(rows, height - rows), slice(columns, width - columns)
    inner[inside] = second[inside]
    reach = rows * width + columns
    padded, flat = np.zeros(second.size + 2 * reach, np.float32), inner.ravel()
    begins = [reach + down * width - columns for down in range(-rows, rows + 1)]
    found = []
    for first in firsts:
        padded[reach : reach + first.size].reshape(first.shape)[:] = first
        found.append(
            np.stack([np.correlate(padded[at : at + 2 * columns + flat.size], flat, "valid") for at in begins])
        )
    return found
