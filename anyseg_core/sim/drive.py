"""A drive through a world: the rig, the clock, and one frame of all sensors at each instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig, Twist
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.sim import sensors
from anyseg_core.sim.motion import ego_motion
from anyseg_core.sim.shading import Shader, lamp_map
from anyseg_core.sim.shapes import LABEL, Material, join, yaw_matrix
from anyseg_core.sim.street import LANE_M, START_M
from anyseg_core.sim.thermal import THERMAL, thermal
from anyseg_core.sim.tracing import Hits, Scene, Surface, material_table
from anyseg_core.sim.traffic import Actor
from anyseg_core.sim.weather import Weather, atmosphere
from anyseg_core.sim.world import build_world, street_of

Floats = NDArray[np.float32]

CAMERA_HEIGHT_M = 1.6
EGO_OFFSET_M = -LANE_M / 2
"""The vehicle keeps to the lane right of the middle."""
CAMERA_FRAME_ID = "camera_optical_frame"
LIDAR_FRAME_ID = "lidar"
_LIDAR_RINGS, _LIDAR_COLUMNS = 32, 1024
_LIDAR_ELEVATION_DEG = (-26.0, 12.0)
_ACTOR_RANGE_M = 110.0
"""How far ahead traffic is simulated; behind the vehicle half as far."""
_START_NS = 1_700_000_000_000_000_000

_OPTICAL_FROM_BODY = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], np.float64)
"""Axes x forward, y left, z up -> x right, y down, z forward (REP-103)."""
_LIDAR_OFFSET_M = np.array([-0.55, 0.08, 0.42])
"""From the camera to the LiDAR on the roof, in body axes."""
_LIDAR_YAW, _LIDAR_PITCH = np.deg2rad(1.5), np.deg2rad(1.0)


SLOW_SHARE = 0.8
"""Of the drive's rate: one that is published more slowly than that is told to be slow."""


CARRIED = (*DEFAULT_SENSORS, THERMAL)
"""The sensors that a drive can have."""
MAX_DURATION_S, MAX_RATE_HZ = 86400.0, 1000.0
"""Of a drive: a day would already be rendered for weeks."""


@dataclass(frozen=True)
class DriveConfig:
    """One simulated drive. Two drives with the same config are the same, bit for bit."""

    seed: int
    weather: Weather
    duration_s: float = 40.0
    rate_hz: float = 10.0
    width: int = 640
    height: int = 480
    horizontal_fov_deg: float = 90.0
    speed_mps: float = 8.0
    """Cruising speed; 0 = parked."""
    thermal: bool = False
    """Whether it carries a thermal camera as well, which looks where the camera does. The others see the same."""

    def __post_init__(self) -> None:
        if not 0 < self.duration_s <= MAX_DURATION_S or not 0 < self.rate_hz <= MAX_RATE_HZ:
            raise ValueError(
                f"duration_s {self.duration_s} and rate_hz {self.rate_hz} must be positive, at most "
                f"{MAX_DURATION_S:g} s and {MAX_RATE_HZ:g} Hz"
            )
        if round(self.duration_s * self.rate_hz) < 1:
            raise ValueError(f"{self.duration_s:g} s at {self.rate_hz:g} Hz have no frame: raise duration_s or rate_hz")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, not {self.seed}")
        if self.width < 32 or self.height < 32:
            raise ValueError(f"image size {self.width}x{self.height} is too small: at least 32x32 pixels")
        if not 20 <= self.horizontal_fov_deg <= 140:
            raise ValueError(f"horizontal_fov_deg {self.horizontal_fov_deg} must be 20 to 140 degrees")
        if not 0 <= self.speed_mps <= 25:
            raise ValueError(f"speed_mps {self.speed_mps} must be 0 to 25 m/s")

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """What the vehicle carries."""
        return CARRIED if self.thermal else DEFAULT_SENSORS

    def camera(self) -> PinholeCamera:
        """The camera's intrinsics, principal point in the middle."""
        focal = self.width / 2 / np.tan(np.deg2rad(self.horizontal_fov_deg) / 2)
        return PinholeCamera(self.width, self.height, focal, focal, (self.width - 1) / 2, (self.height - 1) / 2)


