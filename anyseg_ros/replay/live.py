"""`anyseg replay-live`: a bag into the live node, its masks scored with the code of the offline replay and compared
with its masks, stamp by stamp.

The offline replay comes first: it tells the node's parameters (rates, calibration) and what it should have made. Then
the node, the fault injector where faults are asked for, and the player run as processes, in the bag's time.
`launch/replay.launch.py` starts the three itself, with `ros2 bag play`, and this module only listens.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rich.console import Console
from rich.table import Table
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from anyseg_core.runtime.modality import MODALITIES, Modality
from anyseg_core.runtime.model_card import ModelCard, find_student, load_card
from anyseg_ros.bag_topics import COMPRESSED_IMAGE, find_companions, find_topics
from anyseg_ros.child_process import LiveRunError, child_process, ros_arguments
from anyseg_ros.conversions import image_view, stamp_ns
from anyseg_ros.demo.live import rig_parameters
from anyseg_ros.mask_outputs import STATE_QOS
from anyseg_ros.node_process import new_executor
from anyseg_ros.parameters import to_values
from anyseg_ros.replay.bag_reader import BagReader
from anyseg_ros.replay.bag_samples import label_image
from anyseg_ros.replay.ground_truth import TOLERANCE_NS, TopicLabels
from anyseg_ros.replay.mask_records import MaskRecord, read_records
from anyseg_ros.replay.mask_scoring import MadeMask, MaskScorer, ScoredMask, mask_hash
from anyseg_ros.replay.offline import MASKS, ReplayOptions, ReplayResult, ScenarioScore, replay
from anyseg_ros.replay.play_clock import PlayClock
from anyseg_ros.replay.scenarios import ALL_SENSORS, Scenario
from anyseg_ros.segmentation_node import NAME as NODE_NAME
from anyseg_ros.status_messages import MASK, PREFIX

OFFLINE, LIVE_MASKS, COMPARISON, LOG = "offline", "live_masks.jsonl", "comparison.json", "log"
INJECTED = "/injected"
"""Prefix of the sensors' topics between the player and the fault injector."""
START_TIMEOUT_S = 120.0
SILENCE_S = 3.0
"""Without a new time on /clock for so long, the player has ended."""
LATE_MS = 100.0
"""A live mask that arrives so much later than the offline one was begun, in the bag's time, is listed as late."""
LISTED = 20
LISTENING = "listening"
"""What is printed when the player may begin; the launch file waits for it."""


@dataclass(frozen=True)
class LiveOptions:
    """What to compare. Raises ValueError for an impossible rate."""

    bag: Path
    out: Path
    student: str = "vehicle_sim"
    faults: Path | None = None
    topics: Mapping[str, str] = field(default_factory=dict)
    """Role to topic, as in `ReplayOptions`."""
    rate: float = 1.0

    def __post_init__(self) -> None:
        PlayClock(self.rate)

    @property
    def scenario(self) -> str:
        """Of the offline replay that is compared with."""
        return self.faults.stem if self.faults else ALL_SENSORS


@dataclass(frozen=True)
class LivePlan:
    """How node, injector and player have to be started; topics are absolute."""

    node_parameters: Mapping[str, Any]
    injector_parameters: Mapping[str, Any]
    """Empty where no faults are asked for."""
    remap: Mapping[str, str]
    """Recorded topic -> the topic to play it on."""
    await_topics: tuple[str, ...]
    """As they are played: each must have a subscriber before the first message."""


@dataclass(frozen=True, eq=False)
class LiveMask:
    """A label image as it was heard, packed as PNG: a long bag has thousands."""

    stamp_ns: int
    late_ms: float
    """From its stamp to its arrival, in the bag's time."""
    hash: str
    png: NDArray[np.uint8]

    def labels(self) -> NDArray[np.uint8]:
        """uint8 [H, W]."""
        return np.asarray(cv2.imdecode(self.png, cv2.IMREAD_UNCHANGED), np.uint8)


@dataclass
class Heard:
    """Everything that the node said."""

    masks: list[LiveMask] = field(default_factory=list)
    used: dict[int, tuple[Modality, ...]] = field(default_factory=dict)
    """By the mask's stamp."""


@dataclass(frozen=True)
class Difference:
    """One moment at which live and offline are not the same."""

    kind: str
    """dropped, late, extra, sensors or pixels."""
    t_s: float
    """Of its stamp, since the first offline mask."""
    text: str


