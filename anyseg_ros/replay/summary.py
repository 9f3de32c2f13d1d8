"""masks.jsonl and states.jsonl -> figures by scenario and phase, for results and report, in one pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from anyseg_core.injection.phases import Phase, phases_of
from anyseg_core.runtime.health.monitor import State
from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_MS
from anyseg_ros.replay.mask_records import LABELS, MaskRecord, read_records
from anyseg_ros.replay.offline import MASKS, STATES, ReplayResult
from anyseg_ros.replay.outcome import Sums, add_values, mean_of
from anyseg_ros.replay.scenarios import ALL_SENSORS, Scenario

TIME_BINS = 150
"""Points of a curve over time, whatever the bag's length."""
_LONGEST_MS = 10_000


class Histogram:
    """Times in whole milliseconds, up to ten seconds: percentiles without keeping the values."""

    def __init__(self) -> None:
        self._counts = np.zeros(_LONGEST_MS + 1, np.int64)
        self.highest = 0.0

    def add(self, value_ms: float) -> None:
        self._counts[int(min(max(value_ms, 0.0), _LONGEST_MS))] += 1
        self.highest = max(self.highest, value_ms)

    def percentile(self, percent: float) -> float | None:
        """To the millisecond; None where nothing was added."""
        total = int(self._counts.sum())
        if total == 0:
            return None
        return float(np.searchsorted(np.cumsum(self._counts), percent / 100 * total))


@dataclass(eq=False)
class Tally:
    """Sums over the masks of a stretch of one scenario."""

    num_classes: int
    start_s: float
    end_s: float
    hold_s: float
    """How long a mask stands for what is there: the greatest age that the node allows a frame."""
    masks: int = 0
    failures: int = 0
    used: Counter[tuple[Sensor, ...]] = field(default_factory=Counter)
    _covered_s: float = 0.0
    _reached_s: float = 0.0

    def __post_init__(self) -> None:
        self.confusion = ConfusionMatrix(self.num_classes)
        """Against label images."""
        self.agreement = ConfusionMatrix(self.num_classes)
        """Against the masks from all sensors, of the masks that have no label image: never mixed with the other."""
        self.age_ms, self.engine_ms = Histogram(), Histogram()
        self._sums: Sums = {}
        self._reached_s = self.start_s

    def add(self, record: MaskRecord, matrix: ConfusionMatrix) -> None:
        """The next mask, and its confusion matrix."""
        if record.error:
            self.failures += 1
            return
        self.masks += 1
        self.used[record.used] += 1
        self.age_ms.add(record.age_ms)
        self.engine_ms.add(record.engine_ms)
        (self.confusion if record.against == LABELS else self.agreement).merge(matrix)
        add_values(self._sums, record, "agreement", "changed", "flicker", "confidence")
        until_s = min(record.t_s + self.hold_s, self.end_s)
        self._covered_s += max(0.0, until_s - max(record.t_s, self._reached_s))
        self._reached_s = max(self._reached_s, until_s)

    def mean(self, name: str) -> float | None:
        """Of agreement, changed, flicker or confidence, 0..1; None where no mask has it."""
        return mean_of(self._sums, name)

    @property
    def miou(self) -> float | None:
        """Against label images, 0..1; None where no mask had one."""
        return _miou(self.confusion)

    @property
    def agreement_miou(self) -> float | None:
        """Against the masks from all sensors, 0..1; None where there are none to compare with."""
        return _miou(self.agreement)

    @property
    def rate_hz(self) -> float | None:
        return self.masks / (self.end_s - self.start_s) if self.end_s > self.start_s else None

    @property
    def coverage(self) -> float | None:
        """Share of the time during which the newest mask was at most `hold_s` old."""
        return self._covered_s / (self.end_s - self.start_s) if self.end_s > self.start_s else None


def _miou(matrix: ConfusionMatrix) -> float | None:
    value = matrix.miou()
    return None if np.isnan(value) else value


@dataclass(eq=False)
class PhaseTally:
    """A phase of a scenario, and the masks from all sensors of the same time."""

    phase: Phase
    tally: Tally
    baseline: Tally
    reaction_s: float | None = None
    """From the phase's beginning to the first mask without its faulty sensors; None where there is none."""

    def add(self, record: MaskRecord, matrix: ConfusionMatrix) -> None:
        """A mask of the scenario in this phase, and its confusion matrix."""
        self.tally.add(record, matrix)
        faulty = {entry.modality for entry in self.phase.injections}
        if faulty and self.reaction_s is None and not record.error and not faulty & set(record.used):
            self.reaction_s = record.t_s - self.phase.start_s


