"""Triangle shapes of street objects, in metres: x forward, y left, z up, standing on z = 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from anyseg_core.runtime.label_sets import DELIVER
from anyseg_core.sim.textures import Texture

LABEL: dict[str, int] = {label_class.name: index for index, label_class in enumerate(DELIVER)}

Floats = NDArray[np.float32]
Color = tuple[float, float, float]
"""Linear RGB albedo, 0-1."""
Vector = tuple[float, float, float]


class Material(NamedTuple):
    """What a surface is and how it answers light.

    `reflectance` is what the LiDAR sees at 905 nm (0-1; above 1 = retro-reflective), `gloss` the share of
    mirror reflection (1 = glass), `emission` the radiance of a lamp (a sunlit white wall is about 1).
    """

    label: int
    color: Color
    texture: Texture = Texture.PLAIN
    reflectance: float = 0.3
    gloss: float = 0.0
    emission: float = 0.0


@dataclass(frozen=True, eq=False)
class Shape:
    """Triangles with a material each: `vertices` float32 [V, 3], `faces` int32 [F, 3], `material` int32 [F]
    (index into `materials`)."""

    vertices: Floats
    faces: NDArray[np.int32]
    material: NDArray[np.int32]
    materials: tuple[Material, ...]

    def moved(self, offset: Vector, yaw: float = 0.0, scale: float | Vector = 1.0) -> Shape:
        """The shape scaled, then turned by `yaw` radians about z, then moved by `offset` metres."""
        vertices = (self.vertices * np.asarray(scale, np.float32)) @ yaw_matrix(yaw).T + np.asarray(offset, np.float32)
        return Shape(vertices.astype(np.float32), self.faces, self.material, self.materials)


def yaw_matrix(yaw: float) -> Floats:
    """Rotation [3, 3] by `yaw` radians about z."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def join(shapes: Sequence[Shape]) -> Shape:
    """All triangles of `shapes` as one shape."""
    vertex_start = np.cumsum([0, *(len(s.vertices) for s in shapes)])
    material_start = np.cumsum([0, *(len(s.materials) for s in shapes)])
    return Shape(
        np.concatenate([s.vertices for s in shapes]),
        np.concatenate([s.faces + np.int32(v) for s, v in zip(shapes, vertex_start, strict=False)]),
        np.concatenate([s.material + np.int32(m) for s, m in zip(shapes, material_start, strict=False)]),
        tuple(material for s in shapes for material in s.materials),
    )


def of_material(vertices: NDArray[np.floating], faces: NDArray[np.integer], material: Material) -> Shape:
    """A shape of one material."""
    return Shape(
        np.asarray(vertices, np.float32), np.asarray(faces, np.int32), np.zeros(len(faces), np.int32), (material,)
    )


# --- primitives ---------------------------------------------------------------------------------------------------

_BOX_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0.0, 1.0)], np.float32)
_BOX_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [1, 5, 7], [1, 7, 3],
     [0, 2, 6], [0, 6, 4]], np.int32,
)  # fmt: skip


def box(size: Vector, center: Vector, material: Material) -> Shape:
    """A box of `size` whose bottom face is centred at `center`."""
    return of_material(
        _BOX_CORNERS * np.asarray(size, np.float32) + np.asarray(center, np.float32), _BOX_FACES, material
    )


