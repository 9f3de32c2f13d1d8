"""The commands of `anyseg` that need no ROS: simulate, train, evaluate, export. torch waits until one is called."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from anyseg_core.sim.recorded_drive import RecordedDrive

console = Console()
simulate = typer.Typer(no_args_is_help=True, help="The simulated vehicle: data set, bag, recorded drive, live sensors.")


class BagStorage(str, Enum):
    """How a ROS 2 bag keeps its messages."""

    MCAP = "mcap"
    SQLITE3 = "sqlite3"


Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")]
Workers = Annotated[int, typer.Option(min=0, help="Rendering processes; 0 = one per core.")]
Seed = Annotated[int, typer.Option(help="World and traffic; the same seed gives the same drive.")]
DurationS = Annotated[float, typer.Option(help="Seconds of driving.")]
RateHz = Annotated[float, typer.Option(help="Frames a second, of every sensor.")]
WeatherName = Annotated[str, typer.Option(help="sun, cloud, night, rain or fog.")]


def fail(message: object) -> typer.Exit:
    """Print an error that the user can act on; raise what is returned."""
    Console(stderr=True).print(f"[red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    return typer.Exit(2)


def progress_bar() -> Progress:
    """The one look of every progress bar."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )


@simulate.command("dataset")
def simulate_dataset(
    root: Annotated[Path, typer.Argument(help="Folder of the data set; made where missing.")],
    train_drives: Annotated[int, typer.Option(min=0, help="Drives, each in a world of its own.")] = 160,
    val_drives: Annotated[int, typer.Option(min=0)] = 20,
    test_drives: Annotated[int, typer.Option(min=0)] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Frames kept of a drive, 0.8 s apart.")] = 12,
    workers: Workers = 0,
) -> None:
    """Write a data set in DELIVER's layout, with all five weathers."""
    from anyseg_core.sim.deliver_writer import simulate_dataset as write
    from anyseg_core.sim.workers import available_cores

    with progress_bar() as progress:
        task = progress.add_task("drives", total=train_drives + val_drives + test_drives)
        try:
            count = write(
                root,
                train_drives,
                val_drives,
                frames,
                test_drives=test_drives,
                workers=workers or available_cores(),
                progress=lambda done, _total: progress.update(task, completed=done),
            )
        except (ValueError, OSError) as error:
            raise fail(error) from None
    console.print(f"{count} frames in {root}")


@simulate.command("drive")
def simulate_drive(
    file: Annotated[Path, typer.Argument(help="The recording, *.npz.")],
    seed: Seed = 0,
    weather: WeatherName = "sun",
    duration_s: DurationS = 20.0,
    rate_hz: RateHz = 10.0,
    workers: Workers = 0,
) -> None:
    """Render a drive to a file that `anyseg simulate live` plays in real time."""
    drive = record(seed, weather, duration_s, rate_hz, workers)
    try:
        drive.save(file)
    except OSError as error:
        raise fail(error) from None
    console.print(f"recording: {file}")


@simulate.command("bag")
def simulate_bag(
    folder: Annotated[Path, typer.Argument(help="The bag's folder; must not exist.")],
    seed: Seed = 0,
    weather: WeatherName = "sun",
    duration_s: DurationS = 20.0,
    rate_hz: RateHz = 10.0,
    storage: BagStorage = BagStorage.MCAP,
    workers: Workers = 0,
) -> None:
    """Render a drive to a ROS 2 bag, with ground truth; no ROS needed."""
    from anyseg_core.sim.bag_writer import write_bag

    if folder.exists():
        raise fail(f"{folder} exists already: choose another folder, or remove it")
    drive = record(seed, weather, duration_s, rate_hz, workers)
    try:
        count = write_bag(folder, drive, drive.rig(), storage=storage.value)
    except OSError as error:
        raise fail(error) from None
    console.print(f"{count} frames in {folder}")


def record(seed: int, weather: str, duration_s: float, rate_hz: float, workers: int) -> RecordedDrive:
    """Render a drive, with a progress bar."""
    from anyseg_core.sim.drive import DriveConfig
    from anyseg_core.sim.recorded_drive import record_drive
    from anyseg_core.sim.weather import Weather
    from anyseg_core.sim.workers import available_cores

    try:
        config = DriveConfig(seed, Weather.parse(weather), duration_s, rate_hz)
    except ValueError as error:
        raise fail(error) from None
    with progress_bar() as progress:
        task = progress.add_task("rendering", total=None)
        return record_drive(
            config, workers or available_cores(), lambda done, total: progress.update(task, completed=done, total=total)
        )


def train(
    config: Annotated[Path, typer.Argument(help="YAML file, such as config/train/vehicle_sim.yaml.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<name>.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint of the run, if any.")] = False,
    set_: Overrides = None,
) -> None:
    """Train a student; interrupted runs go on with --resume."""
    from anyseg_core.training.machine import wait_without_spinning

    wait_without_spinning()  # before torch is loaded
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
