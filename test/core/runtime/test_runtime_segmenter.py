"""Segmenter: the right network gets the right images, and a bad student gets one clear error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from repository import REPOSITORY
from toy_student import toy_card, toy_network, toy_output, write_toy_student

from anyseg_core.runtime import model_card
from anyseg_core.runtime import segmenter as segmenter_module
from anyseg_core.runtime.engines.protocol import Encoded, EngineError, EngineInfo, Features
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.input_images import InputError, encode_frame
from anyseg_core.runtime.label_sets import DELIVER, POTHOLE
from anyseg_core.runtime.model_card import StudentError, find_student, load_card, sha256_of
from anyseg_core.runtime.segmenter import Segmentation, Segmenter, fuse
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame

SIZE = (64, 96)
RIG = Rig(PinholeCamera(width=160, height=120, fx=100.0, fy=100.0, cx=79.5, cy=59.5))
SUBSETS = [subset for count in range(1, 5) for subset in combinations(DEFAULT_SENSORS, count)]


def make_frames(seed: int = 0) -> dict[Sensor, SensorFrame]:
    rng = np.random.default_rng(seed)
    data: dict[Sensor, NDArray] = {
        Sensor.CAMERA: rng.integers(0, 256, (120, 160, 3), np.uint8),
        Sensor.DEPTH: rng.uniform(1, 60, (120, 160)).astype(np.float32),
        Sensor.EVENT: rng.integers(0, 5, (120, 160, 2), np.uint8),
        Sensor.LIDAR: rng.uniform([-5, -2, 2, 0], [5, 2, 40, 255], (500, 4)).astype(np.float32),
    }
    return {m: SensorFrame(m, data[m], stamp_ns=1) for m in DEFAULT_SENSORS}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_student(tmp_path_factory.mktemp("students") / "toy", SIZE)


def expected(segmenter: Segmenter, frames: dict[Sensor, SensorFrame]) -> tuple[NDArray, NDArray]:
    specs = [spec for spec in segmenter.card.inputs if spec.modality in frames]
    images = np.stack([encode_frame(frames[spec.modality], spec, SIZE, RIG) for spec in specs])
    index = np.array([segmenter.modalities.index(spec.modality) for spec in specs])
    return toy_output(images, index)


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_each_subset_is_segmented_from_exactly_its_modalities(student: Path, subset: tuple[Sensor, ...]) -> None:
    segmenter = Segmenter.open(student)
    frames = {m: frame for m, frame in reversed(make_frames().items()) if m in subset}
    result = segmenter.segment(frames, RIG)
    labels, confidence = expected(segmenter, frames)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_array_equal(result.confidence, confidence)
    assert result.modalities == subset
    assert result.encode_s > 0
    assert result.engine_s > 0


def test_the_index_of_a_modality_is_its_place_in_the_card(tmp_path: Path) -> None:
    segmenter = Segmenter.open(write_toy_student(tmp_path, SIZE, [Sensor.LIDAR, Sensor.CAMERA]))
    assert segmenter.modalities == (Sensor.LIDAR, Sensor.CAMERA)
    black = SensorFrame(Sensor.CAMERA, np.zeros((120, 160, 3), np.uint8), 1)
    assert (segmenter.segment({Sensor.CAMERA: black}).labels == 2).all()  # bit of index 1


def test_one_network_per_modality_runs_each_alone_and_fuses(tmp_path: Path) -> None:
    segmenter = Segmenter.open(write_toy_student(tmp_path, SIZE, one_network_each=True))
    frames = make_frames()
    alone = [expected(segmenter, {m: frames[m]}) for m in DEFAULT_SENSORS]
    labels, confidence = fuse(alone)
    result = segmenter.segment(frames, RIG)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_array_equal(result.confidence, confidence)
    assert result.modalities == DEFAULT_SENSORS
    one = segmenter.segment({Sensor.DEPTH: frames[Sensor.DEPTH]})
    np.testing.assert_array_equal(one.labels, alone[1][0])


def test_the_smallest_network_that_takes_all_frames_is_chosen(tmp_path: Path) -> None:
    camera, both = tmp_path / "camera.onnx", tmp_path / "both.onnx"
    onnx.save(toy_network(SIZE, 25), both)
    alone = toy_network(SIZE, 25)
    alone.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([20, 20, 20, 20]), "bits"))
    onnx.save(alone, camera)
    networks = [
        model_card.NetworkSpec(file=file.name, sha256=sha256_of(file), modalities=modalities)
        for file, modalities in ((both, (Sensor.CAMERA, Sensor.DEPTH)), (camera, (Sensor.CAMERA,)))
    ]
    toy_card("two", SIZE, [Sensor.CAMERA, Sensor.DEPTH], DELIVER, networks).write(tmp_path)
    segmenter = Segmenter.open(tmp_path)
    black = SensorFrame(Sensor.CAMERA, np.zeros((*SIZE, 3), np.uint8), 1)
    far = SensorFrame(Sensor.DEPTH, np.zeros(SIZE, np.float32), 1)
    assert (segmenter.segment({Sensor.CAMERA: black}).labels == 20).all()
    assert (segmenter.segment({Sensor.CAMERA: black, Sensor.DEPTH: far}).labels == 3).all()


class ToyParts:
    """An engine in parts: the features of an image are its modality's bit, the label is their sum."""

    info = EngineInfo("toy", "cpu", "fp32", "test")

    def __init__(self) -> None:
        self.encoded: list[int] = []
        self.broken = False

    def encode(self, image: np.ndarray, modality: int) -> Future[Encoded]:
        assert image.shape == (*SIZE, 3)
        future: Future[Encoded] = Future()
        self.encoded.append(modality)
        if self.broken:
            future.set_exception(EngineError("broken"))
        else:
            begun_s = 2000.0 * modality - 1e6  # long, and long ago
            future.set_result(Encoded(np.array([1 << modality], np.float32), begun_s, begun_s + 1000))
        return future

    def decode(self, features: Sequence[Features]) -> tuple[np.ndarray, np.ndarray]:
        return np.full(SIZE, int(sum(f[0] for f in features)), np.uint8), np.full(SIZE, 255, np.uint8)

    def run(self, images: np.ndarray, modality: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.decode(
            [self.encode(image, int(m)).result().features for image, m in zip(images, modality, strict=True)]
        )

    def close(self) -> None:
        pass


_label_images = npst.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 3))
_confidences = npst.arrays(np.uint8, (3, 4, 5))


