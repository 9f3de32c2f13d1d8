"""Plays a schedule over time: what goes in at its time comes out as the broken sensor would deliver it.

`SchedulePlayer` knows when and how strongly each fault acts. What it acts on is told by a subclass: `Injector`
for the frames of the runtime, `anyseg_ros.inject.messages.MessageInjector` for serialized ROS messages.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from anyseg_core.injection.degradations import Generator
from anyseg_core.injection.kinds import (
    INJECTION_KINDS,
    Degradation,
    Stage,
    at_strength,
    complete_parameters,
    has_graded_parameter,
)
from anyseg_core.injection.kinds import spoil as spoil_frame
from anyseg_core.injection.schedule import InjectionSchedule, ScheduledInjection
from anyseg_core.runtime.sensors import Sensor, SensorFrame, in_order, number_of
from anyseg_core.runtime.time_units import NS_PER_S

_ROUNDING = 1e-9

Item = TypeVar("Item")


class Arrival(NamedTuple):
    """Something that a sensor delivers, and when."""

    elapsed_s: float
    item: Any
    """A frame or a message, as it was sent. (Generic named tuples need Python 3.11.)"""


class ActiveInjection(NamedTuple):
    """A fault that is present now."""

    entry: ScheduledInjection
    strength: float
    """0..1; below 1 during its ramp."""
    hits: int
    """Items that it has changed, lost or delayed so far."""


class SchedulePlayer(ABC, Generic[Item]):
    """Plays a schedule on the items of all sensors, in the order of their time.

    The result depends on the schedule and on the items alone, and that of one sensor not on the others: each fault
    has its own random generator. Items of one sensor never overtake each other.
    """

    def __init__(self, schedule: InjectionSchedule, stages: Collection[Stage] = tuple(Stage)) -> None:
        """Plays the faults of those stages only; somebody else may play the rest."""
        self.schedule = schedule
        self._stages = stages
        self.reset()

    def reset(self) -> None:
        """Back to the start of the drive; what is on its way is gone. Call it where time jumps back."""
        self._on_the_way: defaultdict[Sensor, deque[Arrival]] = defaultdict(deque)
        self._faults = [
            _PlayedFault(entry, _seed_of(entry, position, self.schedule.seed), self)
            for position, entry in enumerate(self.schedule.injections)
        ]
        played = sorted((f for f in self._faults if f.stage in self._stages), key=lambda fault: fault.stage)
        self._faults_of: defaultdict[Sensor, list[_PlayedFault[Item]]] = defaultdict(list)
        for fault in played:
            self._faults_of[fault.entry.modality].append(fault)

    def apply(self, item: Item, elapsed_s: float) -> list[Item]:
        """What arrives of this sensor `elapsed_s` seconds after the start, oldest first; often [item] itself."""
        self.send(item, elapsed_s)
        return self.due(elapsed_s, self.modality_of(item))

    def send(self, item: Item, elapsed_s: float) -> None:
        """One item of a sensor, at its time; it comes out of `arrivals`, unless it is lost."""
        modality = self.modality_of(item)
        spoiled: Item | None = item
        late_s = 0.0
        for fault in self._faults_of[modality]:
            if fault.hits_at(elapsed_s):
                spoiled, more_s = fault.act(spoiled, elapsed_s)
                if spoiled is None:
                    return
                late_s += more_s
        queue = self._on_the_way[modality]
        arrival_s = max(elapsed_s + late_s, queue[-1].elapsed_s if queue else elapsed_s)
        queue.append(Arrival(arrival_s, spoiled))

    def due(self, elapsed_s: float, modality: Sensor | None = None) -> list[Item]:
        """What (of one sensor) was on its way and arrives now. `apply` calls it; a live player may poll it."""
        return [arrival.item for arrival in self.arrivals(elapsed_s, modality)]

    def arrivals(self, until_s: float = math.inf, modality: Sensor | None = None) -> list[Arrival]:
        """What (of one sensor) arrives until then and has not been fetched, in the order of time."""
        arrived: list[Arrival] = []
        for each in in_order(self._on_the_way) if modality is None else (modality,):
            queue = self._on_the_way[each]
            while queue and queue[0].elapsed_s <= until_s:
                arrival = queue.popleft()
                if not self._is_dead(each, arrival.elapsed_s):
                    arrived.append(arrival)
        return sorted(arrived, key=lambda arrival: arrival.elapsed_s)

    def next_arrival_s(self) -> float:
        """When the next item on its way arrives; infinite where there is none."""
        return min((queue[0].elapsed_s for queue in self._on_the_way.values() if queue), default=math.inf)

    def active(self, elapsed_s: float) -> list[ActiveInjection]:
        """The faults present at that time: the ground truth of what a monitor should find."""
        return [
            ActiveInjection(fault.entry, fault.entry.strength(elapsed_s), fault.hits)
            for fault in self._faults
            if fault.entry.active(elapsed_s)
        ]

    def hits(self) -> list[int]:
        """Items that each fault of the schedule has changed, lost or delayed so far."""
        return [fault.hits for fault in self._faults]

    def must_die(self, elapsed_s: float) -> bool:
        """Whether a crash with `kill: 1` is on: a live player then ends its process, without ceremony."""
        return any(
            fault.entry.kind == "crash" and fault.parameters["kill"] > 0 and fault.entry.active(elapsed_s)
            for fault in self._faults
        )

    def _is_dead(self, modality: Sensor, elapsed_s: float) -> bool:
        """A dead process does not deliver what it still had."""
        return any(f.entry.kind == "crash" and f.entry.active(elapsed_s) for f in self._faults_of[modality])

    @abstractmethod
    def modality_of(self, item: Item) -> Sensor: ...

    @abstractmethod
    def stamp_ns_of(self, item: Item) -> int: ...

    @abstractmethod
    def with_stamp(self, item: Item, stamp_ns: int) -> Item: ...

    @abstractmethod
    def owned(self, item: Item) -> Item:
        """The item itself or a copy that does not change when the caller reuses its buffers."""

    @abstractmethod
    def repeated(self, held: Item, item: Item) -> Item:
        """The content of `held` with the stamp and count of `item`."""

    @abstractmethod
    def spoiled(
        self, item: Item, kind: str, degradation: Degradation | None, rng: Generator, parameters: Mapping[str, float]
    ) -> Item | None:
        """The item with a fault of content, which is that degradation of its frame, or of its message, where there is
        none; None where nothing readable is left."""


def _seed_of(entry: ScheduledInjection, position: int, seed: int) -> list[int]:
    """An entry's own seed holds wherever the entry stands; without one its position tells it from the others."""
    return [seed, position, 0] if entry.seed is None else [entry.seed, number_of(entry.modality), 1]


