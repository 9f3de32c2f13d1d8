"""The fault catalogue: what can be wrong with a sensor, when it counts as wrong, and the checks on one frame.

A check is a small function of (frame, history, threshold) that returns why the frame is bad, or None. To add
one: write the function, enter it in `FRAME_CHECKS`, and give it its defaults in `DEFAULT_CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.modality import MODALITIES, Modality, ModalityFrame

NS_PER_MS = 1_000_000


class Fault(str, Enum):
    """What can be wrong with a sensor, as it is named in status messages and parameters."""

    NEVER_RECEIVED = "never_received"
    SILENT = "silent"
    LOW_RATE = "low_rate"
    STALE_STAMP = "stale_stamp"
    FUTURE_STAMP = "future_stamp"
    STAMP_REGRESSION = "stamp_regression"
    DUPLICATE_STAMP = "duplicate_stamp"
    FROZEN = "frozen"
    DARK = "dark"
    SATURATED = "saturated"
    BLANK = "blank"
    NOISY = "noisy"
    INVALID_DEPTH = "invalid_depth"
    FEW_POINTS = "few_points"
    LIDAR_SECTOR_LOST = "lidar_sector_lost"
    EVENT_FLOOD = "event_flood"
    EVENT_SEQUENCE_GAP = "event_sequence_gap"
    DECODE_ERROR = "decode_error"
    WRONG_SIZE = "wrong_size"
    INCOMPATIBLE_QOS = "incompatible_qos"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class CheckConfig:
    """When a check fails and when its sensor may come back.

    Raises ValueError that names the field.
    """

    enabled: bool = True
    threshold: float = 0.0
    """In the check's own unit, see `DEFAULT_CHECKS`; 0 where the check has none."""
    fail_count: int = 3
    """Consecutive bad messages (for `silent`: missed messages) before the sensor has failed."""
    recover_count: int = 3
    """Consecutive good frames before it is used again ..."""
    recover_time_s: float = 0.5
    """... over at least this many seconds: a sensor that comes and goes stays out."""
    latch: bool = False
    """Stay failed until a person clears the fault."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.threshold) and self.threshold >= 0):
            raise ValueError(f"threshold must be a finite number >= 0, not {self.threshold}")
        for name in ("fail_count", "recover_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not (np.isfinite(self.recover_time_s) and self.recover_time_s >= 0):
            raise ValueError(f"recover_time_s must be a finite number >= 0, not {self.recover_time_s}")


_AT_ONCE = {"fail_count": 1, "recover_count": 1, "recover_time_s": 0.0}

DEFAULT_CHECKS: Mapping[Fault, CheckConfig] = MappingProxyType(
    {
        # Back with the first good frame: there is no history that speaks against the sensor.
        Fault.NEVER_RECEIVED: CheckConfig(**_AT_ONCE),
        Fault.INCOMPATIBLE_QOS: CheckConfig(**_AT_ONCE),
        # Periods without a message (and never less than SILENCE_FLOOR_MS). Two arrivals that each jitter by
        # +-30% of the period lie up to 1.6 periods apart. The mask without the sensor is due 2 periods after
        # its last message, or 150 ms, whichever is more, so 30 ms or more remain to make it.
        Fault.SILENT: CheckConfig(threshold=1.6, fail_count=1),
        # Fraction of the expected rate. Off by default: at low rates `silent` is the earlier and sharper sign.
        Fault.LOW_RATE: CheckConfig(enabled=False, threshold=0.5),
        # ms from acquisition to reception. A 10 Hz LiDAR stamps the start of its 100 ms sweep.
        Fault.STALE_STAMP: CheckConfig(threshold=200.0),
        # ms ahead of the node's clock; synchronised clocks differ by far less.
        Fault.FUTURE_STAMP: CheckConfig(threshold=50.0),
        # Best-effort transport may swap two packets once: the late frame is not used, the sensor is kept.
        Fault.STAMP_REGRESSION: CheckConfig(),
        Fault.DUPLICATE_STAMP: CheckConfig(),
        # Bit-identical content. Sensor noise makes it impossible in a live sensor, at standstill too.
        Fault.FROZEN: CheckConfig(),
        # The network input is wrong or absent for as long as this lasts: two in a row are no accident.
        Fault.DECODE_ERROR: CheckConfig(fail_count=2),
        Fault.WRONG_SIZE: CheckConfig(fail_count=2),
        # The content checks below are off by default: their thresholds are reasoned, not yet measured on
        # recorded drives, and an unmeasured threshold must not take a working sensor out.
        # Level 0-255 that the brightest 0.5% of pixels stay under. At night lamps and the lit road are far
        # above; under a lens cap nothing is. Ten frames: a tunnel mouth blinds the exposure for a moment.
        Fault.DARK: CheckConfig(enabled=False, threshold=10.0, fail_count=10),
        # Fraction of pixels at or above 250 in every channel; low sun saturates a part, a fault nearly all.
        Fault.SATURATED: CheckConfig(enabled=False, threshold=0.9, fail_count=5),
        # Standard deviation of grey levels; a covered lens shows noise of 1-2 levels, dense fog more than 4.
        Fault.BLANK: CheckConfig(enabled=False, threshold=2.0, fail_count=5),
        # Fraction of pixels without a measurement. Open sky takes half of an image, not 95%.
        Fault.INVALID_DEPTH: CheckConfig(enabled=False, threshold=0.95),
        # Points; a street gives thousands even in heavy rain.
        Fault.FEW_POINTS: CheckConfig(enabled=False, threshold=100.0),
    }
)


class History(NamedTuple):
    """What a check may know beside the frame."""

    previous: ModalityFrame | None
    """The frame before this one."""
    now_ns: int
    """When the frame was received."""
    rate_hz: float | None
    """Measured rate, None until it is known."""
    expected_rate_hz: float


Check = Callable[[ModalityFrame, History, float], "str | None"]


def _low_rate(_frame: ModalityFrame, history: History, fraction: float) -> str | None:
    if history.rate_hz is None or history.rate_hz >= fraction * history.expected_rate_hz:
        return None
    return f"{history.rate_hz:.1f} Hz instead of {history.expected_rate_hz:g} Hz"


def _stale_stamp(frame: ModalityFrame, history: History, limit_ms: float) -> str | None:
    late_ms = (history.now_ns - frame.stamp_ns) / NS_PER_MS
    return f"stamped {late_ms:.0f} ms before it was received" if late_ms > limit_ms else None


def _future_stamp(frame: ModalityFrame, history: History, limit_ms: float) -> str | None:
    ahead_ms = (frame.stamp_ns - history.now_ns) / NS_PER_MS
    return f"stamped {ahead_ms:.0f} ms in the future" if ahead_ms > limit_ms else None


def _stamp_regression(frame: ModalityFrame, history: History, _threshold: float) -> str | None:
    if history.previous is None or frame.stamp_ns >= history.previous.stamp_ns:
        return None
    back_ms = (history.previous.stamp_ns - frame.stamp_ns) / NS_PER_MS
    return f"stamp is {back_ms:.1f} ms before the previous one"


def _duplicate_stamp(frame: ModalityFrame, history: History, _threshold: float) -> str | None:
    if history.previous is None or frame.stamp_ns != history.previous.stamp_ns:
        return None
    return "same stamp as the previous message"


def _frozen(frame: ModalityFrame, history: History, _threshold: float) -> str | None:
    if history.previous is None or not _identical(frame.data, history.previous.data):
        return None
    if frame.modality is Modality.EVENT and not frame.data.any():
        return None  # nothing moves: a static scene has no events, and that is no fault
    return "content is identical to the previous message"


def _dark(frame: ModalityFrame, _history: History, level: float) -> str | None:
    brightest = float(np.percentile(_sampled(frame.data).max(axis=-1), 99.5))
    return f"brightest pixels reach level {brightest:.0f} of 255" if brightest < level else None


def _saturated(frame: ModalityFrame, _history: History, limit: float) -> str | None:
    share = float((_sampled(frame.data).min(axis=-1) >= 250).mean())
    return f"{share:.0%} of the image is saturated" if share > limit else None


def _blank(frame: ModalityFrame, _history: History, limit: float) -> str | None:
    spread = float(_sampled(frame.data).mean(axis=-1).std())
    return f"the image is uniform (standard deviation {spread:.1f} levels)" if spread < limit else None


def _invalid_depth(frame: ModalityFrame, _history: History, limit: float) -> str | None:
    depth = _sampled(frame.data)
    share = 1.0 - float((np.isfinite(depth) & (depth > 0)).mean())
    return f"{share:.0%} of the pixels have no depth" if share > limit else None


def _few_points(frame: ModalityFrame, _history: History, least: float) -> str | None:
    count = int(np.isfinite(frame.data[:, :3]).all(axis=1).sum())
    return f"{count} points" if count < least else None


FRAME_CHECKS: Mapping[Fault, tuple[tuple[Modality, ...], Check]] = MappingProxyType(
    {
        # A stamp that stands still or runs back grows stale as well: the cause comes first.
        Fault.STAMP_REGRESSION: (MODALITIES, _stamp_regression),
        Fault.DUPLICATE_STAMP: (MODALITIES, _duplicate_stamp),
        Fault.FUTURE_STAMP: (MODALITIES, _future_stamp),
        Fault.STALE_STAMP: (MODALITIES, _stale_stamp),
        Fault.FEW_POINTS: ((Modality.LIDAR,), _few_points),
        Fault.INVALID_DEPTH: ((Modality.DEPTH,), _invalid_depth),
        Fault.DARK: ((Modality.CAMERA,), _dark),
        Fault.SATURATED: ((Modality.CAMERA,), _saturated),
        Fault.BLANK: ((Modality.CAMERA,), _blank),
        Fault.FROZEN: (MODALITIES, _frozen),
        Fault.LOW_RATE: (MODALITIES, _low_rate),
    }
)
"""Checks on a frame and the modalities they apply to; the first that fails names the fault."""


def failed_check(
    frame: ModalityFrame, history: History, config_of: Callable[[Fault], CheckConfig]
) -> tuple[Fault, str] | None:
    """The first enabled check that the frame fails and why, or None for a good frame."""
    for fault, (modalities, check) in FRAME_CHECKS.items():
        config = config_of(fault)
        if not config.enabled or frame.modality not in modalities:
            continue
        reason = check(frame, history, config.threshold)
        if reason is not None:
            return fault, reason
    return None


def _sampled(data: NDArray, target: int = 64) -> NDArray:
    """At most about 2 * target rows and columns, evenly spaced: content checks need no more."""
    rows, cols = (max(1, side // target) for side in data.shape[:2])
    return data[::rows, ::cols]


def _identical(first: NDArray, second: NDArray) -> bool:
    """Same shape and content; NaN equals NaN. A sparse sample settles nearly every pair of live frames."""
    if first.shape != second.shape:
        return False
    nan_is_possible = first.dtype.kind == "f"  # looking for NaN costs ten times the comparison
    stride = max(1, len(first) // 16)
    return np.array_equal(first[::stride], second[::stride], equal_nan=nan_is_possible) and np.array_equal(
        first, second, equal_nan=nan_is_possible
    )
