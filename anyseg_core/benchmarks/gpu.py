"""The student's network in torch with CUDA graphs, beside the naive path and the floor: a stand-in for TensorRT.

    python -m anyseg_core.benchmarks.gpu [--sizes 256,512] [--runs 100]

`anyseg bench gpu` runs it in a process of its own, for the robot's side never loads torch. Weights are random: time
does not depend on them. Prints a JSON object with lists of seconds in the last line; exits with 2 without a GPU.

- graph: fp16, uint8 images up in one copy from pinned memory, the exported form replayed as one CUDA graph, uint8
  labels down. What the TensorRT engine does, with torch's kernels.
- naive: fp32, each modality copied by itself from pageable memory, the network as trained, logits at full size copied
  to the host, argmax there. What one writes first.
- floor: no engine can be faster than the operations at the measured rate of matrix products, or the bytes at the
  measured bandwidth, whichever takes longer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anyseg_core.models.anymodal import AnymodalSegmenter, upsample_logits
from anyseg_core.models.student_network import StudentNetwork

MODALITIES = 4
CLASSES = 25
SIZES = (256, 512, 1024)
WARM_UP_RUNS = 5
MATRIX_SIDE = 8192
COPY_BYTES = 1 << 28
NO_GPU = "no CUDA GPU that torch can use: " + (
    "torch was built without CUDA" if torch.version.cuda is None else "no driver, or no device"
)


@dataclass(frozen=True)
class Case:
    """One number of modalities at one size. Times are seconds, one for each run."""

    size: int
    modalities: int
    graph_s: list[float]
    naive_s: list[float]
    operations: int
    """Multiplications and additions of one run."""
    transferred_bytes: int
    """Weights once in fp16, images in, labels and confidence out: the least that has to be moved."""


@dataclass(frozen=True)
class Rates:
    """What the device reaches with nothing else to do."""

    operations_per_s: float
    """Of a product of two large fp16 matrices."""
    bytes_per_s: float
    """Read and written by a copy within the device's memory."""


def floor_s(case: Case, rates: Rates) -> float:
    """The least time of one run, by the roofline model (Williams, Waterman, Patterson, 2009)."""
    return max(case.operations / rates.operations_per_s, case.transferred_bytes / rates.bytes_per_s)


def make_network() -> AnymodalSegmenter:
    """MiT-B0 with random weights, as the bundled students have it."""
    torch.manual_seed(0)
    zeros, ones = [[0.0] * 3] * MODALITIES, [[1.0] * 3] * MODALITIES
    return AnymodalSegmenter(zeros, ones, CLASSES, head_width=256).eval()


def timed(run: Callable[[], object], runs: int, finish: Callable[[], object]) -> list[float]:
    """Seconds of each run, after some that are not counted."""
    seconds = []
    for i in range(WARM_UP_RUNS + runs):
        started = time.perf_counter()
        run()
        finish()
        if i >= WARM_UP_RUNS:
            seconds.append(time.perf_counter() - started)
    return seconds


class NaivePath:
    """fp32, separate copies, argmax on the host."""

    def __init__(self, model: AnymodalSegmenter, device: torch.device) -> None:
        self._model = model.to(device)
        self._device = device

    @torch.inference_mode()
    def run(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 [H, W, 3] of each modality -> labels int64 [H, W]."""
        height, width = images[0].shape[:2]
        features: list[list[Tensor]] = []
        for index, image in enumerate(images):
            batch = torch.from_numpy(image).to(self._device)[None]  # [1, H, W, 3]
            features.append(self._model.encode(batch, torch.tensor([index], device=self._device)))
        means = [torch.stack(stage).mean(dim=0) for stage in zip(*features, strict=True)]  # [1, h, w, C] each
        logits = upsample_logits(self._model.head(means), (height, width))[0]  # [K, H, W]
        return logits.float().cpu().numpy().argmax(axis=0)


class GraphPath:
    """fp16, pinned memory, one CUDA graph."""

    def __init__(self, model: AnymodalSegmenter, size: int, modalities: int) -> None:
        self._network = StudentNetwork(model, (size, size), label_stride=2).cuda()
        self.host_in = torch.zeros(modalities, size, size, 3, dtype=torch.uint8).pin_memory()
        self.host_out = torch.zeros(2, size, size, dtype=torch.uint8).pin_memory()
        self._images = self.host_in.cuda()
        self._modality = torch.arange(modalities).cuda()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # type: ignore[arg-type]
            for _ in range(WARM_UP_RUNS):
                self._forward()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = torch.stack(self._forward())

    @torch.inference_mode()
    def _forward(self) -> tuple[Tensor, Tensor]:
        with torch.autocast("cuda", torch.float16, cache_enabled=False):
            return self._network(self._images, self._modality)

    def run(self) -> None:
        """Put one run on the stream."""
        self._images.copy_(self.host_in, non_blocking=True)
        self._graph.replay()
        self.host_out.copy_(self._result, non_blocking=True)


def operations(model: AnymodalSegmenter, size: int, modalities: int) -> int:
    """Multiplications and additions of one run of the exported form, counted by torch."""
    network = StudentNetwork(model, (size, size), label_stride=2)
    device = next(model.parameters()).device
    images = torch.zeros(modalities, size, size, 3, dtype=torch.uint8, device=device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(images, torch.arange(modalities, device=device))
    return int(counter.get_total_flops())


def transferred_bytes(model: AnymodalSegmenter, size: int, modalities: int) -> int:
    """See `Case.transferred_bytes`."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    return 2 * weights + modalities * size * size * 3 + 2 * size * size


def measure_case(size: int, modalities: int, runs: int) -> Case:
    """On the GPU."""
    model = make_network()
    counted, moved = operations(model, size, modalities), transferred_bytes(model, size, modalities)
    naive = NaivePath(model, torch.device("cuda"))
    images = list(np.random.default_rng(0).integers(0, 256, (modalities, size, size, 3), np.uint8))
    naive_s = timed(lambda: naive.run(images), max(runs // 5, 5), torch.cuda.synchronize)
    graph = GraphPath(make_network().cuda(), size, modalities)
    graph_s = timed(graph.run, runs, torch.cuda.synchronize)
    return Case(size, modalities, graph_s, naive_s, counted, moved)


def measure_rates() -> Rates:
    """On the GPU."""
    a, b = (torch.randn(MATRIX_SIDE, MATRIX_SIDE, dtype=torch.float16, device="cuda") for _ in range(2))
    product_s = min(timed(lambda: a @ b, 10, torch.cuda.synchronize))
    block = torch.zeros(COPY_BYTES, dtype=torch.uint8, device="cuda")
    copy_s = min(timed(block.clone, 10, torch.cuda.synchronize))
    return Rates(2 * MATRIX_SIDE**3 / product_s, 2 * COPY_BYTES / copy_s)


def measure(sizes: Sequence[int], runs: int) -> dict[str, Any]:
    """Every case, and the floor of each."""
    rates = measure_rates()
    cases = [measure_case(size, modalities, runs) for size in sizes for modalities in range(1, MODALITIES + 1)]
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rates": asdict(rates),
        "cases": [{**asdict(case), "floor_s": floor_s(case, rates)} for case in cases],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m anyseg_core.benchmarks.gpu")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="sides of the square input, in pixels")
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    print(json.dumps(measure([int(size) for size in options.sizes.split(",")], options.runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
