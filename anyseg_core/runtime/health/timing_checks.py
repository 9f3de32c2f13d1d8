"""Checks on when a frame came and what its stamp and sequence number say. All are functions of any modality."""

from __future__ import annotations

from anyseg_core.runtime.health.history import History
from anyseg_core.runtime.sensors import SensorFrame
from anyseg_core.runtime.time_units import NS_PER_MS, NS_PER_S

MS_PER_H = 3_600_000.0


def low_rate(_frame: SensorFrame, history: History, fraction: float) -> str | None:
    """Frames come at less than `fraction` of the expected rate, and not because of one outage."""
    if history.gap_ns is None or (history.gap_ns - history.lag_ns) * fraction <= history.period_ns:
        return None
    return f"{NS_PER_S / history.gap_ns:.1f} Hz instead of {NS_PER_S / history.period_ns:.3g} Hz"


def stale_stamp(frame: SensorFrame, history: History, limit_ms: float) -> str | None:
    """Older at reception than `limit_ms`."""
    late_ms = (history.now_ns - frame.stamp_ns) / NS_PER_MS
    is_late = late_ms - history.lag_ns / NS_PER_MS > limit_ms
    return f"stamped {_apart(late_ms)} before it was received{_hint(late_ms)}" if is_late else None


def future_stamp(frame: SensorFrame, history: History, limit_ms: float) -> str | None:
    """Acquired later than it was received, by more than `limit_ms`."""
    ahead_ms = (frame.stamp_ns - history.now_ns) / NS_PER_MS
    return f"stamped {_apart(ahead_ms)} in the future{_hint(ahead_ms)}" if ahead_ms > limit_ms else None


def _apart(ms: float) -> str:
    return f"{ms / MS_PER_H:.0f} h" if ms >= MS_PER_H else f"{ms:.0f} ms"


def _hint(ms: float) -> str:
    """No frame is so old or so young: it was stamped by another clock."""
    return ": is a bag or a simulator playing (use_sim_time)?" if ms >= MS_PER_H else ""


def stamp_regression(frame: SensorFrame, history: History, _threshold: float) -> str | None:
    """Acquired before the frame before it."""
    if history.previous is None or frame.stamp_ns >= history.previous.stamp_ns:
        return None
    back_ms = (history.previous.stamp_ns - frame.stamp_ns) / NS_PER_MS
    return f"stamp is {back_ms:.1f} ms before the previous one"


def duplicate_stamp(frame: SensorFrame, history: History, _threshold: float) -> str | None:
    """Acquired at the very time of the frame before it."""
    if history.previous is None or frame.stamp_ns != history.previous.stamp_ns:
        return None
    return "same stamp as the previous message"


def sequence_gap(frame: SensorFrame, history: History, tolerated: float) -> str | None:
    """More than `tolerated` messages are missing by their sequence numbers; a sender that starts anew lost none."""
    if frame.sequence is None or history.previous is None or history.previous.sequence is None:
        return None
    lost = frame.sequence - history.previous.sequence - 1
    return f"{lost} messages lost before number {frame.sequence}" if lost > tolerated else None
