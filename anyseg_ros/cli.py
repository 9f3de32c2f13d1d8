"""The command `anyseg`: the robot's side here, the rest from `anyseg_core.cli`."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from anyseg_core import cli as core
from anyseg_core.completion import complete_scenarios, complete_students
from anyseg_core.runtime.user_paths import from_home
from anyseg_core.terminal import set_verbosity
from anyseg_ros.bench.commands import bench
from anyseg_ros.process.extras import missing_part_named
from anyseg_ros.process.ros_arguments import RosArgumentError, check_ros_arguments, ros_domain
from anyseg_ros.process.setup import set_up_process

app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)
app.add_typer(bench, name="bench")
inject = typer.Typer(no_args_is_help=True, help="Break sensors on purpose: in a bag, or live between driver and node.")
app.add_typer(inject, name="inject")
core.add_commands(app)


def print_version(asked: bool) -> None:
    """`anyseg --version`: of this package, as it is installed."""
    if asked:
        print(f"anyseg_ros {version()}")
        raise typer.Exit


def version() -> str:
    """This package's version, also where it is imported from a folder and not installed."""
    try:
        return importlib.metadata.version("anyseg_ros")
    except importlib.metadata.PackageNotFoundError:
        return "of a folder, not installed"


@app.callback()
def anyseg(
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Also tracebacks, and what libraries log.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Nothing but errors and warnings.")] = False,
) -> None:
    """Semantic segmentation that goes on when a camera, depth, event or LiDAR sensor dies."""
    set_verbosity(verbose=verbose, quiet=quiet)


StudentOfParameters = Annotated[
    str | None,
    typer.Option(
        help="Name of a bundled student, or a student's folder; default: the parameters'.",
        autocompletion=complete_students,
    ),
]
Injections = Annotated[
    Path | None,
    typer.Option(
        help="Schedule of injections, such as config/injections/all_but_depth_lost.yaml.",
        autocompletion=complete_scenarios,
    ),
]
Schedule = Annotated[
    Path,
    typer.Argument(
        help="Schedule of injections, such as config/injections/camera_lost.yaml.", autocompletion=complete_scenarios
    ),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", callback=core.writable_file, help="Write the results to this JSON file, too.")
]
TopicMap = Annotated[
    list[str] | None, typer.Option("--map", metavar="SENSOR:=TOPIC", help="Which topic is a sensor's; repeatable.")
]


@app.command()
def doctor(json_file: JsonFile = None) -> None:
    """Say what this machine has, and what to do about what is missing."""
    from anyseg_ros.doctor.doctor import report

    with core.errors_reported(OSError):
        raise core.verdict(report(core.console, json_file))


@app.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the report, the drive and the logs. Default: out/demo, of a bag out/demo_on_bag."
        ),
    ] = None,
    student: core.Student = "vehicle_sim",
    injections: Injections = None,
    seed: core.Seed = 4_000_000,
    weather: core.WeatherName = "cloud",
    duration_s: core.DurationS = 40.0,
    workers: core.Workers = 0,
    bag: Annotated[
        Path | None, typer.Option(help="A recorded drive instead: its camera dies, and masks go on; film and picture.")
    ] = None,
) -> None:
    """Drive live, lose one sensor after another, score every label image; exits with 1 if a promise was broken."""
    set_up_process()
    if bag is not None:
        _demo_on_bag(bag, out or Path("out/demo_on_bag"), student, injections)
        return
    from anyseg_core.processes import WorkerError
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_core.sim.recorded_drive import RecordingError
    from anyseg_ros.demo.run import DEMO_INJECTIONS, DemoOptions, run_demo
    from anyseg_ros.live_run.run import LiveRunError

    options = DemoOptions(
        out or Path("out/demo"), injections or DEMO_INJECTIONS, student, seed, weather, duration_s, workers=workers
    )
    with core.errors_reported(
        EngineError, LiveRunError, OSError, RecordingError, StudentError, ValueError, WorkerError
    ):
        outcome = run_demo(options, core.console)
    raise core.verdict(not outcome.broken)


