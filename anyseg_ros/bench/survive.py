"""`anyseg bench survive`: attacks on a live node, and a soak with random faults and storms of requests.

Every attack has a node of its own, as a process. It is driven until its masks have every sensor, attacked, and left
alone until they have again. What counts: masks lost, time to recover, memory kept, and how the process ended; and, by
an independent subscriber, that no mask was old and no claim and no level untrue.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from anyseg_core.runtime.model_card import CARD_NAME, find_student
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, LIDAR
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.terminal import progress_bar
from anyseg_ros.bench.attack_messages import (
    MALFORMED,
    ODOMETRY_IS_HERE,
    absurd_odometry,
    far_odometry,
    forged_jpeg,
    malformed_image,
)
from anyseg_ros.bench.observer import Heard, Observer, old_masks, silent_s, untrue_claims, untrue_levels
from anyseg_ros.bench.results import Benchmark
from anyseg_ros.bench.robot import DRIVE_S, resident_mb
from anyseg_ros.bench.soak import random_plan
from anyseg_ros.bench.survive_lab import COMPRESSED, RATE_HZ, Lab, Storm
from anyseg_ros.demo.run import DemoOptions, isolated_ros_domain, rendered_drive
from anyseg_ros.live_run.recording import Recording
from anyseg_ros.live_run.run import LiveRun, record
from anyseg_ros.messages.default_topics import CAMERA_INFO, DEFAULT_TOPICS, DEPTH_INFO, ODOMETRY
from anyseg_ros.messages.types import message_class
from anyseg_ros.node.segmentation_node import NAME
from anyseg_ros.pipeline import parameters as node_parameters
from anyseg_ros.pipeline.output_parameters import OutputParameters
from anyseg_ros.process.node_process import ros

START_S = 60.0
BEFORE_S = 4.0
"""Undisturbed, to know how many masks there should be."""
RECOVER_S = 20.0
"""The bar: sensors that were failed come back after `recover_time_s`, which grows to 8 s; the rest is the machine's."""
KEPT_MB = 60.0
"""The bar: caches and the allocator may keep that much more than before."""
OPEN_S = 30.0
"""The bar: a student that cannot be opened has ended the process by then."""
SLACK_MS = 50.0
"""A mask's age is checked right before it is written; the rest is the scheduler's."""
PARAMETER_EXTREMES = (0.0, -1.0, 1e308, -1e308, float("nan"), float("inf"), 3e9)
INTEGER_EXTREMES = (0, -1, 2**62, -(2**62))
AT_ONCE = 10
"""Parameters of one request."""
SOAK_MUTE_S = 5.0
"""The bar: diagnostics come once a second."""
STORM_CALLS = 6
"""At every frame of the drive, five times a second."""


@dataclass(frozen=True)
class Attack:
    """Something that must not end the node."""

    name: str
    run: Callable[[Lab], None]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of the node."""
    may_lose_s: float = 2.0
    """The bar: masks of so much time may be missing; what the attack itself takes away is in it."""


# --- the attacks -----------------------------------------------------------------------------------------------------


def far_away(lab: Lab) -> None:
    """Odometry that jumps between 1e308 and -1e308 m, then every other absurd pose and twist."""
    if not ODOMETRY_IS_HERE:
        return
    odometry = message_class("nav_msgs/msg/Odometry")
    assert odometry is not None
    publish, rng = lab.send(odometry, ODOMETRY), np.random.default_rng(1)
    for message in itertools.islice(far_odometry(), 20):
        publish(message)
        lab.spin(0.1)
    for _ in range(100):
        publish(absurd_odometry(rng))
        lab.spin(0.02)


def malformed_messages(lab: Lab) -> None:
    """On every topic of the node, beside the drivers' own messages."""
    rng = np.random.default_rng(2)
    kinds = {DEFAULT_TOPICS[s]: PointCloud2 if s.kind is LIDAR else Image for s in DEFAULT_SENSORS}
    kinds |= {CAMERA_INFO: CameraInfo, DEPTH_INFO: CameraInfo}
    senders = [(lab.send(kind, topic), MALFORMED[kind]) for topic, kind in kinds.items()]
    for _ in range(30):
        for publish, make in senders:
            publish(make(rng))
            lab.spin(0.03)


