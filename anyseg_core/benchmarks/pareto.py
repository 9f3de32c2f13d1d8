"""What a student costs and sees, form by form: encoder, input size, label grid and precision, on the CPU's engines.

A form is exported and scored once, in a folder of its own, and found there again: a table can be made in several
sittings. Times are then measured in turns, one run of each form after another, so that what else the machine does meets
all of them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.table import Table

from anyseg_core.benchmarks.turns import in_turns
from anyseg_core.data.datasets import open_dataset
from anyseg_core.data.sample import Sample, evenly_spread
from anyseg_core.export.student import ExportOptions, Precision, export
from anyseg_core.export.untrained import MODALITIES, write_untrained
from anyseg_core.invocation import machine
from anyseg_core.models.base import all_subsets
from anyseg_core.models.network_file import NETWORK_NAME
from anyseg_core.runtime.engines.open_engine import open_engine
from anyseg_core.runtime.engines.protocol import Engine
from anyseg_core.runtime.metrics import ConfusionMatrix, mean_over_subsets
from anyseg_core.runtime.model_card import CARD_NAME
from anyseg_core.training.checkpoint import find_checkpoint, load_state

CPU_ENGINES = ("onnxruntime", "openvino")
PARETO_NAME, PLOT_NAME = "pareto.json", "pareto.png"
_SCORE_NAME = "score.json"


@dataclass(frozen=True)
class ParetoOptions:
    """The forms to measure, and how."""

    sizes: tuple[tuple[int, int], ...]
    """(height, width) of the input, multiples of 32."""
    label_strides: tuple[int, ...] = (1, 2)
    precisions: tuple[Precision, ...] = ("fp32",)
    samples: int = 40
    """Of the validation split, evenly spread, that mIoU is measured on."""
    runs: int = 15
    """Of each engine and number of live sensors."""
    threads: int = 2
    calibration_samples: int = 32
    """int8: of the training split."""


@dataclass(frozen=True)
class ParetoForm:
    """One network file, and what it sees."""

    network: str
    file: Path
    size: tuple[int, int]
    label_stride: int
    precision: Precision
    sensors: int
    miou: float | None
    """Percent, mean over all subsets; labels and frames at the form's own size. None: it has random weights."""


@dataclass(frozen=True)
class ParetoRow:
    """A form with its times."""

    form: ParetoForm
    engine_ms: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    """By engine: each run with one and with all sensors live."""

    def median_ms(self, engine: str) -> float:
        """With all sensors live."""
        return float(np.median(self.engine_ms[engine][1]))


def measure_forms(
    runs: Sequence[Path], encoders: Sequence[str], options: ParetoOptions, out: Path, tell: Callable[[str], None]
) -> list[ParetoRow]:
    """Export, score and time every form of every run, and time every encoder with random weights, which sees nothing.

    Raises CheckpointError, DataError, ExportError, EngineError; ValueError for an unknown encoder.
    """
    forms = []
    for run, size, stride, precision in itertools.product(
        runs, options.sizes, options.label_strides, options.precisions
    ):
        forms.append(_trained_form(run, size, stride, precision, options, out))
        tell(f"{forms[-1].file.parent.name}: {forms[-1].miou:.1f} %")
    for encoder, size, stride in itertools.product(encoders, options.sizes, options.label_strides):
        folder = out / f"{encoder}_untrained_{size[0]}x{size[1]}_stride{stride}"
        if not (folder / NETWORK_NAME).exists():
            write_untrained(folder, size, encoder, "gated", stride)
        name = f"{encoder}, untrained"
        forms.append(ParetoForm(name, folder / NETWORK_NAME, size, stride, "fp32", MODALITIES, None))
    return time_in_turns(forms, options)


def _trained_form(
    run: Path, size: tuple[int, int], stride: int, precision: Precision, options: ParetoOptions, out: Path
) -> ParetoForm:
    state = load_state(find_checkpoint(run))
    folder = out / f"{state.config.name}_{size[0]}x{size[1]}_stride{stride}_{precision}"
    if not (folder / CARD_NAME).exists():
        settings = ExportOptions(
            precision,
            size,
            stride,
            calibration_samples=options.calibration_samples,
            scoring_samples=1,  # what int8 loses is in the table
            max_loss=100.0,
        )
        export(run, folder, None, settings)
    file, scored = folder / NETWORK_NAME, folder / _SCORE_NAME
    known = json.loads(scored.read_text()) if scored.exists() else {}
    if known.get("samples") != options.samples:
        data = state.config.data.model_copy(update={"size": size, "cache": None})
        dataset = open_dataset(data, data.val_split)
        chosen = evenly_spread(len(dataset), options.samples)
        engine = open_engine(file, CPU_ENGINES[0], options.threads)
        miou = score(engine, [dataset[index] for index in chosen], len(state.classes))
        known = {"samples": options.samples, "miou": miou}
        engine.close()
        scored.write_text(json.dumps(known) + "\n")
    return ParetoForm(state.config.name, file, size, stride, precision, len(state.inputs), known["miou"])


