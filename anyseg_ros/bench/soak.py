"""A long live run with random faults on every sensor: the node lives, leaks nothing, and keeps what it promises."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.random import Generator
from rich.console import Console

from anyseg_core.injection import INJECTION_KINDS
from anyseg_core.runtime.health.monitor import HealthConfig
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.terminal import progress_bar
from anyseg_ros.bench.live_figures import MadeMask, made_masks, slope_per_minute
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.bench.robot import DRIVE_S, RSS_MB_PER_MINUTE, resident_mb
from anyseg_ros.demo.run import DemoOptions, isolated_ros_domain, rendered_drive
from anyseg_ros.demo.scoring import Promise
from anyseg_ros.live_run.recording import Recording
from anyseg_ros.live_run.run import LiveRun, record
from anyseg_ros.node.status_log import OUT_OF_USE
from anyseg_ros.pipeline.pipeline import SyncConfig
from anyseg_ros.process.node_process import ros

RATE_HZ = 5.0
"""So that two cores have time for the vehicle, the node and the listener."""
FIRST_FAULT_S = 10.0
MARGIN_S = 4.0
"""After a fault until its sensor counts as alive again: recovery, and a relapse."""
ALL_LOST_EVERY_S, ALL_LOST_S = 300.0, 3.0
TRANSPORT_MS = 150.0
"""Allowance for the way to the listener, on a machine that does everything at once."""
SETTLED = 1 / 3
"""Share of the run after which memory must not grow."""
FAULT_LINE = re.compile(r"\[(\d+\.\d+)\].*: (camera|depth|event|lidar) failed: ([a-z_]+)")
"""What the node logs when a sensor fails: system time in seconds, sensor, fault."""
QUIET_END_S = 8.0
"""At the end of the drive no sensor fails: what the log and the status say can then be compared up to its middle."""


class Stretch(NamedTuple):
    """Seconds since the start of the drive."""

    start_s: float
    end_s: float

    def overlaps(self, start_s: float, end_s: float) -> bool:
        return self.start_s < end_s and start_s < self.end_s


@dataclass(frozen=True)
class SoakPlan:
    """Random faults such that some sensor always lives, but for the stretches in `all_lost`."""

    faults: tuple[Mapping[str, object], ...]
    all_lost: tuple[Stretch, ...]


def random_plan(duration_s: float, seed: int) -> SoakPlan:
    """Faults of every kind on every sensor, up to three sensors at a time; now and then all four fall silent."""
    rng = np.random.default_rng(seed)
    lost = [
        Stretch(float(at), float(at) + ALL_LOST_S)
        for at in np.arange(ALL_LOST_EVERY_S / 2, duration_s - ALL_LOST_S - MARGIN_S, ALL_LOST_EVERY_S)
    ]
    faults = [
        {"modality": str(m), "kind": "drop", "start_s": stretch.start_s, "duration_s": ALL_LOST_S}
        for stretch in lost
        for m in DEFAULT_SENSORS
    ]
    busy_until = dict.fromkeys(DEFAULT_SENSORS, 0.0)
    at_s = FIRST_FAULT_S
    while at_s < duration_s - QUIET_END_S - MARGIN_S:
        free = [modality for modality, until_s in busy_until.items() if until_s <= at_s]
        length_s = float(rng.uniform(1.0, min(8.0, duration_s - QUIET_END_S - MARGIN_S - at_s + 1.0)))
        near_lost = any(stretch.overlaps(at_s - MARGIN_S, at_s + length_s + 2 * MARGIN_S) for stretch in lost)
        if len(free) > 1 and not near_lost:
            modality = free[int(rng.integers(len(free)))]
            faults.append(_fault(modality, at_s, length_s, rng))
            busy_until[modality] = at_s + length_s + MARGIN_S
        at_s += float(rng.exponential(3.0))
    return SoakPlan(tuple(faults), tuple(lost))


def _fault(modality: Sensor, start_s: float, duration_s: float, rng: Generator) -> dict[str, object]:
    kinds = [kind for kind, fault in INJECTION_KINDS.items() if fault.applies_to(modality)]
    kind = kinds[int(rng.integers(len(kinds)))]
    rounded = {"start_s": round(start_s, 3), "duration_s": round(duration_s, 3)}
    return {"modality": str(modality), "kind": kind, **rounded}


@dataclass
class _Samples:
    """Resident memory of the node, once a second."""

    seconds: list[float] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)

    def take(self, driven_s: float, pid: int) -> None:
        if not self.seconds or driven_s - self.seconds[-1] >= 1.0:
            self.seconds.append(driven_s)
            self.mb.append(resident_mb(pid))


def run(console: Console, json_path: Path | None, *, out: Path, student: str, minutes: float, seed: int) -> bool:
    """Drive for so long, print the figures, write them where asked; returns whether every bar was met.

    Raises ValueError, StudentError, or LiveRunError where the node or the vehicle dies.
    """
    if minutes < 1:
        raise ValueError(f"minutes {minutes} must be at least 1: memory needs time to settle")
    duration_s = 60.0 * minutes
    plan = random_plan(duration_s, seed)
    folder = out / "soak"
    folder.mkdir(parents=True, exist_ok=True)
    schedule = folder / "faults.yaml"
    schedule.write_text(yaml.safe_dump({"seed": seed, "injections": [dict(fault) for fault in plan.faults]}))
    drive = rendered_drive(DemoOptions(out, Path(), student, duration_s=DRIVE_S, rate_hz=RATE_HZ), console)
    live = LiveRun(
        drive,
        student,
        schedule,
        loop_s=duration_s,
        node_parameters={f"modalities.{m}.expected_rate_hz": RATE_HZ for m in DEFAULT_SENSORS},
        vehicle_parameters={"unpack_first": True},
        keep_images=False,
        log_folder=folder,
    )
    samples = _Samples()
    with progress_bar(f"driving with {len(plan.faults)} faults", round(duration_s)) as progress:

        def on_progress(driven_s: float, recording: Recording) -> None:
            progress(round(driven_s), round(duration_s))
            samples.take(driven_s, recording.node_pid)

        with isolated_ros_domain(), ros():
            recording = record(live, on_progress)
    log = (folder / "segmentation_node.log").read_text(errors="replace")
    result = figures(plan, recording, samples.seconds, samples.mb, log)
    return result.report(console, json_path)


def figures(
    plan: SoakPlan, recording: Recording, seconds: Sequence[float], memory_mb: Sequence[float], log: str
) -> Benchmark:
    """What was heard, against what is promised. That the node lived is said by there being a recording."""
    kinds = Counter(str(fault["kind"]) for fault in plan.faults)
    result = Benchmark("Soak")
    result.add("driven", "min", [(max(recording.truth) - recording.start_ns) / 60e9])
    result.add("faults injected", "", [len(plan.faults)])
    masks = made_masks(recording)
    _add_ages(result, masks)
    _add_gaps(result, plan, recording, masks)
    settled = [(s, mb) for s, mb in zip(seconds, memory_mb, strict=True) if s >= SETTLED * seconds[-1]]
    slope, error = slope_per_minute([s for s, _ in settled], [mb for _, mb in settled])
    result.add("resident memory of the node", "MB", [mb for _, mb in settled])
    bar = f"<= {RSS_MB_PER_MINUTE:g}, standard error {error:.2g}"
    result.add("growth of resident memory", "MB/min", [slope], bar, slope <= RSS_MB_PER_MINUTE)
    _add_log(result, recording, log)
    result.notes.append(
        f"sensors of {RATE_HZ:g} Hz and 640x480 over DDS; {len(plan.all_lost)} times all of them fall silent for "
        f"{ALL_LOST_S:g} s, at all other times one of them at least has no fault. Kinds: "
        + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    )
    return result


def _add_ages(result: Benchmark, masks: Sequence[MadeMask]) -> None:
    """Against the promise of each mask's own time in the engine."""
    promise = Promise(1000.0 / RATE_HZ, SyncConfig.deadline_ms, HealthConfig.max_age_ms, TRANSPORT_MS)
    ages = [(mask.received_ns - mask.stamp_ns) / 1e6 for mask in masks]
    late = sum(age > promise.oldest_mask_ms(mask.engine_ms) for age, mask in zip(ages, masks, strict=True))
    result.add("age of a label image on arrival", "ms", ages)
    limit = f"max_age {promise.max_age_ms:g} + engine + transport {TRANSPORT_MS:g} ms"
    result.add(f"label images older than {limit}", "", [late], "= 0", late == 0)
    frames = [mask.oldest_ms for mask in masks]
    result.add(
        "oldest frame in a mask", "ms", frames, f"max <= {promise.max_age_ms:g}", max(frames) <= promise.max_age_ms
    )


