"""`anyseg bench gpu`: its arithmetic, its naive path on the CPU, and what it says where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the stand-in needs pip install anyseg_ros[train]")

from cuda_double import DeviceDouble  # noqa: E402
from tensorrt_double import install_doubles  # noqa: E402
from toy_student import write_toy_student  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from anyseg_core.benchmarks import gpu as gpu_benchmark  # noqa: E402
from anyseg_core.benchmarks.gpu import Case, NaivePath, Rates, floor_s, operations, transferred_bytes  # noqa: E402
from anyseg_core.models.student_network import StudentNetwork  # noqa: E402
from anyseg_ros.bench.gpu import add_tensorrt, add_torch, gpu_state  # noqa: E402
from anyseg_ros.bench.results import Benchmark  # noqa: E402
from anyseg_ros.cli import app  # noqa: E402

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def test_the_floor_is_the_slower_of_operations_and_bytes() -> None:
    rates = Rates(operations_per_s=1e12, bytes_per_s=1e9)
    assert floor_s(Case(256, 1, [], [], operations=10**10, transferred_bytes=10**6), rates) == 0.01
    assert floor_s(Case(256, 1, [], [], operations=10**6, transferred_bytes=10**8), rates) == 0.1


def test_operations_and_bytes_grow_with_the_modalities_and_the_size() -> None:
    model = gpu_benchmark.make_network()
    one, two, four = (operations(model, 64, count) for count in (1, 2, 4))
    assert two - one == (four - two) / 2 > 0
    assert operations(model, 128, 1) > 4 * one
    weights = sum(p.numel() for p in model.parameters())
    assert transferred_bytes(model, 64, 2) == 2 * weights + 2 * 64 * 64 * 3 + 2 * 64 * 64


def test_the_naive_path_decides_as_the_exported_form_does() -> None:
    model = gpu_benchmark.make_network()
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    labels = NaivePath(model, torch.device("cpu")).run(list(images))
    with torch.inference_mode():
        exported = StudentNetwork(model, (64, 64), label_stride=1)(torch.from_numpy(images), torch.arange(3))[0]
    assert (labels == exported.numpy()).mean() > 0.999


def test_the_table_has_both_paths_the_floor_and_the_ratios() -> None:
    result = Benchmark("GPU")
    case = {"size": 256, "modalities": 2, "graph_s": [0.002] * 3, "naive_s": [0.01] * 3, "floor_s": 0.001}
    rates = {"operations_per_s": 4e13, "bytes_per_s": 2e11}
    add_torch(result, {"gpu": "Card", "torch": "2", "rates": rates, "cases": [case]})
    medians = {figure.name: figure.percentile(50) for figure in result.figures}
    assert medians == {
        "torch graph 256x256, 2": pytest.approx(2.0),
        "torch graph 256x256, 2: throughput": pytest.approx(500.0),
        "naive 256x256, 2": pytest.approx(10.0),
        "naive 256x256, 2: throughput": pytest.approx(100.0),
        "floor 256x256, 2": pytest.approx(1.0),
        "naive / torch graph 256x256, 2": pytest.approx(5.0),
        "torch graph / floor 256x256, 2": pytest.approx(2.0),
    }
    assert result.notes == ["Card, torch 2: fp16 matrix product 40.0 TFLOP/s, copy 200 GB/s"]


def test_tensorrt_figures_with_a_double_of_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_doubles(monkeypatch, DeviceDouble())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = Benchmark("GPU")
    add_tensorrt(result, str(write_toy_student(tmp_path / "toy")), runs=5)
    assert [f.name for f in result.figures if f.unit == "ms"] == [f"tensorrt 64x64, {n}" for n in (1, 2, 3, 4)]
    assert any("layer types: fp16" in note for note in result.notes)


@without_gpu
def test_without_a_gpu_it_says_what_is_missing_and_exits_with_2(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "gpu", "--json", str(tmp_path / "gpu.json")])
    assert done.exit_code == 2
    text = " ".join(done.output.split())
    assert "nothing to measure here. TensorRT: tensorrt was asked for and cannot be used" in text
    assert "torch: no CUDA GPU that torch can use" in text
    assert not (tmp_path / "gpu.json").exists()


@without_gpu
def test_the_stand_in_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_benchmark.main([]) == 2
    assert "no CUDA GPU" in capsys.readouterr().err


def test_the_state_of_a_jetson_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1")
    assert gpu_state(tmp_path) == "unknown board, JetPack 6.2, power mode not known"


@pytest.mark.gpu
def test_every_case_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU that torch can use")
    measured = gpu_benchmark.measure([256], runs=10)
    assert len(measured["cases"]) == 4
    for case in measured["cases"]:
        assert min(case["graph_s"]) > case["floor_s"]
