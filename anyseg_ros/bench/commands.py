"""The commands `anyseg bench ...`. What a benchmark needs is loaded when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyseg_core import cli as core
from anyseg_core.completion import complete_students, complete_weathers
from anyseg_ros.process.setup import set_up_process
from anyseg_ros.shipped_config import shipped_config

bench = typer.Typer(
    no_args_is_help=True, help="Measure on this machine; a table also goes to a file, by --json or in --out."
)

JsonFile = Annotated[
    Path | None, typer.Option("--json", callback=core.writable_file, help="Write the figures here, too.")
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads of torch; 0 = its choice.")]


@bench.command("robot")
def bench_robot(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    baseline: Annotated[
        str, typer.Option(help="A student trained without anymodal dropout.")
    ] = "vehicle_sim_zero_fill",
    minutes: Annotated[float, typer.Option(help="Of the run that watches memory.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Folder for the rendered drives and the logs.")] = Path("out/bench"),
    part: Annotated[
        list[str] | None,
        typer.Option(help="engine, accuracy, latency, points, drops, memory; repeatable."),
    ] = None,
) -> None:
    """Latency, reaction to a lost sensor, accuracy on every subset, memory: the targets on a robot."""
    set_up_process()
    from anyseg_core.processes import WorkerError
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.bench.robot import PARTS
    from anyseg_ros.bench.robot import run as run_bench
    from anyseg_ros.live_run.run import LiveRunError

    with core.errors_reported(EngineError, LiveRunError, RecordingError, StudentError, ValueError, WorkerError):
        met = run_bench(core.console, json_file, student, baseline, minutes, out, part or PARTS)
    raise core.verdict(met)


@bench.command("points")
def bench_points(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    drives: Annotated[int, typer.Option(min=1, help="Simulated drives, each with a world of its own.")] = 10,
    frames: Annotated[int, typer.Option(min=1, help="Of each drive, 2.4 s apart.")] = 3,
    workers: core.Workers = 0,
) -> None:
    """Labelled points: time, the right pixel, no label of what stands before them, and IoU beside the mask's."""
    set_up_process()
    from anyseg_core.processes import WorkerError, available_cores
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_ros.bench.points import run as run_bench

    with core.errors_reported(EngineError, StudentError, WorkerError):
        met = run_bench(core.console, json_file, student, drives, frames, workers or available_cores())
    raise core.verdict(met)


@bench.command("checks")
def bench_checks(
    json_file: JsonFile = None,
    out: Annotated[Path, typer.Option(help="Folder for the rendered drives.")] = Path("out/bench"),
    workers: core.Workers = 0,
) -> None:
    """What the checks and the quality of all sensors cost, and how far clean frames stay from their limits."""
    from anyseg_core.processes import WorkerError, available_cores
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.bench.checks import run as run_bench

    with core.errors_reported(RecordingError, WorkerError):
        met = run_bench(core.console, json_file, out, workers or available_cores())
    raise core.verdict(met)


@bench.command("quality")
def bench_quality(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    out: Annotated[Path, typer.Option(help="Folder for the rendered drives.")] = Path("out/bench"),
    workers: core.Workers = 0,
) -> None:
    """Whether masks at night and in fog get better without the camera: mIoU by weather, subset and limit."""
    from anyseg_core.processes import WorkerError, available_cores
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.bench.quality import run as run_bench

    with core.errors_reported(EngineError, RecordingError, StudentError, WorkerError):
        run_bench(core.console, json_file, student, out, workers or available_cores())


@bench.command("faults")
def bench_faults(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    hours: Annotated[float, typer.Option(help="Of clean drives, in simulated time.")] = 1.0,
    repeats: Annotated[int, typer.Option(min=1, help="Of each fault of each sensor in each weather.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for the rendered drives.")] = Path("out/bench"),
    part: Annotated[
        list[str] | None, typer.Option(help="detection, false_alarms, flapping, miou; repeatable. Default: all.")
    ] = None,
    workers: core.Workers = 0,
) -> None:
    """Every fault of every sensor in every weather: found how fast, called what, at what cost; and false alarms."""
    from anyseg_core.processes import WorkerError
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.bench.faults import PARTS
    from anyseg_ros.bench.faults import run as run_bench

    options = {"hours": hours, "repeats": repeats, "parts": part or PARTS, "workers": workers}
    with core.errors_reported(EngineError, OSError, RecordingError, StudentError, ValueError, WorkerError):
        met = run_bench(core.console, json_file, out=out, student=student, **options)
    raise core.verdict(met)


