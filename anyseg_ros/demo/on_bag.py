"""The demo on a recorded drive: a sensor dies in the middle of the bag, and masks and labelled points go on.

The bag is replayed through the node's own pipeline. There is no ground truth: what is shown is the student's own masks,
as films with and without the loss, and a picture of the moment before it and of the moments after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from anyseg_core.injection import InjectionSchedule
from anyseg_core.runtime.geometry.projection import project_points
from anyseg_core.runtime.model_card import ModelCard, find_student, load_card
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.drawing.captions import caption, legend
from anyseg_ros.drawing.label_images import color_image, overlay_image, palette
from anyseg_ros.drawing.state_strip import draw_strip, sensor_cell
from anyseg_ros.pipeline.jobs import Result
from anyseg_ros.replay.offline import ReplayOptions
from anyseg_ros.replay.run import RunOptions, run_replay
from anyseg_ros.replay.scenarios import Scenario

Image = NDArray[np.uint8]
FILM, PICTURE = "demo.mp4", "demo.png"
INJECTIONS = "camera_dies.yaml"
"""The schedule's file, and so its scenario, whose film is `demo_camera_dies.mp4`."""
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


def run_bag_demo(options: BagDemo, console: Console) -> None:
    """Replay, film and report. Raises what `run_replay` raises."""
    options.out.mkdir(parents=True, exist_ok=True)
    injections = options.injections or write_injections(options.bag, options.out / INJECTIONS)
    for injection in InjectionSchedule.load(injections).injections:
        console.print(f"{injection.modality}: {injection.kind} from {injection.start_s:.1f} s on", highlight=False)
    picture = LossPicture(options.out / PICTURE, load_card(find_student(options.student)))
    replay = ReplayOptions(student=options.student, injections=(injections,))
    run_replay(RunOptions(options.bag, options.out, replay, video=options.out / FILM), console, picture)
    picture.write()
    console.print(f"picture: {picture.path}", soft_wrap=True)


def write_injections(bag: Path, path: Path) -> Path:
    """A schedule in which the camera is lost in the middle of a bag. Raises BagError."""
    reader = BagReader(bag)
    middle_s = (reader.end_ns - reader.start_ns) / NS_PER_S / 2
    path.write_text(
        "description: the camera dies in the middle of the drive\n"
        f"injections:\n  - {{modality: camera, kind: drop, start_s: {middle_s:.2f}}}\n"
    )
    return path


class LossPicture:
    """Gets the masks of the scenario with the loss, and keeps those around it."""

    def __init__(self, path: Path, card: ModelCard) -> None:
        self.path = path
        self._card = card
        self._colors = palette(card)
        self._kept: list[tuple[int, Image]] = []
        """The newest mask with the camera, and the first and the tenth without it; each with its stamp."""
        self._lost = 0

    def on_mask(self, scenario: Scenario, result: Result) -> None:
        """Look at a mask."""
        if scenario.schedule is None:
            return
        if Sensor.CAMERA in result.job.frames:
            if not self._lost:
                self._kept = [self._drawn(result)]
            return
        self._lost += 1
        if self._lost in (1, 10):
            self._kept.append(self._drawn(result))

    def _drawn(self, result: Result) -> tuple[int, Image]:
        return result.job.anchor_frame.stamp_ns, draw_mask(result, self._colors)

    def write(self) -> None:
        """The masks one below the other with their times, and what the colours mean; no file where there was none."""
        if not self._kept:
            return
        (last_ns, before), *after = self._kept
        width = before.shape[1]
        parts = [caption(width, "the last label image with the camera, and LiDAR's points"), before]
        for stamp_ns, drawn in after:
            parts += [caption(width, f"{(stamp_ns - last_ns) / NS_PER_S:.2f} s later, without it"), drawn]
        parts.append(legend(width, self._card.classes))
        cv2.imwrite(str(self.path), np.vstack(parts)[..., ::-1])


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
