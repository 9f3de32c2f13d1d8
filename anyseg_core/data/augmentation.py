"""Augmentation of a sample: one geometric change for all modalities and labels, colour changes for the camera."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from anyseg_core.data.files import Size
from anyseg_core.data.paste import PasteConfig
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.sensors import CAMERA, EVENT, Sensor

Image = NDArray[np.uint8]
AVERAGED = (CAMERA, EVENT)
"""Modalities whose pixels may be averaged when an image shrinks; depth edges and LiDAR points may not."""


class AugmentConfig(BaseModel):
    """How far samples are changed. The defaults are DELIVER's published ones (arXiv 2411.17141)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hflip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a mirrored sample."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the zoom: 2 shows half the image's side at twice the size, 0.5 leaves a margin of nothing."""
    jitter: float = Field(default=0.2, ge=0, le=1)
    """Probability of a change of the camera's brightness, contrast and saturation by a factor of 0.5 to 1.5 each."""
    blur: float = Field(default=0.2, ge=0, le=1)
    """Probability of a 3x3 Gaussian blur of the camera."""
    undistorted: float = Field(default=0.0, ge=0, le=1)
    """Probability that the window has the proportions of the network's input, so that things keep their shape; else it
    has those of the sample, which the resize stretches, as the robot does with a camera of other proportions."""
    focus: float = Field(default=0.0, ge=0, le=1)
    """Probability that the window is laid around a pixel of a label drawn evenly from those of the sample: rare and
    small things are seen as often as the road."""
    crops: bool = False
    """Where the resolution schedule is below the network's size, show a part of the sample at full scale instead of
    all of it smaller."""
    paste: PasteConfig | None = None
    """Rare things copied from other samples, before everything else."""

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> AugmentConfig:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale {self.scale} must be [low, high] with 0 < low <= high")
        return self


class Window(NamedTuple):
    """The part of an image that becomes the whole; it may reach beyond the image."""

    top: int
    left: int
    height: int
    width: int


def augment(
    images: Image,
    labels: Image,
    modalities: tuple[Sensor, ...],
    size: Size,
    config: AugmentConfig,
    rng: np.random.Generator,
    share: float = 1.0,
) -> tuple[Image, Image]:
    """images [M, h, w, 3], labels [h, w] -> the changed sample at `size` (height, width).

    `share` is that of the sample's side which is seen without zoom.
    """
    proportions: Size = labels.shape  # type: ignore[assignment]
    if config.undistorted and rng.random() < config.undistorted:
        proportions = largest_inside(proportions, size)
    window = draw_window(labels.shape, config.scale, rng, (share * proportions[0], share * proportions[1]))  # type: ignore[arg-type]
    if config.focus and rng.random() < config.focus:
        window = moved_onto(window, labels, rng)
    flip = rng.random() < config.hflip
    out = np.empty((len(modalities), *size, 3), np.uint8)
    for i, modality in enumerate(modalities):
        view = cut(images[i], window, size, fill=0, average=modality.kind.family in AVERAGED)
        view = jitter(view, config, rng) if modality.kind.family is CAMERA else view
        out[i] = view[:, ::-1] if flip else view
    cut_labels = cut(labels, window, size, fill=UNLABELLED, average=False)
    return out, np.ascontiguousarray(cut_labels[:, ::-1]) if flip else cut_labels


def draw_window(
    size: Size, scale: tuple[float, float], rng: np.random.Generator, unzoomed: tuple[float, float] | None = None
) -> Window:
    """A window of the image's proportions, or of (height, width) `unzoomed`; zoom uniform in its logarithm, position
    uniform.
    """
    zoom = np.exp(rng.uniform(*np.log(scale)))
    height, width = (max(1, round(side / zoom)) for side in unzoomed or size)
    return Window(_draw_start(size[0], height, rng), _draw_start(size[1], width, rng), height, width)


def _draw_start(full: int, part: int, rng: np.random.Generator) -> int:
    """Where a window starts on one axis: inside the image, or around it where the window is larger."""
    slack = full - part
    return int(rng.integers(min(0, slack), max(0, slack) + 1))


def largest_inside(image: Size, proportions: Size) -> tuple[int, int]:
    """(height, width) of the largest window of these proportions inside an image."""
    aspect = proportions[1] / proportions[0]
    return min(image[0], round(image[1] / aspect)), min(image[1], round(image[0] * aspect))


def moved_onto(window: Window, labels: Image, rng: np.random.Generator) -> Window:
    """The window, moved inside the image so that it shows a pixel of a label that is drawn evenly from those there."""
    there = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:UNLABELLED])
    if len(there) == 0:
        return window
    pixels = np.flatnonzero(labels.ravel() == rng.choice(there))
    row, col = divmod(int(rng.choice(pixels)), labels.shape[1])
    return window._replace(
        top=_start_around(row, window.height, labels.shape[0], rng),
        left=_start_around(col, window.width, labels.shape[1], rng),
    )


def _start_around(position: int, part: int, full: int, rng: np.random.Generator) -> int:
    """Where a window starts on one axis that holds the position, anywhere in it, and stays inside where it can."""
    start = position - int(rng.integers(part))
    return min(max(start, min(0, full - part)), max(0, full - part))


def cut(image: NDArray[Any], window: Window, size: Size, fill: int, average: bool) -> NDArray[Any]:
    """The window of an image resized to `size`; `fill` beyond the image's border."""
    top, left = max(0, window.top), max(0, window.left)
    bottom = min(image.shape[0], window.top + window.height)
    right = min(image.shape[1], window.left + window.width)
    y0, y1 = (round((y - window.top) * size[0] / window.height) for y in (top, bottom))
    x0, x1 = (round((x - window.left) * size[1] / window.width) for x in (left, right))
    part = _resize(image[top:bottom, left:right], (y1 - y0, x1 - x0), average)
    if part.shape[:2] == size:
        return part
    canvas = np.full((*size, *image.shape[2:]), fill, np.uint8)
    canvas[y0:y1, x0:x1] = part
    return canvas


def _resize(image: NDArray[Any], size: Size, average: bool) -> NDArray[Any]:
    if image.shape[:2] == size:
        return image
    smooth = cv2.INTER_AREA if image.shape[0] > size[0] else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=smooth if average else cv2.INTER_NEAREST)


def jitter(rgb: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Brightness, contrast and saturation, then blur, each set with its own probability."""
    if rng.random() < config.jitter:
        brightness, contrast, saturation = rng.uniform(0.5, 1.5, 3)
        tone = np.clip(((np.arange(256) - 127.5) * contrast + 127.5) * brightness, 0, 255).astype(np.uint8)
        rgb = tone[rgb]
        rgb = _saturate(rgb, float(saturation))
    if rng.random() < config.blur:
        rgb = cv2.GaussianBlur(rgb, (3, 3), 0).astype(np.uint8, copy=False)
    return rgb


def _saturate(rgb: Image, saturation: float) -> Image:
    gray = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(rgb, saturation, gray, 1.0 - saturation, 0.0).astype(np.uint8, copy=False)
