"""Who moves on the road and beside it. Every position is a function of time alone, so any instant can be rendered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from anyseg_core.sim import shapes
from anyseg_core.sim.motion import EgoMotion
from anyseg_core.sim.shapes import Shape
from anyseg_core.sim.street import LANE_M, START_M, Road, irregular

Pose = Callable[[float], "tuple[float, float, float]"]
"""Time in seconds -> arc length and offset in metres, heading relative to the road in radians."""


@dataclass(frozen=True, eq=False)
class Actor:
    """Something that moves: `phases` are the shapes of its gait (one for vehicles).

    `pose(t)` is where it is `t` seconds into the drive.
    """

    phases: tuple[Shape, ...]
    pose: Pose
    stride_s: float = 0.3

    def phase_at(self, t: float) -> Shape:
        """The shape of its gait at time `t`, in its own axes."""
        return self.phases[int(np.floor(t / self.stride_s)) % len(self.phases)]

    def shape_at(self, t: float, road: Road) -> Shape:
        """Its shape in the world at time `t`."""
        s, d, turn = self.pose(t)
        x, y, heading = road.street.place(s, d)
        return self.phase_at(t).moved((float(x), float(y), road.ground_height(d)), float(heading) + turn)


class TrafficBuilder:
    """Chooses the traffic of a road from `rng`. Vehicles' speeds follow the ego vehicle's, so all stop together."""

    def __init__(self, road: Road, ego: EgoMotion, rng: Generator) -> None:
        self.road = road
        self.ego = ego
        self.rng = rng

    def build(self, crossings: Sequence[float]) -> tuple[Actor, ...]:
        """Everyone who moves; people cross at `crossings`, one arc length for each stop of the vehicle."""
        actors = [*self._lead_traffic(), *self._oncoming(), *self._second_lane(), *self._riders(), *self._walkers()]
        for s, t in zip(crossings, self.ego.stop_times_s, strict=True):
            actors.extend(self._crossing_people(s, t))
        return tuple(actors)

    def _vehicle(self) -> Shape:
        make = self.rng.choice(4, p=[0.68, 0.14, 0.08, 0.10])
        return (shapes.car, shapes.truck, shapes.bus, shapes.two_wheeler)[make](self.rng)

    def _lead_traffic(self) -> list[Actor]:
        if self.rng.random() < 0.25:
            return []
        gap, sway = self.rng.uniform(15, 34), self.rng.uniform(0, 3)
        actors: list[Actor] = []
        for _ in range(self.rng.integers(1, 4)):
            actors.append(Actor((self._vehicle(),), self._following(gap, sway)))
            gap += self.rng.uniform(14, 28)
        return actors

    def _following(self, gap: float, sway: float) -> Pose:
        lane, phase = -LANE_M / 2, self.rng.uniform(0, 6.28)
        return lambda t: (START_M + self.ego.distance_at(t) + gap + sway * np.sin(0.3 * t + phase), lane, 0.0)

    def _oncoming(self) -> list[Actor]:
        ratio, actors = self.rng.uniform(0.7, 1.3), []
        for lane in range(self.road.lanes):
            reach = START_M + self.ego.distance_m * (1 + ratio) + 150
            for start in irregular(self.rng, START_M + 15, reach, (14, self.rng.uniform(40, 90))):
                actors.append(Actor((self._vehicle(),), self._approaching(start, ratio, LANE_M * (lane + 0.5))))
        return actors

    def _approaching(self, start: float, ratio: float, d: float) -> Pose:
        return lambda t: (start - ratio * self.ego.distance_at(t), d, np.pi)

    def _second_lane(self) -> list[Actor]:
        if self.road.lanes == 1:
            return []
        slower, actors = self.rng.random() < 0.5, []
        ratio = self.rng.uniform(0.5, 0.85) if slower else self.rng.uniform(1.15, 1.5)
        for start in irregular(self.rng, START_M - 60, START_M + self.ego.distance_m + 100, (16, 60)):
            vehicle = self._vehicle()
            actors.append(Actor((vehicle,), self._overtaking(start, ratio)))
        return actors

    def _overtaking(self, start: float, ratio: float) -> Pose:
        return lambda t: (start + ratio * self.ego.distance_at(t), -1.5 * LANE_M, 0.0)

    def _riders(self) -> list[Actor]:
        """Two-wheelers at the edge of the road, both ways."""
        edge, actors = self.road.lanes * LANE_M - 0.35, []
        for start in irregular(self.rng, START_M + 10, self.road.street.length_m, (35, 110)):
            speed = self.rng.uniform(0.0, 5.0)
            right = self.rng.random() < 0.5
            actors.append(
                Actor((shapes.two_wheeler(self.rng),), _steady(start, speed, -edge if right else edge, right))
            )
        return actors

    def _walkers(self) -> list[Actor]:
        actors = []
        for side in (-1, 1):
            for start in irregular(self.rng, START_M, self.road.street.length_m, (6, self.rng.uniform(14, 40))):
                d = side * (self.road.kerb_d + self.rng.uniform(1.0, self.road.walk_m - 0.4))
                forward = bool(self.rng.random() < 0.5)
                pose = _steady(start, self.rng.uniform(0.7, 1.7), d, forward)
                actors.append(self._someone(pose))
        return actors

    def _someone(self, pose: Pose) -> Actor:
        kind = self.rng.random()
        if kind < 0.78:
            return Actor(shapes.pedestrian(self.rng), pose, self.rng.uniform(0.22, 0.35))
        make = (shapes.animal, shapes.cart, shapes.ball)[self.rng.integers(3)]
        return Actor((make(self.rng),), pose)

    def _crossing_people(self, s: float, stop_s: float) -> list[Actor]:
        """People who cross on the zebra while the vehicle waits, which it does for `motion.STOP_S`."""
        actors = []
        for _ in range(self.rng.integers(2, 6)):
            side = 1 if self.rng.random() < 0.5 else -1
            reach, begin = self.road.kerb_d + 1.5, stop_s + self.rng.uniform(1.5, 2.5)
            speed = max(self.rng.uniform(1.3, 2.0), 2 * reach / 7.5)
            actors.append(self._someone(_crossing(s + self.rng.uniform(0.3, 2.7), reach, side, begin, speed)))
        return actors


def _steady(start: float, speed: float, d: float, forward: bool) -> Pose:
    sign = 1.0 if forward else -1.0
    return lambda t: (start + sign * speed * t, d, 0.0 if forward else np.pi)


def _crossing(s: float, reach: float, side: int, begin: float, speed: float) -> Pose:
    """From one pavement to the other, waiting at both ends."""
    return lambda t: (s, side * float(np.clip(reach - speed * (t - begin), -reach, reach)), -side * np.pi / 2)