@bench.command("hazards")
def bench_hazards(
    json_file: JsonFile = None,
    weather: Annotated[
        list[str] | None,
        typer.Option(help="Of the drives; repeatable. Default: all five.", autocompletion=complete_weathers),
    ] = None,
    sensors: Annotated[list[int] | None, typer.Option(help="How many are alive: 4, 3, 2; repeatable.")] = None,
    clean_hours: Annotated[
        float,
        typer.Option(
            min=0.0, help="Of clean drives, each minute another one; each is played with every set of sensors."
        ),
    ] = 0.0,
    bag: Annotated[
        list[Path] | None, typer.Option(help="A recorded drive, broken in the same ways; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Trials that are played now; go on later.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the rendered drives and the outcomes.")] = Path("out/bench"),
    workers: core.Workers = 0,
) -> None:
    """Sensors that are alive and wrong: found how soon, who is blamed, and alarms when all is well.

    May be ended at any time: the same command goes on.
    """
    from anyseg_core.processes import WorkerError, available_cores
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.bags.storage import BagError
    from anyseg_ros.bags.topics import TopicError
    from anyseg_ros.bench.hazards import Plan
    from anyseg_ros.bench.hazards import run as run_bench

    errors = (BagError, EngineError, OSError, RecordingError, StudentError, TopicError, ValueError, WorkerError)
    with core.errors_reported(*errors):
        plan = Plan(weather or (), sensors or (4, 3, 2), clean_hours, bag or ())
        met = run_bench(core.console, json_file, plan, out=out, limit=limit, workers=workers or available_cores())
    raise core.verdict(met)


@bench.command("examination")
def bench_examination(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    out: Annotated[Path, typer.Option(help="Folder for the rendered drive.")] = Path("out/bench"),
    workers: core.Workers = 0,
) -> None:
    """What it costs to compare the sensors with each other: processor time of a frame, and beside the engine's."""
    set_up_process()
    from anyseg_core.processes import WorkerError, available_cores
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.bench.examination import run as run_bench

    with core.errors_reported(EngineError, OSError, RecordingError, StudentError, WorkerError):
        met = run_bench(core.console, json_file, student, out, workers or available_cores())
    raise core.verdict(met)


@bench.command("robustness")
def bench_robustness(
    json_file: JsonFile = None,
    student: Annotated[
        list[str] | None,
        typer.Option(
            help="Bundled name or folder; repeatable. Default: vehicle_sim.", autocompletion=complete_students
        ),
    ] = None,
    drives: Annotated[int, typer.Option(min=1, help="Of five frames, each in a world of its own.")] = 10,
    out: Annotated[Path, typer.Option(help="Folder for the rendered drives.")] = Path("out/bench"),
) -> None:
    """What blur, noise, dead rows, extrinsics that are off and late points cost a student in mIoU, fault by fault."""
    from anyseg_core.processes import WorkerError
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.bench.robustness import run as run_bench

    with core.errors_reported(EngineError, RecordingError, StudentError, WorkerError):
        run_bench(core.console, json_file, student or ["vehicle_sim"], out, drives)


@bench.command("soak")
def bench_soak(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    minutes: Annotated[float, typer.Option(help="How long to drive.")] = 30.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the random faults.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the drive, the faults and the logs.")] = Path("out/bench"),
) -> None:
    """Drive live with random faults on every sensor: alive, no leak, every fault logged once, every promise kept."""
    set_up_process()
    from anyseg_core.processes import WorkerError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.bench.soak import run as run_bench
    from anyseg_ros.live_run.run import LiveRunError

    with core.errors_reported(LiveRunError, OSError, RecordingError, StudentError, ValueError, WorkerError):
        met = run_bench(core.console, json_file, out=out, student=student, minutes=minutes, seed=seed)
    raise core.verdict(met)


@bench.command("survive")
def bench_survive(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    minutes: Annotated[float, typer.Option(min=0, help="Of driving with random faults and storms; 0 = none.")] = 0.0,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="Only this attack, by its name in the table; repeatable; none = the soak alone."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the drive, the faults and the logs.")] = Path("out/bench"),
) -> None:
    """Attack a live node: messages, requests, signals, students. Masks lost, time to recover, memory, exit code."""
    set_up_process()
    from anyseg_core.processes import WorkerError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.bench.survive import run as run_bench
    from anyseg_ros.live_run.run import LiveRunError

    with core.errors_reported(LiveRunError, OSError, RecordingError, StudentError, ValueError, WorkerError):
        met = run_bench(core.console, json_file, out=out, student=student, minutes=minutes, only=attack or ())
    raise core.verdict(met)


