"""Checks on what a frame shows, each of one or a few modalities, by its decimated statistics."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.health.history import History
from anyseg_core.runtime.health.statistics import CameraStatistics, DepthStatistics, EventStatistics, LidarStatistics
from anyseg_core.runtime.sensors import EVENT, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S

FLAT_LEVELS = 3.0
"""Standard deviation of grey levels within a block that shows nothing: a covered lens has noise of 1 or 2."""
TEXTURED_LEVELS = 6.0
"""Standard deviation of a block that usually shows something."""
LEAST_TEXTURED = 0.25
"""Share of the blocks that must usually show something before its loss is judged."""
NEARLY_ALL = 0.98
USUALLY_MEASURED = 0.5
"""Share of measured pixels in a block that usually has depth ..."""
RARELY_MEASURED = 0.02
"""... and in one that has none."""
LOST_DEPTH = 0.3
"""Share of the blocks that usually have depth and have none: something covers the sensor. Clean: at most 0.05, and 0.23
where a row of houses ends."""
DEAD_DEPTH_ROWS = 0.2
"""Share of the rows that have no depth close below one that has some."""
LEAST_POINTS = 100
"""Fewer are too few whatever the sensor; a street gives thousands even in heavy rain."""
LEAST_SECTOR_POINTS = 50.0
"""A sector that usually has fewer looks at the sky or at the vehicle itself."""
IMPOSSIBLE_SHARE = 0.01
"""Of the pixels or points: no sensor measures as much nonsense, torn data does."""
LEAST_SIDE = 32
"""Pixels of an image's side, below which noise and texture cannot be told apart."""


def frozen(frame: SensorFrame, history: History, _threshold: float) -> str | None:
    """Bit for bit the frame before it. No events twice are no fault: nothing moves."""
    if history.previous is None or not _identical(frame.data, history.previous.data):
        return None
    if frame.kind.family is EVENT and not frame.data.any():
        return None
    return "content is identical to the previous message"


def dark(_frame: SensorFrame, history: History, level: float) -> str | None:
    """Nothing in the picture is as bright as `level`: at night lamps are, under a lens cap nothing is."""
    brightest = cast("CameraStatistics", history.statistics).highlight
    return f"brightest pixels reach level {brightest:.0f} of 255" if brightest < level else None


def saturated(_frame: SensorFrame, history: History, limit: float) -> str | None:
    """More than the share `limit` of the picture is white."""
    share = cast("CameraStatistics", history.statistics).saturated
    return f"{share:.0%} of the image is saturated" if share > limit else None


def blank(frame: SensorFrame, history: History, limit: float) -> str | None:
    """More than the share `limit` of the picture shows nothing any more, or all of it shows nothing."""
    statistics = cast("CameraStatistics", history.statistics)
    if min(frame.data.shape[:2]) < LEAST_SIDE:
        return None
    if (statistics.profile < FLAT_LEVELS).all():
        return f"the image is uniform (standard deviation {statistics.grey.std():.1f} levels)"
    if statistics.dead_rows > limit:
        return f"{statistics.dead_rows:.0%} of the rows are dead"
    lost = lost_texture(statistics, history.usual)
    return f"{lost:.0%} of what the image usually shows is covered" if lost > limit else None


def lost_texture(statistics: CameraStatistics, usual: NDArray[np.float32] | None) -> float:
    """Share of the blocks that usually have texture and have none now, and are not white; 0 where too few have any."""
    if usual is None:
        return 0.0
    textured = usual > TEXTURED_LEVELS
    if textured.mean() < LEAST_TEXTURED:
        return 0.0
    return float(((statistics.profile < FLAT_LEVELS) & ~statistics.white)[textured].mean())


