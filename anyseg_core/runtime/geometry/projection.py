"""LiDAR points -> camera image: pinhole projection with a z-buffer, and compensation of the vehicle's own motion."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.distortion import Distortion
from anyseg_core.runtime.sensors import OPTICAL_SUFFIXES, Sensor

_NEARLY_THE_SAME = 1 + 2 * np.cos(np.radians(30))
"""Trace of a rotation by less than 30 degrees."""


@dataclass(frozen=True)
class PinholeCamera:
    """Intrinsics of an image, in pixels: of a rectified one (`P` of sensor_msgs/CameraInfo) without a distortion, of a
    raw one (`K`) with that of its lens.

    Raises ValueError for a size or focal length that is not positive and finite.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Distortion | None = None
    rectification: tuple[float, ...] = ()
    """`R` of sensor_msgs/CameraInfo, row by row: the rotation into the axes of a rectified image; empty = none."""
    center: tuple[float, float] = (0.0, 0.0)
    """Where the lens is in the rectified axes of its optical frame, in metres to the right and down: the right camera
    of a stereo pair names the left one's frame, and `P` of sensor_msgs/CameraInfo says how far beside it it sits."""

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.center)
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"camera size {self.width}x{self.height} must be positive")
        if not all(np.isfinite(numbers)) or self.fx <= 0 or self.fy <= 0:
            raise ValueError(
                f"camera intrinsics fx, fy, cx, cy, center = {numbers} must be finite, focal lengths positive"
            )

    @property
    def picture_from_optical(self) -> NDArray[np.float64]:
        """4x4, from the optical frame, which TF knows, to the axes that the picture is projected in."""
        transform = np.eye(4)
        if self.rectification:
            transform[:3, :3] = np.reshape(self.rectification, (3, 3))
        transform[:2, 3] = np.negative(self.center)
        return transform

    @property
    def lens(self) -> NDArray[np.float64]:
        """Where it is in its optical frame, [3] in metres."""
        return np.asarray(np.linalg.inv(self.picture_from_optical)[:3, 3], np.float64)

    @property
    def undistorted(self) -> PinholeCamera:
        """The same camera after its lens' distortion was taken out of the picture."""
        return replace(self, distortion=None)

    def resized(self, height: int, width: int) -> PinholeCamera:
        """The same camera after its image was resized to `height` x `width` (pixel centres at integers + 0.5)."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )


@dataclass(frozen=True, eq=False)
class Rig:
    """What is needed to bring LiDAR points into the anchor image.

    `camera_from_lidar` is the 4x4 rigid transform from the LiDAR frame to the camera's optical frame
    (x right, y down, z forward; REP-103).
    """

    camera: PinholeCamera
    camera_from_lidar: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    source: str = ""
    """Where the extrinsics come from, in words."""
    missing: str = ""
    """Why nobody knows where the LiDAR sits, in words; its points must not be drawn then. Empty = it is known."""
    frame_id: str = ""
    """The camera's optical frame: that of what is drawn in its picture."""
    sensor: Sensor | None = None
    """Whose pictures the intrinsics are of, where it is known."""

    def __post_init__(self) -> None:
        transform = np.asarray(self.camera_from_lidar)
        if transform.shape != (4, 4) or not np.isfinite(transform).all():
            raise ValueError("camera_from_lidar must be a finite 4x4 matrix")

    @property
    def picture_from_lidar(self) -> NDArray[np.float64]:
        """4x4, from the LiDAR frame to the axes that the camera's picture is projected in."""
        return self.camera.picture_from_optical @ self.camera_from_lidar

    def odd_axes(self, lidar_frame: str) -> str:
        """What is odd about the extrinsics of a LiDAR of that frame, in words; empty where nothing is.

        A LiDAR's x is ahead and its z up, a picture's z is ahead: axes that are the same are of a driver that names the
        camera's body where its optical frame belongs, and the points behind the horizon are drawn, those ahead not.
        """
        turn = np.asarray(self.camera_from_lidar)[:3, :3]
        if self.missing or np.trace(turn) < _NEARLY_THE_SAME or lidar_frame.endswith(OPTICAL_SUFFIXES):
            return ""
        camera = f"camera_info's {self.frame_id}" if self.frame_id else "rig.camera_from_lidar_rotation_xyzw"
        return (
            f"{camera} has the axes of {lidar_frame or 'the LiDAR'} (x ahead), where an optical frame is needed "
            "(x right, y down, z ahead; REP-103): points are drawn beside their place"
        )


