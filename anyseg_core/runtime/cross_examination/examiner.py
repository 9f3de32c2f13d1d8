"""All sensors of one moment -> what the witnesses say of them, and who is in dispute. No clock, no threads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping

from anyseg_core.runtime.cross_examination.agreement import Shown
from anyseg_core.runtime.cross_examination.alignment import Alignment
from anyseg_core.runtime.cross_examination.baseline import Baseline
from anyseg_core.runtime.cross_examination.judge import LEANING, RANGES, Judge, Limits, Testimony
from anyseg_core.runtime.cross_examination.memory import Memory
from anyseg_core.runtime.cross_examination.nearing import Nearing
from anyseg_core.runtime.cross_examination.network_witness import NOTHING_KNOWN, NetworkKnowledge, NetworkWitness
from anyseg_core.runtime.cross_examination.odometry_doubt import OdometryDoubt
from anyseg_core.runtime.cross_examination.own_past import OwnPast
from anyseg_core.runtime.cross_examination.own_turns import OwnTurns
from anyseg_core.runtime.cross_examination.policy import DEFAULT, CrossExaminationConfig
from anyseg_core.runtime.cross_examination.road import Roads
from anyseg_core.runtime.cross_examination.testimonies import (
    event_testimonies,
    geometry_testimonies,
    movement_testimonies,
)
from anyseg_core.runtime.cross_examination.views import View, view_of
from anyseg_core.runtime.geometry.projection import Rig, Twist
from anyseg_core.runtime.health.state import Dispute
from anyseg_core.runtime.health.thresholds import Fault
from anyseg_core.runtime.sensors import CAMERA, EVENT, Sensor, SensorFrame

ROUND, WHOLE = 7, (0, 1, 3)
"""Of so many looks these compare all sensors, the others only pictures and events, which must be successive. Between
two of the three lies any number of looks (a perfect difference set): every lag is seen, with half of the work."""
STANDS_FOR = ROUND / len(WHOLE)
"""Looks that a whole one counts as."""
OWN_PAST = (0, 1, 3, 5)
"""Of a round: at these each sensor's colours and units are compared with those of before."""
OWN_PAST_STANDS_FOR = ROUND / len(OWN_PAST)
SUCCESSIVE = frozenset({CAMERA, EVENT})
STANDING_MPS = 0.5
"""Odometry that says less: then most of what changes is rain, which events see and pictures do not."""


class CrossExaminer:
    """Watches how the sensors of a vehicle fit together. Call it on one thread; `disputes` may be read on any."""

    def __init__(
        self,
        limits: Limits,
        config: Callable[[], CrossExaminationConfig] = lambda: DEFAULT,
        knowledge: NetworkKnowledge = NOTHING_KNOWN,
    ) -> None:
        """`limits`: when a suspicion of a sensor is one, by fault; `config`: as it is now; `knowledge`: of the network
        as a witness."""
        self._memory = Memory()
        self._own_past = OwnPast()
        self._turns = OwnTurns()
        self._alignment = Alignment(limits, self._turns)
        self._roads = Roads(self._turns)
        self._nearing = Nearing(self._turns)
        self._odometry = OdometryDoubt()
        self._looks = 0
        self._baselines: defaultdict[tuple[Sensor, Sensor], Baseline] = defaultdict(Baseline)
        self._network = NetworkWitness(limits, knowledge, config)
        self._judge = Judge(limits, self._memory.jump)

    @property
    def disputes(self) -> Mapping[Sensor, Dispute]:
        """What is said against each sensor that is in dispute; a mapping that never changes."""
        return self._judge.disputes

    @property
    def suspicion_levels(self) -> Mapping[Fault, float]:
        """The greatest sum of each fault now; from 1 on it is a suspicion. On the thread that examines."""
        return self._judge.levels()

    def examine(
        self,
        frames: Mapping[Sensor, SensorFrame],
        rig: Rig | None,
        twist: Twist | None,
        now_ns: int,
        doubted: Collection[Sensor] = (),
    ) -> None:
        """Look at the frames of one moment.

        Args:
            frames: of every sensor that is well by its own checks; one that was seen before says nothing again.
            rig: intrinsics and extrinsics, without which LiDAR is compared with nothing.
            twist: of the LiDAR in its own axes, by odometry; None where there is none.
            now_ns: on the caller's clock.
            doubted: those that their own checks distrusted a moment ago: half the evidence is enough against them.
        """
        turn, self._looks = self._looks % ROUND, self._looks + 1
        views = {
            sensor: view_of(frame, rig)
            for sensor, frame in frames.items()
            if (turn in WHOLE or frame.kind.family in SUCCESSIVE) and frame.data.size and self._memory.is_new(frame)
        }
        self._memory.see(views)
        testimonies: list[Testimony] = []
        if twist is None or twist.speed_mps > STANDING_MPS:
            testimonies += event_testimonies(views, self._memory)
        if turn in WHOLE:
            testimonies += self._of_whole_look(views, rig, twist, now_ns)
            self._memory.measure_steps(now_ns)
        if turn in OWN_PAST:
            testimonies += (each._replace(looks=OWN_PAST_STANDS_FOR) for each in self._own_past.testimonies(views))
        self._memory.keep()
        self._judge.hear(testimonies, views, now_ns, doubted)
        if turn in WHOLE:
            suspects = self._judge.suspected_pairs()
            for pair, baseline in self._baselines.items():
                baseline.is_frozen = pair in suspects

    def _of_whole_look(
        self, views: Mapping[Sensor, View], rig: Rig | None, twist: Twist | None, now_ns: int
    ) -> Iterator[Testimony]:
        """What the witnesses say that compare sensors with each other, and each with what it showed before."""
        yield from self._alignment.testimonies(views, rig, now_ns)
        compared = list(geometry_testimonies(views, self._baselines, rig, self._turns))
        yield from compared
        moved = movement_testimonies(views, self._memory, None if twist is None else twist.speed_mps)
        stood = [each._replace(looks=STANDS_FOR) for each in moved]
        yield from self._roads.testimonies(views, rig, self._nearing.fitting, now_ns)
        confirmed = {
            sensor for each in compared if each.witness == RANGES and each.against < 0 for sensor in each.sensors
        }

        def is_refuted(sensor: Sensor, multiple: float) -> bool:
            return sensor in confirmed or self._roads.refutes(sensor, multiple)

        nearing = self._nearing.testimonies(views, rig, twist, is_refuted)
        yield from self._odometry.spared([*stood, *nearing], now_ns)

    def hear_network(self, shown_by: Mapping[Sensor, Shown], now_ns: int) -> None:
        """Compare what the network makes of each sensor of one moment alone; of fewer than two it says nothing."""
        if len(shown_by) > 1:
            is_calm = max(self._judge.levels().values(), default=0.0) < LEANING
            testimonies = list(self._network.testimonies(shown_by, may_learn=is_calm))
            self._judge.hear(testimonies, shown_by, now_ns)
