"""MUSES' raw sensors (arXiv 2401.12761): LiDAR and event files, calibration, motion compensation.

- LiDAR `.bin`: float64 [N, 6]: x, y, z in metres, intensity, ring, time in seconds.
- Events `.h5`: `events/{x,y,t,p}`, t in microseconds; what is used is the last 30 ms.
- `calib.json`: `intrinsics.{rgb,event}.K` (of 1920x1080 and of the event camera), `extrinsics.{lidar2rgb,event2rgb,
  lidar2gnss}`, 4x4 each.
- `meta.json`: per scene the paths of its files and the exposure of its frame.
- GNSS `.txt`: one line of 28 integers (u-blox), speed in mm/s and angular rates in 1e-5 degrees/s among them.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import optional_module
from anyseg_core.data.sample import DataError
from anyseg_core.runtime.extras import pip_command
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig

IMAGE_SIZE = (1080, 1920)
"""(height, width) of the frame camera, in which K of `rgb` is given."""
EVENT_WINDOW_US = 30_000
_GNSS_FIELDS = 28
_GROUND_SPEED, _RATES = 23, slice(17, 20)
"""Positions in the GNSS line: ground speed; rates of roll, pitch and heading."""


class Calibration(NamedTuple):
    """What calib.json says."""

    camera: NDArray[np.float64]
    """[3, 3], of an image of `IMAGE_SIZE`."""
    event_camera: NDArray[np.float64]
    """[3, 3]"""
    camera_from_lidar: NDArray[np.float64]
    """[4, 4], as the next two."""
    camera_from_events: NDArray[np.float64]
    gnss_from_lidar: NDArray[np.float64]

    def rig(self) -> Rig:
        """For the projection of LiDAR points."""
        k = self.camera
        height, width = IMAGE_SIZE
        # MUSES puts pixel centres at integers, as PinholeCamera does.
        camera = PinholeCamera(width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        return Rig(camera, self.camera_from_lidar)

    def events_to_image(self) -> NDArray[np.float64]:
        """Homography [3, 3] from pixels of the event camera to pixels of the frame camera.

        It takes the scene for infinitely far, so that only the rotation between the two cameras counts: what the
        rectification of MUSES' SDK amounts to.
        """
        return self.camera @ self.camera_from_events[:3, :3] @ np.linalg.inv(self.event_camera)


def read_json(path: Path) -> Any:
    """Raises DataError when the file is missing or no JSON."""
    try:
        return json.loads(path.read_text())
    except OSError:
        raise DataError(
            f"{path} is missing: MUSES' raw sensors need it (or give images projected by its SDK)"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from None


def read_calibration(path: Path) -> Calibration:
    """calib.json; raises DataError that names what is missing."""
    tree = read_json(path)
    try:
        intrinsics, extrinsics = tree["intrinsics"], tree["extrinsics"]
        values = [intrinsics[name]["K"] for name in ("rgb", "event")]
        values += [extrinsics[name] for name in ("lidar2rgb", "event2rgb", "lidar2gnss")]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} has no {error}: intrinsics of rgb and event, and three extrinsics expected") from None
    matrices = [np.array(value, np.float64) for value in values]
    if [matrix.shape for matrix in matrices] != [(3, 3)] * 2 + [(4, 4)] * 3:
        raise DataError(f"{path}: K must be 3x3 and extrinsics 4x4")
    return Calibration(*matrices)


def read_lidar(path: Path) -> NDArray[np.float64]:
    """[N, 6]: x, y, z, intensity, ring, time; raises DataError."""
    try:
        values = np.fromfile(path, np.float64)
    except OSError:
        raise DataError(f"{path} is missing: a LiDAR sweep was expected") from None
    if values.size % 6:
        raise DataError(
            f"{path} is damaged: {values.size} numbers are no multiple of 6 (x, y, z, intensity, ring, time)"
        )
    return values.reshape(-1, 6)


def read_events(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """x [E], y [E] and polarity [E] (1 = positive) of the last 30 ms; raises DataError."""
    if not path.is_file():
        raise DataError(f"{path} is missing: an event file was expected")
    h5py = optional_module("h5py", path)
    with contextlib.suppress(ModuleNotFoundError):
        import hdf5plugin  # noqa: F401  # registers the compression that MUSES' files use
    try:
        with h5py.File(path) as file:
            t, x, y, p = (np.asarray(file[f"events/{name}"]) for name in "txyp")
    except KeyError as error:
        raise DataError(f"{path} has no events/t, x, y and p: {error}") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: damaged, or compressed and hdf5plugin is missing ({pip_command('muses')}): {error}"
        ) from None
    recent = t.astype(np.int64) >= (int(t.max()) if t.size else 0) - EVENT_WINDOW_US
    return x[recent], y[recent], p[recent]


def event_counts(
    x: NDArray[Any], y: NDArray[Any], polarity: NDArray[Any], to_image: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Events -> uint8 [1080, 1920, 2]: positive and negative counts per pixel of the frame camera, saturating."""
    height, width = IMAGE_SIZE
    points = to_image @ np.stack([x, y, np.ones(len(x))]).astype(np.float64)  # [3, E]
    cols, rows = np.rint(points[:2] / points[2]).astype(np.int64)
    inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
    index = (rows * width + cols)[inside]
    negative = polarity[inside] == 0
    counts = [np.bincount(index[chosen], minlength=height * width) for chosen in (~negative, negative)]
    return np.minimum(np.stack(counts, axis=1), 255).astype(np.uint8).reshape(height, width, 2)


def compensate_motion(
    points: NDArray[np.float64], meta: dict[str, Any], gnss: Path, gnss_from_lidar: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Move each point [N, 6] to where it is when the frame is exposed; raises DataError.

    The car is taken to drive straight ahead at the GNSS' speed and to turn at its angular rates.
    """
    speed, rates = _read_gnss(gnss)
    try:
        exposed_s = sum(int(meta[f"frame_camera_exposure_{end}_timestamp_us"]) for end in ("start", "end")) / 2e6
    except KeyError as error:
        raise DataError(f"meta.json has no {error} beside {gnss.name}") from None
    late = points[:, 5] - exposed_s  # [N] seconds
    in_gnss = points[:, :3] @ gnss_from_lidar[:3, :3].T + gnss_from_lidar[:3, 3]  # [N, 3], x ahead
    in_gnss[:, 0] += speed * late
    turned = np.einsum("nij,nj->ni", rotations(rates * late[:, None]), in_gnss)
    back = np.linalg.inv(gnss_from_lidar)
    moved = points.copy()
    moved[:, :3] = turned @ back[:3, :3].T + back[:3, 3]
    return moved


def rotations(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Roll, pitch and yaw in radians [N, 3] -> Rz(yaw) Ry(pitch) Rx(roll) [N, 3, 3]."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(angles).T, np.cos(angles).T
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def _read_gnss(path: Path) -> tuple[float, NDArray[np.float64]]:
    """Ground speed in m/s, and rates of roll, pitch and heading in rad/s [3]."""
    try:
        values = [int(word) for word in path.read_text().split("\n", 1)[0].split()]
    except OSError:
        raise DataError(
            f"{path} is missing: motion compensation needs it (or set data.motion_compensation false)"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from None
    if len(values) != _GNSS_FIELDS:
        raise DataError(f"{path} is damaged: a line of {_GNSS_FIELDS} integers was expected, found {len(values)}")
    return values[_GROUND_SPEED] / 1e3, np.deg2rad(np.array(values[_RATES]) / 1e5)
