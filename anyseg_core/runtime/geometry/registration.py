"""Pictures of one lens or place -> those of another: rectified ones, and depth and events in the camera's picture.

What image_proc's `rectify` and depth_image_proc's `register` do in ROS 2. Events have no depth: they are taken for
those of a wall at a chosen distance.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.depth_geometry import camera_points, measured_pixels
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, in_optical_frame, points_in_view


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
    points = in_optical_frame(camera_points(depth_m, depth_camera)[measured], depth_camera)  # [N, 3]
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


_FINEST = 8
"""Times the camera's resolution: more needs maps of hundreds of megabytes, for a lens that sees next to nothing."""


class EventRegistration:
    """Brings event counts into the camera's picture as if all that moves were on a wall at one distance ahead.

    What is nearer or farther is drawn beside its place: `error_px`. Outside the event camera's view nothing happens.
    """

    def __init__(
        self,
        event_camera: PinholeCamera,
        camera: PinholeCamera,
        event_from_camera: NDArray[np.float64],
        distance_m: float,
    ) -> None:
        """
        Args:
            event_camera: intrinsics of the raw events, with the distortion of their lens.
            camera: those of the other camera's rectified pictures.
            event_from_camera: 4x4, from the camera's optical frame to the event camera's.
            distance_m: of the wall along the camera's optical axis.

        Raises ValueError where the distance is not positive, or the camera has a distortion.
        """
        if not 0 < distance_m < math.inf:
            raise ValueError(f"distance_m is {distance_m} and must be positive and finite")
        if camera.distortion is not None:
            raise ValueError("camera has a distortion: events are registered to rectified pictures only")
        self._size = camera.height, camera.width
        self._offset = event_from_camera[:3, :3] @ camera.lens + event_from_camera[:3, 3]
        self._focal_px, self._distance_m = camera.fx, distance_m
        # Events of a finer camera are looked up at their own resolution and then averaged, so that none is left out.
        finer = min(max(1, round(event_camera.fx / camera.fx)), _FINEST)
        fine = camera.resized(camera.height * finer, camera.width * finer)
        wall = np.full((fine.height, fine.width), distance_m, np.float32)
        points = in_optical_frame(camera_points(wall, fine).reshape(-1, 3), fine)  # [N, 3]
        view = points_in_view(points, Rig(event_camera, event_from_camera), event_camera.height, event_camera.width)
        self._row, self._col = (np.full((fine.height, fine.width), -1.0, np.float32) for _ in range(2))
        self._row.reshape(-1)[view.index] = np.floor(view.row)
        self._col.reshape(-1)[view.index] = np.floor(view.col)

    def register(self, counts: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Counts uint8 [h, w, 2] of the event camera -> [H, W, 2] of the camera's size."""
        found = cv2.remap(
            counts, self._col, self._row, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
        if found.shape[:2] != self._size:
            found = cv2.resize(found, self._size[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(found, np.uint8)

    def error_px(self, distance_m: float) -> float:
        """How far beside its place, in pixels of the camera, something at that distance (may be infinite) is drawn."""
        return self._focal_px * float(np.hypot(*self._offset[:2])) * abs(1.0 / distance_m - 1.0 / self._distance_m)


def _footprint(ratio: float) -> int:
    """How many pixels a measurement covers along one axis."""
    return max(1, math.ceil(ratio - 0.05))
