"""Pictures of one lens or place -> those of another: rectified ones, and depth in the camera's picture.

What image_proc's `rectify` and depth_image_proc's `register` do in ROS 2.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.depth_geometry import camera_points, measured_pixels
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, points_in_view


class Rectification:
    """Takes the distortion of a lens out of its pictures; what is no longer in view at the edges is lost.

    The rectified picture has the raw one's size, focal lengths and centre: `camera` are its intrinsics.
    """

    def __init__(self, raw: PinholeCamera) -> None:
        self.camera = raw.undistorted
        row, col = np.mgrid[: raw.height, : raw.width].astype(np.float64)  # [H, W] each
        x, y = (col - raw.cx) / raw.fx, (row - raw.cy) / raw.fy
        if raw.distortion is not None:
            x, y = raw.distortion.apply(x, y)
        self._col = np.nan_to_num(x * raw.fx + raw.cx, nan=-1e4).astype(np.float32)
        self._row = np.nan_to_num(y * raw.fy + raw.cy, nan=-1e4).astype(np.float32)

    def rectify(self, picture: NDArray[Any], *, averages: bool) -> NDArray[Any]:
        """The rectified picture [H, W, ...], 0 where the lens saw nothing.

        Args:
            picture: [H, W, ...], raw.
            averages: whether pixels may be mixed, as colours; distances and labels must not be.
        """
        how = cv2.INTER_LINEAR if averages else cv2.INTER_NEAREST
        return cv2.remap(picture, self._col, self._row, how, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def register_depth(
    depth_m: NDArray[np.float32],
    depth_camera: PinholeCamera,
    camera: PinholeCamera,
    camera_from_depth: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Depth as the camera would measure it at each of its pixels; the nearest wins where surfaces hide each other.

    Args:
        depth_m: [h, w], metres, of rectified pictures; 0, negative, NaN: not measured.
        depth_camera: its intrinsics.
        camera: those of the other camera, with or without a distortion.
        camera_from_depth: 4x4, from the depth camera's optical frame to the camera's.

    Returns:
        [H, W] float32 of the camera's size, in metres from the camera; NaN where nothing was measured. Where the camera
        has more pixels for an angle than the depth camera, one measurement fills as many as it covers.
    """
    measured = measured_pixels(depth_m)
    points = camera_points(depth_m, depth_camera)[measured]  # [N, 3]
    view = points_in_view(points, Rig(camera, camera_from_depth), camera.height, camera.width)
    native = depth_camera.resized(*depth_m.shape)  # type: ignore[arg-type]
    down, across = (_footprint(ratio) for ratio in (camera.fy / native.fy, camera.fx / native.fx))
    registered = np.full((camera.height, camera.width), np.inf, np.float32)
    flat = registered.reshape(-1)
    top, left = (np.floor(at - (size - 1) / 2).astype(np.int64) for at, size in ((view.row, down), (view.col, across)))
    for row_offset in range(down):
        for col_offset in range(across):
            row, col = top + row_offset, left + col_offset
            inside = (row >= 0) & (row < camera.height) & (col >= 0) & (col < camera.width)
            np.minimum.at(flat, (row * camera.width + col)[inside], view.xyz[2][inside])
    registered[np.isinf(registered)] = np.nan
    return registered


def _footprint(ratio: float) -> int:
    """How many pixels a measurement covers along one axis."""
    return max(1, math.ceil(ratio - 0.05))
