"""The commands of `anyseg` that need no ROS, and what all commands share. torch waits until one is called."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from anyseg_core.completion import WEATHERS, complete_students, complete_weathers
from anyseg_core.invocation import command_line, machine
from anyseg_core.terminal import console, errors_reported, fail, progress_bar, verdict

if TYPE_CHECKING:
    from anyseg_core.benchmarks.street import StreetFigure
    from anyseg_core.benchmarks.training import Measurement
    from anyseg_core.data.check import SplitCheck
    from anyseg_core.data.datasets import DataConfig
    from anyseg_core.sim.recorded_drive import RecordedDrive


simulate = typer.Typer(no_args_is_help=True, help="The simulated vehicle: data set, bag, recorded drive, live sensors.")
data_commands = typer.Typer(no_args_is_help=True, help="Data sets: check one, make one of a bag.")


def writable_file(path: Path | None) -> Path | None:
    """Of an option: a file that can be written at the end; what cannot is told before the work, not after it."""
    if path is not None and path.is_dir():
        raise fail(f"{path} is a folder: name a file in it")
    return _in_a_writable_folder(path)


def writable_folder(path: Path | None) -> Path | None:
    """Of an option: a folder that can be written to, or made."""
    if path is not None and path.exists() and not path.is_dir():
        raise fail(f"{path} is a file: name a folder")
    return _in_a_writable_folder(path)


def _in_a_writable_folder(path: Path | None) -> Path | None:
    if path is not None:
        nearest = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
        if nearest != path.absolute() and not nearest.is_dir():
            raise fail(f"{path} cannot be written: {nearest} is a file")
        if not os.access(nearest, os.W_OK):
            raise fail(f"{path} cannot be written: {nearest} is read-only")
    return path


class BagStorage(str, Enum):
    """How a ROS 2 bag keeps its messages."""

    MCAP = "mcap"
    SQLITE3 = "sqlite3"


Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")]
Workers = Annotated[int, typer.Option(min=0, help="Rendering processes; 0 = one per core.")]
Seed = Annotated[int, typer.Option(help="World and traffic; the same seed gives the same drive.")]
DurationS = Annotated[float, typer.Option(help="Seconds of driving.")]
RateHz = Annotated[float, typer.Option(help="Frames a second, of every sensor.")]
Thermal = Annotated[bool, typer.Option(help="Also a thermal camera, a fifth sensor.")]
Student = Annotated[
    str, typer.Option(help="Name of a bundled student, or a student's folder.", autocompletion=complete_students)
]
WeatherName = Annotated[str, typer.Option(help=f"{', '.join(WEATHERS)}.", autocompletion=complete_weathers)]


@simulate.command("dataset")
def simulate_dataset(
    root: Annotated[Path, typer.Argument(help="Folder of the data set; made where missing.")],
    train_drives: Annotated[int, typer.Option(min=0, help="Drives, each in a world of its own.")] = 160,
    val_drives: Annotated[int, typer.Option(min=0, help="Drives by which the best network is chosen.")] = 20,
    test_drives: Annotated[int, typer.Option(min=0, help="Drives that no training looks at.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Frames kept of a drive.")] = 12,
    every_s: Annotated[float, typer.Option(min=0.1, help="Seconds between the frames that are kept.")] = 0.8,
    size: Annotated[tuple[int, int], typer.Option(min=1, help="Height and width of the images.")] = (256, 256),
    workers: Workers = 0,
) -> None:
    """Write a data set in DELIVER's layout, with all five weathers."""
    from anyseg_core.processes import WorkerError, available_cores
    from anyseg_core.sim.deliver_writer import simulate_dataset as write

    with errors_reported(ValueError, OSError, WorkerError), progress_bar("drives") as progress:
        count = write(
            root,
            train_drives,
            val_drives,
            frames,
            test_drives=test_drives,
            size=size,
            every_s=every_s,
            workers=workers or available_cores(),
            progress=progress,
        )
    console.print(f"{count} frames in {root}")


@simulate.command("drive")
def simulate_drive(
    file: Annotated[Path, typer.Argument(callback=writable_file, help="The recording, *.npz.")],
    seed: Seed = 0,
    weather: WeatherName = "sun",
    duration_s: DurationS = 20.0,
    rate_hz: RateHz = 10.0,
    workers: Workers = 0,
    thermal: Thermal = False,
) -> None:
    """Render a drive to a file that `anyseg simulate live` plays in real time."""
    drive = record(seed, weather, duration_s, rate_hz, workers, thermal)
    with errors_reported(OSError):
        drive.save(file)
    console.print(f"recording: {file}")


