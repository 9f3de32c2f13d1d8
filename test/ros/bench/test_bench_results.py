"""What the benchmarks print and write, and how figures are made from what was heard."""

from __future__ import annotations

import json
import mmap
import os
import threading
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from anyseg_core.invocation import command_line, machine
from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.bench.accuracy import SubsetScores, all_subsets
from anyseg_ros.bench.live_figures import (
    MadeMask,
    added_latencies,
    gaps_ms,
    made_masks,
    reactions_to,
    read_publish_log,
    slope_per_minute,
)
from anyseg_ros.bench.results import Benchmark, Figure
from anyseg_ros.bench.steadiness import PERIOD_S, StolenTime, fixed_work_ms, stolen_s, watched
from anyseg_ros.live_run.recording import ReceivedMask, Recording, StatusSample

MS = 1_000_000
T0 = 1_700_000_000_000 * MS
CAMERA, DEPTH, EVENT, LIDAR = DEFAULT_SENSORS


def printed(bench: Benchmark) -> str:
    text = StringIO()
    bench.print(Console(file=text, width=2000))  # the command line of the tests may be long
    return text.getvalue()


# --- results ---------------------------------------------------------------------------------------------------------


def test_a_figure_has_its_median_and_spread() -> None:
    summary = Figure("latency", "ms", tuple(float(i) for i in range(101))).summary()
    assert summary == {"n": 101, "p5": 5.0, "p50": 50.0, "p95": 95.0, "max": 100.0}


def test_one_missed_bar_is_a_missed_benchmark() -> None:
    bench = Benchmark("test")
    bench.add("no bar", "ms", [1.0])
    bench.add("kept", "ms", [1.0], "p50 <= 2", met=True)
    assert bench.met
    bench.add("broken", "ms", [3.0], "p50 <= 2", met=False)
    assert not bench.met


def test_a_figure_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="latency"):
        Benchmark("test").add("latency", "ms", [])


def test_the_table_says_what_was_met_where_and_how() -> None:
    bench = Benchmark("Speed", notes=["a note"])
    bench.add("fast", "ms", [1.0, 2.0, 3.0], "p50 <= 2", met=True)
    bench.add("slow", "ms", [9.0], "p50 <= 2", met=False)
    text = printed(bench)
    rows = {name: next(line for line in text.splitlines() if name in line) for name in ("fast", "slow")}
    assert "met" in rows["fast"]
    assert "missed" in rows["slow"]
    for expected in ("a note", machine(), command_line()):
        assert expected in text


def test_a_figure_that_is_not_listed_is_in_the_file_only(tmp_path: Path) -> None:
    bench = Benchmark("Speed")
    bench.add("hidden", "ms", [1.0], listed=False)
    bench.write(tmp_path / "speed.json")
    assert "hidden" not in printed(bench)
    assert "hidden" in (tmp_path / "speed.json").read_text()


def test_the_file_has_every_sample(tmp_path: Path) -> None:
    bench = Benchmark("Speed")
    bench.add("fast", "ms", [1.0, 3.0], "p50 <= 2", met=True)
    bench.write(tmp_path / "new" / "speed.json")
    content = json.loads((tmp_path / "new" / "speed.json").read_text())
    assert content["machine"] == machine()
    assert content["command"] == command_line()
    (figure,) = content["figures"]
    assert (figure["samples"], figure["p50"], figure["met"]) == ([1.0, 3.0], 2.0, True)