def is_same_rig(rig: Rig | None, other: Rig | None) -> bool:
    """Whether what was seen through one can be compared with what is seen through the other."""
    if rig is None or other is None or rig is other:
        return rig is other
    return rig.camera == other.camera and np.array_equal(rig.camera_from_lidar, other.camera_from_lidar)


@dataclass(frozen=True, eq=False)
class Twist:
    """Constant velocity of a sensor, in its own axes: `linear` [3] in m/s, `angular` [3] in rad/s.

    nav_msgs/Odometry tells that of the vehicle's base: `seen_from` gives the sensor's.
    """

    linear: NDArray[np.float64]
    angular: NDArray[np.float64]

    def __post_init__(self) -> None:
        values = [np.asarray(self.linear, float), np.asarray(self.angular, float)]
        if any(value.shape != (3,) or not np.isfinite(value).all() for value in values):
            raise ValueError(f"a twist needs 3 finite numbers twice, not {self.linear} and {self.angular}")

    @property
    def speed_mps(self) -> float:
        """Length of `linear`."""
        return float(np.linalg.norm(self.linear))

    def seen_from(self, sensor_from_base: NDArray[np.float64]) -> Twist:
        """The twist of a sensor that is bolted to this body; 4x4 transform from the body's axes to the sensor's."""
        rotation, translation = sensor_from_base[:3, :3], sensor_from_base[:3, 3]
        position = -rotation.T @ translation  # of the sensor, in the body's axes
        linear = self.linear + np.asarray(np.cross(self.angular, position), np.float64)
        return Twist(rotation @ linear, rotation @ self.angular)

    @classmethod
    def between(cls, first: NDArray[np.float64], second: NDArray[np.float64], seconds: float) -> Twist:
        """The twist that leads from one pose to the other in so many seconds; 4x4 world_from_sensor.

        The logarithm of the relative pose (Murray, Li and Sastry, "Robotic Manipulation", 1994, section 2.3). Raises
        ValueError where `seconds` is not > 0.
        """
        if not 0 < seconds < np.inf:
            raise ValueError(f"two poses {seconds} s apart tell no velocity: it must be > 0")
        relative = np.linalg.inv(first) @ second
        rotation, translation = relative[:3, :3], relative[:3, 3]
        axis_sine = 0.5 * (rotation - rotation.T)[[2, 0, 1], [1, 2, 0]]  # sin(angle) times the axis
        angle = float(np.arctan2(np.linalg.norm(axis_sine), 0.5 * (np.trace(rotation) - 1.0)))
        angular = axis_sine / max(np.sinc(angle / np.pi), 1e-9)  # [3], angle times the axis
        # The translation is the integral of the turning velocity: solve for the velocity.
        columns = [_moved(np.zeros((1, 3)), np.ones(1), basis, angular)[0] for basis in np.eye(3)]
        linear = np.linalg.solve(np.stack(columns, axis=1), translation)
        return cls(np.asarray(linear / seconds, np.float64), np.asarray(angular / seconds, np.float64))


def compensate_motion(points: NDArray[np.float32], seconds: NDArray[np.floating], twist: Twist) -> NDArray[np.float32]:
    """Where each point is in the sensor's axes at one moment, though the sensor moved while it scanned.

    Args:
        points: [N, >=3], x, y, z in metres in the sensor's axes at the moment each was measured; the rest is kept.
        seconds: [N], or [1] for all of them: when each was measured, after the moment (the camera's stamp, say) that
            is asked for.
        twist: of the sensor meanwhile.

    Returns:
        [N, >=3] float32. A standing scene is then seen as from one place; what moves by itself is not corrected.
    """
    moved = points.astype(np.float32, copy=True)
    if len(seconds) == 1:  # a rigid motion: to move the axes is enough
        axes = _moved(np.vstack([np.zeros(3), np.eye(3)]), seconds, twist.linear, twist.angular).astype(np.float32)
        moved[:, :3] = ((axes[1:] - axes[0]).T @ points[:, :3].T + axes[0][:, None]).T
    else:
        moved[:, :3] = _moved(moved[:, :3], seconds, twist.linear, twist.angular)
    return moved


