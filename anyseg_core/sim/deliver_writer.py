"""Simulated drives in DELIVER's layout on disk, as the network images a student of this vehicle takes.

`<root>/<folder>/<weather>/<split>/MAP_<seed>_point0/<frame>_<suffix>_front.png`, and `<root>/inputs.json`: the
`InputSpec`s that made the images, which training copies to the model card.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.processes import Progress, map_over_processes
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.input_images import Size, encode_frame
from anyseg_core.runtime.model_card import DepthEncoding, EventEncoding, InputSpec, LidarEncoding, RgbEncoding
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.sim.drive import CAMERA_HEIGHT_M, Drive, DriveConfig, DriveFrame
from anyseg_core.sim.weather import WEATHERS

VEHICLE_INPUTS: tuple[InputSpec, ...] = (
    InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    InputSpec(modality=Sensor.DEPTH, encoding=DepthEncoding(scale="log", near_m=1.5, far_m=55.0)),
    InputSpec(modality=Sensor.EVENT, encoding=EventEncoding(gain=60.0)),
    InputSpec(
        modality=Sensor.LIDAR,
        encoding=LidarEncoding(max_range_m=70.0, max_intensity=255.0, camera_height_m=CAMERA_HEIGHT_M),
    ),
)
"""How the simulated vehicle's sensors become network images; the camera with ImageNet's statistics."""

FOLDER_OF: dict[Sensor, tuple[str, str]] = {
    Sensor.CAMERA: ("img", "rgb"),
    Sensor.DEPTH: ("depth", "depth"),
    Sensor.EVENT: ("event", "event"),
    Sensor.LIDAR: ("lidar", "lidar"),
}
"""DELIVER's folder and file suffix of each modality."""
LABEL_FOLDER = ("semantic", "semantic")
INPUTS_NAME = "inputs.json"

_LONGEST_S = 3600.0
_FIRST_SEED = {"train": 1_000_000, "val": 2_000_000, "test": 3_000_000}
_PNG_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]


@dataclass(frozen=True)
class DriveJob:
    """One drive to write: every `every`-th frame, from `every - 1` on."""

    root: Path
    split: str
    config: DriveConfig
    every: int
    size: Size


def simulate_dataset(  # noqa: PLR0913 - the choices of one data set, named by keyword
    root: Path,
    train_drives: int,
    val_drives: int,
    frames_per_drive: int,
    *,
    test_drives: int = 0,
    size: Size = (256, 256),
    every_s: float = 0.8,
    workers: int = 2,
    progress: Progress | None = None,
) -> int:
    """Render drives and write them; returns the number of frames written.

    Each drive has its own world; no seed is in two splits. Weathers take turns from drive to drive. Frames are
    `every_s` apart, while events are those of the 10 Hz period before each frame. Re-running overwrites.

    Raises ValueError for counts that are negative or leave nothing to render, and where `root` holds other frames, of
    which a training would take those, too.
    """
    counts = {"train": train_drives, "val": val_drives, "test": test_drives}
    if min(counts.values()) < 0 or sum(counts.values()) == 0 or frames_per_drive < 1:
        raise ValueError(f"nothing to simulate: drives {counts}, frames_per_drive {frames_per_drive}")
    if not 0 < every_s <= _LONGEST_S or abs(every_s * 10 - round(every_s * 10)) > 1e-6:
        raise ValueError(f"every_s must be tenths of seconds up to {_LONGEST_S:g}, not {every_s:g}")
    every = round(every_s * 10)
    jobs = [
        DriveJob(root, split, drive_config(split, k, frames_per_drive * every / 10), every, size)
        for split, count in counts.items()
        for k in range(count)
    ]
    _require_same_settings(root, jobs, {every * (k + 1) - 1 for k in range(frames_per_drive)}, size)
    root.mkdir(parents=True, exist_ok=True)
    write_inputs(root, size)
    return sum(map_over_processes(write_drive, jobs, workers, progress))


def _require_same_settings(root: Path, jobs: Sequence[DriveJob], indices: Collection[int], size: Size) -> None:
    """Raises ValueError where a folder holds images that were encoded otherwise, or frames that would be left over."""
    there = sorted((root / LABEL_FOLDER[0]).glob("*/*/*/*.png"))
    if not there:
        return
    if not (root / INPUTS_NAME).is_file() or (root / INPUTS_NAME).read_text() != _inputs_as_json(size):
        raise ValueError(
            f"{root} holds a data set of other images or another size: choose another folder, or remove it"
        )
    planned = {_path(job, index, *LABEL_FOLDER) for job in jobs for index in indices}
    left = [path for path in there if path not in planned and path.parent.parent.name in {job.split for job in jobs}]
    if left:
        raise ValueError(
            f"{root} holds {len(left)} frames of other settings, such as {left[0]}, which would be trained on, too: "
            "choose another folder, or remove it"
        )


def drive_config(split: str, number: int, duration_s: float) -> DriveConfig:
    """The configuration of the split's drive of that number; its cruising speed is its own too."""
    seed = _FIRST_SEED[split] + number
    speed = float(np.random.default_rng([seed, 6]).uniform(4.0, 12.0))
    return DriveConfig(seed, WEATHERS[number % len(WEATHERS)], duration_s, speed_mps=speed)


def write_inputs(root: Path, size: Size) -> None:
    """Write the `InputSpec`s as a JSON list; LiDAR's says that points were drawn at the images' size."""
    (root / INPUTS_NAME).write_text(_inputs_as_json(size))


def _inputs_as_json(size: Size) -> str:
    inputs = [spec.encoded_with(drawn_at=size) if spec.modality == Sensor.LIDAR else spec for spec in VEHICLE_INPUTS]
    specs = [spec.model_dump(mode="json") for spec in inputs]
    return json.dumps(specs, indent=2) + "\n"


def write_drive(job: DriveJob) -> int:
    """Render and write one drive; returns the number of frames."""
    drive = Drive(job.config)
    indices = range(job.every - 1, len(drive), job.every)
    for index in indices:
        write_frame(job, index, drive.frame(index), drive.rig())
    return len(indices)


def write_frame(job: DriveJob, index: int, frame: DriveFrame, rig: Rig) -> None:
    """Write one frame's four network images and its labels (channel 0 = class + 1, 0 = ignore)."""
    for spec in VEHICLE_INPUTS:
        image = encode_frame(frame.frames[spec.modality], spec, job.size, rig)
        _write_png(_path(job, index, *FOLDER_OF[spec.modality]), image[..., ::-1])
    labels = cv2.resize(frame.labels, job.size[::-1], interpolation=cv2.INTER_NEAREST)
    stored = np.zeros((*job.size, 3), np.uint8)
    stored[..., 2] = labels + 1  # OpenCV writes BGR: the last channel is channel 0 of the file
    _write_png(_path(job, index, *LABEL_FOLDER), stored)


def _path(job: DriveJob, index: int, folder: str, suffix: str) -> Path:
    place = f"MAP_{job.config.seed}_point0"
    return job.root / folder / str(job.config.weather) / job.split / place / f"{index:06d}_{suffix}_front.png"


def _write_png(path: Path, bgr: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), bgr, _PNG_FAST):
        raise OSError(f"could not write {path}: is the disk full or read-only?")