@given(_label_images, _confidences)
def test_fused_labels_are_the_weightiest_and_disagreement_lowers_confidence(
    labels: NDArray[np.uint8], confidences: NDArray[np.uint8]
) -> None:
    fused, confidence = fuse(list(zip(labels, confidences, strict=True)))
    weight = np.stack([np.where(labels == c, confidences.astype(int), 0).sum(axis=0) for c in range(4)])  # [4, H, W]
    of_winner = np.take_along_axis(weight, fused[None].astype(int), axis=0)[0]
    np.testing.assert_array_equal(of_winner, weight.max(axis=0))
    np.testing.assert_array_equal(confidence, of_winner // 3)
    assert (fused[None] == labels).any(axis=0).all()


def test_fusion_of_certain_agreement_stays_certain() -> None:
    labels, certain = np.full((2, 2), 7, np.uint8), np.full((2, 2), 255, np.uint8)
    fused, confidence = fuse([(labels, certain)] * 4)
    assert (fused == 7).all()
    assert (confidence == 255).all()


@pytest.mark.parametrize("size", [(64, 96), (128, 192), (32, 48), (100, 141)])
def test_resizing_takes_the_nearest_network_pixel(size: tuple[int, int]) -> None:
    rows, cols = (axis.astype(np.uint8) for axis in np.indices(SIZE))
    resized_rows, resized_cols = Segmentation(rows, cols, (), 0.0, 0.0).resized(*size)
    assert resized_rows.shape == resized_cols.shape == size
    wanted = ((np.indices(size) + 0.5).T * np.divide(SIZE, size)).T  # centre of each pixel on the network's grid
    distance = np.abs(np.stack([resized_rows, resized_cols]) + 0.5 - wanted)
    assert distance.max() <= 0.5 + 1e-3


def test_bad_frames_are_named(student: Path, tmp_path: Path) -> None:
    segmenter, frames = Segmenter.open(student), make_frames()
    with pytest.raises(InputError, match="no frame"):
        segmenter.segment({})
    with pytest.raises(InputError, match="camera intrinsics"):
        segmenter.segment({Sensor.LIDAR: frames[Sensor.LIDAR]}, rig=None)
    empty = SensorFrame(Sensor.CAMERA, np.zeros((0, 10, 3), np.uint8), 1)
    with pytest.raises(InputError, match="camera frame is empty"):
        segmenter.segment({Sensor.CAMERA: empty})
    camera_only = Segmenter.open(write_toy_student(tmp_path, SIZE, [Sensor.CAMERA]))
    with pytest.raises(InputError, match="does not take depth"):
        camera_only.segment(frames, RIG)


def test_a_closed_segmenter_does_not_run(student: Path) -> None:
    segmenter = Segmenter.open(student)
    segmenter.close()
    with pytest.raises(EngineError, match="closed"):
        segmenter.segment(make_frames(), RIG)


def test_a_network_of_another_size_than_its_card_is_refused(tmp_path: Path) -> None:
    card = load_card(write_toy_student(tmp_path, SIZE))
    card.model_copy(update={"input_size": (128, 96)}).write(tmp_path)
    with pytest.raises(StudentError, match=r"student\.onnx does not run with 1 modalities of 128x96"):
        Segmenter.open(tmp_path)


def test_a_network_with_more_classes_than_its_card_is_refused(tmp_path: Path) -> None:
    card = load_card(write_toy_student(tmp_path, SIZE))
    card.model_copy(update={"classes": card.classes[: len(POTHOLE)]}).write(tmp_path)
    with pytest.raises(StudentError, match="the card has 2 classes"):
        Segmenter.open(tmp_path)


def test_a_damaged_network_is_refused(tmp_path: Path) -> None:
    write_toy_student(tmp_path, SIZE)
    with (tmp_path / "student.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(StudentError, match="SHA-256 differs"):
        Segmenter.open(tmp_path)


def test_a_network_of_a_later_onnx_is_refused_with_what_it_says(tmp_path: Path) -> None:
    card = load_card(write_toy_student(tmp_path, SIZE))
    network = onnx.load(tmp_path / "student.onnx")
    network.ir_version = 99
    onnx.save(network, tmp_path / "student.onnx")
    (spec,) = card.networks
    spec = spec.model_copy(update={"sha256": sha256_of(tmp_path / "student.onnx")})
    card.model_copy(update={"networks": (spec,)}).write(tmp_path)
    with pytest.raises(EngineError, match=r"student\.onnx.*IR version.*update onnxruntime"):
        Segmenter.open(tmp_path)


def test_a_missing_network_is_named(tmp_path: Path) -> None:
    (write_toy_student(tmp_path, SIZE) / "student.onnx").unlink()
    with pytest.raises(StudentError, match=r"student\.onnx is missing"):
        Segmenter.open(tmp_path)


def test_a_card_with_a_modality_that_no_network_takes_is_refused(tmp_path: Path) -> None:
    card = load_card(write_toy_student(tmp_path, SIZE))
    camera_only = card.networks[0].model_copy(update={"modalities": (Sensor.CAMERA,)})
    card.model_copy(update={"networks": (camera_only,)}).write(tmp_path)
    with pytest.raises(StudentError, match="no network takes depth, event, lidar"):
        load_card(tmp_path)


def _file_of(network: model_card.NetworkSpec) -> model_card.NetworkFile:
    return model_card.NetworkFile(file=network.file, sha256=network.sha256)


def test_parts_of_one_network_among_several_are_refused(tmp_path: Path) -> None:
    card = load_card(write_toy_student(tmp_path, SIZE, one_network_each=True))
    first = card.networks[0]
    parts = model_card.NetworkParts(encoder=_file_of(first), decoder=_file_of(first))
    mixed = (first.model_copy(update={"parts": parts}), *card.networks[1:])
    card.model_copy(update={"networks": mixed}).write(tmp_path)
    with pytest.raises(StudentError, match="the only one"):
        load_card(tmp_path)


def test_students_are_found_by_name_and_by_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model_card, "STUDENTS", tmp_path)
    write_toy_student(tmp_path / "vehicle_toy")
    (tmp_path / "not_a_student").mkdir()
    assert model_card.bundled_students() == ("vehicle_toy",)
    assert find_student("vehicle_toy") == tmp_path / "vehicle_toy"
    assert find_student(str(tmp_path / "vehicle_toy")) == tmp_path / "vehicle_toy"
    for absent in ("nobody", "", str(tmp_path / "not_a_student")):
        with pytest.raises(StudentError, match=r"vehicle_toy.*model\.student"):
            find_student(absent)


def test_the_runtime_needs_neither_torch_nor_ros() -> None:
    program = """
import importlib, pathlib, sys
for absent in ("torch", "lightning_fabric", "rclpy", "sensor_msgs"):
    sys.modules[absent] = None
names = [file.stem for file in pathlib.Path("anyseg_core/runtime").glob("*.py")]
for name in names:
    if name != "engine_tensorrt":
        importlib.import_module(f"anyseg_core.runtime.{name}")
print(len(names))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10


def test_what_was_encoded_ahead_is_used_and_changes_no_mask(student: Path) -> None:
    frames = make_frames()
    plain = Segmenter.open(student).segment(frames, RIG)
    segmenter = Segmenter.open(student)
    for frame in frames.values():
        segmenter.encode(frame, RIG)
    ahead = {modality: segmenter.network_image(frame, RIG) for modality, frame in frames.items()}
    result = segmenter.segment(frames, RIG)
    np.testing.assert_array_equal(result.labels, plain.labels)
    np.testing.assert_array_equal(result.confidence, plain.confidence)
    assert all(segmenter.network_image(frame, RIG) is ahead[modality] for modality, frame in frames.items())
    moved = Rig(RIG.camera, np.diag([1.0, 1.0, -1.0, 1.0]))
    assert segmenter.network_image(frames[Sensor.LIDAR], moved) is not ahead[Sensor.LIDAR]


# --- a network in two parts ------------------------------------------------------------------------------------------


@pytest.fixture
def in_parts(student: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Segmenter, ToyParts]:
    """A segmenter whose engine is in parts."""
    engine = ToyParts()
    monkeypatch.setattr(segmenter_module, "open_engine", lambda *_arguments: engine)
    return Segmenter.open(student), engine


def test_a_frame_is_encoded_once_for_all_the_sets_that_it_is_in(in_parts: tuple[Segmenter, ToyParts]) -> None:
    segmenter, engine = in_parts
    engine.encoded.clear()
    frames = make_frames()
    segmenter.encode(frames[Sensor.DEPTH], RIG)
    assert engine.encoded == [1]
    for subset in SUBSETS:
        chosen = {modality: frames[modality] for modality in subset}
        result = segmenter.segment(chosen, RIG)
        assert int(result.labels[0, 0]) == sum(1 << DEFAULT_SENSORS.index(modality) for modality in subset)
    assert sorted(engine.encoded) == [0, 1, 2, 3]
    segmenter.segment({Sensor.CAMERA: make_frames()[Sensor.CAMERA]})  # another frame, though of the same pixels
    assert sorted(engine.encoded) == [0, 0, 1, 2, 3]


def test_engine_time_counts_what_was_encoded_ahead_once(in_parts: tuple[Segmenter, ToyParts]) -> None:
    segmenter, _ = in_parts
    frames = make_frames()
    camera = {Sensor.CAMERA: frames[Sensor.CAMERA]}
    # A thousand seconds for each image, at other times; the rest is the decoder's.
    assert segmenter.segment(camera, RIG).engine_s // 1000 == 1
    assert segmenter.segment(camera, RIG).engine_s // 1000 == 0
    assert segmenter.segment(frames, RIG).engine_s // 1000 == 3


def test_the_time_of_a_mask_alone_has_all_its_encodings_whoever_came_first(
    in_parts: tuple[Segmenter, ToyParts],
) -> None:
    segmenter, _ = in_parts
    frames = make_frames()
    assert segmenter.segment(frames, RIG).alone_s // 1000 == 4
    for sensor in DEFAULT_SENSORS:
        shared = segmenter.segment({sensor: frames[sensor]}, RIG)
        assert (shared.engine_s // 1000, shared.alone_s // 1000) == (0, 1)
    assert segmenter.segment(frames, RIG).unknown_below(0.5).alone_s // 1000 == 4


def test_without_parts_a_mask_s_time_alone_is_its_engine_time(student: Path) -> None:
    result = Segmenter.open(student).segment(make_frames(), RIG)
    assert result.alone_s == result.engine_s > 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=6))
def test_busy_time_is_the_length_of_the_union(pairs: list[tuple[int, int]]) -> None:
    seconds = {second for begin, length in pairs for second in range(begin, begin + length)}
    assert segmenter_module._busy_s([(begin, begin + length) for begin, length in pairs]) == len(seconds)


def test_an_encoder_that_fails_is_an_engine_error_of_the_mask(in_parts: tuple[Segmenter, ToyParts]) -> None:
    segmenter, engine = in_parts
    frame = make_frames()[Sensor.CAMERA]
    engine.broken = True
    segmenter.encode(frame)  # ahead: nobody is told yet
    with pytest.raises(EngineError, match="broken"):
        segmenter.segment({Sensor.CAMERA: frame})
