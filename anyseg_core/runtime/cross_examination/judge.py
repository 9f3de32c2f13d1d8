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
"""A suspicion ends when nobody has been left for so long who says so: of a pair, when one of them is gone."""
EVEN = 0.5
"""Confidence where a sensor is as likely to be wrong as what contradicts it: nobody is blamed."""
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
    suspect: Sensor | None = None
    """Of a pair, the one that is more likely to be wrong where no other sensor says which."""
    partner: Sensor | None = None
    """Of one sensor, who contradicts it most credibly; None where it contradicts itself."""
    confidence: float = 1.0
    """Of one sensor: how surely it is this one."""
    looks: float = 1.0
    """That it counts as: one of a witness that looks seldom counts as several."""


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
    heard_ns: int = 0
    _good: float = 0.0
    _good_since_ns: int = 0

    def hear(self, testimony: Testimony, limits: CheckConfig, now_ns: int, enough: float) -> None:
        """Take a testimony into account; so many of them that are sure are `enough`."""
        self.heard_ns = now_ns
        if self.level == 0.0:
            self.rose_ns = now_ns
        self.level = min(max(self.level + testimony.against * testimony.looks, 0.0), MOST * limits.fail_count)
        if testimony.against > 0 or not self.is_alarm:
            self.newest = testimony
        if testimony.against > 0 or self._good == 0:
            self._good, self._good_since_ns = 0.0, now_ns
        self._good += testimony.looks if testimony.against <= 0 else 0.0
        if self.level >= enough:
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
JUMPED_ALONE = 4.0
"""Times that of any third sensor: it was not the scene that jumped."""
BY_ITS_JUMP = 0.75
"""Confidence that a sensor is wrong whose view jumped when it began to contradict odometry, which moves no view."""
JUMP_COUNTS = 2
"""Sensors that speak against it, or vouch for the other, which a jump outweighs."""
SUSPECT_COUNTS = 0.5
"""The same of `Testimony.suspect`: any other sensor outweighs it."""
DOUBTED_COUNTS = 1.0
"""The same of a sensor that its own checks distrusted a moment ago."""
NETWORK_COUNTS = 1.5
"""The same of what the network makes of it: one other sensor does not outweigh all of them."""
(
    RANGES, EDGES, EVENTS, MOVEMENT, LATENESS, SIGNS, OWN_PAST, ALIGNMENT, LAG, NETWORK, TILT, NEARING, DRIVEN_SCALE,
    ROAD, COURSE,
) = (
    "ranges", "edges", "events", "movement", "lateness", "signs", "own past", "alignment", "lag", "network", "tilt",
    "nearing", "driven scale", "road", "course",
)  # fmt: skip
"""The witnesses."""
OF_ANGLES = frozenset({ALIGNMENT, TILT})
"""Those who sum up looks of many seconds."""
SUMMED_UP = OF_ANGLES | {LAG}
"""Those who sum up seconds."""
OF_TIME = frozenset({EVENTS, LATENESS, LAG})
"""Those who would see that a sensor is late."""