@dataclass(eq=False)
class ScenarioSummary:
    """One scenario: as a whole, by phase, and over time."""

    scenario: Scenario
    tally: Tally
    phases: list[PhaseTally]
    curve: _Curve
    spans: dict[Sensor, list[tuple[float, float, State]]] = field(default_factory=dict)
    """The states of each sensor, (start, end, state) in seconds."""
    faults_seen: dict[Sensor, list[tuple[float, str]]] = field(default_factory=dict)
    """(seconds, fault) of each sensor, as the monitors named them."""

    def phases_at(self, at_s: float) -> list[PhaseTally]:
        return [tally for tally in self.phases if tally.phase.start_s <= at_s < tally.phase.end_s]


class _Curve:
    """mIoU over time, in bins."""

    def __init__(self, num_classes: int, duration_s: float) -> None:
        self._bin_s = max(duration_s / TIME_BINS, 0.1)
        self._sums = np.zeros((int(duration_s / self._bin_s) + 2, 3, num_classes), np.int64)

    def add(self, record: MaskRecord, matrix: ConfusionMatrix) -> None:
        sums = self._sums[min(int(record.t_s / self._bin_s), len(self._sums) - 1)]
        counts = matrix.counts
        sums += [np.diagonal(counts), counts.sum(axis=1), counts[:, : counts.shape[0]].sum(axis=0)]

    def points(self) -> list[tuple[float, float]]:
        """(seconds, mIoU 0..1) of the bins with masks."""
        hit, true, predicted = self._sums.transpose(1, 0, 2)  # [bins, K] each
        iou: NDArray[np.float64] = hit / np.maximum(true + predicted - hit, 1)
        present = true > 0
        return [
            ((index + 0.5) * self._bin_s, float(iou[index][present[index]].mean()))
            for index in np.flatnonzero(present.any(axis=1)).tolist()
        ]


@dataclass(frozen=True)
class LabelUse:
    """What became of the label images."""

    origin: str
    """Topic or folder; empty where there is none."""
    available: int
    used: int
    """Those that a mask was scored with."""
    median_offset_ms: float = 0.0
    """Between a label image and the anchor of its mask."""

    def __str__(self) -> str:
        if not self.origin:
            return "no label images"
        offset = f", {self.median_offset_ms:.3g} ms (median) from the frames" if self.median_offset_ms >= 1.0 else ""
        return f"{self.used} of {self.available} label images of {self.origin} were used{offset}"


@dataclass(frozen=True, eq=False)
class Summary:
    """Everything that results and report say about the masks."""

    scenarios: Mapping[str, ScenarioSummary]
    classes: Sequence[str]
    labels: LabelUse

    @property
    def has_labels(self) -> bool:
        """Whether scores are accuracies; else they say how far the masks agree with those from all sensors."""
        return self.labels.used > 0

    def score(self, tally: Tally) -> float | None:
        """The mIoU that `has_labels` names, 0..1."""
        return tally.miou if self.has_labels else tally.agreement_miou

    def matrix(self, tally: Tally) -> ConfusionMatrix:
        """What that score is of."""
        return tally.confusion if self.has_labels else tally.agreement

    def masks_with(self) -> Counter[Sensor]:
        """Masks of the scenario with all sensors that each sensor is in."""
        counts: Counter[Sensor] = Counter()
        for used, masks in self.reference.tally.used.items():
            counts.update(dict.fromkeys(used, masks))
        return counts

    @property
    def reference(self) -> ScenarioSummary:
        """The scenario with all sensors."""
        return self.scenarios[ALL_SENSORS]


