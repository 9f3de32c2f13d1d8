"""The demo from end to end: render, drive live, score, report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from anyseg_core.injection import InjectionSchedule
from anyseg_core.injection.phases import phases_of
from anyseg_core.processes import available_cores
from anyseg_core.runtime.health.monitor import HealthConfig
from anyseg_core.runtime.model_card import ModelCard, find_student, load_card
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.sim.drive import DriveConfig
from anyseg_core.sim.drive_cache import is_recorded, recording_path, render_to
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.sim.weather import Weather
from anyseg_core.terminal import progress_bar
from anyseg_core.wording import counted
from anyseg_ros.demo.report import DriveRecord, print_table, write_report
from anyseg_ros.demo.scoring import Promise, broken_promises, score_phase
from anyseg_ros.drawing.pictures import initials
from anyseg_ros.live_run.recording import Recording
from anyseg_ros.live_run.run import LiveRun, record
from anyseg_ros.pipeline.pipeline import SyncConfig
from anyseg_ros.process.node_process import ros
from anyseg_ros.replay.student_note import print_student

DEMO_INJECTIONS = Path(__file__).parent / "injections.yaml"
"""Package data, so that the demo runs from wherever it was installed."""


@dataclass(frozen=True)
class DemoOptions:
    """What `anyseg demo` was asked for."""

    out: Path
    injections: Path
    student: str = "vehicle_sim"
    seed: int = 4_000_000
    """Of a world that no student was trained in."""
    weather: str = "cloud"
    duration_s: float = 40.0
    rate_hz: float = 10.0
    width: int = DriveConfig.width
    height: int = DriveConfig.height
    workers: int = 0
    """Rendering processes; 0 = one per core."""


def run_demo(options: DemoOptions, console: Console) -> DriveRecord:
    """Run it, print the table and write the report; `broken` of what is returned is empty when all was kept.

    Raises LiveRunError, StudentError or InjectionScheduleError.
    """
    card = load_card(find_student(options.student))
    print_student(card, console)
    schedule = InjectionSchedule.load(options.injections)
    path = rendered_drive(options, console)
    drive = RecordedDrive.load(path)
    run = LiveRun(path, options.student, options.injections, log_folder=options.out / "log")
    console.print("[bold]driving[/]: vehicle and node run as processes of their own and talk over DDS")
    with isolated_ros_domain(), ros():
        recording = record_with_display(run, options.duration_s, console)
    outcome = _drive_record(options, card, schedule, drive, recording)
    print_table(console, outcome)
    report = options.out / "report.html"
    write_report(report, outcome)
    console.print(f"report: {report}")
    return outcome


def rendered_drive(options: DemoOptions, console: Console) -> Path:
    """The recording of the drive: rendered first, so that the sensors' timing stays true; kept for the next time."""
    weather = Weather.parse(options.weather)
    config = DriveConfig(
        options.seed, weather, options.duration_s, options.rate_hz, width=options.width, height=options.height
    )
    path = recording_path(config, options.out)
    if is_recorded(path):
        console.print(f"[bold]rendering[/]: {path} is there already")
        return path
    workers = options.workers or available_cores()
    console.print(
        f"[bold]rendering[/]: {round(options.duration_s * options.rate_hz)} frames of all sensors by "
        f"{counted(workers, 'worker')}; once, a minute or more"
    )
    with progress_bar("rendering the drive") as progress:
        return render_to(options.out, config, workers, progress)


def record_with_display(run: LiveRun, duration_s: float, console: Console) -> Recording:
    """Record a live run, showing the state of each sensor as it goes."""
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        return record(run, lambda driven_s, recording: live.update(_display(driven_s, duration_s, recording)))


def _display(driven_s: float, duration_s: float, recording: Recording) -> Table:
    newest = {status.modality: status for status in recording.statuses[-2 * len(DEFAULT_SENSORS) :]}
    table = Table.grid(padding=(0, 2))
    states = [f"{m}: {newest[m].state}{' (' + newest[m].fault + ')' if newest[m].fault else ''}" for m in newest]
    used = initials(recording.used_in(recording.masks[-1].stamp_ns)) if recording.masks else "·"
    table.add_row(f"{driven_s:4.0f} of {duration_s:.0f} s", f"{len(recording.masks)} masks, from {used}", *states)
    return table


@contextmanager
def isolated_ros_domain() -> Iterator[None]:
    """Talk only on this machine, in a domain of its own: these sensors must not reach a vehicle that is running.

    rclpy's log files repeat what goes to stderr, and go with the run.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="anyseg_log_", ignore_cleanup_errors=True) as logs:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
        os.environ.setdefault("ROS_LOG_DIR", logs)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _drive_record(
    options: DemoOptions, card: ModelCard, schedule: InjectionSchedule, drive: RecordedDrive, recording: Recording
) -> DriveRecord:
    phases = phases_of(schedule.injections, options.duration_s)
    promise = Promise(1000.0 / options.rate_hz, SyncConfig.deadline_ms, HealthConfig.max_age_ms)
    index_of = {stamp: index for index, stamp in enumerate(sorted(recording.truth))}

    def frames_at(stamp_ns: int) -> Mapping[Sensor, SensorFrame]:
        return drive.frame(index_of[stamp_ns]).frames

    return DriveRecord(
        recording=recording,
        phases=phases,
        scores=[score_phase(recording, phase, len(card.classes)) for phase in phases],
        broken=broken_promises(recording, promise),
        card=card,
        rig=drive.rig(),
        frames_at=frames_at,
        engine=recording.engine,
        schedule=str(options.injections),
        seed=options.seed,
        weather=options.weather,
        rate_hz=options.rate_hz,
    )
