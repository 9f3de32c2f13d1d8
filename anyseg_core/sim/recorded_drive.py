"""A rendered drive kept in one file, so that it can be published in real time whatever rendering costs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.processes import Progress, map_over_processes
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.sensors import CAMERA, DEFAULT_SENSORS, DEPTH, EVENT, LIDAR, Sensor, SensorKind
from anyseg_core.sim.drive import Drive, DriveConfig, DriveFrame, frames_of

_FORMAT = 3
_DEPTH_UNIT_M = 0.001
_POINT_UNIT: NDArray[np.float32] = np.array([0.005, 0.005, 0.005, 0.01], np.float32)
"""Metres of x, y, z and steps of intensity per count; int16 then reaches 160 m."""
_LABELS, _POINT_LABELS = "labels", "point_labels"


class RecordingError(Exception):
    """A recording that cannot be read; the message names the file and the remedy."""


class RecordedDrive:
    """A drive's frames, about 1 MB each at 640x480, unpacked on access, with the rig that took them.

    Labels and events are kept exactly, depth to 1 mm, points to 5 mm, the camera as JPEG of quality 95. A loaded
    recording reads each frame from its file when it is asked for.
    """

    def __init__(
        self, rig: Rig, stamps_ns: list[int], arrays: Mapping[str, NDArray], sensors: Sequence[Sensor] = DEFAULT_SENSORS
    ) -> None:
        self._rig = rig
        self._stamps_ns = stamps_ns
        self._arrays = arrays  # "<frame>/<sensor or labels>" -> packed array
        self.sensors = tuple(sensors)

    @classmethod
    def of(cls, frames: Iterable[DriveFrame], rig: Rig) -> RecordedDrive:
        """A recording of `frames`."""
        stamps_ns: list[int] = []
        arrays: dict[str, NDArray] = {}
        sensors = DEFAULT_SENSORS
        for index, frame in enumerate(frames):
            sensors = tuple(frame.frames)
            stamps_ns.append(frame.stamp_ns)
            arrays.update({f"{index}/{name}": array for name, array in _packed(frame).items()})
        return cls(rig, stamps_ns, arrays, sensors)

    def __len__(self) -> int:
        return len(self._stamps_ns)

    def __iter__(self) -> Iterator[DriveFrame]:
        return (self.frame(index) for index in range(len(self)))

    def rig(self) -> Rig:
        """Camera intrinsics and LiDAR extrinsics."""
        return self._rig

    def frame(self, index: int) -> DriveFrame:
        """The frame at that index; raises IndexError outside the recording."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} is outside the recording of {len(self)} frames")
        stamp_ns = self._stamps_ns[index]
        data = {sensor: _PACKING[sensor.kind].unpack(self._arrays[f"{index}/{sensor}"]) for sensor in self.sensors}
        labels, point_labels = (self._arrays[f"{index}/{name}"] for name in (_LABELS, _POINT_LABELS))
        return DriveFrame(
            stamp_ns, frames_of(data, stamp_ns), _image(labels), point_labels if len(point_labels) else None
        )

    def save(self, path: Path) -> None:
        """Write the recording to one .npz file; it is there whole or not at all."""
        about = {
            "format": _FORMAT,
            "camera": asdict(self._rig.camera),
            "stamps_ns": self._stamps_ns,
            "sensors": {sensor: sensor.kind.name for sensor in self.sensors},
        }
        header = {"about": np.array(json.dumps(about)), "camera_from_lidar": self._rig.camera_from_lidar}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(path, os.getpid())
        try:
            with partial.open("wb") as file:
                np.savez(file, **header, **self._arrays)  # type: ignore[arg-type]
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> RecordedDrive:
        """Open a recording; raises RecordingError where the file is missing, damaged or of another format."""
        try:
            archive = np.load(path, allow_pickle=False)
            about = json.loads(str(archive["about"]))
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']}, expected {_FORMAT}")
            camera: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in about["camera"].items()}
            rig = Rig(PinholeCamera(**camera), archive["camera_from_lidar"])
            sensors = [Sensor(name, kind) for name, kind in about["sensors"].items()]
            return cls(rig, about["stamps_ns"], archive, sensors)
        except FileNotFoundError:
            raise RecordingError(f"no recording at {path}: render one with `anyseg simulate`") from None
        except (BadZipFile, EOFError, ValueError, KeyError, IndexError, TypeError, OSError) as error:
            raise RecordingError(f"{path} is not a recorded drive ({error}): render it again") from None