@simulate.command("bag")
def simulate_bag(  # noqa: PLR0913  # options of a command
    folder: Annotated[Path, typer.Argument(callback=writable_folder, help="The bag's folder; must not exist.")],
    *,
    seed: Seed = 0,
    weather: WeatherName = "sun",
    duration_s: DurationS = 20.0,
    rate_hz: RateHz = 10.0,
    storage: BagStorage = BagStorage.MCAP,
    workers: Workers = 0,
    thermal: Thermal = False,
    point_labels: Annotated[Path | None, typer.Option(help="Write labels of the LiDAR's points here, too.")] = None,
) -> None:
    """Render a drive to a ROS 2 bag, with ground truth; no ROS needed."""
    from anyseg_core.sim.bag_writer import write_bag

    if folder.exists():
        raise fail(f"{folder} exists already: choose another folder, or remove it")
    drive = record(seed, weather, duration_s, rate_hz, workers, thermal)
    with errors_reported(OSError):
        count = write_bag(folder, drive, drive.rig(), storage=storage.value, point_labels=point_labels)
    console.print(f"{count} frames in {folder}")


def record(
    seed: int, weather: str, duration_s: float, rate_hz: float, workers: int, thermal: bool = False
) -> RecordedDrive:
    """Render a drive, with a progress bar."""
    from anyseg_core.processes import WorkerError, available_cores
    from anyseg_core.sim.drive import DriveConfig
    from anyseg_core.sim.recorded_drive import record_drive
    from anyseg_core.sim.weather import Weather

    with errors_reported(ValueError):
        config = DriveConfig(seed, Weather.parse(weather), duration_s, rate_hz, thermal=thermal)
    with errors_reported(WorkerError), progress_bar("rendering") as progress:
        return record_drive(config, workers or available_cores(), progress)


def train(
    config: Annotated[Path, typer.Argument(help="YAML file, such as config/train/vehicle_sim.yaml.")],
    out: Annotated[
        Path | None, typer.Option(callback=writable_folder, help="Folder of the run; default runs/<name>.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint of the run, if any.")] = False,
    set_: Overrides = None,
) -> None:
    """Train a student; interrupted runs go on with --resume."""
    from anyseg_core.training.process import wait_without_spinning

    wait_without_spinning()  # before torch is loaded
    from anyseg_core.data.sample import DataError
    from anyseg_core.training.checkpoint import CheckpointError
    from anyseg_core.training.config import ConfigError, load_config
    from anyseg_core.training.loop import TrainingError
    from anyseg_core.training.loop import train as run_training
    from anyseg_core.training.run_log import read_metrics

    with errors_reported(ConfigError, DataError, CheckpointError, TrainingError, OSError):
        checkpoint = run_training(load_config(config, set_ or []), out, resume=resume)
    run = checkpoint.parents[1]
    console.print(f"checkpoint: {checkpoint}", soft_wrap=True)
    print_metrics(read_metrics(run))
    words = shlex.quote(str(run))
    print_next(
        f"anyseg evaluate {words} --out {shlex.quote(str(run / 'report'))}",
        f"anyseg export {words} students/{run.name}",
    )


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder or one of its checkpoints.")],
    split: Annotated[str | None, typer.Option(help="Split to score; default: the run's validation split.")] = None,
    data: Annotated[Path | None, typer.Option(help="Another data set of the same kind.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", callback=writable_file, help="Write the scores here, too.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(callback=writable_folder, help="Folder for metrics.json, report.md and report.html."),
    ] = None,
    robustness: Annotated[
        bool, typer.Option(help="Randomly missing and noisy modalities, too: several times the work.")
    ] = False,
    released_protocol: Annotated[
        bool, typer.Option(help="As the releases score, faults included: AnySeg's, and with --robustness UMMSS's.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many samples, evenly spread.")] = None,
) -> None:
    """Score a checkpoint on every subset of its modalities, per class, weather and failure case."""
    from anyseg_core.data.sample import DataError
    from anyseg_core.training.checkpoint import CheckpointError
    from anyseg_core.training.evaluation_report import EvaluationOptions, evaluate_fully, write_report

    options = EvaluationOptions(split, data, limit, robustness, released_protocol)
    with errors_reported(DataError, CheckpointError, OSError):
        evaluation = evaluate_fully(checkpoint, options)
    print_metrics(evaluation.metrics)
    if evaluation.metrics["expected_emm"]:  # not of a mixture, whose samples lack sensors anyway
        print_robustness(evaluation.metrics)
    with errors_reported(OSError):
        if json_file:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(evaluation.metrics, indent=2) + "\n")
        if out:
            console.print(f"report: {write_report(evaluation, out, command_line())}", soft_wrap=True)
    name = evaluation.state.config.name
    print_next(f"anyseg export {shlex.quote(str(checkpoint))} students/{name}")


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder or one of its checkpoints.")],
    folder: Annotated[Path, typer.Argument(callback=writable_folder, help="The student's folder; made where missing.")],
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8 (S8S8 QDQ).")] = "fp32",
    size: Annotated[tuple[int, int] | None, typer.Option(help="Height and width; default: as trained.")] = None,
    label_stride: Annotated[int | None, typer.Option(help="Grid of the labels: 1, 2 or 4.")] = None,
    fixed_counts: Annotated[bool, typer.Option(help="One network per number of live sensors.")] = False,
    max_loss: Annotated[float, typer.Option(help="int8: points of mIoU that a subset may lose.")] = 1.0,
    name: Annotated[str | None, typer.Option(help="Of the student; default: its configuration's.")] = None,
) -> None:
    """Write a student folder; refused unless it agrees with the trained network on every subset."""
    from anyseg_core.data.sample import DataError
    from anyseg_core.export.student import ExportError, ExportOptions
    from anyseg_core.export.student import export as run_export
    from anyseg_core.training.checkpoint import CheckpointError

    with (
        errors_reported(CheckpointError, DataError, ExportError, OSError, ValueError),
        progress_bar("export") as progress,
    ):
        options = ExportOptions(precision, size, label_stride, fixed_counts, max_loss=max_loss)  # type: ignore[arg-type]
        card = run_export(checkpoint, folder, name, options, progress)
    lost = card.training.metrics.get("int8_miou_points_lost")
    if lost:
        print_points(lost)
    console.print(f"student {card.name} written to {folder}", soft_wrap=True)
    student = shlex.quote(str(folder))
    print_next(f"anyseg replay BAG --student {student}", f"anyseg run --student {student}")