def summarise(result: ReplayResult, out: Path) -> Summary:
    """Read the files of a replay once."""
    classes = [spec.name for spec in result.card.classes]
    hold_s = max(result.parameters.modalities[m].max_age_ms for m in result.topics.sensors) / 1000.0
    scenarios = {s.name: _empty(s, len(classes), result.duration_s, hold_s) for s in result.scenarios}
    with_faults = [s for s in scenarios.values() if s.scenario.schedule is not None]
    against = LABELS if any(score.scored for score in result.scores.values()) else ALL_SENSORS
    offsets_ms: dict[int, float] = {}  # by the label image's stamp
    for record in read_records(out / MASKS):
        summary = scenarios[record.scenario]
        if record.label_ns is not None:
            offsets_ms[record.label_ns] = abs(record.stamp_ns - record.label_ns) / NS_PER_MS
        matrix = record.confusion(len(classes))
        summary.tally.add(record, matrix)
        if record.cells and record.against == against:
            summary.curve.add(record, matrix)
        for phase in summary.phases_at(record.t_s):
            phase.add(record, matrix)
        if record.scenario == ALL_SENSORS:
            for phase in chain.from_iterable(other.phases_at(record.t_s) for other in with_faults):
                phase.baseline.add(record, matrix)
    _add_states(scenarios, out / STATES, result.duration_s)
    labels = LabelUse(*result.labels, len(offsets_ms), median(offsets_ms.values() or [0.0]))
    return Summary(scenarios, classes, labels)


def _empty(scenario: Scenario, num_classes: int, duration_s: float, hold_s: float) -> ScenarioSummary:
    faults = scenario.schedule.injections if scenario.schedule else ()
    end_s = duration_s + 1e-3  # the last mask is begun at the very end

    def tally(start: float, end: float) -> Tally:
        return Tally(num_classes, start, end, hold_s)

    phases = [
        PhaseTally(phase, tally(phase.start_s, phase.end_s), tally(phase.start_s, phase.end_s))
        for phase in phases_of(faults, end_s)
    ]
    return ScenarioSummary(scenario, tally(0.0, end_s), phases, _Curve(num_classes, duration_s))


def _add_states(scenarios: Mapping[str, ScenarioSummary], path: Path, duration_s: float) -> None:
    """Changes of state -> spans. Spans too short to be seen are swallowed by the one before."""
    shortest_s = duration_s / 2000
    for line in _lines(path):
        summary = scenarios[line["scenario"]]
        modality, at_s = Sensor(line["modality"]), float(line["t_s"])
        spans = summary.spans.setdefault(modality, [])
        if spans:
            start, _, state = spans.pop()
            if at_s - start >= shortest_s:
                spans.append((start, at_s, state))
            elif spans:
                at_s = start
        spans.append((at_s, duration_s, State(line["state"])))
        if line["fault"]:
            summary.faults_seen.setdefault(modality, []).append((at_s, line["fault"]))


def _lines(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


@dataclass(frozen=True)
class ClassLoss:
    """IoU of one class with and without something, 0..1."""

    name: str
    before: float
    after: float

    @property
    def lost(self) -> float:
        return self.before - self.after


def class_losses(classes: Sequence[str], before: ConfusionMatrix, after: ConfusionMatrix) -> list[ClassLoss]:
    """Of the classes that occur in both, the greatest loss first."""
    pairs = zip(classes, before.iou(), after.iou(), strict=True)
    losses = [ClassLoss(name, float(b), float(a)) for name, b, a in pairs if not (np.isnan(b) or np.isnan(a))]
    return sorted(losses, key=lambda loss: -loss.lost)


def without_one(summary: Summary) -> dict[Sensor, ConfusionMatrix]:
    """How the vehicle sees without each of its sensors, where those subsets were replayed."""
    modalities = summary.reference.scenario.modalities
    found: dict[Sensor, ConfusionMatrix] = {}
    for other in summary.scenarios.values():
        missing = set(modalities) - set(other.scenario.modalities)
        if other.scenario.is_subset and len(missing) == 1:
            found[missing.pop()] = summary.matrix(other.tally)
    return {m: found[m] for m in modalities if m in found}


def baseline_of(summary: Summary, before: Tally, after: ConfusionMatrix) -> ConfusionMatrix:
    """What to compare with: the scores of all sensors; without labels their masks, which are then right by definition.

    The confusion matrix of those is the diagonal of what `after` was counted against.
    """
    if summary.has_labels:
        return before.confusion
    itself = ConfusionMatrix(after.num_classes)
    itself.counts[:, : after.num_classes] = np.diag(after.counts.sum(axis=1))
    return itself
