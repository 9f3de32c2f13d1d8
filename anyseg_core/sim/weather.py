"""The five weathers of DELIVER and what each does to light, air and sensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from anyseg_core.runtime.named import Named

Color = tuple[float, float, float]


class Weather(Named):
    """A weather, by the name of its folder in DELIVER."""

    CLOUD = "cloud"
    FOG = "fog"
    NIGHT = "night"
    RAIN = "rain"
    SUN = "sun"

    @classmethod
    def parse(cls, name: str) -> Weather:
        """The weather of that name; raises ValueError that lists the known names."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(w.value for w in cls)
            raise ValueError(f"unknown weather {name!r}; known weathers: {known}") from None


WEATHERS: tuple[Weather, ...] = tuple(Weather)


@dataclass(frozen=True)
class Atmosphere:
    """Light, air and sensor conditions of one drive. Radiance: a sunlit white wall is about 1."""

    key_direction: tuple[float, float, float]
    """Unit vector towards the brightest part of the sky: the sun, or the zenith under cloud."""
    key: Color
    ambient: Color
    shadow_softness_px: int
    """Width over which shadow edges blur; 0 = hard."""
    zenith: Color
    horizon: Color
    cloudiness: float
    haze_per_m: float
    """Extinction coefficient of the air for the camera."""
    wetness: float
    """0 = dry, 1 = wet road that mirrors the sky."""
    lamps: float
    """Brightness of lamps, headlights and lit windows."""
    max_gain: float
    """Camera's exposure limit: what is still dark then stays dark."""
    camera_noise: float
    overexposure: float
    """Factor on the camera's exposure in its bad moments."""
    lens_drops: int
    streaks: int
    """Rain streaks per frame."""
    depth_range_m: float
    depth_noise_px: float
    """Standard deviation of the stereo disparity."""
    depth_holes: float
    lidar_extinction_per_m: float
    lidar_dropout: float
    lidar_clutter: float
    """Share of the beams answered by a drop or fog near the sensor."""
    event_threshold: float
    """Change of log intensity that makes one event."""
    event_noise: float
    """Share of pixels that fire for no reason, per frame."""


def _tinted(rng: Generator, color: Color, low: float, high: float) -> Color:
    r, g, b = np.array(color) * rng.uniform(low, high)
    return float(r), float(g), float(b)


def _direction(rng: Generator, low_deg: float, high_deg: float) -> tuple[float, float, float]:
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(low_deg, high_deg))
    x, y, z = np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)
    return float(x), float(y), float(z)


def _sun(rng: Generator) -> Atmosphere:
    return Atmosphere(
        key_direction=_direction(rng, 18, 60), key=_tinted(rng, (0.98, 0.88, 0.74), 0.8, 1.1),
        ambient=_tinted(rng, (0.24, 0.29, 0.38), 0.7, 1.1), shadow_softness_px=0,
        zenith=_tinted(rng, (0.16, 0.32, 0.72), 0.8, 1.1), horizon=_tinted(rng, (0.62, 0.74, 0.9), 0.8, 1.1),
        cloudiness=rng.uniform(0.0, 0.5), haze_per_m=rng.uniform(0.0004, 0.002), wetness=0.0, lamps=0.25,
        max_gain=4.0, camera_noise=1.0, overexposure=rng.uniform(1.0, 2.6), lens_drops=0, streaks=0,
        depth_range_m=48.0, depth_noise_px=0.10, depth_holes=0.02,
        lidar_extinction_per_m=0.0, lidar_dropout=0.03, lidar_clutter=0.0,
        event_threshold=0.22, event_noise=0.001,
    )  # fmt: skip


