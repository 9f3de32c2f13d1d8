"""Figures of a live run: from what was heard and when each message was published. No ROS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from anyseg_core.runtime.sensors import Sensor, in_order
from anyseg_core.runtime.time_units import NS_PER_MS
from anyseg_ros.live_run.recording import Recording

PublishTimes = Mapping[int, Mapping[Sensor, int]]
"""By stamp and modality: the system time just before the message went to the middleware, both in nanoseconds."""


@dataclass(frozen=True)
class MadeMask:
    """A mask that was received, and what its status says of it. Times are nanoseconds of the system clock."""

    stamp_ns: int
    received_ns: int
    used: tuple[Sensor, ...]
    engine_ms: float
    oldest_ms: float
    """Age of its oldest frame when it was begun."""


@dataclass(frozen=True)
class AddedLatency:
    """From a publish to the mask's arrival, minus the time in the engine, in milliseconds."""

    last_ms: float
    """Counted from the publish of the last message of the set that the mask was made from."""
    anchor_ms: float
    """Counted from the publish of the anchor's message."""


@dataclass(frozen=True)
class Reaction:
    """From a sensor's last message to the first mask made without it, in nanoseconds of the system clock."""

    begin_ns: int
    end_ns: int

    @property
    def ms(self) -> float:
        return (self.end_ns - self.begin_ns) / NS_PER_MS


def read_publish_log(path: Path) -> dict[int, dict[Sensor, int]]:
    """The `publish_log` of simulated_vehicle; a line that was cut off at the end is left out."""
    times: dict[int, dict[Sensor, int]] = {}
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        stamp_ns, modality, published_ns = line.split(",")
        times.setdefault(int(stamp_ns), {})[Sensor(modality)] = int(published_ns)
    return times


def made_masks(recording: Recording) -> list[MadeMask]:
    """The masks whose status was heard as well, in the order of their arrival."""
    ages: dict[int, dict[Sensor, float]] = {}
    engine_ms: dict[int, float] = {}
    for status in recording.statuses:
        if status.used and status.frame_age_ms is not None and status.engine_ms is not None:
            ages.setdefault(status.stamp_ns, {})[status.modality] = status.frame_age_ms
            engine_ms[status.stamp_ns] = status.engine_ms
    return [
        MadeMask(
            mask.stamp_ns,
            mask.received_ns,
            in_order(ages[mask.stamp_ns]),
            engine_ms[mask.stamp_ns],
            max(ages[mask.stamp_ns].values()),
        )
        for mask in recording.masks
        if mask.stamp_ns in ages
    ]


def added_latencies(masks: Iterable[MadeMask], published: PublishTimes) -> list[AddedLatency]:
    """Of the masks whose frames were all published at the mask's stamp."""
    latencies = []
    for mask in masks:
        times = published.get(mask.stamp_ns, {})
        if set(mask.used) <= set(times):
            last, anchor = max(times[m] for m in mask.used), times[mask.used[0]]
            received, engine_ms = mask.received_ns, mask.engine_ms
            latencies.append(
                AddedLatency((received - last) / NS_PER_MS - engine_ms, (received - anchor) / NS_PER_MS - engine_ms)
            )
    return latencies


def reactions_to(
    masks: Sequence[MadeMask], published: PublishTimes, modality: Sensor, silence_ms: float
) -> list[Reaction]:
    """To each silence of a sensor of `silence_ms` or more; where no mask is made without it, until the last mask."""
    times = sorted(instant[modality] for instant in published.values() if modality in instant)
    last_ones = [before for before, after in pairwise(times) if after - before >= silence_ms * NS_PER_MS]
    reactions = []
    for last_ns in last_ones:
        without = (m.received_ns for m in masks if m.received_ns > last_ns and modality not in m.used)
        reactions.append(Reaction(last_ns, min(without, default=masks[-1].received_ns)))
    return reactions


def gaps_ms(masks: Sequence[MadeMask]) -> list[float]:
    """Between the arrivals of successive masks."""
    return [(later.received_ns - earlier.received_ns) / NS_PER_MS for earlier, later in pairwise(masks)]


def slope_per_minute(seconds: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Slope of the least-squares line, per minute, and its standard error.

    Raises ValueError for fewer than three points.
    """
    if len(seconds) < 3:
        raise ValueError(f"a slope with its error needs three points, not {len(seconds)}: let the run take longer")
    minutes = (np.asarray(seconds) - np.mean(seconds)) / 60.0
    deviations = np.asarray(values) - np.mean(values)
    slope = minutes @ deviations / (minutes @ minutes)
    residuals = deviations - slope * minutes
    variance = residuals @ residuals / (len(seconds) - 2)
    return float(slope), float(np.sqrt(variance / (minutes @ minutes)))