def _demo_on_bag(bag: Path, out: Path, student: str, injections: Path | None) -> None:
    from anyseg_ros.demo.on_bag import BagDemo, run_bag_demo
    from anyseg_ros.replay.run import REPLAY_ERRORS

    with core.errors_reported(*REPLAY_ERRORS):
        run_bag_demo(BagDemo(bag, out, student, injections), core.console)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    student: StudentOfParameters = None,
    params_file: Annotated[Path | None, typer.Option(help="Parameters, such as config/vehicle.yaml.")] = None,
    namespace: Annotated[str, typer.Option(help="Of the node and its relative topics.")] = "",
) -> None:
    """Run segmentation_node here, configured and active. More ROS arguments may follow, such as -p or -r."""
    from anyseg_core.runtime.model_card import StudentError, find_student
    from anyseg_ros.pipeline.parameters import ParameterError, Parameters, load_parameters
    from anyseg_ros.process.ros_arguments import full_node_name

    _check_ros_arguments(context)
    with core.errors_reported(ParameterError, StudentError):
        node = full_node_name(namespace, context.args)
        parameters = load_parameters(params_file, node) if params_file else Parameters()
        if not any(word.startswith("model.student:=") for word in context.args):  # of -p, which ROS 2 takes instead
            find_student(student or parameters.model.student)
    # Of two values for one parameter ROS 2 takes the later.
    arguments = ["--params-file", str(params_file)] if params_file else []
    arguments += ["-p", "autostart:=true"]
    arguments += ["-p", f"model.student:={student}"] if student else []
    arguments += ["-r", f"__ns:={namespace}"] if namespace else []
    from anyseg_ros.node.segmentation_node import main as node_main

    _run_node(node_main, [*arguments, *context.args])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def watch(
    context: typer.Context,
    node: Annotated[str, typer.Option(help="Full name of the node to watch.")] = "/segmentation_node",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes a free one.")] = 8450,
    host: Annotated[
        str, typer.Option(help="Where the page is served. 0.0.0.0 shows the pictures to everybody in the network.")
    ] = "127.0.0.1",
) -> None:
    """Show in a browser what a running node sees: camera, label image, sensors over time, what is lost."""
    _check_ros_arguments(context)
    if not node.startswith("/"):
        node = f"/{node}"

    from anyseg_ros.watch.watch_node import serve

    def say(url: str) -> None:
        core.console.print(f"{node}: {url} (until Ctrl-C)", soft_wrap=True, highlight=False)

    _run_node(lambda: sys.exit(serve(node, host, port, say)), context.args)


@app.command()
def play(
    bag: Annotated[Path, typer.Argument(help="A bag's folder, or a .mcap, .db3 or .bag file.")],
    rate: Annotated[float, typer.Option(help="Seconds of the bag in a second.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end, until Ctrl-C.")] = False,
    start_paused: Annotated[bool, typer.Option("--start-paused", help="Wait for the space key or a service.")] = False,
    clock: Annotated[bool, typer.Option("--clock", help="Publish the bag's time on /clock.")] = False,
    topics: Annotated[list[str] | None, typer.Option("--topic", help="Play only this one; repeatable.")] = None,
    remap: Annotated[list[str] | None, typer.Option("--remap", help="/recorded:=/published; repeatable.")] = None,
    awaited: Annotated[
        list[str] | None, typer.Option("--await", help="Published topic that needs a subscriber first; repeatable.")
    ] = None,
) -> None:
    """Publish a bag over DDS with its own timing. Space pauses, as do /anyseg_player/toggle_paused and set_paused."""
    set_up_process()
    from anyseg_ros.replay.play import PlayOptions, parse_remaps
    from anyseg_ros.replay.play import main as play_main

    with core.errors_reported(ValueError):
        remaps, only, first = parse_remaps(remap or ()), tuple(topics or ()), tuple(awaited or ())
        options = PlayOptions(bag, rate, loop, start_paused, clock, only, first, remaps)
    raise typer.Exit(play_main(options, core.console.print))


