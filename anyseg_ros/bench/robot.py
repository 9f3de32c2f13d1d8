"""What is promised on a robot: latency, reaction to a lost sensor, accuracy on every subset, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from anyseg_core.processes import available_cores
from anyseg_core.runtime.health.monitor import HealthConfig
from anyseg_core.runtime.metrics import mean_over_subsets
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, in_order, subset_name
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.terminal import progress_bar
from anyseg_ros.bench.accuracy import SubsetScores, held_out_drives, score
from anyseg_ros.bench.live_figures import (
    MadeMask,
    added_latencies,
    gaps_ms,
    made_masks,
    reactions_to,
    read_publish_log,
    slope_per_minute,
)
from anyseg_ros.bench.planner_listener import listening
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.bench.steadiness import fixed_work_ms, watched
from anyseg_ros.demo.run import DemoOptions, isolated_ros_domain, rendered_drive
from anyseg_ros.demo.scoring import Promise, broken_promises
from anyseg_ros.live_run.recording import Recording
from anyseg_ros.live_run.run import LiveRun, record
from anyseg_ros.pipeline.pipeline import SyncConfig
from anyseg_ros.process.node_process import ros

DRIVE_S = 8.0
"""Driven in circles. In memory, so that the vehicle works no more than real drivers do while masks are made."""
RATE_HZ = 10.0
LATENCY_RATE_HZ = 5.0
"""Slow enough that the engine has finished when the next set arrives: waiting for it is engine time."""
POINTS_P50_MS = 6.0
"""That listeners to points, obstacles and grid may add to the median latency of the mask."""
LATENCY_RUN_S = 30.0
WARM_UP_S = 4.0
"""Of a live run: discovery, and the monitors' first frames."""
ENGINE_RUNS = 40
DROPS, DROP_S, DROP_EVERY_S = 12, 1.2, 3.5
"""Camera drops; in between there is time for the camera to be trusted again."""
FIXED_WORK_RUNS = 300
ADDED_P50_MS, ADDED_P95_MS = 10.0, 25.0
ENGINE_RATIO = 0.4
RSS_MB_PER_MINUTE = 0.5
"""Noise of the allocator. At ten masks a second this is 0.9 kB a mask: a leak of one small object would be seen."""

NOTES = (
    "added latency: system clock just before `publish` of a sensor message -> mask in the listener's callback, minus "
    "that mask's time in the engine. Three processes over DDS: vehicle, node, listener. The bar is on the last message "
    "of the set that the mask was made from: a mask cannot be made before its frames are there. The vehicle publishes "
    "its sensors one after another, so counted from the anchor's own message the wait for the others is in it.",
    f"added latency is measured at {LATENCY_RATE_HZ:g} Hz, where the engine is idle when a set arrives; the memory "
    f"run is at the sensors' {RATE_HZ:g} Hz, camera drops at both.",
    "reaction: publish of the camera's last message before a drop -> arrival of the first mask made without it, "
    "engine included. Stolen: processor time that the hypervisor says it gave to others meanwhile. Fixed work: the "
    "same short loop while nothing else runs; what varies in it varies in every other figure.",
    "memory: slope of the least-squares line through the node's resident memory, one sample a second, first third "
    f"left out; growth means more than {RSS_MB_PER_MINUTE:g} MB/min: below is the allocator's noise.",
    "mIoU in percent, all frames together, on drives of the split `test`, five weathers; per-drive spread in its own "
    "row.",
)


@dataclass
class _Bench:
    """What every part of the benchmark needs."""

    console: Console
    out: Path
    student: str
    result: Benchmark = field(default_factory=lambda: Benchmark("Robot", notes=list(NOTES)))
    drives: dict[float, Path] = field(default_factory=dict)
    """Those that are rendered, by rate."""

    def drive(self, rate_hz: float) -> Path:
        """A drive to publish again and again, rendered once."""
        if rate_hz not in self.drives:
            options = DemoOptions(self.out, Path(), self.student, duration_s=DRIVE_S, rate_hz=rate_hz)
            self.drives[rate_hz] = rendered_drive(options, self.console)
        return self.drives[rate_hz]


PARTS = ("engine", "accuracy", "latency", "points", "drops", "memory")