def prism(radius: float, height: float, center: Vector, material: Material, sides: int = 8, top: float = 1.0) -> Shape:
    """A vertical prism from `center` upwards; its upper radius is `radius * top`."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides)], axis=1) * radius
    vertices = np.concatenate([ring, ring * top + [0, 0, height], [[0, 0, height]]]) + center
    i, j = np.arange(sides), (np.arange(sides) + 1) % sides
    sides_low = np.stack([i, j, j + sides], axis=1)
    sides_high = np.stack([i, j + sides, i + sides], axis=1)
    lid = np.stack([i + sides, j + sides, np.full(sides, 2 * sides)], axis=1)
    return of_material(vertices, np.concatenate([sides_low, sides_high, lid]), material)


def wheel(radius: float, width: float, center: Vector, material: Material) -> Shape:
    """A disc standing upright along x."""
    flat = prism(radius, width, (0.0, 0.0, -width / 2), material, sides=10)
    vertices = flat.vertices[:, [0, 2, 1]] + np.asarray(center, np.float32)
    return of_material(vertices, flat.faces, material)


@cache
def _icosphere(subdivisions: int) -> tuple[Floats, NDArray[np.int32]]:
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=subdivisions)
    return np.asarray(sphere.vertices, np.float32), np.asarray(sphere.faces, np.int32)


def blob(size: Vector, center: Vector, material: Material, rng: Generator | None = None, detail: int = 1) -> Shape:
    """An ellipsoid with half axes `size` about `center`; with `rng` its surface is uneven."""
    vertices, faces = _icosphere(detail)
    if rng is not None:
        vertices = vertices * rng.uniform(0.72, 1.15, (len(vertices), 1)).astype(np.float32)
    return of_material(vertices * np.asarray(size, np.float32) + np.asarray(center, np.float32), faces, material)


def extruded(profile: Sequence[tuple[float, float]], width: float, material: Material, taper: float = 1.0) -> Shape:
    """A convex side profile of (x, z) points extruded to `width` along y; `taper` narrows it towards its top."""
    points = np.array(profile, np.float32)  # [P, 2]
    count = len(points)
    relative = (points[:, 1] - points[:, 1].min()) / max(float(np.ptp(points[:, 1])), 1e-6)
    half = width / 2 * (1 + (taper - 1) * relative)
    right = np.stack([points[:, 0], -half, points[:, 1]], axis=1)
    left = np.stack([points[:, 0], half, points[:, 1]], axis=1)
    i, j = np.arange(count), (np.arange(count) + 1) % count
    skin = np.concatenate([np.stack([i, j, j + count], 1), np.stack([i, j + count, i + count], 1)])
    fan = np.stack([np.zeros(count - 2, int), np.arange(1, count - 1), np.arange(2, count)], axis=1)
    return of_material(np.concatenate([right, left]), np.concatenate([skin, fan, fan + count]), material)


def panel(width: float, height: float, center: Vector, material: Material) -> Shape:
    """A thin upright plate facing along x."""
    return box((0.04, width, height), center, material)


# --- colours ------------------------------------------------------------------------------------------------------

_PAINTS: tuple[Color, ...] = (
    (0.72, 0.72, 0.70), (0.45, 0.46, 0.48), (0.20, 0.21, 0.22), (0.04, 0.04, 0.05), (0.42, 0.05, 0.04),
    (0.05, 0.10, 0.30), (0.12, 0.20, 0.14), (0.50, 0.42, 0.28), (0.60, 0.45, 0.06), (0.25, 0.32, 0.42),
)  # fmt: skip
_MASONRY: tuple[Color, ...] = (
    (0.42, 0.20, 0.14), (0.55, 0.48, 0.38), (0.36, 0.35, 0.34), (0.62, 0.60, 0.55), (0.50, 0.36, 0.24),
    (0.28, 0.30, 0.33), (0.60, 0.50, 0.30), (0.22, 0.26, 0.22), (0.45, 0.28, 0.26), (0.70, 0.68, 0.66),
)  # fmt: skip
_CLOTHES: tuple[Color, ...] = (*_PAINTS, (0.30, 0.18, 0.10), (0.55, 0.10, 0.30), (0.15, 0.35, 0.20), (0.65, 0.55, 0.45))
_LEAVES: tuple[Color, ...] = (
    (0.10, 0.18, 0.05), (0.15, 0.22, 0.07), (0.07, 0.13, 0.05), (0.22, 0.22, 0.07), (0.28, 0.17, 0.06),
    (0.12, 0.16, 0.10),
)  # fmt: skip


def varied(color: Color, rng: Generator, spread: float = 0.25) -> Color:
    """A colour near `color`: brightness and each channel vary by up to `spread` and a third of it."""
    factor = rng.uniform(1 - spread, 1 + spread) * rng.uniform(1 - spread / 3, 1 + spread / 3, 3)
    r, g, b = np.clip(np.array(color) * factor, 0.015, 0.85)
    return float(r), float(g), float(b)


def _pick(colors: Sequence[Color], rng: Generator, spread: float = 0.25) -> Color:
    return varied(colors[int(rng.integers(len(colors)))], rng, spread)


def masonry(rng: Generator) -> Color:
    """A colour of walls, kerbs, pavements and buildings: shared, so that colour does not give the class."""
    return _pick(_MASONRY, rng)


def grey(rng: Generator, low: float, high: float) -> Color:
    """A slightly tinted grey."""
    level = rng.uniform(low, high)
    return varied((level, level, level), rng, 0.08)


# --- vehicles -----------------------------------------------------------------------------------------------------

_RUBBER: Color = (0.02, 0.02, 0.02)
_GLASS: Color = (0.03, 0.035, 0.04)


def _glass(label: int) -> Material:
    return Material(label, _GLASS, reflectance=0.04, gloss=0.9)


def _lights(label: int, front: float, rear: float, y: float, z: float) -> list[Shape]:
    white = Material(label, (0.8, 0.8, 0.75), reflectance=0.8, emission=1.6)
    red = Material(label, (0.45, 0.02, 0.02), reflectance=1.2, emission=0.35)
    lamps = []
    for side in (-y, y):
        lamps.append(box((0.06, 0.32, 0.16), (front, side, z), white))
        lamps.append(box((0.06, 0.28, 0.18), (rear, side, z + 0.08), red))
    return lamps


def _wheels(label: int, axles: Sequence[float], half_width: float, radius: float) -> list[Shape]:
    rubber = Material(label, _RUBBER, reflectance=0.08)
    hub = Material(label, (0.35, 0.35, 0.36), reflectance=0.5)
    shapes = []
    for x in axles:
        for y in (-half_width, half_width):
            shapes.append(wheel(radius, 0.24, (x, y, radius), rubber))
            shapes.append(wheel(radius * 0.55, 0.27, (x, y, radius), hub))
    return shapes


def car(rng: Generator) -> Shape:
    """A passenger car, estate or van, 3.8-5.0 m long, heading along x."""
    label, length, height = LABEL["Cars"], rng.uniform(3.8, 5.0), rng.uniform(1.4, 1.9)
    front, rear, belt = length / 2, -length / 2, height * 0.58
    paint = Material(label, _pick(_PAINTS, rng), reflectance=rng.uniform(0.15, 0.6), gloss=0.25)
    body = extruded(
        [(rear, 0.28), (front, 0.28), (front, belt - 0.18), (front - 0.9, belt), (rear + 0.1, belt),
         (rear, belt - 0.1)],
        1.8, paint, taper=0.96,
    )  # fmt: skip
    hood, tail = rng.uniform(0.7, 1.2), rng.uniform(0.0, 0.6)
    cabin_front, cabin_rear = front - hood, rear + tail
    windows = extruded(
        [(cabin_rear, belt), (cabin_front, belt), (cabin_front - 0.7, height - 0.06),
         (cabin_rear + 0.35, height - 0.06)],
        1.66, _glass(label), taper=0.82,
    )  # fmt: skip
    roof = box(
        (cabin_front - cabin_rear - 1.1, 1.38, 0.06), ((cabin_front + cabin_rear - 0.35) / 2, 0.0, height - 0.06), paint
    )
    plate = panel(0.5, 0.12, (rear - 0.02, 0.0, 0.5), Material(label, (0.7, 0.7, 0.6), reflectance=2.0))
    wheels = _wheels(label, (front - 0.8, rear + 0.8), 0.82, 0.33)
    return join([body, windows, roof, plate, *_lights(label, front, rear, 0.65, belt - 0.32), *wheels])


def truck(rng: Generator) -> Shape:
    """A cab with a box body, 6-9 m long."""
    label, length, height = LABEL["Truck"], rng.uniform(6.0, 9.0), rng.uniform(2.8, 3.6)
    front, rear = length / 2, -length / 2
    cab_paint = Material(label, _pick(_PAINTS, rng), reflectance=0.35, gloss=0.15)
    load_paint = Material(label, _pick((*_PAINTS, *_MASONRY), rng), Texture.PANELS, rng.uniform(0.2, 0.6))
    cab = extruded([(front - 2, 0.4), (front, 0.4), (front, 1.5), (front - 0.4, 2.5), (front - 2, 2.5)], 2.2, cab_paint)
    windscreen = panel(1.9, 0.7, (front - 0.16, 0.0, 1.55), _glass(label))
    load = box((length - 2.3, 2.4, height - 0.9), (rear + (length - 2.3) / 2, 0.0, 0.9), load_paint)
    chassis = box((length - 0.6, 1.0, 0.4), (0.0, 0.0, 0.5), Material(label, (0.06, 0.06, 0.06), reflectance=0.1))
    wheels = _wheels(label, (front - 1.0, rear + 1.2, rear + 2.2), 0.98, 0.48)
    return join([cab, windscreen, load, chassis, *_lights(label, front, rear, 0.9, 0.65), *wheels])


def bus(rng: Generator) -> Shape:
    """A city bus, 9-12 m long."""
    label, length = LABEL["Bus"], rng.uniform(9.0, 12.0)
    paint = Material(label, _pick(_PAINTS, rng), reflectance=0.4, gloss=0.2)
    glass = _glass(label)
    lower = box((length, 2.5, 1.1), (0.0, 0.0, 0.3), paint)
    windows = box((length - 0.1, 2.44, 1.0), (0.0, 0.0, 1.4), glass)
    pillars = [box((0.18, 2.5, 1.0), (x, 0.0, 1.4), paint) for x in np.arange(-length / 2 + 0.1, length / 2, 1.7)]
    roof = box((length, 2.5, 0.6), (0.0, 0.0, 2.4), paint)
    sign = panel(1.6, 0.3, (length / 2, 0.0, 2.45), Material(label, (0.05, 0.05, 0.05), emission=0.3))
    wheels = _wheels(label, (length / 2 - 2.4, -length / 2 + 2.6), 1.14, 0.48)
    return join([lower, windows, *pillars, roof, sign, *_lights(label, length / 2, -length / 2, 0.95, 0.6), *wheels])


# --- people and two-wheelers --------------------------------------------------------------------------------------


def _limb(length: float, radius: float, top: Vector, swing: float, material: Material) -> Shape:
    """A leg or arm hanging from `top`, swung forward by `swing` radians."""
    limb = prism(radius, length, (0.0, 0.0, -length), material, sides=5)
    c, s = np.cos(swing), np.sin(swing)
    turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], np.float32)
    return of_material(limb.vertices @ turn.T + np.asarray(top, np.float32), limb.faces, material)


def _person(rng_colors: tuple[Color, Color, Color], label: int, height: float, stride: float) -> Shape:
    skin, shirt, trousers = (Material(label, color, reflectance=0.35) for color in rng_colors)
    hip, shoulder = height * 0.48, height * 0.82
    swings = (stride, -stride)
    legs = [_limb(hip, 0.085, (0.0, y, hip), a, trousers) for y, a in zip((-0.1, 0.1), swings, strict=True)]
    arms = [_limb(hip * 0.75, 0.055, (0.0, y, shoulder), -a, shirt) for y, a in zip((-0.24, 0.24), swings, strict=True)]
    torso = blob((0.15, 0.22, (shoulder - hip) * 0.62), (0.0, 0.0, (hip + shoulder) / 2), shirt)
    head = blob((0.11, 0.10, 0.14), (0.0, 0.0, height - 0.14), skin)
    return join([*legs, *arms, torso, head])


def _outfit(rng: Generator) -> tuple[Color, Color, Color]:
    skin = varied((0.45, 0.30, 0.22), rng, 0.5)
    return skin, _pick(_CLOTHES, rng), _pick(_CLOTHES, rng)


def pedestrian(rng: Generator) -> tuple[Shape, ...]:
    """A person in four phases of a walk."""
    outfit, height = _outfit(rng), rng.uniform(1.25, 1.92)
    return tuple(_person(outfit, LABEL["Pedestrian"], height, stride) for stride in (0.45, 0.0, -0.45, 0.0))


def two_wheeler(rng: Generator) -> Shape:
    """A bicycle or motorcycle with its rider, one label (DELIVER's TwoWheeler)."""
    label, motor = LABEL["TwoWheeler"], rng.random() < 0.5
    radius, body_width = (0.3, 0.3) if motor else (0.34, 0.06)
    frame_paint = Material(label, _pick(_PAINTS, rng), reflectance=0.4, gloss=0.2)
    rubber = Material(label, _RUBBER, reflectance=0.08)
    wheels = [wheel(radius, 0.12 if motor else 0.05, (x, 0.0, radius), rubber) for x in (-0.6, 0.6)]
    frame = extruded([(-0.6, radius), (0.5, radius), (0.45, 0.85), (-0.5, 0.75)], body_width, frame_paint)
    handlebar = box((0.06, 0.6, 0.06), (0.45, 0.0, 0.98), rubber)
    tail = box(
        (0.05, 0.14, 0.1), (-0.75, 0.0, 0.62), Material(label, (0.45, 0.02, 0.02), reflectance=1.5, emission=0.3)
    )
    rider = _person(_outfit(rng), label, 1.6, 0.35).moved((-0.15, 0.0, 0.32))
    return join([*wheels, frame, handlebar, tail, rider])


def animal(rng: Generator) -> Shape:
    """A dog-like animal (DELIVER's Dynamic)."""
    fur = Material(
        LABEL["Dynamic"], _pick(((0.30, 0.2, 0.1), (0.05, 0.05, 0.05), (0.5, 0.45, 0.4)), rng), reflectance=0.3
    )
    legs = [prism(0.05, 0.4, (x, y, 0.0), fur, 5) for x in (-0.3, 0.3) for y in (-0.1, 0.1)]
    return join(
        [*legs, blob((0.45, 0.16, 0.18), (0.0, 0.0, 0.5), fur), blob((0.17, 0.1, 0.12), (0.52, 0.0, 0.68), fur)]
    )


def cart(rng: Generator) -> Shape:
    """A hand cart with boxes (DELIVER's Dynamic)."""
    label = LABEL["Dynamic"]
    wood = Material(label, _pick(_MASONRY, rng), Texture.PANELS, 0.35)
    wheels = _wheels(label, (-0.35, 0.35), 0.4, 0.2)
    return join([box((1.2, 0.8, 0.5), (0.0, 0.0, 0.35), wood), box((0.6, 0.6, 0.4), (0.1, 0.0, 0.85), wood), *wheels])


def ball(rng: Generator) -> Shape:
    """A large ball (DELIVER's Dynamic)."""
    return blob((0.3, 0.3, 0.3), (0.0, 0.0, 0.3), Material(LABEL["Dynamic"], _pick(_CLOTHES, rng)), detail=2)


# --- street furniture ---------------------------------------------------------------------------------------------


def tree(rng: Generator) -> Shape:
    """A leafy tree or a conifer, 4-10 m."""
    label, height = LABEL["Vegetation"], rng.uniform(4.0, 10.0)
    bark = Material(label, varied((0.14, 0.10, 0.07), rng), Texture.GRIT, 0.3)
    leaves = Material(label, _pick(_LEAVES, rng), Texture.LEAVES, rng.uniform(0.35, 0.6))
    trunk = prism(0.11 + height * 0.012, height * 0.6, (0.0, 0.0, 0.0), bark, sides=6, top=0.6)
    if rng.random() < 0.25:
        cones = []
        for k in range(3):
            base = (0.0, 0.0, height * (0.2 + 0.22 * k))
            cones.append(prism(height * 0.22 * (1 - k * 0.25), height * 0.38, base, leaves, 9, 0.05))
        return join([trunk, *cones])
    crown = []
    for _ in range(int(rng.integers(4, 7))):
        x, y = rng.normal(0, height * 0.13, 2)
        radius = height * rng.uniform(0.13, 0.24)
        center = (float(x), float(y), height * rng.uniform(0.55, 0.85))
        crown.append(blob((radius, radius, radius * 0.85), center, leaves, rng))
    return join([trunk, *crown])


def bush(rng: Generator) -> Shape:
    """A bush about a metre high."""
    leaves = Material(LABEL["Vegetation"], _pick(_LEAVES, rng), Texture.LEAVES, rng.uniform(0.35, 0.6))
    clumps = []
    for _ in range(3):
        x, y = rng.normal(0, 0.4, 2)
        radius = rng.uniform(0.4, 0.8)
        clumps.append(blob((radius, radius, radius), (float(x), float(y), radius * 0.6), leaves, rng))
    return join(clumps)


def lamp_post(rng: Generator) -> Shape:
    """A street lamp whose arm reaches 1.6 m along +x; the whole is a Pole."""
    label, height = LABEL["Pole"], rng.uniform(5.0, 7.5)
    steel = Material(label, grey(rng, 0.08, 0.4), reflectance=0.4)
    lamp = Material(label, (0.6, 0.6, 0.5), reflectance=0.4, emission=2.5)
    post = prism(rng.uniform(0.07, 0.11), height, (0.0, 0.0, 0.0), steel, sides=7, top=0.7)
    arm = box((1.7, 0.08, 0.08), (0.8, 0.0, height - 0.1), steel)
    return join([post, arm, box((0.6, 0.25, 0.1), (1.5, 0.0, height - 0.2), lamp)])


def pole(rng: Generator) -> Shape:
    """A plain utility pole with a crossbar."""
    wood = Material(LABEL["Pole"], varied((0.2, 0.15, 0.1), rng), Texture.GRIT, 0.35)
    height = rng.uniform(6.0, 9.0)
    return join([prism(0.14, height, (0.0, 0.0, 0.0), wood, 7), box((0.12, 2.0, 0.12), (0.0, 0.0, height - 0.7), wood)])


def bollard(rng: Generator) -> Shape:
    """A bollard, a short Pole."""
    return prism(0.09, 0.95, (0.0, 0.0, 0.0), Material(LABEL["Pole"], grey(rng, 0.05, 0.6), reflectance=0.4), 7)


_SIGN_FACES: tuple[Color, ...] = (
    (0.6, 0.03, 0.03),
    (0.03, 0.10, 0.45),
    (0.75, 0.75, 0.72),
    (0.7, 0.55, 0.03),
    (0.03, 0.3, 0.1),
)


def traffic_sign(rng: Generator) -> Shape:
    """A retro-reflective plate on a post, facing -x (towards who drives along +x)."""
    face = Material(LABEL["TrafficSign"], _pick(_SIGN_FACES, rng, 0.15), reflectance=2.0)
    post = prism(0.045, 2.6, (0.0, 0.0, 0.0), Material(LABEL["Pole"], grey(rng, 0.2, 0.5), reflectance=0.4), 6)
    size = rng.uniform(0.6, 0.95)
    inner = Material(LABEL["TrafficSign"], (0.75, 0.75, 0.72), reflectance=2.0)
    shapes = [post, panel(size, size * rng.uniform(0.7, 1.3), (-0.08, 0.0, 2.1), face)]
    if rng.random() < 0.6:
        shapes.append(panel(size * 0.6, size * 0.3, (-0.12, 0.0, 2.3), inner))
    return join(shapes)


def traffic_light(rng: Generator) -> Shape:
    """A three-lamp head on a post, facing -x, one lamp lit."""
    label, lit = LABEL["TrafficLight"], int(rng.integers(3))
    housing = Material(label, grey(rng, 0.03, 0.15), reflectance=0.3)
    post = prism(0.07, 3.4, (0.0, 0.0, 0.0), Material(LABEL["Pole"], grey(rng, 0.08, 0.4), reflectance=0.4), 7)
    lamps = []
    for k, color in enumerate(((0.1, 0.6, 0.25), (0.7, 0.4, 0.03), (0.7, 0.03, 0.03))):
        glow = 2.5 if k == lit else 0.0
        lamps.append(panel(0.22, 0.22, (-0.2, 0.0, 2.7 + 0.3 * k), Material(label, color, emission=glow)))
    return join([post, box((0.3, 0.42, 1.0), (-0.03, 0.0, 2.62), housing), *lamps])


def bench(rng: Generator) -> Shape:
    """A bench (DELIVER's Static)."""
    wood = Material(LABEL["Static"], _pick(_MASONRY, rng), Texture.PANELS, 0.35)
    legs = [box((0.4, 0.08, 0.42), (0.0, y, 0.0), wood) for y in (-0.7, 0.7)]
    return join(
        [*legs, box((0.45, 1.7, 0.06), (0.0, 0.0, 0.42), wood), box((0.06, 1.7, 0.45), (-0.22, 0.0, 0.5), wood)]
    )


def bin_(rng: Generator) -> Shape:
    """A litter bin or a skip (DELIVER's Static)."""
    steel = Material(LABEL["Static"], _pick((*_PAINTS, *_LEAVES), rng), reflectance=0.35)
    if rng.random() < 0.5:
        return prism(0.3, 1.0, (0.0, 0.0, 0.0), steel, 10, 1.1)
    return box((1.1, 1.3, 1.3), (0.0, 0.0, 0.0), steel)


def bus_stop(rng: Generator) -> Shape:
    """A glazed shelter open to +x (DELIVER's Static)."""
    label = LABEL["Static"]
    steel = Material(label, grey(rng, 0.08, 0.4), reflectance=0.4)
    poster = Material(label, _pick(_CLOTHES, rng), Texture.GRIT, 0.4, emission=0.05)
    posts = [prism(0.06, 2.4, (x, y, 0.0), steel, 6) for x in (-0.6, 0.6) for y in (-1.8, 1.8)]
    back = box((0.05, 3.4, 1.7), (-0.6, 0.0, 0.4), Material(label, (0.10, 0.12, 0.12), reflectance=0.06, gloss=0.6))
    return join(
        [*posts, back, box((1.5, 3.9, 0.12), (0.0, 0.0, 2.4), steel), box((1.0, 0.1, 1.6), (0.0, 1.85, 0.4), poster)]
    )


def other(rng: Generator) -> Shape:
    """Things no class names: a billboard, a sculpture, a water tank (DELIVER's Other)."""
    label = LABEL["Other"]
    skin = Material(label, _pick((*_PAINTS, *_MASONRY), rng), Texture.GRIT, 0.4)
    kind = rng.integers(3)
    if kind == 0:
        return join(
            [panel(3.5, 2.0, (0.0, 0.0, 1.8), skin), *(prism(0.08, 1.9, (0.0, y, 0.0), skin, 6) for y in (-1.2, 1.2))]
        )
    if kind == 1:
        stack = [blob((0.7 - 0.15 * k, 0.7 - 0.15 * k, 0.6), (0.0, 0.0, 0.5 + 0.8 * k), skin, rng) for k in range(3)]
        return join([box((1.6, 1.6, 0.4), (0.0, 0.0, 0.0), skin), *stack])
    return join(
        [prism(1.1, 2.2, (0.0, 0.0, 1.2), skin, 12), *(prism(0.1, 1.3, (x, 0.0, 0.0), skin, 5) for x in (-0.7, 0.7))]
    )


_FACADES = (Texture.WINDOWS_TALL, Texture.WINDOWS_WIDE, Texture.WINDOWS_SMALL)


def building(rng: Generator, width: float, depth: float, height: float) -> Shape:
    """A building `width` along x and `depth` along y, with windows, a plinth and a roof."""
    label, color = LABEL["Building"], masonry(rng)
    facade = Material(label, color, _FACADES[rng.integers(len(_FACADES))], rng.uniform(0.2, 0.6))
    base = Material(label, masonry(rng), Texture.BRICK if rng.random() < 0.5 else Texture.GRIT, rng.uniform(0.2, 0.6))
    roof = Material(label, masonry(rng), Texture.GRIT, 0.3)
    shapes = [box((width, depth, height), (0.0, 0.0, 0.0), facade)]
    shapes.append(box((width + 0.16, depth + 0.16, rng.uniform(0.5, 1.2)), (0.0, 0.0, 0.0), base))
    if height < 9 and rng.random() < 0.7:
        gable = extruded(
            [(-depth / 2 - 0.4, height), (depth / 2 + 0.4, height), (0.0, height + depth * 0.3)], width + 0.5, roof
        )
        return join([*shapes, gable.moved((0.0, 0.0, 0.0), np.pi / 2)])
    shapes.append(box((width + 0.5, depth + 0.5, 0.4), (0.0, 0.0, height), roof))
    if rng.random() < 0.5:
        for x in np.arange(-width / 2 + 2, width / 2 - 1, 4.0):
            shapes.append(box((2.2, depth + 1.6, 0.9), (float(x), 0.0, height * 0.5), base))  # balconies
    return join(shapes)
