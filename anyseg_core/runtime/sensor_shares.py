"""Which sensor a gated student relies on where, by the weights that its encoder gives beside the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.sensors import Sensor

Shares = Mapping[Sensor, NDArray[np.float32]]
"""Share of each sensor at each place, [h, w]; they sum to 1 over the sensors."""


def shares_of(
    features: Sequence[NDArray[np.float32]], sensors: Sequence[Sensor], first_map: tuple[int, int, int]
) -> Shares:
    """The shares of the finest map.

    Args:
        features: what the encoder made of each sensor's image, [F] each.
        sensors: whose they are.
        first_map: (h, w, c) of the map that the features begin with; its last channel are the weights, positive.
    """
    height, width, channels = first_map
    end = height * width * channels
    weights = np.stack([one[channels - 1 : end : channels] for one in features]).reshape(-1, height, width)
    return dict(zip(sensors, weights / weights.sum(axis=0), strict=True))


def shares_in_words(shares: Shares) -> str:
    """`camera 62 %, lidar 38 %`: means over the picture; empty without shares."""
    return ", ".join(f"{sensor} {100 * float(share.mean()):.0f} %" for sensor, share in shares.items())


def sensor_colors(sensors: Sequence[Sensor]) -> dict[Sensor, tuple[int, int, int]]:
    """A bright RGB colour for each of a student's sensors."""
    hues = np.linspace(0, 180, len(sensors), endpoint=False)
    hsv = np.array([[[hue, 255, 255] for hue in hues]], np.uint8)  # [1, M, 3]
    return dict(zip(sensors, map(tuple, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0].tolist()), strict=True))


def shares_picture(shares: Shares, sensors: Sequence[Sensor]) -> NDArray[np.uint8]:
    """RGB uint8 [h, w, 3]: the colour of the sensor with the greatest share, the whiter the nearer all are to even.

    `sensors` are all that the student has, in its order: their colours are the same whichever of them are there.
    """
    stacked = np.stack(list(shares.values()))  # [M, h, w]
    even = 1.0 / len(stacked) if len(stacked) > 1 else 0.0  # a sensor alone counts for all
    strength = ((stacked.max(axis=0) - even) / (1.0 - even))[..., None]  # [h, w, 1]
    colors = np.array([sensor_colors(sensors)[sensor] for sensor in shares], np.float32)  # [M, 3]
    return cast("NDArray[np.uint8]", np.rint(255 + strength * (colors[stacked.argmax(axis=0)] - 255)).astype(np.uint8))
