"""A mask -> labels of points: a LiDAR's by projection, a depth image's by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, in_optical_frame, points_in_view
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.points.occlusion import Occlusion, hidden_points
from anyseg_core.runtime.sensors import Sensor, SensorFrame

Labels = NDArray[np.uint8]
_DEFAULT = Occlusion()


@dataclass(frozen=True, eq=False)
class LabelledPoints:
    """A cloud in its sensor's axes, organised as it came."""

    source: Sensor
    """A LiDAR or a depth camera."""
    points: NDArray[np.float32]
    """[N, 4], x, y, z in metres and intensity, of a LiDAR; [N, 3] of a depth image, NaN where it has no measurement."""
    labels: Labels
    """uint8 [N]; 255 = none: outside the picture, hidden, or without measurement."""
    confidence: Labels
    """uint8 [N], 255 = certain; 0 where there is no label."""
    shape: tuple[int, int]
    """(rows, columns) of the cloud; one row where it is not organised."""
    stamp_ns: int
    """The moment at which the points are where they are said to be."""
    frame_id: str

    @property
    def has_intensity(self) -> bool:
        return self.points.shape[1] > 3


def label_scan(
    scan: SensorFrame, labels: Labels, confidence: Labels, rig: Rig, occlusion: Occlusion = _DEFAULT
) -> LabelledPoints:
    """A LiDAR scan with the labels of the pixels that its points fall on.

    Args:
        scan: brought to the moment of the mask (`LidarMotion.compensate`).
        labels, confidence: uint8 [H, W], of a picture that shows the whole view of the rig's camera.
    """
    points: NDArray[np.float32] = np.asarray(scan.data, np.float32)
    size = labels.shape[0], labels.shape[1]
    view = points_in_view(points, rig, *size)
    focal_px = rig.camera.fy * size[0] / rig.camera.height
    seen = np.flatnonzero(~hidden_points(view.row, view.col, view.xyz[2], size, focal_px, occlusion))
    pixel = view.row.astype(np.int32) * np.int32(size[1]) + view.col.astype(np.int32)  # [K]
    pixel, index = pixel.take(seen), view.index.take(seen)  # [S]
    found, certain = labels.ravel().take(pixel), confidence.ravel().take(pixel)
    shape = scan.cloud_shape if np.prod(scan.cloud_shape) == len(points) else (1, len(points))
    return LabelledPoints(
        scan.modality,
        points,
        _spread(found, index, len(points), UNLABELLED),
        _spread(np.where(found == UNLABELLED, np.uint8(0), certain), index, len(points), 0),
        shape,
        scan.stamp_ns,
        scan.frame_id,
    )


def label_depth(depth: SensorFrame, labels: Labels, confidence: Labels, rig: Rig, stride: int = 1) -> LabelledPoints:
    """Every `stride`-th pixel of a depth image as a point in the camera's optical frame, with its label.

    Args:
        depth: aligned with the picture of the mask; may be of another size.
        labels, confidence: uint8 [H, W].
    """
    height, width = depth.data.shape[:2]
    rows, cols = _pixels(height, stride), _pixels(width, stride)
    z: NDArray[np.float32] = np.asarray(depth.data, np.float32)[np.ix_(rows, cols)]  # [h, w]
    with np.errstate(invalid="ignore"):
        z = np.where((z > 0) & (z < np.inf), z, np.float32(np.nan))
    rays = _rays(rig.camera.resized(height, width), stride)  # [h, w, 3]
    z = np.where(np.isfinite(rays[..., 0]), z, np.float32(np.nan))
    at = np.ix_(_nearest(rows, height, labels.shape[0]), _nearest(cols, width, labels.shape[1]))
    measured = np.isfinite(z)
    found = np.where(measured, labels[at], np.uint8(UNLABELLED))
    certain = np.where(found == UNLABELLED, np.uint8(0), confidence[at])
    points = in_optical_frame((z[..., None] * rays).reshape(-1, 3), rig.camera)
    shape = len(rows), len(cols)
    return LabelledPoints(depth.modality, points, found.ravel(), certain.ravel(), shape, depth.stamp_ns, depth.frame_id)


def _pixels(side: int, stride: int) -> NDArray[np.int64]:
    """Every `stride`-th row or column."""
    return np.arange(min(stride // 2, side - 1), side, stride)


@lru_cache(maxsize=4)
def _rays(camera: PinholeCamera, stride: int) -> NDArray[np.float32]:
    """[h, w, 3]: x/z, y/z and 1 of every `stride`-th pixel; NaN where the lens draws nothing."""
    cols, rows = np.meshgrid(_pixels(camera.width, stride), _pixels(camera.height, stride))  # [h, w] each
    x, y = (cols - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    if camera.distortion is not None:
        x, y = (each.reshape(cols.shape) for each in camera.distortion.remove(x.ravel(), y.ravel()))
    return np.stack([x, y, np.ones(cols.shape)], axis=-1).astype(np.float32)


def _spread(values: Labels, index: NDArray[np.int64], count: int, fill: int) -> Labels:
    """[K] -> [N], `fill` elsewhere."""
    spread = np.full(count, fill, np.uint8)
    spread[index] = values
    return spread


def _nearest(pixels: NDArray[np.int64], side: int, mask_side: int) -> NDArray[np.int64]:
    """The mask's row or column of the same place."""
    return (2 * pixels + 1) * mask_side // (2 * side)
