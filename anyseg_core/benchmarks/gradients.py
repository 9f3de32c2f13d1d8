"""How much of the gradient each term of a distillation is, on the encoder, where all of them meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from anyseg_core.data.datasets import open_dataset
from anyseg_core.methods import AnySeg, AnySegConfig, Batch
from anyseg_core.methods.losses import Variant
from anyseg_core.models.anymodal import AnymodalSegmenter
from anyseg_core.training.batches import Batches
from anyseg_core.training.checkpoint import find_checkpoint, load_anymodal, load_teacher
from anyseg_core.training.evaluation import best_device

VARIANTS: tuple[Variant, ...] = get_args(Variant)


class DistillationSetup(NamedTuple):
    """A student, its teacher, and what they look at."""

    student: AnymodalSegmenter
    teacher: AnymodalSegmenter
    batches: Sequence[Batch]
    words: str


def gradient_norms(losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """The length of the gradient that each loss alone gives to these parameters; 0 where it does not reach them."""
    norms = {}
    for name, loss in losses.items():
        parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        squares = [part.double().square().sum() for part in parts if part is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


def shares(norms: Mapping[str, float]) -> dict[str, float]:
    """Each length in percent of the sum of all."""
    total = sum(norms.values())
    return {name: 100 * norm / total if total else 0.0 for name, norm in norms.items()}


def measure_shares(setup: DistillationSetup) -> dict[Variant, list[dict[str, float]]]:
    """Of AnySeg's student with the published weights: per variant and batch, each term's norm on the encoder.

    All variants see the same batches, one subset of the modalities each.
    """
    parameters = [parameter for encoder in setup.student.encoders for parameter in encoder.parameters()]
    setup.student.train()
    found: dict[Variant, list[dict[str, float]]] = {}
    for variant in VARIANTS:
        config = AnySegConfig(teacher=Path("teacher"), variant=variant, subsets="per_batch")
        method = AnySeg(config, teacher=setup.teacher)
        found[variant] = []
        for number, batch in enumerate(setup.batches):
            torch.manual_seed(number)
            found[variant].append(gradient_norms(method.losses(setup.student, batch), parameters))
    return found


def setup_of_runs(student: Path, teacher: Path, batches: int) -> DistillationSetup:
    """The newest networks of two runs, on training batches of the student's. Raises CheckpointError, DataError."""
    model, state = load_anymodal(find_checkpoint(student))
    taught_by, _ = load_teacher(teacher, state)
    config = state.config
    loader = Batches(
        open_dataset(config.data, config.data.train_split),
        config.data.size,
        config.optim.batch_size,
        config.augment,
        label_stride=config.model.label_stride,
        seed=config.seed,
    )
    device = best_device()
    seen = [Batch(batch.images.to(device), batch.labels.to(device)) for batch in (loader[n] for n in range(batches))]
    words = f"{config.name} taught by {teacher.name}, {batches} batches of {config.optim.batch_size}"
    return DistillationSetup(model.to(device), cast("AnymodalSegmenter", taught_by).to(device), seen, words)
