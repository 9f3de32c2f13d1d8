"""All sensors of one moment -> what the witnesses say of them, and who is in dispute. No clock, no threads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from anyseg_core.runtime.cross_examination.baseline import Baseline
from anyseg_core.runtime.cross_examination.judge import Judge, Limits
from anyseg_core.runtime.cross_examination.memory import Memory
from anyseg_core.runtime.cross_examination.own_past import OwnPast
from anyseg_core.runtime.cross_examination.testimonies import (
    event_testimonies,
    geometry_testimonies,
    movement_testimonies,
)
from anyseg_core.runtime.cross_examination.views import view_of
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.health.state import Dispute
from anyseg_core.runtime.sensors import Sensor, SensorFrame

GEOMETRY_EVERY = 2
"""Looks: edges and distances are compared at every so many, which saves half of the time."""


class CrossExaminer:
    """Watches how the sensors of a vehicle fit together. Call it on one thread; `disputes` may be read on any."""

    def __init__(self, limits: Limits) -> None:
        """`limits`: when a suspicion of a sensor is one, by fault."""
        self._memory = Memory()
        self._own_past = OwnPast()
        self._looks = 0
        self._baselines: defaultdict[tuple[Sensor, Sensor], Baseline] = defaultdict(Baseline)
        self._judge = Judge(limits, self._memory.jump)

    @property
    def disputes(self) -> Mapping[Sensor, Dispute]:
        """What is said against each sensor that is in dispute; a mapping that never changes."""
        return self._judge.disputes

    def examine(
        self, frames: Mapping[Sensor, SensorFrame], rig: Rig | None, speed_mps: float | None, now_ns: int
    ) -> None:
        """Look at the frames of one moment.

        Args:
            frames: of every sensor that is well by its own checks; one that was seen before says nothing again.
            rig: intrinsics and extrinsics, without which LiDAR is compared with nothing.
            speed_mps: of the vehicle, by odometry; None where there is none.
            now_ns: on the caller's clock.
        """
        views = {
            sensor: view_of(frame, rig)
            for sensor, frame in frames.items()
            if frame.data.size and self._memory.is_new(frame)
        }
        self._looks += 1
        testimonies = [
            *event_testimonies(views, self._memory),
            *movement_testimonies(views, self._memory, speed_mps),
            *self._own_past.testimonies(views),
        ]
        if self._looks % GEOMETRY_EVERY == 0:
            testimonies += geometry_testimonies(views, self._baselines, rig)
        for view in views.values():
            self._memory.keep(view, now_ns)
        self._judge.hear(testimonies, views, now_ns)
        suspects = self._judge.suspected_pairs()
        for pair, baseline in self._baselines.items():
            baseline.is_frozen = pair in suspects
