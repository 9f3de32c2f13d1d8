"""`anyseg bench gpu`: the student on this machine's GPU, by TensorRT and by torch as stand-in, against the floor."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import BuildOptions, EngineError
from anyseg_core.runtime.extras import missing_part
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.segmenter import options_for
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.doctor.jetson import read_jetson

STAND_IN = "anyseg_core.benchmarks.gpu"
WARM_UP_RUNS = 10
STATE = "name,driver_version,pstate,clocks.sm,clocks.max.sm,temperature.gpu,power.draw,power.limit,memory.used"
NOTES = (
    "tensorrt: this package's engine, host to host. torch graph: torch as the stand-in where TensorRT is not, fp16, "
    "one CUDA graph, host to host; random weights.",
    "naive: torch, fp32, a copy for each modality, the network as trained, full-size logits to the host, argmax there.",
    "floor: the larger of operations / rate of a large fp16 matrix product and bytes / copy bandwidth, both measured "
    "in this run; nothing can be faster.",
)


class NoGpuError(Exception):
    """There is nothing to measure; the message says what is missing."""


def run(console: Console, json_path: Path | None, student: str, sizes: str, runs: int) -> None:
    """Measure, print the table, write it where asked.

    Raises NoGpuError that says what is missing for TensorRT and for torch, StudentError for no such student.
    """
    result = Benchmark("GPU", notes=[*NOTES, f"GPU: {gpu_state()}"])
    reasons: list[str] = []
    try:
        add_tensorrt(result, student, runs)
    except EngineError as error:
        reasons.append(f"TensorRT: {error}")
    try:
        add_torch(result, stand_in(sizes, runs))
    except NoGpuError as error:
        reasons.append(f"torch: {error}")
    if not result.figures:
        raise NoGpuError("nothing to measure here. " + ". ".join(reasons))
    result.notes += [f"not measured: {reason}" for reason in reasons]
    result.report(console, json_path)


def add_tensorrt(result: Benchmark, student: str, runs: int) -> None:
    """Latency and throughput of a student's first network, with each number of images it takes. Raises EngineError."""
    folder = find_student(student)
    card = load_card(folder)
    spec, size = card.networks[0], card.input_size
    engine = open_engine(folder / spec.file, "tensorrt", build=options_for(spec, BuildOptions()))
    images = np.random.default_rng(0).integers(0, 256, (len(spec.modalities), *size, 3), np.uint8)
    index = np.array([card.index_of(modality) for modality in spec.modalities], np.int64)
    for count in spec.counts:
        seconds = []
        for i in range(WARM_UP_RUNS + runs):
            started = time.perf_counter()
            engine.run(images[:count], index[:count])
            if i >= WARM_UP_RUNS:
                seconds.append(time.perf_counter() - started)
        add_path(result, f"tensorrt {size[1]}x{size[0]}, {count}", seconds)
    result.notes += [
        f"tensorrt: {engine.info.precision}; {name}: {value}" for name, value in engine.info.details.items()
    ]
    engine.close()


def stand_in(sizes: str, runs: int) -> dict[str, Any]:
    """What torch measures, in a process of its own. Raises NoGpuError that says why not."""
    if importlib.util.find_spec("torch") is None:
        raise NoGpuError(missing_part("torch"))
    command = [sys.executable, "-m", STAND_IN, "--sizes", sizes, "--runs", str(runs)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise NoGpuError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the stand-in failed")
    return json.loads(done.stdout.splitlines()[-1])


def add_torch(result: Benchmark, measured: Mapping[str, Any]) -> None:
    """The figures of `stand_in`: both paths, the floor, and how far from it the graph is."""
    rates = measured["rates"]
    product, copy = f"{rates['operations_per_s'] / 1e12:.1f} TFLOP/s", f"{rates['bytes_per_s'] / 1e9:.0f} GB/s"
    result.notes.append(f"{measured['gpu']}, torch {measured['torch']}: fp16 matrix product {product}, copy {copy}")
    for case in measured["cases"]:
        name = f"{case['size']}x{case['size']}, {case['modalities']}"
        add_path(result, f"torch graph {name}", case["graph_s"])
        add_path(result, f"naive {name}", case["naive_s"])
        result.add(f"floor {name}", "ms", [1e3 * case["floor_s"]])
        median_s = float(np.median(case["graph_s"]))
        result.add(f"naive / torch graph {name}", "x", [float(np.median(case["naive_s"])) / median_s])
        result.add(f"torch graph / floor {name}", "x", [median_s / case["floor_s"]])


def add_path(result: Benchmark, name: str, seconds: Sequence[float]) -> None:
    """Latency of one run, and the throughput of one after the other."""
    result.add(name, "ms", [1e3 * s for s in seconds])
    result.add(f"{name}: throughput", "1/s", [len(seconds) / sum(seconds)])


def gpu_state(root: Path = Path("/")) -> str:
    """The card's name and state, as the driver or the Jetson tells."""
    jetson = read_jetson(root)
    if jetson is not None:
        clock = f", GPU at {jetson.gpu_mhz[0]} of {jetson.gpu_mhz[1]} MHz" if jetson.gpu_mhz else ""
        return f"{jetson.board}, JetPack {jetson.jetpack}, power mode {jetson.mode or 'not known'}{clock}"
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return "no NVIDIA driver here"
    query = [smi, f"--query-gpu={STATE}", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    values = (answer.stdout.strip().splitlines() or [answer.stderr.strip()])[0].split(", ")
    names = STATE.split(",")
    if len(values) != len(names):
        return ", ".join(values)
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
