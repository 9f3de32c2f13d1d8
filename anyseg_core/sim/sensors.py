"""The four sensors: what each makes of the light and the distances, with its noise and its failures in bad weather."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from anyseg_core.sim.weather import Atmosphere

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

_MIDDLE_GREY = 0.20
_GAMMA = 1 / 2.2
_STEREO_BASELINE_M = 0.30
_EVENT_DARK_LEVEL = 0.006
"""Radiance below which the event camera sees nothing."""
_MAX_EVENTS = 15
"""Most events a pixel can send in one frame: its refractory period."""
_NOISE_POOL = 1 << 21
LUMA: Floats = np.array([0.2126, 0.7152, 0.0722], np.float32)


@cache
def _noise_pool() -> Floats:
    return np.random.default_rng(7).standard_normal(_NOISE_POOL, np.float32)


def _normal(shape: tuple[int, ...], rng: Generator) -> Floats:
    """Standard normal noise, read-only: a random stretch of a fixed pool, ten times faster than drawing it."""
    count = int(np.prod(shape))
    if count > _NOISE_POOL // 2:
        return rng.standard_normal(shape, np.float32)
    start = int(rng.integers(_NOISE_POOL - count))
    return _noise_pool()[start : start + count].reshape(shape)


def camera(radiance: Floats, air: Atmosphere, rng: Generator) -> Image:
    """Exposure, lens, shot and read noise, gamma.

    Args:
        radiance: float32 [H, W, 3].
    Returns: uint8 [H, W, 3], RGB.
    """
    sample = radiance[::8, ::8].mean(axis=2)
    metered = np.exp(np.log(sample + 1e-4).mean())
    gain = np.float32(min(_MIDDLE_GREY / metered, air.max_gain) * rng.uniform(0.92, 1.08) * air.overexposure)
    light: Floats = cv2.GaussianBlur(radiance, (3, 3), 0.6)  # type: ignore[assignment]
    if air.lens_drops:
        light = _lens_drops(light, air.lens_drops, rng)
    if air.streaks:
        light += _streaks(light.shape[:2], air.streaks, rng)[..., None] * np.float32(air.horizon[1] * 0.5)
    light *= gain
    shot = np.float32(0.0012 * air.camera_noise * max(gain, 1.0))
    read = np.float32(1.5e-5 * (air.camera_noise * max(gain, 1.0)) ** 2)
    deviation = light * shot
    deviation += read
    np.sqrt(deviation, out=deviation)
    deviation *= _normal(light.shape, rng)
    light += deviation
    light *= np.float32(4095)
    np.clip(light, 0, 4095, out=light)
    return np.take(_GAMMA_TABLE, light.astype(np.int16))


_GAMMA_TABLE = ((np.arange(4096) / 4095) ** _GAMMA * 255 + 0.5).astype(np.uint8)


def _streaks(shape: tuple[int, int], count: int, rng: Generator) -> Floats:
    """Motion-blurred drops in the air, 0-1."""
    height, width = shape
    image = np.zeros(shape, np.uint8)
    x, y = rng.integers(0, width, count), rng.integers(-20, height, count)
    length, lean = rng.integers(height // 60 + 1, height // 14 + 2, count), rng.normal(0, 0.12)
    for start_x, start_y, n, bright in zip(
        x.tolist(), y.tolist(), length.tolist(), rng.integers(30, 160, count).tolist(), strict=True
    ):
        cv2.line(image, (start_x, start_y), (int(start_x + lean * n), start_y + n), bright, 1)
    return np.multiply(image, np.float32(1 / 255), dtype=np.float32)


def _lens_drops(light: Floats, count: int, rng: Generator) -> Floats:
    """Drops on the lens: round patches where the picture is out of focus."""
    height, width = light.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    for _ in range(count):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(mask, center, int(rng.integers(width // 80 + 1, width // 22 + 2)), 255, -1)
    small = cv2.resize(light, (width // 16 or 1, height // 16 or 1), interpolation=cv2.INTER_AREA)
    blurred = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    weight = np.multiply(cv2.blur(mask, (5, 5)), np.float32(0.85 / 255), dtype=np.float32)[..., None]
    return np.asarray(light + weight * (blurred - light), np.float32)


def depth(z: Floats, poor: NDArray[np.bool_], focal_px: float, air: Atmosphere, rng: Generator) -> Floats:
    """Stereo depth: noise in disparity, so error grows with z squared; holes at occlusions, glass, water, far away.

    Args:
        z: float32 [H, W], true metres along the optical axis.
        poor: bool [H, W], surfaces stereo cannot match.
        focal_px: focal length in pixels.
    Returns: float32 [H, W] in metres, 0 = no measurement.
    """
    height, width = z.shape
    focal_baseline = np.float32(max(focal_px, 320.0) * _STEREO_BASELINE_M)
    disparity = focal_baseline / z
    coarse = rng.standard_normal((height // 6 + 1, width // 6 + 1), np.float32)
    blotches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    fine = _normal((height, width), rng)
    noisy = disparity + np.float32(air.depth_noise_px) * (blotches + np.float32(0.5) * fine)
    measured = focal_baseline / np.maximum(noisy, np.float32(0.5))
    # The right camera does not see what lies just left of a near edge.
    shift = max(int(0.02 * width) // 2, 1)
    ahead = np.empty_like(disparity)
    ahead[:, :-shift] = disparity[:, shift:]
    ahead[:, -shift:] = disparity[:, -shift:]
    chance = rng.random((height, width), np.float32)
    patches = cv2.resize(rng.random(coarse.shape, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    hole = (ahead - disparity > 2.5) & (chance < 0.7)
    hole |= poor & (patches < 0.6)
    hole |= patches < np.float32(air.depth_holes) * (0.6 + z / np.float32(air.depth_range_m))
    hole |= (measured > np.float32(air.depth_range_m) * (0.85 + 0.3 * patches)) | (z > 1.3 * air.depth_range_m)
    measured[hole] = 0
    return measured


def event_log_light(radiance: Floats) -> Floats:
    """What an event pixel compares: log of luminance above its dark level; [H, W, 3] -> [H, W]."""
    return np.log(radiance @ LUMA + np.float32(_EVENT_DARK_LEVEL))


def events(before: Floats, now: Floats, thresholds: Floats, air: Atmosphere, rng: Generator) -> Image:
    """Positive and negative events between two instants.

    Args:
        before, now: float32 [H, W], from `event_log_light`.
        thresholds: float32 [H, W], each pixel's own sensitivity around 1.
    Returns: uint8 [H, W, 2].
    """
    change = now - before
    if air.streaks:
        change += 0.9 * (_streaks(change.shape, air.streaks // 2, rng) - _streaks(change.shape, air.streaks // 2, rng))
    change /= thresholds * np.float32(air.event_threshold)
    noise = rng.random(change.shape, np.float32)
    change += noise < air.event_noise / 2
    change -= noise > 1 - air.event_noise / 2
    np.clip(change, -_MAX_EVENTS, _MAX_EVENTS, out=change)
    counts = np.zeros((*change.shape, 2), np.uint8)
    counts[..., 0] = np.maximum(change, 0)
    counts[..., 1] = np.maximum(-change, 0)
    return counts


def lidar(
    directions: Floats, distance: Floats, facing: Floats, reflectance: Floats, air: Atmosphere, rng: Generator
) -> tuple[Floats, NDArray[np.int64]]:
    """Returns of one turn of the LiDAR.

    Args:
        directions: [N, 3] beams in the sensor's frame; distance: [N] metres; facing: [N] cosine of incidence.
        reflectance: [N], 0-1, above 1 for retro-reflectors.
    Returns: float32 [K, 4], x, y, z in metres and intensity 0-255; lost beams are absent. And [K], the beam that each
        is of, -1 where it comes back from rain or snow.
    """
    count = len(distance)
    attenuation = np.exp(-2 * np.float32(air.lidar_extinction_per_m) * distance)
    echo = reflectance * (0.3 + 0.7 * facing) * attenuation
    strength = echo * (np.float32(40.0) / np.maximum(distance, 1)) ** 2
    chance = rng.random(count, np.float32)
    seen = (chance > air.lidar_dropout) & (strength > 0.035) & (distance < 100) & (distance > 0.8)
    measured = distance + np.float32(0.02) * rng.standard_normal(count, np.float32)
    intensity = 255 * np.clip(echo * 0.75 + 0.02 * rng.standard_normal(count, np.float32), 0, 1)
    clutter = np.flatnonzero(rng.random(count, np.float32) < air.lidar_clutter)
    nearby = 1.5 + rng.exponential(4.0, len(clutter)).astype(np.float32)
    clutter, nearby = clutter[nearby < distance[clutter]], nearby[nearby < distance[clutter]]
    measured[clutter], seen[clutter] = nearby, True
    intensity[clutter] = rng.uniform(1, 14, len(clutter))
    points = np.empty((count, 4), np.float32)
    points[:, :3] = directions * measured[:, None]
    points[:, 3] = intensity
    beam = np.arange(count)
    beam[clutter] = -1
    return points[seen], beam[seen]
