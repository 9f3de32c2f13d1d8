"""Rigid transforms and unit quaternions (x, y, z, w)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Unit quaternion x, y, z, w of a rotation matrix [3, 3].

    The eigenvector of the largest eigenvalue of Bar-Itzhack's matrix (J. Guidance 23-6, 2000): no special cases.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    k = np.array([
        [xx - yy - zz, yx + xy, zx + xz, zy - yz],
        [yx + xy, yy - xx - zz, zy + yz, xz - zx],
        [zx + xz, zy + yz, zz - xx - yy, yx - xy],
        [zy - yz, xz - zx, yx - xy, xx + yy + zz],
    ])  # fmt: skip
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]
    return float(x), float(y), float(z), float(w)


def rigid_transform(translation: Sequence[float], rotation_xyzw: Sequence[float]) -> NDArray[np.float64]:
    """Translation [3] in metres and quaternion [4] (x, y, z, w; normalised here) -> 4x4 transform."""
    x, y, z, w = np.asarray(rotation_xyzw, float) / np.linalg.norm(rotation_xyzw)
    transform = np.eye(4)
    transform[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    transform[:3, 3] = translation
    return transform
