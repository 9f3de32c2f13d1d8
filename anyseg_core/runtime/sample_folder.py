"""Labelled frames of one's own vehicle on disk, as its sensors gave them: what a bag becomes before training.

    <root>/dataset.json                                   classes, inputs, rig (`FolderDescription`)
    <root>/<split>/<drive>/rig.json                       calibration of this drive, else that of dataset.json holds
    <root>/<split>/<drive>/<name>_camera.png or .jpg      RGB; so is any sensor of kind camera: <name>_<sensor>.png
    <root>/<split>/<drive>/<name>_depth.png               16 bit, millimetres, 0 = no measurement; seen from the camera
    <root>/<split>/<drive>/<name>_event.png               red = positive counts, green = negative; seen from the camera
    <root>/<split>/<drive>/<name>_lidar.npy               float32 [N, 4]: x, y, z in metres, intensity; in its own frame
    <root>/<split>/<drive>/<name>_label.png               8 bit, class index, 255 = ignored; of the camera's image

Frames stay raw, so that training encodes them with the very functions that the robot uses, and an encoding can be
changed without recording anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.model_card import ClassSpec, InputSpec
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, Sensor, SensorFrame, SensorKind, point_sensor

DESCRIPTION_NAME, RIG_NAME = "dataset.json", "rig.json"
LABEL_ENDING = "_label.png"


def endings(sensor: Sensor) -> tuple[str, ...]:
    """Of the files of one sensor, the first of which is the one that is written."""
    if sensor.kind.is_points:
        return (f"_{sensor}.npy",)
    return (f"_{sensor}.png", f"_{sensor}.jpg") if sensor.kind is CAMERA else (f"_{sensor}.png",)


_STORED: dict[SensorKind, SensorKind] = {
    DEPTH: SensorKind("depth in millimetres", (None, None), "uint16"),
    EVENT: SensorKind("event counts as a picture", (None, None, 3), "uint8"),
}
"""What files hold where that is not the frame's data itself."""


MAX_DEPTH_M = 65.535
"""What 16 bits of millimetres hold."""


_RIGID = 1e-2
"""How far a calibration's rotation may be from one; most are written with a few digits."""


class RigSpec(BaseModel):
    """Intrinsics in pixels of the recorded camera image, and where the LiDAR sits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    camera_from_lidar: tuple[tuple[float, float, float, float], ...] = Field(min_length=4, max_length=4)

    @model_validator(mode="after")
    def _can_be_one(self) -> RigSpec:
        transform = self.rig().camera_from_lidar
        rotation = transform[:3, :3]
        is_rotation = np.allclose(rotation @ rotation.T, np.eye(3), atol=_RIGID) and np.linalg.det(rotation) > 0
        if not is_rotation or not np.allclose(transform[3], (0, 0, 0, 1), atol=_RIGID):
            raise ValueError(
                "camera_from_lidar is no rigid transform: a rotation, the translation in the last column, and a last "
                "row of 0, 0, 0, 1 were expected"
            )
        return self

    def rig(self) -> Rig:
        camera = PinholeCamera(self.width, self.height, self.fx, self.fy, self.cx, self.cy)
        return Rig(camera, np.array(self.camera_from_lidar))

    @classmethod
    def of(cls, rig: Rig) -> RigSpec:
        """The same rig as plain numbers: the LiDAR's place in the axes that the picture is projected in."""
        camera = rig.camera
        rows = tuple(tuple(float(value) for value in row) for row in rig.picture_from_lidar)
        return cls(
            width=camera.width,
            height=camera.height,
            fx=camera.fx,
            fy=camera.fy,
            cx=camera.cx,
            cy=camera.cy,
            camera_from_lidar=rows,  # type: ignore[arg-type]
        )


class FolderDescription(BaseModel):
    """dataset.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[ClassSpec, ...] = Field(min_length=2, max_length=UNLABELLED)
    inputs: tuple[InputSpec, ...] = Field(min_length=1)
    """How each modality reaches the network; goes into the student's card."""
    rig: RigSpec | None = None
    """Calibration of the drives that have none of their own; LiDAR needs one."""

    @model_validator(mode="after")
    def _one_sensor_of_points(self) -> FolderDescription:
        point_sensor([spec.modality for spec in self.inputs])
        return self

    @model_validator(mode="after")
    def _nothing_stands_twice(self) -> FolderDescription:
        for what, names in (
            ("inputs", [str(spec.modality) for spec in self.inputs]),
            ("classes", [entry.name for entry in self.classes]),
        ):
            twice = dict.fromkeys(name for name in names if name and names.count(name) > 1)
            if twice:
                raise ValueError(f"{', '.join(twice)} stands twice in {what}")
        return self


def write_description(root: Path, description: FolderDescription) -> None:
    """Write dataset.json."""
    root.mkdir(parents=True, exist_ok=True)
    (root / DESCRIPTION_NAME).write_text(description.model_dump_json(indent=2) + "\n")


def write_rig(folder: Path, rig: Rig) -> None:
    """Write the calibration of a drive to `<root>/<split>/<drive>`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RIG_NAME).write_text(RigSpec.of(rig).model_dump_json(indent=2) + "\n")


def write_sample(folder: Path, name: str, frames: list[SensorFrame], labels: NDArray[np.uint8] | None) -> None:
    """Write one moment to `<root>/<split>/<drive>`: its frames, and its labels [H, W] where there are any yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        path = folder / f"{name}{endings(frame.modality)[0]}"
        if frame.kind.is_points:
            np.save(path, frame.data)
        else:
            _write_image(path, stored_image(frame))
    if labels is not None:
        _write_image(folder / f"{name}{LABEL_ENDING}", labels)


def stored_image(frame: SensorFrame) -> NDArray[Any]:
    """Camera, depth or events as their PNG holds them, colour as RGB."""
    if frame.kind is DEPTH:
        millimetres = np.nan_to_num(1000 * frame.data, nan=0, posinf=0, neginf=0)
        measured = (millimetres > 0) & (millimetres <= MAX_DEPTH_M * 1000)
        return np.rint(np.where(measured, millimetres, 0)).astype(np.uint16)  # further away is not measured here
    if frame.kind is EVENT:
        return np.dstack([frame.data, np.zeros(frame.data.shape[:2], np.uint8)])
    return frame.data


def frame_from_stored(modality: Sensor, stored: NDArray[Any]) -> SensorFrame:
    """The frame of an image or array as stored. Raises ValueError where it cannot be that modality's."""
    kind = modality.kind
    if not _STORED.get(kind, kind).fits(stored):
        raise ValueError(f"{stored.dtype} {list(stored.shape)} is no {modality}: see the layout in sample_folder.py")
    if kind is DEPTH:
        return SensorFrame(modality, np.divide(stored, 1000, dtype=np.float32), 0)
    return SensorFrame(modality, stored[..., :2] if kind is EVENT else stored, 0)


def _write_image(path: Path, image: NDArray[Any]) -> None:
    if not cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image):
        raise OSError(f"cannot write {path}")
