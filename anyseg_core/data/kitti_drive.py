"""A drive of KITTI's raw data (Geiger et al., IJRR 2013) from its folder: one colour camera and the LiDAR.

<drive>/image*/…/*.png or .jpg      the pictures, in the order of their names
<drive>/velodyne*/…/*.bin           a scan for each: float32 x, y, z, reflectance (0 to 1)
<drive>/calib*.txt                  P2, R0_rect and Tr_velo_to_cam, as in the object benchmark
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import read_image
from anyseg_core.data.sample import DataError
from anyseg_core.runtime.files import files_below
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.sensors import Sensor, SensorFrame

RATE_HZ = 10.0
"""Of KITTI's cameras and LiDAR."""
_MATRICES = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)}


class KittiDrive:
    """The frames of a drive, of the share from `first` to `last` of it. Raises DataError where files are missing."""

    def __init__(self, root: Path, first: float = 0.0, last: float = 1.0) -> None:
        images = sorted(path for ending in ("png", "jpg") for path in files_below(root, f"image*/**/*.{ending}"))
        scans = files_below(root, "velodyne*/**/*.bin")
        if not images or len(images) != len(scans):
            raise DataError(f"{root} has {len(images)} pictures in image*/ and {len(scans)} scans in velodyne*/")
        apart = next(((i, s) for i, s in zip(images, scans, strict=True) if i.stem != s.stem), None)
        if apart is not None:
            raise DataError(
                f"{apart[0]} and {apart[1]} are not of one moment: remove what has no partner of its number"
            )
        if not 0 <= first <= last <= 1:
            raise DataError(f"a part of a drive is from 0 to 1, such as 0.2 0.5, not {first:g} {last:g}")
        begin, end = round(first * len(images)), round(last * len(images))
        if begin >= end:
            raise DataError(f"no frame of {root} lies between {first:g} and {last:g} of its {len(images)}")
        self._pairs = [*zip(images, scans, strict=True)][begin:end]
        self._begin = begin
        height, width = read_image(images[0]).shape[:2]
        self.rig = read_rig(_calibration_file(root), width, height)

    def __len__(self) -> int:
        return len(self._pairs)

    def frames(self) -> Iterator[tuple[int, dict[Sensor, SensorFrame]]]:
        """Stamp in nanoseconds and both sensors' frames of each moment. Raises DataError for a damaged file."""
        for number, (image, scan) in enumerate(self._pairs, start=self._begin):
            stamp_ns = 10**9 + round(number * 1e9 / RATE_HZ)
            yield (
                stamp_ns,
                {
                    Sensor.CAMERA: SensorFrame(Sensor.CAMERA, read_image(image), stamp_ns),
                    Sensor.LIDAR: SensorFrame(Sensor.LIDAR, read_points(scan), stamp_ns),
                },
            )


def read_points(path: Path) -> NDArray[np.float32]:
    """A scan [N, 4]; raises DataError where the file holds no whole number of points."""
    numbers = np.fromfile(path, np.float32)
    if numbers.size == 0 or numbers.size % 4:
        raise DataError(f"{path} holds {numbers.size} numbers: four of each point were expected")
    return numbers.reshape(-1, 4)


def read_rig(path: Path, width: int, height: int) -> Rig:
    """The rectified colour camera 2 and where the LiDAR is seen from it. Raises DataError."""
    lines = [line.partition(":") for line in path.read_text(errors="replace").splitlines()]
    texts = {key.strip(): text for key, _, text in lines}
    matrices = {}
    for name, shape in _MATRICES.items():
        try:
            matrices[name] = np.array(texts[name].split(), float).reshape(shape)
            if not np.isfinite(matrices[name]).all() or not np.linalg.det(matrices[name][:, :3]):
                raise ValueError(name)
        except (KeyError, ValueError):
            raise DataError(f"{path} has no {name} of {shape[0]} x {shape[1]} numbers") from None
    projection, rectify, camera_from_lidar = np.eye(4), np.eye(4), np.eye(4)
    intrinsics = matrices["P2"][:, :3]
    projection[:3, 3] = np.linalg.solve(intrinsics, matrices["P2"][:, 3])  # beside camera 0
    rectify[:3, :3], camera_from_lidar[:3] = matrices["R0_rect"], matrices["Tr_velo_to_cam"]
    (fx, _, cx), (_, fy, cy) = intrinsics[0], intrinsics[1]
    return Rig(PinholeCamera(width, height, fx, fy, cx, cy), projection @ rectify @ camera_from_lidar)


def _calibration_file(root: Path) -> Path:
    found = sorted(root.glob("calib*.txt"))
    if not found:
        raise DataError(f"{root} has no calib*.txt with P2, R0_rect and Tr_velo_to_cam")
    return found[0]