def _add_gaps(result: Benchmark, plan: SoakPlan, recording: Recording, masks: Sequence[MadeMask]) -> None:
    """While any sensor lives: the period, the deadline, the engine for both masks, and the transport."""
    promise = Promise(1000.0 / RATE_HZ, SyncConfig.deadline_ms, HealthConfig.max_age_ms, TRANSPORT_MS)
    gaps, too_long, while_lost = [], [], 0
    for earlier, later in pairwise(masks):
        begin_s, end_s = ((mask.received_ns - recording.start_ns) / 1e9 for mask in (earlier, later))
        if any(stretch.overlaps(begin_s, end_s - 2 / RATE_HZ) for stretch in plan.all_lost):
            while_lost += 1
            continue
        gaps.append(1000.0 * (end_s - begin_s))
        if gaps[-1] > promise.longest_gap_ms(earlier.engine_ms + later.engine_ms):
            too_long.append(f"{gaps[-1]:.0f} ms at {begin_s:.1f} s")
    result.add("time between label images", "ms", gaps)
    limit = f"period + deadline + engine + transport {TRANSPORT_MS:g} ms"
    result.add(f"gaps longer than {limit}", "", [len(too_long)], "= 0", not too_long)
    result.add("label images until silence was noticed, all sensors lost", "", [while_lost])
    result.notes += [f"no label image for {gap}" for gap in too_long[:10]]


