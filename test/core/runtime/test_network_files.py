"""A student's files: read once, proven, opened from what was read; and the answer that each network must give."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from toy_student import toy_network, toy_output, write_toy_student
from typer.testing import CliRunner

from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import EngineError
from anyseg_core.runtime.external_data import external_tensors, with_values_inside
from anyseg_core.runtime.known_answer import KnownAnswer, known_images
from anyseg_core.runtime.model_card import CARD_NAME, NetworkFile, StudentError, load_card, read_networks, sha256_of
from anyseg_core.runtime.network_content import NetworkContent, NetworkFileError
from anyseg_core.runtime.segmenter import Segmenter
from anyseg_ros.cli import app

SIZE = (64, 96)
NETWORK, WEIGHTS = "student.onnx", "weights.bin"


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return write_toy_student(tmp_path / "toy", SIZE)


def change_card(student: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((student / CARD_NAME).read_bytes())
    change(content)
    (student / CARD_NAME).write_text(json.dumps(content))


# --- read once -------------------------------------------------------------------------------------------------------


def test_a_network_exchanged_after_it_was_checked_does_not_run(student: Path) -> None:
    segmenter = Segmenter.load(student)
    other = toy_network(SIZE, 25)
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(16, 20), "bits"))
    onnx.save(other, student / NETWORK)
    for _ in range(2):  # opened, and opened again after a failure
        segmenter.open_engines()
        images = known_images(SIZE, np.array([0]))
        labels, _ = segmenter._networks[0].engine.run(images, np.array([0]))
        np.testing.assert_array_equal(labels, toy_output(images, np.array([0]))[0])
    with pytest.raises(StudentError, match="SHA-256 differs"):
        Segmenter.load(student)


# --- weights in other files ------------------------------------------------------------------------------------------


def take_weights_out(student: Path, location: str = WEIGHTS) -> None:
    """The toy's weights in a file beside it; `location` is what the network says of where that is."""
    network, before = toy_network(SIZE, 25), b"\0" * 8
    (tensor,) = (tensor for tensor in network.graph.initializer if tensor.name == "bits")
    content = before + tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, location, len(before), len(tensor.raw_data))
    tensor.ClearField("raw_data")
    (student / WEIGHTS).write_bytes(content)
    (student / NETWORK).write_bytes(network.SerializeToString())
    sha256 = sha256_of(student / NETWORK)
    change_card(student, lambda card: card["networks"][0].update(sha256=sha256))


def declare_weights(student: Path) -> None:
    file = NetworkFile(file=WEIGHTS, sha256=sha256_of(student / WEIGHTS))
    change_card(student, lambda card: card.update(data_files=[file.model_dump()]))


def test_weights_in_another_file_are_those_that_were_hashed(student: Path, tmp_path: Path) -> None:
    take_weights_out(student)
    declare_weights(student)
    segmenter = Segmenter.load(student)
    shutil.rmtree(student)
    segmenter.open_engines()
    images = known_images(SIZE, np.array([1, 2]))
    labels, _ = segmenter._networks[0].engine.run(images, np.array([1, 2]))
    np.testing.assert_array_equal(labels, toy_output(images, np.array([1, 2]))[0])


def test_weights_that_the_card_does_not_hash_are_refused(student: Path) -> None:
    take_weights_out(student)
    with pytest.raises(StudentError, match=r"takes weights from weights\.bin, whose SHA-256 the card does not have"):
        load_card(student)
    declare_weights(student)
    (student / WEIGHTS).write_bytes(b"\1" * 4096)
    with pytest.raises(StudentError, match=r"weights\.bin is damaged"):
        load_card(student)
    (student / WEIGHTS).unlink()
    with pytest.raises(StudentError, match=r"needs a file.*weights\.bin"):
        load_card(student)


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin", "", "..\\weights.bin"])
def test_weights_outside_of_the_folder_are_refused(student: Path, location: str) -> None:
    take_weights_out(student, location)
    declare_weights(student)
    with pytest.raises(StudentError, match=r"no file of the student's folder"):
        load_card(student)


def test_weights_of_a_subgraph_in_another_file_are_refused(student: Path) -> None:
    network = toy_network(SIZE, 25)
    tensor = numpy_helper.from_array(np.arange(4, dtype=np.float32), "hidden")
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd", 0, 16)
    tensor.ClearField("raw_data")
    network.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=tensor))
    with pytest.raises(ValueError, match="subgraph"):
        external_tensors(network.SerializeToString())


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_engine_is_given_weights_of_another_file(student: Path, backend: str) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    take_weights_out(student)
    images = known_images(SIZE, np.array([1, 2]))
    engine = open_engine(student / NETWORK, backend)
    labels, _ = engine.run(images, np.array([1, 2]))
    engine.close()
    np.testing.assert_array_equal(labels, toy_output(images, np.array([1, 2]))[0])


@pytest.mark.parametrize("length", [0, 9])
def test_a_file_of_weights_that_is_too_short_is_an_error_that_names_the_network(student: Path, length: int) -> None:
    take_weights_out(student)
    (student / WEIGHTS).write_bytes(b"\0" * length)
    with pytest.raises(EngineError, match=r"cannot load .*student\.onnx.*Copy the student folder again"):
        open_engine(student / NETWORK, "onnxruntime")