def known_answer(
    student: Annotated[
        str,
        typer.Argument(help="A bundled student's name, or a student's folder.", autocompletion=complete_students),
    ],
) -> None:
    """Write a student's known answers into its card, where it was exported without: they are checked at every start."""
    from anyseg_core.runtime.card_answers import write_known_answers
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError, find_student

    with errors_reported(StudentError, EngineError, OSError):
        folder = find_student(student)
        count = write_known_answers(folder)
    console.print(f"{count} known answers written into {folder / 'model.json'}")


def expect_agreement(
    student: Annotated[
        str,
        typer.Argument(help="A bundled student's name, or a student's folder.", autocompletion=complete_students),
    ],
    config: Annotated[Path, typer.Argument(help="YAML file that it was trained with.")],
    set_: Overrides = None,
) -> None:
    """Write into a student's card how far its sensors agree on the validation data, which a drive is held against."""
    from anyseg_core.data.card_agreement import write_expected_agreement
    from anyseg_core.data.datasets import open_dataset
    from anyseg_core.data.sample import DataError
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError, find_student
    from anyseg_core.training.config import ConfigError, load_config

    with (
        errors_reported(ConfigError, DataError, StudentError, EngineError, OSError),
        progress_bar("asking") as progress,
    ):
        folder, data = find_student(student), load_config(config, set_ or []).data
        count = write_expected_agreement(folder, open_dataset(data, data.val_split), progress)
    console.print(f"what {count} sets of sensors agree on is written into {folder / 'model.json'}")


def print_points(lost: dict[str, float]) -> None:
    """Points of mIoU that a smaller precision costs, per subset, as a table."""
    table = Table("modalities", "points of mIoU lost")
    for subset, points in lost.items():
        table.add_row(subset, f"{points:+.2f}")
    console.print(table)


