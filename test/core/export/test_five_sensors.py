"""A student of five sensors: data with a sensor of another name, training, export, and every subset in the runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from living_sensors import live_frame
from shapes_dataset import toy_encoder

from anyseg_core.data.folder import Folder
from anyseg_core.data.sample import DataError
from anyseg_core.export.student import export
from anyseg_core.runtime.engines.protocol import BuildOptions
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.geometry.rigid_transform import rigid_transform
from anyseg_core.runtime.model_card import ENCODINGS, ClassSpec, InputSpec, load_card
from anyseg_core.runtime.sample_folder import FolderDescription, RigSpec, write_description, write_sample
from anyseg_core.runtime.segmenter import Segmenter, options_for
from anyseg_core.runtime.sensors import CAMERA, DEFAULT_SENSORS, Sensor, all_subsets
from anyseg_core.training.config import parse_config
from anyseg_core.training.loop import train

THERMAL = Sensor("thermal", CAMERA)
FIVE = (*DEFAULT_SENSORS, THERMAL)
SIDE = 64
RIG = Rig(PinholeCamera(SIDE, SIDE, 40.0, 40.0, 31.5, 31.5), rigid_transform((0.0, 0.0, 0.0), (0.5, -0.5, 0.5, 0.5)))


def write_five(root: Path) -> Path:
    """A data set of one's own, as bags become."""
    inputs = tuple(InputSpec(modality=m, encoding=ENCODINGS[m.kind][0]()) for m in FIVE)
    classes = tuple(ClassSpec(name=name, color=(0, 0, 0)) for name in ("road", "rest"))
    write_description(root, FolderDescription(classes=classes, inputs=inputs, rig=RigSpec.of(RIG)))
    for number in range(4):
        frames = [live_frame(sensor, 1000 + number, SIDE, SIDE) for sensor in FIVE]
        labels = np.tile(np.arange(SIDE) > 10 * number + 10, (SIDE, 1)).astype(np.uint8)
        write_sample(root / ("train" if number < 3 else "val") / "drive", f"{number:03d}", frames, labels)
    return root


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("five")
    data = {"kind": "folder", "root": str(write_five(folder / "data")), "cache": None, "size": [SIDE, SIDE]}
    tree = {
        "name": "five",
        "data": {**data, "sensors": {"thermal": "camera"}, "modalities": [*map(str, FIVE)]},
        "model": {"backbone": toy_encoder(), "head_width": 16, "label_stride": 2},
        "optim": {"batch_size": 2, "lr": 1e-3},
        "budget": {"max_steps": 2},
        "machine": {"accelerator": "cpu", "torch_threads": 1},
    }
    checkpoint = train(parse_config(tree, "test"), folder / "run", show_progress=False)
    export(checkpoint, folder / "student")
    return folder / "student"


def test_the_data_set_keeps_a_picture_of_it(tmp_path: Path) -> None:
    root = write_five(tmp_path)
    assert (root / "train" / "drive" / "000_thermal.png").is_file()
    dataset = Folder(root, "train", (SIDE, SIDE), FIVE)
    assert [spec.modality for spec in dataset.inputs] == list(FIVE)
    np.testing.assert_array_equal(dataset[0].images[4], live_frame(THERMAL, 1000, SIDE, SIDE).data)


def test_a_sensor_is_not_left_out_without_a_word(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.sensors \({thermal: camera}\)"):
        Folder(write_five(tmp_path), "train", (SIDE, SIDE))
    assert len(Folder(tmp_path, "train", (SIDE, SIDE), (Sensor.CAMERA, THERMAL)).inputs) == 2


def test_the_exported_student_answers_to_all_31_subsets(student: Path) -> None:
    card = load_card(student)
    assert card.modalities == FIVE
    assert [spec.kind for spec in card.inputs] == ["camera", "depth", "event", "lidar", "camera"]
    segmenter = Segmenter.open(student, threads=1)
    subsets = all_subsets(FIVE)
    assert len(subsets) == 31
    for subset in subsets:
        frames = {sensor: live_frame(sensor, 7, SIDE, SIDE) for sensor in subset}
        assert segmenter.segment(frames, RIG).modalities == subset


def test_engines_are_built_for_up_to_five(student: Path) -> None:
    options = options_for(load_card(student).networks[0], BuildOptions())
    assert options.counts == (1, 2, 3, 4, 5)
