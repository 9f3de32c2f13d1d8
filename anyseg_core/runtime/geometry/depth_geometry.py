"""What a depth image tells besides distance: surface normals, gravity, height; and the HHA image made of them.

HHA is horizontal disparity, height above ground and angle with gravity (Gupta, Girshick, Arbelaez and Malik, "Learning
Rich Features from RGB-D Images", ECCV 2014), which DELIVER offers as its depth modality. Axes are those of the camera's
optical frame (x right, y down, z forward; REP-103).
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera

Floats = NDArray[np.float32]

LEVEL_GRAVITY: tuple[float, float, float] = (0.0, 1.0, 0.0)
"""Direction of gravity for a camera that is mounted level."""
_GRAVITY_STEPS = (45.0, 5), (15.0, 5)
"""Angle in degrees within which a normal counts as (anti)parallel or perpendicular, and how often it is repeated."""


_LEAST_SPREAD = 1e-4
"""Of the pixels of a window around the line through them, as a share: below it they are in a line."""


def measured_pixels(depth_m: Floats) -> NDArray[np.bool_]:
    """[h, w]: False where a depth is zero, negative, NaN or infinite: no measurement."""
    with np.errstate(invalid="ignore"):
        return (depth_m > 0) & (depth_m < np.inf)


def camera_points(depth_m: Floats, camera: PinholeCamera) -> Floats:
    """Depth [h, w] in metres of the camera's whole image -> points [h, w, 3] in metres; not finite without a depth."""
    u, v = _ray_slopes(depth_m.shape, camera)
    with np.errstate(invalid="ignore"):
        return np.stack([depth_m * u, depth_m * v, depth_m], axis=-1)


def surface_normals(depth_m: Floats, camera: PinholeCamera, radius: int = 1) -> Floats:
    """Depth [h, w] in metres -> unit normals [h, w, 3] that face the camera; NaN where it cannot be told.

    On a plane the inverse depth is linear in the image, and its slopes are the normal: with 1/z = a u + b v + c for a
    ray (u, v, 1), the normal is parallel to (a, b, c). The slopes are taken over `2 * radius + 1` pixels, all of which
    must be measured.
    """
    camera = camera.resized(*depth_m.shape[:2])
    measured = measured_pixels(depth_m)
    inverse = _inverse(depth_m, measured)
    side = 2 * radius + 1
    scale = 1.0 / _sobel_gain(side)
    a = cv2.Sobel(inverse, cv2.CV_32F, 1, 0, ksize=side, scale=scale) * np.float32(camera.fx)
    b = cv2.Sobel(inverse, cv2.CV_32F, 0, 1, ksize=side, scale=scale) * np.float32(camera.fy)
    normals = _normals_of_slopes(a, b, inverse, camera)
    known = cv2.erode(measured.astype(np.uint8), np.ones((side, side), np.uint8), borderValue=0)
    normals[known == 0] = np.nan
    return normals


def fitted_normals(depth_m: Floats, camera: PinholeCamera, radius: int) -> Floats:
    """Depth [h, w] in metres -> unit normals [h, w, 3] that face the camera; NaN where it cannot be told.

    To the inverse depths that are measured within `2 * radius + 1` pixels a plane is fitted by least squares, as in
    `computeNormalsSquareSupport` of Gupta's code (ECCV 2014). Pixels without a measurement of their own get a normal,
    too. Three measured pixels that are not in a line are enough.
    """
    camera = camera.resized(*depth_m.shape[:2])
    measured = measured_pixels(depth_m)
    ones, steps = np.ones(2 * radius + 1, np.float32), np.arange(-radius, radius + 1, dtype=np.float32)

    def summed(values: Floats, x: Floats, y: Floats) -> Floats:
        """Of every window: its values, each times its place in the window to some power."""
        return cast("Floats", cv2.sepFilter2D(values, cv2.CV_32F, x, y, borderType=cv2.BORDER_CONSTANT))

    weights, inverse = measured.astype(np.float32), _inverse(depth_m, measured)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        count = summed(weights, ones, ones)
        x, y = summed(weights, steps, ones) / count, summed(weights, ones, steps) / count  # the window's middle
        middle = summed(inverse, ones, ones) / count
        xx = summed(weights, steps * steps, ones) - count * x * x
        yy = summed(weights, ones, steps * steps) - count * y * y
        xy = summed(weights, steps, steps) - count * x * y
        xq = summed(inverse, steps, ones) - count * x * middle
        yq = summed(inverse, ones, steps) - count * y * middle
        determinant = xx * yy - xy * xy
        slope_x, slope_y = (yy * xq - xy * yq) / determinant, (xx * yq - xy * xq) / determinant
        here = middle - slope_x * x - slope_y * y
        normals = _normals_of_slopes(slope_x * np.float32(camera.fx), slope_y * np.float32(camera.fy), here, camera)
        normals[~(determinant > _LEAST_SPREAD * xx * yy)] = np.nan
    return normals


