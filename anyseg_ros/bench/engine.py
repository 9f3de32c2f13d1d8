"""Every engine of this machine side by side: time per number of live modalities and size, load time, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from anyseg_core.runtime.engines.open_engine import BACKENDS
from anyseg_core.runtime.engines.protocol import PartFiles
from anyseg_core.runtime.extras import missing_part
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_ros.bench.engine_trial import COUNTS, EngineTrial
from anyseg_ros.bench.results import Benchmark

MODULE_OF = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}
NOTES = (
    "in parts: images are encoded side by side, a core each, as the node runs them; otherwise as one batch.",
    "each engine and size in a process of its own, one after another; times of single runs, images in memory.",
    "a size other than the student's: the same network with random weights, written for that size, costs the same.",
    "memory: growth of the resident memory from before the engine to after runs with four modalities.",
)


def run(console: Console, json_path: Path | None, student: str, sizes: Sequence[int], runs: int, out: Path) -> None:
    """Measure, print the table, write it where asked.

    Raises StudentError for an unknown student, ValueError for a size that is no multiple of 32.
    """
    networks = {size: network_of(student, size, out) for size in sizes}
    result = Benchmark("Engines", notes=list(NOTES))
    trials: dict[tuple[str, int], EngineTrial] = {}
    for size, network in networks.items():
        for backend in present_backends():
            for form in forms_of(network, backend):
                name = f"{backend}, in {form}" if form else backend
                outcome = in_own_process(network, backend, size, runs, form)
                if isinstance(outcome, str):
                    result.notes.append(f"{name} at {size}: {outcome}")
                    continue
                trials[name, size] = outcome
                record(result, name, size, outcome)
    console.print(overview(trials))
    result.report(console, json_path)


def present_backends() -> list[str]:
    """Those whose library is installed here."""
    return [backend for backend in BACKENDS if backend != "auto" and find_spec(MODULE_OF[backend])]


def forms_of(network: Path, backend: str) -> list[str]:
    """The whole network, and the two parts where they are there and the engine takes them."""
    has_parts = backend == "onnxruntime" and all(part.exists() for part in PartFiles.beside(network))
    return ["", "parts"] if has_parts else [""]


def network_of(student: str, size: int, out: Path) -> Path:
    """The student's own network where it has this size, else one with random weights, written once to `out`."""
    folder = find_student(student)
    card = load_card(folder)
    if (size, size) == card.input_size:
        return folder / card.networks[0].file
    if size <= 0 or size % 32:
        raise ValueError(f"size {size} is no positive multiple of 32")
    network = out / f"untrained_{size}" / "student.onnx"
    if not network.exists():
        if not find_spec("torch"):
            raise ValueError(f"size {size} needs torch to write its network: {missing_part('torch')}")
        command = [sys.executable, "-m", "anyseg_core.export.untrained", str(size), str(size), str(network.parent)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return network


def in_own_process(network: Path, backend: str, size: int, runs: int, form: str = "") -> EngineTrial | str:
    """What was measured, or why nothing could be."""
    command = [sys.executable, "-m", "anyseg_ros.bench.engine_trial", str(network), backend, str(size), str(runs)]
    command += [form] if form else []
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return parse_trial(done.stdout.strip().splitlines()[-1])


def parse_trial(line: str) -> EngineTrial:
    """A trial from its JSON, whose keys are strings."""
    values = json.loads(line)
    values["run_ms"] = {int(count): times for count, times in values["run_ms"].items()}
    return EngineTrial(**values)


def record(result: Benchmark, backend: str, size: int, trial: EngineTrial) -> None:
    """Enter a trial's figures."""
    name = f"{backend} {trial.precision}, {size}"
    for count, times in trial.run_ms.items():
        result.add(f"{name}, {count} live", "ms", times)
    result.add(f"{name}, load", "s", [trial.load_s], listed=False)
    result.add(f"{name}, first run", "s", [trial.first_run_s], listed=False)
    result.add(f"{name}, memory", "MB", [trial.memory_mb], listed=False)


def overview(trials: Mapping[tuple[str, int], EngineTrial]) -> Table:
    """Medians side by side; the fastest with four modalities of each size is marked."""
    table = Table("engine", "precision", "size", *(f"{count} live, ms" for count in COUNTS), "load, s", "memory, MB")
    best = {
        size: min((b for b, s in trials if s == size), key=lambda b: _median(trials[b, size], 4)) for _, size in trials
    }
    for (backend, size), trial in trials.items():
        medians = [f"{_median(trial, count):.1f}" for count in COUNTS]
        mark = " *" if best[size] == backend else ""
        table.add_row(
            backend + mark, trial.precision, str(size), *medians, f"{trial.load_s:.2f}", f"{trial.memory_mb:.0f}"
        )
    table.caption = "medians; * fastest of its size with four modalities: set model.backend to it"
    return table


def _median(trial: EngineTrial, count: int) -> float:
    return float(np.median(trial.run_ms[count]))
