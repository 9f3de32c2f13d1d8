"""Conditions that decide whether a replay has passed, after those of driving_log_replayer_v2 (tier4).

A file in YAML; thresholds are shares, 0..1, not percent:

    conditions:
      - {name: good with everything alive, scenario: all, metric: miou, at_least: 0.3}
      - name: pedestrians are seen in nine of ten masks, whatever fails
        scenario: "*drop*"
        metric: iou.Pedestrian
        at_least: 0.1
        type: percentage_larger_than
        percentage: 0.9
      - name: one of the two
        any_of: [{...}, {...}]

A condition is judged for every scenario whose name matches. Where there is no mask to judge it has failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anyseg_core.runtime.metrics import ConfusionMatrix
from anyseg_core.runtime.model_faults import told
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_core.runtime.strict_yaml import load_yaml_file
from anyseg_ros.replay.mask_records import LABELS, MaskRecord


class ConditionError(ValueError):
    """Conditions that cannot be judged; the message names the entry and the remedy."""


class Judgement(str, Enum):
    """How the masks' values make a verdict. All but `pooled` count the masks whose value is within the limits."""

    POOLED = "pooled"
    """The value over all masks together is within the limits: mIoU of the summed confusion, mean of anything else."""
    ANY_OF = "any_of"
    """At least one mask."""
    ALL_OF = "all_of"
    """Every mask."""
    DURATION_LARGER = "duration_larger_than"
    """Some unbroken run of masks lasts longer than `duration_s`."""
    DURATION_LESS = "duration_less_than"
    """No unbroken run of masks lasts as long."""
    PERCENTAGE_LARGER = "percentage_larger_than"
    """More than the share `percentage` of the masks."""
    PERCENTAGE_LESS = "percentage_less_than"
    """Less than it."""


OfRecord = Callable[[MaskRecord], "float | None"]
"""A metric that a mask's record holds."""
OfConfusion = Callable[[ConfusionMatrix], "float | None"]
"""A metric of a mask's pixels against labels, or of those of many masks together."""


def _scored(matrix: ConfusionMatrix, value: float) -> float | None:
    return None if math.isnan(value) or not matrix.counts.any() else value