@data_commands.command("import-labels")
def data_import_labels(
    source: Annotated[Path, typer.Argument(help="Folder of colour codes or Labelme files, CVAT's .xml, COCO's .json.")],
    out: Annotated[Path, typer.Argument(help="Folder of the PNGs of class indices.")],
    classes: Annotated[str, typer.Option(help="Names with commas, or a JSON file (dataset.json) of name and color.")],
    form: Annotated[str, typer.Option(help="colors, cvat, labelme or coco; default: by its looks.")] = "auto",
) -> None:
    """Bring labels that another tool has exported into the form that everything here reads."""
    from anyseg_core.data.import_labels import import_labels
    from anyseg_core.data.sample import DataError
    from anyseg_core.runtime.class_lists import parse_classes

    if form not in ("auto", "colors", "cvat", "labelme", "coco"):
        raise fail(f"form {form!r} is not known; known: auto, colors, cvat, labelme, coco")
    with errors_reported(DataError, OSError, ValueError):
        written = import_labels(source, out, parse_classes(classes), form)  # type: ignore[arg-type]
    console.print(f"{len(written)} label images in {out}", soft_wrap=True)


@data_commands.command("check")
def data_check(
    root: Annotated[
        Path, typer.Argument(help="A data set of a kind that is known, one's own folder, or a training's YAML file.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            help="Of data set, as data.kind in a training's file; an unknown one lists them. Default: by what is there."
        ),
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Repeatable; default: train and val.")] = None,
    sheet: Annotated[Path, typer.Option(help="Contact sheet to write, a file per split.")] = Path("out/data.png"),
    size: Annotated[tuple[int, int], typer.Option(help="Height and width of the network's images.")] = (256, 256),
    set_: Overrides = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", callback=writable_file, help="Write what was found to this file, too.")
    ] = None,
) -> None:
    """Read every file of a data set, count its classes, and draw a contact sheet; exits with 1 if a file is broken."""
    from anyseg_core.data.sample import DataError
    from anyseg_core.training.config import ConfigError, load_config, parse_data

    if sheet.suffix.lower() not in (".png", ".jpg"):
        raise fail(f"{sheet} cannot be written as a picture: its name must end in .png or .jpg")
    found: list[SplitCheck] = []
    with errors_reported(ConfigError, DataError, OSError):
        if root.suffix in (".yaml", ".yml"):
            settings = load_config(root, set_ or []).data
        else:
            settings = parse_data({"kind": kind or known_kind(root), "root": str(root), "size": list(size)}, set_ or [])
        for name in split or ["train", "val"]:
            found += check_data(settings, name, sheet.with_name(f"{sheet.stem}_{name}{sheet.suffix}"))
        if json_file:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    raise verdict(not any(one.broken for one in found))


def known_kind(root: Path) -> str:
    """The kind of data set by what lies there; ends the command where it is unknown."""
    from anyseg_core.data.datasets import DATASETS, kind_of

    if (kind := kind_of(root)) is None:
        raise fail(f"{root} is no data set that is known by its looks: give --kind: {', '.join(DATASETS)}")
    return kind


def check_data(settings: DataConfig, split: str, sheet: Path) -> list[SplitCheck]:
    """Check a split, of a mixture every part of it, and write the contact sheets; returns what was found."""
    from anyseg_core.data.check import check_split, contact_sheet, write_sheet
    from anyseg_core.data.datasets import has_split, named_parts, open_files, split_of_part

    if settings.kind != "mixture":
        found, usable = check_split(open_files(settings, split))
        print_check(found)
        write_sheet(sheet, contact_sheet(usable))
        console.print(f"contact sheet: {sheet}")
        return [found]
    checks: list[SplitCheck] = []
    for name, part in named_parts(settings, split):
        own = split_of_part(settings, part, split)
        if has_split(part, own):
            in_file = name.replace("/", "_")
            checks += check_data(part, own, sheet.with_name(f"{sheet.stem}_{in_file}{sheet.suffix}"))
        else:
            console.print(f"[bold]{escape(name)}[/] has no split {own}")
    return checks


def print_check(found: SplitCheck) -> None:
    """What was found in a split."""
    console.print(f"[bold]{escape(found.description)}[/]: {len(found.broken)} of {found.samples} samples are broken")
    for sample in found.broken:
        console.print(f"  [red]broken[/] {escape(sample.name)}: {escape(sample.error)}", soft_wrap=True)
    shares = sorted(found.class_share.items(), key=lambda entry: -entry[1])
    console.print("  classes: " + ", ".join(f"{name} {share:.2g} %" for name, share in shares if share))
    if found.never_seen:
        console.print(f"  [yellow]never seen[/]: {', '.join(found.never_seen)}")
    console.print(f"  unlabelled: {found.unlabelled:.1f} % of the pixels")
    console.print("  empty pixels: " + ", ".join(f"{name} {share:.0f} %" for name, share in found.empty.items()))
    for name in (name for name, share in found.empty.items() if share > 99.9):
        console.print(f"  [yellow]{name} shows nothing at all[/]")


