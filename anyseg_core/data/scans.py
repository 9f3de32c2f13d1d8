"""LiDAR scans with a label for every point, seen by a virtual camera: the LiDAR as the anymodal network knows it.

A scan shows the whole circle, so it is worth many views. The first is that of KITTI's colour camera; the others look
anywhere, from a camera that is a little higher, tilted or longer in focus, at a scan that is thinned and whose
intensities are scaled, as those of another sensor would be.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from anyseg_core.data.files import FileSamples, Size
from anyseg_core.data.layouts import ScanLayout
from anyseg_core.data.pictures import split_files
from anyseg_core.data.sample import DataError, Sample
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, project_points
from anyseg_core.runtime.input_images import lidar_image
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.model_card import InputSpec, LidarEncoding
from anyseg_core.runtime.sensors import Sensor

_ENCODING = LidarEncoding(max_range_m=80.0, max_intensity=1.0, camera_height_m=1.65, point_radius=1)
LIDAR_INPUT = InputSpec(modality=Sensor.LIDAR, encoding=_ENCODING)
"""Intensity 0 to 1, as KITTI stores it; every sensor's own scale is brought there."""

KITTI_CAMERA = PinholeCamera(width=1242, height=375, fx=721.5377, fy=721.5377, cx=609.5593, cy=172.854)
"""P2 of the drives of 2011-09-26, rectified."""
KITTI_CAMERA_FROM_LIDAR = np.array(
    [
        [0.000234774, -0.999944155, -0.010563478, 0.057052448],
        [0.010449407, 0.010565354, -0.999889574, -0.075466719],
        [0.999945389, 0.000124365, 0.010451303, -0.269386912],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""R0_rect times Tr_velo_to_cam of the same drives, with the colour camera's place beside the first grey one."""


class View(NamedTuple):
    """A camera, and the scan as it gets to it."""

    rig: Rig
    kept: float = 1.0
    """Share of the points, drawn at random."""
    intensity_factor: float = 1.0
    """0: the sensor measures none."""


class Scans(FileSamples):
    """A split of a data set of scans, each seen from `views` cameras, at `size` (height, width).

    Args:
        label_radius: a point's label is a square of `2 * label_radius + 1` pixels: 0 to score points, the encoding's
            own radius to learn from every pixel that a point covers.

    Raises DataError when the root, the split or a file is missing or damaged.
    """

    inputs: tuple[InputSpec, ...] = (LIDAR_INPUT,)

    def __init__(
        self,
        root: Path,
        split: str,
        size: Size,
        layout: ScanLayout,
        limit: int | None = None,
        *,
        views: int = 1,
        label_radius: int = 0,
    ) -> None:
        self.root, self.split, self.size, self.layout = root, split, size, layout
        self.views, self.label_radius = views, label_radius
        self.classes = layout.label_classes()
        self._files = split_files(root, layout.scans, split, layout.splits)[:limit]

    @property
    def description(self) -> str:
        seen = f"{len(self._files)} scans from {self.views} views" if self.views > 1 else f"{len(self)} scans"
        return f"{self.root.name} {self.split}: {seen}, {self.size[0]}x{self.size[1]}"

    @property
    def settings(self) -> tuple[object, ...]:
        """As `FileSamples`."""
        own = self.layout.classes, self.layout.full_intensity, self.layout.forward_deg  # the rest changes no sample
        return self.size, self.inputs, own, self.views, self.label_radius

    def __len__(self) -> int:
        return len(self._files) * self.views

    def name(self, index: int) -> str:
        return f"{self.root.name}/{self._files[index // self.views].stem}_{index % self.views}"

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._files[index // self.views],)

    def __getitem__(self, index: int) -> Sample:
        points, labels = read_scan(self._files[index // self.views], self.layout)
        rng = np.random.default_rng([index // self.views, index % self.views])
        view = draw_view(self.layout.forward_deg, rng) if index % self.views else forward_view(self.layout.forward_deg)
        chosen = rng.random(len(points)) < view.kept
        points, labels = points[chosen], labels[chosen]
        points[:, 3] *= view.intensity_factor
        image = lidar_image(points, self.size, _ENCODING, view.rig)
        return Sample(image[None], self._label_image(points, labels, view.rig), self.name(index))

    def _label_image(self, points: NDArray[np.float32], labels: NDArray[np.uint8], rig: Rig) -> NDArray[np.uint8]:
        """Labels where points are, drawn as the points are: the nearest wins; 255 elsewhere."""
        height, width = self.size
        rows, cols, index, _ = project_points(points, rig, height, width)
        reach = range(-self.label_radius, self.label_radius + 1)
        offsets = np.array([(dy, dx) for dy in reach for dx in reach])  # [O, 2]
        rows = np.clip(rows[:, None] + offsets[:, 0], 0, height - 1)  # [K, O], far to near
        cols = np.clip(cols[:, None] + offsets[:, 1], 0, width - 1)
        image = np.full(self.size, UNLABELLED, np.uint8)
        image[rows, cols] = labels[index][:, None]
        return image


def read_scan(path: Path, layout: ScanLayout) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points [N, 4] (metres, intensity 0 to 1) and their labels [N], 255 where there is none. Raises DataError."""
    try:
        with np.load(path) as arrays:
            xyz_cm, intensity, labels = (arrays[key] for key in ("xyz_cm", "intensity", "label"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, AttributeError) as error:
        raise DataError(f"{path} cannot be read: arrays xyz_cm, intensity and label were expected ({error})") from None
    if xyz_cm.shape != (*labels.shape, 3) or intensity.shape != labels.shape:
        raise DataError(f"{path}: shapes {xyz_cm.shape}, {intensity.shape} and {labels.shape} are not of one scan")
    measured = xyz_cm.any(axis=-1)
    points = np.empty((int(measured.sum()), 4), np.float32)
    points[:, :3] = xyz_cm[measured] / 100.0
    points[:, 3] = np.minimum(intensity[measured] / layout.full_intensity, 1.0)
    return points, _known_labels(labels[measured], layout)


def _known_labels(labels: NDArray[np.uint8], layout: ScanLayout) -> NDArray[np.uint8]:
    known = np.full(256, UNLABELLED, np.uint8)
    for label, name in enumerate(layout.classes):
        known[label] = label if name else UNLABELLED
    return known[labels]


def forward_view(forward_deg: float) -> View:
    """KITTI's colour camera, looking where the vehicle drives."""
    return View(Rig(KITTI_CAMERA, KITTI_CAMERA_FROM_LIDAR @ _turn("z", -forward_deg)))


def draw_view(forward_deg: float, rng: np.random.Generator) -> View:
    """A camera that looks anywhere around, somewhat unlike KITTI's."""
    focus = float(np.exp(rng.uniform(np.log(0.8), np.log(1.35))))
    camera = PinholeCamera(1242, 375, 721.5 * focus, 721.5 * focus, 609.6, 172.9 + float(rng.uniform(-25, 25)))
    tilt = _turn("x", float(rng.normal(0, 1.5))) @ _turn("z", float(rng.normal(0, 1.0)))
    moved = np.eye(4)
    moved[:2, 3] = rng.uniform(-0.3, 0.3, 2)  # camera axes: x right, y down
    around = _turn("z", -forward_deg - float(rng.uniform(0, 360)))
    factor = 0.0 if rng.random() < 0.1 else float(rng.uniform(0.7, 1.3))
    return View(Rig(camera, moved @ tilt @ KITTI_CAMERA_FROM_LIDAR @ around), float(rng.uniform(0.6, 1)), factor)


def _turn(axis: str, degrees: float) -> NDArray[np.float64]:
    """4x4 rotation about one axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(4)
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix[[first, first, second, second], [first, second, first, second]] = c, -s, s, c
    return matrix