def lidar_odometry(config: DriveConfig) -> Callable[[float], Twist]:
    """What wheels and a gyroscope without error say so many seconds into a drive: the LiDAR's twist in its own axes."""
    ego = ego_motion(config.seed, config.duration_s, config.speed_mps)
    street = street_of(config.seed, ego)
    lidar_from_base = np.linalg.inv(base_from_lidar()).astype(np.float64)

    def twist(t: float) -> Twist:
        before, after = (street.place(START_M + ego.distance_at(at), EGO_OFFSET_M)[2] for at in (t - 0.05, t + 0.05))
        of_base = Twist(np.array([ego.speed_at(t), 0.0, 0.0]), np.array([0.0, 0.0, float(after - before) / 0.1]))
        return of_base.seen_from(lidar_from_base)

    return twist


@dataclass(frozen=True, eq=False)
class DriveFrame:
    """One instant: every sensor's frame, and the true labels uint8 [H, W] of the camera image (DELIVER's classes)."""

    stamp_ns: int
    frames: dict[Sensor, SensorFrame]
    labels: NDArray[np.uint8]
    point_labels: NDArray[np.uint8] | None = None
    """uint8 [N], of the LiDAR's points; 255 for those of rain and snow. None where they are not known."""


def frames_of(data: Mapping[Sensor, NDArray], stamp_ns: int) -> dict[Sensor, SensorFrame]:
    """Each sensor's frame: pictures in the camera's optical frame, points in the LiDAR's."""
    return {
        sensor: SensorFrame(sensor, array, stamp_ns, LIDAR_FRAME_ID if sensor.kind.is_points else CAMERA_FRAME_ID)
        for sensor, array in data.items()
    }


@dataclass(frozen=True, eq=False)
class _View:
    """The camera at one instant: `rotation` [3, 3] body to world, `origin` [3], and what its rays hit."""

    scene: Scene
    rotation: Floats
    origin: Floats
    hits: Hits
    radiance: Floats  # [H, W, 3]


