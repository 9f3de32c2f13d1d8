"""The TensorRT engine in a process of its own, above real pycuda, cuda.bindings or TensorRT bindings.

    python scenarios.py SCENARIO NETWORK CACHE [FOLDER_OF_LIBRARIES ...]

The folders are searched for Python modules after everything else. TensorRT's work is done by `TensorrtDouble`, held to
the interface of the real bindings where those are in a folder. Prints the outcome as JSON in the last line.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent), str(HERE.parent.parent), *sys.argv[4:]]

from cuda_double import DeviceDouble  # noqa: E402
from tensorrt_double import TensorrtDouble  # noqa: E402
from toy_student import toy_output  # noqa: E402

from anyseg_core.runtime.engines import tensorrt as engine_tensorrt  # noqa: E402
from anyseg_core.runtime.engines.protocol import BuildOptions, EngineError  # noqa: E402
from anyseg_core.runtime.engines.tensorrt import TensorrtEngine  # noqa: E402

COUNTERS = ("device memory", "pinned memory", "streams", "events", "graphs", "allocations", "copies", "calls")
KEPT = COUNTERS[:5]
SIZE = (64, 96)
OUT_OF_MEMORY, ILLEGAL_ADDRESS = 2, 700


class Driver:
    """The test driver's own functions, and kernels as host functions on its streams."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        self.library.anyseg_test_count.restype = ctypes.c_long
        self._callbacks: list[Any] = []
        self._interrupted = False

    def launch(self, stream: int, function: Callable[[], None]) -> None:
        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _argument: function())
        self._callbacks.append(callback)  # graphs call it again and again
        if self.library.cuLaunchHostFunc(ctypes.c_void_p(stream), callback, None):
            raise EngineError("the test driver refused a kernel")

    def on_ctrl_c(self, _number: int, _frame: Any) -> None:
        """Raises nothing itself: ctypes would swallow an exception within a kernel, which is Python here."""
        self._interrupted = True

    def raise_interrupt(self) -> None:
        """Ctrl-C, between two runs."""
        if self._interrupted:
            raise KeyboardInterrupt

    def counts(self) -> dict[str, int]:
        return {name: self.library.anyseg_test_count(i) for i, name in enumerate(COUNTERS)}

    def left(self) -> dict[str, int]:
        """What is alive; empty when all was given back. The context's stack is this thread's."""
        counts = {name: n for name, n in self.counts().items() if name in KEPT}
        counts["contexts"] = self.library.anyseg_test_retained()
        counts["stack"] = self.library.anyseg_test_stack_depth()
        return {name: n for name, n in counts.items() if n}

    def fail(self, call: str, error: int, after: int) -> None:
        self.library.anyseg_test_fail(call.encode(), error, after)


def real_bindings() -> Any:
    """The bindings in the folders; None without."""
    try:
        import tensorrt_bindings
    except ModuleNotFoundError:
        return None
    return tensorrt_bindings


SUBSETS = [subset for count in range(1, 5) for subset in combinations(range(4), count)]
ONE_OF_EACH_COUNT = [(2,), (0, 3), (0, 1, 2), (0, 1, 2, 3)]


def check_runs(engine: TensorrtEngine, rounds: int = 1, subsets: Sequence[tuple[int, ...]] = SUBSETS) -> int:
    """Every subset, with the next frames uploaded while the network runs; returns the number of right results."""
    rng = np.random.default_rng(7)
    right = 0
    for _ in range(rounds):
        for subset in subsets:
            images = list(rng.integers(0, 256, (len(subset), *SIZE, 3), np.uint8))
            modality = np.array(subset, np.int64)
            for index, image in list(zip(subset, images, strict=True))[::2]:
                engine.upload(index, image)
            engine.start(images, modality)
            for index in subset:
                engine.upload(index, rng.integers(0, 256, (*SIZE, 3), np.uint8))
            found = engine.finish()
            wanted = toy_output(np.stack(images), modality)
            assert all((f == w).all() for f, w in zip(found, wanted, strict=True)), f"wrong labels for {subset}"
            right += 1
    return right


def life(open_engine: Callable[[], TensorrtEngine], driver: Driver) -> dict[str, Any]:
    """Open, run, close, three times."""
    outcome: dict[str, Any] = {}
    for _ in range(3):
        engine = open_engine()
        check_runs(engine)
        before = driver.counts()
        right = check_runs(engine, rounds=10)
        after = driver.counts()
        outcome = {
            "right": right,
            "grown": {name: after[name] - before[name] for name in (*KEPT, "allocations")},
            "details": dict(engine.info.details),
            "precision": engine.info.precision,
        }
        engine.close()
        outcome["left"] = driver.left()
    return outcome


