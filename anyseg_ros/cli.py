"""The command `anyseg`: the robot's side here, the rest from `anyseg_core.cli`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from anyseg_core import cli as core
from anyseg_ros.process_setup import set_up_process

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Semantic segmentation that goes on when a camera, depth, event or LiDAR sensor dies.",
)
bench = typer.Typer(no_args_is_help=True, help="Measure on this machine; every table also goes to a file with --json.")
app.add_typer(bench, name="bench")
core.add_commands(app)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures here, too.")]
Student = Annotated[str, typer.Option(help="Name of a bundled student, or a student's folder.")]
Faults = Annotated[Path | None, typer.Option(help="Fault schedule, such as config/faults/demo.yaml.")]


@app.command()
def doctor() -> None:
    """Say what this machine has, and what to do about what is missing."""
    from anyseg_ros.doctor import report

    raise typer.Exit(0 if report(core.console) else 1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, the drive and the logs.")] = Path("out/demo"),
    student: Student = "vehicle_sim",
    faults: Faults = None,
    seed: core.Seed = 4_000_000,
    weather: core.WeatherName = "cloud",
    duration_s: core.DurationS = 40.0,
    workers: core.Workers = 0,
) -> None:
    """Drive live, lose one sensor after another, score every label image; exits with 1 if a promise was broken."""
    set_up_process()
    from anyseg_core.runtime.engine import EngineError
    from anyseg_core.runtime.faults import FaultScheduleError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.demo.live import LiveRunError
    from anyseg_ros.demo.run import DEMO_FAULTS, DemoOptions, run_demo

    options = DemoOptions(out, faults or DEMO_FAULTS, student, seed, weather, duration_s, workers=workers)
    try:
        outcome = run_demo(options, core.console)
    except (LiveRunError, StudentError, EngineError, FaultScheduleError, RecordingError, ValueError, OSError) as error:
        raise core.fail(error) from None
    raise typer.Exit(1 if outcome.broken else 0)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    student: Student = "vehicle_sim",
    params_file: Annotated[Path | None, typer.Option(help="Parameters, such as config/vehicle.yaml.")] = None,
    namespace: Annotated[str, typer.Option(help="Of the node and its relative topics.")] = "",
) -> None:
    """Run segmentation_node here, configured and active. More ROS arguments may follow, such as -p or -r."""
    if params_file and not params_file.is_file():
        raise core.fail(f"no parameter file at {params_file}; start from config/vehicle.yaml")
    arguments = ["-p", "autostart:=true", "-p", f"model.student:={student}"]
    arguments += ["--params-file", str(params_file)] if params_file else []
    arguments += ["-r", f"__ns:={namespace}"] if namespace else []
    from anyseg_ros.segmentation_node import main as node_main

    _run_node(node_main, [*arguments, *context.args])


@core.simulate.command("live", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def simulate_live(
    context: typer.Context,
    recording: Annotated[
        Path | None, typer.Option(help="Of `simulate drive`; without it, rendered as it goes.")
    ] = None,
    faults: Faults = None,
    seed: core.Seed = 0,
    weather: core.WeatherName = "sun",
    duration_s: core.DurationS = 20.0,
    rate_hz: core.RateHz = 10.0,
) -> None:
    """Publish the vehicle's sensors over DDS in real time, again and again."""
    values = {"seed": seed, "weather": weather, "duration_s": duration_s, "rate_hz": rate_hz}
    values |= {"recording": recording} if recording else {}
    values |= {"faults": faults} if faults else {}
    arguments = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
    from anyseg_ros.simulated_vehicle_node import main as node_main

    _run_node(node_main, [*arguments, *context.args])


@bench.command("robot")
def bench_robot(
    json_file: JsonFile = None,
    student: Student = "vehicle_sim",
    baseline: Annotated[
        str, typer.Option(help="A student trained without anymodal dropout.")
    ] = "vehicle_sim_zero_fill",
    minutes: Annotated[float, typer.Option(help="Of the run that watches memory.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Folder for the rendered drives and the logs.")] = Path("out/bench"),
    part: Annotated[
        list[str] | None, typer.Option(help="engine, accuracy, latency, drops, memory; repeatable. Default: all.")
    ] = None,
) -> None:
    """Latency, reaction to a lost sensor, accuracy on every subset, memory: the slice's bars."""
    set_up_process()
    from anyseg_core.runtime.engine import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_core.sim.workers import WorkerError
    from anyseg_ros.bench.robot import PARTS
    from anyseg_ros.bench.robot import run as run_bench
    from anyseg_ros.demo.live import LiveRunError

    try:
        met = run_bench(core.console, json_file, student, baseline, minutes, out, part or PARTS)
    except (EngineError, LiveRunError, RecordingError, StudentError, ValueError, WorkerError) as error:
        raise core.fail(error) from None
    raise typer.Exit(0 if met else 1)


@bench.command("events")
def bench_events(json_file: JsonFile = None) -> None:
    """Decoding of event streams, beside the obvious Python loop."""
    from anyseg_ros.bench.events import run as run_bench

    run_bench(core.console, json_file)


def _run_node(node_main: Callable[[], None], arguments: list[str]) -> None:
    """rclpy reads the process' arguments: give it the node's."""
    sys.argv = [sys.argv[0], "--ros-args", *arguments]
    node_main()


EXTRA_OF = {
    **dict.fromkeys(("torch", "lightning", "tensorboard"), "train"),
    **dict.fromkeys(("trimesh", "embreex"), "sim"),
    **dict.fromkeys(("rclpy", "builtin_interfaces", "diagnostic_msgs", "sensor_msgs", "std_msgs", "std_srvs"), "ros"),
}
"""The extra of setup.py that a module comes with; ROS comes with a distribution as well."""


def main() -> None:
    """Entry point `anyseg`; a part that was not installed is named with its extra."""
    try:
        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA_OF:
            raise
        remedy = f"pip install anyseg_ros[{EXTRA_OF[missing]}]"
        remedy += ", or source a ROS 2 distribution" if EXTRA_OF[missing] == "ros" else ""
        core.fail(f"{missing} is not installed, and this command needs it: {remedy}")
        sys.exit(2)


if __name__ == "__main__":
    main()
