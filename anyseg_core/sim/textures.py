"""Procedural surface textures: tiles of albedo factors by world position, with mip levels against aliasing."""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Texture(IntEnum):
    """What a surface looks like close up."""

    PLAIN = 0
    ASPHALT = 1
    PAVING = 2
    BRICK = 3
    GRASS = 4
    LEAVES = 5
    GRIT = 6
    PANELS = 7
    PAINT = 8
    WINDOWS_TALL = 9
    WINDOWS_WIDE = 10
    WINDOWS_SMALL = 11
    RIPPLES = 12
    CLOUDS = 13


TILE_M: Floats = np.array([8, 12, 6, 4, 8, 3, 6, 4, 8, 12, 12, 12, 12, 1], np.float32)
"""Side of a texture's tile in metres, by Texture."""

STOREY_M = 3.0
"""Height and width of a window's cell on a facade."""

_SIZE = 256
_LEVELS = 7
FIRST_FACADE, LAST_FACADE = Texture.WINDOWS_TALL, Texture.WINDOWS_SMALL


class TextureSet(NamedTuple):
    """Mip-mapped tiles, flat: level l starts at `offset[l]` and is [T, n, n] with n = 256 >> l."""

    factor: Floats
    glass: Floats
    offset: NDArray[np.int32]


def _noise(rng: np.random.Generator, cells: int, octaves: int = 4) -> Floats:
    """Tileable fractal noise [256, 256], zero mean, unit deviation."""
    total = np.zeros((_SIZE, _SIZE), np.float32)
    for octave in range(octaves):
        n = min(cells << octave, _SIZE)
        grid = np.pad(rng.standard_normal((n, n)).astype(np.float32), 2, mode="wrap")
        scale = _SIZE // n
        big = cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += big[2 * scale : 2 * scale + _SIZE, 2 * scale : 2 * scale + _SIZE] * 0.6**octave
    return (total - total.mean()) / total.std()


def _grid(rows: int, cols: int, gap: int, shift: bool) -> NDArray[np.bool_]:
    """True on the joints of a grid of stones; `shift` sets every other row off by half a stone."""
    y, x = np.mgrid[:_SIZE, :_SIZE]
    height, width = _SIZE // rows, _SIZE // cols
    offset = (y // height % 2) * (width // 2) if shift else 0
    return (y % height < gap) | ((x + offset) % width < gap)


def _windows(width: float, height: float) -> Floats:
    """1 on window panes: four cells by four, panes of the given share of a cell."""
    cell = _SIZE // 4
    v, u = (np.mgrid[:_SIZE, :_SIZE] % cell + 0.5) / cell
    pane = (np.abs(u - 0.5) < width / 2) & (np.abs(v - 0.55) < height / 2)
    frame = np.abs(u - 0.5) < 0.02
    return (pane & ~frame).astype(np.float32)


@cache
def texture_set() -> TextureSet:
    """All textures; the same in every world, which vary by colour, scale and layout."""
    rng = np.random.default_rng(20240411)
    factor = np.ones((len(Texture), _SIZE, _SIZE), np.float32)
    glass = np.zeros_like(factor)
    factor[Texture.ASPHALT] = 1 + 0.10 * _noise(rng, 4, 6) + 0.06 * _noise(rng, 128, 1)
    factor[Texture.ASPHALT] *= np.where(_noise(rng, 2, 3) > 1.3, 0.75, 1.0)  # repaired patches
    factor[Texture.PAVING] = 1 + 0.12 * _noise(rng, 16) - 0.4 * _grid(8, 8, 2, False)
    factor[Texture.BRICK] = 1 + 0.15 * _noise(rng, 32) - 0.3 * _grid(32, 16, 2, True)
    factor[Texture.GRASS] = 1 + 0.22 * _noise(rng, 8, 6)
    factor[Texture.LEAVES] = 1 + 0.42 * _noise(rng, 16, 5)
    factor[Texture.GRIT] = 1 + 0.16 * _noise(rng, 16, 5)
    factor[Texture.PANELS] = 1 + 0.06 * _noise(rng, 8) - 0.3 * _grid(1, 8, 3, False)
    factor[Texture.PAINT] = np.where(_noise(rng, 16, 5) > 1.2, 0.45, 1 + 0.06 * _noise(rng, 16))  # worn off in places
    for texture, width, height in (
        (Texture.WINDOWS_TALL, 0.42, 0.62), (Texture.WINDOWS_WIDE, 0.78, 0.5), (Texture.WINDOWS_SMALL, 0.34, 0.4),
    ):  # fmt: skip
        glass[texture] = _windows(width, height)
        factor[texture] = 1 + 0.10 * _noise(rng, 16, 5) - 0.2 * _grid(4, 1, 3, False)
    factor[Texture.RIPPLES] = 1 + 0.25 * _noise(rng, 16, 4)
    np.clip(factor, 0.15, 2.0, out=factor)  # an albedo cannot be negative
    factor[Texture.CLOUDS] = _noise(rng, 4, 6)
    return _mip_mapped(factor, glass)


def _mip_mapped(factor: Floats, glass: Floats) -> TextureSet:
    factors, glasses, offsets, start = [], [], [], 0
    for level in range(_LEVELS):
        n = _SIZE >> level
        factors.append(_halved(factor, n))
        glasses.append(_halved(glass, n))
        offsets.append(start)
        start += factors[-1].size
    return TextureSet(np.concatenate(factors), np.concatenate(glasses), np.array(offsets, np.int32))


def _halved(tiles: Floats, n: int) -> Floats:
    blocks = tiles.reshape(len(tiles), n, _SIZE // n, n, _SIZE // n)
    return blocks.mean(axis=(2, 4)).ravel()


def texel_index(texture: NDArray[np.int32], u: Floats, v: Floats, footprint: NDArray[np.floating]) -> NDArray[np.int32]:
    """Index into a TextureSet's flat tiles.

    Args:
        texture: int32 [N], Texture of each point.
        u, v: float32 [N], surface coordinates in metres.
        footprint: float32 [N], size of a pixel on the surface, in metres.
    """
    scale = (_SIZE / TILE_M)[texture]  # texels per metre
    level = np.log2(np.maximum(footprint * scale, 1.0)).astype(np.int32)
    np.minimum(level, _LEVELS - 1, out=level)
    # Multiplying by a power of two keeps floor(u * n) consistent between levels.
    col = np.floor(u * scale).astype(np.int32) & (_SIZE - 1)
    row = np.floor(v * scale).astype(np.int32) & (_SIZE - 1)
    col >>= level
    row >>= level
    bits = 8 - level
    return texture_set().offset[level] + (((texture << bits) + row) << bits) + col
