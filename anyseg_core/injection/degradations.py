"""Faults of content: one frame in, what the broken sensor would have measured instead out. Pure and seeded.

Every function leaves the given frame as it is, and takes its parameters as numbers; `kinds.INJECTION_KINDS` says which,
with units and ranges. Columns of points beyond the fourth travel with their point.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.sensors import CAMERA, DEPTH, SensorFrame, forward_left_up

Generator = np.random.Generator

_LEAST_BLUR_PX = 0.1
"""A Gaussian this narrow changes nothing."""
_BEAM_DEG = 0.5
"""Elevation that one laser of a spinning LiDAR covers, about."""
_FEW_EVENTS = 1.0
"""Below this mean, 256 quantiles are too coarse for a Poisson distribution."""
_MOST_EVENTS = 256
"""A pixel's half of a flood; counts saturate at 255 anyway."""
_MILLIMETRE = 0.001
_GREY_DEPTH_M = 10.0
"""Depth of the middle grey level."""
_INT16 = 8191
"""Levels that a draw can be off: four of them still fit an int16."""


def black(frame: SensorFrame, _rng: Generator, light: float) -> SensorFrame:
    """Only the fraction `light` of the light arrives."""
    return replace(frame, data=cv2.convertScaleAbs(frame.data, alpha=light))


def saturate(frame: SensorFrame, _rng: Generator, gain: float) -> SensorFrame:
    """Overexposure: levels times `gain`, clipped at 255."""
    return replace(frame, data=cv2.convertScaleAbs(frame.data, alpha=gain))


def blur(frame: SensorFrame, _rng: Generator, sigma_px: float) -> SensorFrame:
    """Defocus or a dirty lens: Gaussian blur."""
    if sigma_px < _LEAST_BLUR_PX:
        return frame
    return replace(frame, data=cv2.GaussianBlur(frame.data, (0, 0), sigma_px))


def noise(frame: SensorFrame, rng: Generator, sigma: float) -> SensorFrame:
    """Gaussian noise of `sigma` times full scale: 255 levels, the depth itself, the range of a point."""
    if frame.kind.family is CAMERA:
        return replace(frame, data=_add(frame.data, _normal_quantiles() * (255.0 * sigma / math.sqrt(2.0)), rng))
    data = frame.data.astype(np.float32)
    if frame.kind.family is DEPTH:
        data *= 1.0 + sigma * rng.standard_normal(data.shape, np.float32)
    else:
        data[:, :3] *= 1.0 + sigma * rng.standard_normal((len(data), 1), np.float32)
    return replace(frame, data=data)


def blockage(frame: SensorFrame, _rng: Generator, fraction: float, center_x: float, center_y: float) -> SensorFrame:
    """Mud on the lens: a disc over `fraction` of the image area (where it lies inside) shows nothing.

    The centre is in fractions of width and height.
    """
    height, width = frame.data.shape[:2]
    radius = math.sqrt(fraction * height * width / math.pi)
    rows, cols = np.ogrid[:height, :width]
    seen = (cols - center_x * width) ** 2 + (rows - center_y * height) ** 2 >= radius**2  # [H, W]
    return replace(frame, data=cv2.copyTo(frame.data, seen.view(np.uint8)))


def dead_rows(frame: SensorFrame, rng: Generator, fraction: float) -> SensorFrame:
    """`fraction` of the sensor's rows, or of a LiDAR's lasers, measure nothing: always the same ones."""
    if not frame.kind.is_points:
        return _set(frame, rng.random(len(frame.data)) < fraction, 0)
    with np.errstate(invalid="ignore", over="ignore"):
        forward, left, up = forward_left_up(cast("NDArray[np.float32]", frame.data), frame.frame_id)
        elevation = np.degrees(np.arctan2(up, np.hypot(forward, left)))  # [N]
    beam = np.nan_to_num((elevation + 90.0) / _BEAM_DEG).astype(np.intp)  # 0..360
    dead = rng.random(round(180.0 / _BEAM_DEG) + 1) < fraction
    return replace(frame, data=frame.data[~dead[beam]])


def nan_depth(frame: SensorFrame, rng: Generator, fraction: float) -> SensorFrame:
    """`fraction` of the pixels, chosen at random, become NaN."""
    return _set(frame, rng.random(frame.data.shape, np.float32) < fraction, np.nan)


def zero_depth(frame: SensorFrame, rng: Generator, fraction: float) -> SensorFrame:
    """`fraction` of the pixels, chosen at random, become 0."""
    return _set(frame, rng.random(frame.data.shape, np.float32) < fraction, 0)


def depth_scale(frame: SensorFrame, _rng: Generator, scale: float) -> SensorFrame:
    """A stereo pair that lost its calibration: every depth times `scale`."""
    with np.errstate(over="ignore"):
        return replace(frame, data=frame.data * np.float32(scale))


