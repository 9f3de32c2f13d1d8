"""LiDAR points -> camera image: pinhole projection with a z-buffer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PinholeCamera:
    """Intrinsics of a rectified image, in pixels (`K` of sensor_msgs/CameraInfo).

    Raises ValueError for a size or focal length that is not positive and finite.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy)
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"camera size {self.width}x{self.height} must be positive")
        if not all(np.isfinite(numbers)) or self.fx <= 0 or self.fy <= 0:
            raise ValueError(f"camera intrinsics fx, fy, cx, cy = {numbers} must be finite, focal lengths positive")

    def resized(self, height: int, width: int) -> PinholeCamera:
        """The same camera after its image was resized to `height` x `width` (pixel centres at integers + 0.5)."""
        sx, sy = width / self.width, height / self.height
        return PinholeCamera(
            width,
            height,
            self.fx * sx,
            self.fy * sy,
            (self.cx + 0.5) * sx - 0.5,
            (self.cy + 0.5) * sy - 0.5,
        )


@dataclass(frozen=True, eq=False)
class Rig:
    """What is needed to bring LiDAR points into the anchor image.

    `camera_from_lidar` is the 4x4 rigid transform from the LiDAR frame to the camera's optical frame
    (x right, y down, z forward; REP-103).
    """

    camera: PinholeCamera
    camera_from_lidar: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))

    def __post_init__(self) -> None:
        transform = np.asarray(self.camera_from_lidar)
        if transform.shape != (4, 4) or not np.isfinite(transform).all():
            raise ValueError("camera_from_lidar must be a finite 4x4 matrix")


def project_points(
    points: NDArray[np.float32], rig: Rig, height: int, width: int, min_depth: float = 0.1
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Project points into an image of `height` x `width` that shows the rig camera's field of view.

    Args:
        points: [N, >=3], x, y, z in metres in the LiDAR frame; NaN points are dropped.
        min_depth: metres; nearer points and points behind the camera are dropped.

    Returns:
        `rows` [K], `cols` [K], `index` [K] into `points`, and `camera_xyz` [K, 3] in metres, ordered far
        to near, so that writing them in order leaves the nearest point in each pixel (z-buffer).
    """
    camera = rig.camera.resized(height, width)
    rotation = rig.camera_from_lidar[:3, :3].astype(np.float32)
    translation = rig.camera_from_lidar[:3, 3:].astype(np.float32)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        xyz = rotation @ points[:, :3].T + translation  # [3, N]: coordinates apart, so that each step is contiguous
        x, y, z = xyz
        col = x * camera.fx / z + (camera.cx + 0.5)  # [N]
        row = y * camera.fy / z + (camera.cy + 0.5)
    # NaN compares false everywhere, so NaN points are dropped here.
    index = np.flatnonzero((z > min_depth) & (col >= 0) & (col < width) & (row >= 0) & (row < height))  # [K]
    index = index[np.argsort(-z[index])]
    return row[index].astype(np.int64), col[index].astype(np.int64), index, xyz.take(index, axis=1).T