@app.command()
def replay(  # noqa: PLR0913, PLR0917  # each is an option of the command
    bags: Annotated[list[Path], typer.Argument(help="Folder, .mcap, .db3 or .bag file; or several bags.")],
    out: Annotated[Path, typer.Option(help="Folder of results and report.")] = Path("out/replay"),
    student: StudentOfParameters = None,
    params_file: Annotated[Path | None, typer.Option(help="Default: the node's own, at the bag's rates.")] = None,
    topics: TopicMap = None,
    subsets: Annotated[bool, typer.Option("--subsets", help="Also every subset of the sensors.")] = False,
    injections: Annotated[
        list[Path] | None,
        typer.Option(help="Schedule of injections or a folder of them; repeatable.", autocompletion=complete_scenarios),
    ] = None,
    conditions: Annotated[Path | None, typer.Option(help="Such as config/replay/conditions.yaml.")] = None,
    labels: Annotated[str | None, typer.Option(help="Topic, or folder of PNGs named by stamp.")] = None,
    write_bag: Annotated[Path | None, typer.Option(help="New bag of masks, overlays, points and status.")] = None,
    video: Annotated[
        Path | None, typer.Option(help="Overlay, sensors and points from above: .mp4, .avi, .webm.")
    ] = None,
    point_labels: Annotated[
        Path | None, typer.Option(help="Folder of .label files, as SemanticKITTI has them.")
    ] = None,
    point_classes: Annotated[Path | None, typer.Option(help="Such as config/replay/semantic_kitti.yaml.")] = None,
    engine_ms: Annotated[float, typer.Option(min=0, help="Simulated time of the network; 0 misses no set.")] = 0.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run has stopped.")] = False,
    cluster: Annotated[bool, typer.Option("--cluster", help="Share the bags out over Ray: see docs/fleet.md.")] = False,
    address: Annotated[str, typer.Option(help="Of a running Ray cluster; default: a Ray on this machine.")] = "",
    workers: Annotated[int, typer.Option(min=0, help="Of a Ray on this machine; 0 = one per core.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Run a bag through the node's pipeline and score the masks. Exits with 1 if a condition failed, 2 on bad input.

    Of several bags the scores are added up; it then exits with 1 if one of them could not be read.
    """
    from anyseg_ros.bags.topics import parse_mapping
    from anyseg_ros.pipeline.parameters import load_parameters
    from anyseg_ros.replay.fleet import FleetError, FleetOptions, run_fleet
    from anyseg_ros.replay.offline import ReplayOptions
    from anyseg_ros.replay.run import REPLAY_ERRORS, RunOptions, copy_results, labels_from, require_bags, run_replay

    with core.errors_reported(*REPLAY_ERRORS, FleetError):
        if not resume:  # what an interrupted run has finished may be gone since
            require_bags(bags)
        folder, mapping = labels_from(labels, parse_mapping(topics or []))
        parameters = load_parameters(params_file) if params_file else None
        what = ReplayOptions(
            student, parameters, mapping, subsets, tuple(injections or ()), folder, engine_ms, resume=resume
        )
        if cluster or len(bags) > 1:
            if conditions or write_bag or video or point_labels:
                alone = "--conditions, --write-bag, --video and --point-labels"
                raise ValueError(f"{alone} are for one bag, without --cluster")
            fleet = FleetOptions(tuple(bags), out, replace(what, resume=False), workers, address, resume)
            failed = run_fleet(fleet, core.console, cluster=cluster).failed
            copy_results(out, json_file)
            raise core.verdict(not failed)
        verdicts = run_replay(
            RunOptions(bags[0], out, what, conditions, write_bag, video, point_labels, point_classes), core.console
        )
        copy_results(out, json_file)
    raise core.verdict(all(verdict.passed for verdict in verdicts))


@app.command()
def inspect(
    bag: Annotated[Path, typer.Argument(help="A bag's folder, or a .mcap, .db3 or .bag file.")],
    topics: TopicMap = None,
    write: Annotated[Path | None, typer.Option(help="Parameter file to write, such as my_vehicle.yaml.")] = None,
    page: Annotated[Path, typer.Option(help="HTML page to write, with a picture per sensor.")] = Path(
        "out/inspect.html"
    ),
) -> None:
    """Say what is in a bag: topics, sensors, clocks, calibration, and what is odd. Exits with 1 if it has no sensor."""
    from anyseg_ros.bags.reader import BagError
    from anyseg_ros.bags.topics import parse_mapping
    from anyseg_ros.replay.inspection import inspect as run_inspection
    from anyseg_ros.replay.inspection_report import print_inspection, write_page, write_parameters

    with core.errors_reported(BagError, OSError, ValueError):
        with core.progress_bar("messages") as progress:
            found = run_inspection(bag, parse_mapping(topics or ()), progress)
        print_inspection(found, core.console)
        write_page(page, found)
        if write is not None:
            write_parameters(write, found)
    core.console.print(f"page: {page}", soft_wrap=True)
    if write is not None:
        core.console.print(f"parameters: {write}, for anyseg run, launch and replay --params-file", soft_wrap=True)
    raise core.verdict(bool(found.sensors))


@app.command()
def preset(
    names: Annotated[
        list[str] | None, typer.Argument(help="Drivers, such as realsense ouster; none: list them.")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Parameter file to write, such as my_vehicle.yaml.")] = None,
) -> None:
    """Parameters for the topics of well-known drivers: RealSense, ZED, Ouster, Velodyne, Prophesee."""
    from anyseg_ros.pipeline.presets import PresetError, notes_of, preset_names, preset_topics, write_preset

    with core.errors_reported(PresetError, OSError):
        for name in names or preset_names():
            topics = ", ".join(f"{sensor} {topic}" for sensor, topic in preset_topics(name).items())
            core.console.print(f"[bold]{name}[/]: {topics}", soft_wrap=True, highlight=False)
            for note in notes_of(name) if names else ():
                core.console.print(f"  {note}", soft_wrap=True, highlight=False, markup=False)
        if write is not None:
            write_preset(write, names or ())
            core.console.print(f"parameters: {write}, for anyseg run, launch and replay --params-file", soft_wrap=True)


@app.command("replay-live")
def replay_live(
    bag: Annotated[Path, typer.Argument(help="A bag's folder, or a .mcap, .db3 or .bag file.")],
    out: Annotated[Path, typer.Option(help="Folder of results and logs.")] = Path("out/replay_live"),
    student: core.Student = "vehicle_sim",
    injections: Injections = None,
    topics: TopicMap = None,
    rate: Annotated[float, typer.Option(help="Seconds of the bag in a second.")] = 1.0,
    listen: Annotated[bool, typer.Option("--listen", help="A launch starts node and player.")] = False,
) -> None:
    """Play a bag into the live node and compare its masks with those of the offline replay; exits with 1 if any differ.

    What came late or not at all is listed, but is no difference: it depends on the machine.
    """
    set_up_process()
    from anyseg_core.runtime.engines.protocol import EngineError
    from anyseg_core.runtime.model_card import StudentError
    from anyseg_ros.bags.reader import BagError
    from anyseg_ros.bags.topics import parse_mapping
    from anyseg_ros.live_run.child_process import LiveRunError
    from anyseg_ros.replay.live import run_live
    from anyseg_ros.replay.live_comparison import LiveOptions

    with core.errors_reported(BagError, EngineError, LiveRunError, StudentError, ValueError, OSError):
        options = LiveOptions(bag, out, student, injections, parse_mapping(topics or ()), rate)
        same = run_live(options, core.console, listen_only=listen)
    raise core.verdict(same)


@app.command()
def layout(
    out: Annotated[Path, typer.Argument(help="The layout to open in Foxglove.")],
    namespace: Annotated[str, typer.Option(help="Of the vehicle: /car, say.")] = "",
    source: Annotated[
        Path | None, typer.Option(help="The layout without a namespace. Default: the shipped config/foxglove.json.")
    ] = None,
) -> None:
    """Write the Foxglove layout with the topics of a vehicle's namespace. RViz needs none: its topics are relative."""
    import json

    from anyseg_ros.drawing.foxglove_layout import in_namespace
    from anyseg_ros.shipped_config import shipped_config

    with core.errors_reported(OSError, ValueError):
        source = source or shipped_config("foxglove.json")
        out.write_text(json.dumps(in_namespace(json.loads(source.read_text()), namespace), indent=2) + "\n")
    core.console.print(f"{out}: in Foxglove, Layouts, Import from file")


@core.simulate.command("live", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def simulate_live(
    context: typer.Context,
    recording: Annotated[
        Path | None, typer.Option(help="Of `simulate drive`; without it, rendered as it goes.")
    ] = None,
    injections: Injections = None,
    seed: core.Seed = 0,
    weather: core.WeatherName = "sun",
    duration_s: core.DurationS = 20.0,
    rate_hz: core.RateHz = 10.0,
) -> None:
    """Publish the vehicle's sensors over DDS in real time, again and again."""
    from anyseg_core.injection import InjectionSchedule
    from anyseg_core.sim.drive import DriveConfig
    from anyseg_core.sim.recorded_drive import RecordedDrive, RecordingError
    from anyseg_core.sim.weather import Weather

    _check_ros_arguments(context)
    with core.errors_reported(ValueError, RecordingError, OSError):
        DriveConfig(seed, Weather.parse(weather), duration_s, rate_hz)
        if injections:
            InjectionSchedule.load(injections)
        if recording:
            RecordedDrive.load(recording)
    values = {"seed": seed, "weather": weather, "duration_s": duration_s, "rate_hz": rate_hz}
    values |= {"recording": recording} if recording else {}
    values |= {"injections": injections} if injections else {}
    arguments = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
    from anyseg_ros.vehicle.simulated_vehicle_node import main as node_main

    _run_node(node_main, [*arguments, *context.args])


@inject.command("kinds")
def inject_kinds() -> None:
    """List every kind of fault with its parameters."""
    from anyseg_ros.inject.tables import kinds_table

    core.console.print(kinds_table())


@inject.command("check")
def inject_check(schedule: Schedule) -> None:
    """Say what a scenario does, or what is wrong with it."""
    from anyseg_core.injection import InjectionSchedule, InjectionScheduleError
    from anyseg_ros.inject.tables import schedule_table

    with core.errors_reported(InjectionScheduleError):
        core.console.print(schedule_table(InjectionSchedule.load(schedule)))


@inject.command("bag")
def inject_into_bag(
    source: Annotated[Path, typer.Argument(help="A bag's folder, or a .mcap, .db3 or .bag file.")],
    target: Annotated[Path, typer.Argument(help="The new bag's folder; must not exist.")],
    injections: Annotated[
        Path,
        typer.Option(
            help="Schedule of injections; its times count from the first message.", autocompletion=complete_scenarios
        ),
    ],
    topic_map: TopicMap = None,
    storage: core.BagStorage = core.BagStorage.MCAP,
) -> None:
    """Write a bag anew with broken sensors; what no fault touches stays the same to the byte. No ROS needed."""
    from anyseg_core.injection import InjectionSchedule, InjectionScheduleError
    from anyseg_ros.bags.topics import TopicError, parse_mapping
    from anyseg_ros.inject.bag import BagError, inject_bag
    from anyseg_ros.inject.tables import bag_table

    with core.errors_reported(BagError, InjectionScheduleError, TopicError, OSError):
        mapping, schedule = parse_mapping(topic_map or []), InjectionSchedule.load(injections)
        with core.progress_bar("messages") as progress:
            report = inject_bag(source, target, schedule, mapping, storage=storage.value, progress=progress)
    core.console.print(bag_table(report))
    for problem in [*report.problems, *(f"{n} x left as it was: {reason}" for reason, n in report.unreadable.items())]:
        core.console.print(f"note: {problem}", highlight=False, soft_wrap=True)
    core.console.print(f"{report.written.total()} of {report.read.total()} messages in {target}")


@inject.command("live", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def inject_live(
    context: typer.Context,
    schedule: Schedule,
    topic_map: TopicMap = None,
    to: Annotated[str, typer.Option(help="Prefix of the outputs. The inputs are then the sensors' own topics.")] = "",
    params_file: Annotated[
        Path | None, typer.Option(help="Of the vehicle: its topics are read, and published below `faulty` or --to.")
    ] = None,
) -> None:
    """Run injector_node between drivers and segmentation_node. More ROS arguments may follow, such as -p or -r.

    Without --params-file and --to it reads in/camera/image_raw, in/depth/image_rect, in/events and in/lidar/points and
    publishes the names without in/. Otherwise the command that starts the node behind it is printed.
    """
    from anyseg_core.injection import InjectionSchedule, InjectionScheduleError
    from anyseg_core.runtime.sensors import DEFAULT_SENSORS, in_order
    from anyseg_ros.bags.topics import TopicError, parse_mapping
    from anyseg_ros.inject.live_topics import FAULTY, run_command, sources_of, topic_arguments, topics_in
    from anyseg_ros.pipeline.parameters import ParameterError

    _check_ros_arguments(context)
    with core.errors_reported(InjectionScheduleError, ParameterError, OSError, TopicError):
        to = to or (FAULTY if params_file is not None else "")
        own = topics_in(params_file) if params_file is not None else {}
        mapping = {**own, **parse_mapping(topic_map or [])}
        scenario = InjectionSchedule.load(schedule)
        sensors = in_order({*DEFAULT_SENSORS, *own, *scenario.declared})
        arguments = ["-p", f"injections:={schedule}", *topic_arguments(mapping, to, sensors)]
        command = run_command(sources_of(mapping, sensors), to, params_file) if to else ""
    for sensor in scenario.required:
        if mapping.get(sensor) == "":
            why = f"has it disabled: {schedule} cannot break it"
            core.console.print(f"note: {sensor}: {params_file} {why}", soft_wrap=True, highlight=False, markup=False)
    if command:
        core.console.print(f"the node behind it: {command}", soft_wrap=True, highlight=False, markup=False)
    from anyseg_ros.inject.injector_node import main as node_main

    _run_node(node_main, [*arguments, *context.args])


@app.command("access-policy")
def access_policy(
    out: Annotated[Path, typer.Argument(help="The policy file to write, for `ros2 security generate_artifacts -p`.")],
    params_file: Annotated[Path | None, typer.Option(help="Parameters of segmentation_node.")] = None,
    namespace: Annotated[str, typer.Option(help="Of the nodes.")] = "/",
    injector: Annotated[bool, typer.Option(help="With an enclave for the injector.")] = False,
) -> None:
    """Write an SROS2 policy that allows what the nodes do with these parameters, and nothing else."""
    set_up_process()
    from anyseg_ros.access.live_policy import NotActiveError, live_policy
    from anyseg_ros.access.policy import NamesakeError
    from anyseg_ros.process.node_process import ros

    if params_file is not None and not params_file.is_file():
        raise core.fail(f"{params_file} is not a file")
    with core.errors_reported(NotActiveError, NamesakeError, OSError, RosArgumentError), ros(alone=True):
        out.write_text(live_policy(params_file, namespace, injector=injector))
    core.console.print(f"written: {out}")


@core.data_commands.command("from-bag")
def data_from_bag(  # noqa: PLR0913, PLR0917  # each is an option of the command
    bag: Annotated[Path, typer.Argument(help="A bag's folder, or a .mcap, .db3 or .bag file.")],
    root: Annotated[Path, typer.Argument(help="The data set's folder; made where missing, added to where not.")],
    split: Annotated[str, typer.Option(help="train, val or test: never one drive in two of them.")] = "train",
    every_s: Annotated[float, typer.Option(min=0, help="Least time between two samples.")] = 1.0,
    max_time_diff_s: Annotated[float, typer.Option(min=0, help="Frames further apart belong to other moments.")] = 0.06,
    student: Annotated[
        str,
        typer.Option(help="Whose classes and encodings the data set takes over.", autocompletion=complete_students),
    ] = "vehicle_sim",
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="ROLE:=TOPIC, such as camera:=/front/image; repeatable.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Folder of label PNGs named by stamp.")] = None,
    params_file: Annotated[
        Path | None, typer.Option(help="Of the vehicle: whether pictures are rectified, depth registered.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Of a new data set: names with commas, or a JSON file of name and color.")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Share of the bag, at its end, whose samples go to val.")] = 0.0,
) -> None:
    """Make samples to train on of a bag: `data: {kind: folder}`. Without labels in it, they are added as _label.png."""
    from anyseg_core.runtime.class_lists import parse_classes
    from anyseg_core.runtime.model_card import StudentError, find_student, load_card
    from anyseg_ros.bags.reader import BagError
    from anyseg_ros.bags.to_folder import FolderOptions, NothingToWriteError, write_folder
    from anyseg_ros.bags.topics import TopicError
    from anyseg_ros.pipeline.parameters import ParameterError, Parameters, load_parameters

    with core.errors_reported(
        BagError, NothingToWriteError, ParameterError, OSError, StudentError, TopicError, ValueError
    ):
        names = parse_classes(classes) if classes else ()
        parameters = load_parameters(params_file) if params_file else Parameters()
        options = FolderOptions(
            split, every_s, max_time_diff_s, tuple(map_ or ()), labels, names, val_share, parameters
        )
        written = write_folder(bag, root, load_card(find_student(student), verify=False), options)
    for problem in written.problems:
        core.console.print(f"[yellow]the bag:[/] {problem}", soft_wrap=True)
    for advice in written.advice:
        core.console.print(f"[yellow]note:[/] {advice}", soft_wrap=True, highlight=False)
    where = f"{written.samples - written.validation} in {root / split}"
    if written.validation:
        where += f" and {written.validation} in {root / 'val'}"
    sensors = ", ".join(written.modalities)
    core.console.print(
        f"{written.samples} samples of {sensors}, {where}, {written.labelled} of them labelled; "
        f"{written.incomplete} moments left out for want of a sensor's frame, {written.rejected} bad messages"
    )
    of_split = "" if written.validation else f" --split {split}"
    core.console.print(f"next: anyseg data check {root}{of_split}", soft_wrap=True)


def _check_ros_arguments(context: typer.Context) -> None:
    """What a command passes on to its node must be ROS 2's; anything else is a mistyped option of the command."""
    own = [name for parameter in context.command.params for name in parameter.opts]
    with core.errors_reported(RosArgumentError):
        ros_domain()
        check_ros_arguments(context.args, own)


def _run_node(node_main: Callable[[], None], arguments: list[str]) -> None:
    """rclpy reads the process' arguments: give it the node's."""
    sys.argv = [sys.argv[0], "--ros-args", *arguments]
    node_main()


def main() -> None:
    """Entry point `anyseg`; a part that was not installed is named with its extra."""
    sys.argv[1:] = [as_a_shell_would(word) for word in sys.argv[1:]]
    with missing_part_named():
        app()


def as_a_shell_would(word: str) -> str:
    """A word of the command line with `~/` as the home folder, also in `--out=~/runs`, which no shell reads."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{from_home(value)}" if value.startswith("~/") else word


if __name__ == "__main__":
    main()
