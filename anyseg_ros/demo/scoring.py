"""A recording -> figures per phase, and the promises that were broken."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from anyseg_core.injection.phases import Phase
from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.sensors import Sensor, in_order
from anyseg_ros.live_run.recording import ReceivedMask, Recording


@dataclass(frozen=True)
class Promise:
    """What the node promises about its label images, in milliseconds."""

    period_ms: float
    """Time between two frames of a sensor."""
    deadline_ms: float
    """`sync.deadline_ms`: how long a late anchor is waited for."""
    max_age_ms: float
    """`modalities.<name>.max_age_ms`: no older frame is ever used."""
    transport_ms: float = 150.0
    """Allowance for the way to this process, on a machine that does everything at once."""

    def longest_gap_ms(self, engine_ms: float) -> float:
        """The longest time between two label images while any sensor lives."""
        return self.period_ms + self.deadline_ms + engine_ms + self.transport_ms

    def oldest_mask_ms(self, engine_ms: float) -> float:
        """The greatest age at which a label image may arrive."""
        return self.max_age_ms + engine_ms + self.transport_ms


@dataclass(frozen=True)
class PhaseScore:
    """The figures of one phase; latencies are from stamp to arrival."""

    phase: Phase
    masks: int
    rate_hz: float
    miou: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    engine_p50_ms: float | None
    used: dict[tuple[Sensor, ...], int]
    """How many masks were made from which modalities."""
    reaction_ms: float | None
    """From the phase's beginning to the first mask made without its faulty modalities; None where none is."""


def score_phase(recording: Recording, phase: Phase, num_classes: int) -> PhaseScore:
    """Score the masks whose stamp lies in the phase against the ground truth of the same stamp."""
    masks = [m for m in recording.masks if phase.start_s <= seconds_into(recording, m.stamp_ns) < phase.end_s]
    confusion = ConfusionMatrix(num_classes)
    used: dict[tuple[Sensor, ...], int] = {}
    for mask in masks:
        if mask.stamp_ns in recording.truth:
            confusion.add(recording.truth[mask.stamp_ns], mask.labels)
        made_from = recording.used_in(mask.stamp_ns)
        used[made_from] = used.get(made_from, 0) + 1
    latencies = [(m.received_ns - m.stamp_ns) / 1e6 for m in masks]
    stamps = {m.stamp_ns for m in masks}
    engine = [s.engine_ms for s in recording.statuses if s.stamp_ns in stamps and s.engine_ms is not None]
    return PhaseScore(
        phase=phase,
        masks=len(masks),
        rate_hz=len(masks) / (phase.end_s - phase.start_s),
        miou=confusion.miou() if masks else None,
        latency_p50_ms=_percentile(latencies, 50),
        latency_p95_ms=_percentile(latencies, 95),
        engine_p50_ms=_percentile(engine, 50),
        used=used,
        reaction_ms=_reaction_ms(recording, phase, masks),
    )


def _reaction_ms(recording: Recording, phase: Phase, masks: list[ReceivedMask]) -> float | None:
    faulty = {entry.modality for entry in phase.injections}
    if not faulty:
        return None
    begin_ns = recording.start_ns + int(phase.start_s * 1e9)
    for mask in sorted(masks, key=lambda m: m.received_ns):
        if not faulty & set(recording.used_in(mask.stamp_ns)):
            return (mask.received_ns - begin_ns) / 1e6
    return None


def driven_rate_hz(recording: Recording) -> float:
    """At how many instants a second the vehicle published; a computer that is busy slows it down."""
    return (len(recording.truth) - 1) * 1e9 / (max(recording.truth) - recording.start_ns) if recording.truth else 0.0


def seconds_into(recording: Recording, stamp_ns: int) -> float:
    """Time since the drive began. Rounded to a microsecond, so that a phase's border is on a frame."""
    return round((stamp_ns - recording.start_ns) / 1e9, 6)


def broken_promises(recording: Recording, promise: Promise) -> list[str]:
    """Each label image that was missed, stale or wrongly stamped, in words; empty when all was kept."""
    if not recording.masks:
        return ["no label image was received at all"]
    engine = [s.engine_ms for s in recording.statuses if s.engine_ms is not None]
    engine_ms = max(engine, default=0.0)
    return [
        *wrong_stamps(recording),
        *_stale(recording, promise, engine_ms),
        *_gaps(recording, promise.longest_gap_ms(engine_ms)),
        *old_frames(recording, promise.max_age_ms),
    ]


def wrong_stamps(recording: Recording) -> list[str]:
    """Label images with the stamp of no frame, and stamps that do not ascend; machine load does not change them."""
    unknown = [m.stamp_ns for m in recording.masks if m.stamp_ns not in recording.truth]
    faults = [f"mask stamped {stamp}, when no sensor measured" for stamp in unknown]
    stamps = [m.stamp_ns for m in recording.masks]
    faults += [f"mask stamped {b} came after {a}" for a, b in pairwise(stamps) if b <= a]
    return faults


def _stale(recording: Recording, promise: Promise, engine_ms: float) -> list[str]:
    oldest = promise.oldest_mask_ms(engine_ms)
    late = [(m, (m.received_ns - m.stamp_ns) / 1e6) for m in recording.masks]
    return [
        f"mask at {seconds_into(recording, m.stamp_ns):.1f} s was {age:.0f} ms old on arrival (limit {oldest:.0f} ms)"
        for m, age in late
        if age > oldest
    ]


def _gaps(recording: Recording, longest_ms: float) -> list[str]:
    arrivals = [recording.start_ns, *(m.received_ns for m in recording.masks), max(recording.truth)]
    return [
        f"no mask for {(b - a) / 1e6:.0f} ms at {seconds_into(recording, a):.1f} s (limit {longest_ms:.0f} ms)"
        for a, b in pairwise(arrivals)
        if (b - a) / 1e6 > longest_ms
    ]


def old_frames(recording: Recording, max_age_ms: float) -> list[str]:
    """Label images made from a frame that was too old by then, whatever the machine's load."""
    return [
        f"the mask at {seconds_into(recording, s.stamp_ns):.1f} s used a {s.modality} frame {s.frame_age_ms:.0f} ms old"
        for s in recording.statuses
        if s.used and s.frame_age_ms is not None and s.frame_age_ms > max_age_ms
    ]


def _percentile(values: list[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None


def state_spans(recording: Recording, duration_s: float) -> dict[Sensor, list[tuple[float, float, State]]]:
    """(start, end, state) in seconds into the drive, of each modality that was watched."""
    watched = {status.modality for status in recording.statuses}
    return {m: _spans_of(recording, m, duration_s) for m in in_order(watched)}


def _spans_of(recording: Recording, modality: Sensor, duration_s: float) -> list[tuple[float, float, State]]:
    samples = sorted((s.received_ns, s.state) for s in recording.statuses if s.modality is modality)
    times = [seconds_into(recording, received_ns) for received_ns, _ in samples]
    return [
        (max(start, 0.0), end, state)
        for start, end, (_, state) in zip(times, [*times[1:], duration_s], samples, strict=True)
        if end > max(start, 0.0)
    ]
