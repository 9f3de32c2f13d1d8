"""A student with random weights, of any size: what a network costs does not depend on what it has learned.

`python -m anyseg_core.export.untrained HEIGHT WIDTH FOLDER` writes it; benchmarks call it in a process of its own,
because they run where torch may not be.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from anyseg_core.export.student import write_parts
from anyseg_core.models.anymodal import AnymodalSegmenter, Fusion
from anyseg_core.models.network_file import NETWORK_NAME, write_network
from anyseg_core.models.student_network import StudentNetwork

MODALITIES, CLASSES, HEAD_WIDTH, LABEL_STRIDE = 4, 25, 128, 2
"""As the bundled `vehicle_sim`."""


def write_untrained(
    folder: Path,
    size: tuple[int, int],
    backbone: str = "b0",
    fusion: Fusion = "mean",
    label_stride: int = LABEL_STRIDE,
) -> Path:
    """Write the network and its two parts, without a card: no robot can run it by mistake. Returns the whole's file.

    Raises ValueError for an unknown backbone.
    """
    torch.manual_seed(0)
    channels = [[0.5] * 3] * MODALITIES
    model = AnymodalSegmenter(channels, channels, CLASSES, backbone, HEAD_WIDTH, fusion=fusion).eval()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / NETWORK_NAME
    network = StudentNetwork(model, size, label_stride).eval()
    write_network(network, file, size)
    write_parts(network, file, size)
    return file


def main() -> None:
    """Entry point of `python -m`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("height", type=int)
    parser.add_argument("width", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="b0")
    options = parser.parse_args()
    write_untrained(options.folder, (options.height, options.width), options.backbone)


if __name__ == "__main__":
    main()
