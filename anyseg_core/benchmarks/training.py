"""How fast a student's step and an evaluation are, beside the plain form of each; what `anyseg bench` prints."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from anyseg_core.benchmarks.gradients import DistillationSetup, measure_shares, setup_of_runs, shares
from anyseg_core.data.augmentation import AugmentConfig
from anyseg_core.data.deliver import deliver_inputs
from anyseg_core.data.sample import Sample
from anyseg_core.methods import AnySeg, AnySegConfig, Batch
from anyseg_core.methods.supervised import step_subsets
from anyseg_core.methods.textbook import textbook_losses
from anyseg_core.models.anymodal import AnymodalSegmenter, select_present
from anyseg_core.models.base import all_subsets
from anyseg_core.runtime.label_sets import DELIVER
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.training.batches import Batches
from anyseg_core.training.checkpoint import find_checkpoint, load_anymodal
from anyseg_core.training.config import OptimConfig
from anyseg_core.training.evaluation import best_device, decide_labels, subset_logits
from anyseg_core.training.loop import make_optimizer
from anyseg_core.training.process import peak_memory_mb

MODALITIES = 4


@dataclass(frozen=True)
class Measurement:
    """Samples of one quantity, and whether its bar was met."""

    name: str
    unit: str
    samples: list[float]
    bar: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class StepSize:
    """What a step is measured on."""

    side: int = 256
    """Height and width of the images in pixels; labels at full resolution."""
    batch: int = 2
    head_width: int = 768
    backbone: str = "b0"
    steps: int = 8

    @property
    def words(self) -> str:
        return f"MiT-{self.backbone.upper()}, head {self.head_width}, batch {self.batch} of {self.side}x{self.side}"


# --- training -------------------------------------------------------------------------------------------------


def measure_training(size: StepSize) -> tuple[list[Measurement], list[str]]:
    """Step time, memory and waiting for data of AnySeg's student (released losses, subsets per batch), and notes.

    The plain step is `methods/textbook.py`: the same losses of the same weights, in the form of the release. Both run
    in turn, so that a busy machine slows both.
    """
    runners = {"fast": _Runner(size, plain=False), "plain": _Runner(size, plain=True)}
    times: dict[str, list[float]] = {"fast": [], "plain": []}
    worst = 0.0
    for step in range(size.steps + 1):
        losses = {}
        for name, runner in runners.items():
            started = time.perf_counter()
            losses[name] = runner.step(step)
            if step > 0:  # the first one allocates
                times[name].append(time.perf_counter() - started)
        if step == 0:  # later the two have drifted apart by rounding
            worst = max(abs(losses["fast"][k] - losses["plain"][k]) / abs(losses["plain"][k]) for k in losses["plain"])
    rates = {name: [size.batch / seconds for seconds in values] for name, values in times.items()}
    speedup = sum(times["plain"]) / sum(times["fast"])
    memory = {name: _in_own_process(_peak_memory_mb, size, name == "plain") for name in times}
    waited = _waiting_share(runners["fast"], size)
    found = [
        Measurement("student step", "s", times["fast"]),
        Measurement("plain step", "s", times["plain"]),
        Measurement("student step", "images/s", rates["fast"]),
        Measurement("plain step", "images/s", rates["plain"]),
        Measurement("speed-up over the same steps", "x", [speedup], ">= 2", speedup >= 2),
        Measurement("largest relative difference of a loss", "", [worst], "<= 0.001", worst <= 1e-3),
        Measurement("student step, peak memory", "MB", [memory["fast"]]),
        Measurement("plain step, peak memory", "MB", [memory["plain"]]),
        Measurement("time waiting for batches, one loader process", "%", [100 * waited], "<= 2", waited <= 0.02),
    ]
    return found, [f"{size.words}; {best_device()}, torch {torch.__version__}, {torch.get_num_threads()} threads"]


def measure_gradients(
    size: StepSize, student: Path | None = None, teacher: Path | None = None
) -> tuple[list[Measurement], list[str]]:
    """Each term's gradient on the encoder, and its share of all, per variant of AnySeg's losses; and a note.

    Of the networks and the data of two runs, or of random weights and images. Raises CheckpointError, DataError.
    """
    if student and teacher:
        setup = setup_of_runs(student, teacher, size.steps)
    else:
        networks = [_network(size, seed).to(best_device()) for seed in (0, 1)]
        words = f"random weights and images, the same batch with {size.steps} draws of sensors"
        setup = DistillationSetup(networks[0], networks[1], [_random_batch(size)] * size.steps, words)
    found = []
    for variant, per_batch in measure_shares(setup).items():
        for term in per_batch[0]:
            in_percent = [shares(norms)[term] for norms in per_batch]
            found.append(Measurement(f"gradient of {term} on the encoder, {variant}", "", [n[term] for n in per_batch]))
            found.append(Measurement(f"... its share of all terms, {variant}", "%", in_percent))
    return found, [f"gradients: {setup.words}; the published weights, one subset of the sensors a batch"]


class _Runner:
    """One form of the step, with its own network and optimiser."""

    def __init__(self, size: StepSize, plain: bool) -> None:
        self.plain = plain
        self.model, self.teacher = (_network(size, seed).to(best_device()) for seed in (0, 1))
        self.config = AnySegConfig(teacher=Path("teacher"), variant="released", subsets="per_batch")
        self.method = AnySeg(self.config, teacher=self.teacher)
        self.optimizer = make_optimizer(self.model, OptimConfig())
        self.batch = _random_batch(size)

    def step(self, seed: int, batch: Batch | None = None) -> dict[str, float]:
        """Losses, gradients and an update; the same seed gives both forms the same subset."""
        self.model.train()
        losses = self._losses(seed, batch or self.batch)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {name: float(value.detach()) for name, value in losses.items()}  # waits for a GPU

    def _losses(self, seed: int, batch: Batch) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        if not self.plain:
            return self.method.losses(self.model, batch)
        subset = step_subsets(batch, self.config)[0, 0].nonzero()[:, 0].tolist()
        return textbook_losses(self.model, self.teacher, batch, subset, self.config)


def _network(size: StepSize, seed: int) -> AnymodalSegmenter:
    """Without dropout, so that two forms of it give the same numbers."""
    torch.manual_seed(seed)
    return AnymodalSegmenter(
        [[0.4] * 3] * MODALITIES,
        [[0.2] * 3] * MODALITIES,
        len(DELIVER),
        size.backbone,
        size.head_width,
        drop_path=0.0,
        dropout=0.0,
    )


def _random_batch(size: StepSize) -> Batch:
    generator = torch.Generator().manual_seed(2)
    shape = (size.batch, MODALITIES, size.side, size.side, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, len(DELIVER), (size.batch, size.side, size.side), generator=generator)
    return Batch(images.to(best_device()), labels.to(best_device()))


def _peak_memory_mb(size: StepSize, plain: bool) -> float:
    """Of a process that does a step on each number of modalities; on a GPU, of its tensors."""
    runner = _Runner(size, plain)
    for seed in range(4):
        runner.step(seed)
    return peak_memory_mb()


def _in_own_process(work: Callable[..., float], *arguments: Any) -> float:
    """A process of its own, whose memory is not that of earlier work."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_single_threaded_like, (torch.get_num_threads(), work, *arguments))


