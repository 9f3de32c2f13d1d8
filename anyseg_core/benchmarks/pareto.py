"""What a student costs and what it sees, form by form: input size and label grid, on every CPU engine that is here.

A form is exported once to its own folder and found there again, so that a table can be made in several sittings.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.table import Table

from anyseg_core.data.datasets import open_dataset
from anyseg_core.data.sample import Sample
from anyseg_core.export.student import ExportOptions, export
from anyseg_core.models.base import all_subsets
from anyseg_core.models.network_file import NETWORK_NAME
from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import Engine
from anyseg_core.runtime.metrics import ConfusionMatrix, mean_over_subsets
from anyseg_core.runtime.model_card import CARD_NAME
from anyseg_core.training.checkpoint import TrainingState, find_checkpoint, load_state

CPU_ENGINES = ("onnxruntime", "openvino")
PARETO_NAME = "pareto.json"


@dataclass(frozen=True)
class ParetoOptions:
    """The forms to measure, and how."""

    sizes: tuple[tuple[int, int], ...]
    """(height, width) of the input, multiples of 32."""
    label_strides: tuple[int, ...] = (1, 2)
    samples: int = 40
    """Of the validation split, evenly spread, that mIoU is measured on."""
    runs: int = 15
    """Of each engine and number of live sensors; the median counts."""
    threads: int = 2


@dataclass(frozen=True)
class ParetoRow:
    """One form of one network."""

    network: str
    size: tuple[int, int]
    label_stride: int
    miou: float
    """Percent, mean over all subsets; labels and frames at the form's own size."""
    engine_ms: dict[str, tuple[float, float]]
    """By engine: medians with one and with all sensors live."""


def measure_forms(
    runs: Sequence[Path], options: ParetoOptions, out: Path, tell: Callable[[str], None]
) -> list[ParetoRow]:
    """Export and measure every form of every run; returns a row each, in that order.

    Raises CheckpointError, DataError or ExportError.
    """
    rows = []
    for run, size, stride in itertools.product(runs, options.sizes, options.label_strides):
        state = load_state(find_checkpoint(run))
        folder = out / f"{state.config.name}_{size[0]}x{size[1]}_stride{stride}"
        if not (folder / CARD_NAME).exists():
            export(run, folder, None, ExportOptions(size=size, label_stride=stride))
        row = _measure(folder / NETWORK_NAME, state, size, stride, options)
        tell(f"{row.network} {size[0]}x{size[1]}, labels every {stride}: {row.miou:.1f} {row.engine_ms}")
        rows.append(row)
    return rows


def dominated(row: ParetoRow, rows: Sequence[ParetoRow], engine: str) -> bool:
    """Whether another form sees more and is faster with all sensors live."""
    cost = row.engine_ms[engine][1]
    return any(other.miou > row.miou and other.engine_ms[engine][1] < cost for other in rows)


def table(rows: Sequence[ParetoRow]) -> Table:
    """The rows for a terminal; `*` marks what no other form beats in both, sight and time with all sensors live."""
    engines = list(rows[0].engine_ms)
    columns = [f"{engine}, ms: 1 live / all" for engine in engines]
    made = Table("network", "input", "labels every", "mIoU, %", *columns)
    for row in rows:
        cells = []
        for engine in engines:
            one, everything = row.engine_ms[engine]
            cells.append(f"{one:.1f} / {everything:.1f}{'' if dominated(row, rows, engine) else ' *'}")
        made.add_row(row.network, f"{row.size[0]}x{row.size[1]}", str(row.label_stride), f"{row.miou:.1f}", *cells)
    return made


def as_json(rows: Sequence[ParetoRow], options: ParetoOptions, command: str) -> str:
    """The table as a file: command, options, rows."""
    content = {"command": command, "options": asdict(options), "rows": [asdict(row) for row in rows]}
    return json.dumps(content, indent=2) + "\n"


def _measure(
    network: Path, state: TrainingState, size: tuple[int, int], stride: int, options: ParetoOptions
) -> ParetoRow:
    data = state.config.data.model_copy(update={"size": size})
    dataset = open_dataset(data, data.val_split)
    chosen = np.linspace(0, len(dataset) - 1, min(options.samples, len(dataset))).round().astype(int)
    samples = [dataset[int(index)] for index in chosen]
    engine_ms = {}
    for name in (name for name in CPU_ENGINES if find_spec(name)):
        engine = open_engine(network, name, options.threads)
        one, everything = (_median_ms(engine, samples[0], live, options.runs) for live in (1, None))
        engine_ms[name] = one, everything
        engine.close()
    engine = open_engine(network, "onnxruntime", options.threads)
    miou = score(engine, samples, len(state.classes))
    engine.close()
    return ParetoRow(state.config.name, size, stride, miou, engine_ms)


def score(engine: Engine, samples: Sequence[Sample], classes: int) -> float:
    """Mean over the subsets of mIoU in percent, of samples that have every sensor."""
    matrices = {subset: ConfusionMatrix(classes) for subset in all_subsets(len(samples[0].images))}
    for sample in samples:
        for subset, matrix in matrices.items():
            labels, _ = engine.run(np.ascontiguousarray(sample.images[list(subset)]), np.array(subset, np.int64))
            matrix.add(sample.labels, labels)
    return 100 * mean_over_subsets([matrix.miou() for matrix in matrices.values()])


def _median_ms(engine: Engine, sample: Sample, live: int | None, runs: int) -> float:
    """Of one inference with so many sensors; None = all."""
    images = np.ascontiguousarray(sample.images[:live])
    index = np.arange(len(images), dtype=np.int64)
    times = []
    for _ in range(runs + 2):  # the first two prepare buffers
        began = time.perf_counter()
        engine.run(images, index)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[2:])
