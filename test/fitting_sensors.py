"""Four sensors that look at the same scrolling scene of blocks, each with its own noise: cheap, and they fit."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, Twist
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

HEIGHT, WIDTH = 96, 128
PERIOD_NS = 100_000_000
START_NS = 1_000_000_000_000
SCROLLED = 3
"""Pixels a frame."""
_LENGTH = 500
_LIDAR_ROWS = 2
_DISTANCES_M = (4.0, 7.0, 12.0, 20.0, 30.0)
_OPTICAL_FROM_BODY = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
RIG = Rig(PinholeCamera(WIDTH, HEIGHT, 64, 64, (WIDTH - 1) / 2, (HEIGHT - 1) / 2), _OPTICAL_FROM_BODY)


class Scene:
    """A wall of blocks, each of one colour at one distance, that passes by."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._color = np.empty((HEIGHT, _LENGTH, 3), np.float32)
        self._distance = np.empty((HEIGHT, _LENGTH), np.float32)
        top = 0
        while top < HEIGHT:
            bottom, left = top + int(rng.integers(6, 24)), 0
            while left < _LENGTH:
                right = left + int(rng.integers(6, 40))
                self._color[top:bottom, left:right] = rng.uniform(30, 220, 3)
                self._distance[top:bottom, left:right] = rng.choice(_DISTANCES_M)
                left = right
            top = bottom

    def frames(self, number: int, speed: int = SCROLLED) -> dict[Sensor, SensorFrame]:
        """All sensors at the frame of that number; `speed` 0: the scene stands still."""
        rng, at = np.random.default_rng([1, number]), 20 + speed * number
        color, distance = (part[:, at : at + WIDTH] for part in (self._color, self._distance))
        before = self._color[:, at - speed : at - speed + WIDTH]
        camera = np.clip(color + rng.normal(0, 2, color.shape), 0, 255).astype(np.uint8)
        depth = (distance * (1 + 0.01 * rng.standard_normal(distance.shape))).astype(np.float32)
        data = {
            Sensor.CAMERA: camera,
            Sensor.DEPTH: depth,
            Sensor.EVENT: _events(before, color, rng),
            Sensor.LIDAR: _points(distance, rng),
        }
        stamp_ns = START_NS + number * PERIOD_NS
        return {sensor: SensorFrame(sensor, data[sensor], stamp_ns) for sensor in DEFAULT_SENSORS}


def _events(before: NDArray, now: NDArray, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A noisy event for each 0.2 of log brightness."""
    grey = [np.log(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY) + 8) for picture in (before, now)]
    change = (grey[1] - grey[0]) / 0.2 + 0.3 * rng.standard_normal(grey[0].shape)
    return np.stack([np.clip(change, 0, 255), np.clip(-change, 0, 255)], axis=-1).astype(np.uint8)


def _points(distance: NDArray, rng: np.random.Generator) -> NDArray[np.float32]:
    """Every second row, every column, and a circle of points behind."""
    rows, cols = (part.ravel() for part in np.mgrid[0:HEIGHT:_LIDAR_ROWS, 0:WIDTH])
    z = distance[rows, cols] * (1 + 0.002 * rng.standard_normal(len(rows)))
    camera = RIG.camera
    ahead = np.stack([z, -(cols - camera.cx) / camera.fx * z, -(rows - camera.cy) / camera.fy * z], axis=1)
    angle = rng.uniform(np.pi / 2, 3 * np.pi / 2, 1500)
    behind = np.stack([np.cos(angle), np.sin(angle), rng.uniform(-0.3, 0.3, len(angle))], axis=1) * 9
    intensity = rng.uniform(10, 60, (len(ahead) + len(behind), 1))
    return np.hstack([np.vstack([ahead, behind]), intensity]).astype(np.float32)


def at_stamp(frame: SensorFrame, stamp_ns: int) -> SensorFrame:
    """The same frame, measured at another time."""
    return replace(frame, stamp_ns=stamp_ns)


def driving(speed_mps: float | None) -> Twist | None:
    """Odometry of that speed which goes nowhere over the ground: the scene passes by as none does, at every distance
    alike, so that distances cannot be held against it."""
    return None if speed_mps is None else Twist(np.array([0.0, 0.0, speed_mps]), np.zeros(3))