def forged_headers(lab: Lab) -> None:
    """JPEGs of some kilobytes that say 8192 x 8192, twice a second, and some of other sides."""
    publish = lab.send(CompressedImage, COMPRESSED)
    for side in (8192, 65_535, 8192, 1, 8192, 0) * 4:
        publish(forged_jpeg(side=side))
        lab.spin(0.5)


def stopped(lab: Lab) -> None:
    """SIGSTOP for 5 s and SIGCONT, twice."""
    for _ in range(2):
        lab.stop_process(5.0)
        lab.spin(5.0)


def requests_while_it_lives_and_dies(lab: Lab) -> None:
    """Life cycles with requests to every service at every moment."""
    client = lab.node.create_client(ChangeState, f"{NAME}/change_state")
    storm = Storm(lab.node, lambda: lab.spin(0.01))
    cycle = (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
    )
    for transition in cycle * 5:
        future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        while not future.done() and lab.lives:
            storm.go_on(5)
            lab.spin(0.02)
    lab.spin_until(lambda: storm.answered == storm.asked, START_S)
    if storm.answered < storm.asked:
        raise UnansweredError(f"{storm.asked - storm.answered} of {storm.asked} requests have no answer")
    for sensor in DEFAULT_SENSORS:
        _set(lab, {f"modalities.{sensor}.enabled": True})


def extreme_parameters(lab: Lab) -> None:
    """Every number at its extremes and beyond; what was accepted is set back."""
    names = [n for n, v in node_parameters.to_values(node_parameters.Parameters()).items() if _is_number(v)]
    before = lab.call(GetParameters, "get_parameters", GetParameters.Request(names=names))
    if before is None:
        raise UnansweredError("get_parameters has no answer")
    was = {
        n: v.integer_value if v.type == INTEGER else v.double_value for n, v in zip(names, before.values, strict=True)
    }
    for extreme in PARAMETER_EXTREMES:
        _set(lab, {name: extreme for name, value in was.items() if isinstance(value, float)})
    for number in INTEGER_EXTREMES:
        _set(lab, {name: number for name, value in was.items() if isinstance(value, int)})
    _set(lab, was)


def silence(lab: Lab) -> None:
    """Nothing from any sensor: the drivers rest while the node goes on."""
    end = time.monotonic() + 6.0
    while time.monotonic() < end and lab.lives:
        time.sleep(0.05)


def pictures_as_points(lab: Lab) -> None:
    """A second publisher on the camera's topic that sends rubbish a hundred times a second."""
    publish, rng = lab.send(Image, DEFAULT_TOPICS[DEFAULT_SENSORS[0]]), np.random.default_rng(3)
    for _ in range(500):
        publish(malformed_image(rng))
        lab.spin(0.01)


INTEGER = Parameter.Type.INTEGER.value
ATTACKS: Sequence[Attack] = (
    Attack("odometry 1e308", far_away),
    Attack("malformed messages", malformed_messages, may_lose_s=20.0),
    Attack("flood of rubbish", pictures_as_points, may_lose_s=5.0),
    Attack("forged JPEG headers", forged_headers, {"modalities.camera.topic": COMPRESSED}, may_lose_s=5.0),
    Attack("SIGSTOP and SIGCONT", stopped, may_lose_s=22.0),
    Attack("requests in every state", requests_while_it_lives_and_dies, may_lose_s=600.0),
    Attack("parameters at extremes", extreme_parameters, may_lose_s=600.0),
    Attack("no sensor lives", silence, may_lose_s=8.0),
)
"""`may_lose_s` is wide where the attack itself stops the node, fails its sensors or changes what it does."""
NO_ATTACK = "none"


