"""A street by seed: the ground, what stands beside the road, and who moves on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from anyseg_core.sim import shapes
from anyseg_core.sim.motion import EgoMotion
from anyseg_core.sim.shapes import LABEL, Material, Shape, join, masonry
from anyseg_core.sim.street import KERB_M, LANE_M, START_M, Centreline, Road, irregular, winding_centreline
from anyseg_core.sim.textures import Texture
from anyseg_core.sim.traffic import Actor, TrafficBuilder

_HALF_WIDTH_M = 48.0
"""Ground is laid out this far to both sides; beyond it are a plain, hills and a skyline."""
_LOOKAHEAD_M = 170.0


@dataclass(frozen=True, eq=False)
class World:
    """What one drive goes through. `lamps` are world positions [L, 3] of street lamps, in metres."""

    road: Road
    static: Shape
    actors: tuple[Actor, ...]
    lamps: NDArray[np.float32]


class WorldBuilder:
    """Builds a World; every choice comes from `rng`, so a seed gives one world."""

    def __init__(self, seed: int, ego: EgoMotion) -> None:
        self.rng = _choices(seed)
        self.ego = ego
        self.street = _street(ego, self.rng)
        lanes, parking = int(self.rng.choice([1, 1, 2])), bool(self.rng.random() < 0.6)
        self.road = Road(self.street, lanes, parking, self.rng.uniform(2.2, 4.0))
        self.kerb_d, self.walk_m = self.road.kerb_d, self.road.walk_m
        self.parts: list[Shape] = []
        self.lamps: list[tuple[float, float, float]] = []
        self.trees = [shapes.tree(self.rng) for _ in range(6)]
        self.bushes = [shapes.bush(self.rng) for _ in range(3)]
        self.cars = [shapes.car(self.rng) for _ in range(8)]
        self.materials = _ground_materials(self.rng)
        self.greenery = self.rng.uniform(0.2, 1.0)
        self.crossings = [START_M + s + 6.5 for s in ego.stop_distances_m]

    # --- placing ---

    def put(
        self, shape: Shape, s: float, d: float, turn: float = 0.0, z: float | None = None, scale: float = 1.0
    ) -> None:
        """Place a shape at (s, d), turned by `turn` relative to the road."""
        x, y, heading = self.street.place(s, d)
        height = self.road.ground_height(d) if z is None else z
        self.parts.append(shape.moved((float(x), float(y), height), float(heading) + turn, scale))

    def strip(self, s: tuple[float, float], d: tuple[float, float], z: float, material: Material) -> None:
        self.parts.append(self.street.strip(s, d, z, material))

    def along(self, start: float, stop: float, gap: tuple[float, float]) -> list[float]:
        """Irregular arc lengths from `start` to `stop`."""
        return irregular(self.rng, start, stop, gap)

    # --- road ---

    def carriageway(self) -> None:
        length = self.street.length_m
        self.strip((0, length), (-self.kerb_d, self.kerb_d), 0.0, self.materials["road"])
        ground = self.materials["far"]
        x, y = self.street.x, self.street.y
        size = (float(np.ptp(x)) + 700, float(np.ptp(y)) + 700, 0.1)
        center = (float(x.min() + x.max()) / 2, float(y.min() + y.max()) / 2, -0.6)
        self.parts.append(shapes.box(size, center, ground))
        self.lane_lines(length)
        if self.rng.random() < 0.25:
            self.tram_rails(length)
        for s in self.crossings:
            self.zebra(s)

    def lane_lines(self, length: float) -> None:
        line = self.materials["line"]
        edge = self.road.lanes * LANE_M
        solid = self.rng.random() < 0.7
        for d in (-edge, edge):
            if solid:
                self.strip((0, length), (d - 0.07, d + 0.07), 0.006, line)
        dash, gap = self.rng.uniform(2.0, 4.0), self.rng.uniform(3.0, 6.0)
        dividers = [0.0] if self.road.lanes == 1 else [-LANE_M, 0.0, LANE_M]
        for d in dividers:
            if d == 0.0 and self.road.lanes == 2:
                for side in (-0.15, 0.15):
                    self.strip((0, length), (side - 0.06, side + 0.06), 0.006, line)
                continue
            for s in np.arange(0, length - dash, dash + gap):
                self.strip((float(s), float(s + dash)), (d - 0.07, d + 0.07), 0.006, line)

    def tram_rails(self, length: float) -> None:
        """Rails let into the lanes: flat, so that only light and reflectance give them away."""
        for lane in (-LANE_M / 2, LANE_M / 2):
            for rail in (lane - 0.72, lane + 0.72):
                self.strip((0, length), (rail - 0.07, rail + 0.07), 0.005, self.materials["rail"])

    def zebra(self, s: float) -> None:
        line = self.materials["line"]
        for d in np.arange(-self.kerb_d + 0.4, self.kerb_d - 0.5, 1.0):
            self.strip((s, s + 3.0), (float(d), float(d + 0.5)), 0.006, line)
        self.strip((s - 2.0, s - 1.6), (-self.kerb_d, 0.0), 0.006, line)
        self.put(shapes.traffic_light(self.rng), s - 0.5, -self.kerb_d - 0.5)
        self.put(shapes.traffic_light(self.rng), s + 3.5, self.kerb_d + 0.5, np.pi)

    # --- blocks beside the road ---

    def blocks(self) -> None:
        s, length = 0.0, self.street.length_m
        while s < length - 20:
            if self.rng.random() < 0.22 and not self._near_crossing(s, 14.0):
                self.side_street(s, s + 9.0)
                s += 9.0
            end = min(s + self.rng.uniform(28, 70), length)
            for side in (-1, 1):
                self.block((s, end), side)
            s = end

    def _near_crossing(self, s: float, margin: float) -> bool:
        return any(s - margin < c < s + margin for c in self.crossings)

    def side_street(self, start: float, stop: float) -> None:
        for side in (-1, 1):
            self.strip((start, stop), _span(side, self.kerb_d, _HALF_WIDTH_M + 10), 0.0, self.materials["road"])
            middle = (start + stop) / 2
            for d in np.arange(self.kerb_d + 3, _HALF_WIDTH_M, 6.0):
                self.strip(
                    (middle - 0.07, middle + 0.07),
                    _span(side, float(d), float(d) + 2.5),
                    0.006,
                    self.materials["line"],
                )
            if self.rng.random() < 0.6:
                waiting = middle + side * 2.2
                self.put(self._car(), waiting, side * (self.kerb_d + 4), -side * np.pi / 2, 0.0)
            height = self.rng.uniform(8, 18)
            self.put(shapes.building(self.rng, 14.0, 18.0, height), middle, side * (_HALF_WIDTH_M + 22), np.pi / 2)

    def block(self, s: tuple[float, float], side: int) -> None:
        """The pavement and what lies behind it, on one side (+1 left, -1 right)."""
        walk, kerb = self.materials["walk"], self.materials["kerb"]
        inner, outer = self.kerb_d, self.kerb_d + self.walk_m
        self.parts.append(self.street.upright(s, side * inner, (0.0, KERB_M), kerb))
        self.strip(s, _span(side, inner, inner + 0.18), KERB_M, kerb)
        self.strip(s, _span(side, inner + 0.18, outer), KERB_M, walk)
        for end in s:
            self.parts.append(
                self.street.strip((end - 0.02, end + 0.02), _span(side, inner, outer), KERB_M - 0.002, walk)
            )
            x, y, heading = self.street.place(end, side * (inner + outer) / 2)
            cap = shapes.box((0.02, outer - inner, KERB_M - 0.001), (0.0, 0.0, 0.0), kerb)
            self.parts.append(cap.moved((float(x), float(y), 0.0), float(heading)))
        self.furniture(s, side)
        if self.road.parking:
            self.parked_cars(s, side)
        fill = _BLOCKS[self.rng.choice(len(_BLOCKS), p=_BLOCK_ODDS)]
        fill(self, s, side, outer)

    def furniture(self, s: tuple[float, float], side: int) -> None:
        """Lamps, trees, signs, bins and benches on the pavement; they face the road or its traffic."""
        edge, facing = side * (self.kerb_d + 0.55), -side * np.pi / 2
        for at in self.along(*s, (24, 34)):
            self.put(shapes.lamp_post(self.rng), at, edge, facing)
            x, y, _ = self.street.place(at, edge - side * 1.5)
            self.lamps.append((float(x), float(y), 6.0))
        for at in self.along(*s, (6, 17)):
            self._small_furniture(at, side, edge, facing)
        if self.rng.random() < self.greenery * 0.7:
            for at in self.along(*s, (7, 16)):
                self.put(
                    self._tree(), at, edge + side * 0.3, self.rng.uniform(0, 6.28), scale=self.rng.uniform(0.5, 0.9)
                )

    def _small_furniture(self, at: float, side: int, edge: float, facing: float) -> None:
        back = side * (self.kerb_d + self.walk_m - 0.5)
        kind = self.rng.choice(8, p=[0.24, 0.13, 0.11, 0.10, 0.09, 0.09, 0.09, 0.15])
        if kind == 0:
            self.put(shapes.traffic_sign(self.rng), at, edge, 0.0 if side < 0 else np.pi)
        elif kind == 1:
            self.put(shapes.bin_(self.rng), at, back, facing)
        elif kind == 2:
            self.put(shapes.bench(self.rng), at, back, facing)
        elif kind == 3:
            self.put(shapes.pole(self.rng), at, edge, 0.0)
        elif kind == 4:
            for k in range(4):
                self.put(shapes.bollard(self.rng), at + 1.3 * k, edge)
        elif kind == 5:
            self.put(shapes.bus_stop(self.rng), at, back, facing)
        elif kind == 6:
            self.put(shapes.two_wheeler(self.rng), at, back, self.rng.uniform(0, 6.28))
        else:
            make = shapes.other if self.rng.random() < 0.7 else shapes.cart
            self.put(make(self.rng), at, side * (self.kerb_d + self.walk_m - 0.4), facing)

    def parked_cars(self, s: tuple[float, float], side: int) -> None:
        if self.rng.random() < 0.25:
            return
        for at in self.along(s[0] + 4, s[1] - 4, (6.0, 14.0)):
            if not self._near_crossing(at, 9.0):
                turn = (0.0 if side < 0 else np.pi) + self.rng.normal(0, 0.03)
                shape = shapes.truck(self.rng) if self.rng.random() < 0.06 else self._car()
                self.put(shape, at, side * (self.kerb_d - 1.15), turn)

    def _car(self) -> Shape:
        return self.cars[self.rng.integers(len(self.cars))]

    def _tree(self) -> Shape:
        return self.trees[self.rng.integers(len(self.trees))]

    def _plant(self, s: tuple[float, float], side: int, d: tuple[float, float], count: int) -> None:
        for _ in range(count):
            pool = self.trees if self.rng.random() < 0.7 else self.bushes
            at, offset = self.rng.uniform(*s), side * self.rng.uniform(*d)
            plant = pool[self.rng.integers(len(pool))]
            self.put(plant, at, offset, self.rng.uniform(0, 6.28), scale=self.rng.uniform(0.7, 1.3))

    def houses(self, s: tuple[float, float], side: int, d: float) -> None:
        """A closed row of tall buildings at the pavement."""
        self.strip(s, _span(side, d, _HALF_WIDTH_M), KERB_M, self.materials["ground"])
        at = s[0]
        while at < s[1] - 5:
            width = min(self.rng.uniform(9, 22), s[1] - at)
            depth, height = self.rng.uniform(9, 14), self.rng.uniform(7, 26)
            setback = self.rng.choice([0.3, 0.3, 2.5])
            shape = shapes.building(self.rng, width - 0.2, depth, height)
            self.put(shape, at + width / 2, side * (d + setback + depth / 2 + 0.6))
            at += width + self.rng.choice([0.0, 0.0, 4.0])

    def gardens(self, s: tuple[float, float], side: int, d: float) -> None:
        """Small houses behind a fence, a wall or a hedge, with grass and trees."""
        self.strip(s, _span(side, d, _HALF_WIDTH_M), KERB_M, self.materials["grass"])
        self.boundary(s, side, d + 0.2)
        for at in self.along(s[0] + 7, s[1] - 5, (16, 24)):
            shape = shapes.building(
                self.rng, self.rng.uniform(8, 12), self.rng.uniform(7, 9), self.rng.uniform(3.5, 6.5)
            )
            self.put(shape, at, side * (d + self.rng.uniform(9, 14)), self.rng.normal(0, 0.1))
        self._plant(s, side, (d + 1.5, d + 26), int(6 + 12 * self.greenery))

    def boundary(self, s: tuple[float, float], side: int, d: float) -> None:
        kind = self.rng.integers(4)
        if kind == 0:
            self.wall(s, side * d, self.rng.uniform(0.9, 2.6))
        elif kind == 1:
            self.fence(s, side * d)
        elif kind == 2:
            leaves = Material(LABEL["Vegetation"], self.bushes[0].materials[0].color, Texture.LEAVES, 0.45)
            height = self.rng.uniform(0.8, 1.8)
            for offset in (d, d + 0.7):
                self.parts.append(self.street.upright(s, side * offset, (KERB_M, height), leaves))
            self.strip(s, _span(side, d, d + 0.7), height, leaves)

    def wall(self, s: tuple[float, float], d: float, height: float) -> None:
        texture = Texture.BRICK if self.rng.random() < 0.6 else Texture.GRIT
        stone = Material(LABEL["Wall"], masonry(self.rng), texture, self.rng.uniform(0.2, 0.6))
        for offset in (d - 0.12, d + 0.12):
            self.parts.append(self.street.upright(s, offset, (KERB_M, height), stone))
        self.strip(s, (d - 0.14, d + 0.14), height, stone)

    def fence(self, s: tuple[float, float], d: float) -> None:
        """Posts with rails, or close boards."""
        paint = Material(LABEL["Fence"], masonry(self.rng), Texture.PANELS, self.rng.uniform(0.2, 0.6))
        height = self.rng.uniform(0.9, 1.9)
        if self.rng.random() < 0.4:
            self.parts.append(self.street.upright(s, d, (KERB_M, height), paint))
            return
        for z in np.linspace(KERB_M + 0.2, height - 0.1, 4):
            self.parts.append(self.street.upright(s, d, (float(z), float(z) + 0.09), paint))
        post = shapes.box((0.09, 0.09, height), (0.0, 0.0, 0.0), paint)
        for at in np.arange(s[0], s[1], 1.6):
            self.put(post, float(at), d)

    def park(self, s: tuple[float, float], side: int, d: float) -> None:
        """Grass, trees and bushes."""
        self.strip(s, _span(side, d, _HALF_WIDTH_M), KERB_M, self.materials["grass"])
        self._plant(s, side, (d + 1, d + 30), int((s[1] - s[0]) * (0.3 + 0.5 * self.greenery)))
        if self.rng.random() < 0.4:
            self.fence(s, side * (d + 0.3))

    def works(self, s: tuple[float, float], side: int, d: float) -> None:
        """A yard behind a long wall, with a hall."""
        self.strip(s, _span(side, d, _HALF_WIDTH_M), KERB_M, self.materials["ground"])
        self.wall(s, side * (d + 0.3), self.rng.uniform(1.2, 3.2))
        width = (s[1] - s[0]) * 0.7
        hall = shapes.building(self.rng, width, 14.0, self.rng.uniform(6, 10))
        self.put(hall, (s[0] + s[1]) / 2, side * (d + 20))

    def plaza(self, s: tuple[float, float], side: int, d: float) -> None:
        """Open paved ground with parked vehicles, benches and odd things."""
        self.strip(s, _span(side, d, _HALF_WIDTH_M), KERB_M, self.materials["ground"])
        makers = (shapes.bench, shapes.bin_, shapes.other, shapes.cart, shapes.bus, shapes.truck)
        for at in self.along(s[0] + 3, s[1] - 3, (6, 12)):
            turn, offset = self.rng.uniform(0, 6.28), side * (d + self.rng.uniform(3, 18))
            make = makers[self.rng.integers(len(makers))]
            self.put(self._car() if self.rng.random() < 0.4 else make(self.rng), at, offset, turn)
        for at in self.along(s[0] + 8, s[1] - 6, (14, 22)):
            shape = shapes.building(self.rng, 13.0, 12.0, self.rng.uniform(8, 20))
            self.put(shape, at, side * (d + self.rng.uniform(28, 34)))

    def canal(self, s: tuple[float, float], side: int, d: float) -> None:
        """Water beyond a railing, with buildings or trees on the far bank."""
        bank = d + self.rng.uniform(0.3, 1.5)
        far = bank + self.rng.uniform(10, 20)
        self.strip(s, _span(side, d, bank), KERB_M, self.materials["grass"])
        self.strip(s, _span(side, bank, far), -0.45, self.materials["water"])
        self.strip(s, _span(side, far, _HALF_WIDTH_M), KERB_M, self.materials["grass"])
        if self.rng.random() < 0.6:
            self.fence(s, side * (d + 0.2))
        self._plant(s, side, (far + 2, far + 14), 10)

    def railway(self, s: tuple[float, float], side: int, d: float) -> None:
        """Tracks on ballast beside the road (RailTrack on GroundRail)."""
        near = d + self.rng.uniform(0.3, 2.0)
        self.strip(s, _span(side, d, near), KERB_M, self.materials["grass"])
        self.strip(s, _span(side, near, near + 8.0), KERB_M + 0.05, self.materials["ballast"])
        for rail in (near + 1.0, near + 2.5, near + 5.0, near + 6.5):
            self.strip(s, _span(side, rail, rail + 0.16), KERB_M + 0.2, self.materials["rail"])
            for offset in (rail, rail + 0.16):
                self.parts.append(self.street.upright(s, side * offset, (KERB_M, KERB_M + 0.2), self.materials["rail"]))
        self.strip(s, _span(side, near + 8.0, _HALF_WIDTH_M), KERB_M, self.materials["grass"])
        if self.rng.random() < 0.5:
            self.fence(s, side * (d + 0.3))
        self._plant(s, side, (near + 6, near + 20), 10)

    # --- landmarks ---

    def bridges(self) -> None:
        for at in self.along(START_M + 20, self.street.length_m - 60, (140, 330)):
            if self.rng.random() < 0.75 and not self._near_crossing(at, 20):
                self._bridge(at)

    def _bridge(self, s: float) -> None:
        concrete = Material(LABEL["Bridge"], masonry(self.rng), Texture.GRIT, 0.35)
        rail = Material(LABEL["Bridge"], masonry(self.rng), Texture.PANELS, 0.35)
        width, height = self.rng.uniform(5, 11), self.rng.uniform(4.9, 6.2)
        deck = [shapes.box((width, 110.0, 0.9), (0.0, 0.0, height), concrete)]
        for x in (-width / 2, width / 2):
            deck.append(shapes.box((0.25, 110.0, 1.1), (x, 0.0, height + 0.9), rail))
        pier = self.kerb_d + self.walk_m - 0.4
        for y in (-pier - 18, -pier, pier, pier + 18):
            deck.append(shapes.box((width * 0.7, 0.9, height), (0.0, y, 0.0), concrete))
        self.put(join(deck), s, 0.0, 0.0, 0.0)

    def skyline(self) -> None:
        """Far buildings and hills, so that the horizon is not bare."""
        for side in (-1, 1):
            for at in self.along(0, self.street.length_m + 60, (14, 40)):
                offset = side * self.rng.uniform(58, 95)
                if self.rng.random() < 0.5:
                    size = self.rng.uniform(10, 22, 2)
                    shape = shapes.building(self.rng, float(size[0]), float(size[1]), self.rng.uniform(6, 34))
                    self.put(shape, at, offset, 0.0, -0.5)
                else:
                    self.put(self._tree(), at, offset, 0.0, -0.5, scale=self.rng.uniform(1.0, 1.8))
        hill = Material(LABEL["Terrain"], self.materials["grass"].color, Texture.GRASS, 0.35)
        end_s = self.street.length_m + 130
        for _ in range(5):
            size = (self.rng.uniform(40, 90), self.rng.uniform(60, 140), self.rng.uniform(6, 22))
            self.put(shapes.blob(size, (0.0, 0.0, 0.0), hill, detail=2), end_s, self.rng.uniform(-180, 180), 0.0, -0.5)
        wide = shapes.building(self.rng, 18.0, 60.0, self.rng.uniform(8, 20))
        self.put(wide, self.street.length_m + 14, 0.0, 0.0, -0.1)

    def build(self) -> World:
        """Build everything."""
        self.carriageway()
        self.blocks()
        self.bridges()
        self.skyline()
        actors = TrafficBuilder(self.road, self.ego, self.rng).build(self.crossings)
        lamps = np.array(self.lamps, np.float32).reshape(-1, 3)
        return World(self.road, join(self.parts), actors, lamps)


def _span(side: int, near: float, far: float) -> tuple[float, float]:
    """Offsets of a strip on one side of the road, in rising order."""
    return (near, far) if side > 0 else (-far, -near)


def _ground_materials(rng: Generator) -> dict[str, Material]:
    """The ground's surfaces, with colours of this world."""
    asphalt = shapes.grey(rng, 0.07, 0.24)
    grass = shapes.varied(((0.13, 0.2, 0.06), (0.2, 0.2, 0.08), (0.3, 0.25, 0.15))[rng.integers(3)], rng)
    paved = rng.random() < 0.5
    return {
        "road": Material(LABEL["Road"], asphalt, Texture.ASPHALT, rng.uniform(0.08, 0.16)),
        "line": Material(
            LABEL["RoadLine"], shapes.varied((0.62, 0.62, 0.58), rng, 0.15), Texture.PAINT, rng.uniform(0.5, 0.9)
        ),
        "walk": Material(LABEL["SideWalk"], shapes.grey(rng, 0.1, 0.42), Texture.PAVING, rng.uniform(0.15, 0.35)),
        "kerb": Material(LABEL["SideWalk"], shapes.grey(rng, 0.2, 0.5), Texture.GRIT, rng.uniform(0.2, 0.4)),
        "grass": Material(LABEL["Terrain"], grass, Texture.GRASS, rng.uniform(0.3, 0.55)),
        "far": Material(LABEL["Terrain"], grass, Texture.GRASS, 0.4),
        "ground": Material(
            LABEL["Ground"], masonry(rng) if paved else shapes.varied((0.3, 0.24, 0.17), rng),
            Texture.PAVING if paved else Texture.GRIT, rng.uniform(0.15, 0.4),
        ),
        "water": Material(
            LABEL["Water"], shapes.varied((0.05, 0.08, 0.08), rng, 0.5), Texture.RIPPLES, 0.01, gloss=0.8
        ),
        "ballast": Material(LABEL["GroundRail"], shapes.grey(rng, 0.15, 0.35), Texture.GRIT, 0.25),
        "rail": Material(LABEL["RailTrack"], _rail_color(rng), Texture.PLAIN, 0.5, gloss=0.15),
    }  # fmt: skip


def _rail_color(rng: Generator) -> shapes.Color:
    """Rusty to polished steel."""
    return shapes.varied(((0.16, 0.11, 0.09), (0.30, 0.29, 0.28))[rng.integers(2)], rng)


_BLOCKS: tuple[Callable[[WorldBuilder, tuple[float, float], int, float], None], ...] = (
    WorldBuilder.houses, WorldBuilder.gardens, WorldBuilder.park, WorldBuilder.works, WorldBuilder.plaza,
    WorldBuilder.canal, WorldBuilder.railway,
)  # fmt: skip
_BLOCK_ODDS = (0.20, 0.17, 0.12, 0.12, 0.15, 0.12, 0.12)


def street_of(seed: int, ego: EgoMotion) -> Centreline:
    """The course of the street in the world of that seed, without the rest of it."""
    return _street(ego, _choices(seed))


def _choices(seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, 1])


def _street(ego: EgoMotion, choices: np.random.Generator) -> Centreline:
    """The first that is chosen of a world."""
    return winding_centreline(START_M + ego.distance_m + _LOOKAHEAD_M, choices)


def build_world(seed: int, ego: EgoMotion) -> World:
    """The world of that seed, long enough for the vehicle's way."""
    return WorldBuilder(seed, ego).build()