def _single_threaded_like(threads: int, work: Callable[..., float], *arguments: Any) -> float:
    torch.set_num_threads(threads)
    return work(*arguments)


class _RandomSamples:
    """A data set in memory, whose batches cost what augmentation costs."""

    def __init__(self, side: int) -> None:
        random = np.random.default_rng(0)
        self._images: NDArray[np.uint8] = random.integers(0, 256, (8, MODALITIES, side, side, 3), np.uint8)
        self._labels: NDArray[np.uint8] = random.integers(0, len(DELIVER), (8, side, side), np.uint8)
        self.inputs, self.classes, self.size = deliver_inputs(Path()), DELIVER, (side, side)
        self.description = self.fingerprint = "random"

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self._images[index], self._labels[index], str(index))


def _waiting_share(runner: _Runner, size: StepSize) -> float:
    """Share of the training time in which the step waits for its batch, of augmented data."""
    batches = Batches(_RandomSamples(size.side), (size.side, size.side), size.batch, AugmentConfig())
    loader = DataLoader(batches, batch_size=None, sampler=range(size.steps + 1), num_workers=1)  # type: ignore[arg-type]
    waited = worked = 0.0
    started = time.perf_counter()
    for step, batch in enumerate(loader):
        received = time.perf_counter()
        runner.step(step, Batch(batch.images.to(best_device()), batch.labels.to(best_device())))
        if step > 0:  # the first one starts the loader's process
            waited += received - started
            worked += time.perf_counter() - received
        started = time.perf_counter()
    return waited / (waited + worked)