class Drive:
    """Frames of a drive by index, rendered on demand; a frame does not depend on which were rendered before."""

    def __init__(self, config: DriveConfig) -> None:
        self.config = config
        self._ego = ego_motion(config.seed, config.duration_s, config.speed_mps)
        self._world = build_world(config.seed, self._ego)
        self._air = atmosphere(config.weather, np.random.default_rng([config.seed, 3]))
        sky = Material(LABEL["Sky"], (0.0, 0.0, 0.0), reflectance=0.0)
        static = self._world.static
        materials = [sky, *static.materials]
        self._actor_materials: dict[int, int] = {}  # id of an actor's phase -> its first material
        for actor in self._world.actors:
            for phase in actor.phases:
                self._actor_materials[id(phase)] = len(materials)
                materials.extend(phase.materials)
        self._table = material_table(tuple(materials))
        self._static = Surface(static.vertices, static.faces, static.material + np.int32(1))
        self._rays = _camera_rays(config.camera())
        self._beams = _lidar_beams()
        shape = (config.height, config.width)
        self._shader = Shader(self._air, self._table, lamp_map(self._world.lamps), shape)
        sensitivity = np.random.default_rng([config.seed, 4]).normal(1, 0.08, shape)
        self._thresholds = np.clip(sensitivity, 0.7, 1.4).astype(np.float32)
        self._last_log_light: tuple[int, Floats] | None = None

    def __len__(self) -> int:
        return round(self.config.duration_s * self.config.rate_hz)

    def __iter__(self) -> Iterator[DriveFrame]:
        return (self.frame(index) for index in range(len(self)))

    def rig(self) -> Rig:
        """Camera intrinsics and the LiDAR's place on the roof."""
        return rig_of(self.config)

    def frame(self, index: int) -> DriveFrame:
        """The frame at that index; raises IndexError outside the drive."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} is outside the drive of {len(self)} frames")
        rng = np.random.default_rng([self.config.seed, 5, index])
        before = self._log_light_before(index)
        view = self._look(index)
        log_light = sensors.event_log_light(view.radiance)
        self._last_log_light = (index, log_light)
        stamp_ns = _START_NS + round(index * 1e9 / self.config.rate_hz)
        labels = self._table["label"][view.hits.material].reshape(log_light.shape)
        data = {
            Sensor.CAMERA: sensors.camera(view.radiance, self._air, rng),
            Sensor.DEPTH: self._depth(view, rng),
            Sensor.EVENT: sensors.events(before, log_light, self._thresholds, self._air, rng),
        }
        data[Sensor.LIDAR], point_labels = self._lidar(view, rng)
        if self.config.thermal:
            distance = view.hits.distance.reshape(labels.shape)
            own = np.random.default_rng([self.config.seed, 6, index])
            data[THERMAL] = thermal(labels, distance, log_light, self._air.haze_per_m, self.config.weather, own)
        return DriveFrame(stamp_ns, frames_of(data, stamp_ns), labels, point_labels)

    def true_depth(self, index: int) -> Floats:
        """Metres along the optical axis [H, W] of what the camera sees at a frame's instant; far away in the sky."""
        return self._true_depth(self._look(index))

    def _log_light_before(self, index: int) -> Floats:
        """Log light one period earlier: remembered when frames are taken in order, rendered otherwise."""
        if self._last_log_light is not None and self._last_log_light[0] == index - 1:
            return self._last_log_light[1]
        return sensors.event_log_light(self._look(index - 1).radiance)

    def _look(self, index: int) -> _View:
        """Trace and shade the camera's view at a frame's instant."""
        t = index / self.config.rate_hz
        rotation, origin = self._pose(t)
        scene, boxes = self._scene_at(t, origin, rotation)
        rays = _rotated(self._rays, rotation)  # [N, 3]
        hits = scene.trace(origin, rays, boxes)
        radiance = self._shader.radiance(scene, hits, origin, rays, rotation[:, 0])
        image = np.ascontiguousarray(radiance.T).reshape(self.config.height, self.config.width, 3)
        return _View(scene, rotation, origin, hits, image)

    def _pose(self, t: float) -> tuple[Floats, Floats]:
        """Camera rotation (body axes to world) and position."""
        x, y, heading = self._world.road.street.place(START_M + self._ego.distance_at(t), EGO_OFFSET_M)
        pitch, roll = self._ego.nod(t)
        rotation = yaw_matrix(float(heading)) @ _pitch_matrix(pitch) @ _roll_matrix(roll)
        return rotation.astype(np.float32), np.array([x, y, CAMERA_HEIGHT_M], np.float32)

    def _scene_at(self, t: float, origin: Floats, rotation: Floats) -> tuple[Scene, NDArray[np.int64]]:
        """The scene at `t`, and the camera rays that may hit an actor."""
        posed = [(actor, actor.shape_at(t, self._world.road)) for actor in self._near(t)]
        if not posed:
            return Scene(self._static, None, None), np.empty(0, np.int64)
        mask = np.zeros((self.config.height, self.config.width), bool)
        for _, shape in posed:
            _mark(mask, (shape.vertices - origin) @ rotation, self.config.camera())
        material = [s.material + np.int32(self._actor_materials[id(a.phase_at(t))]) for a, s in posed]
        return Scene(self._static, join([s for _, s in posed]), np.concatenate(material)), np.flatnonzero(mask)

    def _near(self, t: float) -> list[Actor]:
        here = START_M + self._ego.distance_at(t)
        return [actor for actor in self._world.actors if -_ACTOR_RANGE_M / 2 < actor.pose(t)[0] - here < _ACTOR_RANGE_M]

    def _true_depth(self, view: _View) -> Floats:
        return (view.hits.distance * self._rays[:, 0]).reshape(self.config.height, self.config.width)

    def _depth(self, view: _View, rng: np.random.Generator) -> Floats:
        camera, z = self.config.camera(), self._true_depth(view)
        poor = (self._table["gloss"][view.hits.material] > 0.5).reshape(z.shape)
        return sensors.depth(z, poor, camera.fx, self._air, rng)

    def _lidar(self, view: _View, rng: np.random.Generator) -> tuple[Floats, NDArray[np.uint8]]:
        """Points [N, 4] and their true labels [N]."""
        body_from_lidar = _body_from_lidar()
        rotation = view.rotation @ body_from_lidar[:3, :3].astype(np.float32)
        origin = (view.origin + view.rotation @ body_from_lidar[:3, 3]).astype(np.float32)
        beams = _rotated(self._beams, rotation)
        hits = view.scene.trace(origin, beams, np.arange(len(beams)))
        facing = np.abs((hits.normal * beams.T).sum(axis=0))
        reflectance = self._table["reflectance"][hits.material]
        wet = (hits.normal[2] > 0.9) * np.float32(0.6 * self._air.wetness)
        labels = self._table["label"][hits.material]
        leafy = labels == LABEL["Vegetation"]
        # A beam goes some way into the leaves before one of them answers.
        distance = hits.distance + leafy * rng.exponential(0.15, len(leafy)).astype(np.float32)
        points, beam = sensors.lidar(self._beams, distance, facing, reflectance * (1 - wet), self._air, rng)
        return points, np.where(beam < 0, UNLABELLED, labels[beam]).astype(np.uint8)


