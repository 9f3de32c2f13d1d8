"""The OpenVINO engine, and the benchmark that puts the engines of a machine side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from toy_student import toy_output, write_toy_student

from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import EngineError
from anyseg_core.runtime.model_card import find_student, load_card
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_ros.bench import engine as bench_engine
from anyseg_ros.bench.engine_trial import EngineTrial, trial


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("toy"), size=(64, 64)) / "student.onnx"


@pytest.fixture
def _needs_openvino() -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")


@pytest.mark.usefixtures("_needs_openvino")
@pytest.mark.parametrize("subset", [(0,), (3,), (1, 2), (0, 1, 2, 3)], ids=str)
def test_openvino_computes_the_network(network: Path, subset: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (len(subset), 64, 64, 3), np.uint8)
    modality = np.array(subset, np.int64)
    engine = open_engine(network, "openvino", threads=1)
    labels, confidence = engine.run(images, modality)
    engine.run(255 - images, modality)  # what was returned is not overwritten by the next run
    expected_labels, expected_confidence = toy_output(images, modality)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(confidence, expected_confidence)


@pytest.mark.usefixtures("_needs_openvino")
def test_openvino_agrees_with_onnxruntime_on_the_bundled_student() -> None:
    folder = find_student("vehicle_sim")
    card = load_card(folder)
    file = folder / card.networks[0].file
    images = np.random.default_rng(2).integers(0, 256, (3, *card.input_size, 3), np.uint8)
    labels = [
        open_engine(file, name, threads=1).run(images, np.array([0, 1, 3]))[0] for name in ("onnxruntime", "openvino")
    ]
    assert (labels[0] == labels[1]).mean() >= 0.98  # noise images: many near ties; bf16 where the processor has it


@pytest.mark.usefixtures("_needs_openvino")
def test_openvino_says_what_really_runs(network: Path) -> None:
    with_segmenter = Segmenter.open(network.parent, "openvino", threads=1)
    assert with_segmenter.engine_info.backend == "openvino"
    assert with_segmenter.engine_info.precision in ("fp32", "bf16", "fp16")
    with_segmenter.close()


@pytest.mark.usefixtures("_needs_openvino")
def test_openvino_refuses_a_damaged_file_and_a_closed_engine(network: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "student.onnx"
    damaged.write_bytes(network.read_bytes()[:100])
    with pytest.raises(EngineError, match="Copy the student folder again"):
        open_engine(damaged, "openvino")
    engine = open_engine(network, "openvino")
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(np.zeros((1, 64, 64, 3), np.uint8), np.array([0]))


def test_openvino_asked_for_and_absent_names_the_extra(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match=r"\[openvino\]"):
        open_engine(network, "openvino")


def test_a_trial_measures_every_number_of_modalities(network: Path) -> None:
    measured = trial(network, "onnxruntime", 64, 3)
    assert {count: len(times) for count, times in measured.run_ms.items()} == {1: 3, 2: 3, 3: 3, 4: 3}
    assert measured.precision == "fp32"
    assert min(measured.load_s, measured.first_run_s) > 0


def test_the_benchmark_runs_each_engine_in_a_process_of_its_own(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_engine, "present_backends", lambda: ["onnxruntime", "tensorrt"])
    console = Console(record=True, width=160)
    bench_engine.run(console, tmp_path / "engines.json", str(network.parent), [64], 3, tmp_path)
    text = console.export_text()
    assert "onnxruntime *" in text
    assert "tensorrt at 64: " in text  # absent, and why
    figures = {figure["name"] for figure in json.loads((tmp_path / "engines.json").read_text())["figures"]}
    assert {"onnxruntime fp32, 64, 1 live", "onnxruntime fp32, 64, load", "onnxruntime fp32, 64, memory"} <= figures


def test_the_fastest_engine_of_each_size_is_marked() -> None:
    def made(ms: float) -> EngineTrial:
        return EngineTrial("fp32", 0.1, 0.1, 10.0, {count: [ms * count] for count in (1, 2, 3, 4)})

    console = Console(record=True, width=160)
    trials = {("onnxruntime", 64): made(2.0), ("openvino", 64): made(1.0), ("onnxruntime", 128): made(3.0)}
    console.print(bench_engine.overview(trials))
    rows = [line for line in console.export_text().splitlines() if " * " in line and "medians" not in line]
    assert [row.split()[1] for row in rows] == ["openvino", "onnxruntime"]
    assert [("64" in row, "128" in row) for row in rows] == [(True, False), (False, True)]


def test_a_size_that_is_no_multiple_of_32_is_refused(network: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="100"):
        bench_engine.run(Console(quiet=True), None, str(network.parent), [100], 3, tmp_path)