@bench.command("gpu")
def bench_gpu(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    sizes: Annotated[str, typer.Option(help="Sides of the square input for torch, in pixels.")] = "256,512,1024",
    runs: Annotated[int, typer.Option(min=5, help="Of each case.")] = 100,
) -> None:
    """The student on the GPU, by TensorRT and by torch as its stand-in, against the naive path and the floor."""
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_ros.bench.gpu import NoGpuError
    from anyseg_ros.bench.gpu import run as run_bench

    with core.errors_reported(NoGpuError, StudentError, ValueError):
        run_bench(core.console, json_file, student, sizes, runs)


@bench.command("fleet")
def bench_fleet(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    bags: Annotated[int, typer.Option(min=1, help="Bags of ten seconds, the same drive in each.")] = 8,
    out: Annotated[Path, typer.Option(help="Folder for the rendered drive and the records.")] = Path("out/bench/fleet"),
) -> None:
    """Many bags over 1, 2 and 4 workers: time, speed-up, and whether the sums are those of a serial run."""
    from anyseg_ros.bench.fleet import run as run_bench
    from anyseg_ros.replay.fleet import FleetError

    with core.errors_reported(FleetError, OSError, ValueError):
        met = run_bench(core.console, json_file, student, bags, out)
    raise core.verdict(met)


@bench.command("engine")
def bench_engine(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    size: Annotated[
        list[int] | None, typer.Option(help="Side of the network, repeatable. Default: 256, 512, 1024.")
    ] = None,
    runs: Annotated[int, typer.Option(min=3, help="Of each engine, size and number of modalities.")] = 30,
    out: Annotated[Path, typer.Option(help="Folder for the networks of other sizes.")] = Path("out/bench"),
) -> None:
    """Every engine of this machine side by side, for one to four live sensors."""
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_ros.bench.engine import run as run_bench

    with core.errors_reported(StudentError, ValueError):
        run_bench(core.console, json_file, student, size or (256, 512, 1024), runs, out)


