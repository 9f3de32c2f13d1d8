"""What a replay has found: sums per scenario that can be added to those of other bags, and where its time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.model_card import ModelCard
from anyseg_core.runtime.sensors import Sensor
from anyseg_ros.bags.reader import Problem
from anyseg_ros.bags.samples import BagTopics
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.replay.even_frames import EvenFrames
from anyseg_ros.replay.mask_records import LABELS, MaskRecord
from anyseg_ros.replay.scenarios import Scenario
from anyseg_ros.replay.worst_frames import WorstFrames

Sums = dict[str, tuple[float, int]]
"""Of a record's values by their names: the sum, and over how many masks."""


def add_values(sums: Sums, record: MaskRecord, *names: str) -> None:
    """Add those values that the mask has."""
    for name in names:
        value = getattr(record, name)
        if value is not None:
            total, number = sums.get(name, (0.0, 0))
            sums[name] = total + value, number + 1


def mean_of(sums: Sums, name: str) -> float | None:
    """None where no mask has that value."""
    total, number = sums.get(name, (0.0, 0))
    return total / number if number else None


@dataclass
class ScenarioScore:
    """Sums over all masks of one scenario; those of several bags can be added."""

    scenario: Scenario
    num_classes: int
    masks: int = 0
    failures: int = 0
    """Masks that could not be made."""
    used: Counter[Sensor] = field(default_factory=Counter)
    """Masks that each sensor is in."""
    scored: int = 0
    """Masks that had a label image."""
    sums: Sums = field(default_factory=dict)
    """Of `agreement`, `changed`, `flicker`, `confidence`, `engine_ms` over the masks that have it."""

    def __post_init__(self) -> None:
        self.confusion = ConfusionMatrix(self.num_classes)
        """Against the label images."""
        self.against_reference = ConfusionMatrix(self.num_classes)
        """Against the masks from all sensors, of the masks without a label image."""

    def add(self, record: MaskRecord) -> None:
        """One mask more."""
        if record.error:
            self.failures += 1
            return
        self.masks += 1
        self.used.update(record.used)
        if record.cells:
            is_scored = record.against == LABELS
            self.scored += is_scored
            (self.confusion if is_scored else self.against_reference).merge(record.confusion(self.num_classes))
        add_values(self.sums, record, "agreement", "changed", "flicker", "confidence", "engine_ms")

    def mean(self, name: str) -> float | None:
        """Of one of `sums`; None where no mask has it."""
        return mean_of(self.sums, name)


@dataclass(frozen=True)
class Timings:
    """Seconds of real time."""

    wall_s: float
    """From the first message to the last record; opening the student and the bag is not in it."""
    engine_s: float
    encode_s: float
    runs: int
    """Of the network."""
    reused: int
    """Masks that needed none: another scenario had the same frames."""
    resumed: int
    """Masks that an interrupted run had made."""


@dataclass(frozen=True)
class ReplayResult:
    """What a replay has found."""

    bag: Path
    out: Path | None
    card: ModelCard
    engine: str
    """What ran, in words."""
    parameters: Parameters
    """As used: the rates are those of the bag where none were given."""
    topics: BagTopics
    start_ns: int
    duration_s: float
    scores: Mapping[str, ScenarioScore]
    """By the scenario's name, the one with all sensors first."""
    received: Mapping[Sensor, int]
    """Frames."""
    rejected: Mapping[Sensor, int]
    """Messages of a sensor that were no frame."""
    rejections: Mapping[Sensor, Mapping[str, int]]
    """Why they were none: the reasons with their counts."""
    labels: tuple[str, int]
    """Where the label images come from, empty where there are none, and how many there are."""
    problems: Sequence[Problem]
    """What was wrong with the bag, and what was ignored."""
    notes: Sequence[str]
    """What was assumed."""
    timings: Timings
    worst: WorstFrames
    even: EvenFrames
    rig: Rig | None

    @property
    def scenarios(self) -> list[Scenario]:
        """In the order in which they were asked for."""
        return [score.scenario for score in self.scores.values()]
