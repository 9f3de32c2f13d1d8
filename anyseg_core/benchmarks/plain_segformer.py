"""A student's network beside SegFormer-B0 as published, both on onnxruntime: what the lighter network is worth in time.

Both have random weights, which cost the same as trained ones: SegFormer-B0 (arXiv 2105.15203) with its head of 256
channels, enlarged to the picture and its greatest class taken, for one picture; and the student's network at the same
size with one sensor live. Their runs take turns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyseg_core.benchmarks.training import Measurement
from anyseg_core.benchmarks.turns import in_turns
from anyseg_core.export.untrained import CLASSES, write_untrained
from anyseg_core.methods.textbook import decode, encode
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.models.network_file import NETWORK_NAME, write_onnx
from anyseg_core.runtime.engines.open_engine import open_engine

HEAD_WIDTH = 256
"""Of SegFormer-B0 as published."""
MOST = 0.25
"""The student's time / SegFormer's that is aimed at."""
SIDE = 512


class PlainSegformer(nn.Module):
    """SegFormer-B0 as its paper draws it, with the inputs and outputs of a student, for one picture.

    images uint8 [1, H, W, 3], modality int64 [1] -> labels uint8 [H, W], and the same again in place of a confidence,
    which it has not.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = [[0.5] * 3]
        self.model = AnymodalSegmenter(channels, channels, CLASSES, "b0", HEAD_WIDTH)

    def forward(self, images: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        logits = decode(self.model, encode(self.model, self.model.normalise(images, modality)))  # [1, K, H/4, W/4]
        size = (images.shape[1], images.shape[2])
        labels = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0].argmax(dim=0).to(torch.uint8)
        return labels, labels.clone()


def write_plain_segformer(file: Path, side: int) -> None:
    """Write it for pictures of side x side; the folder is made where missing."""
    torch.manual_seed(0)
    file.parent.mkdir(parents=True, exist_ok=True)
    inputs = {"images": torch.zeros(1, side, side, 3, dtype=torch.uint8), "modality": torch.zeros(1, dtype=torch.int64)}
    write_onnx(PlainSegformer().eval(), file, inputs, ["labels", "confidence"])


def measure_ratio(
    encoder: str, out: Path, side: int = SIDE, runs: int = 15, threads: int = 2
) -> tuple[list[Measurement], list[str]]:
    """Times of both, and their ratio turn by turn, with its bar; the networks are kept in `out`.

    Raises ValueError for an unknown encoder or a side that is no multiple of 32, EngineError.
    """
    if side <= 0 or side % 32:
        raise ValueError(f"the side must be a positive multiple of 32, not {side}")
    plain, student = out / f"plain_segformer_b0_{side}.onnx", out / f"{encoder}_gated_{side}" / NETWORK_NAME
    if not plain.exists():
        write_plain_segformer(plain, side)
    if not student.exists():
        write_untrained(student.parent, (side, side), encoder, "gated")
    engines = {"plain SegFormer-B0": plain, f"{encoder}, gated, one live": student}
    opened = {name: open_engine(file, "onnxruntime", threads) for name, file in engines.items()}
    images, index = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8), np.array([0])
    times = in_turns({name: lambda engine=engine: engine.run(images, index) for name, engine in opened.items()}, runs)
    of_plain, of_student = times.values()
    ratios = [mine / theirs for mine, theirs in zip(of_student, of_plain, strict=True)]
    bar = f"p50 <= {MOST:g}"
    found = [Measurement(f"{name}, {side}x{side}", "ms", taken) for name, taken in times.items()]
    found.append(Measurement("ratio, turn by turn", "", ratios, bar, float(np.median(ratios)) <= MOST))
    return found, [f"onnxruntime, {threads} threads, whole networks with random weights, one run of each in turns"]
