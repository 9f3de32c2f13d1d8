"""Broken sensors in training: the runtime's faults of content, done to encoded samples.

The same functions as in `anyseg inject` degrade a frame that is made of the encoded image: depth is decoded to metres,
event counts are divided by their gain, and each LiDAR pixel becomes a point seen through a lens of 90 degrees. So a
LiDAR can also be turned (extrinsics that are off) and moved (points that are late). Only the pixels that the fault
changed are encoded anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from anyseg_core.data.sample import DataError
from anyseg_core.injection import INJECTION_KINDS, InjectionScheduleError, Stage
from anyseg_core.injection.degradations import Generator
from anyseg_core.injection.kinds import at_strength, complete_parameters, has_graded_parameter, known_kind, spoil
from anyseg_core.runtime.input_images import depth_image
from anyseg_core.runtime.model_card import DepthEncoding, EventEncoding, InputSpec, LidarEncoding
from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, Sensor, SensorFrame, SensorKind

Image = NDArray[np.uint8]
_DEGRADE = Callable[[SensorFrame], SensorFrame]

_LOSSES = ("nan_depth", "zero_depth", "blockage", "dead_rows")
"""Faults that take depth away: all that an image with another encoding than metres can show."""
_DEPTH_STEPS = 4096


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingFault(_Strict):
    """A fault of content that samples may have."""

    modality: Sensor
    kind: str
    parameters: dict[str, float] = {}
    """At full strength; defaults are those of `faults.INJECTION_KINDS`."""

    @model_validator(mode="after")
    def _is_of_content(self) -> TrainingFault:
        known_kind(self.kind, self.modality)
        complete_parameters(self.kind, self.parameters)
        if INJECTION_KINDS[self.kind].stage is not Stage.CONTENT or INJECTION_KINDS[self.kind].degradation is None:
            possible = ", ".join(
                name
                for name, kind in INJECTION_KINDS.items()
                if kind.stage is Stage.CONTENT and kind.degradation and kind.applies_to(self.modality)
            )
            raise InjectionScheduleError(f"a sample cannot show {self.kind}; faults of {self.modality} are {possible}")
        return self


class DegradeConfig(_Strict):
    """Which samples are degraded, and how."""

    probability: float = Field(default=0.2, ge=0, le=1)
    """Of each modality of a sample to be degraded, by one of its faults, each as likely as the other."""
    strength: tuple[float, float] = (0.2, 1.0)
    """Range that the strength is drawn from, evenly; 0 does nothing, 1 is the fault with its parameters."""
    faults: tuple[TrainingFault, ...] = Field(min_length=1)
    """What may break; each sample that is spoiled gets one of its sensor's."""

    @model_validator(mode="after")
    def _strength_is_a_range(self) -> DegradeConfig:
        low, high = self.strength
        if not 0 <= low <= high <= 1:
            raise ValueError(f"strength {self.strength} must be [low, high] with 0 <= low <= high <= 1")
        return self


class SampleDegrader:
    """Degrades samples of a data set with those inputs. Raises DataError for a fault that they cannot show."""

    def __init__(self, config: DegradeConfig, inputs: Sequence[InputSpec]) -> None:
        self._config = config
        self._inputs = tuple(inputs)
        present = {spec.modality: spec for spec in inputs}
        for fault in config.faults:
            if fault.modality not in present:
                raise DataError(f"degrade.faults has {fault.kind} of {fault.modality}, which the data does not have")
            if fault.modality.kind not in _BY_KIND:
                raise DataError(f"{fault.modality} is of kind {fault.modality.kind}, which is not degraded in training")
            encoding = present[fault.modality].encoding
            is_coded_depth = fault.modality.kind is DEPTH and not isinstance(encoding, DepthEncoding)
            if is_coded_depth and fault.kind not in _LOSSES:
                raise DataError(f"{fault.kind} needs depth in metres, not {encoding.kind}; use {', '.join(_LOSSES)}")

    def __call__(self, images: Image, rng: Generator) -> Image:
        """images [M, H, W, 3] -> the same with some modalities degraded; the given images stay as they are."""
        degraded = images
        for index, spec in enumerate(self._inputs):
            possible = [fault for fault in self._config.faults if fault.modality is spec.modality]
            if possible and rng.random() < self._config.probability:
                degraded = images.copy() if degraded is images else degraded
                degraded[index] = self._degraded(images[index], spec, possible[rng.integers(len(possible))], rng)
        return degraded

    def _degraded(self, image: Image, spec: InputSpec, fault: TrainingFault, rng: Generator) -> Image:
        degradation = INJECTION_KINDS[fault.kind].degradation
        assert degradation is not None  # as validated
        complete, strength = complete_parameters(fault.kind, fault.parameters), rng.uniform(*self._config.strength)
        if not has_graded_parameter(fault.kind) and rng.random() >= strength:  # as in a ramp: rarer, not weaker
            return image
        parameters = at_strength(fault.kind, complete, strength)
        return _BY_KIND[spec.modality.kind](image, spec, lambda frame: spoil(frame, degradation, rng, parameters))


