"""Fault injection: what breaks in a sensor, done to its frames on purpose. Pure and seeded.

Used by tests, demo, replay and training. `degrade` spoils one frame; `FaultInjector` plays a `FaultSchedule`
over time, including faults of timing. A schedule in YAML (times in seconds since the start of the drive):

    seed: 7
    faults:
      - {modality: camera, kind: drop, start_s: 5, duration_s: 5}
      - {modality: depth, kind: noise, start_s: 8, duration_s: 4, parameters: {sigma: 0.3}}

`FAULT_KINDS` lists every kind with its modalities and parameters.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anyseg_core.runtime.modality import MODALITIES, Modality, ModalityFrame

NS_PER_S = 1_000_000_000
Generator = np.random.Generator


class FaultScheduleError(ValueError):
    """A schedule that cannot be played; the message names the entry and the remedy."""


def black(frame: ModalityFrame, _rng: Generator) -> ModalityFrame:
    """No light at all: every pixel 0."""
    return replace(frame, data=np.zeros_like(frame.data))


def saturate(frame: ModalityFrame, _rng: Generator, gain: float) -> ModalityFrame:
    """Overexposure: levels times `gain`, clipped at 255."""
    return replace(frame, data=cv2.convertScaleAbs(frame.data, alpha=gain))


def blur(frame: ModalityFrame, _rng: Generator, sigma_px: float) -> ModalityFrame:
    """Defocus or a dirty lens: Gaussian blur."""
    return replace(frame, data=cv2.GaussianBlur(frame.data, (0, 0), sigma_px))


def noise(frame: ModalityFrame, rng: Generator, sigma: float) -> ModalityFrame:
    """Gaussian noise of `sigma` times full scale: 255 levels, the depth itself, the range of a point."""
    if frame.modality is Modality.CAMERA:
        noisy = frame.data + rng.normal(0.0, 255.0 * sigma, frame.data.shape)
        return replace(frame, data=np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    data = frame.data.astype(np.float32)
    if frame.modality is Modality.DEPTH:
        data *= 1.0 + sigma * rng.standard_normal(data.shape, np.float32)
    else:
        data[:, :3] *= 1.0 + sigma * rng.standard_normal((len(data), 1), np.float32)
    return replace(frame, data=data)


def blockage(frame: ModalityFrame, _rng: Generator, fraction: float, center_x: float, center_y: float) -> ModalityFrame:
    """Mud on the lens: a disc over `fraction` of the image area (where it lies inside) shows nothing.

    The centre is in fractions of width and height.
    """
    height, width = frame.data.shape[:2]
    radius = math.sqrt(fraction * height * width / math.pi)
    rows, cols = np.ogrid[:height, :width]
    covered = (cols - center_x * width) ** 2 + (rows - center_y * height) ** 2 < radius**2  # [H, W]
    data = frame.data.copy()
    data[covered] = 0
    return replace(frame, data=data)


def nan_depth(frame: ModalityFrame, rng: Generator, fraction: float) -> ModalityFrame:
    """`fraction` of the pixels, chosen at random, become NaN."""
    return _lose_depth(frame, rng, fraction, np.nan)


def zero_depth(frame: ModalityFrame, rng: Generator, fraction: float) -> ModalityFrame:
    """`fraction` of the pixels, chosen at random, become 0."""
    return _lose_depth(frame, rng, fraction, 0.0)


def _lose_depth(frame: ModalityFrame, rng: Generator, fraction: float, value: float) -> ModalityFrame:
    data = frame.data.copy()
    data[rng.random(data.shape) < fraction] = value
    return replace(frame, data=data)


def sector_loss(frame: ModalityFrame, _rng: Generator, from_deg: float, to_deg: float) -> ModalityFrame:
    """No points from one azimuth counter-clockwise to another (the LiDAR's own frame, 0 = x forward)."""
    azimuth = np.degrees(np.arctan2(frame.data[:, 1], frame.data[:, 0]))  # [N], -180..180
    span = 360.0 if to_deg - from_deg >= 360.0 else (to_deg - from_deg) % 360.0
    lost = (azimuth - from_deg) % 360.0 <= span
    return replace(frame, data=frame.data[~lost])


def sparse(frame: ModalityFrame, rng: Generator, keep: float) -> ModalityFrame:
    """Only the fraction `keep` of the points comes back, chosen at random."""
    return replace(frame, data=frame.data[rng.random(len(frame.data)) < keep])


def event_flood(frame: ModalityFrame, rng: Generator, events_per_pixel: float) -> ModalityFrame:
    """Flicker or a lost bias: spurious events everywhere, Poisson per pixel and polarity."""
    counts = frame.data + rng.poisson(events_per_pixel, frame.data.shape)
    return replace(frame, data=np.minimum(counts, 255).astype(np.uint8))


def corrupt(frame: ModalityFrame, rng: Generator, fraction: float) -> ModalityFrame:
    """A torn transfer: `fraction` of the rows (image rows, or points) hold random bytes."""
    data = frame.data.copy()
    rows = rng.random(len(data)) < fraction
    junk = np.frombuffer(rng.bytes(data[rows].nbytes), data.dtype)
    data[rows] = junk.reshape(data[rows].shape)
    return replace(frame, data=data)


def stamp_offset(frame: ModalityFrame, _rng: Generator, offset_s: float) -> ModalityFrame:
    """A sensor whose clock is off: ahead where positive, behind where negative."""
    return replace(frame, stamp_ns=frame.stamp_ns + round(offset_s * NS_PER_S))


class Parameter(NamedTuple):
    """A number that a fault takes."""

    default: float
    low: float
    high: float


Degradation = Callable[..., ModalityFrame]
Effect = Callable[[ModalityFrame, float], "list[ModalityFrame]"]


class FaultKind(NamedTuple):
    """What a kind of fault applies to and takes; `degradation` is None for faults of timing."""

    modalities: tuple[Modality, ...]
    degradation: Degradation | None
    parameters: Mapping[str, Parameter]


_CAMERA = (Modality.CAMERA,)
_IMAGES = (Modality.CAMERA, Modality.DEPTH, Modality.EVENT)
_FRACTION = Parameter(1.0, 0.0, 1.0)

FAULT_KINDS: Mapping[str, FaultKind] = {
    "drop": FaultKind(MODALITIES, None, {"probability": _FRACTION}),
    "freeze": FaultKind(MODALITIES, None, {}),
    "delay": FaultKind(MODALITIES, None, {"delay_s": Parameter(0.5, 0.0, 60.0)}),
    "stamp_regression": FaultKind(MODALITIES, None, {}),
    "stamp_offset": FaultKind(MODALITIES, stamp_offset, {"offset_s": Parameter(-1.0, -1e6, 1e6)}),
    "black": FaultKind(_CAMERA, black, {}),
    "saturate": FaultKind(_CAMERA, saturate, {"gain": Parameter(20.0, 1.0, 1e4)}),
    "blur": FaultKind(_CAMERA, blur, {"sigma_px": Parameter(8.0, 0.1, 100.0)}),
    "noise": FaultKind((Modality.CAMERA, Modality.DEPTH, Modality.LIDAR), noise, {"sigma": Parameter(0.2, 0.0, 10.0)}),
    "blockage": FaultKind(
        _IMAGES,
        blockage,
        {
            "fraction": Parameter(0.5, 0.0, 4.0),  # over 1: the disc reaches beyond the image
            "center_x": Parameter(0.5, 0.0, 1.0),
            "center_y": Parameter(0.5, 0.0, 1.0),
        },
    ),
    "nan_depth": FaultKind((Modality.DEPTH,), nan_depth, {"fraction": _FRACTION}),
    "zero_depth": FaultKind((Modality.DEPTH,), zero_depth, {"fraction": _FRACTION}),
    "sector_loss": FaultKind(
        (Modality.LIDAR,),
        sector_loss,
        {"from_deg": Parameter(-30.0, -360.0, 360.0), "to_deg": Parameter(30.0, -360.0, 360.0)},
    ),
    "sparse": FaultKind((Modality.LIDAR,), sparse, {"keep": Parameter(0.1, 0.0, 1.0)}),
    "event_flood": FaultKind((Modality.EVENT,), event_flood, {"events_per_pixel": Parameter(5.0, 0.0, 255.0)}),
    "corrupt": FaultKind(MODALITIES, corrupt, {"fraction": Parameter(0.3, 0.0, 1.0)}),
}


def degrade(frame: ModalityFrame, kind: str, rng: Generator, **parameters: float) -> ModalityFrame:
    """The frame with one fault of content or stamp; the given frame is left as it is.

    Raises FaultScheduleError for a kind, modality or parameter that `FAULT_KINDS` does not have, and for the
    faults of timing, which a single frame cannot show.
    """
    fault = _known_kind(kind, frame.modality)
    if fault.degradation is None:
        raise FaultScheduleError(f"{kind} is a fault of timing: play it with a FaultInjector")
    return fault.degradation(frame, rng, **_complete(kind, fault, parameters))


def _known_kind(kind: str, modality: Modality) -> FaultKind:
    if kind not in FAULT_KINDS:
        raise FaultScheduleError(f"unknown fault kind {kind!r}; known kinds: {', '.join(FAULT_KINDS)}")
    fault = FAULT_KINDS[kind]
    if modality not in fault.modalities:
        raise FaultScheduleError(f"{kind} does not apply to {modality}, only to {', '.join(fault.modalities)}")
    return fault


def _complete(kind: str, fault: FaultKind, given: Mapping[str, float]) -> dict[str, float]:
    """The parameters of a fault, defaults filled in; raises FaultScheduleError for an unknown or bad one."""
    for name, value in given.items():
        if name not in fault.parameters:
            known = ", ".join(fault.parameters) or "none"
            raise FaultScheduleError(f"{kind} has no parameter {name!r}; its parameters: {known}")
        _, low, high = fault.parameters[name]
        if not low <= value <= high:
            raise FaultScheduleError(f"{kind} parameter {name} is {value:g}, outside {low:g} to {high:g}")
    return {name: given.get(name, parameter.default) for name, parameter in fault.parameters.items()}


class ScheduledFault(BaseModel):
    """One entry of a schedule: this fault of this sensor from `start_s` for `duration_s`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: Modality
    kind: str
    start_s: float = Field(ge=0, allow_inf_nan=False)
    duration_s: float = Field(default=math.inf, gt=0)
    """Seconds; without it the fault stays."""
    parameters: dict[str, float] = {}

    @model_validator(mode="after")
    def _playable(self) -> ScheduledFault:
        _complete(self.kind, _known_kind(self.kind, self.modality), self.parameters)
        return self

    def active(self, elapsed_s: float) -> bool:
        """Whether the fault is present `elapsed_s` seconds after the start."""
        return self.start_s <= elapsed_s < self.start_s + self.duration_s


class FaultSchedule(BaseModel):
    """Which sensor breaks how and when; `seed` decides everything random in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    faults: tuple[ScheduledFault, ...] = ()

    @classmethod
    def parse(cls, content: Any, source: str = "fault schedule") -> FaultSchedule:
        """From the content of a YAML file; raises FaultScheduleError that names the entry."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            faults = "; ".join(f"{_place(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors())
            raise FaultScheduleError(f"{source}: {faults}") from None

    @classmethod
    def load(cls, path: str | Path) -> FaultSchedule:
        """From a YAML file; raises FaultScheduleError that names the file and the entry."""
        try:
            content = yaml.safe_load(Path(path).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise FaultScheduleError(f"{path} cannot be read as a fault schedule: {error}") from error
        return cls.parse(content, str(path))


def _place(location: tuple[int | str, ...]) -> str:
    """('faults', 1, 'kind') -> 'fault 2, kind': people count from one."""
    parts = [f"fault {part + 1}" if isinstance(part, int) else part for part in location if part != "faults"]
    return ", ".join(parts) or "the whole"


class FaultInjector:
    """Plays a schedule: frames go in at their time, what the broken sensor would deliver comes out.

    Each entry has its own random generator, so the result does not depend on how sensors interleave.
    """

    def __init__(self, schedule: FaultSchedule) -> None:
        self._schedule = schedule
        self.reset()

    def reset(self) -> None:
        """Back to the start of the drive."""
        self._delayed: list[_Delay] = []
        self._effects = [
            (entry, self._effect(entry, np.random.default_rng([self._schedule.seed, index])))
            for index, entry in enumerate(self._schedule.faults)
        ]

    def apply(self, frame: ModalityFrame, elapsed_s: float) -> list[ModalityFrame]:
        """What arrives of this modality `elapsed_s` seconds after the start, oldest first; often [frame]."""
        frames = [frame]
        for entry, effect in self._effects:
            if entry.modality is frame.modality and entry.active(elapsed_s):
                frames = [arrived for one in frames for arrived in effect(one, elapsed_s)]
        return self.due(elapsed_s, frame.modality) + frames

    def due(self, elapsed_s: float, modality: Modality | None = None) -> list[ModalityFrame]:
        """Delayed frames (of one modality) whose time has come. `apply` calls it; a live player may poll it."""
        return [
            frame
            for delay in self._delayed
            if modality is None or delay.modality is modality
            for frame in delay.due(elapsed_s)
        ]

    def _effect(self, entry: ScheduledFault, rng: Generator) -> Effect:
        fault = FAULT_KINDS[entry.kind]
        parameters = _complete(entry.kind, fault, entry.parameters)
        if fault.degradation is not None:
            degradation = fault.degradation
            return lambda frame, _elapsed_s: [degradation(frame, rng, **parameters)]
        if entry.kind == "delay":
            self._delayed.append(_Delay(entry.modality, parameters["delay_s"]))
            return self._delayed[-1]
        if entry.kind == "drop":
            return _Drop(rng, parameters["probability"])
        return _Freeze() if entry.kind == "freeze" else _StampRegression()


@dataclass
class _Drop:
    """Frames are lost, each with a probability."""

    rng: Generator
    probability: float

    def __call__(self, frame: ModalityFrame, _elapsed_s: float) -> list[ModalityFrame]:
        return [] if self.rng.random() < self.probability else [frame]


@dataclass
class _Freeze:
    """The first content is delivered again and again under new stamps."""

    held: NDArray | None = None

    def __call__(self, frame: ModalityFrame, _elapsed_s: float) -> list[ModalityFrame]:
        if self.held is None:
            self.held = frame.data.copy()  # the caller may reuse its buffer
        return [replace(frame, data=self.held)]


@dataclass
class _StampRegression:
    """From the first frame on, stamps run backwards."""

    first_ns: int | None = None

    def __call__(self, frame: ModalityFrame, _elapsed_s: float) -> list[ModalityFrame]:
        if self.first_ns is None:
            self.first_ns = frame.stamp_ns
        return [replace(frame, stamp_ns=2 * self.first_ns - frame.stamp_ns)]


@dataclass
class _Delay:
    """Frames arrive late, with their old stamps; those still on the way when the fault ends arrive too."""

    modality: Modality
    delay_s: float
    on_the_way: deque[tuple[float, ModalityFrame]] = field(default_factory=deque)

    def __call__(self, frame: ModalityFrame, elapsed_s: float) -> list[ModalityFrame]:
        self.on_the_way.append((elapsed_s + self.delay_s, frame))
        return []

    def due(self, elapsed_s: float) -> list[ModalityFrame]:
        arrived = []
        while self.on_the_way and self.on_the_way[0][0] <= elapsed_s:
            arrived.append(self.on_the_way.popleft()[1])
        return arrived
