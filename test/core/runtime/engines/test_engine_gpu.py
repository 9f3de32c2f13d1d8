"""The TensorRT engine on a real GPU: `pytest -m gpu`. Not yet run by anybody: there was no GPU where it was written."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from itertools import combinations
from pathlib import Path

import numpy as np
import psutil
import pytest

from anyseg_core.runtime.engines.cuda.device import DeviceError
from anyseg_core.runtime.engines.cuda.open_device import open_device
from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import BuildOptions, EngineError
from anyseg_core.runtime.engines.tensorrt_build import load_library
from anyseg_core.runtime.model_card import bundled_students, find_student, load_card

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(1800)]

RUNS = 100_000
MAX_GROWTH_MB = 8
MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.995}
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def gpu() -> str:
    try:
        library = load_library().name
        device = open_device()
    except EngineError as error:
        pytest.skip(f"no GPU with TensorRT here: {error}")
    device.close()
    return library


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> BuildOptions:
    return BuildOptions(cache_dir=tmp_path_factory.mktemp("engines"), precision="fp32")


def network_of(student: str) -> tuple[Path, tuple[int, int], int]:
    folder = find_student(student)
    card = load_card(folder)
    return folder / card.networks[0].file, card.input_size, len(card.networks[0].modalities)


def gpu_used_mb() -> float:
    device = open_device()
    with device.activated():
        free, total = device.free_memory()
    device.close()
    return (total - free) / MIB


@pytest.mark.parametrize("student", bundled_students())
def test_labels_agree_with_onnxruntime_on_every_subset(student: str, cache: BuildOptions) -> None:
    network, size, modalities = network_of(student)
    engine, reference = open_engine(network, "tensorrt", build=cache), open_engine(network, "onnxruntime")
    needed = MIN_AGREEMENT.get(engine.info.precision, MIN_AGREEMENT["fp16"])
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (modalities, size[0] // 16, size[1] // 16, 3), np.uint8)
    images = coarse.repeat(16, axis=1).repeat(16, axis=2)  # smooth areas with edges, as images have
    for subset in (s for count in range(1, modalities + 1) for s in combinations(range(modalities), count)):
        present, index = images[list(subset)], np.array(subset, np.int64)
        agreement = (engine.run(present, index)[0] == reference.run(present, index)[0]).mean()
        assert agreement >= needed, f"{subset}: {100 * agreement:.2f} %"
    engine.close()


def test_a_hundred_thousand_inferences_without_growth(cache: BuildOptions) -> None:
    network, size, modalities = network_of("vehicle_sim")
    engine = open_engine(network, "tensorrt", build=cache)
    images = np.random.default_rng(1).integers(0, 256, (modalities, *size, 3), np.uint8)

    def run(count: int) -> None:
        for i in range(count):
            live = 1 + i % modalities
            engine.run(images[:live], np.arange(live))

    run(1000)
    gc.collect()
    host_mb, device_mb = psutil.Process().memory_info().rss / MIB, gpu_used_mb()
    run(RUNS)
    gc.collect()
    assert psutil.Process().memory_info().rss / MIB - host_mb < MAX_GROWTH_MB
    assert gpu_used_mb() - device_mb < MAX_GROWTH_MB
    engine.close()


def test_engines_are_swapped_without_growth(cache: BuildOptions) -> None:
    names = bundled_students()
    used: list[float] = []
    for i in range(10):
        network, size, _ = network_of(names[i % len(names)])
        engine = open_engine(network, "tensorrt", build=cache)
        engine.run(np.zeros((1, *size, 3), np.uint8), np.zeros(1, np.int64))
        engine.close()
        used.append(gpu_used_mb())
    assert max(used[5:]) - max(used[:5]) < MAX_GROWTH_MB


def test_a_thread_opens_runs_and_ends(cache: BuildOptions) -> None:
    network, size, _ = network_of("vehicle_sim")
    outcomes: list[object] = []

    def work() -> None:
        engine = open_engine(network, "tensorrt", build=cache)
        outcomes.append(engine.run(np.zeros((1, *size, 3), np.uint8), np.zeros(1, np.int64))[0].shape)
        engine.close()

    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert outcomes == [size] * 3


@pytest.mark.parametrize("end", ["engine.close()", "pass", "raise KeyboardInterrupt", "os.kill(os.getpid(), 15)"])
def test_a_process_ends_cleanly_however_it_ends(cache: BuildOptions, end: str) -> None:
    network, size, _ = network_of("vehicle_sim")
    code = f"""
import os, numpy as np
from pathlib import Path
from anyseg_core.runtime.engines.protocol import BuildOptions, open_engine
engine = open_engine(Path({str(network)!r}), "tensorrt", build=BuildOptions("fp32", Path({str(cache.cache_dir)!r})))
engine.run(np.zeros((1, {size[0]}, {size[1]}, 3), np.uint8), np.zeros(1, np.int64))
{end}
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=600, capture_output=True, check=False)
    assert done.returncode in (0, 1, 130, -2, -15), done.stderr  # and not -6, an abort


def test_a_wrong_modality_count_is_an_error_and_the_engine_lives(cache: BuildOptions) -> None:
    network, size, modalities = network_of("vehicle_sim")
    engine = open_engine(network, "tensorrt", build=cache)
    with pytest.raises((EngineError, DeviceError)):
        engine.run(np.zeros((modalities + 1, *size, 3), np.uint8), np.zeros(modalities + 1, np.int64))
    assert engine.run(np.zeros((1, *size, 3), np.uint8), np.zeros(1, np.int64))[0].shape == size
    engine.close()