@dataclass(frozen=True)
class Comparison:
    """Live beside offline."""

    offline: ScenarioScore
    live: ScenarioScore
    same: int
    """Masks with the same sensors and the same pixels."""
    differences: tuple[Difference, ...]

    def of(self, *kinds: str) -> list[Difference]:
        return [difference for difference in self.differences if difference.kind in kinds]

    @property
    def is_equal(self) -> bool:
        """Whether every mask that both have is the same; what the live node did not manage to make is not counted."""
        return self.same > 0 and not self.of("pixels")


def prepare(options: LiveOptions) -> LivePlan:
    """Replay offline into `out`, and plan the live run. Raises what `replay` raises."""
    faults = (options.faults,) if options.faults else ()
    settings = ReplayOptions(student=options.student, topics=options.topics, faults=faults)
    return plan_of(options, replay(options.bag, options.out / OFFLINE, settings))


def plan_of(options: LiveOptions, result: ReplayResult) -> LivePlan:
    """The live run that corresponds to an offline one."""
    sensors = {m: choice.topic for m, choice in result.topics.sensors.items()}
    defaults = to_values()
    node: dict[str, Any] = {
        name: value for name, value in to_values(result.parameters).items() if value != defaults[name]
    }
    node |= {f"modalities.{m}.topic": topic for m, topic in sensors.items()}
    node |= {f"modalities.{m}.enabled": False for m in MODALITIES if m not in sensors}
    node |= {"use_sim_time": True, "autostart": True, "model.student": str(options.student)}
    if result.rig is not None:
        camera = result.rig.camera
        intrinsics = (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
        node |= {**rig_parameters(result.rig), "rig.intrinsics": [float(value) for value in intrinsics]}
    if options.faults is None:
        return LivePlan(node, {}, {}, tuple(sensors.values()))
    inputs = {topic: INJECTED + topic for topic in sensors.values()}
    injector: dict[str, Any] = {"use_sim_time": True, "scenario": str(options.faults.resolve())}
    for modality in MODALITIES:
        topic = sensors.get(modality, "")
        injector[f"topics.{modality}.output"] = topic
        injector[f"topics.{modality}.input"] = inputs.get(topic, "")
    return LivePlan(node, injector, inputs, tuple(inputs.values()))


def run_live(options: LiveOptions, console: Console, *, listen_only: bool = False) -> bool:
    """Run, compare, print and write `comparison.json`; returns `Comparison.is_equal`.

    With `listen_only` the node and the player are started by somebody else, and `out` has the offline replay already.
    Raises LiveRunError, and what `replay` raises.
    """
    if listen_only:
        heard = _listen_only(console)
    else:
        console.print(f"offline replay of {options.bag}")
        heard = _run_processes(options, prepare(options), console)
    comparison = compare(options, heard)
    print_comparison(comparison, console)
    _write(comparison, options.out / COMPARISON)
    return comparison.is_equal


# --- the live run ----------------------------------------------------------------------------------------------------


def _run_processes(options: LiveOptions, plan: LivePlan, console: Console) -> Heard:
    log = options.out / LOG
    with ExitStack() as processes, _listener() as listener:
        running = [
            processes.enter_context(child_process("segmentation_node", ros_arguments(plan.node_parameters), log))
        ]
        if plan.injector_parameters:
            arguments = ros_arguments(plan.injector_parameters)
            running.append(processes.enter_context(child_process("fault_injector_node", arguments, log)))
        _await_node(listener, running)
        console.print(f"playing {options.bag} at {options.rate:g} x")
        player = child_process("cli", play_arguments(options, plan), log, "play")
        return _listen(listener, [*running, processes.enter_context(player)])


def _listen_only(console: Console) -> Heard:
    with _listener() as listener:
        _await_node(listener, [])
        print(LISTENING, flush=True)  # not by the console, which may wrap it
        console.print(f"to /{NODE_NAME}, until /clock stands still")
        return _listen(listener, [])


def play_arguments(options: LiveOptions, plan: LivePlan) -> list[str]:
    """Of `anyseg` for the player."""
    arguments = ["play", str(options.bag), "--clock", "--rate", str(options.rate)]
    for recorded, published in plan.remap.items():
        arguments += ["--remap", f"{recorded}:={published}"]
    for topic in plan.await_topics:
        arguments += ["--await", topic]
    return arguments


@dataclass(frozen=True)
class _Spinning:
    """The listener and what makes it hear."""

    node: _Listener
    executor: Any

    def until(self, condition: Callable[[], bool], processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Spin until it is so. Raises LiveRunError where a process fails before, or nothing happens."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            self.executor.spin_once(timeout_sec=0.05)
            for process in processes:
                if process.poll() not in (None, 0):
                    raise LiveRunError(f"{process.args!r} ended with code {process.returncode}; see its log")
            if time.monotonic() > deadline and self.node.clock_heard_s is None:
                what = "no time on /clock" if self.node.node_is_up else f"nothing of /{NODE_NAME}"
                raise LiveRunError(f"{what} was heard within {START_TIMEOUT_S:.0f} s")


@contextmanager
def _listener() -> Iterator[_Spinning]:
    rclpy.init()
    node, executor = _Listener(), new_executor()
    executor.add_node(node)
    try:
        yield _Spinning(node, executor)
    finally:
        executor.remove_node(node)
        node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()


def _await_node(listener: _Spinning, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    listener.until(lambda: listener.node.node_is_up, processes)


def _listen(listener: _Spinning, processes: Sequence[subprocess.Popen[bytes]]) -> Heard:
    """What the node says until the bag's time stands still."""
    listener.until(lambda: listener.node.is_over(time.monotonic()), processes)
    return listener.node.heard


class _Listener(Node):
    """Hears masks, which sensors they were made from, and the bag's time."""

    def __init__(self) -> None:
        super().__init__("anyseg_replay_live", parameter_overrides=[Parameter("use_sim_time", value=True)])
        self.heard = Heard()
        self.clock_heard_s: float | None = None
        """When /clock last told a new time, of this process' clock."""
        self.node_is_up = False
        self._time: tuple[int, int] | None = None
        own = f"/{NODE_NAME}"
        self.create_subscription(Image, f"{own}/segmentation/mask", self._on_mask, QoSProfile(depth=100))
        status_qos = QoSProfile(depth=100, durability=STATE_QOS.durability)
        self.create_subscription(DiagnosticArray, f"{own}/modality_status", self._on_status, status_qos)
        self.create_subscription(Clock, "/clock", self._on_clock, QoSProfile(depth=100))

    def is_over(self, now_s: float) -> bool:
        """Whether the bag's time has been told, and has stood still for a while."""
        return self.clock_heard_s is not None and now_s - self.clock_heard_s > SILENCE_S

    def _on_mask(self, message: Image) -> None:
        labels = image_view(message, ("mono8",))
        late_ms = (self.get_clock().now().nanoseconds - stamp_ns(message.header)) / 1e6
        png = np.asarray(cv2.imencode(".png", labels)[1], np.uint8)
        self.heard.masks.append(LiveMask(stamp_ns(message.header), late_ms, mask_hash(labels), png))

    def _on_status(self, message: DiagnosticArray) -> None:
        self.node_is_up = True
        values = {s.name.removeprefix(PREFIX): {pair.key: pair.value for pair in s.values} for s in message.status}
        if MASK in values:
            used = [m for m in MODALITIES if values.get(f"{m} status", {}).get("used") == "true"]
            self.heard.used[stamp_ns(message.header)] = tuple(used)

    def _on_clock(self, message: Clock) -> None:
        now = message.clock.sec, message.clock.nanosec
        if now != self._time:
            self._time, self.clock_heard_s = now, time.monotonic()


# --- the comparison --------------------------------------------------------------------------------------------------


def compare(options: LiveOptions, heard: Heard) -> Comparison:
    """Score what was heard, and set it beside the records of the offline replay in `out`."""
    card = load_card(find_student(options.student), verify=False)
    classes = len(card.classes)
    records = [r for r in read_records(options.out / OFFLINE / MASKS) if r.scenario == options.scenario]
    offline, live = (_score(options.scenario, classes) for _ in range(2))
    for record in records:
        offline.add(record)
    with (options.out / LIVE_MASKS).open("w", encoding="utf-8") as file:
        for scored in _scored(options, heard, card):
            live.add(scored.record)
            file.write(scored.record.line() + "\n")
    same, differences = differences_between(records, heard)
    return Comparison(offline, live, same, tuple(differences))


def _score(name: str, classes: int) -> ScenarioScore:
    return ScenarioScore(Scenario(name, MODALITIES), classes)


def differences_between(records: Sequence[MaskRecord], heard: Heard) -> tuple[int, list[Difference]]:
    """How many live masks are those of the offline records, and what is different, in the order of the stamps."""
    made = {record.stamp_ns: record for record in records if not record.error}
    live = {mask.stamp_ns: mask for mask in heard.masks}
    start_ns = min([*made, *live], default=0)
    same, found = 0, []
    for stamp in sorted({*made, *live}):
        record, mask, t_s = made.get(stamp), live.get(stamp), (stamp - start_ns) / 1e9
        if mask is None:
            found.append(Difference("dropped", t_s, "made offline only"))
            continue
        if record is None:
            found.append(Difference("extra", t_s, "made live only"))
            continue
        used = heard.used.get(stamp, ())
        if used != record.used:
            text = f"live from {_names(used)}, offline from {_names(record.used)}"
            found.append(Difference("sensors", t_s, text))
        elif mask.hash != record.hash:
            found.append(Difference("pixels", t_s, f"other pixels from the same sensors, {_names(used)}"))
        else:
            same += 1
        if mask.late_ms > record.age_ms + LATE_MS:
            found.append(Difference("late", t_s, f"heard {mask.late_ms:.0f} ms after its stamp"))
    return same, found


def _names(used: Sequence[Modality]) -> str:
    return "+".join(used) or "unknown sensors"


def _scored(options: LiveOptions, heard: Heard, card: ModelCard) -> Iterator[ScoredMask]:
    """The live masks with their scores, by the scorer of the offline replay."""
    truth = TopicLabels()
    scorer = MaskScorer(len(card.classes), truth, 0, has_reference=False)
    masks = sorted(heard.masks, key=lambda mask: mask.stamp_ns)
    number = 0
    for stamp, labels in _labels(options):
        truth.add(stamp, labels)
        while number < len(masks) and masks[number].stamp_ns <= stamp + TOLERANCE_NS:
            scorer.add(_made(number, masks[number], options.scenario, heard))
            number += 1
        yield from scorer.scored(stamp)
    for rest in range(number, len(masks)):
        scorer.add(_made(rest, masks[rest], options.scenario, heard))
    yield from scorer.rest()


def _made(number: int, mask: LiveMask, scenario: str, heard: Heard) -> MadeMask:
    used, labels = heard.used.get(mask.stamp_ns, ()), mask.labels()
    first_ns = min(other.stamp_ns for other in heard.masks)
    record = MaskRecord(
        number=number,
        scenario=scenario,
        t_s=(mask.stamp_ns - first_ns) / 1e9,
        stamp_ns=mask.stamp_ns,
        anchor=used[0] if used else Modality.CAMERA,
        used=used,
        age_ms=mask.late_ms,
        size=(labels.shape[0], labels.shape[1]),
        hash=mask.hash,
        confidence=0.0,
        encode_ms=0.0,
        engine_ms=0.0,
    )
    return MadeMask(record, mask.stamp_ns, labels)


def _labels(options: LiveOptions) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Stamp and label image of the bag's ground truth; nothing where it has none."""
    reader = BagReader(options.bag)
    connections = [(choice.topic, choice.msgtype) for choice in reader.topics]
    mapping = dict(options.topics)
    card = load_card(find_student(options.student), verify=False)
    sensors = find_topics(connections, mapping, [spec.modality for spec in card.inputs])
    choice = find_companions(connections, sensors, mapping).labels
    store = get_typestore(Stores.ROS2_HUMBLE)
    for message in reader.messages({choice.topic} if choice else ()):
        decoded: Any = store.deserialize_cdr(message.cdr, message.msgtype)
        yield stamp_ns(decoded.header), label_image(decoded, compressed=message.msgtype == COMPRESSED_IMAGE)


# --- what is said of it ----------------------------------------------------------------------------------------------


def print_comparison(comparison: Comparison, console: Console) -> None:
    """A table and the first differences."""
    table = Table(title="live beside offline", title_justify="left")
    for column in ("", "masks", "scored", "mIoU %"):
        table.add_column(column, justify="left" if not column else "right")
    for name, score in (("offline", comparison.offline), ("live", comparison.live)):
        miou = f"{100 * score.confusion.miou():.1f}" if score.scored else "no labels"
        table.add_row(name, str(score.masks), str(score.scored), miou)
    console.print(table)
    counts = {kind: len(comparison.of(kind)) for kind in ("dropped", "late", "extra", "sensors", "pixels")}
    console.print(f"{comparison.same} the same; " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    for difference in comparison.differences[:LISTED]:
        console.print(f"  {difference.t_s:9.3f} s  {difference.kind:8} {difference.text}", soft_wrap=True)
    if len(comparison.differences) > LISTED:
        console.print(f"  and {len(comparison.differences) - LISTED} more: see {COMPARISON}")


def _write(comparison: Comparison, path: Path) -> None:
    content = {
        "same": comparison.same,
        "masks": {"offline": comparison.offline.masks, "live": comparison.live.masks},
        "miou": {
            name: score.confusion.miou() if score.scored else None
            for name, score in (("offline", comparison.offline), ("live", comparison.live))
        },
        "differences": [vars(difference) for difference in comparison.differences],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
