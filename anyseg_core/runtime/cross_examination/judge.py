"""What the witnesses say over time -> who is wrong: sums that one frame cannot tip, and blame by the others. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from anyseg_core.runtime.health.state import Dispute
from anyseg_core.runtime.health.thresholds import CheckConfig, Fault
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S

MOST = 1.5
"""Of the sum at which a suspicion is one: more is not remembered, so that agreement ends it in reasonable time."""
LEANING = 0.5
"""Of that sum: a pair that is nearer to a suspicion vouches for neither of its sensors."""
FORGET_NS = 5 * NS_PER_S
"""A suspicion of a pair ends when one of them has been gone for so long: nobody is left who says so."""
CONFIRMED = 3
"""Hearings with the same outcome before it is pronounced."""


class Testimony(NamedTuple):
    """What one witness says of one moment."""

    witness: str
    """What was looked at; what one witness says of the same sensors is summed up, whatever it calls it."""
    fault: Fault
    sensors: tuple[Sensor, ...]
    """One, which nobody else can have caused, or a pair of which one is wrong."""
    against: float
    """-1 all is well ... 1 it is wrong."""
    value: float
    unit: str
    text: str
    """In words, with figures."""


@dataclass
class Suspicion:
    """The running sum of what is said of one sensor, or of a pair (CUSUM; Page, Biometrika 1954)."""

    newest: Testimony
    level: float = 0.0
    is_alarm: bool = False
    rose_ns: int = 0
    """When the sum last left 0."""
    blamed: Sensor | None = None
    """Of a pair, while it is an alarm: who was found to be wrong, ..."""
    confidence: float = 0.0
    """... and how surely."""
    alarm_ns: int = 0
    _good: int = 0
    _good_since_ns: int = 0

    def hear(self, testimony: Testimony, limits: CheckConfig, now_ns: int) -> None:
        """Take a testimony into account; `fail_count` of them that are sure are enough."""
        if self.level == 0.0:
            self.rose_ns = now_ns
        self.level = min(max(self.level + testimony.against, 0.0), MOST * limits.fail_count)
        if testimony.against > 0 or not self.is_alarm:
            self.newest = testimony
        if testimony.against > 0 or self._good == 0:
            self._good, self._good_since_ns = 0, now_ns
        self._good += testimony.against <= 0
        if self.level >= limits.fail_count:
            self.alarm_ns = self.alarm_ns if self.is_alarm else now_ns
            self.is_alarm = True
        elif self._good >= limits.recover_count and now_ns - self._good_since_ns >= limits.recover_time_s * NS_PER_S:
            self.is_alarm, self.level, self.blamed = False, 0.0, None

    def share(self, limits: CheckConfig) -> float:
        """Of the sum at which it is an alarm."""
        return self.level / limits.fail_count


Limits = Callable[[Sensor, Fault], CheckConfig]
Jump = Callable[[Sensor, int], float]
"""How much more than usual a sensor's frames changed about that time; 1 is usual."""
JUMPED = 4.0
"""Times the usual change of a sensor between two frames: its view has jumped."""
JUMPED_MORE = 2.0
"""Times the other's."""
JUMP_COUNTS = 2
"""Sensors that speak against it, or vouch for the other, which a jump outweighs."""
RANGES, EDGES, EVENTS, MOVEMENT, LATENESS, SIGNS, OWN_PAST = (
    "ranges", "edges", "events", "movement", "lateness", "signs", "own past",
)  # fmt: skip
"""The witnesses."""