def score(engine: Engine, samples: Sequence[Sample], classes: int) -> float:
    """Mean over the subsets of mIoU in percent, of samples that have every sensor."""
    matrices = {subset: ConfusionMatrix(classes) for subset in all_subsets(len(samples[0].images))}
    for sample in samples:
        for subset, matrix in matrices.items():
            labels, _ = engine.run(np.ascontiguousarray(sample.images[list(subset)]), np.array(subset, np.int64))
            matrix.add(sample.labels, labels)
    return 100 * mean_over_subsets([matrix.miou() for matrix in matrices.values()])


def time_in_turns(forms: Sequence[ParetoForm], options: ParetoOptions) -> list[ParetoRow]:
    """Every form on every engine that is here: one run of each, then the next of each. Raises EngineError."""
    names = [name for name in CPU_ENGINES if find_spec(name)]
    engines = {(form, name): open_engine(form.file, name, options.threads) for form in forms for name in names}
    random, work = np.random.default_rng(0), {}
    for (form, name), engine in engines.items():
        for live in (1, form.sensors):
            images = random.integers(0, 256, (live, *form.size, 3), np.uint8)
            work[form, name, live] = partial(engine.run, images, np.arange(live))
    times = in_turns(work, options.runs)
    for engine in engines.values():
        engine.close()
    return [
        ParetoRow(form, {name: (times[form, name, 1], times[form, name, form.sensors]) for name in names})
        for form in forms
    ]


def dominated(row: ParetoRow, rows: Sequence[ParetoRow], engine: str) -> bool:
    """Whether it sees nothing, or another form sees more and is faster with all sensors live."""
    mine, cost = row.form.miou, row.median_ms(engine)
    return mine is None or any(
        other.form.miou is not None and other.form.miou > mine and other.median_ms(engine) < cost for other in rows
    )


def table(rows: Sequence[ParetoRow]) -> Table:
    """The rows for a terminal; `*` marks what no other form beats in both, sight and time with all sensors live."""
    engines = list(rows[0].engine_ms)
    columns = [f"{engine}, ms: 1 live / all" for engine in engines]
    made = Table("network", "input", "labels every", "precision", "mIoU, %", *columns)
    for row in rows:
        form = row.form
        cells = [
            " / ".join(map(_spread, row.engine_ms[name])) + ("" if dominated(row, rows, name) else " *")
            for name in engines
        ]
        seen = "-" if form.miou is None else f"{form.miou:.1f}"
        size = f"{form.size[0]}x{form.size[1]}"
        made.add_row(form.network, size, str(form.label_stride), form.precision, seen, *cells)
    made.caption = "medians, in brackets 5 and 95 %; * no other form sees more in less time"
    return made


def _spread(times: Sequence[float]) -> str:
    low, middle, high = np.percentile(times, (5, 50, 95))
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


def plot(rows: Sequence[ParetoRow], path: Path) -> None:
    """mIoU over the median time with all sensors live, a panel an engine; a line joins what no other form beats."""
    from matplotlib.figure import Figure

    engines = list(rows[0].engine_ms)
    figure = Figure(figsize=(5.5 * len(engines), 4.0), layout="constrained")
    for axes, engine in zip(np.atleast_1d(figure.subplots(1, len(engines), sharey=True)), engines, strict=True):
        seen = [row for row in rows if row.form.miou is not None]
        for row in seen:
            form = row.form
            axes.plot(row.median_ms(engine), form.miou, "o", color="#2171b5")
            words = f"{form.size[0]}x{form.size[1]}, /{form.label_stride}, {form.precision}"
            axes.annotate(words, (row.median_ms(engine), form.miou), (4, 4), textcoords="offset points", fontsize=7)
        best = sorted((row.median_ms(engine), row.form.miou) for row in seen if not dominated(row, rows, engine))
        axes.plot([ms for ms, _ in best], [miou for _, miou in best], color="#d94801", linewidth=1)
        axes.set(xlabel=f"{engine}, all sensors, ms", ylabel="mIoU, mean of the subsets, %")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def as_json(rows: Sequence[ParetoRow], options: ParetoOptions, command: str) -> str:
    """The table as a file: machine, command, options, rows with every time."""
    content = {"machine": machine(), "command": command, "options": asdict(options)}
    content["rows"] = [asdict(row) | {"form": asdict(row.form) | {"file": row.form.file.parent.name}} for row in rows]
    return json.dumps(content, indent=2) + "\n"