def test_other_weights_make_another_network(student: Path) -> None:
    """What was built of a network is kept under its hash: TensorRT's plans."""
    take_weights_out(student)
    before = NetworkContent.read(student / NETWORK).sha256
    weights = bytearray((student / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (student / WEIGHTS).write_bytes(weights)
    assert NetworkContent.read(student / NETWORK).sha256 != before


TENSORS = st.lists(
    st.tuples(
        st.sampled_from([np.float16, np.float32, np.int64, np.uint8, np.bool_]),
        st.lists(st.integers(0, 5), max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@given(tensors=TENSORS)
def test_a_network_with_its_weights_put_back_is_the_one_that_it_was(
    tensors: list[tuple[type[np.generic], list[int], bool]],
) -> None:
    whole = toy_network(SIZE, 25)
    outside, weights = onnx.ModelProto(), b"x"
    generator = np.random.default_rng(3)
    for number, (dtype, shape, _) in enumerate(tensors):
        values = generator.integers(0, 2, shape).astype(dtype)
        whole.graph.initializer.append(numpy_helper.from_array(values, f"extra{number}"))
    outside.CopyFrom(whole)
    for tensor, (*_, is_outside) in zip(outside.graph.initializer[-len(tensors) :], tensors, strict=True):
        if is_outside:
            onnx.external_data_helper.set_external_data(tensor, WEIGHTS, len(weights), len(tensor.raw_data))
            weights += tensor.raw_data
            tensor.ClearField("raw_data")
    inside = with_values_inside(outside.SerializeToString(), {WEIGHTS: weights})
    assert onnx.load_from_string(inside) == whole


EDITS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4)


@settings(max_examples=50)
@given(edits=EDITS, cut=st.integers(0, 10_000))
def test_damaged_networks_raise_nothing_else_than_one_that_names_the_file(
    edits: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(toy_network(SIZE, 25).SerializeToString())
    for at, octet in edits:
        content[at % len(content)] = octet
    for damaged in (bytes(content), bytes(content[: cut % len(content)])):
        with contextlib.suppress(NetworkFileError):
            NetworkContent.of(Path("/nowhere/student.onnx"), damaged)


# --- the card --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ["std", "miou"])
def test_numbers_that_are_not_finite_are_refused(student: Path, number: str, place: str) -> None:
    def spoil(card: dict[str, Any]) -> None:
        card["inputs"][0]["std"][0] = 12345.0 if place == "std" else 1.0
        card["training"]["metrics"]["miou"] = [12345.0 if place == "miou" else 1.0]

    change_card(student, spoil)
    (student / CARD_NAME).write_text((student / CARD_NAME).read_text().replace("12345.0", number))
    with pytest.raises(StudentError, match=rf"{place}.* is -?(nan|inf), no finite number"):
        load_card(student)


def test_a_name_that_is_given_twice_is_refused(student: Path) -> None:
    text = (student / CARD_NAME).read_text().replace('"sha256"', '"file": "other.onnx", "sha256"')
    (student / CARD_NAME).write_text(text)
    with pytest.raises(StudentError, match="file given twice"):
        load_card(student)


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"name": 1}'])
def test_what_is_no_card_is_refused_in_words(student: Path, text: bytes) -> None:
    (student / CARD_NAME).write_bytes(text)
    with pytest.raises(StudentError, match=r"model\.json is not a valid model card"):
        load_card(student)


# --- the known answer ------------------------------------------------------------------------------------------------


def test_the_command_writes_answers_that_every_start_then_checks(student: Path) -> None:
    before = json.loads((student / CARD_NAME).read_bytes())
    assert CliRunner().invoke(app, ["known-answer", str(student)]).exit_code == 0
    after = json.loads((student / CARD_NAME).read_bytes())
    answers = after["networks"][0].pop("known_answers")
    before["networks"][0].pop("known_answers")
    assert after == before
    assert [answer["count"] for answer in answers] == [1, 2, 3, 4]
    Segmenter.open(student).close()


@pytest.mark.parametrize("count", [1, 3])
def test_an_engine_that_answers_otherwise_is_not_used(student: Path, count: int) -> None:
    wrong = KnownAnswer.of(np.full(SIZE, 24, np.uint8), count).model_dump()
    change_card(student, lambda card: card["networks"][0].update(known_answers=[wrong]))
    with pytest.raises(EngineError, match=rf"onnxruntime on cpu computes .* wrongly: with {count} images 0 %"):
        Segmenter.open(student)


def test_it_is_said_whether_the_answer_was_checked(student: Path) -> None:
    assert "anyseg known-answer" in Segmenter.open(student).engine_info.details["known answer"]
    assert "as exported" in Segmenter.open("pothole", threads=1).engine_info.details["known answer"]


def test_a_few_labels_may_differ() -> None:
    index = np.array([0])
    labels = toy_output(known_images(SIZE, index), index)[0]
    known = KnownAnswer.of(labels, 1)
    assert known.agreement(labels) == 1
    labels[: SIZE[0] // 8] += 1
    assert 0.85 <= known.agreement(labels) < 1
    labels[: SIZE[0] // 2] += 1
    assert known.agreement(labels) < 0.85


@pytest.mark.parametrize("labels", ["", "zz" * 256, "00" * 255])
def test_an_answer_that_is_no_answer_is_refused(student: Path, labels: str) -> None:
    change_card(student, lambda card: card["networks"][0].update(known_answers=[{"count": 1, "labels": labels}]))
    with pytest.raises(StudentError, match="hexadecimal"):
        load_card(student)


def test_every_file_of_a_student_is_read(student: Path) -> None:
    assert set(read_networks(student, load_card(student))) == {NETWORK}
