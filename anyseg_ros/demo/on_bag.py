"""The demo on a recorded drive: a sensor dies in the middle of the bag, and masks and labelled points go on.

The bag is replayed through the node's own pipeline. There is no ground truth: what is shown is the student's own masks,
as a film of every mask and a picture of the moment before the loss and of the moments after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from anyseg_core.runtime.geometry.projection import project_points
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.drawing.label_images import color_image, overlay_image, palette
from anyseg_ros.drawing.state_strip import draw_strip, sensor_cell
from anyseg_ros.pipeline.jobs import Result
from anyseg_ros.replay.offline import ReplayOptions
from anyseg_ros.replay.run import RunOptions, run_replay
from anyseg_ros.replay.scenarios import Scenario

Image = NDArray[np.uint8]
FILM, PICTURE, INJECTIONS = "demo.mp4", "demo.png", "injections.yaml"
OPACITY = 0.45
"""Of the colours over the camera's picture."""
DIMMED = 0.4
"""Of the mask, where there is no camera's picture below it: the labelled points stand out."""


@dataclass(frozen=True)
class BagDemo:
    """What `anyseg demo --bag` was asked for."""

    bag: Path
    out: Path
    student: str
    injections: Path | None = None
    """None: the camera is lost in the middle of the bag and stays lost."""


def run_bag_demo(options: BagDemo, console: Console) -> Path:
    """Replay, film and report; returns the film. Raises what `run_replay` raises."""
    options.out.mkdir(parents=True, exist_ok=True)
    injections = options.injections or write_injections(options.bag, options.out / INJECTIONS)
    film = Film(options.out, palette(load_card(find_student(options.student))))
    replay = ReplayOptions(student=options.student, injections=(injections,))
    try:
        run_replay(RunOptions(options.bag, options.out, replay), console, film)
    finally:
        film.close()
    console.print(f"film: {film.path}\npicture: {film.write_picture()}", soft_wrap=True)
    return film.path


def write_injections(bag: Path, path: Path) -> Path:
    """A schedule in which the camera is lost in the middle of a bag. Raises BagError."""
    reader = BagReader(bag)
    middle_s = (reader.end_ns - reader.start_ns) / NS_PER_S / 2
    path.write_text(
        "description: the camera dies in the middle of the drive\n"
        f"injections:\n  - {{modality: camera, kind: drop, start_s: {middle_s:.2f}}}\n"
    )
    return path


class Film:
    """Gets the masks of the scenario with the loss, and films them."""

    def __init__(self, folder: Path, colors: Image, rate_hz: float = 10.0) -> None:
        self.path, self._picture = folder / FILM, folder / PICTURE
        self._colors, self._rate_hz = colors, rate_hz
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._kept: list[Image] = []
        """The newest frame with the camera, and the first ones without it."""
        self._lost = 0

    def on_mask(self, scenario: Scenario, result: Result) -> None:
        """Draw a mask, and add it to the film."""
        if scenario.schedule is None:
            return
        frame = draw_mask(result, self._colors)
        if self._writer is None:
            self._size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self._rate_hz, self._size)
        if (frame.shape[1], frame.shape[0]) != self._size:
            frame = np.asarray(cv2.resize(frame, self._size), np.uint8)
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
        self._keep(frame, has_camera=Sensor.CAMERA in result.job.frames)

    def _keep(self, frame: Image, *, has_camera: bool) -> None:
        if has_camera and not self._lost:
            self._kept = [frame]
        elif not has_camera:
            self._lost += 1
            if self._lost in (1, 10):
                self._kept.append(frame)

    def close(self) -> None:
        """End the film."""
        if self._writer is not None:
            self._writer.release()

    def write_picture(self) -> Path:
        """The last mask with the camera, and the first and the tenth without it, one below the other."""
        if self._kept:
            cv2.imwrite(str(self._picture), np.vstack(self._kept)[..., ::-1])
        return self._picture


def draw_mask(result: Result, colors: Image) -> Image:
    """RGB: the mask over the camera's picture, or dimmed without one; LiDAR's points in the colours of their labels."""
    labels = result.segmentation.resized_labels(*result.mask_size)
    colored = color_image(labels, colors)
    camera, lidar = (result.job.frames.get(modality) for modality in (Sensor.CAMERA, Sensor.LIDAR))
    if camera is not None and camera.data.shape == colored.shape:
        drawn = overlay_image(np.asarray(camera.data, np.uint8), colored, OPACITY)
    else:
        drawn = (colored * DIMMED).astype(np.uint8)
    if lidar is not None and result.job.rig is not None:
        height, width = labels.shape
        rows, cols, _, _ = project_points(np.asarray(lidar.data, np.float32), result.job.rig, height, width)
        for below, right in ((0, 0), (0, 1), (1, 0), (1, 1)):  # squares of two pixels: one is hard to see
            drawn[np.minimum(rows + below, height - 1), np.minimum(cols + right, width - 1)] = colored[rows, cols]
    draw_strip(drawn, [sensor_cell(status, result.segmentation.modalities) for status in result.job.statuses])
    return drawn
