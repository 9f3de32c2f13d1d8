"""The commands of `anyseg` that need no ROS: simulate, train, evaluate, export. torch is loaded only when one is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

console = Console()
simulate = typer.Typer(no_args_is_help=True, help="The simulated vehicle: data set, bag, recorded drive, live sensors.")

Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")]
Workers = Annotated[int, typer.Option(min=0, help="Rendering processes; 0 = one per core.")]
Seed = Annotated[int, typer.Option(help="World and traffic; the same seed gives the same drive.")]
WeatherName = Annotated[str, typer.Option(help="sun, cloud, night, rain or fog.")]


def fail(message: object) -> typer.Exit:
    """Print an error that the user can act on; raise what is returned."""
    Console(stderr=True).print(f"[red]error:[/] {message}", highlight=False, soft_wrap=True)
    return typer.Exit(2)


def progress_bar() -> Progress:
    """The one look of every progress bar."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )


def train(
    config: Annotated[Path, typer.Argument(help="YAML file, such as config/train/vehicle_sim.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<name>.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint of the run, if any.")] = False,
    set_: Overrides = None,
) -> None:
    """Train a student; interrupted runs go on with --resume."""
    from anyseg_core.data.sample import DataError
    from anyseg_core.training.checkpoint import CheckpointError
    from anyseg_core.training.config import ConfigError, load_config
    from anyseg_core.training.loop import METRICS_NAME
    from anyseg_core.training.loop import train as run_training

    try:
        checkpoint = run_training(load_config(config, set_ or []), out, resume=resume)
    except (ConfigError, DataError, CheckpointError) as error:
        raise fail(error) from None
    console.print(f"checkpoint: {checkpoint}")
    print_metrics(json.loads((checkpoint.parents[1] / METRICS_NAME).read_text()))


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder or one of its checkpoints.")],
    split: Annotated[str | None, typer.Option(help="Split to score; default: the run's validation split.")] = None,
    data: Annotated[Path | None, typer.Option(help="Another data set of the same kind.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the scores here, too.")] = None,
) -> None:
    """Score a checkpoint on every subset of its modalities."""
    from anyseg_core.data.sample import DataError
    from anyseg_core.training.checkpoint import CheckpointError
    from anyseg_core.training.evaluation import evaluate as run_evaluation

    try:
        metrics = run_evaluation(checkpoint, split, data)
    except (DataError, CheckpointError) as error:
        raise fail(error) from None
    print_metrics(metrics)
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(metrics, indent=2) + "\n")


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder or one of its checkpoints.")],
    folder: Annotated[Path, typer.Argument(help="The student's folder; made where missing.")],
) -> None:
    """Write a student folder; refused unless onnxruntime agrees with torch on every subset."""
    from anyseg_core.export import ExportError
    from anyseg_core.export import export as run_export
    from anyseg_core.training.checkpoint import CheckpointError

    try:
        card = run_export(checkpoint, folder)
    except (CheckpointError, ExportError) as error:
        raise fail(error) from None
    console.print(f"student {card.name} written to {folder}")


def print_metrics(metrics: dict) -> None:
    """mIoU per subset as a table."""
    table = Table("modalities", "mIoU")
    for subset, value in metrics["miou"].items():
        table.add_row(subset, f"{100 * value:.2f}")
    table.add_section()
    table.add_row("mean", f"{100 * metrics['mean']:.2f}")
    console.print(table)


def add_commands(app: typer.Typer) -> None:
    """Register these commands with the `anyseg` application."""
    app.add_typer(simulate, name="simulate")
    for command in (train, evaluate, export):
        app.command()(command)