@bench.command("replay")
def bench_replay(
    json_file: JsonFile = None,
    student: core.Student = "vehicle_sim",
    out: Annotated[Path, typer.Option(help="Folder for the rendered drive and its bags.")] = Path("out/bench"),
    repeats: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Offline replay: its cost besides the network, and its memory on a bag and on one four times as long."""
    from anyseg_ros.bench.replay import run as run_bench
    from anyseg_ros.replay.run import REPLAY_ERRORS

    with core.errors_reported(*REPLAY_ERRORS):
        met = run_bench(core.console, json_file, student, out, repeats)
    raise core.verdict(met)


@bench.command("events")
def bench_events(
    json_file: JsonFile = None,
    bags: Annotated[list[Path] | None, typer.Option("--bag", help="Recorded event packets; repeatable.")] = None,
) -> None:
    """Decoding of event streams, beside the obvious Python loop."""
    set_up_process()  # the allocator of the node: without it, fresh pages are a third of the time
    from anyseg_ros.bags.storage import BagError
    from anyseg_ros.bench.events import run as run_bench

    with core.errors_reported(BagError, OSError):
        met = run_bench(core.console, json_file, bags or ())
    raise core.verdict(met)


@bench.command("train")
def bench_train(
    json_file: JsonFile = None,
    side: Annotated[int, typer.Option(min=32, help="Height and width of the images, a multiple of 32.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Samples of four modalities per step.")] = 2,
    head_width: Annotated[int, typer.Option(min=1, help="768 as published.")] = 768,
    backbone: Annotated[str, typer.Option(help="MiT b0 to b5.")] = "b0",
    steps: Annotated[int, typer.Option(min=1, help="Measured steps of each form.")] = 8,
    threads: Threads = 0,
    runs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="A student's run and its teacher's, for the gradients; default: random weights."),
    ] = None,
) -> None:
    """A student's training step beside the plain form of the same step: speed, memory, equal losses; and what share of
    the gradient each term of the loss is.
    """
    found, notes = core.measure_training(side, batch, head_width, backbone, steps, threads, runs)
    _report("Training step of AnySeg's student", found, notes, json_file)


@bench.command("evaluate")
def bench_evaluate(
    json_file: JsonFile = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A run or checkpoint; default: random weights.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Measured samples.")] = 5,
    side: Annotated[int, typer.Option(min=32, help="Height and width, without a checkpoint.")] = 256,
    head_width: Annotated[int, typer.Option(min=1, help="Without a checkpoint.")] = 768,
    threads: Threads = 0,
) -> None:
    """Scoring all subsets with each modality encoded once, beside subset after subset."""
    found, notes = core.measure_evaluation(checkpoint, samples, side, head_width, threads)
    _report("Evaluation over subsets of the sensors", found, notes, json_file)


@bench.command("pareto")
def bench_pareto(  # noqa: PLR0913  # options of a command
    runs: Annotated[list[Path], typer.Argument(help="Runs of students, or checkpoints.")],
    *,
    heights: Annotated[str, typer.Option(help="Input heights, multiples of 32, with commas.")] = "192,288",
    aspect: Annotated[float, typer.Option(min=0.2, help="Width of the input / its height: the camera's.")] = 4 / 3,
    label_strides: Annotated[str, typer.Option(help="Grids of the labels in pixels, with commas.")] = "1,2",
    precisions: Annotated[str, typer.Option(help="fp32, fp16, int8; with commas.")] = "fp32",
    encoder: Annotated[
        list[str] | None, typer.Option(help="Also time this encoder, with random weights; repeatable.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Validation samples that mIoU is measured on.")] = 40,
    turns: Annotated[int, typer.Option("--runs", min=1, help="Of each form, engine and number of sensors.")] = 15,
    out: Annotated[Path, typer.Option(help="Folder of the exported forms and of the table.")] = Path("out/pareto"),
    threads: Annotated[int, typer.Option(min=1, help="Of the engine.")] = 2,
) -> None:
    """What each form of a student costs and sees: input size x label grid x precision, and what other encoders cost.

    mIoU on the validation split, times in turns on every CPU engine here; a table, a file and a plot.
    """
    core.measure_forms(
        runs,
        encoder or [],
        out,
        sizes=tuple((height, core.nearest_width(height, aspect)) for height in map(int, heights.split(","))),
        label_strides=tuple(map(int, label_strides.split(","))),
        precisions=tuple(precisions.split(",")),
        samples=samples,
        runs=turns,
        threads=threads,
    )


@bench.command("segformer")
def bench_segformer(
    json_file: JsonFile = None,
    encoder: Annotated[str, typer.Option(help="Of the student.")] = "efficientnet_lite0",
    side: Annotated[int, typer.Option(min=32, help="Of both networks' square input, a multiple of 32.")] = 512,
    turns: Annotated[int, typer.Option("--runs", min=3, help="Of each network.")] = 15,
    out: Annotated[Path, typer.Option(help="Folder of the networks.")] = Path("out/bench"),
    threads: Annotated[int, typer.Option(min=1, help="Of the engine.")] = 2,
) -> None:
    """A student's network beside SegFormer-B0 as published, on onnxruntime; exits with 1 where it takes over 0.25."""
    found, notes = core.measure_segformer(encoder, out, side, turns, threads)
    _report("Time beside plain SegFormer-B0", found, notes, json_file)


@bench.command("methods")
def bench_methods(
    plan: Annotated[
        Path | None,
        typer.Argument(help="What to compare. Default: the shipped config/train/ablation/vehicle_sim.yaml."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of all runs and of the table.")] = Path("runs/ablation"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="A variant; repeatable. Default: all.")] = None,
    set_: core.Overrides = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score on so many samples, evenly spread.")] = None,
) -> None:
    """Train and score every method of a plan with every seed: the table. Killed, the same command goes on."""
    with core.errors_reported(FileNotFoundError):
        plan = plan or shipped_config("train/ablation/vehicle_sim.yaml")
    core.compare_methods(plan, out, seeds, jobs, only or [], set_ or [], limit)


def _report(title: str, found: list[core.Measurement], notes: list[str], json_file: Path | None) -> None:
    """Print and write measurements of the training side; exits with 1 if a bar was missed."""
    from anyseg_ros.bench.results import Benchmark

    benchmark = Benchmark(title, notes=notes)
    for entry in found:
        benchmark.add(entry.name, entry.unit, entry.samples, entry.bar, entry.met)
    raise core.verdict(benchmark.report(core.console, json_file))


@bench.command("street")
def bench_street(
    root: Annotated[Path, typer.Argument(help="Folder of kitti_semantic, idd_lite, lidar_range and kitti_drive.")],
    student: core.Student = "street",
    json_file: JsonFile = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Only so many frames of each data set.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of the engine.")] = 2,
    write_card: Annotated[
        bool,
        typer.Option(help="Write each class's IoU with camera and with LiDAR alone into the student's model.json."),
    ] = False,
) -> None:
    """A street student on real frames it has not learned from; exits with 1 where a bar is missed."""
    from anyseg_ros.bench.results import Benchmark

    figures, notes = core.measure_street(student, root, threads, limit, write_card)
    result = Benchmark(f"{student} on real frames that it has not learned from", notes=notes)
    for figure in figures:
        result.add(*figure)
    raise core.verdict(result.report(core.console, json_file))