# --- evaluation -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def measure_evaluation(checkpoint: Path | None, samples: int, size: StepSize) -> tuple[list[Measurement], list[str]]:
    """Time per sample to score all subsets, encoding each modality once, and subset after subset; and notes.

    Raises CheckpointError. Without a checkpoint, a network of `size` with random weights.
    """
    if checkpoint:
        model, state = load_anymodal(find_checkpoint(checkpoint))
        (side, _), stride, name = state.config.data.size, state.config.model.label_stride, state.config.name
    else:
        model, side, stride, name = _network(size, 0).eval(), size.side, 1, "random weights"
    model.to(best_device())
    count = len(model.mean)
    random = np.random.default_rng(0)
    times: dict[str, list[float]] = {"shared": [], "separate": []}
    labelled = different = 0
    for number in range(samples + 1):
        images = torch.from_numpy(random.integers(0, 256, (count, side, side, 3), np.uint8)).to(best_device())
        labels = random.integers(0, model.head.classify.out_features, (side, side), np.uint8)
        predictions = {}
        for way, predict in (("shared", _shared), ("separate", _separate)):
            started = time.perf_counter()
            predictions[way] = predict(model, images, labels, (side, side), stride)
            if number > 0:
                times[way].append(time.perf_counter() - started)
        labelled += sum(labels.size for labels in predictions["shared"])
        pairs = zip(predictions["shared"], predictions["separate"], strict=True)
        different += sum(int((one != other).sum()) for one, other in pairs)
    speedup = sum(times["separate"]) / sum(times["shared"])
    equal = 100 * (1 - different / labelled)
    subsets = len(all_subsets(count))
    found = [
        Measurement(f"{subsets} subsets, each modality encoded once", "s", times["shared"]),
        Measurement(f"{subsets} subsets, one after another", "s", times["separate"]),
        Measurement("speed-up", "x", [speedup], ">= 3", speedup >= 3),
        Measurement("pixels with the same label", "%", [equal], ">= 99.99", equal >= 99.99),
    ]
    return found, [f"{name}, {side}x{side}, labels on every pixel of a grid of {stride}; {best_device()}"]


Labels = NDArray[np.uint8]


def _shared(
    model: AnymodalSegmenter, images: Tensor, labels: Labels, size: tuple[int, int], stride: int
) -> list[Labels]:
    return [_scored(logits, labels, size, stride) for _, logits in subset_logits(model, images)]


def _separate(
    model: AnymodalSegmenter, images: Tensor, labels: Labels, size: tuple[int, int], stride: int
) -> list[Labels]:
    predictions = []
    for subset in all_subsets(len(images)):
        present = torch.zeros(1, len(images), dtype=torch.bool)
        present[0, list(subset)] = True
        logits = model(select_present(images[None], present.to(images.device)))
        predictions.append(_scored(logits, labels, size, stride))
    return predictions


def _scored(logits: Tensor, labels: Labels, size: tuple[int, int], stride: int) -> Labels:
    """Decide and count, as evaluation does."""
    prediction = decide_labels(logits, size, stride)
    ConfusionMatrix(logits.shape[-1]).add(labels, prediction)
    return prediction