def noisy(frame: SensorFrame, history: History, limit: float) -> str | None:
    """Noise of more than `limit` times full scale: of 255 levels, or of the distance; or torn points or event rows."""
    statistics = history.statistics
    if isinstance(statistics, EventStatistics):  # where every row is full it is a flood
        torn = statistics.torn_rows
        return f"{torn:.0%} of the rows are full of events" if IMPOSSIBLE_SHARE < torn < NEARLY_ALL else None
    if isinstance(statistics, LidarStatistics):
        if statistics.impossible > IMPOSSIBLE_SHARE:
            return f"{statistics.impossible:.0%} of the points are farther away than any LiDAR reaches"
    elif min(frame.data.shape[:2]) < LEAST_SIDE:
        return None
    sigma = statistics.noise / 255 if isinstance(statistics, CameraStatistics) else statistics.noise
    scale = "full scale" if isinstance(statistics, CameraStatistics) else "the distance"
    return f"noise of {sigma:.0%} of {scale}" if sigma > limit else None


def invalid_depth(_frame: SensorFrame, history: History, limit: float) -> str | None:
    """No depth in more than the share `limit` of the picture, or in much that usually has it; or impossible depth."""
    statistics = cast("DepthStatistics", history.statistics)
    if statistics.invalid > limit:
        return f"{statistics.invalid:.0%} of the pixels have no depth"
    if statistics.impossible > IMPOSSIBLE_SHARE:
        return f"{statistics.impossible:.0%} of the pixels have a depth that no sensor measures"
    if statistics.dead_rows > DEAD_DEPTH_ROWS:
        return f"{statistics.dead_rows:.0%} of the rows have no depth"
    lost = lost_depth(statistics.profile, history.usual)
    return f"{lost:.0%} of the image that usually has depth has none" if lost > LOST_DEPTH else None


def lost_depth(profile: NDArray[np.float32], usual: NDArray[np.float32] | None) -> float:
    """Share of the blocks that usually have depth and have none now."""
    if usual is None:
        return 0.0
    measured = usual > USUALLY_MEASURED
    return float((profile[measured] < RARELY_MEASURED).mean()) if measured.any() else 0.0


def few_points(_frame: SensorFrame, history: History, fraction: float) -> str | None:
    """Fewer points than `fraction` of the usual number, or than anything can be seen with."""
    count = cast("LidarStatistics", history.statistics).count
    usual = 0.0 if history.usual is None else float(history.usual.sum())
    if count >= max(LEAST_POINTS, fraction * usual):
        return None
    return f"{count:.0f} points" + (f", usually {usual:.0f}" if usual else "")


def lidar_sector_lost(_frame: SensorFrame, history: History, fraction: float) -> str | None:
    """A sector of azimuth, 0 = ahead, gives less than `fraction` of its usual points."""
    if history.usual is None:
        return None
    profile = cast("LidarStatistics", history.statistics).profile
    lost = np.flatnonzero((history.usual > LEAST_SECTOR_POINTS) & (profile < fraction * history.usual))
    if not len(lost):
        return None
    width = 360 / len(profile)
    sectors = ", ".join(f"{-180 + width * k:.0f} to {-180 + width * (k + 1):.0f}" for k in lost[:3])
    return f"no points in {len(lost)} of {len(profile)} sectors: {sectors} degrees" + (" ..." if len(lost) > 3 else "")


def event_flood(frame: SensorFrame, history: History, limit: float) -> str | None:
    """More events per pixel and second than `limit`."""
    since = frame.stamp_ns - history.previous.stamp_ns if history.previous else history.period_ns
    seconds = max(since, history.period_ns // 2) / NS_PER_S
    rate = cast("EventStatistics", history.statistics).per_pixel / seconds
    return f"{rate:.0f} events per pixel and second" if rate > limit else None


def _identical(first: NDArray, second: NDArray) -> bool:
    """Same shape and content; NaN equals NaN. A sparse sample settles nearly every pair of live frames."""
    if first.shape != second.shape:
        return False
    nan_is_possible = first.dtype.kind == "f"  # looking for NaN costs ten times the comparison
    stride = max(1, len(first) // 16)
    return np.array_equal(first[::stride], second[::stride], equal_nan=nan_is_possible) and np.array_equal(
        first, second, equal_nan=nan_is_possible
    )
