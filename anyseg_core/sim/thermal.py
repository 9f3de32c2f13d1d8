"""The thermal camera: what each surface radiates by its own warmth and the weather, as a grey picture.

Apparent temperatures are rough figures of long-wave thermography, not measured here: what lives or burns fuel stays
above the air, what lies in the sun warms up, a clear sky is far colder than the air and a clouded one nearly as warm.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from anyseg_core.runtime.sensors import CAMERA, Sensor
from anyseg_core.sim.shapes import LABEL
from anyseg_core.sim.weather import Weather

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

THERMAL = Sensor("thermal", CAMERA)

LEAST_SPAN_C = 12.0
"""Between black and white, at least: the camera's gain follows the picture, as that of thermal cameras does."""
_DARKEST, _BRIGHTEST = 2.0, 98.0
"""Percentiles of the picture that are nearly black and nearly white."""
_NOISE_C = 0.1
_DETAIL_PX = 6.0
_MOST_DETAIL = 1.5
_DETAIL_C = 4.0
"""Of a surface e times as dark as what is around it: it takes up more of the sun's warmth, and radiates better."""
_ABSORPTION_PER_HAZE = 0.3
"""Of the air's extinction of visible light: fog and rain dim heat less."""


class _Air(NamedTuple):
    """A weather, for heat."""

    air_c: float
    sky_c: float
    sun: float
    """Share of the warming that the sun of a clear day gives."""


class _Surface(NamedTuple):
    """A class's temperature above the air, in degrees."""

    own_c: float
    """By itself."""
    sun_c: float
    """In full sun, in addition."""


_AIRS: Mapping[Weather, _Air] = MappingProxyType(
    {
        Weather.SUN: _Air(24.0, -25.0, 1.0),
        Weather.CLOUD: _Air(15.0, 6.0, 0.2),
        Weather.FOG: _Air(7.0, 6.0, 0.05),
        Weather.RAIN: _Air(11.0, 8.0, 0.0),
        Weather.NIGHT: _Air(8.0, -28.0, 0.0),
    }
)
_PLAIN = _Surface(0.5, 8.0)
_SURFACES: Mapping[str, _Surface] = MappingProxyType(
    {
        "Pedestrian": _Surface(16.0, 3.0),
        "TwoWheeler": _Surface(12.0, 6.0),
        "Cars": _Surface(9.0, 14.0),
        "Bus": _Surface(11.0, 12.0),
        "Truck": _Surface(11.0, 12.0),
        "Road": _Surface(3.0, 20.0),
        "RoadLine": _Surface(2.5, 14.0),
        "SideWalk": _Surface(2.0, 15.0),
        "Building": _Surface(2.5, 9.0),
        "Wall": _Surface(1.5, 10.0),
        "Vegetation": _Surface(-1.0, 2.0),
        "Terrain": _Surface(-1.0, 6.0),
        "Ground": _Surface(0.0, 12.0),
        "Water": _Surface(-2.0, 1.0),
        "TrafficLight": _Surface(6.0, 8.0),
        "TrafficSign": _Surface(-2.0, 6.0),
        "Pole": _Surface(-1.0, 7.0),
    }
)


def temperatures_c(weather: Weather) -> Floats:
    """The apparent temperature of every class in that weather, float32 [classes], degrees Celsius."""
    air = _AIRS[weather]
    surfaces = (_SURFACES.get(name, _PLAIN) for name in LABEL)
    table = np.array([air.air_c + surface.own_c + air.sun * surface.sun_c for surface in surfaces], np.float32)
    table[LABEL["Sky"]] = air.sky_c
    return table


def thermal(
    labels: Image, distance: Floats, light: Floats, haze_per_m: float, weather: Weather, rng: Generator
) -> Image:
    """What the thermal camera sees: through hazy air far things have the temperature of the air.

    Args:
        labels: uint8 [H, W], DELIVER's classes; distance: float32 [H, W], metres.
        light: float32 [H, W], log of the luminance: what is darker than its surroundings is warmer than they are.
        haze_per_m: the air's extinction of visible light.
    Returns: uint8 [H, W, 3] of three equal channels.
    """
    through = np.exp(np.float32(-_ABSORPTION_PER_HAZE * haze_per_m) * distance)
    through[labels == LABEL["Sky"]] = 1.0
    air_c = np.float32(_AIRS[weather].air_c)
    detail = np.clip(light - cv2.GaussianBlur(light, (0, 0), _DETAIL_PX), -_MOST_DETAIL, _MOST_DETAIL)
    own_c = temperatures_c(weather)[labels] - _DETAIL_C * detail
    celsius = air_c + (own_c - air_c) * through
    celsius = cv2.GaussianBlur(celsius, (3, 3), 0.7) + rng.normal(0, _NOISE_C, labels.shape).astype(np.float32)
    return np.repeat(_grey(celsius)[..., None], 3, axis=2)


def _grey(celsius: Floats) -> Image:
    """With automatic gain: the middle of the picture's temperatures is grey."""
    low, high = np.percentile(celsius[::4, ::4], [_DARKEST, _BRIGHTEST])
    span = 1.2 * max(high - low, LEAST_SPAN_C)
    return np.clip(((celsius - (low + high) / 2) / span + 0.5) * 255, 0, 255).astype(np.uint8)