class UnansweredError(Exception):
    """A request that the node did not answer."""


def _set(lab: Lab, values: Mapping[str, Any]) -> None:
    """Set parameters, some at a time; refusals are answers. Raises UnansweredError."""
    names = iter(values)
    while some := list(itertools.islice(names, AT_ONCE)):
        request = SetParameters.Request(parameters=[Parameter(n, value=values[n]).to_parameter_msg() for n in some])
        if lab.call(SetParameters, "set_parameters", request) is None and lab.lives:
            raise UnansweredError(f"set_parameters of {', '.join(some)} has no answer")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- students that cannot be opened ----------------------------------------------------------------------------------


def broken_students(student: str, folder: Path) -> Mapping[str, Path]:
    """Copies of a student, each with another damage, by its name."""
    source, made = find_student(student), {}
    for name, damage in _DAMAGES.items():
        made[name] = folder / name.replace(" ", "_")
        shutil.rmtree(made[name], ignore_errors=True)
        shutil.copytree(source, made[name])
        damage(made[name])
    return made


def _cut_networks(folder: Path) -> None:
    for network in folder.glob("*.onnx"):
        network.write_bytes(network.read_bytes()[:1000])


def _nan_in_card(folder: Path) -> None:
    card = folder / CARD_NAME
    card.write_text(card.read_text().replace("0.485", "NaN", 1).replace('"std": [', '"std": [NaN, ', 1))


_DAMAGES: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        "student without a card": lambda folder: (folder / CARD_NAME).unlink(),
        "student cut short": _cut_networks,
        "student with NaN": _nan_in_card,
    }
)


# --- the run ---------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What an attack did."""

    name: str
    lost: float = 0.0
    """Masks, by the rate before the attack."""
    recover_s: float = float("inf")
    kept_mb: float = 0.0
    exit_code: int | None = None
    may_lose: float = float("inf")
    faults: list[str] = field(default_factory=list)
    """Untrue or old, in words."""
    expected_code: int = 0

    def broken(self) -> list[str]:
        """Bars that were missed, in words."""
        bars = {
            f"{self.lost:.0f} masks lost, {self.may_lose:.0f} may be": self.lost > self.may_lose,
            f"not recovered within {RECOVER_S:g} s": self.recover_s > RECOVER_S,
            f"{self.kept_mb:.0f} MB kept": self.kept_mb > KEPT_MB,
            f"exit code {self.exit_code}": self.exit_code != self.expected_code,
        }
        return [*(text for text, missed in bars.items() if missed), *self.faults]


def run(
    console: Console, json_path: Path | None, *, out: Path, student: str, minutes: float, only: Sequence[str]
) -> bool:
    """Attack, then drive for so many minutes; print and write the figures; returns whether every bar was met.

    `only` names the attacks; none = all. Raises ValueError for a name that is none, StudentError, LiveRunError where
    the node of the soak dies.
    """
    unknown = set(only) - {attack.name for attack in ATTACKS} - set(_DAMAGES) - {NO_ATTACK}
    if unknown:
        known = ", ".join([*(attack.name for attack in ATTACKS), *_DAMAGES])
        raise ValueError(f"no attack {', '.join(sorted(unknown))}; known: {known}")
    folder = out / "survive"
    drive = rendered_drive(DemoOptions(out, Path(), student, duration_s=DRIVE_S, rate_hz=RATE_HZ), console)
    result = Benchmark("Survive")
    with isolated_ros_domain(), ros():
        outcomes = _attack(console, RecordedDrive.load(drive), student, folder, only)
        if outcomes:
            print_outcomes(console, outcomes)
        _add_outcomes(result, outcomes)
        if minutes > 0:
            _soak(result, drive, student, folder, minutes)
    return result.report(console, json_path)


