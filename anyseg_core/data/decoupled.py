"""Decoupled augmentation: every sensor gets its own geometry and its own labels, and the way back is returned.

CroDiNo-KD (arXiv 2505.24361) trains without a teacher that ties its modalities together, so each may be turned, zoomed,
mirrored and cropped by itself. `augmentation.py` is the other kind, one geometric change for all.

Each sensor's change is one affine map between two frames of the output's size: the *common* frame, where all sensors
still lie on each other, and the sensor's *view*, which its network sees. Coordinates are normalised as torch's
`affine_grid` and `grid_sample` understand them with `align_corners=False`: -1 and 1 are the outer edges of the image.
Because of that one map serves images, labels and features of any stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from anyseg_core.data.augmentation import AVERAGED, AugmentConfig, Image, jitter
from anyseg_core.data.files import Size
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.sensors import Sensor

Affine = NDArray[np.float64]
"""[2, 3]: maps (x, y) to `affine @ (x, y, 1)`."""


class SensorPipeline(AugmentConfig):
    """How far the image of one sensor is changed. Without colour changes, which only a camera's pixels can take."""

    jitter: float = Field(default=0.0, ge=0, le=1)
    blur: float = Field(default=0.0, ge=0, le=1)
    rotation_deg: tuple[float, float] = (-10.0, 10.0)
    """Range of the rotation, counter-clockwise."""
    random_crop: bool = True
    """Cut the zoomed image anywhere, or put it anywhere on the margin; else its centre stays where it is."""

    @model_validator(mode="after")
    def _has_no_windows(self) -> SensorPipeline:
        for name in ("undistorted", "focus", "crops", "paste"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is a setting of augment: views that are augmented apart have no common window"
                )
        return self

    @model_validator(mode="after")
    def _rotation_is_a_range(self) -> SensorPipeline:
        if self.rotation_deg[0] > self.rotation_deg[1]:
            raise ValueError(f"rotation_deg {self.rotation_deg} must be [low, high] with low <= high")
        return self


class CameraPipeline(SensorPipeline):
    """The same with the colour changes of DELIVER's recipe."""

    jitter: float = Field(default=0.2, ge=0, le=1)
    blur: float = Field(default=0.2, ge=0, le=1)


class DecoupledConfig(BaseModel):
    """A pipeline for every kind of sensor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    camera: CameraPipeline = CameraPipeline()
    """What each camera image goes through."""
    depth: SensorPipeline = SensorPipeline()
    """The same of depth."""
    event: SensorPipeline = SensorPipeline()
    """The same of events."""
    lidar: SensorPipeline = SensorPipeline()
    """The same of LiDAR."""

    @model_validator(mode="after")
    def _measurements_keep_their_values(self) -> DecoupledConfig:
        for name, pipeline in (("depth", self.depth), ("lidar", self.lidar)):
            if pipeline.jitter or pipeline.blur:
                raise ValueError(f"{name}: jitter and blur would change distances; set both to 0")
        return self

    def of(self, modality: Sensor) -> SensorPipeline:
        """The pipeline of a sensor: that of its kind."""
        return getattr(self, modality.kind.family.name)


class View(NamedTuple):
    """One sensor's changed image."""

    image: Image
    """[H, W, 3]; 0 beyond the border of the original."""
    labels: Image
    """[H, W]; 255 beyond the border of the original."""
    to_view: Affine
    """[2, 3]: normalised coordinates in the common frame -> in the view."""


@dataclass(frozen=True, eq=False)
class DecoupledSample:
    """One moment, each sensor's image changed by itself. M sensors, [H, W] the output's size."""

    images: Image
    """[M, H, W, 3]"""
    labels: Image
    """[M, H, W], 255 = ignored."""
    to_view: NDArray[np.float32]
    """[M, 2, 3]: common frame -> view. `affine_grid(to_view, ...)` is the grid that samples a view's features for the
    common frame, at any stride."""

    @cached_property
    def to_common(self) -> NDArray[np.float32]:
        """[M, H, W, 2]: for every pixel of the common frame its (x, y) in the view: `grid_sample(view, to_common,
        padding_mode="border")` brings what was seen in the view back to the common frame."""
        return np.stack([sampling_grid(affine, self._size) for affine in self.to_view])

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """[M, H, W]: pixels of the common frame that the view shows."""
        return inside(self.to_common)

    @cached_property
    def from_common(self) -> NDArray[np.float32]:
        """[M, H, W, 2]: for every pixel of the view its (x, y) in the common frame."""
        return np.stack([sampling_grid(invert(affine), self._size) for affine in self.to_view])

    @cached_property
    def valid_from(self) -> NDArray[np.bool_]:
        """[M, H, W]: pixels of the view that show the common frame, not the margin around it."""
        return inside(self.from_common)

    @property
    def _size(self) -> Size:
        return self.labels.shape[1:]  # type: ignore[return-value]