def run(
    console: Console,
    json_path: Path | None,
    student: str,
    baseline: str,
    minutes: float,
    out: Path,
    parts: Sequence[str] = PARTS,
) -> bool:
    """Measure these parts, print the table, write it where asked; returns whether every bar was met.

    Raises ValueError for an unknown part, StudentError, EngineError or LiveRunError.
    """
    if minutes <= 0:
        raise ValueError(f"minutes {minutes} must be positive")
    if unknown := set(parts) - set(PARTS):
        raise ValueError(f"unknown part {', '.join(sorted(unknown))}; known parts: {', '.join(PARTS)}")
    bench = _Bench(console, out, student)
    measure: Mapping[str, Callable[[], None]] = {
        "engine": lambda: measure_engine(bench),
        "accuracy": lambda: measure_accuracy(bench, baseline),
        "latency": lambda: measure_latency(bench),
        "points": lambda: measure_points(bench),
        "drops": lambda: measure_camera_drops(bench),
        "memory": lambda: measure_memory(bench, minutes),
    }
    with isolated_ros_domain(), ros():
        for part in PARTS:
            if part in parts:
                measure[part]()
    return bench.result.report(console, json_path)


# --- in this process -------------------------------------------------------------------------------------------------


def measure_engine(bench: _Bench) -> None:
    """Engine time with one to four modalities, in turns, so that a slow moment of the machine hits all alike."""
    drive = RecordedDrive.load(bench.drive(RATE_HZ))
    segmenter, frames, rig = Segmenter.open(bench.student), drive.frame(len(drive) // 2).frames, drive.rig()
    live = in_order(segmenter.modalities)
    samples: dict[int, list[float]] = {count: [] for count in range(1, len(live) + 1)}
    processor: dict[int, list[float]] = {count: [] for count in samples}
    with progress_bar("engine") as progress:
        for done in range(ENGINE_RUNS):
            for count, engine_ms in samples.items():
                fresh = {m: replace(frames[m]) for m in live[:count]}  # a frame is encoded only once
                started = time.process_time()
                result = segmenter.segment(fresh, rig)
                processor[count].append(1e3 * (time.process_time() - started - result.encode_s))
                engine_ms.append(1e3 * result.engine_s)
            progress(done + 1, ENGINE_RUNS)
    segmenter.close()
    for count, engine_ms in samples.items():
        bench.result.add(f"engine, {count} live modalities", "ms", engine_ms)
        bench.result.add(f"engine, {count} live modalities, processor time", "ms", processor[count])
    ratio = float(np.median(samples[1]) / np.median(samples[len(live)]))
    bench.result.add("engine, 1 live / all (medians), wall time", "ratio", [ratio])
    ratio = float(np.median(processor[1]) / np.median(processor[len(live)]))
    bench.result.add(
        "engine, 1 live / all (medians), processor time",
        "ratio",
        [ratio],
        f"<= {ENGINE_RATIO:g}",
        met=ratio <= ENGINE_RATIO,
    )


def measure_accuracy(bench: _Bench, baseline: str) -> None:
    """mIoU of the student and the baseline, side by side."""
    with progress_bar("rendering held-out drives") as progress:
        drives = held_out_drives(bench.out, available_cores(), progress)
    scores: dict[str, SubsetScores] = {}
    for name in (bench.student, baseline):
        segmenter = Segmenter.open(name)
        with progress_bar(f"mIoU of {segmenter.card.name}") as progress:
            scores[name] = score(segmenter, drives, progress)
        segmenter.close()
    bench.console.print(accuracy_table(scores[bench.student], scores[baseline]))
    add_accuracy(bench.result, scores[bench.student], scores[baseline])


def accuracy_table(student: SubsetScores, baseline: SubsetScores) -> Table:
    """A line for each subset, and the mean."""
    table = Table(title="mIoU on held-out simulated drives, %", title_justify="left")
    table.add_column("sensors")
    for column in ("student", "baseline", "difference"):
        table.add_column(column, justify="right")
    rows = [(subset_name(subset), student.pooled[subset], baseline.pooled[subset]) for subset in student.pooled]
    rows.append((f"mean of {len(rows)}", _mean(student.pooled), _mean(baseline.pooled)))
    for name, ours, theirs in rows:
        table.add_row(name, f"{ours:.1f}", f"{theirs:.1f}", f"{ours - theirs:+.1f}")
    return table


def add_accuracy(result: Benchmark, student: SubsetScores, baseline: SubsetScores) -> None:
    """The bar is on the mean over subsets: the student trained with anymodal dropout must be above the baseline."""
    ours, theirs = _mean(student.pooled), _mean(baseline.pooled)
    count = len(student.pooled)
    result.add(f"mIoU, mean of {count} subsets: student", "%", [ours], f"> baseline's {theirs:.1f}", ours > theirs)
    result.add(f"mIoU, mean of {count} subsets: baseline", "%", [theirs])
    for name, scores in (("student", student), ("baseline", baseline)):
        means = [_mean(one_drive) for one_drive in scores.by_drive]
        result.add(f"mIoU, mean of {count} subsets, drive by drive: {name}", "%", means)
        for subset, miou in scores.pooled.items():
            result.add(f"mIoU, {subset_name(subset)}: {name}", "%", [miou], listed=len(subset) == 1)


def _mean(mious: Mapping[tuple[Sensor, ...], float]) -> float:
    return mean_over_subsets(list(mious.values()))


# --- live ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _LiveRun:
    """A live run, without its beginning."""

    recording: Recording
    masks: list[MadeMask]
    published: dict[int, dict[Sensor, int]]


def measure_latency(bench: _Bench) -> None:
    """Added latency with every sensor, and with the camera alone."""
    for name, silent in (("4 sensors", ()), ("camera only", DEFAULT_SENSORS[1:])):
        faults = [{"modality": str(m), "kind": "drop", "start_s": 0.0} for m in silent]
        live = _drive_live(bench, f"latency, {name}", LATENCY_RATE_HZ, LATENCY_RUN_S, faults)
        wanted = tuple(m for m in DEFAULT_SENSORS if m not in silent)
        latencies = added_latencies((m for m in live.masks if m.used == wanted), live.published)
        last = [latency.last_ms for latency in latencies]
        p50, p95 = (float(np.percentile(last, percent)) for percent in (50, 95)) if last else (np.inf, np.inf)
        met = p50 <= ADDED_P50_MS and p95 <= ADDED_P95_MS
        bar = f"p50 <= {ADDED_P50_MS:g}, p95 <= {ADDED_P95_MS:g}"
        bench.result.add(f"added latency from the set's last message, {name}", "ms", last, bar, met)
        from_anchor = [latency.anchor_ms for latency in latencies]
        bench.result.add(f"added latency from the anchor's message, {name}", "ms", from_anchor)


def measure_points(bench: _Bench) -> None:
    """What listeners to points, obstacles and grid add to the mask's latency: runs without and with them in turn."""
    medians: dict[bool, list[float]] = {False: [], True: []}
    for number, is_listened in enumerate((False, True, False, True)):
        with listening() if is_listened else nullcontext():
            live = _drive_live(bench, f"points, {number}", LATENCY_RATE_HZ, LATENCY_RUN_S, ())
        last = [latency.last_ms for latency in added_latencies(live.masks, live.published)]
        bench.result.add(f"added latency, {'with' if is_listened else 'without'} a planner, run {number}", "ms", last)
        medians[is_listened].append(float(np.median(last)))
    added = [with_it - without for without, with_it in zip(*medians.values(), strict=True)]
    met = float(np.median(added)) <= POINTS_P50_MS
    bench.result.add("p50 of the mask's latency that a planner adds", "ms", added, f"<= {POINTS_P50_MS:g}", met)


def measure_camera_drops(bench: _Bench) -> None:
    """Reaction to each of several camera drops, and the promises that hold through all of them; at two rates.

    The greater of them may saturate the engine: a mask then waits for the one before it, and so does the reaction.
    """
    bench.result.add("fixed work, machine idle", "ms", fixed_work_ms(FIXED_WORK_RUNS))
    for rate_hz in (LATENCY_RATE_HZ, RATE_HZ):
        _measure_camera_drops(bench, rate_hz)


def _measure_camera_drops(bench: _Bench, rate_hz: float) -> None:
    faults = [
        {"modality": "camera", "kind": "drop", "start_s": WARM_UP_S + k * DROP_EVERY_S, "duration_s": DROP_S}
        for k in range(DROPS)
    ]
    name = f"camera drops at {rate_hz:g} Hz"
    with watched() as stolen:
        live = _drive_live(bench, name, rate_hz, WARM_UP_S + DROPS * DROP_EVERY_S, faults)
    reactions = reactions_to(live.masks, live.published, Sensor.CAMERA, silence_ms=1000.0 * DROP_S / 2)
    longest_ms = max(2 * 1000.0 / rate_hz, 150.0)
    met = max((reaction.ms for reaction in reactions), default=np.inf) <= longest_ms
    bench.result.add(f"reaction, {name}", "ms", [r.ms for r in reactions], f"max <= {longest_ms:g}", met)
    stolen_ms = [stolen.within_ms(r.begin_ns, r.end_ns) for r in reactions]
    bench.result.add(f"stolen meanwhile, {name}", "ms", stolen_ms)
    _add_promises(bench, live, name, rate_hz)


def _add_promises(bench: _Bench, live: _LiveRun, name: str, rate_hz: float) -> None:
    engine_ms = max(mask.engine_ms for mask in live.masks)
    promise = Promise(1000.0 / rate_hz, SyncConfig.deadline_ms, HealthConfig.max_age_ms, transport_ms=0.0)
    gaps, longest = gaps_ms(live.masks), promise.longest_gap_ms(engine_ms)
    bar = f"max <= period + deadline + engine = {longest:.0f}"
    bench.result.add(f"time between masks, {name}", "ms", gaps, bar, max(gaps) <= longest)
    ages = [mask.oldest_ms for mask in live.masks]
    bar = f"max <= max_age_ms = {promise.max_age_ms:g}"
    bench.result.add(f"oldest frame in a mask, {name}", "ms", ages, bar, max(ages) <= promise.max_age_ms)
    broken = broken_promises(live.recording, Promise(promise.period_ms, promise.deadline_ms, promise.max_age_ms))
    bench.result.add(f"masks missed, stale or wrongly stamped, {name}", "", [len(broken)], "= 0", not broken)
    bench.result.notes.extend(broken[:10])


def measure_memory(bench: _Bench, minutes: float) -> None:
    """Resident memory of the node at full rate."""
    samples: list[tuple[float, float]] = []

    def sample(driven_s: float, recording: Recording) -> None:
        if not samples or driven_s - samples[-1][0] >= 1.0:
            samples.append((driven_s, resident_mb(recording.node_pid)))

    live = _drive_live(bench, "memory", RATE_HZ, 60.0 * minutes, [], sample)
    settled = [(s, mb) for s, mb in samples if s >= 60.0 * minutes / 3]
    slope, error = slope_per_minute([s for s, _ in settled], [mb for _, mb in settled])
    bench.result.add("resident memory of the node", "MB", [mb for _, mb in settled])
    bar = f"<= {RSS_MB_PER_MINUTE:g}, standard error {error:.2g}"
    name = f"growth of resident memory over {minutes:g} min"
    bench.result.add(name, "MB/min", [slope], bar, slope <= RSS_MB_PER_MINUTE)
    seconds = (live.masks[-1].received_ns - live.masks[0].received_ns) / 1e9
    bench.result.add(f"mask rate at sensors of {RATE_HZ:g} Hz", "Hz", [(len(live.masks) - 1) / seconds])


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} has no VmRSS: has it ended?")