def threads(open_engine: Callable[[], TensorrtEngine], driver: Driver) -> dict[str, Any]:
    """A thread that closes its engine, and one that ends without."""
    outcome: dict[str, Any] = {}

    def careful() -> None:
        engine = open_engine()
        outcome["right"] = check_runs(engine)
        engine.close()
        outcome["left"] = driver.left()

    def careless() -> None:
        outcome["kept"] = open_engine()
        check_runs(outcome["kept"])
        outcome["stack"] = driver.library.anyseg_test_stack_depth()

    for work in (careful, careless):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    try:
        outcome.pop("kept").close()
    except EngineError as error:
        outcome["close elsewhere"] = str(error)
    return outcome


def faults(open_engine: Callable[[], TensorrtEngine], driver: Driver) -> dict[str, Any]:
    """Every call to CUDA fails once: while opening, while running. Nothing may stay, and the next engine must run."""
    start = driver.counts()["calls"]
    engine = open_engine()
    check_runs(engine, subsets=ONE_OF_EACH_COUNT)
    ran = driver.counts()["calls"]
    engine.close()
    tried, raised, left = 0, 0, []
    for error in (OUT_OF_MEMORY, ILLEGAL_ADDRESS):
        for after in range(0, ran - start, 1 if error == ILLEGAL_ADDRESS else 3):
            driver.fail("", error, after)
            engine, tried = None, tried + 1
            try:
                engine = open_engine()
                check_runs(engine, subsets=ONE_OF_EACH_COUNT)
            except EngineError:
                raised += 1
            if engine is not None:
                engine.close()
            driver.fail("", 0, -1)
            left.append(driver.left())
    engine = open_engine()
    right = check_runs(engine, subsets=ONE_OF_EACH_COUNT)
    engine.close()
    left = [counts for counts in left if counts]
    return {"faults": tried, "raised": raised, "right": right, "left": left}


def until_interrupted(open_engine: Callable[[], TensorrtEngine], driver: Driver) -> dict[str, Any]:
    """Runs until Ctrl-C, closes in `finally`."""
    engine = open_engine()
    try:
        print("running", flush=True)
        while True:
            check_runs(engine)
            driver.raise_interrupt()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        engine.close()
    return {"interrupted": interrupted, "left": driver.left()}


def interrupted_without_close(open_engine: Callable[[], TensorrtEngine], driver: Driver) -> dict[str, Any]:
    """Ctrl-C ends the process with an engine open: the interpreter must come to its end all the same."""
    engine = open_engine()
    print("running", flush=True)
    while True:
        check_runs(engine)
        driver.raise_interrupt()


SCENARIOS = {f.__name__: f for f in (life, threads, faults, until_interrupted, interrupted_without_close)}


def on_host(network: Path, cache: Path) -> dict[str, Any]:
    """No CUDA library below: the bindings alone are looked at."""
    device = DeviceDouble()
    engine_tensorrt.open_device = device.reopened  # type: ignore[assignment]
    sys.modules["tensorrt"] = TensorrtDouble(device.launch, real_bindings())  # type: ignore[assignment]
    outcome: dict[str, Any] = {}
    for precision in ("auto", "fp32"):
        engine = TensorrtEngine(network, BuildOptions(cache_dir=cache, precision=precision))
        outcome = {"right": check_runs(engine), "details": dict(engine.info.details)}
        engine.close()
    sys.modules["tensorrt"].double.execute_fails = True
    try:
        TensorrtEngine(network, BuildOptions(cache_dir=cache))
    except EngineError as error:
        outcome["failure"] = str(error)
    try:
        TensorrtEngine(network, BuildOptions(cache_dir=cache / "other", on_progress=lambda _progress: False))
    except EngineError as error:
        outcome["cancelled"] = type(error).__name__
    return outcome


def main() -> None:
    scenario, network, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if scenario == "on_host":
        print(json.dumps(on_host(network, cache)))
        return
    driver = Driver()
    signal.signal(signal.SIGINT, driver.on_ctrl_c)
    sys.modules["tensorrt"] = TensorrtDouble(driver.launch, real_bindings())  # type: ignore[assignment]
    outcome = SCENARIOS[scenario](lambda: TensorrtEngine(network, BuildOptions(cache_dir=cache)), driver)
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