class Judge:
    """Hears the witnesses and says who is in dispute. Times are nanoseconds of one clock."""

    def __init__(self, limits: Limits, jump: Jump) -> None:
        self._limits = limits
        self._jump = jump
        self._suspicions: dict[tuple[str, tuple[Sensor, ...]], Suspicion] = {}
        self._present_ns: dict[Sensor, int] = {}
        self._outcome: dict[Sensor, Dispute] = {}
        self._confirmations = 0
        self._doubted: frozenset[Sensor] = frozenset()
        self.disputes: Mapping[Sensor, Dispute] = {}
        """By sensor; replaced, never changed."""

    def hear(
        self,
        testimonies: Iterable[Testimony],
        present: Collection[Sensor],
        now_ns: int,
        doubted: Collection[Sensor] = (),
    ) -> None:
        """The witnesses of one moment, whose frames they saw, and who was wrong by its own checks a moment ago."""
        self._present_ns |= dict.fromkeys(present, now_ns)
        self._doubted = frozenset(doubted)
        for testimony in testimonies:
            key = testimony.witness, testimony.sensors
            limits = self._limit_of(testimony)
            if limits.enabled:
                suspicion = self._suspicions.setdefault(key, Suspicion(testimony, rose_ns=now_ns))
                enough = limits.fail_count * (LEANING if self._doubted.intersection(testimony.sensors) else 1.0)
                suspicion.hear(testimony, limits, now_ns, enough)
        self._forget_absent(now_ns)
        self._pronounce(self._decide())

    def suspected_pairs(self) -> set[tuple[Sensor, ...]]:
        """Those that contradict each other now, or are near to it."""
        leaning = (each.newest.sensors for each in self._suspicions.values() if self._leans(each))
        return {sensors for sensors in leaning if len(sensors) == 2}

    def levels(self) -> dict[Fault, float]:
        """The greatest sum of each fault now; from 1 on it is a suspicion."""
        levels: dict[Fault, float] = {}
        for suspicion in self._suspicions.values():
            newest = suspicion.newest
            levels[newest.fault] = max(levels.get(newest.fault, 0.0), suspicion.share(self._limit_of(newest)))
        return levels

    def _leans(self, suspicion: Suspicion) -> bool:
        """Whether it is a suspicion, or nearer to one than to none."""
        return suspicion.is_alarm or suspicion.share(self._limit_of(suspicion.newest)) > LEANING

    def _limit_of(self, testimony: Testimony) -> CheckConfig:
        """Of a pair, that of the sensor which is more patient."""
        limits = [self._limits(sensor, testimony.fault) for sensor in testimony.sensors]
        return max(limits, key=lambda limit: limit.fail_count)

    def _forget_absent(self, now_ns: int) -> None:
        here = {sensor for sensor, seen_ns in self._present_ns.items() if now_ns - seen_ns <= FORGET_NS}
        for key, suspicion in list(self._suspicions.items()):
            sensors, was_contradicted = set(key[1]), suspicion.newest.partner is not None
            if not sensors <= here or (was_contradicted and sensors == here):
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
            newest, (sensor,) = suspicion.newest, suspicion.newest.sensors
            confidence = newest.confidence
            if confidence <= EVEN and self._jump(sensor, suspicion.rose_ns) > JUMPED:
                confidence = BY_ITS_JUMP
            decided.setdefault(sensor, _dispute(suspicion, newest.partner, confidence, is_blamed=confidence > EVEN))
        pairs = list(self._alarms(2))
        while open_pairs := [pair for pair in pairs if not _explained(pair, decided)]:
            # An angle explains that distances differ, not the other way round.
            first = min(open_pairs, key=lambda each: (each.newest.witness not in OF_ANGLES, each.alarm_ns))
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
            difference = cases[0] - cases[1] + self._hint(pair)
            if difference == 0:
                return {first: _dispute(pair, second, EVEN), second: _dispute(pair, first, EVEN)}
            pair.blamed = first if difference > 0 else second
            pair.confidence = 1.0 - 0.5 ** (1.0 + abs(difference))
        partner = second if pair.blamed == first else first
        return {pair.blamed: _dispute(pair, partner, pair.confidence, is_blamed=True)}

    def _case_against(self, sensor: Sensor, pair: Suspicion, decided: Collection[Sensor]) -> int:
        """Sensors beside the partner that it disagrees with, less those that vouch for it.

        Disagreement of any kind counts; who does not see the kind of fault does not vouch, nor does who has not spoken
        since the two disagree.
        """
        others: dict[Sensor, int] = {}
        for (witness, involved), suspicion in self._suspicions.items():
            rest = set(involved) - {sensor}
            if sensor not in involved or len(rest) != 1 or rest & {*pair.newest.sensors, *decided}:
                continue
            other = next(iter(rest))
            if self._leans(suspicion):
                others[other] = 1
            elif suspicion.heard_ns > pair.rose_ns and _may_vouch(witness, pair.newest.witness):
                others.setdefault(other, -1)
        return sum(others.values())

    def _hint(self, pair: Suspicion) -> float:
        """What speaks against the first of a pair, beside the other sensors; against the second where negative."""
        first, second = pair.newest.sensors
        itself = NETWORK_COUNTS * (self._network_doubts(first) - self._network_doubts(second))
        itself += DOUBTED_COUNTS * ((first in self._doubted) - (second in self._doubted))
        if pair.newest.suspect is not None:
            return itself + (SUSPECT_COUNTS if pair.newest.suspect == first else -SUSPECT_COUNTS)
        if pair.newest.witness in OF_ANGLES:  # of looks over many seconds: no jump of the view has to do with it
            return itself
        return itself + JUMP_COUNTS * self._jumped_more(pair)

    def _network_doubts(self, sensor: Sensor) -> bool:
        suspicion = self._suspicions.get((NETWORK, (sensor,)))
        return suspicion is not None and suspicion.share(self._limit_of(suspicion.newest)) > LEANING

    def _jumped_more(self, pair: Suspicion) -> int:
        """1, -1 or 0: whose view jumped when the disagreement began, where only one's did.

        What passes near makes views jump that are right. Events tell of it themselves, and a scan looks all around; of
        two that contradict each other in distance, another one's jump counts only where no third has seen one, too.
        """
        jumps = [self._jump(sensor, pair.rose_ns) for sensor in pair.newest.sensors]
        if max(jumps) < JUMPED or max(jumps) < JUMPED_MORE * min(jumps):
            return 0
        jumped = jumps.index(max(jumps))
        if pair.newest.witness not in OF_TIME and not pair.newest.sensors[jumped].kind.is_points:
            thirds = set(self._present_ns) - {*pair.newest.sensors}
            if any(max(jumps) < JUMPED_ALONE * self._jump(third, pair.rose_ns) for third in thirds):
                return 0
        return -1 if jumped else 1


def _may_vouch(witness: str, accuser: str) -> bool:
    """Whether a witness sees the kind of fault that another one speaks of.

    One who sums up seconds does not see what has just begun, who is not turned to the side may be turned up, and
    outlines are where they are whatever the distance.
    """
    if witness in SUMMED_UP or accuser in OF_ANGLES or accuser == RANGES:
        return witness == accuser
    return (witness in OF_TIME) == (accuser in OF_TIME)


def _explained(pair: Suspicion, decided: Mapping[Sensor, Dispute]) -> bool:
    """Whether one of the pair is known to be wrong anyway; it is then to blame for this, too."""
    known = [sensor for sensor in pair.newest.sensors if sensor in decided]
    if known and len(set(pair.newest.sensors) & set(decided)) == 1:
        pair.blamed, pair.confidence = known[0], decided[known[0]].confidence
    return bool(known)


def _dispute(suspicion: Suspicion, partner: Sensor | None, confidence: float, *, is_blamed: bool = False) -> Dispute:
    told = suspicion.newest
    return Dispute(told.fault, told.text, told.value, told.unit, partner, confidence, is_blamed)