CONFUSION_METRICS: dict[str, OfConfusion] = {
    "miou": lambda matrix: _scored(matrix, matrix.miou()),
    "pixel_accuracy": lambda matrix: _scored(matrix, matrix.pixel_accuracy()),
}
"""Besides `iou.<Class>`."""
RECORD_METRICS: dict[str, OfRecord] = {
    "agreement": lambda record: record.agreement,
    "changed": lambda record: record.changed,
    "flicker": lambda record: record.flicker,
    "confidence": lambda record: record.confidence,
    "age_ms": lambda record: record.age_ms,
    "engine_ms": lambda record: record.engine_ms,
    "sensors": lambda record: float(len(record.used)),
}
"""Besides `used.<modality>` (1 or 0)."""
_POOLED_BY_CONFUSION = (*CONFUSION_METRICS, "iou.")
_THRESHOLDS = {
    Judgement.DURATION_LARGER: "duration_s",
    Judgement.DURATION_LESS: "duration_s",
    Judgement.PERCENTAGE_LARGER: "percentage",
    Judgement.PERCENTAGE_LESS: "percentage",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeRange(_Strict):
    """Seconds since the beginning of the bag; the end is not in it."""

    start_s: float = Field(default=0.0, ge=0)
    end_s: float = Field(default=math.inf, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> TimeRange:
        if self.end_s <= self.start_s:
            raise ValueError(f"end_s {self.end_s} must be greater than start_s {self.start_s}")
        return self


class Condition(_Strict):
    """One value of the masks of some time, its limits, and how the verdict is made."""

    name: str
    scenario: str = "*"
    """Name of a scenario, or a pattern such as `*drop*`."""
    time: TimeRange = TimeRange()
    metric: str
    at_least: float = -math.inf
    at_most: float = math.inf
    type: Judgement = Judgement.POOLED
    duration_s: float | None = Field(default=None, ge=0)
    percentage: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _complete(self) -> Condition:
        known = self.metric in {*CONFUSION_METRICS, *RECORD_METRICS} or self.metric.startswith("iou.")
        if not known and not self.metric.startswith("used."):
            listed = ", ".join([*CONFUSION_METRICS, *RECORD_METRICS, "iou.<class>", "used.<sensor>"])
            raise ValueError(f"unknown metric {self.metric!r}; known: {listed}")
        if math.isinf(self.at_least) and math.isinf(self.at_most):
            raise ValueError("at_least or at_most is missing")
        threshold = _THRESHOLDS.get(self.type)
        if threshold and getattr(self, threshold) is None:
            raise ValueError(f"type {self.type.value} needs {threshold}")
        return self


class Group(_Strict):
    """Conditions of which one, or all, must hold."""

    name: str
    any_of: tuple[Condition, ...] = ()
    all_of: tuple[Condition, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> Group:
        if bool(self.any_of) == bool(self.all_of):
            raise ValueError("a group has either any_of or all_of")
        return self


class Conditions(_Strict):
    """The content of a conditions file."""

    conditions: tuple[Condition | Group, ...] = Field(min_length=1)

    @classmethod
    def load(cls, path: Path) -> Conditions:
        """From a YAML file. Raises ConditionError that names the file and the entry."""
        try:
            return cls.parse(load_yaml_file(path), str(path))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConditionError(f"{path} cannot be read as conditions: {error}") from None

    @classmethod
    def parse(cls, content: Any, source: str = "conditions") -> Conditions:
        """From the content of a file. Raises ConditionError."""
        entries = content.get("conditions") if isinstance(content, dict) else None
        if not isinstance(entries, list) or not entries or set(content) != {"conditions"}:
            raise ConditionError(f"{source}: must be a list of conditions under the key `conditions`")
        return cls.model_construct(
            conditions=tuple(_entry(e, f"{source}: condition {i + 1}") for i, e in enumerate(entries))
        )

    def require(self, scenarios: Sequence[str], classes: Sequence[str], duration_s: float, *, has_labels: bool) -> None:
        """Raises ConditionError for a condition that a replay with these scenarios, classes and length cannot judge."""
        for condition in (part for entry in self.conditions for part in _parts(entry)):
            _judges(condition, scenarios, classes)
            if condition.time.start_s > duration_s:
                begin = f"begins at {condition.time.start_s:g} s, but the bag is {duration_s:.1f} s long"
                raise ConditionError(f"condition {condition.name!r}: its time {begin}")
            if condition.metric.startswith(_POOLED_BY_CONFUSION) and not has_labels:
                raise ConditionError(
                    f"condition {condition.name!r}: {condition.metric} needs label images, and there are none: name "
                    "their topic or folder with --labels, or judge `agreement`"
                )


def _entry(content: Any, place: str) -> Condition | Group:
    """Told apart by their keys, so that a mistake is told of the one that was meant."""
    kind = Group if isinstance(content, dict) and {"any_of", "all_of"} & set(content) else Condition
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConditionError(f"{place}: {told(error, kind)}") from None


@dataclass(frozen=True)
class Verdict:
    """One condition, judged on one scenario, or a group."""

    name: str
    scenario: str
    """Of a group: the scenarios of its conditions."""
    passed: bool
    text: str
    """The figures that decided."""


def judge(
    conditions: Conditions, records: Iterable[MaskRecord], scenarios: Sequence[str], classes: Sequence[str]
) -> list[Verdict]:
    """Judge all conditions in one pass over the masks. `classes` are the student's, in the order of their labels.

    Raises ConditionError for a condition that names no scenario or class that there is.
    """
    judged = [(entry, [_judges(c, scenarios, classes) for c in _parts(entry)]) for entry in conditions.conditions]
    every = [judge for _, parts in judged for part in parts for judge in part]
    for record in records:
        interested = [judge for judge in every if not record.error and judge.concerns(record)]
        if interested:
            matrix = record.confusion(len(classes))
            for each in interested:
                each.add(record, matrix)
    verdicts: list[Verdict] = []
    for entry, parts in judged:
        verdicts += _group_verdict(entry, parts) if isinstance(entry, Group) else [j.verdict() for j in parts[0]]
    return verdicts


def _parts(entry: Condition | Group) -> tuple[Condition, ...]:
    return (entry.any_of or entry.all_of) if isinstance(entry, Group) else (entry,)


def _group_verdict(group: Group, parts: list[list[_Judge]]) -> list[Verdict]:
    """A condition of a group holds where it holds for each of its scenarios."""
    verdicts = [[judge.verdict() for judge in part] for part in parts]
    held = [all(verdict.passed for verdict in part) for part in verdicts]
    texts = "; ".join(
        f"{'+' if v.passed else '-'} {v.name} [{v.scenario}]: {v.text}" for part in verdicts for v in part
    )
    concerned = sorted({v.scenario for part in verdicts for v in part})
    return [Verdict(group.name, ", ".join(concerned), any(held) if group.any_of else all(held), texts)]


def _judges(condition: Condition, scenarios: Sequence[str], classes: Sequence[str]) -> list[_Judge]:
    concerned = [name for name in scenarios if fnmatchcase(name, condition.scenario)]
    if not concerned:
        is_subset = set(condition.scenario.split("+")) <= set(map(str, DEFAULT_SENSORS))
        raise ConditionError(
            f"condition {condition.name!r}: no scenario {condition.scenario!r}; scenarios: {', '.join(scenarios)}"
            + ("; --subsets adds those of some of the bag's sensors" if is_subset else "")
        )
    return [_Judge(condition, name, classes) for name in concerned]


def _sensor(condition: Condition, name: str) -> Sensor:
    try:
        return Sensor(name)
    except ValueError as error:
        raise ConditionError(f"condition {condition.name!r}: {error}") from None


def _of_record(condition: Condition) -> OfRecord:
    kind, _, name = condition.metric.partition(".")
    if kind != "used":
        return RECORD_METRICS[condition.metric]
    sensor = _sensor(condition, name)
    return lambda record: float(sensor in record.used)


def _of_confusion(condition: Condition, classes: Sequence[str]) -> OfConfusion:
    kind, _, name = condition.metric.partition(".")
    if kind != "iou":
        return CONFUSION_METRICS[condition.metric]
    by_name = {c.lower(): i for i, c in enumerate(classes)}
    if name.lower() not in by_name:
        raise ConditionError(f"condition {condition.name!r}: no class {name!r}; classes: {', '.join(classes)}")
    index = by_name[name.lower()]
    return lambda matrix: _scored(matrix, float(matrix.iou()[index]))


class _Judge:
    """Collects what one condition needs of one scenario."""

    def __init__(self, condition: Condition, scenario: str, classes: Sequence[str]) -> None:
        self._condition, self._scenario = condition, scenario
        by_confusion = condition.metric.startswith(_POOLED_BY_CONFUSION)
        self._of_confusion = _of_confusion(condition, classes) if by_confusion else None
        self._of_record = _of_record(condition) if not by_confusion else None
        self._pooled = ConfusionMatrix(len(classes))
        self._total = 0.0
        self._masks = self._within = 0
        self._run_start_s: float | None = None
        self._longest_s = 0.0

    def concerns(self, record: MaskRecord) -> bool:
        time = self._condition.time
        return record.scenario == self._scenario and time.start_s <= record.t_s < time.end_s

    def add(self, record: MaskRecord, matrix: ConfusionMatrix) -> None:
        value = self._value(record, matrix)
        if value is None:
            return
        self._masks += 1
        self._total += value
        if self._of_confusion is not None:
            self._pooled.merge(matrix)
        if not self._is_within(value):
            self._run_start_s = None
            return
        self._within += 1
        self._run_start_s = record.t_s if self._run_start_s is None else self._run_start_s
        self._longest_s = max(self._longest_s, record.t_s - self._run_start_s)

    def verdict(self) -> Verdict:
        if not self._masks:
            text = f"no mask to judge: none has {self._condition.metric}"
            return Verdict(self._condition.name, self._scenario, False, text)
        passed, text = self._decided()
        return Verdict(self._condition.name, self._scenario, passed, text)

    def _value(self, record: MaskRecord, matrix: ConfusionMatrix) -> float | None:
        if self._of_record is not None:
            return self._of_record(record)
        # agreement with another mask is no accuracy
        return self._of_confusion(matrix) if self._of_confusion is not None and record.against == LABELS else None

    def _is_within(self, value: float) -> bool:
        return self._condition.at_least <= value <= self._condition.at_most

    def _decided(self) -> tuple[bool, str]:
        condition, share = self._condition, self._within / self._masks
        limits = _limits(condition)
        counted = f"{self._within} of {self._masks} masks ({100 * share:.1f} %) have {condition.metric} {limits}"
        lasted = f"longest run with {condition.metric} {limits}: {self._longest_s:.2f} s"
        if condition.type is Judgement.POOLED:
            value = self._pooled_value()
            return self._is_within(value), f"{condition.metric} is {value:.4g}, required {limits}"
        if condition.type in (Judgement.ANY_OF, Judgement.ALL_OF):
            needed = 1 if condition.type is Judgement.ANY_OF else self._masks
            return self._within >= needed, counted
        if condition.type in (Judgement.DURATION_LARGER, Judgement.DURATION_LESS):
            limit = condition.duration_s or 0.0
            larger = condition.type is Judgement.DURATION_LARGER
            passed = self._longest_s > limit if larger else self._longest_s < limit
            return passed, f"{lasted}, required {'more' if larger else 'less'} than {limit:g} s"
        limit = condition.percentage or 0.0
        larger = condition.type is Judgement.PERCENTAGE_LARGER
        passed = share > limit if larger else share < limit
        return passed, f"{counted}, required {'more' if larger else 'less'} than {100 * limit:g} %"

    def _pooled_value(self) -> float:
        if self._of_confusion is None:
            return self._total / self._masks
        value = self._of_confusion(self._pooled)
        return math.nan if value is None else value


def _limits(condition: Condition) -> str:
    low, high = condition.at_least, condition.at_most
    if math.isinf(low):
        return f"<= {high:g}"
    return f">= {low:g}" if math.isinf(high) else f"in {low:g} to {high:g}"
