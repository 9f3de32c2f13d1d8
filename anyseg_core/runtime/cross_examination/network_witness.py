"""The network as a witness: what it makes of each sensor alone against what it makes of the others, over many looks.

Nothing is said of what is usual: that is learnt of every sensor beside every set of others, and begins with what the
student's card expects where it does. A fall of agreement is summed up (CUSUM; Page, Biometrika 1954) and is a suspicion
at the sum that chance reaches once in the time between two false alarms that are accepted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from anyseg_core.runtime.cross_examination.agreement import MEASURES, Agreement, Numbers, Shown, agreement, agreements
from anyseg_core.runtime.cross_examination.judge import NETWORK, Limits, Testimony
from anyseg_core.runtime.cross_examination.policy import CrossExaminationConfig
from anyseg_core.runtime.cross_examination.testimonies import sure
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import EVENT, Sensor, SensorFrame, in_order

SLACK = 1.5
"""Spreads that the disagreement may be above the usual one without being counted: the sum is most sensitive to a change
of twice as much."""
SAME_SCENE = 3
"""Looks that see the same: what puzzles the network is in view for some seconds, and looks are no independent ones.
More of them, as at standstill, accuse nobody."""
ALIKE = 0.95
"""Share of what the sensors show, in the mean, that is as in the look before, where a scene is the same. In a second of
driving: at most 0.94; standing: at least 0.96, but for the first one."""
LEAST_LOOKS = 2
"""That a suspicion needs, however large the disagreement."""
PAIR_PATIENCE = 3
"""Times as many looks at two sensors, where nobody says that the scene is hard to understand."""
LIVELY_EVENTS = 0.13
"""Events of each pixel in a frame; of fewer the network makes little. Clean: up to 0.05 at standstill, 0.13 and more
while driving."""
LEARNT = 20.0
"""Looks before what was not expected by a card is known."""
EXPECTED = 20.0
"""Looks that a card's expectation counts as much as."""
REMEMBERED = 300.0
"""Looks, after which older ones count less."""
WAITING = 5
"""Looks that are not learnt yet: a fault that has just begun does not become usual."""
LEAST_SPREAD = 0.25
"""Of a disagreement's logarithm."""
FAR = 1.25
"""Times the usual spread within which sensors that are well disagree, where the card expected nothing: a minute of one
street spreads less than the next."""


@dataclass(frozen=True)
class Expected:
    """What a disagreement is like while all is well."""

    mean: Numbers
    spread: Numbers


def expectation_key(sensor: Sensor, others: Sequence[Sensor]) -> str:
    """As a model card names a sensor beside others: `camera|depth+lidar`."""
    return f"{sensor}|{'+'.join(in_order(others))}"


@dataclass(frozen=True)
class NetworkKnowledge:
    """What is known of a network as a witness before it has seen anything."""

    classes: Sequence[str] = ()
    """Names of its labels; "" where a label has none."""
    expected: Mapping[str, Expected] = field(default_factory=dict)
    """By `expectation_key`."""

    def name_of(self, label: int) -> str:
        """Of a label."""
        return self.classes[label] if label < len(self.classes) else f"label {label}"


NOTHING_KNOWN = NetworkKnowledge()


class Usual:
    """Running mean and spread of a sensor's disagreement with the same others."""

    def __init__(self, expected: Expected | None) -> None:
        self._weight = EXPECTED if expected is not None else 0.0
        self._factor = 1.0 if expected is not None else FAR
        self._mean = np.array(expected.mean if expected is not None else (0.0,) * len(MEASURES))
        self._variance = np.square(expected.spread) if expected is not None else np.zeros(len(MEASURES))
        self._waiting: deque[np.ndarray] = deque()

    @property
    def is_known(self) -> bool:
        """Whether there were looks enough, or a card that said so."""
        return self._weight >= LEARNT

    @property
    def agreement(self) -> float:
        """In the whole picture, 0 to 1."""
        return float(1.0 - np.exp(self._mean[0]))

    def learn(self, disagreement: Numbers) -> None:
        """Take a look into account, some looks later."""
        self._waiting.append(np.array(disagreement))
        if len(self._waiting) > WAITING:
            self._take(self._waiting.popleft())

    def forget_newest(self) -> None:
        """What was not learnt yet is not: it is suspicious."""
        self._waiting.clear()

    def _take(self, disagreement: np.ndarray) -> None:
        self._weight = min(self._weight + 1.0, REMEMBERED)
        before = self._mean
        self._mean = before + (disagreement - before) / self._weight
        self._variance += ((disagreement - before) * (disagreement - self._mean) - self._variance) / self._weight

    def above(self, disagreement: Numbers) -> np.ndarray:
        """By how many spreads each number of a disagreement is above the usual one, [3]."""
        spread = np.maximum(self._factor * np.sqrt(self._variance), LEAST_SPREAD)
        return (np.array(disagreement) - self._mean) / spread


