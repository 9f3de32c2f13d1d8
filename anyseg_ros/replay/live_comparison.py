"""The masks of a live node beside those of the offline replay of one bag: stamps, sensors, pixels, scores. No ROS."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rosbags.typesys import Stores, get_typestore

from anyseg_core.runtime.model_card import ModelCard, find_student, load_card
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, subset_name
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.bags.ground_truth import TopicLabels
from anyseg_ros.bags.reader import BagReader
from anyseg_ros.bags.samples import label_image
from anyseg_ros.bags.topics import find_companions, find_topics
from anyseg_ros.messages.conversions import stamp_ns
from anyseg_ros.messages.sensor_messages import COMPRESSED_IMAGE
from anyseg_ros.replay.mask_records import MaskRecord, read_records
from anyseg_ros.replay.mask_scoring import MadeMask, MaskScorer, ScoredMask
from anyseg_ros.replay.offline import MASKS
from anyseg_ros.replay.outcome import ScenarioScore
from anyseg_ros.replay.play_clock import PlayClock
from anyseg_ros.replay.scenarios import ALL_SENSORS, Scenario

OFFLINE, LIVE_MASKS, COMPARISON = "offline", "live_masks.jsonl", "comparison.json"
LATE_MS = 100.0
"""A live mask that arrives so much later than the offline one was begun, in the bag's time, is listed as late."""
LISTED = 20


@dataclass(frozen=True)
class LiveOptions:
    """What to compare. Raises ValueError for an impossible rate."""

    bag: Path
    out: Path
    student: str = "vehicle_sim"
    injections: Path | None = None
    topics: Mapping[str, str] = field(default_factory=dict)
    """Role to topic, as in `ReplayOptions`."""
    rate: float = 1.0

    def __post_init__(self) -> None:
        PlayClock(self.rate)

    @property
    def scenario(self) -> str:
        """Of the offline replay that is compared with."""
        return self.injections.stem if self.injections else ALL_SENSORS


@dataclass(frozen=True, eq=False)
class LiveMask:
    """A label image as it was received, packed as PNG: a long bag has thousands."""

    stamp_ns: int
    late_ms: float
    """From its stamp to its arrival, in the bag's time."""
    hash: str
    png: NDArray[np.uint8]

    def labels(self) -> NDArray[np.uint8]:
        """uint8 [H, W]."""
        return np.asarray(cv2.imdecode(self.png, cv2.IMREAD_UNCHANGED), np.uint8)


@dataclass
class LiveOutputs:
    """The masks that a live node published, and what each was made from."""

    masks: list[LiveMask] = field(default_factory=list)
    used: dict[int, tuple[Sensor, ...]] = field(default_factory=dict)
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


def compare(options: LiveOptions, outputs: LiveOutputs) -> Comparison:
    """Score what the node gave, and set it beside the records of the offline replay in `out`."""
    card = load_card(find_student(options.student), verify=False)
    classes = len(card.classes)
    records = [r for r in read_records(options.out / OFFLINE / MASKS) if r.scenario == options.scenario]
    offline, live = (_score(options.scenario, classes) for _ in range(2))
    for record in records:
        offline.add(record)
    with (options.out / LIVE_MASKS).open("w", encoding="utf-8") as file:
        for scored in _scored(options, outputs, card, _label_reach_ns(records)):
            live.add(scored.record)
            file.write(scored.record.line() + "\n")
    same, differences = differences_between(records, outputs)
    return Comparison(offline, live, same, tuple(differences))


def _score(name: str, classes: int) -> ScenarioScore:
    return ScenarioScore(Scenario(name, DEFAULT_SENSORS), classes)


def differences_between(records: Sequence[MaskRecord], outputs: LiveOutputs) -> tuple[int, list[Difference]]:
    """How many live masks are those of the offline records, and what is different, in the order of the stamps."""
    made = {record.stamp_ns: record for record in records if not record.error}
    live = {mask.stamp_ns: mask for mask in outputs.masks}
    start_ns = min([*made, *live], default=0)
    same, found = 0, []
    for stamp in sorted({*made, *live}):
        record, mask, t_s = made.get(stamp), live.get(stamp), (stamp - start_ns) / NS_PER_S
        if mask is None:
            found.append(Difference("dropped", t_s, "made offline only"))
            continue
        if record is None:
            found.append(Difference("extra", t_s, "made live only"))
            continue
        used = outputs.used.get(stamp, ())
        if used != record.used:
            text = f"live from {_names(used)}, offline from {_names(record.used)}"
            found.append(Difference("sensors", t_s, text))
        elif mask.hash != record.hash:
            found.append(Difference("pixels", t_s, f"other pixels from the same sensors, {_names(used)}"))
        else:
            same += 1
        if mask.late_ms > record.age_ms + LATE_MS:
            found.append(Difference("late", t_s, f"received {mask.late_ms:.0f} ms after its stamp"))
    return same, found


def _names(used: Sequence[Sensor]) -> str:
    return subset_name(used) or "unknown sensors"


def _label_reach_ns(offline: Iterable[MaskRecord]) -> int:
    """How far the label images of the offline replay were from their masks: those of the live one may be as far."""
    return max((abs(r.label_ns - r.stamp_ns) for r in offline if r.label_ns is not None), default=0)


def _scored(options: LiveOptions, outputs: LiveOutputs, card: ModelCard, reach_ns: int) -> Iterator[ScoredMask]:
    """The live masks with their scores, by the scorer of the offline replay."""
    truth = TopicLabels()
    scorer = MaskScorer(len(card.classes), truth, dict.fromkeys(card.modalities, reach_ns))
    masks = sorted(outputs.masks, key=lambda mask: mask.stamp_ns)
    number = 0
    for stamp, labels in _labels(options):
        truth.add(stamp, labels)
        while number < len(masks) and masks[number].stamp_ns <= stamp:
            scorer.add(_made(number, masks[number], masks[0].stamp_ns, options.scenario, outputs))
            number += 1
        yield from scorer.scored(stamp)
    for rest in range(number, len(masks)):
        scorer.add(_made(rest, masks[rest], masks[0].stamp_ns, options.scenario, outputs))
    yield from scorer.rest()


def _made(number: int, mask: LiveMask, first_ns: int, scenario: str, outputs: LiveOutputs) -> MadeMask:
    used, labels = outputs.used.get(mask.stamp_ns, ()), mask.labels()
    record = MaskRecord(
        number=number,
        scenario=scenario,
        t_s=(mask.stamp_ns - first_ns) / NS_PER_S,
        stamp_ns=mask.stamp_ns,
        anchor=used[0] if used else Sensor.CAMERA,
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


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Everything, as JSON."""
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