def _rotated(directions: Floats, rotation: Floats) -> Floats:
    """Directions [N, 3] turned by a rotation [3, 3]; OpenCV's loop, as BLAS would wake its threads for this."""
    return cv2.transform(directions[:, None, :], rotation)[:, 0, :]  # type: ignore[return-value]


def _mark(mask: NDArray[np.bool_], body: NDArray[np.floating], camera: PinholeCamera) -> None:
    """Set the pixels of the image rectangle around vertices [V, 3] given in body axes."""
    height, width = mask.shape
    ahead = body[:, 0] > 0.3
    if not ahead.any():
        return
    depth, side, up = body[ahead].T
    cols = camera.cx - camera.fx * side / depth
    rows = camera.cy - camera.fy * up / depth
    left, right = int(max(cols.min() - 1, 0)), int(min(cols.max() + 2, width))
    top, bottom = int(max(rows.min() - 1, 0)), int(min(rows.max() + 2, height))
    if not ahead.all():  # it reaches beside the camera: the picture's edges cut it
        top, bottom = 0, height
        left = 0 if body[:, 1].max() > 0 else left
        right = width if body[:, 1].min() < 0 else right
    if left < right and top < bottom:
        mask[top:bottom, left:right] = True


def _camera_rays(camera: PinholeCamera) -> Floats:
    """Unit directions [H*W, 3] through the pixel centres, in body axes."""
    cols, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    left, up = (camera.cx - cols) / camera.fx, (camera.cy - rows) / camera.fy
    rays = np.stack([np.ones_like(left), left, up], axis=-1).reshape(-1, 3)
    return (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)


def _lidar_beams() -> Floats:
    """Unit directions [rings * columns, 3] in the LiDAR's own axes (x forward, y left, z up)."""
    elevation = np.deg2rad(np.linspace(*_LIDAR_ELEVATION_DEG, _LIDAR_RINGS))[:, None]
    azimuth = np.linspace(np.pi, -np.pi, _LIDAR_COLUMNS, endpoint=False)[None, :]
    x, y = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
    z = np.broadcast_to(np.sin(elevation), x.shape)
    return np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float32)


def _body_from_lidar() -> NDArray[np.float64]:
    """4x4: LiDAR axes to body axes at the camera's position."""
    transform = np.eye(4)
    transform[:3, :3] = yaw_matrix(_LIDAR_YAW).astype(np.float64) @ _pitch_matrix(_LIDAR_PITCH)
    transform[:3, 3] = _LIDAR_OFFSET_M
    return transform


def rig_of(config: DriveConfig) -> Rig:
    """The rig of a drive with that config, without building its world."""
    return Rig(config.camera(), camera_from_lidar())


def base_from_lidar() -> NDArray[np.float64]:
    """4x4 rigid transform from the LiDAR frame to the vehicle's base: on the ground below the camera, x ahead, z up."""
    transform = _body_from_lidar()
    transform[2, 3] += CAMERA_HEIGHT_M
    return transform


def camera_from_lidar() -> NDArray[np.float64]:
    """4x4 rigid transform from the LiDAR frame to the camera's optical frame."""
    optical_from_body = np.eye(4)
    optical_from_body[:3, :3] = _OPTICAL_FROM_BODY
    return optical_from_body @ _body_from_lidar()


def _pitch_matrix(angle: float) -> NDArray[np.float64]:
    """Rotation about y (left): positive lowers the nose."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _roll_matrix(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