def sector_loss(frame: SensorFrame, _rng: Generator, from_deg: float, to_deg: float, fraction: float) -> SensorFrame:
    """No points from one azimuth counter-clockwise to another (0 = straight ahead of the LiDAR).

    With a `fraction` below 1 only that part of the sector, from its start on.
    """
    with np.errstate(invalid="ignore"):
        forward, left, _ = forward_left_up(cast("NDArray[np.float32]", frame.data), frame.frame_id)
        azimuth = np.degrees(np.arctan2(left, forward))  # [N], -180..180
        span = 360.0 if to_deg - from_deg >= 360.0 else (to_deg - from_deg) % 360.0
        lost = (azimuth - from_deg) % 360.0 < span * fraction
    return replace(frame, data=frame.data[~lost])


def sparse(frame: SensorFrame, rng: Generator, keep: float) -> SensorFrame:
    """Only the fraction `keep` of the points comes back, chosen at random."""
    return replace(frame, data=frame.data[rng.random(len(frame.data)) < keep])


def event_flood(frame: SensorFrame, rng: Generator, events_per_pixel: float) -> SensorFrame:
    """Flicker or a lost bias: spurious events everywhere, Poisson per pixel and polarity."""
    if events_per_pixel >= _FEW_EVENTS:
        return replace(frame, data=_add(frame.data, _poisson_quantiles(events_per_pixel / 2.0), rng))
    counts = frame.data + rng.poisson(events_per_pixel, frame.data.shape)
    return replace(frame, data=np.minimum(counts, 255).astype(np.uint8))


def event_gap(frame: SensorFrame, rng: Generator, fraction: float) -> SensorFrame:
    """A full readout buffer: each event is lost with probability `fraction`."""
    data = frame.data.copy()
    has_events = data > 0  # few have: drawing for the others costs a hundred times more
    data[has_events] = rng.binomial(data[has_events].astype(np.intp), 1.0 - fraction)
    return replace(frame, data=data)


def corrupt(frame: SensorFrame, rng: Generator, fraction: float) -> SensorFrame:
    """A torn transfer: `fraction` of the rows (image rows, or points) hold random bytes."""
    data = frame.data.copy()
    rows = rng.random(len(data)) < fraction
    junk = np.frombuffer(rng.bytes(data[rows].nbytes), data.dtype)
    data[rows] = junk.reshape(data[rows].shape)
    return replace(frame, data=data)


def mirrored(frame: SensorFrame, _rng: Generator) -> SensorFrame:
    """Left is right."""
    return replace(frame, data=np.ascontiguousarray(frame.data[:, ::-1]))


def upside_down(frame: SensorFrame, _rng: Generator) -> SensorFrame:
    """Turned by 180 degrees about the optical axis."""
    return replace(frame, data=np.ascontiguousarray(frame.data[::-1, ::-1]))


def swapped_channels(frame: SensorFrame, _rng: Generator) -> SensorFrame:
    """Red is blue; of event counts, positive is negative."""
    return replace(frame, data=np.ascontiguousarray(frame.data[..., ::-1]))


def lost_color(frame: SensorFrame, _rng: Generator, channel: float) -> SensorFrame:
    """One colour is black: `channel` 0 red, 1 green, 2 blue."""
    data = frame.data.copy()
    data[..., round(channel)] = 0
    return replace(frame, data=data)


def half_size(frame: SensorFrame, _rng: Generator) -> SensorFrame:
    """Every other row and column: the same view with a quarter of the pixels."""
    return replace(frame, data=np.ascontiguousarray(frame.data[::2, ::2]))


def constant_depth(frame: SensorFrame, rng: Generator, depth_m: float) -> SensorFrame:
    """One depth everywhere, which differs by a millimetre at most from frame to frame."""
    return replace(frame, data=np.full_like(frame.data, depth_m + _MILLIMETRE * rng.random()))


def depth_levels(frame: SensorFrame, _rng: Generator) -> SensorFrame:
    """Grey levels 0 to 255, bright where it is near, in place of metres."""
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.rint(255.0 / (1.0 + frame.data / _GREY_DEPTH_M))
    return replace(frame, data=np.nan_to_num(levels, nan=0.0).astype(np.float32))


def constant_range(frame: SensorFrame, rng: Generator, range_m: float) -> SensorFrame:
    """Every point at one range, to a millimetre, in its direction."""
    data = frame.data.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        distance = np.linalg.norm(data[:, :3], axis=1)  # [N]
        wanted = range_m + _MILLIMETRE * rng.standard_normal(len(data), np.float32)
        data[:, :3] *= np.where(distance > 0, wanted / distance, 0.0).astype(np.float32)[:, None]
    return replace(frame, data=data)


def yaw(frame: SensorFrame, _rng: Generator, angle_deg: float) -> SensorFrame:
    """A mount that has turned: points turned about the LiDAR's z axis, counter-clockwise seen from above."""
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return _turned(frame, np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], np.float32))


def pitch(frame: SensorFrame, _rng: Generator, angle_deg: float) -> SensorFrame:
    """A mount that nods: points turned about the LiDAR's y axis; what lies ahead goes down where positive."""
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return _turned(frame, np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], np.float32))