class _PlayedFault(Generic[Item]):
    """One entry of a schedule while it is played."""

    def __init__(self, entry: ScheduledInjection, seed: list[int], player: SchedulePlayer[Item]) -> None:
        self.entry = entry
        self.hits = 0
        self.parameters = complete_parameters(entry.kind, entry.parameters)
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._kind = INJECTION_KINDS[entry.kind]
        self._is_graded = has_graded_parameter(entry.kind)
        self._player = player
        self._timing = _TIMING[entry.kind](player) if entry.kind in _TIMING else None
        remembering = self._kind.remembering
        self._degradation = remembering() if remembering is not None else self._kind.degradation

    @property
    def stage(self) -> Stage:
        return self._kind.stage

    def hits_at(self, elapsed_s: float) -> bool:
        """Whether the item of this time is hit; draws where that is a matter of chance."""
        if not self.entry.active(elapsed_s):
            return False
        chance = self.entry.probability * (1.0 if self._is_graded else self.entry.strength(elapsed_s))
        hit = chance >= 1.0 or self._rng.random() < chance
        self.hits += hit
        return hit

    def act(self, item: Item, elapsed_s: float) -> tuple[Item | None, float]:
        """The item after this fault, None where it is lost, and by how many seconds it is late."""
        parameters = at_strength(self.entry.kind, self.parameters, self.entry.strength(elapsed_s))
        if self._timing is not None:
            moment = _Moment(elapsed_s - self.entry.start_s, self._rng, parameters)
            return self._timing(item, moment)
        rng = np.random.default_rng(self._seed) if self._kind.fixed_pattern else self._rng
        return self._player.spoiled(item, self.entry.kind, self._degradation, rng, parameters), 0.0


# --- faults that need more than one item -----------------------------------------------------------------------------


class _Moment(NamedTuple):
    """What a fault of timing knows of an item beside it."""

    since_s: float
    """Since the fault began."""
    rng: Generator
    parameters: Mapping[str, float]


def _lost(_item: Item, _moment: _Moment) -> tuple[Item | None, float]:
    return None, 0.0


def _delayed(item: Item, moment: _Moment) -> tuple[Item | None, float]:
    return item, moment.parameters["delay_s"]


def _jittered(item: Item, moment: _Moment) -> tuple[Item | None, float]:
    return item, moment.rng.uniform(0.0, moment.parameters["jitter_s"])


@dataclass
class _RateCut(Generic[Item]):
    """Delivers evenly spaced items."""

    credit: float = 0.0

    def __call__(self, item: Item, moment: _Moment) -> tuple[Item | None, float]:
        self.credit += moment.parameters["keep"]
        if self.credit < 1.0 - _ROUNDING:
            return None, 0.0
        self.credit -= 1.0
        return item, 0.0


@dataclass
class _Freeze(Generic[Item]):
    """The first content is delivered again and again."""

    player: SchedulePlayer[Item]
    held: Item | None = None

    def __call__(self, item: Item, _moment: _Moment) -> tuple[Item | None, float]:
        if self.held is None:
            self.held = self.player.owned(item)
        return self.player.repeated(self.held, item), 0.0


