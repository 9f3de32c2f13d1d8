"""What the checks and the quality of a frame look at: a few decimated statistics, each computed at most once.

A statistic is computed when it is first asked for, so a check that is switched off costs nothing. Images are looked at
every n-th pixel, noise on a few full-resolution rows (it lives between neighbours), points every n-th and in a few
stretches. `Sampling` says how densely; `FULL` looks at everything, which is what the benchmark compares with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.sensors import CAMERA, DEPTH, EVENT, LIDAR, SensorFrame, SensorKind, forward_left_up

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

BLOCKS = (9, 12)
"""Rows and columns that a picture is divided into, where a check asks which part of it is lost."""
SECTORS = 24
"""Of 15 degrees of azimuth each."""
POSSIBLE_M = (0.01, 1000.0)
"""No depth or range that a sensor measures lies outside."""
SATURATED_LEVEL = 250
_DIFFERENCE_GAIN = float(np.sqrt(np.pi / 12))
"""Mean absolute second difference -> standard deviation of white noise (after Immerkaer, Fast Noise Variance
Estimation, CVIU 1996, along rows only: a row is read out and lost as a whole)."""

_SECOND_DIFFERENCE: Floats = np.array([[1, -2, 1]], np.float32)
_TORN_COUNT = 64.0
"""Mean count of a row; random bytes have 127, and a pixel has a refractory period."""
_NEAR_ROWS = (1, 2, 4)
_ALIVE_SHARE = 0.01
"""Of a depth row's pixels."""
_NEAR_COSINE = float(np.cos(np.deg2rad(1.5)))
"""Directions closer than this see the same surface, mostly."""
_NEAR_SHARE = 0.3
"""Of the points: with fewer neighbours than that, noise is not judged."""
_PAIR_GAIN = 0.954
"""Median absolute difference of two normal numbers over their standard deviation."""


