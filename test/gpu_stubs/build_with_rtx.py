"""Build plans with the real TensorRT-RTX, without a GPU: `python build_with_rtx.py FOLDER_OF_LIBRARIES NETWORK ...`.

Prints, as JSON in the last line, what became of each network.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent.parent), sys.argv[1]]

from anyseg_core.runtime.engine import BuildCancelledError, BuildOptions, BuildProgress, EngineError  # noqa: E402
from anyseg_core.runtime.engine_tensorrt import TensorrtEngine  # noqa: E402
from anyseg_core.runtime.tensorrt_build import build_plan, load_library  # noqa: E402

COUNTS = (1, 2, 3, 4)


def main() -> None:
    library = load_library()
    outcome: dict[str, Any] = {"library": library.name}
    for network in map(Path, sys.argv[2:]):
        outcome[str(network)] = build(library, network)
    outcome["cancelled"] = cancelled(library, Path(sys.argv[2]))
    outcome["engine"] = engine_without_gpu(Path(sys.argv[2]))
    print(json.dumps(outcome))


def build(library: Any, network: Path) -> dict[str, Any]:
    told: list[BuildProgress] = []
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.wait(0.02):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    started = time.monotonic()
    plan = build_plan(library, network, COUNTS, "auto", lambda progress: told.append(progress) is None)
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


def cancelled(library: Any, network: Path) -> str:
    try:
        build_plan(library, network, COUNTS, "fp32", lambda _progress: False)
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