def _degraded_camera(image: Image, _spec: InputSpec, degrade: _DEGRADE) -> Image:
    after = cast("Image", degrade(SensorFrame(Sensor.CAMERA, image, 0)).data)
    height, width = image.shape[:2]
    if after.shape == image.shape:
        return after
    return cast("Image", cv2.resize(after, (width, height), interpolation=cv2.INTER_LINEAR))  # as for the network


def _degraded_depth(image: Image, spec: InputSpec, degrade: _DEGRADE) -> Image:
    encoding = spec.encoding if isinstance(spec.encoding, DepthEncoding) else None
    metres = np.float32(1.0) if encoding is None else _metres_of_levels(encoding)[image[..., 0]]
    depth = np.where(image.any(axis=-1), metres, np.float32(0.0))  # [H, W]
    after = cast("NDArray[np.float32]", degrade(SensorFrame(Sensor.DEPTH, depth, 0)).data)
    changed = ~((after == depth) | (np.isnan(after) & (depth == 0)))
    out = image.copy()
    out[changed] = 0 if encoding is None else depth_image(after, image.shape[:2], encoding)[changed]
    return out


def _metres_of_levels(encoding: DepthEncoding) -> NDArray[np.float32]:
    """Depth [256] of each level of the first channel: the encoding itself, inverted by looking it up."""
    depths = np.geomspace(encoding.near_m, encoding.far_m, _DEPTH_STEPS, dtype=np.float32)
    levels = depth_image(depths[None], (1, _DEPTH_STEPS), encoding)[0, :, 0]  # [steps]
    order = np.argsort(levels, kind="stable")
    return np.interp(np.arange(256), levels[order], depths[order]).astype(np.float32)


def _degraded_events(image: Image, spec: InputSpec, degrade: _DEGRADE) -> Image:
    gain = cast("EventEncoding", spec.encoding).gain
    counts = np.rint(image[..., :2] / gain).astype(np.uint8)  # [H, W, 2]
    after = degrade(SensorFrame(Sensor.EVENT, counts, 0)).data
    out = image.copy()
    changed = after != counts
    out[..., :2][changed] = np.clip(np.rint(after[changed] * np.float32(gain)), 0, 255).astype(np.uint8)
    return out


def _degraded_lidar(image: Image, spec: InputSpec, degrade: _DEGRADE) -> Image:
    encoding = cast("LidarEncoding", spec.encoding)
    max_range_m = encoding.max_range_m
    rows, cols = np.nonzero(image.any(axis=-1))  # [K]
    height, width = image.shape[:2]
    distance = max_range_m ** (1.0 - image[rows, cols, 0] / 255.0)  # [K], as lidar_image encodes it
    directions = np.stack([np.full(len(rows), width / 2), width / 2 - cols, height / 2 - rows], axis=1)  # x forward
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    index = np.arange(len(rows))  # travels with its point
    points = np.column_stack([directions * distance[:, None], image[rows, cols, 1], index]).astype(np.float32)
    after = degrade(SensorFrame(Sensor.LIDAR, points, 0)).data
    if len(after) < len(points):
        kept = after[:, 4].astype(np.intp)
        out = np.zeros_like(image)
        out[rows[kept], cols[kept]] = image[rows[kept], cols[kept]]
        return out
    return _with_moved_points(image, points, after, encoding)


def _with_moved_points(image: Image, before: NDArray[Any], after: NDArray[Any], encoding: LidarEncoding) -> Image:
    """The image with those of its points [N, 5] that a fault changed: drawn where they are now, or not in view."""
    rows, cols = np.nonzero(image.any(axis=-1))  # [N]
    (height, width), max_range_m = image.shape[:2], encoding.max_range_m
    changed = np.flatnonzero((after[:, :4] != before[:, :4]).any(axis=1))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        x, y, z = np.nan_to_num(after[changed, :3], nan=max_range_m).T
        col = np.rint(np.clip(width / 2 * (1 - y / x), -1, width))
        row = np.rint(np.clip(height / 2 - width / 2 * z / x, -1, height))
        far = np.clip(np.linalg.norm(np.stack([x, y, z]), axis=0), 1.0, max_range_m)
        seen = (x > 0) & (col >= 0) & (col < width) & (row >= 0) & (row < height)
        intensity = np.clip(np.nan_to_num(after[changed, 3]), 0, 255)
        levels_per_m = 255.0 / (encoding.max_height_m - encoding.min_height_m)
        raised = levels_per_m * (z - before[changed, 2])
    out = image.copy()
    out[rows[changed], cols[changed]] = 0
    place = row[seen].astype(np.intp), col[seen].astype(np.intp)
    out[place] = image[rows[changed], cols[changed]][seen]
    out[place[0], place[1], 0] = np.rint(255.0 * (1.0 - np.log(far[seen]) / np.log(max_range_m)))
    out[place[0], place[1], 1] = np.rint(intensity[seen])
    old_height = image[rows[changed], cols[changed], 2][seen]
    out[place[0], place[1], 2] = np.clip(np.rint(old_height + raised[seen]), 0, 255)
    return out


_BY_KIND: Mapping[SensorKind, Callable[[Image, InputSpec, _DEGRADE], Image]] = {
    CAMERA: _degraded_camera,
    DEPTH: _degraded_depth,
    EVENT: _degraded_events,
    LIDAR: _degraded_lidar,
}