def _add_log(result: Benchmark, recording: Recording, log: str) -> None:
    """Every failure, by the status messages, against the lines of the node's log."""
    failed = failures(recording)
    end_s = max(recording.truth) / 1e9 - QUIET_END_S / 2  # afterwards the vehicle ends before the node does
    found = (match.groups() for match in FAULT_LINE.finditer(log))
    lines = Counter(f"{sensor} {fault}" for at_s, sensor, fault in found if float(at_s) < end_s)
    result.add("failures of sensors, each of their faults counted", "", [failed.total()])
    met = lines == failed
    result.add("lines of the log that say so", "", [lines.total()], "each failure once", met)
    if not met:
        different = {what for what in {*lines, *failed} if lines[what] != failed[what]}
        counts = ", ".join(f"{what} {failed[what]} and {lines[what]}" for what in sorted(different))
        result.notes.append(f"failures by status and lines of the log differ: {counts}")


def failures(recording: Recording) -> Counter[str]:
    """How often each fault put each sensor out of use, by its status messages: `StatusLog` says the same in words."""
    counts: Counter[str] = Counter()
    logged: dict[Sensor, set[str]] = {modality: set() for modality in DEFAULT_SENSORS}
    end_ns = max(recording.truth) - QUIET_END_S / 2 * 1e9
    for status in (status for status in recording.statuses if status.received_ns < end_ns):
        if status.state not in OUT_OF_USE:
            logged[status.modality].clear()
        elif status.fault not in logged[status.modality]:
            logged[status.modality].add(status.fault)
            counts[f"{status.modality} {status.fault}"] += 1
    return counts
