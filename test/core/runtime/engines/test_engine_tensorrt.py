"""The TensorRT engine on doubles of TensorRT and of the GPU, which are not here; with a GPU: `pytest -m gpu`."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from cuda_double import DeviceDouble
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorrt_double import TensorrtDouble, install_doubles
from toy_student import toy_output, write_toy_student

from anyseg_core.runtime.engines import tensorrt as engine_tensorrt
from anyseg_core.runtime.engines.cuda.device import DeviceError
from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import (
    BuildCancelledError,
    BuildOptions,
    BuildProgress,
    DeviceEngine,
    EngineError,
)
from anyseg_core.runtime.engines.tensorrt import TensorrtEngine
from anyseg_core.runtime.engines.tensorrt_build import PhaseTree, summarise
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_core.runtime.sensors import Sensor, SensorFrame

SIZE = (64, 96)
SUBSETS = [subset for count in range(1, 5) for subset in combinations(range(4), count)]
NOTHING_ALIVE = {"device": 0, "pinned": 0, "stream": 0, "event": 0, "context": 0}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("toy"), size=SIZE) / "student.onnx"


@pytest.fixture
def build(tmp_path: Path) -> BuildOptions:
    return BuildOptions(cache_dir=tmp_path / "engines")


@pytest.fixture
def engine(network: Path, tensorrt: TensorrtDouble, build: BuildOptions) -> TensorrtEngine:
    return TensorrtEngine(network, build)


def frames(seed: int, count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8))


def expect(result: tuple[np.ndarray, np.ndarray], images: list[np.ndarray], modality: np.ndarray) -> None:
    for found, wanted in zip(result, toy_output(np.stack(images), modality), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("subset", SUBSETS, ids=str)
def test_every_subset_on_the_gpu_double(engine: TensorrtEngine, subset: tuple[int, ...]) -> None:
    images, modality = frames(1, len(subset)), np.array(subset, np.int64)
    expect(engine.run(np.stack(images), modality), images, modality)
    expect(engine.run(np.stack(images[::-1]), modality[::-1]), images[::-1], modality[::-1])


def test_a_network_of_a_fixed_number_is_built_for_that_alone_on_the_gpu_double(
    network: Path, device: DeviceDouble, tensorrt: TensorrtDouble, build: BuildOptions
) -> None:
    engine = TensorrtEngine(network, BuildOptions(cache_dir=build.cache_dir, max_modalities=2, only_all=True))
    assert engine.info.details["profiles"] == "2"
    images, modality = frames(1, 2), np.array([1, 3], np.int64)
    expect(engine.run(np.stack(images), modality), images, modality)
    with pytest.raises(EngineError, match="1 images for 1 modalities; built for 2"):
        engine.run(np.stack(images[:1]), modality[:1])
    engine.close()


def test_uploads_ahead_on_the_gpu_double_are_used_and_never_mixed_up(engine: TensorrtEngine) -> None:
    modality = np.arange(3)
    now, later = frames(1, 3), frames(2, 3)
    for index, image in enumerate(now):
        engine.upload(index, image)
    engine.start(now, modality)
    for index, image in enumerate(later):  # while the network runs on `now`
        engine.upload(index, image)
    expect(engine.finish(), now, modality)
    engine.start([later[0], now[1], later[2]], modality)  # one of them is not what was uploaded
    expect(engine.finish(), [later[0], now[1], later[2]], modality)


def test_an_image_that_was_uploaded_ahead_travels_once_on_the_gpu_double(
    engine: TensorrtEngine, device: DeviceDouble
) -> None:
    images, modality = frames(1, 2), np.arange(2)
    engine.upload(1, images[1])
    device.log.clear()
    engine.start(images, modality)
    engine.finish()
    assert device.log.count("to device") == 3  # both images, once each, and which modalities they are
    device.log.clear()
    engine.run(np.stack(images), modality)
    assert device.log.count("to device") == 3


Step = tuple[str, int, int]


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(st.sampled_from(["upload", "run"]), st.integers(1, 15), st.integers(0, 5)), max_size=8))
def test_any_order_of_uploads_and_runs_on_the_gpu_double(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_order"
    network = folder / "student.onnx"
    if not network.exists():
        write_toy_student(folder, size=SIZE)
    device = DeviceDouble()
    with pytest.MonkeyPatch.context() as patch:
        install_doubles(patch, device)
        engine = TensorrtEngine(network, BuildOptions(cache_dir=folder / "engines"))
    pool = [frames(seed, 4) for seed in range(6)]
    for kind, bits, seed in steps:
        present = np.array([i for i in range(4) if bits >> i & 1])
        images = [pool[(seed + i) % 6][i] for i in present]
        if kind == "run":
            engine.start(images, present)
            for i in present[::2]:
                engine.upload(int(i), pool[(seed + 3) % 6][i])  # the next frame, while the network runs
            expect(engine.finish(), images, present)
        else:
            for i, image in zip(present, images, strict=True):
                engine.upload(int(i), image)
    engine.close()
    assert device.alive == NOTHING_ALIVE


def test_nothing_is_allocated_per_frame_and_all_is_freed_on_the_gpu_double(
    engine: TensorrtEngine, device: DeviceDouble, tensorrt: TensorrtDouble
) -> None:
    images = np.stack(frames(1, 4))
    engine.run(images, np.arange(4))
    before, alive = device.allocations, dict(device.alive)
    for count in (1, 2, 3, 4) * 5:
        engine.run(images[:count], np.arange(count))
    assert (device.allocations, device.alive) == (before, alive)
    assert tensorrt.double.alive == 4
    engine.close()
    engine.close()
    assert device.alive == NOTHING_ALIVE
    assert tensorrt.double.alive == 0


def test_it_says_what_really_runs_on_the_gpu_double(engine: TensorrtEngine) -> None:
    info = engine.info
    assert isinstance(engine, DeviceEngine)
    assert (info.backend, info.device, info.reason) == ("tensorrt", "cuda:0", "asked for")
    assert info.precision == "fp16"  # what the inspector finds, not what was asked for
    assert info.details["tactics"] == "2 layers, 1 kernels"
    assert info.details["profiles"] == "1,2,3,4"
    assert info.details["cuda graphs"].startswith("no; cuda.bindings is not installed")
    assert info.details["gpu"] == "Double, compute capability 8.7"


def test_the_engine_is_its_thread_s_on_the_gpu_double(engine: TensorrtEngine) -> None:
    raised: list[str] = []

    def use() -> None:
        for call in (lambda: engine.run(np.zeros((1, *SIZE, 3), np.uint8), np.zeros(1, np.int64)), engine.close):
            with pytest.raises(EngineError, match="belongs to the thread") as error:
                call()
            raised.append(str(error.value))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(raised) == 2
    engine.close()


WRONG_USE: dict[str, tuple[Callable[[TensorrtEngine], object], str]] = {
    "none": (lambda e: e.start([], np.empty(0, np.int64)), "0 images"),
    "too many": (lambda e: e.start(frames(0, 5), np.arange(5)), "5 images .* built for 1, 2, 3, 4"),
    "mismatch": (lambda e: e.start(frames(0, 2), np.arange(1)), "2 images for 1"),
    "size": (lambda e: e.start([np.zeros((8, 8, 3), np.uint8)], np.arange(1)), r"\(8, 8, 3\), the network takes"),
    "type": (lambda e: e.upload(0, np.zeros((*SIZE, 3), np.float32)), "image is float32"),  # type: ignore[arg-type]
    "not started": (lambda e: e.finish(), "no run was started"),
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use_is_named_and_the_engine_lives_on_the_gpu_double(engine: TensorrtEngine, name: str) -> None:
    use, words = WRONG_USE[name]
    with pytest.raises(EngineError, match=words):
        use(engine)
    images = frames(1, 2)
    expect(engine.run(np.stack(images), np.arange(2)), images, np.arange(2))


def test_twice_started_and_closed_is_named_on_the_gpu_double(engine: TensorrtEngine) -> None:
    engine.start(frames(1, 1), np.arange(1))
    with pytest.raises(EngineError, match="not finished"):
        engine.start(frames(1, 1), np.arange(1))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.finish()


def test_a_failed_run_and_a_lost_device_are_engine_errors_on_the_gpu_double(
    engine: TensorrtEngine, device: DeviceDouble, tensorrt: TensorrtDouble, network: Path, build: BuildOptions
) -> None:
    tensorrt.double.execute_fails = True
    with pytest.raises(EngineError, match=r"inference with .* failed"):
        engine.run(np.stack(frames(1, 1)), np.arange(1))
    tensorrt.double.execute_fails = False
    device.lost = "CUDA: an illegal memory access was encountered"
    with pytest.raises(DeviceError, match="illegal memory access"):
        engine.run(np.stack(frames(1, 1)), np.arange(1))
    engine.close()
    again = TensorrtEngine(network, build)  # opened anew, the device is in order again
    images = frames(2, 1)
    expect(again.run(np.stack(images), np.arange(1)), images, np.arange(1))


def test_out_of_memory_while_opening_frees_the_rest_on_the_gpu_double(
    network: Path, device: DeviceDouble, tensorrt: TensorrtDouble, build: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(size: int) -> object:
        raise DeviceError("CUDA: out of memory")

    monkeypatch.setattr(device, "allocate_pinned", out_of_memory)
    with pytest.raises(DeviceError, match="out of memory"):
        TensorrtEngine(network, build)
    assert {kind: n for kind, n in device.alive.items() if n} == {}


def test_the_next_frames_are_encoded_and_uploaded_while_a_double_of_the_gpu_runs(
    tmp_path: Path, tensorrt: TensorrtDouble, device: DeviceDouble, build: BuildOptions
) -> None:
    student = write_toy_student(tmp_path / "toy", SIZE)
    segmenter = Segmenter.open(student, "tensorrt", build=build)
    reference = Segmenter.open(student, "onnxruntime")
    rng = np.random.default_rng(5)
    drive = [
        {m: SensorFrame(m, rng.integers(0, 255, (*SIZE, 3), np.uint8), stamp, "f") for m in [Sensor.CAMERA]}
        for stamp in range(6)
    ]
    for now, later in itertools.pairwise(drive):
        ahead = list(later.values())

        def encode_one(ahead: list[SensorFrame] = ahead) -> bool:
            if ahead:
                segmenter.encode(ahead.pop())
                return True
            return False

        segmenter.while_waiting = encode_one
        result, expected = segmenter.segment(now), reference.segment(now)
        np.testing.assert_array_equal(result.labels, expected.labels)
        assert not ahead
    device.log.clear()
    segmenter.segment(drive[-1])
    assert device.log.count("to device") == 2  # the image, already on its way, and which modality it is
    segmenter.close()


def test_output_without_any_confidence_is_refused_on_the_gpu_double(
    tmp_path: Path, tensorrt: TensorrtDouble, build: BuildOptions
) -> None:
    segmenter = Segmenter.open(write_toy_student(tmp_path / "toy", SIZE), "tensorrt", build=build)
    black = SensorFrame(Sensor.CAMERA, np.zeros((*SIZE, 3), np.uint8), 1, "f")  # the toy's confidence is brightness
    with pytest.raises(EngineError, match="bad output: no pixel has any confidence"):
        segmenter.segment({Sensor.CAMERA: black})
    segmenter.close()


# --- the build -------------------------------------------------------------------------------------------------------


def test_the_second_start_builds_nothing_on_the_gpu_double(
    network: Path, tensorrt: TensorrtDouble, build: BuildOptions
) -> None:
    plans = [TensorrtEngine(network, build).info.details["plan"] for _ in range(2)]
    assert tensorrt.double.builds == 1
    assert plans[0].startswith("built in 0 s, kept in")
    assert plans[1].startswith("read from")


@pytest.mark.parametrize("change", ["library", "gpu", "network", "precision", "modalities"])
def test_a_plan_of_other_circumstances_is_not_run_on_the_gpu_double(
    network: Path,
    device: DeviceDouble,
    tensorrt: TensorrtDouble,
    build: BuildOptions,
    tmp_path: Path,
    change: str,
) -> None:
    TensorrtEngine(network, build)
    options = {"precision": build.precision, "max_modalities": build.max_modalities}
    if change == "library":
        tensorrt.__version__ = "10.13.3"
    elif change == "gpu":
        device.info = type(device.info)("Another", "8.9", "double 1.0")
    elif change == "network":
        network = write_toy_student(tmp_path / "other", size=(32, 32)) / "student.onnx"
    elif change == "precision":
        options["precision"] = "fp32"
    else:
        options["max_modalities"] = 2
    TensorrtEngine(network, BuildOptions(cache_dir=build.cache_dir, **options))  # type: ignore[arg-type]
    assert tensorrt.double.builds == 2


def test_a_plan_that_tensorrt_refuses_is_built_anew_once_on_the_gpu_double(
    network: Path, tensorrt: TensorrtDouble, build: BuildOptions
) -> None:
    TensorrtEngine(network, build).close()
    tensorrt.double.refused_plans = 1
    TensorrtEngine(network, build).close()
    assert tensorrt.double.builds == 2
    tensorrt.double.refused_plans = 2
    with pytest.raises(EngineError, match=r"refuses .*: the engine plan was made on another device"):
        TensorrtEngine(network, build)


def test_progress_is_told_and_a_build_can_be_cancelled_on_the_gpu_double(
    network: Path, device: DeviceDouble, tensorrt: TensorrtDouble, build: BuildOptions, tmp_path: Path
) -> None:
    told: list[BuildProgress] = []

    def cancel(progress: BuildProgress) -> bool:
        told.append(progress)
        return False

    with pytest.raises(BuildCancelledError):
        open_engine(network, "auto", build=BuildOptions(cache_dir=build.cache_dir, on_progress=cancel))
    assert told[0].phase == "building"
    assert 0 <= told[0].percent < 100
    assert {kind: n for kind, n in device.alive.items() if n} == {}
    assert not list((tmp_path / "engines").glob("*.plan"))


@pytest.mark.parametrize(("content", "words"), [(None, "cannot read"), (b"no network", "no sound ONNX file")])
def test_a_bad_network_is_named_on_the_gpu_double(
    tmp_path: Path, tensorrt: TensorrtDouble, build: BuildOptions, content: bytes | None, words: str
) -> None:
    network = tmp_path / "student.onnx"
    if content:
        network.write_bytes(content)
    with pytest.raises(EngineError, match=words):
        TensorrtEngine(network, build)


def test_auto_says_what_it_chose_on_the_gpu_double(
    network: Path, tensorrt: TensorrtDouble, build: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = open_engine(network, "auto", build=build).info
    assert (info.backend, info.reason) == ("tensorrt", "auto: TensorRT and a GPU are here")

    def no_gpu() -> DeviceDouble:
        raise DeviceError("no GPU can be used here: no CUDA-capable device is detected")

    monkeypatch.setattr(engine_tensorrt, "open_device", no_gpu)
    info = open_engine(network, "auto", build=build).info
    assert info.backend == "onnxruntime"
    assert "because no GPU can be used here: no CUDA-capable device" in info.reason
    with pytest.raises(EngineError, match=r"tensorrt was asked for and cannot be used: no GPU .* model.backend"):
        open_engine(network, "tensorrt", build=build)


def test_old_and_broken_tensorrt_is_named(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", TensorrtDouble(lambda *_: None, version="8.6.1"))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"TensorRT 8\.6\.1 is older than 10\.3"):
        open_engine(network, "tensorrt")


# --- what needs no double --------------------------------------------------------------------------------------------


def test_percent_of_nested_phases() -> None:
    tree = PhaseTree()
    assert tree.percent == 0
    tree.start("Building", None, 4)
    tree.step("Building", 0)
    assert tree.percent == 25
    tree.start("Tactics", "Building", 10)
    tree.step("Tactics", 4)
    assert tree.percent == pytest.approx(25 + 25 * 0.5)
    tree.finish("Tactics")
    assert tree.percent == pytest.approx(37.5)  # never falls
    tree.step("Building", 3)
    tree.finish("Building")
    assert tree.percent == 100


NAMES = st.sampled_from(["a", "b", "c"])
EVENTS = st.tuples(st.sampled_from(["start", "step", "finish"]), NAMES, st.none() | NAMES, st.integers(-1, 50))


@given(st.lists(EVENTS, max_size=30))
def test_percent_never_falls_whatever_the_phases(events: list[tuple[str, str, str | None, int]]) -> None:
    tree, last = PhaseTree(), 0.0
    for kind, name, parent, number in events:
        if kind == "start":
            tree.start(name, parent if parent is None or parent > name else None, number)
        elif kind == "step":
            tree.step(name, number)
        else:
            tree.finish(name)
        assert last <= tree.percent <= 100
        last = tree.percent


@pytest.mark.parametrize("tensors", ["Bindings", "I/O Tensors"])
def test_the_inspector_s_answer_in_words(tensors: str) -> None:
    def layer(kind: str, tactic: str) -> dict[str, object]:
        return {"TacticName": tactic, "Outputs": [{"Name": "x", "Format/Datatype": kind}]}

    layers = [
        layer("Row major linear FP16", "sm87_xmma_h16"),
        layer("Half", "sm87_xmma_h16_b"),
        layer("Row major linear FP32", "sm80_xmma_gemm_tf32f32"),
        layer("Int64", ""),
    ]
    summary = summarise(json.dumps({"Layers": layers, tensors: []}))
    assert (summary.main_type, summary.precision) == ("fp16", "fp16 (2), fp32 (1)")
    assert summary.tactics == "4 layers, 3 kernels, 1 of them TF32"


@pytest.mark.parametrize("answer", ["", "[]", "null", '{"Layers": ["names only", "no details"]}', '{"Layers": [{}]}'])
def test_an_inspector_that_says_little(answer: str) -> None:
    assert summarise(answer).main_type == "unknown"