def moved(frame: SensorFrame, _rng: Generator, forward_m: float) -> SensorFrame:
    """Points as they were seen this far behind: everything is further ahead by as much (x of the LiDAR)."""
    data = frame.data.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        data[:, 0] += np.float32(forward_m)
    return replace(frame, data=data)


def swapped_axes(frame: SensorFrame, _rng: Generator) -> SensorFrame:
    """x forward, y left, z up become x right, y down, z forward: what inverted extrinsics make of a LiDAR that looks
    ahead, as the change of axes done three times is none."""
    return _turned(frame, np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], np.float32))


def intensity_scale(frame: SensorFrame, _rng: Generator, gain: float) -> SensorFrame:
    """Intensities in another unit."""
    data = frame.data.copy()
    with np.errstate(over="ignore"):
        data[:, 3] *= np.float32(gain)
    return replace(frame, data=data)


def no_events(frame: SensorFrame, _rng: Generator) -> SensorFrame:
    """Frames without an event."""
    return replace(frame, data=np.zeros_like(frame.data))


class FreezeOneValue:
    """The first content again and again, with one value of it changed in each frame."""

    def __init__(self) -> None:
        self._held: NDArray[Any] | None = None

    def __call__(self, frame: SensorFrame, rng: Generator) -> SensorFrame:
        """The held content under this frame's stamp."""
        held = self._held = frame.data.copy() if self._held is None else self._held
        data = held.copy()
        place = int(rng.integers(data.size))
        data.flat[place] = data.flat[place] + 1 if data.dtype.kind == "f" else data.flat[place] ^ 1
        return replace(frame, data=data)


class FreezeNoise:
    """The first content again and again, with new noise of `sigma` times full scale on it."""

    def __init__(self) -> None:
        self._held: SensorFrame | None = None

    def __call__(self, frame: SensorFrame, rng: Generator, sigma: float) -> SensorFrame:
        """The held content under this frame's stamp."""
        held = self._held = replace(frame, data=frame.data.copy()) if self._held is None else self._held
        return replace(frame, data=noise(held, rng, sigma).data)


class Torn:
    """The lowest `fraction` of the rows is that of the frame before; with `stuck` 1, of the first frame for ever."""

    def __init__(self) -> None:
        self._old: NDArray[Any] | None = None

    def __call__(self, frame: SensorFrame, _rng: Generator, fraction: float, stuck: float) -> SensorFrame:
        """This frame with old rows."""
        old, data = self._old, frame.data.copy()
        if old is not None and old.shape == data.shape:
            first_old = round((1.0 - fraction) * len(data))
            data[first_old:] = old[first_old:]
        if old is None or round(stuck) == 0:
            self._old = frame.data.copy()
        return replace(frame, data=data)


def stamp_offset(frame: SensorFrame, _rng: Generator, offset_s: float) -> SensorFrame:
    """A sensor whose clock is off: ahead where positive, behind where negative."""
    return replace(frame, stamp_ns=frame.stamp_ns + round(offset_s * 1e9))


def _turned(frame: SensorFrame, rotation: NDArray[np.float32]) -> SensorFrame:
    data = frame.data.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        data[:, :3] = data[:, :3] @ rotation.T
    return replace(frame, data=data)


def _set(frame: SensorFrame, where: NDArray[np.bool_], value: float) -> SensorFrame:
    data = frame.data.copy()
    data[where] = value
    return replace(frame, data=data)


def _add(levels: NDArray[Any], quantiles: NDArray[np.float64], rng: Generator) -> NDArray[np.uint8]:
    """Add the sum of two draws from a distribution, given by its 256 quantiles, to every level 0..255.

    Normal and Poisson distributions are sums of two of their kind. Two tables of bytes are ten times as fast as numpy's
    generators, which matters where a live injector relays other sensors, too.
    """
    table = np.rint(np.clip(quantiles, -_INT16, _INT16)).astype(np.int16)
    first, second = (cv2.LUT(np.frombuffer(rng.bytes(levels.size), np.uint8).reshape(-1, 1), table) for _ in range(2))
    total = cv2.add(levels.reshape(-1, 1), cv2.add(first, second), dtype=cv2.CV_8U)  # saturates
    return total.astype(np.uint8, copy=False).reshape(levels.shape)


@lru_cache(maxsize=1)
def _normal_quantiles() -> NDArray[np.float64]:
    """256 evenly spaced quantiles of the standard normal distribution, scaled to its variance."""
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
    return quantiles / quantiles.std()


@lru_cache(maxsize=16)
def _poisson_quantiles(mean: float) -> NDArray[np.float64]:
    """256 evenly spaced quantiles of a Poisson distribution."""
    counts = np.arange(_MOST_EVENTS)
    log_factorials = np.cumsum(np.log(np.maximum(counts, 1)))
    cumulative = np.cumsum(np.exp(counts * math.log(mean) - mean - log_factorials))
    return np.searchsorted(cumulative, (np.arange(256) + 0.5) / 256).astype(np.float64)