def _cloud(rng: Generator) -> Atmosphere:
    level = rng.uniform(0.7, 1.1)
    return Atmosphere(
        key_direction=_direction(rng, 75, 88), key=_tinted(rng, (0.24, 0.25, 0.26), level, level),
        ambient=_tinted(rng, (0.34, 0.36, 0.39), level, level), shadow_softness_px=25,
        zenith=_tinted(rng, (0.5, 0.53, 0.58), 0.8, 1.1), horizon=_tinted(rng, (0.72, 0.74, 0.76), 0.8, 1.1),
        cloudiness=0.8, haze_per_m=rng.uniform(0.001, 0.004), wetness=rng.uniform(0.0, 0.2), lamps=0.3,
        max_gain=4.0, camera_noise=1.2, overexposure=1.0, lens_drops=0, streaks=0,
        depth_range_m=48.0, depth_noise_px=0.11, depth_holes=0.03,
        lidar_extinction_per_m=0.0, lidar_dropout=0.03, lidar_clutter=0.0,
        event_threshold=0.22, event_noise=0.0015,
    )  # fmt: skip


def _fog(rng: Generator) -> Atmosphere:
    density = rng.uniform(0.035, 0.075)
    return Atmosphere(
        key_direction=(0.0, 0.0, 1.0), key=(0.16, 0.165, 0.17), ambient=(0.36, 0.37, 0.38), shadow_softness_px=41,
        zenith=(0.55, 0.56, 0.57), horizon=_tinted(rng, (0.58, 0.59, 0.6), 0.8, 1.1),
        cloudiness=0.0, haze_per_m=density, wetness=rng.uniform(0.1, 0.4), lamps=0.5,
        max_gain=4.0, camera_noise=1.4, overexposure=1.0, lens_drops=0, streaks=0,
        depth_range_m=30.0, depth_noise_px=0.17, depth_holes=0.08,
        lidar_extinction_per_m=density * 0.55, lidar_dropout=0.06, lidar_clutter=0.05,
        event_threshold=0.24, event_noise=0.002,
    )  # fmt: skip


def _rain(rng: Generator) -> Atmosphere:
    strength = rng.uniform(0.5, 1.0)
    return Atmosphere(
        key_direction=(0.0, 0.0, 1.0), key=(0.12, 0.125, 0.13), ambient=(0.25, 0.27, 0.3), shadow_softness_px=33,
        zenith=_tinted(rng, (0.30, 0.33, 0.37), 0.8, 1.1), horizon=_tinted(rng, (0.46, 0.48, 0.5), 0.8, 1.1),
        cloudiness=0.6, haze_per_m=0.006 + 0.012 * strength, wetness=0.6 + 0.4 * strength, lamps=0.8,
        max_gain=4.0, camera_noise=2.0, overexposure=1.0,
        lens_drops=int(4 + 10 * strength), streaks=int(150 + 300 * strength),
        depth_range_m=36.0, depth_noise_px=0.2 + 0.1 * strength, depth_holes=0.1 + 0.08 * strength,
        lidar_extinction_per_m=0.008 * strength, lidar_dropout=0.14 + 0.16 * strength, lidar_clutter=0.02 * strength,
        event_threshold=0.24, event_noise=0.004,
    )  # fmt: skip


def _night(rng: Generator) -> Atmosphere:
    moon = rng.uniform(0.004, 0.012)
    return Atmosphere(
        key_direction=_direction(rng, 50, 80), key=_tinted(rng, (0.5, 0.6, 0.8), moon, moon),
        ambient=_tinted(rng, (0.7, 0.8, 1.0), moon, moon), shadow_softness_px=0,
        zenith=_tinted(rng, (0.4, 0.5, 0.8), moon, moon), horizon=_tinted(rng, (1.0, 0.9, 0.8), moon, 2 * moon),
        cloudiness=0.4, haze_per_m=0.001, wetness=0.0, lamps=rng.uniform(0.7, 1.2),
        max_gain=16.0, camera_noise=1.6, overexposure=1.0, lens_drops=0, streaks=0,
        depth_range_m=32.0, depth_noise_px=0.18, depth_holes=0.12,
        lidar_extinction_per_m=0.0, lidar_dropout=0.03, lidar_clutter=0.0,
        event_threshold=0.30, event_noise=0.012,
    )  # fmt: skip


_ATMOSPHERES = {Weather.SUN: _sun, Weather.CLOUD: _cloud, Weather.FOG: _fog, Weather.RAIN: _rain, Weather.NIGHT: _night}


def atmosphere(weather: Weather, rng: Generator) -> Atmosphere:
    """One drive's conditions in that weather."""
    return _ATMOSPHERES[weather](rng)