def _attack(console: Console, drive: RecordedDrive, student: str, folder: Path, only: Sequence[str]) -> list[Outcome]:
    lab, outcomes = Lab(drive, student, folder), []
    try:
        for attack in (attack for attack in ATTACKS if not only or attack.name in only):
            console.print(f"attack: {attack.name}")
            outcomes.append(attacked(lab, attack))
        for name, broken in broken_students(student, folder).items():
            if not only or name in only:
                console.print(f"attack: {name}")
                outcomes.append(not_opened(lab, name, broken))
    finally:
        lab.close()
    return outcomes


def attacked(lab: Lab, attack: Attack) -> Outcome:
    """A node's life with one attack in it."""
    outcome = Outcome(attack.name)
    with lab.running(attack.name, attack.parameters):
        if lab.spin_until(lab.segments_with_all, START_S):
            _attack_now(lab, attack, outcome)
        else:
            outcome.faults.append(f"no mask of every sensor within {START_S:g} s, but {_heard_last(lab)}")
    outcome.exit_code = lab.exit_code
    outcome.faults += untruths(lab.observer.forget())
    return outcome


def _heard_last(lab: Lab) -> str:
    """What a node without a mask of every sensor delivers instead."""
    heard = lab.observer.heard
    used = heard.used.get(heard.masks[-1].stamp_ns, ()) if heard.masks else ()
    said = heard.levels[-1].message if heard.levels else "nothing"
    return f"{len(heard.masks)} masks, the last of {'+'.join(used) or 'nothing'}; it says: {said}"


def _attack_now(lab: Lab, attack: Attack, outcome: Outcome) -> None:
    begun_ns = time.time_ns()
    lab.spin(BEFORE_S)
    rate_hz = lab.observer.heard.masks_between(begun_ns, time.time_ns()) / BEFORE_S
    before_mb, attacked_ns = resident_mb(lab.process.pid), time.time_ns()
    try:
        attack.run(lab)
    except UnansweredError as error:
        outcome.faults.append(str(error))
    ended_ns = time.time_ns()
    if _recovered(lab, ended_ns):
        outcome.recover_s = (time.time_ns() - ended_ns) / NS_PER_S
        outcome.kept_mb = max(0.0, resident_mb(lab.process.pid) - before_mb)
    attack_s = (ended_ns - attacked_ns) / NS_PER_S
    made = lab.observer.heard.masks_between(attacked_ns, ended_ns)
    outcome.lost, outcome.may_lose = max(0.0, rate_hz * attack_s - made), rate_hz * attack.may_lose_s


def _recovered(lab: Lab, since_ns: int) -> bool:
    """Drive until a mask that was written after that time has every sensor in it; False where none came."""

    def is_new() -> bool:
        masks = lab.observer.heard.masks
        return bool(masks) and masks[-1].stamp_ns > since_ns and lab.segments_with_all()

    return lab.spin_until(is_new, 2 * RECOVER_S)


def not_opened(lab: Lab, name: str, student: Path) -> Outcome:
    """A node with a student that cannot be used: it ends, with code 1."""
    outcome, begun = Outcome(name, expected_code=1), time.monotonic()
    with lab.running(name, {"model.student": student}):
        while lab.lives and time.monotonic() - begun < OPEN_S:
            lab.spin(0.2)
        if lab.lives:
            outcome.faults.append(f"it did not end within {OPEN_S:g} s")
        outcome.recover_s = 0.0
    outcome.exit_code = lab.exit_code
    lab.observer.forget()
    return outcome


def untruths(heard: Heard) -> list[str]:
    """What an independent subscriber holds against a node."""
    limit_ms = OutputParameters.max_mask_age_ms
    return [*old_masks(heard, limit_ms + SLACK_MS), *untrue_claims(heard, limit_ms), *untrue_levels(heard)]


