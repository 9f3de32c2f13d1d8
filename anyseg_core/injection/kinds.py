"""The catalogue: every kind of fault with the sensors it can hit, its parameters, and what should name it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from anyseg_core.injection import degradations as content
from anyseg_core.injection.degradations import Generator
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.sensors import CAMERA, DEFAULT_SENSORS, DEPTH, EVENT, LIDAR, Sensor, SensorFrame, SensorKind


class InjectionScheduleError(ValueError):
    """A schedule that cannot be played; the message names the entry and the remedy."""


class Parameter(NamedTuple):
    """A number that a fault takes."""

    default: float
    low: float
    high: float
    unit: str = ""
    """Of one; a fraction has none."""
    neutral: float | None = None
    """Where the fault does nothing: a ramp starts here. None: the same at every strength."""


class Stage(IntEnum):
    """Where on the way of a measurement a fault sits. Faults of one sensor act in this order, then as in the file."""

    CONTENT = 0
    """What is measured."""
    STAMP = 1
    """When it says it was measured."""
    MESSAGE = 2
    """How it is written down. Frames have no such thing: it needs messages, or makes them unreadable."""
    LOSS = 3
    """Whether it is sent."""
    DELAY = 4
    """When it arrives."""


Degradation = Callable[..., SensorFrame]


class InjectionKind(NamedTuple):
    """One kind of fault; `degradation` is None where a single frame cannot show it."""

    sensor_kinds: tuple[SensorKind, ...]
    """Those whose sensors can have it."""
    degradation: Degradation | None
    parameters: Mapping[str, Parameter]
    stage: Stage
    imitates: str
    expected: tuple[Fault, ...]
    """Any of these names it; none: a degradation that no check can tell from a scene."""
    fixed_pattern: bool = False
    """Every frame of an entry is hit in the same places."""
    is_gradual: bool = True
    """Whether it may come with a ramp or a probability."""
    remembering: Callable[[], Degradation] | None = None
    """Makes a degradation that remembers the frames before: each entry of a schedule has one of its own."""

    def applies_to(self, sensor: Sensor) -> bool:
        """Whether the sensor can have it."""
        return sensor.kind.family in self.sensor_kinds

    @property
    def modalities(self) -> tuple[Sensor, ...]:
        """Those of the default sensors that can have it."""
        return tuple(filter(self.applies_to, DEFAULT_SENSORS))


EVERY: tuple[SensorKind, ...] = (CAMERA, DEPTH, EVENT, LIDAR)
_IMAGES = (CAMERA, DEPTH, EVENT)


def _fraction(default: float, high: float = 1.0) -> Mapping[str, Parameter]:
    return {"fraction": Parameter(default, 0.0, high, neutral=0.0)}


INJECTION_KINDS: Mapping[str, InjectionKind] = MappingProxyType(
    {
        # --- loss and delay; of a sensor that numbers its messages, as event cameras do, a gap in the numbers tells
        "drop": InjectionKind(
            EVERY, None, {}, Stage.LOSS,
            "messages lost: an unplugged cable, a saturated network (with a probability below 1)",
            (Fault.SILENT, Fault.LOW_RATE, Fault.EVENT_SEQUENCE_GAP),
        ),
        "rate_cut": InjectionKind(
            EVERY, None, {"keep": Parameter(0.3, 0.0, 1.0, neutral=1.0)}, Stage.LOSS,
            "a driver that skips frames evenly: thermal throttling, a USB 3 camera on a USB 2 port",
            (Fault.LOW_RATE, Fault.SILENT, Fault.EVENT_SEQUENCE_GAP),
        ),
        "crash": InjectionKind(
            EVERY, None, {"kill": Parameter(0.0, 0.0, 1.0)}, Stage.LOSS,
            "the process that publishes the sensors is dead; with kill 1 a live player really dies (SIGKILL)",
            (Fault.SILENT,), is_gradual=False,
        ),
        "delay": InjectionKind(
            EVERY, None, {"delay_s": Parameter(0.5, 0.0, 60.0, "s", 0.0)}, Stage.DELAY,
            "a busy driver or network: messages arrive late, in order, with their old stamps",
            (Fault.STALE_STAMP, Fault.SILENT),
        ),
        "jitter": InjectionKind(
            EVERY, None, {"jitter_s": Parameter(0.3, 0.0, 60.0, "s", 0.0)}, Stage.DELAY,
            "a loaded scheduler: each message is late by a uniform random time up to jitter_s, in order",
            (Fault.STALE_STAMP, Fault.SILENT, Fault.LOW_RATE),
        ),
        # --- stamps
        "stamp_offset": InjectionKind(
            EVERY, content.stamp_offset, {"offset_s": Parameter(-1.0, -1e6, 1e6, "s", 0.0)}, Stage.STAMP,
            "a sensor whose clock is off: ahead where positive, behind where negative",
            (Fault.STALE_STAMP, Fault.FUTURE_STAMP),
        ),
        "stamp_drift": InjectionKind(
            EVERY, None, {"drift_s_per_s": Parameter(0.05, -10.0, 10.0, "s/s", 0.0)}, Stage.STAMP,
            "a clock without synchronisation: it runs fast where positive, slow where negative",
            (Fault.FUTURE_STAMP, Fault.STALE_STAMP),
        ),
        "stamp_regression": InjectionKind(
            EVERY, None, {}, Stage.STAMP,
            "stamps that run backwards: a driver that reuses buffers, a clock that is set back again and again",
            (Fault.STAMP_REGRESSION, Fault.STALE_STAMP),
        ),
        # --- content
        "freeze": InjectionKind(
            EVERY, None, {}, Stage.CONTENT,
            "a driver that sends one buffer again and again under new stamps",
            (Fault.FROZEN,),
        ),
        "black": InjectionKind(
            (CAMERA,), content.black, {"light": Parameter(0.0, 0.0, 1.0, neutral=1.0)}, Stage.CONTENT,
            "a lens cap, a dead exposure control; with some light left: dusk, a tunnel",
            (Fault.DARK, Fault.BLANK),
        ),
        "saturate": InjectionKind(
            (CAMERA,), content.saturate, {"gain": Parameter(20.0, 1.0, 1e4, "x", 1.0)}, Stage.CONTENT,
            "overexposure: low sun, headlights, a tunnel's end",
            (Fault.SATURATED, Fault.BLANK),
        ),
        "blur": InjectionKind(
            (CAMERA,), content.blur, {"sigma_px": Parameter(8.0, 0.1, 100.0, "px", 0.0)}, Stage.CONTENT,
            "a lens out of focus, or wet",
            (),
        ),
        "noise": InjectionKind(
            (CAMERA, DEPTH, LIDAR), content.noise,
            {"sigma": Parameter(0.2, 0.0, 10.0, "of full scale, depth or range", 0.0)}, Stage.CONTENT,
            "a high gain in the dark, interference, a bad ground",
            (Fault.NOISY,),
        ),
        "blockage": InjectionKind(
            _IMAGES, content.blockage,
            {
                **_fraction(0.5, 4.0),  # over 1: the disc reaches beyond the image
                "center_x": Parameter(0.5, 0.0, 1.0),
                "center_y": Parameter(0.5, 0.0, 1.0),
            },
            Stage.CONTENT,
            "mud or snow on the lens: a disc shows nothing",
            (Fault.BLANK, Fault.DARK, Fault.INVALID_DEPTH),
        ),
        "dead_rows": InjectionKind(
            EVERY, content.dead_rows, _fraction(0.3), Stage.CONTENT,
            "broken rows of an imager, or lasers of a LiDAR: always the same ones",
            (Fault.BLANK, Fault.INVALID_DEPTH), fixed_pattern=True,
        ),
        "corrupt": InjectionKind(
            EVERY, content.corrupt, _fraction(0.3), Stage.CONTENT,
            "a torn transfer: image rows, points, or pieces of a compressed message hold random bytes",
            (Fault.NOISY, Fault.DECODE_ERROR, Fault.INVALID_DEPTH),
        ),
        "nan_depth": InjectionKind(
            (DEPTH,), content.nan_depth, _fraction(1.0), Stage.CONTENT,
            "stereo that finds no match, as drivers of 32FC1 images say it",
            (Fault.INVALID_DEPTH,),
        ),
        "zero_depth": InjectionKind(
            (DEPTH,), content.zero_depth, _fraction(1.0), Stage.CONTENT,
            "stereo that finds no match, as drivers of 16UC1 images say it; a dead projector",
            (Fault.INVALID_DEPTH,),
        ),
        "depth_scale": InjectionKind(
            (DEPTH,), content.depth_scale, {"scale": Parameter(1.3, 0.01, 100.0, "x", 1.0)}, Stage.CONTENT,
            "a stereo pair out of calibration, or millimetres taken for something else",
            (Fault.WRONG_SCALE,),
        ),
        "sector_loss": InjectionKind(
            (LIDAR,), content.sector_loss,
            {
                "from_deg": Parameter(-30.0, -360.0, 360.0, "deg"),
                "to_deg": Parameter(30.0, -360.0, 360.0, "deg"),
                **_fraction(1.0),
            },
            Stage.CONTENT,
            "a blocked or broken sector: no points from from_deg counter-clockwise to to_deg, 0 = forward",
            (Fault.LIDAR_SECTOR_LOST, Fault.FEW_POINTS),
        ),
        "sparse": InjectionKind(
            (LIDAR,), content.sparse, {"keep": Parameter(0.1, 0.0, 1.0, neutral=1.0)}, Stage.CONTENT,
            "heavy rain, fog or a dirty window: few lasers come back",
            (Fault.FEW_POINTS,),
        ),
        "event_flood": InjectionKind(
            (EVENT,), content.event_flood, {"events_per_pixel": Parameter(5.0, 0.0, 255.0, "per frame", 0.0)},
            Stage.CONTENT,
            "flicker or a lost bias: spurious events everywhere",
            (Fault.EVENT_FLOOD,),
        ),
        "event_gap": InjectionKind(
            (EVENT,), content.event_gap, _fraction(0.5), Stage.CONTENT,
            "a full readout buffer: packets are lost whole, images of counts lose that fraction of their events",
            (Fault.EVENT_SEQUENCE_GAP,),
        ),
        # --- alive and wrong: no check of one sensor can see it, the others can
        "mirror": InjectionKind(
            (CAMERA,), content.mirrored, {}, Stage.CONTENT,
            "a driver or a mount set to mirror the picture",
            (Fault.INCONSISTENT_GEOMETRY,),
        ),
        "upside_down": InjectionKind(
            (CAMERA,), content.upside_down, {}, Stage.CONTENT,
            "a camera mounted upside down, or a driver that turns the picture by 180 degrees",
            (Fault.INCONSISTENT_GEOMETRY,),
        ),
        "swap_channels": InjectionKind(
            (CAMERA,), content.swapped_channels, {}, Stage.CONTENT,
            "BGR published as RGB",
            (Fault.INCONSISTENT_CONTENT,),
        ),
        "lost_color": InjectionKind(
            (CAMERA,), content.lost_color, {"channel": Parameter(1.0, 0.0, 2.0, "0 red, 1 green, 2 blue")},
            Stage.CONTENT,
            "a broken colour channel: one of red, green and blue is 0",
            (Fault.INCONSISTENT_CONTENT,),
        ),
        "half_size": InjectionKind(
            (CAMERA,), content.half_size, {}, Stage.CONTENT,
            "a driver that begins to bin pixels and goes on with the camera_info of the full size",
            (),
        ),
        "old_content": InjectionKind(
            EVERY, None, {"age_s": Parameter(1.0, 0.0, 60.0, "s", 0.0)}, Stage.CONTENT,
            "a buffer that holds old frames, stamped when they leave it",
            (Fault.INCONSISTENT_GEOMETRY, Fault.TIME_OFFSET),
        ),
        "torn": InjectionKind(
            (CAMERA, DEPTH), None,
            {**_fraction(0.5), "stuck": Parameter(1.0, 0.0, 1.0, "0 the frame before, 1 the first")}, Stage.CONTENT,
            "a transfer that ends early into a buffer that is used again: the lower rows are old",
            (Fault.INCONSISTENT_GEOMETRY, Fault.NOT_MOVING), remembering=content.Torn,
        ),
        "freeze_one_value": InjectionKind(
            (CAMERA, DEPTH, LIDAR), None, {}, Stage.CONTENT,
            "one buffer sent again and again, with a counter or a hot pixel in it",
            (Fault.NOT_MOVING,), remembering=content.FreezeOneValue,
        ),
        "freeze_noise": InjectionKind(
            (CAMERA, DEPTH, LIDAR), None, {"sigma": Parameter(0.005, 0.0, 0.1, "of full scale, depth or range")},
            Stage.CONTENT,
            "one buffer sent again and again through a lossy encoder, or a still image before the lens",
            (Fault.NOT_MOVING,), remembering=content.FreezeNoise,
        ),
        "freeze_alternating": InjectionKind(
            (CAMERA, DEPTH, LIDAR), None, {}, Stage.CONTENT,
            "a double buffer that nobody fills any more: two frames take turns",
            (Fault.NOT_MOVING,),
        ),
        "depth_constant": InjectionKind(
            (DEPTH,), content.constant_depth, {"depth_m": Parameter(5.0, 0.1, 500.0, "m")}, Stage.CONTENT,
            "a matcher that has locked onto one disparity, a cover before the lens",
            (Fault.INCONSISTENT_GEOMETRY,),
        ),
        "depth_levels": InjectionKind(
            (DEPTH,), content.depth_levels, {}, Stage.CONTENT,
            "a picture or a disparity image on the depth topic: grey levels taken for metres",
            (Fault.INCONSISTENT_GEOMETRY,),
        ),
        "lidar_constant_range": InjectionKind(
            (LIDAR,), content.constant_range, {"range_m": Parameter(10.0, 0.1, 500.0, "m")}, Stage.CONTENT,
            "a LiDAR whose ranging is stuck: every beam returns the same",
            (Fault.INCONSISTENT_GEOMETRY,),
        ),
        "lidar_yaw": InjectionKind(
            (LIDAR,), content.yaw, {"angle_deg": Parameter(180.0, -360.0, 360.0, "deg", 0.0)}, Stage.CONTENT,
            "a LiDAR mounted the wrong way round; with a small angle: a bracket that was hit",
            (Fault.INCONSISTENT_GEOMETRY, Fault.MISALIGNED),
        ),
        "lidar_pitch": InjectionKind(
            (LIDAR,), content.pitch, {"angle_deg": Parameter(2.0, -360.0, 360.0, "deg", 0.0)}, Stage.CONTENT,
            "a bracket that was bent: what lies ahead is seen too low where positive",
            (Fault.MISALIGNED,),
        ),
        "lidar_moved": InjectionKind(
            (LIDAR,), content.moved, {"forward_m": Parameter(0.2, -50.0, 50.0, "m", 0.0)}, Stage.CONTENT,
            "points that are older than their stamp: 20 ms at 36 km/h are 0.2 m; or a wrong translation",
            (),
        ),
        "lidar_axes": InjectionKind(
            (LIDAR,), content.swapped_axes, {}, Stage.CONTENT,
            "extrinsics used the wrong way round: points in the axes of a camera",
            (Fault.INCONSISTENT_GEOMETRY,),
        ),
        "lidar_intensity": InjectionKind(
            (LIDAR,), content.intensity_scale, {"gain": Parameter(100.0, 0.001, 1e5, "x", 1.0)}, Stage.CONTENT,
            "intensities in another unit after an update of the driver",
            (Fault.WRONG_SCALE,),
        ),
        "event_polarity": InjectionKind(
            (EVENT,), content.swapped_channels, {}, Stage.CONTENT,
            "positive and negative events exchanged by a driver or a decoder",
            (Fault.INCONSISTENT_CONTENT,),
        ),
        "no_events": InjectionKind(
            (EVENT,), content.no_events, {}, Stage.CONTENT,
            "biases set so high that nothing fires: frames come, without an event",
            (Fault.NOT_MOVING,),
        ),
        # --- messages
        "truncate": InjectionKind(
            EVERY, None, {"keep": Parameter(0.5, 0.0, 1.0, neutral=1.0)}, Stage.MESSAGE,
            "an interrupted transfer: the message's data end too early",
            (Fault.WRONG_SIZE, Fault.DECODE_ERROR),
        ),
        "wrong_encoding": InjectionKind(
            EVERY, None, {}, Stage.MESSAGE,
            "a driver set to a format that nobody here reads: nv24 or h264 images, points in polar coordinates",
            (Fault.DECODE_ERROR,),
        ),
    }
)  # fmt: skip


def known_kind(kind: str, modality: Sensor) -> InjectionKind:
    """The kind of that name; raises InjectionScheduleError for an unknown one and for one the sensor cannot have."""
    if kind not in INJECTION_KINDS:
        raise InjectionScheduleError(
            f"unknown kind of injection {kind!r}{_nearest(kind)}; known kinds: {', '.join(INJECTION_KINDS)}"
        )
    fault = INJECTION_KINDS[kind]
    if not fault.applies_to(modality):
        kinds = ", ".join(map(str, fault.sensor_kinds))
        raise InjectionScheduleError(f"{kind} does not apply to {modality}, only to {kinds}")
    return fault


def complete_parameters(kind: str, given: Mapping[str, float]) -> dict[str, float]:
    """The parameters of a fault, defaults filled in; raises InjectionScheduleError for an unknown or bad one."""
    parameters = INJECTION_KINDS[kind].parameters
    for name, value in given.items():
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise InjectionScheduleError(f"{kind} has no parameter {name!r}; its parameters: {known}")
        low, high = parameters[name].low, parameters[name].high
        if not low <= value <= high:
            raise InjectionScheduleError(f"{kind} parameter {name} is {value:g}, outside {low:g} to {high:g}")
    return {name: float(given.get(name, parameter.default)) for name, parameter in parameters.items()}


def has_graded_parameter(kind: str) -> bool:
    """Whether the kind itself can be weak; one that cannot becomes rarer instead."""
    return any(parameter.neutral is not None for parameter in INJECTION_KINDS[kind].parameters.values())


def at_strength(kind: str, parameters: Mapping[str, float], strength: float) -> dict[str, float]:
    """The parameters on the way from doing nothing (strength 0) to `parameters` (1), linearly."""
    if strength >= 1.0:
        return dict(parameters)
    weaker = {}
    for name, value in parameters.items():
        neutral = INJECTION_KINDS[kind].parameters[name].neutral
        weaker[name] = value if neutral is None else neutral + strength * (value - neutral)
    return weaker


def degrade(frame: SensorFrame, kind: str, rng: Generator, **parameters: float) -> SensorFrame:
    """The frame with one fault of content or stamp; the given frame is left as it is.

    Raises InjectionScheduleError for a kind, sensor or parameter that `INJECTION_KINDS` does not
    have, and for the faults that a single frame cannot show.
    """
    fault = known_kind(kind, frame.modality)
    if fault.degradation is None:
        place = "messages" if fault.stage is Stage.MESSAGE else "timing"
        raise InjectionScheduleError(f"{kind} is a fault of {place}: play it with an Injector")
    return spoil(frame, fault.degradation, rng, complete_parameters(kind, parameters))


def spoil(frame: SensorFrame, degradation: Degradation, rng: Generator, parameters: Mapping[str, float]) -> SensorFrame:
    """`degrade` without the checks; of a frame without a pixel or point only the stamp can be wrong."""
    if frame.data.size or degradation is content.stamp_offset:
        return degradation(frame, rng, **parameters)
    return frame


def _nearest(kind: str) -> str:
    near = difflib.get_close_matches(kind, INJECTION_KINDS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
