"""A mixture of two toy data sets: pictures with coarse labels, and LiDAR scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anyseg_core.data.layouts import PictureLayout, ScanLayout

COARSE = PictureLayout(
    images="{split}/*.png",
    labels="labels/{split}/{stem}.png",
    classes=("drivable", "far", "sky"),
    meaning={"drivable": ("road", "sidewalk"), "far": ("building", "vegetation")},
)
TOY_SCANS = ScanLayout(scans="{split}/*.npz", classes=("", "road", "car"))


def write_pictures(root: Path, split: str, count: int = 2) -> None:
    """Pictures whose upper half is far and lower half drivable."""
    for folder in (root / split, root / "labels" / split):
        folder.mkdir(parents=True)
    labels = np.zeros((48, 64), np.uint8)
    labels[:24] = 1
    for number in range(count):
        cv2.imwrite(str(root / split / f"{number}.png"), np.full((48, 64, 3), 40 * number, np.uint8))
        cv2.imwrite(str(root / "labels" / split / f"{number}.png"), labels)


def write_scan(root: Path, split: str) -> None:
    """A road 1.7 m below the sensor all around, and a car 10 m ahead."""
    (root / split).mkdir(parents=True)
    angles, distances = np.meshgrid(np.linspace(-np.pi, np.pi, 256, endpoint=False), np.geomspace(4, 40, 40))
    xyz = np.stack([distances * np.cos(angles), distances * np.sin(angles), np.full(angles.shape, -1.7)], axis=-1)
    labels = np.ones(angles.shape, np.uint8)
    ahead = (np.abs(angles) < 0.2) & (distances > 9) & (distances < 12)
    xyz[ahead, 2], labels[ahead] = -0.8, 2
    intensity = np.full(angles.shape, 51, np.uint8)
    np.savez(root / split / "0.npz", xyz_cm=(100 * xyz).astype(np.int16), intensity=intensity, label=labels)


def write_mixture(root: Path) -> dict[str, Any]:
    """Both data sets below `root`, and the data settings of their mixture."""
    for split in ("train", "val"):
        write_pictures(root / "pictures", split)
        write_scan(root / "scans", split)
    return {
        "kind": "mixture",
        "root": str(root),
        "cache": str(root / "cache"),
        "size": [32, 64],
        "parts": [
            {"kind": "pictures", "root": "pictures", "layout": COARSE.model_dump(), "size": [64, 96], "weight": 3},
            {"kind": "scans", "root": "scans", "layout": TOY_SCANS.model_dump(), "size": [32, 64], "views": 3},
        ],
    }
