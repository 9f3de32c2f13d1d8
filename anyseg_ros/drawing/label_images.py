"""Arrays from a result: the label image in colours, and over the camera image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.model_card import ModelCard

Image = NDArray[np.uint8]


def palette(card: ModelCard) -> Image:
    """uint8 [256, 3], RGB by label; black where there is no class."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(card.classes)] = [spec.color for spec in card.classes]
    return colors


def color_image(labels: Image, colors: Image) -> Image:
    """Labels uint8 [H, W] and a palette uint8 [256, 3] -> RGB uint8 [H, W, 3]."""
    return np.take(colors, labels, axis=0)


def overlay_image(rgb: Image, colored: Image, opacity: float) -> Image:
    """RGB uint8 [H, W, 3] under a coloured label image of the same size."""
    return np.asarray(cv2.addWeighted(rgb, 1.0 - opacity, colored, opacity, 0.0), np.uint8)
