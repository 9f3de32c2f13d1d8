"""One engine on one network in a process of its own: load time, memory, time per number of live modalities.

`python -m anyseg_ros.bench.engine_trial NETWORK BACKEND SIZE RUNS [parts]` prints an `EngineTrial` as JSON; with
`parts`, of the two parts beside the network.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import Engine, PartFiles

COUNTS = (1, 2, 3, 4)
WARM_UP = 2
BUDGET_S = 20.0
"""Per number of modalities; slow pairs of engine and size get fewer runs, but three at least."""


@dataclass(frozen=True)
class EngineTrial:
    """What was measured."""

    precision: str
    load_s: float
    """Opening the engine, first run not counted."""
    first_run_s: float
    memory_mb: float
    """Growth of the resident memory by the engine and its runs with four modalities."""
    run_ms: dict[int, list[float]]
    """Times of single runs, by number of modalities."""


def trial(network: Path, backend: str, size: int, runs: int, *, in_parts: bool = False) -> EngineTrial:
    """Measure here and now; raises EngineError where the engine cannot be had."""
    process = psutil.Process()
    before_mb = process.memory_info().rss / 1e6
    start = time.perf_counter()
    engine = open_engine(network, backend, parts=PartFiles.beside(network) if in_parts else None)
    load_s = time.perf_counter() - start
    images = np.random.default_rng(0).integers(0, 256, (max(COUNTS), size, size, 3), np.uint8)
    start = time.perf_counter()
    engine.run(images[:1], np.arange(1))
    first_run_s = time.perf_counter() - start
    run_ms = {count: _times_ms(engine, images[:count], runs) for count in COUNTS}
    memory_mb = process.memory_info().rss / 1e6 - before_mb
    return EngineTrial(engine.info.precision, load_s, first_run_s, memory_mb, run_ms)


def _times_ms(engine: Engine, images: np.ndarray, runs: int) -> list[float]:
    index = np.arange(len(images))
    for _ in range(WARM_UP):
        engine.run(images, index)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < runs and (len(times) < 3 or time.perf_counter() - began < BUDGET_S):
        start = time.perf_counter()
        engine.run(images, index)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Entry point of `python -m`."""
    network, backend, size, runs, *form = sys.argv[1:]
    print(json.dumps(asdict(trial(Path(network), backend, int(size), int(runs), in_parts=bool(form)))))


if __name__ == "__main__":
    main()