def _drive_live(
    bench: _Bench,
    name: str,
    rate_hz: float,
    seconds: float,
    faults: Sequence[Mapping[str, object]],
    on_progress: Callable[[float, Recording], None] = lambda _driven_s, _recording: None,
) -> _LiveRun:
    """Vehicle and node as processes for so long, with those faults."""
    folder = bench.out / name.replace(", ", "_").replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    schedule, log = folder / "faults.yaml", folder / "published.csv"
    schedule.write_text(yaml.safe_dump({"injections": [dict(fault) for fault in faults]}))
    path = bench.drive(rate_hz)
    live = LiveRun(
        path,
        bench.student,
        schedule,
        loop_s=seconds,
        node_parameters={f"modalities.{m}.expected_rate_hz": rate_hz for m in DEFAULT_SENSORS},
        vehicle_parameters={"publish_log": log, "unpack_first": True},
        keep_images=False,
        log_folder=folder,
    )
    with progress_bar(f"driving: {name}") as progress:

        def on_driven(driven_s: float, recording: Recording) -> None:
            progress(int(driven_s), round(seconds))
            on_progress(driven_s, recording)

        recording = record(live, on_driven)
    begin_ns = recording.start_ns + int(WARM_UP_S * 1e9)
    masks = [mask for mask in made_masks(recording) if mask.stamp_ns >= begin_ns]
    return _LiveRun(recording, masks, read_publish_log(log))