def augment_apart(
    images: Image,
    labels: Image,
    modalities: tuple[Sensor, ...],
    size: Size,
    config: DecoupledConfig,
    rng: np.random.Generator,
) -> DecoupledSample:
    """images [M, h, w, 3] and their common labels [h, w] -> each sensor's view of them at `size` (height, width)."""
    views = [
        augment_view(image, labels, size, config.of(modality), rng, average=modality.kind.family in AVERAGED)
        for image, modality in zip(images, modalities, strict=True)
    ]
    return DecoupledSample(
        np.stack([view.image for view in views]),
        np.stack([view.labels for view in views]),
        np.stack([view.to_view for view in views]).astype(np.float32),
    )


def augment_view(
    image: Image, labels: Image, size: Size, pipeline: SensorPipeline, rng: np.random.Generator, *, average: bool
) -> View:
    """One sensor alone, of any kind: image [h, w, 3] and labels [h, w] -> its view at `size` (height, width).

    `average`: neighbouring pixels may be mixed, as a camera's may and distances may not.
    """
    to_view = draw_affine(size, pipeline, rng)
    image = jitter(image, pipeline, rng)  # before the margin is there, which stays 0
    return View(
        warp(image, to_view, size, fill=0, average=average),
        warp(labels, to_view, size, fill=UNLABELLED, average=False),
        to_view,
    )


def draw_affine(size: Size, pipeline: SensorPipeline, rng: np.random.Generator) -> Affine:
    """Mirror, rotate and zoom about the centre, then shift; [2, 3], common frame -> view, normalised.

    The zoom is uniform in its logarithm. The shift keeps the frame over the image, or the image within the frame.
    """
    zoom = float(np.exp(rng.uniform(*np.log(pipeline.scale))))
    angle_deg = rng.uniform(*pipeline.rotation_deg)
    shift = rng.uniform(-1, 1, 2) * abs(zoom - 1) * pipeline.random_crop
    mirror = -1.0 if rng.random() < pipeline.hflip else 1.0
    turn = cv2.getRotationMatrix2D((0.0, 0.0), angle_deg, zoom)  # [2, 3], of pixels about the centre
    turn[:, 0] *= mirror
    half = np.array([size[1] / 2, size[0] / 2])  # normalised -> pixels, (x, y)
    return np.column_stack([turn[:, :2] * half / half[:, None], shift])


def warp(image: NDArray[Any], to_view: Affine, size: Size, fill: int, average: bool) -> NDArray[Any]:
    """image [h, w, ...] -> its view [H, W, ...] at `size`; `fill` beyond its border.

    `average`: shrunken by the mean over areas, and interpolated; else the nearest pixel's value.
    """
    height, width = image.shape[:2]
    if average:
        shrink = min(1.0, np.sqrt(abs(np.linalg.det(to_view[:, :2])) * size[0] * size[1] / (height * width)))
        height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
        if (height, width) != image.shape[:2]:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    pixels = _denormalise(size) @ _square(to_view) @ np.linalg.inv(_denormalise((height, width)))
    flags = cv2.INTER_LINEAR if average else cv2.INTER_NEAREST
    border = (fill,) * 4
    return cv2.warpAffine(image, pixels[:2], (size[1], size[0]), flags=flags, borderValue=border)


def sampling_grid(affine: NDArray[Any], size: Size) -> NDArray[np.float32]:
    """[H, W, 2]: where `affine` [2, 3] puts the centre of every pixel of an image of `size`, normalised (x, y)."""
    height, width = size
    x, y = np.meshgrid((2 * np.arange(width) + 1) / width - 1, (2 * np.arange(height) + 1) / height - 1)
    return (np.stack([x, y, np.ones(size)], axis=-1) @ np.asarray(affine, np.float64).T).astype(np.float32)


def inside(grid: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[..., 2] -> [...]: positions that lie in the image."""
    return np.asarray(np.all(np.abs(grid) < 1, axis=-1))


def invert(affine: NDArray[Any]) -> Affine:
    """The map back: [2, 3], view -> common frame."""
    return np.asarray(cv2.invertAffineTransform(np.asarray(affine, np.float64)), np.float64)


def _denormalise(size: Size) -> Affine:
    """[3, 3]: normalised coordinates -> indices of pixels, whole at their centres."""
    height, width = size
    return np.array([[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]])


def _square(affine: Affine) -> Affine:
    return np.vstack([affine, (0, 0, 1)])