@data_commands.command("kitti-bag")
def data_kitti_bag(
    drive: Annotated[Path, typer.Argument(help="A KITTI drive: folders image*, velodyne* and a calib*.txt.")],
    bag: Annotated[Path, typer.Argument(help="The bag's folder; must not exist.")],
    part: Annotated[tuple[float, float], typer.Option(help="From where to where, 0 to 1.")] = (0.0, 1.0),
    storage: BagStorage = BagStorage.MCAP,
) -> None:
    """Write a KITTI drive as a ROS 2 bag: camera, LiDAR and calibration; no ROS needed."""
    from anyseg_core.data.kitti_drive import KittiDrive
    from anyseg_core.data.sample import DataError
    from anyseg_core.sim.bag_writer import write_recording

    with errors_reported(DataError, OSError):
        recorded = KittiDrive(drive, *part)
        count = write_recording(bag, recorded.frames(), recorded.rig, storage=storage.value)
    console.print(f"{count} frames in {bag}")


def adapt(
    run: Annotated[Path, typer.Argument(help="The run of the student's training, or one of its checkpoints.")],
    out: Annotated[Path, typer.Argument(help="Folder for the labels and the new run; must not exist.")],
    unlabelled: Annotated[
        Path | None, typer.Option(help="Your frames without labels: what `anyseg data from-bag` wrote, train and val.")
    ] = None,
    labelled: Annotated[Path | None, typer.Option(help="Your frames with labels, train and val.")] = None,
    trusted: Annotated[
        list[str] | None, typer.Option(help="The sensors whose labels the others learn; repeatable. Default: camera.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Pixels with less of the trusted sensors' confidence are not learned.")
    ] = 0.8,
    minutes: Annotated[float, typer.Option(min=0.01, help="Of training.")] = 10.0,
    rehearse: Annotated[
        float, typer.Option(min=0, help="How often the student's own data is drawn per new sample; 0 without it.")
    ] = 1.0,
) -> None:
    """Fit a student to your vehicle, from frames without labels, with labels, or both; says before and after."""
    from anyseg_core.training.process import wait_without_spinning

    wait_without_spinning()
    from anyseg_core.data.sample import DataError
    from anyseg_core.runtime.sensors import Sensor
    from anyseg_core.training.adaptation import AdaptOptions
    from anyseg_core.training.adaptation import adapt as run_adaptation
    from anyseg_core.training.checkpoint import CheckpointError
    from anyseg_core.training.config import ConfigError
    from anyseg_core.training.loop import TrainingError

    if out.exists():
        raise fail(f"{out} exists already: choose another folder, or remove it")
    with errors_reported(CheckpointError, ConfigError, DataError, TrainingError, OSError, ValueError):
        sensors = tuple(Sensor(name) for name in trusted or ["camera"])
        options = AdaptOptions(unlabelled, labelled, sensors, min_confidence, minutes, rehearse)
        adapted = run_adaptation(run, out, options)
    if unlabelled:
        console.print(f"{100 * adapted.labelled_share:.0f} % of the unlabelled pixels got a label")
    print_before_and_after(adapted.before, adapted.after)
    console.print(f"checkpoint: {adapted.checkpoint}; next: anyseg export {adapted.checkpoint} my_student")


def print_before_and_after(before: dict, after: dict) -> None:
    """mIoU per part and subset; of an unlabelled part it is the agreement with the trusted sensors."""
    table = Table("data, sensors", "mIoU before, %", "after", "accuracy before, %", "after")
    for name in before["miou"]:
        scores = (metrics[figure][name] for figure in ("miou", "accuracy") for metrics in (before, after))
        table.add_row(name, *(f"{score:.1f}" for score in scores))
    console.print(table)