@dataclass(frozen=True)
class Sampling:
    """How densely frames are looked at."""

    side: int = 72
    """Rows and columns of an image, at least (and less than twice as many)."""
    rows: int = 48
    """Full-resolution rows for noise; of a picture with random bytes in 3 of 10 rows, one in 3000 then looks clean."""
    points: int = 4096
    stretches: int = 6
    """Stretches of `_STRETCH` successive points for noise."""

    def stride(self, length: int) -> int:
        return max(1, length // self.side)


FULL = Sampling(1 << 30, 1 << 30, 1 << 30, 1 << 30)
_STRETCH = 96


class CameraStatistics:
    """Of an RGB image uint8 [H, W, 3]; levels are 0-255."""

    def __init__(self, frame: SensorFrame, sampling: Sampling) -> None:
        self._image = cast("Image", frame.data)
        self._rows = sampling.rows
        self._sample = np.ascontiguousarray(_strided(self._image, sampling))  # [h, w, 3]
        self._channels = cv2.split(self._sample)

    @cached_property
    def highlight(self) -> float:
        """Level that the brightest 0.1 % of the pixels (by their brightest channel) reach."""
        red, green, blue = self._channels
        counts = np.bincount(cv2.max(cv2.max(red, green), blue).ravel(), minlength=256)
        return float(np.searchsorted(counts.cumsum(), 0.999 * counts.sum()))

    @cached_property
    def saturated(self) -> float:
        """Share of the pixels that are at or above `SATURATED_LEVEL` in every channel."""
        red, green, blue = self._channels
        return float((cv2.min(cv2.min(red, green), blue) >= SATURATED_LEVEL).mean())

    @cached_property
    def grey(self) -> Floats:
        """The sample's mean over the channels, float32 [h, w]."""
        return cast("Floats", cv2.transform(self._sample, np.full((1, 3), 1 / 3, np.float32)).astype(np.float32))

    @cached_property
    def brightness(self) -> float:
        """Mean grey level."""
        return float(self.grey.mean())

    @cached_property
    def white(self) -> NDArray[np.bool_]:
        """Which blocks are white, bool [108]: overexposed, not covered."""
        return (_block_means(self.grey) >= SATURATED_LEVEL - 10).ravel()

    @cached_property
    def profile(self) -> Floats:
        """Standard deviation of the grey levels within each block, float32 [108]."""
        mean, square = _block_means(self.grey), _block_means(self.grey * self.grey)
        return np.sqrt(np.maximum(square - mean * mean, 0)).ravel()

    @cached_property
    def noise(self) -> float:
        """Standard deviation in grey levels of what looks like white noise, in the noisiest tenth of the rows.

        Fine texture counts as well. Of a tenth, so that a picture of which only some rows are noise is found.
        """
        rows = cv2.extractChannel(self._image[self._row_index], 1)  # [n, W], green
        response = np.abs(cv2.filter2D(rows, cv2.CV_16S, _SECOND_DIFFERENCE))  # [n, W]
        of_rows = cv2.reduce(response, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)  # [n, 1]
        return float(np.sort(of_rows.ravel())[9 * len(of_rows) // 10]) * _DIFFERENCE_GAIN

    @cached_property
    def dead_rows(self) -> float:
        """Share of the rows that have one value throughout, other than 255, close below a row that has more than one.

        Close below, because at night the whole sky may be clipped to 0.
        """
        return _dead_rows(self._row_index, lambda index: np.ptp(self._image[index, :, 1], axis=1) > 0)

    @cached_property
    def _row_index(self) -> NDArray[np.intp]:
        return _spread(0, len(self._image), self._rows)


class DepthStatistics:
    """Of a depth image float32 [H, W] in metres; 0, NaN and infinity are no measurement."""

    def __init__(self, frame: SensorFrame, sampling: Sampling) -> None:
        self._depth = cast("Floats", frame.data)
        self._rows = sampling.rows
        self._stride = sampling.stride(self._depth.shape[1])
        self._sample = _strided(self._depth, sampling)
        self._measured = np.isfinite(self._sample) & (self._sample != 0)  # [h, w]

    @cached_property
    def invalid(self) -> float:
        """Share of the pixels without a measurement."""
        return 1.0 - float(self._measured.mean())

    @cached_property
    def impossible(self) -> float:
        """Share of the pixels whose measurement lies outside `POSSIBLE_M`."""
        near, far = POSSIBLE_M
        return float((self._measured & ~((self._sample >= near) & (self._sample <= far))).mean())

    @cached_property
    def profile(self) -> Floats:
        """Share of measured pixels in each block, float32 [108]."""
        return _block_means(self._measured.astype(np.float32)).ravel()

    @cached_property
    def dead_rows(self) -> float:
        """Share of the rows with next to no measurement that lie close below a row with some."""

        def alive(index: NDArray[np.intp]) -> NDArray[np.bool_]:
            rows = self._depth[index, :: self._stride]  # [n, w]
            return (np.isfinite(rows) & (rows != 0)).mean(axis=1) > _ALIVE_SHARE

        return _dead_rows(self._row_index, alive)

    @cached_property
    def _row_index(self) -> NDArray[np.intp]:
        return _spread(0, len(self._depth), self._rows)

    @cached_property
    def noise(self) -> float:
        """Mean relative difference of a pixel from the middle of its neighbours left and right, at most 1 each."""
        rows = self._depth[self._row_index]  # [n, W]
        step = max(1, self._stride // 4)
        with np.errstate(invalid="ignore", over="ignore"):
            left, middle, right = (rows[:, shift : rows.shape[1] - 2 + shift : step] for shift in (0, 1, 2))
            known = (np.minimum(np.minimum(left, middle), right) > 0) & np.isfinite(left + middle + right)
            difference = np.abs(middle - (left + right) / 2)[known] / middle[known]
        return float(np.minimum(difference, 1).mean()) if difference.size else 0.0


class EventStatistics:
    """Of event counts uint8 [H, W, 2]."""

    def __init__(self, frame: SensorFrame, sampling: Sampling) -> None:
        self._sample = _strided(frame.data, sampling)  # [h, w, 2]

    @cached_property
    def torn_rows(self) -> float:
        """Share of the rows with more events than a scene can fill a whole row with."""
        return float((self._sample.mean(axis=(1, 2)) > _TORN_COUNT).mean())

    @cached_property
    def per_pixel(self) -> float:
        """Events per pixel, both polarities together."""
        return 2 * float(self._sample.mean())

    @cached_property
    def active(self) -> float:
        """Share of the pixels that have sent an event."""
        return float((self._sample[..., 0] | self._sample[..., 1] > 0).mean())


class LidarStatistics:
    """Of points float32 [N, 4]."""

    def __init__(self, frame: SensorFrame, sampling: Sampling) -> None:
        self._points = cast("Floats", frame.data)
        self._stretches = sampling.stretches
        self._step = max(1, len(self._points) // sampling.points) | 1  # odd: no beat with the columns of a scan
        sample = np.asfortranarray(self._points[:: self._step, :3])  # each axis in one piece
        x, y, z = forward_left_up(sample, frame.frame_id)
        finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
        self._x, self._y, self._z = x[finite], y[finite], z[finite]  # [K] each

    @cached_property
    def count(self) -> float:
        """Points with finite coordinates, extrapolated from the sample."""
        return float(min(len(self._x) * self._step, len(self._points)))

    @cached_property
    def impossible(self) -> float:
        """Share of the points that are farther away than any LiDAR reaches."""
        if not len(self._x):
            return 0.0
        far = (np.abs(axis) > POSSIBLE_M[1] for axis in (self._x, self._y, self._z))
        return float(np.logical_or.reduce(list(far)).mean())

    @cached_property
    def profile(self) -> Floats:
        """Points in each sector of azimuth, float32 [24]; the first begins at -180 degrees."""
        azimuth = np.arctan2(self._y, self._x)  # [K]
        sector = ((azimuth + np.pi) * (SECTORS / (2 * np.pi))).astype(np.intp) % SECTORS
        return np.bincount(sector, minlength=SECTORS).astype(np.float32) * self._step

    @cached_property
    def noise(self) -> float:
        """Relative standard deviation of the range, from the median difference to the point in the nearest direction.

        Neighbours are sought within stretches of successive points: rings or columns, as drivers send them. 0 where the
        points have no such order.
        """
        length = min(_STRETCH, len(self._points))
        if length < 2:
            return 0.0
        count = min(self._stretches, len(self._points) // length)
        starts = _spread(0, len(self._points) - length + 1, count)
        xyz = np.nan_to_num(self._points[starts[:, None] + np.arange(length), :3])  # [n, L, 3]
        xyz = np.clip(xyz, -POSSIBLE_M[1], POSSIBLE_M[1])  # junk squared would overflow
        distance = np.sqrt((xyz * xyz).sum(axis=2))  # [n, L]
        direction = xyz / np.maximum(distance, 1e-6)[..., None]
        closeness = direction @ direction.transpose(0, 2, 1)  # [n, L, L], cosines
        closeness[:, np.arange(length), np.arange(length)] = -2.0
        partner = closeness.argmax(axis=2)  # [n, L]
        near = np.take_along_axis(closeness, partner[..., None], axis=2)[..., 0] > _NEAR_COSINE
        if near.mean() < _NEAR_SHARE:  # points without order: their neighbours are elsewhere
            return 0.0
        nearest = np.take_along_axis(distance, partner, axis=1)  # [n, L]
        difference = np.abs(distance - nearest) / np.maximum(np.maximum(distance, nearest), 1e-6)
        return float(np.median(difference[near])) / _PAIR_GAIN


Statistics: TypeAlias = "CameraStatistics | DepthStatistics | EventStatistics | LidarStatistics"

STATISTICS: Mapping[SensorKind, Callable[[SensorFrame, Sampling], Statistics]] = MappingProxyType(
    {
        CAMERA: CameraStatistics,
        DEPTH: DepthStatistics,
        EVENT: EventStatistics,
        LIDAR: LidarStatistics,
    }
)


def statistics_of(frame: SensorFrame, sampling: Sampling = Sampling()) -> Statistics:
    """The statistics of a frame by its kind; the frame must not be empty."""
    return STATISTICS[frame.kind.family](frame, sampling)


def _strided(data: NDArray, sampling: Sampling) -> NDArray:
    return data[:: sampling.stride(data.shape[0]), :: sampling.stride(data.shape[1])]


def _spread(start: int, stop: int, count: int) -> NDArray[np.intp]:
    """At most `count` indices, evenly over range(start, stop)."""
    return np.linspace(start, stop - 1, max(0, min(count, stop - start))).astype(np.intp)


def _dead_rows(rows: NDArray[np.intp], alive: Callable[[NDArray[np.intp]], NDArray[np.bool_]]) -> float:
    """Share of the rows that are not alive though one close above is, among themselves and the alive."""
    lives = alive(rows)
    if lives.all():
        return 0.0
    near = np.logical_or.reduce([alive(np.maximum(rows - shift, 0)) for shift in _NEAR_ROWS])
    dead = np.count_nonzero(~lives & near)
    return dead / max(dead + np.count_nonzero(lives), 1)


def _block_means(values: Floats) -> Floats:
    """[h, w] -> mean of each block, float32 `BLOCKS`."""
    return cast("Floats", cv2.resize(values, BLOCKS[::-1], interpolation=cv2.INTER_AREA))
