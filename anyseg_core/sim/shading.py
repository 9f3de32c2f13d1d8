"""Light on what the rays hit: radiance of each camera pixel, before any sensor."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.sim.textures import FIRST_FACADE, LAST_FACADE, STOREY_M, Texture, texel_index, texture_set
from anyseg_core.sim.tracing import FAR_M, Hits, Scene
from anyseg_core.sim.weather import Atmosphere

Floats = NDArray[np.float32]
_LAMP_GRID_M = 1.0
_MIRROR_AT_NORMAL = 0.06
_WARM = np.array([1.0, 0.78, 0.5], np.float32)
_HEADLIGHT = np.array([1.0, 0.97, 0.9], np.float32)


@dataclass(frozen=True, eq=False)
class LampMap:
    """Light of the street lamps on the ground, on a grid of one metre: `light` [Y, X] from corner `origin` [2]."""

    light: Floats
    origin: Floats

    def at(self, x: Floats, y: Floats) -> Floats:
        """Light at world positions."""
        rows, cols = self.light.shape
        col = np.clip((x - self.origin[0]) / _LAMP_GRID_M, 0, cols - 1).astype(np.int32)
        row = np.clip((y - self.origin[1]) / _LAMP_GRID_M, 0, rows - 1).astype(np.int32)
        return self.light[row, col]


def lamp_map(lamps: Floats) -> LampMap:
    """The map of lamps at `lamps` [L, 3] (may be empty)."""
    if not len(lamps):
        return LampMap(np.zeros((1, 1), np.float32), np.zeros(2, np.float32))
    origin = lamps[:, :2].min(axis=0) - 40
    size = np.ceil((lamps[:, :2].max(axis=0) + 40 - origin) / _LAMP_GRID_M).astype(int)
    light = np.zeros((size[1] + 1, size[0] + 1), np.float32)
    reach = 16
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    pool = ((36.0 / (36.0 + dx**2 + dy**2)) ** 2).astype(np.float32)
    for x, y in np.round((lamps[:, :2] - origin) / _LAMP_GRID_M).astype(int):
        light[y - reach : y + reach + 1, x - reach : x + reach + 1] += pool
    return LampMap(light, origin)


class Shader:
    """Shades camera pixels under one atmosphere."""

    def __init__(
        self, atmosphere: Atmosphere, table: dict[str, NDArray], lamps: LampMap, shape: tuple[int, int]
    ) -> None:
        self.air = atmosphere
        self.table = table
        self.lamps = lamps
        self.shape = shape  # image height, width
        self.pixel_angle = np.float32(2.0 / shape[1])

    def radiance(self, scene: Scene, hits: Hits, origin: Floats, rays: Floats, forward: Floats) -> Floats:
        """Radiance float32 [3, N].

        Args:
            origin: camera position [3]; rays: unit directions [N, 3]; forward: unit vector [3] of the headlights.
        """
        air, direction = self.air, np.ascontiguousarray(rays.T)  # [3, N]
        distance = hits.distance
        position = origin[:, None] + direction * distance  # [3, N]
        facing = -(hits.normal * direction).sum(axis=0)  # cosine towards the viewer
        factor, glass, lit = self._texture(hits, position, facing)
        light = self._light(scene, hits, position, forward, origin)  # [3, N]
        gloss = self.table["gloss"][hits.material]
        if air.wetness:
            flat = hits.normal[2] > 0.9
            gloss = np.maximum(gloss, flat * np.float32(0.55 * air.wetness))
            factor = factor * (1 - flat * np.float32(0.45 * air.wetness))
        gloss = np.maximum(gloss, glass)
        grazing = np.square(1 - np.clip(facing, 0, 1))
        mirror = gloss * (_MIRROR_AT_NORMAL + (1 - _MIRROR_AT_NORMAL) * grazing * grazing)
        mirrored_sky = _zenith_share(direction[2] + 2 * facing * hits.normal[2])
        dimmed = factor * (1 - 0.85 * glass)
        glow = self.table["emission"][hits.material] * np.float32(air.lamps) + lit
        through = np.exp(-np.float32(air.haze_per_m) * distance)
        out = np.empty_like(position)
        for c in range(3):
            value = self.table["color"][c][hits.material]
            value *= dimmed
            emitted = glow * np.maximum(value, lit * _WARM[c])
            value *= light[c]
            value += emitted
            value *= 1 - mirror
            value += mirror * _sky_gradient(air, c, mirrored_sky)
            value *= through
            value += (1 - through) * np.float32(air.horizon[c])
            out[c] = value
        self._paint_sky(out, hits, direction)
        return out

    def _texture(self, hits: Hits, position: Floats, facing: Floats) -> tuple[Floats, Floats, Floats]:
        """Albedo factor, share of glass and light of lit windows, each [N]."""
        texture = self.table["texture"][hits.material]
        texture[hits.moving] = Texture.PLAIN  # patterns are fixed to the world and would slide over what moves
        nx, ny, nz = hits.normal
        flat = np.abs(nz) > 0.7
        length = np.sqrt(nx * nx + ny * ny) + np.float32(1e-6)
        u = np.where(flat, position[0], (nx * position[1] - ny * position[0]) / length)
        v = np.where(flat, position[1], position[2])
        footprint = hits.distance * self.pixel_angle / np.sqrt(np.maximum(facing, 0.02))
        index = texel_index(texture, u, v, footprint)
        tiles = texture_set()
        factor = tiles.factor[index]
        glass, lit = np.zeros_like(factor), np.zeros_like(factor)
        walls = np.flatnonzero((texture >= FIRST_FACADE) & (texture <= LAST_FACADE) & ~flat)
        glass[walls] = tiles.glass[index[walls]]
        lit[walls] = glass[walls] * _window_light(u[walls], v[walls]) * np.float32(self.air.lamps * 0.5)
        return factor, glass, lit

    def _light(self, scene: Scene, hits: Hits, position: Floats, forward: Floats, origin: Floats) -> Floats:
        """Irradiance [3, N] over pi: sky, sun or moon with shadows, street lamps, headlights."""
        air, normal = self.air, hits.normal
        key = np.asarray(air.key_direction, np.float32)
        sunward = np.clip(normal[0] * key[0] + normal[1] * key[1] + normal[2] * key[2], 0, 1)
        if max(air.key) > 0.05:
            sunward *= self._unshadowed(scene, hits, position, sunward, key)
        sky = 0.65 + 0.35 * normal[2]
        light = np.empty_like(position)
        for c in range(3):
            light[c] = sky * np.float32(air.ambient[c]) + sunward * np.float32(air.key[c])
        if max(air.key) < 0.05:
            self._add_lamps(light, hits, position, forward, origin)
        return light

    def _unshadowed(self, scene: Scene, hits: Hits, position: Floats, sunward: Floats, key: Floats) -> Floats:
        """1 where the key light arrives, 0 in shadow; blurred under a soft sky, where half the pixels are traced."""
        height, width = self.shape
        step = 2 if self.air.shadow_softness_px else 1
        tested = np.zeros(self.shape, bool)
        tested[::step, ::step] = ((sunward > 0) & (hits.distance < 150)).reshape(self.shape)[::step, ::step]
        tested = np.flatnonzero(tested)
        points = (position[:, tested] + hits.normal[:, tested] * np.float32(0.02)).T
        free = np.ones(height * width, np.float32)
        free[tested] = ~scene.occluded(np.ascontiguousarray(points), key)
        if step == 1:
            return free
        small = np.ascontiguousarray(free.reshape(self.shape)[::step, ::step])
        side = max(self.air.shadow_softness_px * width // 640 // 2, 1)
        small = cv2.blur(small, (side, side))
        full: Floats = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        return full.ravel()

    def _add_lamps(self, light: Floats, hits: Hits, position: Floats, forward: Floats, origin: Floats) -> None:
        """Street lamps from above, and the vehicle's own headlights."""
        air = self.air
        lamps = self.lamps.at(position[0], position[1])
        lamps *= (0.35 + 0.4 * np.clip(hits.normal[2], 0, 1)) * np.clip(1.2 - position[2] / 7.0, 0.05, 1.0)
        lamps *= np.float32(0.16 * air.lamps)
        beam = position - (origin - np.array([0, 0, 0.9], np.float32))[:, None]  # [3, N] from the headlights
        reach = np.sqrt((beam**2).sum(axis=0)) + np.float32(1e-3)
        beam /= reach
        cosine = beam[0] * forward[0] + beam[1] * forward[1]
        dipped = np.clip(1.0 - np.maximum(beam[2], 0) * 25, 0.06, 1.0)  # a dipped beam ends at the horizon
        cone = np.clip((cosine - 0.72) / 0.28, 0, 1) ** 2 * dipped
        arriving = np.sqrt(np.clip(-(hits.normal * beam).sum(axis=0), 0, 1))
        head = cone * arriving * np.float32(22.0) / (reach * reach + 25.0)
        for c in range(3):
            light[c] += lamps * _WARM[c] + head * _HEADLIGHT[c]

    def _paint_sky(self, out: Floats, hits: Hits, direction: Floats) -> None:
        """Gradient, clouds, and the sun's disc with its glare over the whole picture."""
        air = self.air
        sky = np.flatnonzero(hits.distance >= FAR_M)
        d = direction[:, sky]
        rise = np.maximum(d[2], 0.03)
        index = texel_index(
            np.full(len(sky), Texture.CLOUDS, np.int32),
            d[0] / rise * 0.12,
            d[1] / rise * 0.12,
            np.float32(0.0004) / rise**2,
        )
        cover = np.clip(texture_set().factor[index] * 0.5 + air.cloudiness, 0, 1) * np.clip(rise * 6 - 0.2, 0, 1)
        cover *= np.float32(min(air.cloudiness, 0.7))
        share = _zenith_share(d[2])
        for c in range(3):
            bright = np.float32(air.horizon[c] * 1.15)
            gradient = _sky_gradient(air, c, share)
            out[c, sky] = gradient + cover * (bright - gradient)
        if max(air.key) > 0.6:
            self._glare(out, direction, sky)

    def _glare(self, out: Floats, direction: Floats, sky: NDArray[np.int64]) -> None:
        key = np.asarray(self.air.key_direction, np.float32)
        toward = np.clip(direction[0] * key[0] + direction[1] * key[1] + direction[2] * key[2], 0, 1)
        out[:, sky] += 8.0 * np.exp((toward[sky] - 1) * 1500)
        if toward.max() > 0.98:  # the sun is in the picture: light scatters in the lens
            out += 0.5 * np.exp((toward - 1) * 12)


def _zenith_share(upward: Floats) -> Floats:
    """How much of the zenith's colour the clear sky has, by the vertical component of a direction."""
    return np.sqrt(np.clip(upward, 0, 1))


def _sky_gradient(air: Atmosphere, channel: int, share: Floats) -> Floats:
    """Clear-sky radiance; `share` from `_zenith_share`."""
    return np.float32(air.horizon[channel]) + share * np.float32(air.zenith[channel] - air.horizon[channel])


def _window_light(u: Floats, v: Floats) -> Floats:
    """0 or the brightness of the lamp behind a window, by its place in the facade."""
    storey, bay = np.floor(v / np.float32(STOREY_M)), np.floor(u / np.float32(STOREY_M))
    scattered = np.sin(storey * np.float32(12.9898) + bay * np.float32(78.233)) * np.float32(437.585)
    share = scattered - np.floor(scattered)  # a cheap hash of the window's place, 0-1
    return np.where(share < 0.3, 0.4 + 2 * share, 0).astype(np.float32)
