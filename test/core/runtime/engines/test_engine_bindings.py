"""TensorRT's own bindings, without a GPU: TensorRT-RTX builds for real; of the others, no call that one of them lacks.

The natives below the TensorRT bindings are stubs, so a double does their work; it lets through only what the real
classes have, with arguments that their signatures take.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from gpu_stub_process import outcome, part
from gpu_stubs.prepare import BINDINGS
from onnx import TensorProto
from tensorrt_double import Strict, check_call
from toy_student import write_toy_student

from anyseg_core.runtime.model_card import bundled_students, find_student, load_card


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("toy"), size=(64, 96)) / "student.onnx"


@pytest.mark.gpu_stubs
@pytest.mark.parametrize("version", BINDINGS)
def test_the_real_bindings_have_all_that_is_called_over_a_double(network: Path, tmp_path: Path, version: str) -> None:
    folder = part(f"tensorrt-{version}")
    found = outcome("scenarios.py", "on_host", network, tmp_path, folder, libraries=[folder / "lib"])
    assert found["details"]["library"] == f"TensorRT {version}"
    assert found["right"] == 15
    assert "inference with" in found["failure"]
    assert found["cancelled"] == "BuildCancelledError"


@pytest.mark.gpu_stubs
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_tensorrt_rtx_builds_every_bundled_student() -> None:
    folder = part("tensorrt_rtx")
    found = outcome("build_with_rtx.py", folder, *map(find_student, bundled_students()))
    assert found["library"].startswith("TensorRT-RTX 1.")
    for network in bundled_networks():
        built = found[str(network)]
        assert built["bytes"] > 1_000_000
        assert built["told"] >= 1
        assert built["falls"] == 0
        # Other threads ran while it was built: the node answers.
        assert built["other thread's ticks"] > 20 * built["seconds"]
    assert "given up" in found["cancelled"]
    assert "no GPU can be used here" in found["engine"]


def bundled_networks() -> list[Path]:
    students = [find_student(name) for name in bundled_students()]
    return [student / spec.file for student in students for spec in load_card(student).networks]


@pytest.mark.parametrize("network", bundled_networks(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_uint8_is_only_cast_for_tensorrt_computes_nothing_with_it(network: Path) -> None:
    """TensorRT parses no other operator on uint8: `first input has type UInt8 but must have type Float, ...`."""
    graph = onnx.load(str(network), load_external_data=False).graph
    uint8 = {v.name for v in (*graph.input, *graph.value_info) if v.type.tensor_type.elem_type == TensorProto.UINT8}
    users = {node.op_type for node in graph.node if uint8 & set(node.input)}
    assert "images" in uint8
    assert users <= {"Cast", "Shape"}


class Documented:
    """Stands for a class of bindings."""

    def call(self) -> None:
        """call(self: module.Documented, count: int, name: str = None) -> bool

        Of pybind11's form.
        """

    @property
    def fixed(self) -> int:
        return 1


class Behaviour:
    fixed = 1
    more = 2

    def call(self, count: int, name: str = "") -> bool:
        return len(name) <= count


@pytest.mark.parametrize(
    ("arguments", "fits"), [((1,), True), ((1, "a"), True), ((), False), (("a",), False), ((1, "a", 2), False)]
)
def test_the_double_is_as_strict_as_the_documented_signature(arguments: tuple[object, ...], fits: bool) -> None:
    if fits:
        assert Strict(Behaviour(), Documented).call(*arguments)
        return
    with pytest.raises(TypeError):
        check_call(Documented.call, arguments, {})


def test_the_double_has_nothing_that_the_bindings_lack() -> None:
    strict = Strict(Behaviour(), Documented)
    with pytest.raises(AttributeError):
        _ = strict.more
    with pytest.raises(AssertionError, match="cannot be set"):
        strict.fixed = 2
