"""Build plans with the real TensorRT-RTX, without a GPU: `python build_with_rtx.py FOLDER_OF_LIBRARIES STUDENT ...`.

Prints, as JSON in the last line, what became of each network of the students.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent.parent), sys.argv[1]]

from anyseg_core.runtime.engines.protocol import BuildCancelledError, BuildOptions, BuildProgress, EngineError  # noqa: E402
from anyseg_core.runtime.engines.tensorrt import TensorrtEngine  # noqa: E402
from anyseg_core.runtime.engines.tensorrt_build import build_plan, load_library  # noqa: E402
from anyseg_core.runtime.model_card import load_card  # noqa: E402


def main() -> None:
    library = load_library()
    counts = {
        student / spec.file: spec.counts for student in map(Path, sys.argv[2:]) for spec in load_card(student).networks
    }
    outcome: dict[str, Any] = {"library": library.name}
    outcome |= {str(network): build(library, network, counts[network]) for network in counts}
    first = next(iter(counts))
    outcome["cancelled"] = cancelled(library, first, counts[first])
    outcome["engine"] = engine_without_gpu(first)
    print(json.dumps(outcome))


def build(library: Any, network: Path, counts: Sequence[int]) -> dict[str, Any]:
    told: list[BuildProgress] = []
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.02):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    started = time.monotonic()
    plan = build_plan(library, network, counts, "auto", lambda progress: told.append(progress) is None)
    seconds = time.monotonic() - started
    done.set()
    thread.join()
    percents = [progress.percent for progress in told]
    return {
        "bytes": len(plan),
        "seconds": seconds,
        "told": len(told),
        "falls": sum(b < a for a, b in itertools.pairwise(percents)),
        "other thread's ticks": len(ticks),
    }


def cancelled(library: Any, network: Path, counts: Sequence[int]) -> str:
    try:
        build_plan(library, network, counts, "fp32", lambda _progress: False)
    except BuildCancelledError as error:
        return str(error)
    return "no"


def engine_without_gpu(network: Path) -> str:
    try:
        TensorrtEngine(network, BuildOptions())
    except EngineError as error:
        return str(error)
    return "opened"


if __name__ == "__main__":
    main()