def gravity_direction(normals: Floats, initial: tuple[float, float, float] = LEVEL_GRAVITY) -> NDArray[np.float64]:
    """Normals [..., 3] -> unit vector [3] of gravity: most surfaces are level or upright.

    Begins at `initial` and repeats: take the normals that are nearly parallel to it and those that are nearly
    perpendicular, and choose the direction that is most so (Gupta, Arbelaez and Malik, CVPR 2013, section 3).
    """
    flat = normals.reshape(-1, 3)
    flat = flat[np.isfinite(flat).all(axis=1)].astype(np.float64)  # [N, 3]
    gravity = np.asarray(initial, np.float64) / np.linalg.norm(initial)
    for degrees, repeats in _GRAVITY_STEPS:
        for _ in range(repeats):
            cosine = np.abs(flat @ gravity)
            level = flat[cosine > np.cos(np.radians(degrees))]
            upright = flat[cosine < np.sin(np.radians(degrees))]
            if len(level) + len(upright) < 3:
                return gravity
            _, vectors = np.linalg.eigh(upright.T @ upright - level.T @ level)
            gravity = vectors[:, 0] * np.sign(vectors[:, 0] @ gravity or 1.0)  # of the smallest eigenvalue
    return gravity


def heights_m(points: Floats, gravity: NDArray[np.float64], camera_height_m: float) -> Floats:
    """Points [h, w, 3] -> metres above ground [h, w]; the camera is `camera_height_m` above it."""
    with np.errstate(invalid="ignore"):
        return (camera_height_m - points @ gravity).astype(np.float32)


def angles_with_gravity(normals: Floats, gravity: NDArray[np.float64]) -> Floats:
    """Normals [h, w, 3] -> degrees [h, w] from straight up: 0 floor, 90 wall, 180 ceiling."""
    return np.degrees(np.arccos(np.clip(-(normals @ gravity), -1.0, 1.0))).astype(np.float32)


def _ray_slopes(shape: tuple[int, ...], camera: PinholeCamera) -> tuple[Floats, Floats]:
    """x / z [1, w] and y / z [h, 1] of the pixels of an image of `shape` that shows the camera's whole view."""
    height, width = shape[:2]
    camera = camera.resized(height, width)
    u = ((np.arange(width) - camera.cx) / camera.fx).astype(np.float32)
    v = ((np.arange(height) - camera.cy) / camera.fy).astype(np.float32)
    return u[None, :], v[:, None]


def _inverse(depth_m: Floats, measured: NDArray[np.bool_]) -> Floats:
    """1 / depth [h, w]; 0 where there is none."""
    with np.errstate(over="ignore"):
        return np.divide(1.0, depth_m, out=np.zeros(depth_m.shape, np.float32), where=measured)


def _normals_of_slopes(
    a: NDArray[np.floating[Any]],
    b: NDArray[np.floating[Any]],
    inverse: NDArray[np.floating[Any]],
    camera: PinholeCamera,
) -> Floats:
    """Inverse depth [h, w] and its slopes along u and v -> unit normals [h, w, 3]; NaN where they overflow."""
    u, v = _ray_slopes(inverse.shape, camera)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        normals = -np.stack([a, b, inverse - a * u - b * v], axis=-1)
        lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
        return (normals / np.where(np.isfinite(lengths), lengths, np.nan)).astype(np.float32)


def _sobel_gain(side: int) -> float:
    """What `cv2.Sobel` of that size makes of a slope of one per pixel."""
    ramp = np.tile(np.arange(4 * side, dtype=np.float32), (4 * side, 1))
    return float(cv2.Sobel(ramp, cv2.CV_32F, 1, 0, ksize=side)[2 * side, 2 * side])