def import_weights(
    file: Annotated[
        Path, typer.Argument(help="A released network, an ImageNet MiT encoder (.pth, .safetensors), or a student.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the run to write; of an encoder, a .safetensors file.")],
    config: Annotated[Path | None, typer.Option(help="What a network was trained on; encoders need none.")] = None,
    set_: Overrides = None,
) -> None:
    """Take over published weights, or a student's: safely, and only if every one of them fits."""
    from anyseg_core.data.sample import DataError
    from anyseg_core.export.import_weights import import_weights as run_import
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.training.checkpoint import CheckpointError
    from anyseg_core.training.config import ConfigError, load_config

    with errors_reported(CheckpointError, ConfigError, DataError, StudentError, OSError):
        written = run_import(file, out, load_config(config, set_ or []) if config else None)
    console.print(f"written: {written}")


def measure_training(
    side: int, batch: int, head_width: int, backbone: str, steps: int, threads: int, runs: tuple[Path, Path] | None
) -> tuple[list[Measurement], list[str]]:
    """What `anyseg bench train` prints; `runs` are a student's and its teacher's. torch is loaded here."""
    from anyseg_core.training.process import tune_process, wait_without_spinning

    wait_without_spinning()
    from anyseg_core.benchmarks.training import StepSize, measure_gradients
    from anyseg_core.benchmarks.training import measure_training as run_measurement
    from anyseg_core.data.sample import DataError
    from anyseg_core.training.checkpoint import CheckpointError

    tune_process(threads)
    size = StepSize(side, batch, head_width, backbone, steps)
    with errors_reported(CheckpointError, DataError):
        gradients, words = measure_gradients(size, *(runs or ()))
    found, notes = run_measurement(size)
    return found + gradients, notes + words


def measure_evaluation(
    checkpoint: Path | None, samples: int, side: int, head_width: int, threads: int
) -> tuple[list[Measurement], list[str]]:
    """What `anyseg bench evaluate` prints; torch is loaded here."""
    from anyseg_core.training.process import tune_process, wait_without_spinning

    wait_without_spinning()
    from anyseg_core.benchmarks.training import StepSize
    from anyseg_core.benchmarks.training import measure_evaluation as run_measurement
    from anyseg_core.training.checkpoint import CheckpointError

    tune_process(threads)
    with errors_reported(CheckpointError):
        return run_measurement(checkpoint, samples, StepSize(side, head_width=head_width))


def measure_segformer(
    encoder: str, out: Path, side: int, runs: int, threads: int
) -> tuple[list[Measurement], list[str]]:
    """What `anyseg bench segformer` prints; torch is loaded here."""
    from anyseg_core.benchmarks.plain_segformer import measure_ratio
    from anyseg_core.runtime.engines.protocol import EngineError

    with errors_reported(EngineError, ValueError):
        return measure_ratio(encoder, out, side, runs, threads)


def measure_street(
    student: str, root: Path, threads: int, limit: int | None, write_card: bool
) -> tuple[list[StreetFigure], list[str]]:
    """What `anyseg bench street` prints."""
    from anyseg_core.benchmarks.street import measure_street as run_measurement
    from anyseg_core.data.sample import DataError
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError

    with errors_reported(DataError, EngineError, OSError, StudentError, ValueError):
        return run_measurement(student, root, threads, limit, write_card=write_card)


def nearest_width(height: int, aspect: float) -> int:
    """The multiple of 32 that is nearest to a height's width."""
    return max(32, round(height * aspect / 32) * 32)


def measure_forms(students: list[Path], encoders: list[str], out: Path, **settings: Any) -> None:
    """What `anyseg bench pareto` does, with the settings of its `ParetoOptions`; torch is loaded here."""
    from anyseg_core.benchmarks.pareto import PARETO_NAME, PLOT_NAME, ParetoOptions, as_json, measure_forms, plot, table
    from anyseg_core.data.sample import DataError
    from anyseg_core.export.student import ExportError
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.training.checkpoint import CheckpointError

    options = ParetoOptions(**settings)
    with errors_reported(CheckpointError, DataError, EngineError, ExportError, ValueError):
        rows = measure_forms(students, encoders, options, out, console.print)
    console.print(table(rows))
    console.print(f"machine: {machine()}\ncommand: {command_line()}")
    (out / PARETO_NAME).write_text(as_json(rows, options, command_line()))
    plot(rows, out / PLOT_NAME)
    console.print(f"written: {out / PARETO_NAME}, {out / PLOT_NAME}")


