"""A network is scored on data of its own classes, in their order, with its own encodings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from shapes_dataset import SIDE, write_shapes  # noqa: E402

from anyseg_core.data.deliver import Deliver, deliver_inputs  # noqa: E402
from anyseg_core.runtime.model_card import ClassSpec, DepthEncoding  # noqa: E402
from anyseg_core.training.checkpoint import CheckpointError  # noqa: E402
from anyseg_core.training.config import parse_data  # noqa: E402
from anyseg_core.training.same_meaning import open_same  # noqa: E402


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "shapes")


def state(root: Path, **changes: Any) -> Any:
    """What a checkpoint knows of the data that its network was trained on."""
    classes = tuple(ClassSpec(name=entry.name, color=entry.color) for entry in Deliver.classes)
    return SimpleNamespace(**{"classes": classes, "inputs": deliver_inputs(root), **changes})


def test_other_sensors_and_another_order_of_them_are_refused(root: Path) -> None:
    data = parse_data({"kind": "deliver", "root": str(root), "size": [SIDE, SIDE], "cache": None}, [])
    inputs = state(root).inputs
    for learned in (inputs[::-1], inputs[:2], ()):
        with pytest.raises(CheckpointError, match="is of camera, depth, event, lidar; the network has learned"):
            open_same(state(root, inputs=learned), data, "train")


def test_classes_in_another_order_and_other_encodings_are_refused(root: Path) -> None:
    data = parse_data({"kind": "deliver", "root": str(root), "size": [SIDE, SIDE], "cache": None}, [])
    assert len(open_same(state(root), data, "train"))
    learned = state(root).classes
    with pytest.raises(CheckpointError, match="the same classes in another order"):
        open_same(state(root, classes=learned[::-1]), data, "train")
    with pytest.raises(CheckpointError, match="other classes"):
        open_same(state(root, classes=learned[:5]), data, "train")
    far = tuple(
        spec.model_copy(update={"encoding": DepthEncoding(far_m=25.0)}) if spec.modality == "depth" else spec
        for spec in deliver_inputs(root)
    )
    told = r"encodes depth with far_m (\S+), the network has learned far_m 25\.0: set the same in the data$"
    with pytest.raises(CheckpointError, match=told):
        open_same(state(root, inputs=far), data, "train")