class NetworkWitness:
    """Of all sensors that a network takes."""

    def __init__(
        self, limits: Limits, knowledge: NetworkKnowledge, config: Callable[[], CrossExaminationConfig]
    ) -> None:
        """`config`: as it is now, of which the rate of looks and that of false alarms of all sensors together count."""
        self._limits = limits
        self._knowledge = knowledge
        self._config = config
        self._usual: dict[str, Usual] = {}
        self._before: Mapping[Sensor, Shown] = {}
        self._alike = 0
        """Looks in a row that are as the one before."""

    def testimonies(self, shown_by: Mapping[Sensor, Shown], *, may_learn: bool) -> Iterator[Testimony]:
        """Of what each sensor alone shows; `may_learn`: nobody is suspected of anything now."""
        is_known = self._is_known_scene(shown_by)
        for said in self._testimonies(shown_by, may_learn=may_learn and not is_known):
            yield said._replace(against=min(said.against, 0.0)) if is_known else said

    def _is_known_scene(self, shown_by: Mapping[Sensor, Shown]) -> bool:
        """Whether all that can be seen in this look was seen in `SAME_SCENE` others before it."""
        both = [(each, [self._before[sensor]]) for sensor, each in shown_by.items() if sensor in self._before]
        shares = [found.whole for each, before in both if (found := agreement(each, before)) is not None]
        self._before = shown_by
        self._alike = self._alike + 1 if sum(shares) > ALIKE * len(shares) else 0
        return self._alike >= SAME_SCENE

    def _testimonies(self, shown_by: Mapping[Sensor, Shown], *, may_learn: bool) -> Iterator[Testimony]:
        found, above = self._compared(shown_by, may_learn=may_learn)
        if len(shown_by) == 2:
            yield from self._of_pair(found, above)
            return
        puzzling = {s: self._puzzling(shown_by, s, may_learn=may_learn) for s in found}
        beyond = {s: excess - puzzling[s] for s, excess in above.items() if puzzling[s] is not None}
        yield from self._of_each(found, beyond)

    def _compared(
        self, shown_by: Mapping[Sensor, Shown], *, may_learn: bool
    ) -> tuple[dict[Sensor, Agreement], dict[Sensor, np.ndarray]]:
        """How far each agrees with all others, and by how many spreads less than usual where that is known."""
        found, above = agreements(shown_by), {}
        for sensor, each in found.items():
            usual = self._usual_of(sensor, [other for other in shown_by if other != sensor])
            if usual.is_known:
                above[sensor] = usual.above(each.disagreement)
            if may_learn:
                usual.learn(each.disagreement)
            else:
                usual.forget_newest()
        return found, above

    def _puzzling(self, shown_by: Mapping[Sensor, Shown], without: Sensor, *, may_learn: bool) -> float | None:
        """By how many spreads the others disagree more than usual among themselves: then it is the scene that is hard
        to understand, and no fault of one sensor. None where it is not known."""
        _, above = self._compared({s: each for s, each in shown_by.items() if s != without}, may_learn=may_learn)
        return max(0.0, *(float(excess.max()) for excess in above.values())) if above else None

    def _usual_of(self, sensor: Sensor, others: Sequence[Sensor]) -> Usual:
        key = expectation_key(sensor, others)
        if key not in self._usual:
            self._usual[key] = Usual(self._knowledge.expected.get(key))
        return self._usual[key]

    def _of_each(self, found: Mapping[Sensor, Agreement], above: Mapping[Sensor, np.ndarray]) -> Iterator[Testimony]:
        """Who differs is found in the consensus of its partners too: only the one that differs most is accused."""
        most = max(above, key=lambda sensor: float(above[sensor].max()), default=None)
        for sensor, excess in above.items():
            against = self._against(excess, len(found))
            others = [other for other in found if other != sensor]
            text = self._text(sensor, "the others", found[sensor], excess, others)
            against = against if sensor == most else min(against, 0.0)
            testimony = self._testimony((sensor,), against, found[sensor], text)
            partner = max(others, key=lambda other: found[other].whole)
            yield testimony._replace(partner=partner, confidence=1.0 - 0.5 ** len(others))

    def _of_pair(self, found: Mapping[Sensor, Agreement], above: Mapping[Sensor, np.ndarray]) -> Iterator[Testimony]:
        """Of two, one of which is wrong where they differ; where they agree, neither, whatever was said before."""
        if len(above) < len(found) or not found:
            return
        sensor, partner = in_order(found)  # what is said of one is said of the other
        text = self._text(sensor, str(partner), found[sensor], above[sensor], [partner])
        against = self._against(above[sensor], 1) / PAIR_PATIENCE
        yield self._testimony((sensor, partner), against, found[sensor], text)
        if against < 0:
            yield from (self._testimony((each,), against, found[each], text) for each in found)

    def _testimony(self, sensors: tuple[Sensor, ...], against: float, found: Agreement, text: str) -> Testimony:
        looks = self._looks(sensors)
        return Testimony(NETWORK, Fault.INCONSISTENT_CONTENT, sensors, against, found.whole, "share", text, looks=looks)

    def _looks(self, sensors: Sequence[Sensor]) -> float:
        """Of the faster witnesses, that one look of the network counts as."""
        return max(self._limits(s, Fault.INCONSISTENT_CONTENT).fail_count for s in sensors) / LEAST_LOOKS

    def _against(self, excess: np.ndarray, watched: int) -> float:
        """As `Testimony.against`: the sum of `LEAST_LOOKS` of 1 is a suspicion."""
        threshold = SAME_SCENE * cusum_threshold(self._looks_between_alarms(watched))
        return sure(float(excess.max()) - SLACK, threshold / LEAST_LOOKS)

    def _looks_between_alarms(self, watched: int) -> float:
        config = self._config()
        return 3600.0 * config.network_rate_hz * watched * len(MEASURES) / config.network_false_alarms_per_h

    def _text(self, sensor: Sensor, who: str, found: Agreement, excess: np.ndarray, others: Sequence[Sensor]) -> str:
        usual, where = self._usual_of(sensor, others), MEASURES[int(excess.argmax())]
        text = f"what {sensor} shows agrees with {who} on {found.whole:.0%}, usually {usual.agreement:.0%}"
        if found.classes is None:
            return text
        own, theirs = map(self._knowledge.name_of, found.classes)
        return f"{text}; it differs most {where}, where it shows {own} they show {theirs}"


def cusum_threshold(looks: float) -> float:
    """Sum of what exceeds `SLACK` spreads at which chance gives one alarm in so many looks, in spreads.

    Siegmund's approximation for independent, normally distributed looks ("Sequential Analysis", 1985).
    """
    low, high = 0.0, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        reach = 2 * SLACK * (middle + 1.166)
        low, high = (middle, high) if (np.exp(reach) - reach - 1) / (2 * SLACK**2) < looks else (low, middle)
    return max(low, 1e-3)


def can_be_asked(frame: SensorFrame) -> bool:
    """Whether a frame shows enough for the network to make something of it alone."""
    if frame.kind.family is not EVENT:
        return True
    return are_lively(float(frame.data.sum(dtype=np.int64)), frame.data.shape)


def are_lively(events: float, shape: tuple[int, ...]) -> bool:
    """Whether so many events in a picture of that height and width are enough to be understood."""
    return events > LIVELY_EVENTS * shape[0] * shape[1]