def compare_methods(
    plan_file: Path, out: Path, seeds: int, jobs: int, only: list[str], overrides: list[str], limit: int | None
) -> None:
    """What `anyseg bench methods` does; torch is loaded here."""
    from anyseg_core.training.process import wait_without_spinning

    wait_without_spinning()
    from anyseg_core.benchmarks.ablation import AblationError, run_plan
    from anyseg_core.benchmarks.claims import judge
    from anyseg_core.benchmarks.method_table import TABLE_NAME, differences, markdown, table
    from anyseg_core.benchmarks.plan import load_plan
    from anyseg_core.data.sample import DataError
    from anyseg_core.training.checkpoint import CheckpointError
    from anyseg_core.training.config import ConfigError
    from anyseg_core.training.loop import TrainingError

    with errors_reported(AblationError, CheckpointError, ConfigError, DataError, TrainingError, OSError):
        plan = load_plan(plan_file, overrides)
        chosen = list(range(1, seeds + 1))
        plan, runs, notes = run_plan(plan, chosen, out, only, jobs=jobs, report=console.print, limit=limit)
        rows = table(runs, costs=plan.costs)
    judged = [judge(claim, rows) for claim in plan.claims]
    compared = differences(rows, plan.reference) if plan.reference else {}
    content = {
        "command": command_line(),
        "rows": rows,
        "differences": {variant: {k: str(v) for k, v in row.items()} for variant, row in compared.items()},
        "claims": [entry._asdict() for entry in judged],
        "notes": [*notes, *plan.notes],
    }
    (out / TABLE_NAME).write_text(json.dumps(content, indent=2) + "\n")
    title = f"mIoU in percent on split {plan.split}, `{command_line()}`"
    text = markdown(rows, title, reference=plan.reference, verdicts=judged, notes=content["notes"])
    (out / "table.md").write_text(text)
    if plan.costs:
        print_costs(rows)
    else:
        print_methods(rows)
    for line in [*map(str, judged), *content["notes"]]:
        console.print(line, highlight=False, markup=False)
    console.print(f"every subset: {out / 'table.md'}")


def print_costs(rows: dict) -> None:
    """Every figure of every variant, with its interval."""
    from anyseg_core.benchmarks.method_table import cell

    names = [name for name in next(iter(rows.values())) if name not in ("seeds", "mean", "EMM")]
    table = Table("method", "seeds", *names)
    for variant, row in rows.items():
        table.add_row(variant, str(len(row["seeds"])), *(cell(row[name]) for name in names))
    console.print(table)


def print_methods(rows: dict) -> None:
    """The mean over the subsets, and the most telling of them, with intervals."""
    from anyseg_core.benchmarks.method_table import cell

    table = Table("method", "seeds", "mean over subsets", "all sensors", "worst single sensor", "EMM")
    for variant, row in rows.items():
        subsets = [name for name in row if name not in ("seeds", "mean", "EMM")]
        worst = min((name for name in subsets if "+" not in name), key=lambda name: row[name]["mean"])
        cells = [cell(row[name]) for name in ("mean", subsets[-1], worst, "EMM")]
        table.add_row(variant, str(len(row["seeds"])), *cells)
    console.print(table)


def print_next(*commands: str) -> None:
    """What one does next, each command on a line of its own to be copied."""
    console.print("next:")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)


def print_metrics(metrics: dict) -> None:
    """mIoU per subset as a table, and how far its confidence is off, where that was measured."""
    table = Table("modalities", "mIoU, %", *(["ECE, %"] if "ece" in metrics else []))
    for subset, value in metrics["miou"].items():
        table.add_row(subset, f"{value:.2f}", *([f"{metrics['ece'][subset]:.2f}"] if "ece" in metrics else []))
    table.add_section()
    table.add_row("mean", f"{metrics['mean']:.2f}")
    console.print(table)


def print_robustness(metrics: dict) -> None:
    """EMM, RMM and NM, and the mean per weather and failure case, as far as they were scored."""
    from anyseg_core.training.evaluation_report import robustness_rows

    table = Table("robustness, groups", "mIoU, %")
    for name, value in robustness_rows(metrics):
        table.add_row(name, f"{value:.2f}")
    table.add_section()
    for group, values in metrics["groups"].items():
        table.add_row(group, f"{values['mean']:.2f}")
    console.print(table)


def add_commands(app: typer.Typer) -> None:
    """Register these commands with the `anyseg` application."""
    app.add_typer(simulate, name="simulate")
    app.add_typer(data_commands, name="data")
    for command in (train, adapt, evaluate, export, known_answer, expect_agreement, import_weights):
        app.command()(command)
