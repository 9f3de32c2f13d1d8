"""Frames as living sensors send them: a scene, a little noise, and never the same content twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, Sensor, SensorFrame


def live_data(modality: Sensor, rng: np.random.Generator, height: int = 48, width: int = 64) -> NDArray:
    """One measurement of a small scene in which no check finds a fault."""
    rows, cols = np.mgrid[:height, :width]
    if modality.kind is CAMERA:
        scene = 110 + 50 * np.sin(cols / 3) * np.cos(rows / 4)
        return np.clip(scene[..., None] + rng.normal(0, 3, (height, width, 3)), 5, 240).astype(np.uint8)
    if modality.kind is DEPTH:
        return ((3 + 40 * rows / height) * (1 + 0.01 * rng.standard_normal(rows.shape))).astype(np.float32)
    if modality.kind is EVENT:
        return rng.poisson(0.3, (height, width, 2)).astype(np.uint8)
    return _points(rng, 2400)


def _points(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """A wall all around, 10 m away."""
    azimuth = np.linspace(-np.pi, np.pi, count, endpoint=False)
    distance = 10 + np.sin(azimuth) + 0.02 * rng.standard_normal(count)
    height = np.linspace(-1, 1, count)
    points = [distance * np.cos(azimuth), distance * np.sin(azimuth), height, rng.uniform(0, 255, count)]
    return np.stack(points, axis=1).astype(np.float32)


def live_frame(modality: Sensor, stamp_ns: int, height: int = 48, width: int = 64) -> SensorFrame:
    """A frame whose content follows from its stamp."""
    rng = np.random.default_rng(stamp_ns % 2**32)
    return SensorFrame(modality, live_data(modality, rng, height, width), stamp_ns, f"{modality}_frame")
