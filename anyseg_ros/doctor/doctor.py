"""`anyseg doctor`: what this machine has, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from anyseg_core.runtime.extras import pip_command, pip_install
from anyseg_core.runtime.model_card import StudentError, bundled_students, find_student, load_card, usage_notice
from anyseg_ros.doctor.jetson import read_jetson
from anyseg_ros.messages.types import install_command
from anyseg_ros.process.ros_arguments import RosArgumentError, ros_domain
from anyseg_ros.process.setup import MALLOC_ENV, PROFILE_ENV, profile_path

JETSON_MEMORY_MB = 2000


class Level(Enum):
    """How a finding is to be read; the value is its colour on the terminal."""

    OK = "green"
    OPTIONAL = "yellow"
    MISSING = "red"


@dataclass(frozen=True)
class Finding:
    """One line of the report, in plain text. `remedy` is empty where nothing has to be done."""

    subject: str
    level: Level
    detail: str
    remedy: str = ""


def installed(module: str) -> bool:
    """Whether a module could be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def version_of(distribution: str) -> str:
    """The installed version of a distribution, or an empty string (ROS packages have none)."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _python() -> Iterator[Finding]:
    usable = sys.version_info >= (3, 10)
    yield Finding(
        "Python",
        Level.OK if usable else Level.MISSING,
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "" if usable else "Python 3.10 or newer is needed",
    )


def _machine() -> Iterator[Finding]:
    yield from _python()
    yield from _jetson()


def _ros() -> Iterator[Finding]:
    if not installed("rclpy"):
        remedy = f"source a ROS 2 distribution; or rclpy as wheels: {pip_command('ros')}"
        yield Finding("ROS 2 (rclpy)", Level.MISSING, "not found", remedy)
        return
    source = f"distribution {os.environ['ROS_DISTRO']}" if "ROS_DISTRO" in os.environ else "wheels, no distribution"
    yield Finding("ROS 2 (rclpy)", Level.OK, f"{source} {version_of('ros-rclpy')}".strip())
    from rclpy.utilities import get_rmw_implementation_identifier  # deferred: the report must work without ROS

    rmw = get_rmw_implementation_identifier()
    fast = rmw.startswith("rmw_fastrtps")
    yield Finding(
        "RMW",
        Level.OK if fast else Level.OPTIONAL,
        rmw,
        "" if fast else "the shipped shared-memory profile is for Fast DDS; tune this RMW for large messages yourself",
    )
    yield _discovery()


def _discovery() -> Finding:
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET (default)")
    try:
        domain = ros_domain()
    except RosArgumentError as error:
        return Finding("Discovery", Level.MISSING, f"domain {os.environ['ROS_DOMAIN_ID']}, range {reach}", str(error))
    default = "" if "ROS_DOMAIN_ID" in os.environ else " (default)"
    return Finding("Discovery", Level.OK, f"domain {domain}{default}, range {reach}")


def _transport() -> Iterator[Finding]:
    profile = os.environ.get(PROFILE_ENV)
    if profile is None:
        detail = "not set here: with the default transport, best-effort images and clouds are mostly lost"
        remedy = f"the launch files and `anyseg` set it; for your drivers: export {PROFILE_ENV}={profile_path()}"
        yield Finding("Fast DDS profile", Level.OPTIONAL, detail, remedy)
    else:
        exists = Path(profile).is_file()
        remedy = "" if exists else f"unset {PROFILE_ENV} or point it to {profile_path()}"
        yield Finding("Fast DDS profile", Level.OK if exists else Level.MISSING, profile, remedy)
    unset = [name for name in MALLOC_ENV if name not in os.environ]
    remedy = "set by the launch files; for your drivers: " + " ".join(f"{k}={v}" for k, v in MALLOC_ENV.items())
    yield Finding(
        "Allocator",
        Level.OPTIONAL if unset else Level.OK,
        "not set here: " + ", ".join(unset) if unset else "tuned for large messages",
        remedy if unset else "",
    )
    shm = Path("/dev/shm")
    if shm.is_dir():
        free = shutil.disk_usage(shm).free / 2**20
        enough = free > 512
        remedy = "" if enough else "every process maps a 64 MB segment: enlarge /dev/shm (docker: --shm-size=1g)"
        yield Finding("/dev/shm", Level.OK if enough else Level.MISSING, f"{free:.0f} MB free", remedy)


def _ros_packages() -> Iterator[Finding]:
    purpose = {
        "tf2_ros": "LiDAR extrinsics from TF (else from the `rig.*` parameters)",
        "nav_msgs": "LiDAR scans compensated for the vehicle's motion",
        "event_camera_msgs": "single events, as event cameras' drivers publish them",
        "vision_msgs": "class names on ~/segmentation/label_info",
        "cv_bridge": "contract tests of the conversions",
        "sensor_msgs_py": "contract tests of the conversions",
        "launch_ros": "`ros2 launch anyseg_ros vehicle.launch.py`",
        "launch_testing": "tests of the launch files",
    }
    for module, use in purpose.items():
        found = installed(module)
        detail = "found" if found else "not found"
        command = install_command("tf2_ros_py" if module == "tf2_ros" else module)
        remedy = "" if found else f"for {use}; with a ROS 2 distribution: {command}"
        yield Finding(module, Level.OK if found else Level.OPTIONAL, detail, remedy)


def _engines() -> Iterator[Finding]:
    if installed("onnxruntime"):
        import onnxruntime  # deferred: 40 ms that other commands need not pay

        providers = ", ".join(p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers())
        yield Finding("onnxruntime", Level.OK, f"{onnxruntime.__version__}: {providers}")
    else:
        yield Finding("onnxruntime", Level.MISSING, "not found", pip_install("onnxruntime"))
    yield from _tensorrt()
    yield _gpu()
    torch = version_of("torch") if installed("torch") else ""
    remedy = "" if torch else f"only training needs it: {pip_command('train')}"
    yield Finding("torch", Level.OK if torch else Level.OPTIONAL, torch or "not found", remedy)


def _tensorrt() -> Iterator[Finding]:
    """TensorRT and what it needs below it, as far as that can be said without loading them."""
    remedy = f"on a machine with an NVIDIA GPU: {pip_command('gpu')} (Jetson: see docs/jetson.md)"
    titles = {
        "tensorrt": "tensorrt",
        "tensorrt_rtx": "tensorrt-rtx",
        "pycuda": "pycuda",
        "cuda.bindings": "cuda-bindings",
    }
    found = {title: version_of(title) or "found" for module, title in titles.items() if installed(module)}
    library = next((title for title in ("tensorrt", "tensorrt-rtx") if title in found), "")
    yield Finding(
        "TensorRT",
        Level.OK if library else Level.OPTIONAL,
        f"{library} {found[library]}" if library else "not found",
        "" if library else remedy,
    )
    below = [title for title in ("pycuda", "cuda-bindings") if title in found]
    detail = ", ".join(f"{title} {found[title]}" for title in below) or "not found"
    if below and shutil.which("nvidia-smi") is None:
        detail += ": without an NVIDIA driver; torch's CUDA build brings cuda-bindings to any machine"
        yield Finding("CUDA for Python", Level.OPTIONAL, detail, "none needed: onnxruntime runs on the CPU")
    else:
        yield Finding("CUDA for Python", Level.OK if below else Level.OPTIONAL, detail, "" if below else remedy)
    if below and "cuda-bindings" not in found:
        yield Finding("CUDA graphs", Level.OPTIONAL, "not without cuda-bindings", pip_install("cuda-bindings"))


def _jetson(root: Path = Path("/")) -> Iterator[Finding]:
    """Nothing on other machines."""
    jetson = read_jetson(root)
    if jetson is None:
        return
    level = Level.OK if jetson.supported else Level.MISSING
    detail = f"{jetson.board}, JetPack {jetson.jetpack} (Jetson Linux {jetson.linux})"
    yield Finding("Jetson", level, detail, "" if jetson.supported else "JetPack 6 or 7 is needed: see docs/jetson.md")
    fastest = next((mode for mode in jetson.modes if mode.startswith("MAXN")), "")
    slow = bool(fastest) and jetson.mode != fastest
    remedy = f"for full speed: `sudo nvpmodel -q`, then `sudo nvpmodel -m` with the number of {fastest}" if slow else ""
    yield Finding("Power mode", Level.OPTIONAL if slow else Level.OK, jetson.mode or "not known", remedy)
    if jetson.gpu_mhz:
        now, most = jetson.gpu_mhz
        remedy = "" if now >= most else "clocks follow the load; for steady latency: `sudo jetson_clocks`"
        detail = f"{now} of {most} MHz"
        yield Finding("GPU clock", Level.OPTIONAL if remedy else Level.OK, detail, remedy)
    if jetson.memory_mb:
        available, total = jetson.memory_mb
        enough = available >= JETSON_MEMORY_MB
        remedy = "" if enough else "an engine is built with about 2 GB: end other programs, or the desktop"
        detail = f"{available} of {total} MB available to CPU and GPU together"
        yield Finding("Memory", Level.OK if enough else Level.OPTIONAL, detail, remedy)


def _gpu() -> Finding:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return Finding("GPU", Level.OPTIONAL, "no NVIDIA driver here", "none needed: onnxruntime runs on the CPU")
    query = [smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    if answer.returncode:
        return Finding("GPU", Level.MISSING, answer.stdout.strip() or answer.stderr.strip(), "repair the NVIDIA driver")
    return Finding("GPU", Level.OK, answer.stdout.strip().replace("\n", "; "))


def _simulator() -> Iterator[Finding]:
    missing = [module for module in ("trimesh", "embreex") if not installed(module)]
    detail = "not found: " + ", ".join(missing) if missing else "trimesh, embreex"
    remedy = pip_command("sim") if missing else ""
    yield Finding("Simulator", Level.OPTIONAL if missing else Level.OK, detail, remedy)


def _replay() -> Iterator[Finding]:
    missing = [module for module in ("rosbags", "jinja2") if not installed(module)]
    detail = "not found: " + ", ".join(missing) if missing else "rosbags, jinja2"
    remedy = f"for bags, live fault injection and reports: {pip_command('replay')}" if missing else ""
    yield Finding("Replay", Level.OPTIONAL if missing else Level.OK, detail, remedy)


def _students() -> Iterator[Finding]:
    names = bundled_students()
    if not names:
        yield Finding("Students", Level.MISSING, "none bundled", "reinstall the package, or `make students`")
    for name in names:
        try:
            card = load_card(find_student(name))
        except StudentError as error:
            yield Finding(name, Level.MISSING, "unusable", str(error))
            continue
        height, width = card.input_size
        detail = f"{width}x{height}, {len(card.classes)} classes, {', '.join(str(m) for m in card.modalities)}"
        yield Finding(name, Level.OK, detail, usage_notice(card) or "")


SECTIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Machine": _machine,
    "ROS 2": _ros,
    "Transport": _transport,
    "ROS packages": _ros_packages,
    "Engines": _engines,
    "Simulator": _simulator,
    "Replay": _replay,
    "Students": _students,
}


def examine() -> dict[str, list[Finding]]:
    """Every finding of every section, in the order of `SECTIONS`."""
    return {title: list(section()) for title, section in SECTIONS.items()}


def report(console: Console, json_file: Path | None = None) -> bool:
    """Print the findings, and write them to a JSON file; returns whether this machine can run the robot side."""
    findings = examine()
    if json_file is not None:
        content = {title: [_as_json(row) for row in rows] for title, rows in findings.items()}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(content, indent=2) + "\n")
    for title, rows in findings.items():
        console.print(f"[bold]{title}[/]")
        subject_width = max(len(row.subject) for row in rows)
        for row in rows:
            _print_finding(console, row, subject_width)
        console.print()
    blocking = [row.subject for rows in findings.values() for row in rows if row.level is Level.MISSING]
    if blocking:
        console.print(f"[red]To run the node here, mend first:[/] {', '.join(blocking)}")
    else:
        console.print("[green]This machine can run the node.[/]")
    return not blocking


def _as_json(row: Finding) -> dict[str, str]:
    return {**asdict(row), "level": row.level.name.lower()}


LEVEL_WIDTH = max(len(level.name) for level in Level)
INDENT = 2


def _print_finding(console: Console, row: Finding, subject_width: int) -> None:
    """What was found on one line, the remedy below it. `Text` keeps brackets, which markup would swallow."""
    fixed = [Column(width=LEVEL_WIDTH), Column(width=subject_width)]
    line = Table.grid(*fixed, Column(overflow="fold"), padding=(0, 2, 0, 0))
    line.add_row(Text(row.level.name.lower(), row.level.value), Text(row.subject), Text(row.detail))
    console.print(Padding(line, (0, 0, 0, INDENT), expand=False))
    if row.remedy:
        remedy = Table.grid(Column(width=1), Column(overflow="fold"), padding=(0, 1, 0, 0))
        remedy.add_row("→", Text(row.remedy))
        console.print(Padding(remedy, (0, 0, 0, INDENT + LEVEL_WIDTH + 2), expand=False))
