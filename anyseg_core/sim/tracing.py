"""Rays against the world, by Embree: one scene for what stands, a small one rebuilt each frame for what moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from anyseg_core.sim.shapes import Material, Shape

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
FAR_M = 1000.0
"""Distance given to rays that hit nothing."""


class Surface:
    """Triangles ready to be hit: an Embree scene and, per face, plane [F, 4] (unit normal, offset) and material [F]."""

    def __init__(self, vertices: Floats, faces: Ints, material: Ints) -> None:
        self.scene = EmbreeScene()
        TriangleMesh(self.scene, vertices, faces)
        corner = vertices[faces[:, 0]]
        normal = np.cross(vertices[faces[:, 1]] - corner, vertices[faces[:, 2]] - corner)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        offset = np.einsum("ij,ij->i", normal, corner)
        self.plane = np.ascontiguousarray(
            np.concatenate([normal, offset[:, None]], axis=1).T.astype(np.float32)
        )  # [4, F]
        self.material = material

    def first_hit(self, origins: Floats, directions: Floats) -> Ints:
        """Index of the face each ray hits first, -1 for none."""
        return self.scene.run(origins, directions, query="INTERSECT")

    def occluded(self, origins: Floats, directions: Floats) -> NDArray[np.bool_]:
        """Whether each ray hits anything."""
        return self.scene.run(origins, directions, query="OCCLUDED") != -1


@dataclass(frozen=True, eq=False)
class Hits:
    """What rays hit: `distance` [N] metres, unit `normal` [3, N] towards the viewer, `material` [N] (0 = sky).

    `moving` are the indices of the rays that hit something that moves.
    """

    distance: Floats
    normal: Floats
    material: Ints
    moving: NDArray[np.int64]


class Scene:
    """The static world and the actors near the vehicle at one instant."""

    def __init__(self, static: Surface, moving: Shape | None, moving_material: Ints | None) -> None:
        self.static = static
        self.moving_shape = moving
        self.moving = None
        if moving is not None and moving_material is not None:
            self.moving = Surface(moving.vertices, moving.faces, moving_material)

    def trace(self, origin: Floats, directions: Floats, candidates: NDArray[np.int64]) -> Hits:
        """First hits of rays from one point.

        Args:
            origin: [3] metres.
            directions: [N, 3], unit length.
            candidates: indices of the rays that may hit an actor.
        """
        origins = np.empty_like(directions)
        origins[:] = origin
        face = self.static.first_hit(origins, directions)
        distance, normal = _plane_hit(self.static, face, origin, directions)
        material = np.where(face < 0, 0, self.static.material[face]).astype(np.int32)
        moving = np.empty(0, np.int64)
        if self.moving is not None and len(candidates):
            rays = directions[candidates]
            actor_face = self.moving.first_hit(origins[: len(rays)], rays)
            hit = np.flatnonzero(actor_face >= 0)
            actor_distance, actor_normal = _plane_hit(self.moving, actor_face[hit], origin, rays[hit])
            nearer = actor_distance < distance[candidates[hit]]
            moving = candidates[hit[nearer]]
            distance[moving] = actor_distance[nearer]
            normal[:, moving] = actor_normal[:, nearer]
            material[moving] = self.moving.material[actor_face[hit[nearer]]]
        return Hits(distance, normal, material, moving)

    def occluded(self, points: Floats, direction: Floats) -> NDArray[np.bool_]:
        """Whether something stands between each point [N, 3] and a light in `direction` [3]."""
        directions = np.empty_like(points)
        directions[:] = direction
        blocked = self.static.occluded(points, directions)
        if self.moving is not None and self.moving_shape is not None:
            low, high = self.moving_shape.vertices.min(axis=0) - 30, self.moving_shape.vertices.max(axis=0) + 30
            near = ~blocked & (points[:, 0] > low[0]) & (points[:, 0] < high[0])
            near = np.flatnonzero(near & (points[:, 1] > low[1]) & (points[:, 1] < high[1]))
            blocked[near] = self.moving.occluded(points[near], directions[near])
        return blocked


def _plane_hit(surface: Surface, face: Ints, origin: Floats, directions: Floats) -> tuple[Floats, Floats]:
    """Distance [N] to and normal [3, N] of the faces hit, the normal turned towards the viewer."""
    plane = np.take(surface.plane, face, axis=1, mode="wrap")  # [4, N]; -1 reads the last face, masked below
    cosine = plane[0] * directions[:, 0]
    cosine += plane[1] * directions[:, 1]
    cosine += plane[2] * directions[:, 2]
    height = plane[3] - (plane[0] * origin[0] + plane[1] * origin[1] + plane[2] * origin[2])
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = height / cosine
    distance[(face < 0) | ~(distance > 0)] = FAR_M
    normal = plane[:3]
    normal *= -np.sign(cosine)
    return distance, normal


def material_table(materials: tuple[Material, ...]) -> dict[str, NDArray]:
    """The materials' fields as arrays [M], colour as [3, M] float32."""
    floats = {
        name: np.array([getattr(m, name) for m in materials], np.float32)
        for name in ("reflectance", "gloss", "emission")
    }
    return {
        "label": np.array([m.label for m in materials], np.uint8),
        "texture": np.array([m.texture for m in materials], np.int32),
        "color": np.ascontiguousarray(np.array([m.color for m in materials], np.float32).T),
        **floats,
    }
