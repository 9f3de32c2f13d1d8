"""Trainings of seconds: a tiny data set in DELIVER's layout, and an encoder that learns and is written fast.

The data are coloured rectangles, seen in other colours by each modality.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.models.encoders import ENCODERS, EncoderSpec
from anyseg_core.models.mix_transformer import MixTransformer, MixTransformerSpec, load_encoder_weights
from anyseg_core.training.config import TrainConfig, parse_config

SIDE = 64
TOY_MIT = MixTransformerSpec(dims=(8, 16, 20, 32), depths=(1, 1, 1, 1))
"""All that MiT-B0 does, in half as many nodes and a fiftieth of its weights."""
FILES = (("img", "rgb"), ("depth", "depth"), ("event", "event"), ("lidar", "lidar"))


def shape_labels(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Raw label image [side, side]: background 7, rectangles 1 to 3."""
    rng = np.random.default_rng(seed)
    labels = np.full((side, side), 7, np.uint8)
    for value in (1, 2, 3):
        y, x = rng.integers(0, side - 16, 2)
        labels[y : y + 16, x : x + 16] = value
    return labels


def write_shapes(root: Path, train: int = 6, val: int = 2, side: int = SIDE) -> Path:
    """Write the data set; returns its root."""
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            _write_sample(root, split, index, shape_labels(1000 * (split == "val") + index, side))
    return root


def _write_sample(root: Path, split: str, index: int, labels: NDArray[np.uint8]) -> None:
    for number, (folder, suffix) in enumerate(FILES):
        palette = np.random.default_rng(number).integers(0, 256, (8, 3), np.uint8)
        write_png(root / folder / "sun" / split / "MAP_1_point0" / f"{index:06d}_{suffix}_front.png", palette[labels])
    stored = np.zeros((*labels.shape, 3), np.uint8)
    stored[..., 0] = labels
    write_png(root / "semantic" / "sun" / split / "MAP_1_point0" / f"{index:06d}_semantic_front.png", stored)


def write_png(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write an RGB image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1])


def toy_encoder() -> str:
    """The name of an encoder of `TOY_MIT`, for `model.backbone`, in this process alone."""
    name = "mit_toy"
    ENCODERS.setdefault(
        name, EncoderSpec("a toy MiT", TOY_MIT.dims, partial(MixTransformer, TOY_MIT), load_encoder_weights)
    )
    return name


def shapes_config(root: Path, **groups: dict[str, Any]) -> TrainConfig:
    """A run of seconds on the shapes; `groups` change settings, such as optim={"lr": 1e-4}."""
    tree: dict[str, Any] = {
        "name": "shapes",
        "data": {"root": str(root), "cache": str(root.parent / "cache"), "size": [SIDE, SIDE]},
        "model": {"backbone": toy_encoder(), "head_width": 16, "label_stride": 2},
        "optim": {"batch_size": 2, "lr": 1e-3},
        "budget": {"max_steps": 4},
        "record": {"validations": 0},
        "machine": {"accelerator": "cpu", "torch_threads": 1},
    }
    for group, values in groups.items():
        tree.setdefault(group, {}).update(values)
    return parse_config(tree, "test")
