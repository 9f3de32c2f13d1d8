"""Lens distortion: where a point falls in a picture that was not rectified (the models of sensor_msgs/CameraInfo)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PLUMB_BOB, RATIONAL, EQUIDISTANT = "plumb_bob", "rational_polynomial", "equidistant"
MODELS: dict[str, tuple[int, ...]] = {PLUMB_BOB: (4, 5), RATIONAL: (8, 12), EQUIDISTANT: (4,)}
"""Known models, and how many coefficients each may have."""
_WIDEST = 20.0
"""Tangent of the widest angle from the optical axis that is looked at: 87 degrees."""
_NEWTON_STEPS, _DIFFERENCE, _TOLERANCE = 20, 1e-6, 1e-5
"""Of the inverse; a ray is found where it is drawn this near, a hundredth of a pixel of most lenses."""


@dataclass(frozen=True)
class Distortion:
    """A model and its coefficients, in the order of `CameraInfo.d`.

    `plumb_bob`: k1, k2, p1, p2, k3; `rational_polynomial`: k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 (OpenCV's
    calib3d); `equidistant`: k1 to k4 of Kannala and Brandt (2006). Raises ValueError for any other.
    """

    model: str
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"distortion model {self.model!r} is not known; known models: {', '.join(MODELS)}")
        if len(self.coefficients) not in MODELS[self.model]:
            raise ValueError(f"{len(self.coefficients)} coefficients are none of distortion model {self.model}")
        if not np.isfinite(self.coefficients).all():
            raise ValueError(f"distortion coefficients must be finite, not {self.coefficients}")

    def apply(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
        """Undistorted x/z and y/z [N] -> distorted ones [N]; NaN where the model does not reach so far out."""
        r2 = x * x + y * y
        with np.errstate(invalid="ignore", over="ignore"):
            scale = np.where(r2 <= self._reach**2, self._radial(r2), np.nan)
            distorted = x * scale, y * scale
            return distorted if self.model == EQUIDISTANT else self._tangential(x, y, r2, *distorted)

    def remove(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
        """Distorted x/z and y/z [N] -> undistorted ones [N], the inverse of `apply`; NaN where no ray is drawn there.

        Newton's method from the distorted place, with slopes by differences.
        """
        drawn = np.stack([x, y]).astype(np.float64)  # [2, N]
        at, h = drawn.copy(), _DIFFERENCE
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON_STEPS):
                here = np.stack(self.apply(*at))
                a, c = (np.stack(self.apply(at[0] + h, at[1])) - here) / h
                b, d = (np.stack(self.apply(at[0], at[1] + h)) - here) / h
                off_x, off_y = here - drawn
                step = np.stack([d * off_x - b * off_y, a * off_y - c * off_x]) / (a * d - b * c)
                at = at - step
                if not (np.abs(step) > _TOLERANCE).any():
                    break
            found = np.abs(np.stack(self.apply(*at)) - drawn).max(axis=0) < _TOLERANCE
        return np.where(found, at[0], np.nan), np.where(found, at[1], np.nan)

    @cached_property
    def _reach(self) -> float:
        """The radius up to which points farther out are drawn farther out: beyond it polynomials fold back."""
        radius = np.linspace(0.0, _WIDEST, 4001)
        with np.errstate(invalid="ignore", over="ignore"):
            drawn = radius * self._radial(radius**2)
        folds = np.flatnonzero(~(np.diff(drawn) > 0))
        return float(radius[folds[0]]) if len(folds) else _WIDEST

    def _radial(self, r2: NDArray) -> NDArray:
        c = self.coefficients
        if self.model == EQUIDISTANT:
            radius = np.sqrt(r2)
            angle = np.arctan(radius)
            a2 = angle * angle
            drawn = angle * (1 + a2 * (c[0] + a2 * (c[1] + a2 * (c[2] + a2 * c[3]))))
            return np.where(radius > 1e-8, drawn / np.maximum(radius, 1e-8), 1.0)
        k1, k2, k3 = c[0], c[1], c[4] if len(c) > 4 else 0.0
        k4, k5, k6 = c[5:8] if len(c) >= 8 else (0.0, 0.0, 0.0)
        return (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))

    def _tangential(self, x: NDArray, y: NDArray, r2: NDArray, xd: NDArray, yd: NDArray) -> tuple[NDArray, NDArray]:
        p1, p2 = self.coefficients[2:4]
        s1, s2, s3, s4 = self.coefficients[8:12] if len(self.coefficients) == 12 else (0.0,) * 4
        xd = xd + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + s1 * r2 + s2 * r2 * r2
        yd = yd + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + s3 * r2 + s4 * r2 * r2
        return xd, yd