class Judge:
    """Hears the witnesses and says who is in dispute. Times are nanoseconds of one clock."""

    def __init__(self, limits: Limits, jump: Jump) -> None:
        self._limits = limits
        self._jump = jump
        self._suspicions: dict[tuple[str, tuple[Sensor, ...]], Suspicion] = {}
        self._present_ns: dict[Sensor, int] = {}
        self._outcome: dict[Sensor, Dispute] = {}
        self._confirmations = 0
        self.disputes: Mapping[Sensor, Dispute] = {}
        """By sensor; replaced, never changed."""

    def hear(self, testimonies: Iterable[Testimony], present: Collection[Sensor], now_ns: int) -> None:
        """The witnesses of one moment, and whose frames they saw."""
        self._present_ns |= dict.fromkeys(present, now_ns)
        for testimony in testimonies:
            key = testimony.witness, testimony.sensors
            limits = self._limit_of(testimony)
            if limits.enabled:
                suspicion = self._suspicions.setdefault(key, Suspicion(testimony, rose_ns=now_ns))
                suspicion.hear(testimony, limits, now_ns)
        self._forget_absent(now_ns)
        self._pronounce(self._decide())

    def suspected_pairs(self) -> set[tuple[Sensor, ...]]:
        """Those that contradict each other now."""
        return {suspicion.newest.sensors for suspicion in self._alarms(2)}

    def _limit_of(self, testimony: Testimony) -> CheckConfig:
        """Of a pair, that of the sensor which is more patient."""
        limits = [self._limits(sensor, testimony.fault) for sensor in testimony.sensors]
        return max(limits, key=lambda limit: limit.fail_count)

    def _forget_absent(self, now_ns: int) -> None:
        gone = [key for key in self._suspicions if any(now_ns - self._present_ns.get(s, 0) > FORGET_NS for s in key[1])]
        for key in gone:
            del self._suspicions[key]

    def _pronounce(self, decided: dict[Sensor, Dispute]) -> None:
        """A new outcome counts when it has been the same for a few hearings; figures of a known one at once."""
        same = [(s, d.fault, d.is_blamed) for s, d in decided.items()]
        before = [(s, d.fault, d.is_blamed) for s, d in self._outcome.items()]
        self._confirmations = self._confirmations + 1 if same == before else 1
        self._outcome = decided
        if self._confirmations >= CONFIRMED:
            self.disputes = decided

    # --- blame -------------------------------------------------------------------------------------------------

    def _decide(self) -> dict[Sensor, Dispute]:
        """Those that only they themselves can be wrong; then pair by pair who has the others against it."""
        decided: dict[Sensor, Dispute] = {}
        for suspicion in self._alarms(1):
            (sensor,) = suspicion.newest.sensors
            decided.setdefault(sensor, _dispute(suspicion, None, 1.0))
        pairs = list(self._alarms(2))
        while open_pairs := [pair for pair in pairs if not _explained(pair, decided)]:
            first = min(open_pairs, key=lambda suspicion: suspicion.alarm_ns)
            decided |= self._blame(first, decided)
        return decided

    def _alarms(self, sensors: int) -> Iterator[Suspicion]:
        for (_, involved), suspicion in self._suspicions.items():
            if suspicion.is_alarm and len(involved) == sensors:
                yield suspicion

    def _blame(self, pair: Suspicion, decided: Collection[Sensor]) -> dict[Sensor, Dispute]:
        """One of the pair where the others, or its own past, speak against it; both where nothing tells them apart.

        Who was blamed remains so until the pair agrees again: a jump is seen once, and the others may agree before.
        """
        first, second = pair.newest.sensors
        if pair.blamed is None:
            cases = [self._case_against(one, pair, decided) for one in (first, second)]
            difference = cases[0] - cases[1] + JUMP_COUNTS * self._jumped_more(first, second, pair.rose_ns)
            if difference == 0:
                return {first: _dispute(pair, second, 0.5), second: _dispute(pair, first, 0.5)}
            pair.blamed = first if difference > 0 else second
            pair.confidence = 1.0 - 0.5 ** (1.0 + abs(difference))
        partner = second if pair.blamed == first else first
        return {pair.blamed: _dispute(pair, partner, pair.confidence, is_blamed=True)}

    def _case_against(self, sensor: Sensor, pair: Suspicion, decided: Collection[Sensor]) -> int:
        """Sensors beside the partner that it disagrees with, less those that vouch for it.

        Disagreement of any kind counts; who agrees about places does not vouch for what changes, and the other way
        round.
        """
        others: dict[Sensor, int] = {}
        for (witness, involved), suspicion in self._suspicions.items():
            rest = set(involved) - {sensor}
            if sensor not in involved or len(rest) != 1 or rest & {*pair.newest.sensors, *decided}:
                continue
            leans = suspicion.is_alarm or suspicion.share(self._limit_of(suspicion.newest)) > LEANING
            said = 1 if leans else -1 if (witness == EVENTS) == (pair.newest.witness == EVENTS) else 0
            others[next(iter(rest))] = max(others.get(next(iter(rest)), -1), said)
        return sum(others.values())

    def _jumped_more(self, first: Sensor, second: Sensor, time_ns: int) -> int:
        """1, -1 or 0: whose view jumped when the disagreement began, where only one's did."""
        jumps = self._jump(first, time_ns), self._jump(second, time_ns)
        if max(jumps) < JUMPED or max(jumps) < JUMPED_MORE * min(jumps):
            return 0
        return 1 if jumps[0] > jumps[1] else -1


def _explained(pair: Suspicion, decided: Mapping[Sensor, Dispute]) -> bool:
    """Whether one of the pair is known to be wrong anyway; it is then to blame for this, too."""
    known = [sensor for sensor in pair.newest.sensors if sensor in decided]
    if known and len(set(pair.newest.sensors) & set(decided)) == 1:
        pair.blamed, pair.confidence = known[0], decided[known[0]].confidence
    return bool(known)


def _dispute(suspicion: Suspicion, partner: Sensor | None, confidence: float, *, is_blamed: bool = False) -> Dispute:
    told = suspicion.newest
    return Dispute(told.fault, told.text, told.value, told.unit, partner, confidence, is_blamed or partner is None)
