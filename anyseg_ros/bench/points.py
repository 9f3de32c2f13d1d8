"""What labelled points promise: time, the right pixel, no label of what stands before them, and as good as the mask."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from anyseg_core.processes import map_over_processes
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, points_in_view
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.points.ground_grid import GridLimits, GroundGrid
from anyseg_core.runtime.points.labelled import label_scan
from anyseg_core.runtime.points.obstacles import ObstacleLimits, obstacle_index
from anyseg_core.runtime.points.occlusion import Occlusion
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_core.sim.deliver_writer import drive_config
from anyseg_core.sim.drive import Drive, DriveFrame, camera_from_lidar, rig_of
from anyseg_core.terminal import progress_bar
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.messages.clouds import packed_cloud
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.planner_products import OutputClasses, output_classes

RINGS, COLUMNS = 128, 1024
SIZE = (480, 640)
LABEL_MS = 4.0
EQUAL_SHARE = 0.999
LEAK_SHARE = 0.02
IOU_POINTS = 2.0
COMMON_SHARE = 0.01
"""Of the points: a rarer class has too few to be scored in these frames."""
FRAME_STEP = 24
_REPEATS = 100
_ALL_AROUND, _AHEAD = "all around", "all of it in the picture"

NOTES = (
    f"times: a cloud of {RINGS} x {COLUMNS} points and a mask of {SIZE[1]}x{SIZE[0]}, one thread of OpenCV; processor "
    "time, and the clock's beside it: other processes ran where the load average says so: {load}.",
    "points behind: those that lie further than the bound behind what the simulator's camera sees at their pixel. The "
    "masks are the true ones, so that every error is one of projection.",
    "IoU: per class of the student's masks, over the points that have a label, less the image's IoU at the pixels that "
    "these points fall on; classes with more than 1 % of the points.",
)


@dataclass(frozen=True, eq=False)
class _Instant:
    """A frame of the simulator and what its camera really sees."""

    frame: DriveFrame
    depth_m: NDArray[np.float32]
    rig: Rig


def run(console: Console, json_path: Path | None, student: str, drives: int, frames: int, workers: int) -> bool:
    """Measure, print the table, write it where asked; returns whether every bar was met."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    result = Benchmark("Points", notes=[note.format(load=load) for note in NOTES])
    cv2.setNumThreads(1)
    measure_times(result, student)
    measure_projection(result)
    with progress_bar("rendering") as progress:
        rendered = list(map_over_processes(_render, [(number, frames) for number in range(drives)], workers, progress))
    instants = [instant for drive in rendered for instant in drive]
    measure_occlusion(result, instants)
    measure_iou(result, instants, student)
    return result.report(console, json_path)


# --- time ------------------------------------------------------------------------------------------------------------


def measure_times(result: Benchmark, student: str) -> None:
    """Labels, obstacles, grid and bytes of a cloud that is all around the vehicle, and of one that the camera sees."""
    rng = np.random.default_rng(0)
    classes = output_classes(Segmenter.load(student).card, Parameters())
    for name, half_angle_deg in ((_ALL_AROUND, 180.0), (_AHEAD, 43.0)):
        _measure_cloud(
            result, name, _cloud(half_angle_deg, rng), classes, bar_ms=LABEL_MS if name == _ALL_AROUND else None
        )


def _measure_cloud(
    result: Benchmark, name: str, scan: SensorFrame, classes: OutputClasses, bar_ms: float | None
) -> None:
    rng = np.random.default_rng(2)
    labels, confidence = (rng.integers(0, 25, SIZE).astype(np.uint8) for _ in range(2))
    rig = Rig(PinholeCamera(640, 480, 320.0, 320.0, 319.5, 239.5), camera_from_lidar())
    cpu, wall = _times_ms(lambda: label_scan(scan, labels, confidence, rig))
    bar, met = ("", None) if bar_ms is None else (f"p50 <= {bar_ms:g}", float(np.median(cpu)) <= bar_ms)
    result.add(f"labels of 131k points, {name}", "ms", cpu, bar, met)
    result.add(f"the same by the clock, {name}", "ms", wall)
    cloud, base = label_scan(scan, labels, confidence, rig), np.eye(4)
    result.add(f"bytes of its message, {name}", "ms", _times_ms(lambda: packed_cloud(cloud, classes.published))[0])
    obstacles, drivable, grid = classes.obstacles, classes.drivable, GroundGrid(GridLimits())
    if isinstance(obstacles, str) or isinstance(drivable, str):
        return

    def next_grid() -> None:
        grid.add(cloud, drivable, base, base)
        grid.at(cloud.stamp_ns, (0.0, 0.0))

    choose = lambda: obstacle_index(cloud, obstacles, ObstacleLimits(), base)  # noqa: E731
    result.add(f"its obstacles, {name}", "ms", _times_ms(choose)[0])
    result.add(f"its part of the ground grid, {name}", "ms", _times_ms(next_grid, 20)[0])


def _cloud(half_angle_deg: float, rng: np.random.Generator) -> SensorFrame:
    azimuth = np.deg2rad(np.linspace(half_angle_deg, -half_angle_deg, COLUMNS))[None, :]
    elevation = np.deg2rad(np.linspace(-22.5, 22.5, RINGS))[:, None]
    distance = rng.uniform(3, 60, (RINGS, COLUMNS))
    parts = (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation) + 0 * azimuth)
    points = np.stack([*(part * distance for part in parts), distance], axis=-1).reshape(-1, 4).astype(np.float32)
    return SensorFrame(Sensor.LIDAR, points, 0, "lidar", cloud_shape=(RINGS, COLUMNS))