@dataclass
class _Alternate(Generic[Item]):
    """The first two contents are delivered in turns."""

    player: SchedulePlayer[Item]
    held: deque[Item] = field(default_factory=deque)

    def __call__(self, item: Item, _moment: _Moment) -> tuple[Item | None, float]:
        if len(self.held) < 2:
            self.held.append(self.player.owned(item))
            return item, 0.0
        self.held.rotate(-1)
        return self.player.repeated(self.held[-1], item), 0.0


@dataclass
class _OldContent(Generic[Item]):
    """What was measured `age_s` ago is delivered under a fresh stamp; until then, the first content."""

    player: SchedulePlayer[Item]
    kept: deque[Arrival] = field(default_factory=deque)

    def __call__(self, item: Item, moment: _Moment) -> tuple[Item | None, float]:
        self.kept.append(Arrival(moment.since_s, self.player.owned(item)))
        wanted_s = moment.since_s - moment.parameters["age_s"] + _ROUNDING
        while len(self.kept) > 1 and self.kept[1].elapsed_s <= wanted_s:
            self.kept.popleft()
        return self.player.repeated(self.kept[0].item, item), 0.0


@dataclass
class _StampRegression(Generic[Item]):
    """From the first item on, stamps run backwards."""

    player: SchedulePlayer[Item]
    first_ns: int | None = None

    def __call__(self, item: Item, _moment: _Moment) -> tuple[Item | None, float]:
        stamp_ns = self.player.stamp_ns_of(item)
        if self.first_ns is None:
            self.first_ns = stamp_ns
        return self.player.with_stamp(item, 2 * self.first_ns - stamp_ns), 0.0


@dataclass
class _StampOffset(Generic[Item]):
    """Stamps off by a constant, or by more and more."""

    player: SchedulePlayer[Item]

    def __call__(self, item: Item, moment: _Moment) -> tuple[Item | None, float]:
        offset_s = moment.parameters.get("offset_s", 0.0) + moment.since_s * moment.parameters.get("drift_s_per_s", 0.0)
        stamp_ns = self.player.stamp_ns_of(item) + round(offset_s * NS_PER_S)
        return self.player.with_stamp(item, stamp_ns), 0.0


REPEATING = ("freeze", "freeze_alternating", "old_content")
"""Kinds that deliver a content again under another stamp."""
_Timing = Callable[[Item, _Moment], "tuple[Item | None, float]"]
_TIMING: Mapping[str, Callable[[SchedulePlayer], _Timing]] = {
    "drop": lambda _player: _lost,
    "crash": lambda _player: _lost,
    "rate_cut": lambda _player: _RateCut(),
    "delay": lambda _player: _delayed,
    "jitter": lambda _player: _jittered,
    "freeze": _Freeze,
    "freeze_alternating": _Alternate,
    "old_content": _OldContent,
    "stamp_offset": _StampOffset,
    "stamp_drift": _StampOffset,
    "stamp_regression": _StampRegression,
}


# --- frames ----------------------------------------------------------------------------------------------------------


class Injector(SchedulePlayer[SensorFrame]):
    """Plays a schedule on frames.

    Frames have no encoding that could be wrong: the faults of messages (`Stage.MESSAGE`) make a frame unreadable, so
    nothing of it arrives. `on_unreadable` is then called with the frame and the kind of fault, for a player that wants
    to report it as its message converter would.
    """

    def __init__(
        self,
        schedule: InjectionSchedule,
        on_unreadable: Callable[[SensorFrame, str], None] | None = None,
        stages: Collection[Stage] = tuple(Stage),
    ) -> None:
        super().__init__(schedule, stages)
        self._on_unreadable = on_unreadable

    def modality_of(self, item: SensorFrame) -> Sensor:
        return item.modality

    def stamp_ns_of(self, item: SensorFrame) -> int:
        return item.stamp_ns

    def with_stamp(self, item: SensorFrame, stamp_ns: int) -> SensorFrame:
        return replace(item, stamp_ns=stamp_ns)

    def owned(self, item: SensorFrame) -> SensorFrame:
        return replace(item, data=item.data.copy())

    def repeated(self, held: SensorFrame, item: SensorFrame) -> SensorFrame:
        return replace(item, data=held.data)

    def spoiled(
        self,
        item: SensorFrame,
        kind: str,
        degradation: Degradation | None,
        rng: Generator,
        parameters: Mapping[str, float],
    ) -> SensorFrame | None:
        if degradation is None:
            if self._on_unreadable is not None:
                self._on_unreadable(item, kind)
            return None
        if kind == "event_gap" and item.sequence is not None:  # counted packets are lost whole
            return None if rng.random() < parameters["fraction"] else item
        return spoil_frame(item, degradation, rng, parameters)