def partial_path(path: Path, process_id: int) -> Path:
    """Where that process writes a recording until it is complete."""
    return path.with_name(f".{path.name}.{process_id}")


@dataclass(frozen=True)
class _Stretch:
    """Some successive frames of a drive: what one process renders at a time."""

    config: DriveConfig
    start: int
    stop: int


_STRETCH_FRAMES = 20
"""Long enough that the extra look before a stretch's first frame, for its events, costs little."""


def record_drive(config: DriveConfig, workers: int = 1, progress: Progress | None = None) -> RecordedDrive:
    """Render a drive over `workers` processes; `progress` is called with (frames done, frames)."""
    drive = Drive(config)
    count = len(drive)
    stretches = [_Stretch(config, at, min(at + _STRETCH_FRAMES, count)) for at in range(0, count, _STRETCH_FRAMES)]
    stamps_ns: dict[int, int] = {}
    arrays: dict[str, NDArray] = {}
    for frames in map_over_processes(_render_stretch, stretches, workers):
        for index, stamp_ns, packed in frames:
            stamps_ns[index] = stamp_ns
            arrays.update({f"{index}/{name}": array for name, array in packed.items()})
        if progress is not None:
            progress(len(stamps_ns), count)
    return RecordedDrive(drive.rig(), [stamps_ns[index] for index in range(count)], arrays, config.sensors)


def _render_stretch(stretch: _Stretch) -> list[tuple[int, int, dict[str, NDArray]]]:
    """(index, stamp, packed arrays) of each frame."""
    drive = _drive_of(stretch.config)
    frames = ((index, drive.frame(index)) for index in range(stretch.start, stretch.stop))
    return [(index, frame.stamp_ns, _packed(frame)) for index, frame in frames]


@lru_cache(maxsize=1)
def _drive_of(config: DriveConfig) -> Drive:
    """A process builds the world once, not for each of its stretches."""
    return Drive(config)


def _packed(frame: DriveFrame) -> dict[str, NDArray]:
    """Compressed images, and points as integers."""
    arrays = {str(sensor): _PACKING[sensor.kind].pack(each.data) for sensor, each in frame.frames.items()}
    point_labels = np.zeros(0, np.uint8) if frame.point_labels is None else frame.point_labels
    return {**arrays, _LABELS: _compressed(frame.labels), _POINT_LABELS: point_labels}


class _Packing(NamedTuple):
    """How the data of a kind of sensor are kept."""

    pack: Callable[[NDArray], NDArray]
    unpack: Callable[[NDArray], NDArray]


def _pack_camera(rgb: NDArray) -> NDArray:
    return _compressed(rgb[..., ::-1], ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95])


def _unpack_camera(packed: NDArray) -> NDArray:
    return np.ascontiguousarray(_image(packed)[..., ::-1])


def _pack_depth(depth_m: NDArray) -> NDArray:
    return _compressed(np.round(np.nan_to_num(depth_m) / _DEPTH_UNIT_M).astype(np.uint16))


def _unpack_depth(packed: NDArray) -> NDArray:
    return _image(packed).astype(np.float32) * np.float32(_DEPTH_UNIT_M)


def _pack_events(counts: NDArray) -> NDArray:
    return _compressed(np.concatenate([counts[..., 0], counts[..., 1]]))  # [2H, W]


def _unpack_events(packed: NDArray) -> NDArray:
    return np.stack(np.split(_image(packed), 2), axis=-1)


def _pack_points(points: NDArray) -> NDArray:
    return np.clip(np.round(points / _POINT_UNIT), -32767, 32767).astype(np.int16)


def _unpack_points(packed: NDArray) -> NDArray:
    return packed * _POINT_UNIT


_PACKING: Mapping[SensorKind, _Packing] = {
    CAMERA: _Packing(_pack_camera, _unpack_camera),
    DEPTH: _Packing(_pack_depth, _unpack_depth),
    EVENT: _Packing(_pack_events, _unpack_events),
    LIDAR: _Packing(_pack_points, _unpack_points),
}


def _compressed(image: NDArray, kind: str = ".png", options: list[int] | None = None) -> NDArray:
    return cv2.imencode(kind, image, options or [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].ravel()


def _image(compressed: NDArray) -> NDArray:
    return cv2.imdecode(compressed, cv2.IMREAD_UNCHANGED)  # type: ignore[return-value]
