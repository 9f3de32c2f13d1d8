"""Labelled points from above: the vehicle in the middle of the lower edge, looking up."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.class_groups import PublishedClasses
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.points.labelled import LabelledPoints

Image = NDArray[np.uint8]

AHEAD_M, BEHIND_M = 40.0, 5.0
_RING_M = 10.0
_PAPER, _LINES, _VEHICLE, _UNLABELLED = (24, 24, 24), (70, 70, 70), (255, 255, 255), (60, 60, 60)


def top_view(cloud: LabelledPoints | None, published: PublishedClasses, height: int) -> Image:
    """RGB uint8 [height, width, 3]: x ahead is up, y left is left; a ring every 10 m. Without points only the rings."""
    scale = height / (AHEAD_M + BEHIND_M)  # pixels a metre
    half_m = 0.4 * (AHEAD_M + BEHIND_M)
    width = round(2 * half_m * scale)
    picture = np.full((height, width, 3), _PAPER, np.uint8)
    vehicle = round(half_m * scale), round(AHEAD_M * scale)
    for ring in np.arange(_RING_M, AHEAD_M + 1, _RING_M):
        cv2.circle(picture, vehicle, round(float(ring) * scale), _LINES, 1, cv2.LINE_AA)
    if cloud is not None:
        _draw(picture, cloud, published, scale, half_m)
    cv2.drawMarker(picture, vehicle, _VEHICLE, cv2.MARKER_TRIANGLE_UP, 12, 2)
    return picture


def _draw(picture: Image, cloud: LabelledPoints, published: PublishedClasses, scale: float, half_m: float) -> None:
    """Low points first: what stands covers the ground. Points without a label are under all others."""
    ahead, left, up = _body_axes(cloud)
    with np.errstate(invalid="ignore"):
        row, col = (AHEAD_M - ahead) * scale, (half_m - left) * scale
        inside = (row >= 0) & (row < picture.shape[0]) & (col >= 0) & (col < picture.shape[1])
    index = np.flatnonzero(inside)
    order = index[np.lexsort((up[index], cloud.labels[index] != UNLABELLED))]
    colors = published.palette.copy()
    colors[UNLABELLED] = _UNLABELLED
    rows, cols = row[order].astype(np.intp), col[order].astype(np.intp)
    shades = colors.take(published.of(cloud.labels)[order], axis=0)
    for side in (0, 1):  # two pixels wide: a far point would not be seen
        picture[rows, np.minimum(cols + side, picture.shape[1] - 1)] = shades


def _body_axes(cloud: LabelledPoints) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Ahead, left, up: a LiDAR's own axes (REP-103), a depth camera's optical ones turned."""
    x, y, z = cloud.points[:, 0], cloud.points[:, 1], cloud.points[:, 2]
    return (x, y, z) if cloud.source.kind.is_points else (z, -x, -y)