def _moved(points: NDArray, seconds: NDArray, linear: NDArray, angular: NDArray) -> NDArray:
    """Points [N, 3] by the motion that lasts `seconds` [N]: exp of the twist, Rodrigues' formula for every point.

    In the precision of the points.
    """
    xyz = np.ascontiguousarray(points.T)  # [3, N]: coordinates apart, so that each step is contiguous
    t = np.asarray(seconds, xyz.dtype)  # [N]
    rate = float(np.linalg.norm(angular))
    if rate < 1e-9:
        return (xyz + linear[:, None].astype(xyz.dtype) * t).T
    x, y, z = angular / rate
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])  # cross @ p is the axis times p
    directions = np.stack([linear, cross @ linear, cross @ cross @ linear], axis=1).astype(xyz.dtype)  # [3, 3]
    cross = cross.astype(xyz.dtype)
    sine, versine = np.sin(rate * t), 1 - np.cos(rate * t)  # [N]
    once = cross @ xyz  # [3, N]
    turned = xyz + sine * once + versine * (cross @ once)
    return (turned + directions @ np.stack([t, versine / rate, t - sine / rate])).T


@dataclass(frozen=True, eq=False)
class PointsInView:
    """The points that fall into an image."""

    row: NDArray[np.float32]
    """[K], in pixels from the image's upper edge: its integer part is the pixel's row, ..."""
    col: NDArray[np.float32]
    """[K], ... and from the left edge."""
    index: NDArray[np.int64]
    """[K], into the cloud."""
    xyz: NDArray[np.float32]
    """[3, K], in metres in the axes that the picture is projected in."""


def points_in_view(
    points: NDArray[np.float32], rig: Rig, height: int, width: int, min_depth: float = 0.1
) -> PointsInView:
    """The points that fall into an image of `height` x `width` that shows the rig camera's field of view.

    Args:
        points: [N, >=3], x, y, z in metres in the LiDAR frame; NaN points are dropped.
        min_depth: metres; nearer points and points behind the camera are dropped.
    """
    camera = rig.camera.resized(height, width)
    extrinsics = rig.picture_from_lidar
    rotation, translation = extrinsics[:3, :3].astype(np.float32), extrinsics[:3, 3:].astype(np.float32)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        xyz = rotation @ points[:, :3].T + translation  # [3, N]: coordinates apart, so that each step is contiguous
        x, y, z = xyz
        if camera.distortion is None:
            col = x * camera.fx / z + (camera.cx + 0.5)  # [N]
            row = y * camera.fy / z + (camera.cy + 0.5)
        else:
            x_drawn, y_drawn = camera.distortion.apply(x / z, y / z)
            col = np.asarray(x_drawn * camera.fx + (camera.cx + 0.5), np.float32)
            row = np.asarray(y_drawn * camera.fy + (camera.cy + 0.5), np.float32)
    # NaN compares false everywhere, so NaN points are dropped here.
    index = np.flatnonzero((z > min_depth) & (col >= 0) & (col < width) & (row >= 0) & (row < height))  # [K]
    return PointsInView(row.take(index), col.take(index), index, xyz.take(index, axis=1))


def in_optical_frame(points: NDArray[np.float32], camera: PinholeCamera) -> NDArray[np.float32]:
    """Points [N, 3] in the axes that a picture is projected in -> those of the optical frame, which TF knows."""
    if not camera.rectification and not any(camera.center):
        return points
    rotation, translation = np.split(camera.picture_from_optical[:3].astype(np.float32), [3], axis=1)
    return (points - translation.T) @ rotation


def project_points(
    points: NDArray[np.float32], rig: Rig, height: int, width: int, min_depth: float = 0.1
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """`points_in_view`, ordered far to near, so that writing them in order leaves the nearest in each pixel (z-buffer).

    Returns:
        `rows` [K], `cols` [K], `index` [K] into `points`, and `xyz` [K, 3] in the camera's axes, in metres.
    """
    view = points_in_view(points, rig, height, width, min_depth)
    order = np.argsort(-view.xyz[2])
    rows, cols = view.row[order].astype(np.int64), view.col[order].astype(np.int64)
    return rows, cols, view.index[order], view.xyz.take(order, axis=1).T