def _times_ms(action: Callable[[], object], repeats: int = _REPEATS) -> tuple[list[float], list[float]]:
    """Of each of so many calls: processor time, and the clock's."""
    action()
    cpu, wall = [], []
    for _ in range(repeats):
        began = time.process_time(), time.perf_counter()
        action()
        cpu.append(1e3 * (time.process_time() - began[0]))
        wall.append(1e3 * (time.perf_counter() - began[1]))
    return cpu, wall


# --- the right pixel -------------------------------------------------------------------------------------------------


def measure_projection(result: Benchmark) -> None:
    """The pixel of each point against float64 equations; within a thousandth of a pixel's edge either is right."""
    rng = np.random.default_rng(1)
    rig = rig_of(drive_config("test", 0, 1.0))
    points = rng.uniform(-60, 60, (200_000, 4)).astype(np.float32)
    view = points_in_view(points, rig, *SIZE)
    camera = rig.camera.resized(*SIZE)
    x, y, z = (rig.camera_from_lidar @ np.c_[points[view.index, :3].astype(float), np.ones(len(view.index))].T)[:3]
    row, col = camera.fy * y / z + camera.cy + 0.5, camera.fx * x / z + camera.cx + 0.5
    tie = (np.abs(row - np.round(row)) < 1e-3) | (np.abs(col - np.round(col)) < 1e-3)
    equal = (np.floor(row) == np.floor(view.row)) & (np.floor(col) == np.floor(view.col))
    share = float(equal[~tie].mean())
    result.add("points at the pixel of an independent projection", "%", [100 * share], ">= 99.9", share >= EQUAL_SHARE)


# --- against the simulator -------------------------------------------------------------------------------------------


def _render(job: tuple[int, int]) -> list[_Instant]:
    number, frames = job
    drive = Drive(drive_config("test", number, frames * FRAME_STEP / 10))
    indices = range(FRAME_STEP - 1, len(drive), FRAME_STEP)
    return [_Instant(drive.frame(index), drive.true_depth(index), drive.rig()) for index in indices]


def measure_occlusion(result: Benchmark, instants: Sequence[_Instant]) -> None:
    """Points behind an occluder, with true masks: who still gets a label, and who loses one that it should have."""
    bound_m = Occlusion().bound_m
    hidden = kept = wrong = visible = lost = 0
    for instant in instants:
        size = instant.frame.labels.shape[0], instant.frame.labels.shape[1]
        scan, truth = instant.frame.frames[Sensor.LIDAR], instant.frame.point_labels
        assert truth is not None
        cloud = label_scan(scan, instant.frame.labels, np.full(size, 255, np.uint8), instant.rig)
        view = points_in_view(np.asarray(scan.data, np.float32), instant.rig, *size)
        behind_m = view.xyz[2] - instant.depth_m[view.row.astype(int), view.col.astype(int)]
        labels, true = cloud.labels[view.index], truth[view.index]
        is_hidden, is_visible, labelled = behind_m > bound_m, np.abs(behind_m) < 0.3, labels != UNLABELLED
        hidden += int(is_hidden.sum())
        kept += int((is_hidden & labelled).sum())
        wrong += int((is_hidden & labelled & (labels != true)).sum())
        visible += int(is_visible.sum())
        lost += int((is_visible & ~labelled).sum())
    what = f"points more than {bound_m:g} m behind what the camera sees"
    share = wrong / max(hidden, 1)
    result.add(f"{what}, with the label of that", "%", [100 * share], "<= 2", share <= LEAK_SHARE)
    result.add(f"{what}, with a label", "%", [100 * kept / max(hidden, 1)])
    result.add("visible points without a label", "%", [100 * lost / max(visible, 1)])


def measure_iou(result: Benchmark, instants: Sequence[_Instant], student: str) -> None:
    """IoU of points, of the image at their pixels, and of the whole image, with the student's masks."""
    segmenter = Segmenter.open(student)
    names = [spec.name for spec in segmenter.card.classes]
    points, pixels, image = (ConfusionMatrix(len(names)) for _ in range(3))
    try:
        for instant in instants:
            _count(instant, segmenter, points, pixels, image)
    finally:
        segmenter.close()
    share = points.counts.sum(axis=1) / max(points.counts.sum(), 1)
    for label, name in enumerate(names):
        if share[label] > COMMON_SHARE:
            iou = [100 * float(matrix.iou()[label]) for matrix in (points, pixels, image)]
            difference = abs(iou[0] - iou[1])
            result.add(
                f"IoU of {name}: points less pixels ({iou[0]:.1f}, {iou[1]:.1f}; whole image {iou[2]:.1f})",
                "points",
                [iou[0] - iou[1]],
                f"within {IOU_POINTS:g}",
                difference <= IOU_POINTS,
            )


def _count(
    instant: _Instant, segmenter: Segmenter, points: ConfusionMatrix, pixels: ConfusionMatrix, image: ConfusionMatrix
) -> None:
    frame, size = instant.frame, (instant.frame.labels.shape[0], instant.frame.labels.shape[1])
    frames: Mapping[Sensor, SensorFrame] = {m: frame.frames[m] for m in segmenter.modalities}
    labels, confidence = segmenter.segment(frames, instant.rig).resized(*size)
    cloud = label_scan(frames[Sensor.LIDAR], labels, confidence, instant.rig)
    truth = frame.point_labels
    assert truth is not None
    scored = (cloud.labels != UNLABELLED) & (truth != UNLABELLED)
    points.add(truth[scored], cloud.labels[scored])
    view = points_in_view(np.asarray(cloud.points, np.float32), instant.rig, *size)
    inside = scored[view.index]
    true_pixels = frame.labels[view.row.astype(int), view.col.astype(int)][inside]
    pixels.add(true_pixels, cloud.labels[view.index][inside])
    image.add(frame.labels, labels)