def test_what_a_hypervisor_takes_is_told_by_the_time_it_was_taken(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 2 3 4 5 6 7 250 0 0\ncpu0 1 2 3 4 5 6 7 250 0 0\n")
    assert stolen_s(stat) == pytest.approx(250 / os.sysconf("SC_CLK_TCK"))
    stat.write_text("cpu  1 2 3\n")  # of a kernel before 2.6.11
    assert stolen_s(stat) is None
    assert stolen_s(tmp_path / "none") is None
    stolen = StolenTime()
    assert stolen.within_ms(T0, T0 + 100 * MS) == 0.0
    for at_ms, total_s in ((0, 1.0), (10, 1.0), (20, 1.04), (30, 1.04)):
        stolen.sample(T0 + at_ms * MS, total_s)
    stolen.sample(T0 + 40 * MS, None)
    assert stolen.within_ms(T0, T0 + 10 * MS) == 0.0
    assert stolen.within_ms(T0, T0 + 15 * MS) == pytest.approx(20.0, rel=1e-3)
    assert stolen.within_ms(T0 - 50 * MS, T0 + 90 * MS) == pytest.approx(40.0)


def test_fixed_work_takes_time_every_time() -> None:
    times = fixed_work_ms(3)
    assert len(times) == 3
    assert min(times) > 0.1


def test_stolen_time_is_watched_until_the_end() -> None:
    with watched() as stolen:
        time.sleep(5 * PERIOD_S)
    now_ns = time.time_ns()
    assert stolen.within_ms(now_ns - 10**9, now_ns) >= 0.0
    assert "stolen_time" not in {thread.name for thread in threading.enumerate()}


# --- live figures ----------------------------------------------------------------------------------------------------


def mask(stamp_ms: float, received_ms: float, used: tuple[Sensor, ...] = DEFAULT_SENSORS) -> MadeMask:
    return MadeMask(T0 + int(stamp_ms * MS), T0 + int(received_ms * MS), used, engine_ms=40.0, oldest_ms=10.0)


def published(at_ms: dict[float, dict[Sensor, float]]) -> dict[int, dict[Sensor, int]]:
    return {T0 + int(s * MS): {m: T0 + int(t * MS) for m, t in times.items()} for s, times in at_ms.items()}


def test_latency_is_counted_from_the_last_message_that_was_used() -> None:
    times = published({0.0: {CAMERA: 1.0, DEPTH: 3.0, LIDAR: 9.0}})
    (latency,) = added_latencies([mask(0, 60, (CAMERA, DEPTH))], times)
    assert latency.last_ms == pytest.approx(60 - 3 - 40)
    assert latency.anchor_ms == pytest.approx(60 - 1 - 40)


def test_a_mask_whose_messages_are_not_in_the_log_has_no_latency() -> None:
    times = published({0.0: {CAMERA: 1.0}})
    assert added_latencies([mask(0, 60, (CAMERA, DEPTH)), mask(100, 160, (CAMERA,))], times) == []


def test_the_reaction_is_from_the_last_message_to_the_first_mask_without_it() -> None:
    camera_ms = [0.0, 100.0, 200.0, 1400.0, 1500.0]
    times = published({t: {CAMERA: t + 1} for t in camera_ms})
    others = (DEPTH, EVENT, LIDAR)
    masks = [mask(0, 60, others), mask(200, 260), mask(300, 371, others), mask(400, 460, others), mask(1400, 1460)]
    (reaction,) = reactions_to(masks, times, CAMERA, silence_ms=600)
    assert reaction.ms == pytest.approx(371 - 201)


def test_a_camera_that_nobody_does_without_counts_until_the_end() -> None:
    times = published({t: {CAMERA: t} for t in (0.0, 1000.0)})
    (reaction,) = reactions_to([mask(0, 60), mask(1000, 1060)], times, CAMERA, silence_ms=600)
    assert reaction.ms == pytest.approx(1060.0)


def test_gaps_are_between_arrivals() -> None:
    assert gaps_ms([mask(0, 60), mask(100, 165), mask(200, 260)]) == pytest.approx([105.0, 95.0])


def status(stamp_ns: int, modality: Sensor, used: bool, age_ms: float) -> StatusSample:
    return StatusSample(stamp_ns, stamp_ns, modality, State.ACTIVE, "", used, age_ms if used else None, 40.0)


def test_a_mask_is_joined_with_its_status() -> None:
    empty = np.empty((0, 0), np.uint8)
    recording = Recording(masks=[ReceivedMask(T0, T0 + 60 * MS, empty), ReceivedMask(T0 + 1, T0 + 70 * MS, empty)])
    recording.statuses = [status(T0, DEPTH, True, 12.0), status(T0, CAMERA, True, 7.0), status(T0, LIDAR, False, 0.0)]
    (made,) = made_masks(recording)  # nothing was heard of the second one
    assert made == replace(made, stamp_ns=T0, received_ns=T0 + 60 * MS, used=(CAMERA, DEPTH), oldest_ms=12.0)
    assert made.engine_ms == 40.0


def test_a_log_that_was_cut_off_loses_its_last_line_only(tmp_path: Path) -> None:
    log = tmp_path / "published.csv"
    log.write_text("100,camera,105\n100,lidar,109\n200,camera,20")
    assert read_publish_log(log) == {100: {CAMERA: 105, LIDAR: 109}}


@given(
    slope=st.floats(-100, 100),
    start=st.floats(0, 500),
    seconds=st.lists(st.integers(0, 3600), min_size=3, max_size=50, unique=True),
)
def test_the_slope_of_a_line_is_found(slope: float, start: float, seconds: list[int]) -> None:
    found, error = slope_per_minute(seconds, [start + slope * s / 60 for s in seconds])
    assert found == pytest.approx(slope, abs=1e-6)
    assert error == pytest.approx(0.0, abs=1e-6)


def test_the_error_of_a_slope_grows_with_the_noise() -> None:
    seconds = list(range(0, 600, 5))
    noise = np.random.default_rng(0).normal(0, 1, len(seconds))
    quiet, loud = (slope_per_minute(seconds, [200 + scale * n for n in noise])[1] for scale in (1, 10))
    assert loud == pytest.approx(10 * quiet)


def test_a_slope_needs_three_points() -> None:
    with pytest.raises(ValueError, match="three points"):
        slope_per_minute([0.0, 1.0], [1.0, 2.0])


# --- robot -----------------------------------------------------------------------------------------------------------


def scores(base: float) -> SubsetScores:
    pooled = {subset: base + len(subset) for subset in all_subsets(DEFAULT_SENSORS)}
    return SubsetScores(pooled, [pooled, pooled])


def test_there_are_fifteen_subsets_of_four_sensors() -> None:
    subsets = all_subsets(DEFAULT_SENSORS)
    assert len(set(subsets)) == 15
    assert subsets[:4] == [(m,) for m in DEFAULT_SENSORS]
    assert subsets[-1] == DEFAULT_SENSORS


@pytest.mark.parametrize(("ours", "met"), [(50.0, True), (30.0, False)])
def test_the_student_must_be_above_the_baseline(ours: float, met: bool) -> None:
    robot = pytest.importorskip("anyseg_ros.bench.robot", reason="rclpy is not installed", exc_type=ImportError)
    bench = Benchmark("test")
    robot.add_accuracy(bench, scores(ours), scores(40.0))
    assert bench.met is met
    names = [figure.name for figure in bench.figures]
    assert "mIoU, camera: student" in names
    assert "mIoU, camera+depth+event+lidar: baseline" in names
    mean = bench.figures[0].samples[0] - ours
    assert mean == pytest.approx((4 * 1 + 6 * 2 + 4 * 3 + 4) / 15)


def test_resident_memory_grows_with_what_is_held() -> None:
    robot = pytest.importorskip("anyseg_ros.bench.robot", reason="rclpy is not installed", exc_type=ImportError)
    before = robot.resident_mb(os.getpid())
    with mmap.mmap(-1, 50_000_000) as held:  # pages of the system: the allocator might have some left from other tests
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        assert robot.resident_mb(os.getpid()) - before == pytest.approx(len(held) / 1e6, abs=10.0)