def print_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """One row an attack."""
    table = Table(
        "attack", "masks lost", "recovered after, s", "memory kept, MB", "exit code", "", title_justify="left"
    )
    for o in outcomes:
        verdict = "[green]survived[/]" if not o.broken() else f"[red]{'; '.join(o.broken()[:3])}[/]"
        table.add_row(o.name, f"{o.lost:.0f}", f"{o.recover_s:.1f}", f"{o.kept_mb:.0f}", str(o.exit_code), verdict)
    console.print(table)


def _add_outcomes(result: Benchmark, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        broken = outcome.broken()
        result.add(f"{outcome.name}: survived", "", [not broken], "= 1", not broken)
        result.add(f"{outcome.name}: masks lost", "", [outcome.lost], listed=False)
        result.add(f"{outcome.name}: recovered after", "s", [min(outcome.recover_s, 1e6)], listed=False)
        result.add(f"{outcome.name}: memory kept", "MB", [outcome.kept_mb], listed=False)
        result.add(
            f"{outcome.name}: exit code", "", [-999 if outcome.exit_code is None else outcome.exit_code], listed=False
        )
        result.notes += [f"{outcome.name}: {text}" for text in broken]


# --- the soak --------------------------------------------------------------------------------------------------------


def _soak(result: Benchmark, drive: Path, student: str, folder: Path, minutes: float) -> None:
    """Random faults on every sensor, and a storm of requests all the while.

    Raises LiveRunError where a process dies.
    """
    plan = random_plan(60.0 * minutes, seed=0)
    schedule = folder / "faults.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    schedule.write_text(yaml.safe_dump({"seed": 0, "injections": [dict(fault) for fault in plan.faults]}))
    expected = {f"modalities.{s}.expected_rate_hz": RATE_HZ for s in DEFAULT_SENSORS}
    unpacked = {"unpack_first": True}
    live = LiveRun(drive, student, schedule, 60.0 * minutes, expected, unpacked, False, folder / "soak")
    topics = {str(s): (PointCloud2 if s.kind is LIDAR else Image, DEFAULT_TOPICS[s]) for s in DEFAULT_SENSORS}
    observer = Observer(NAME, topics)
    storm = Storm(observer.node)
    try:
        with progress_bar(f"driving with {len(plan.faults)} faults and storms", round(60 * minutes)) as progress:

            def on_progress(driven_s: float, _recording: Recording) -> None:
                progress(round(driven_s), round(60 * minutes))
                storm.go_on(STORM_CALLS)

            record(live, on_progress)
        time.sleep(2.0)  # for the last answers
    finally:
        observer.close()
    _add_soak(result, observer.heard, storm.asked, storm.asked - storm.answered, len(plan.faults))


def _add_soak(result: Benchmark, heard: Heard, asked: int, unanswered: int, faults: int) -> None:
    """That the node lived is said by there being something to judge."""
    limit_ms = OutputParameters.max_mask_age_ms
    kinds = {
        "old masks": old_masks(heard, limit_ms + SLACK_MS),
        'untrue "used"': untrue_claims(heard, limit_ms),
        "untrue levels": untrue_levels(heard),
    }
    ages = [(mask.written_ns - mask.stamp_ns) / 1e6 for mask in heard.masks]
    result.add("soak: age of a mask when it is written", "ms", ages)
    result.add("soak: faults injected", "", [faults])
    result.add("soak: levels judged", "", [len(heard.levels)])
    result.add("soak: requests", "", [asked])
    result.add("soak: requests without an answer", "", [unanswered], "= 0", unanswered == 0)
    for name, found in kinds.items():
        result.add(f"soak: {name}", "", [len(found)], "= 0", not found)
        result.notes += found[:10]
    mute_s = silent_s(heard)
    result.add("soak: longest time between two levels", "s", [mute_s], f"<= {SOAK_MUTE_S:g}", mute_s <= SOAK_MUTE_S)
