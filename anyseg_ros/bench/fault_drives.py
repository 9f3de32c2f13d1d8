"""Simulated drives for the fault benchmark, and how the messages reach the node: latency, jitter, hiccups."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, Injector, Stage
from anyseg_core.processes import Progress
from anyseg_core.runtime.geometry.projection import Rig
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_core.sim.drive import DriveConfig, DriveFrame
from anyseg_core.sim.drive_cache import is_recorded, recording_path, render_to
from anyseg_core.sim.recorded_drive import RecordedDrive
from anyseg_core.sim.weather import WEATHERS, Weather

RATE_HZ = 10.0
PERIOD_NS = round(NS_PER_S / RATE_HZ)
DRIVE_S = 30.0
WIDTH, HEIGHT = 320, 240
"""A quarter of the pixels of a real camera: rendering is what costs."""
FIRST_SEED = 5_000_000
"""Of worlds that neither training nor evaluation has seen."""
START_NS = 1_800_000_000 * NS_PER_S


@dataclass(frozen=True)
class Scene:
    """A drive to render and what is special in how it is played."""

    name: str
    config: DriveConfig
    is_static: bool = False
    """One instant of it is held: nothing moves, no event comes, only the sensors' noise goes on."""


def scenes() -> tuple[Scene, ...]:
    """Driving (and waiting at crossings) in each weather; parked by day and by night; the same with nothing moving."""
    driving = [Scene(f"{weather}", _config(place, weather)) for place, weather in enumerate(WEATHERS)]
    parked = [
        Scene(f"parked, {weather}", _config(len(WEATHERS) + place, weather, speed_mps=0.0))
        for place, weather in enumerate((Weather.SUN, Weather.NIGHT))
    ]
    static = [replace(scene, name=f"static scene, {scene.config.weather}", is_static=True) for scene in parked]
    return (*driving, *parked, *static)


def _config(place: int, weather: Weather, speed_mps: float = DriveConfig.speed_mps) -> DriveConfig:
    return DriveConfig(FIRST_SEED + place, weather, DRIVE_S, RATE_HZ, WIDTH, HEIGHT, speed_mps=speed_mps)


def render_missing(folder: Path, workers: int, progress: Progress) -> None:
    """Render the scenes that are not in `folder` yet."""
    configs = dict.fromkeys(scene.config for scene in scenes())
    missing = [config for config in configs if not is_recorded(recording_path(config, folder))]
    total = len(missing) * round(DRIVE_S * RATE_HZ)
    for number, config in enumerate(missing):
        before = number * round(DRIVE_S * RATE_HZ)
        render_to(folder, config, workers, lambda done, _total, before=before: progress(before + done, total))


@dataclass(frozen=True, eq=False)
class PlayableDrive:
    """A scene's frames, unpacked, as often and from wherever they are wanted; about 1.2 MB a frame."""

    scene: Scene
    rig: Rig
    frames: Sequence[DriveFrame]

    @classmethod
    def load(cls, scene: Scene, folder: Path) -> PlayableDrive:
        """Of a rendered scene. Raises RecordingError where it is missing."""
        recording = RecordedDrive.load(recording_path(scene.config, folder))
        return cls(scene, recording.rig(), list(recording))

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, index: int, modality: Sensor) -> SensorFrame:
        """What that sensor measures at that instant."""
        if not self.scene.is_static:
            return self.frames[index].frames[modality]
        held = self.frames[len(self) // 2].frames[modality]
        return replace(held, data=np.zeros_like(held.data)) if modality is Sensor.EVENT else held


# --- the sensors' own noise, again ---------------------------------------------------------------------------------

_POOL = 1 << 20


@cache
def _noise_pool() -> NDArray[np.float32]:
    return np.random.default_rng(11).standard_normal(_POOL, np.float32)


@cache
def _noise_levels() -> NDArray[np.int8]:
    """1.5 grey levels, a daylight camera's."""
    return np.rint(1.5 * _noise_pool()).astype(np.int8)


def with_fresh_noise(frame: SensorFrame, rng: Generator) -> SensorFrame:
    """The same view measured again: noise of a good sensor on top, so that no two passes send the same bytes."""
    return replace(frame, data=_FRESH[frame.modality](frame.data, rng))


def _stretch(pool: NDArray, size: int, rng: Generator) -> NDArray:
    """`size` values from a random place of the pool: ten times faster than drawing them."""
    start = int(rng.integers(_POOL - size))
    return pool[start : start + size]


def _fresh_image(data: NDArray, rng: Generator) -> NDArray:
    noise = _stretch(_noise_levels(), data.size, rng).reshape(data.shape)
    return cv2.add(data, noise, dtype=cv2.CV_8U)


def _fresh_depth(data: NDArray, rng: Generator) -> NDArray:
    return data * (1 + np.float32(0.004) * _stretch(_noise_pool(), data.size, rng).reshape(data.shape))


def _fresh_events(data: NDArray, rng: Generator) -> NDArray:
    if not data.any():
        return data  # a static scene stays without events: the hardest case
    fired = data.copy()
    fired.reshape(-1)[rng.integers(data.size, size=data.size // 2000)] += 1
    return fired


def _fresh_points(data: NDArray, rng: Generator) -> NDArray:
    stretched = data.copy()
    stretched[:, :3] *= 1 + np.float32(0.001) * _stretch(_noise_pool(), len(data), rng)[:, None]
    return stretched


_FRESH: Mapping[Sensor, Callable[[NDArray, Generator], NDArray]] = MappingProxyType(
    {
        Sensor.CAMERA: _fresh_image,
        Sensor.DEPTH: _fresh_depth,
        Sensor.EVENT: _fresh_events,
        Sensor.LIDAR: _fresh_points,
    }
)


# --- from the sensor to the node -----------------------------------------------------------------------------------


LATENCY_MS: Mapping[Sensor, float] = MappingProxyType(
    {Sensor.CAMERA: 8.0, Sensor.DEPTH: 14.0, Sensor.EVENT: 4.0, Sensor.LIDAR: 12.0}
)
"""From the measurement to the node, jitter left out."""


@dataclass(frozen=True)
class Transport:
    """When a message that was measured at one time is received."""

    jitter: float = 0.15
    """Each message is early or late by up to this share of the period, uniformly; early is no jitter, late is twice."""
    hiccup_every_s: float = 20.0
    """Mean time between two hiccups of the scheduler, in which the node neither receives nor does anything."""
    hiccup_ms: float = 50.0

    def hiccups(self, duration_s: float, rng: Generator) -> Hiccups:
        """Those of a run."""
        count = rng.poisson(duration_s / self.hiccup_every_s)
        begins = np.sort(rng.uniform(0, duration_s, count)) * NS_PER_S
        return Hiccups(tuple(START_NS + int(begin) for begin in begins), round(self.hiccup_ms * 1e6))

    def delay_ns(self, modality: Sensor, rng: Generator) -> int:
        """Of one message."""
        late = (1 + rng.uniform(-1, 1)) * self.jitter * PERIOD_NS
        return round(LATENCY_MS[modality] * 1e6 + late)


@dataclass(frozen=True)
class Hiccups:
    """Stretches of time in which the node stands still; `begins_ns` increase."""

    begins_ns: tuple[int, ...]
    length_ns: int

    def after(self, time_ns: int) -> int:
        """That time, or the end of the hiccup that it falls into."""
        place = bisect_right(self.begins_ns, time_ns) - 1
        if place >= 0 and time_ns < self.begins_ns[place] + self.length_ns:
            return self.after(self.begins_ns[place] + self.length_ns)
        return time_ns


class Delivery(NamedTuple):
    """What the node receives: a frame, or why its message could not be read."""

    at_ns: int
    modality: Sensor
    frame: SensorFrame | None
    measured_s: float
    """When it was measured, seconds since the start."""
    fault: Fault | None = None


class _Sent(NamedTuple):
    """What leaves a sensor, in seconds since the start."""

    at_s: float
    measured_s: float
    frame: SensorFrame | None
    fault: Fault | None = None


MESSAGE_FAULTS: Mapping[str, Fault] = MappingProxyType(
    {"truncate": Fault.WRONG_SIZE, "wrong_encoding": Fault.DECODE_ERROR}
)
"""What the conversions say of a message with that fault; test_bench_faults holds this to them."""


NO_FAULTS = InjectionSchedule()
USUAL_TRANSPORT = Transport()


@dataclass(frozen=True, eq=False)
class Play:
    """A stretch of a drive on its way to the node, with faults."""

    drive: PlayableDrive
    duration_s: float
    seed: int
    schedule: InjectionSchedule = NO_FAULTS
    transport: Transport = USUAL_TRANSPORT
    fresh_noise: bool = False
    modalities: tuple[Sensor, ...] = DEFAULT_SENSORS

    @cached_property
    def start_index(self) -> int:
        """The first frame, so chosen that the drive is long enough. Raises ValueError where it never is."""
        spare = len(self.drive) - self.ticks
        if spare < 0:
            raise ValueError(f"{self.duration_s} s do not fit into a drive of {len(self.drive) / RATE_HZ} s")
        return int(np.random.default_rng([self.seed, 1]).integers(spare + 1))

    @property
    def ticks(self) -> int:
        """How often each sensor measures."""
        return int(self.duration_s * RATE_HZ)

    def index_of(self, stamp_ns: int) -> int:
        """The drive's frame of a true stamp."""
        return self.start_index + round((stamp_ns - START_NS) / PERIOD_NS)

    def hiccups(self) -> Hiccups:
        return self.transport.hiccups(self.duration_s, np.random.default_rng([self.seed, 2]))

    def deliveries(self) -> Iterator[Delivery]:
        """In the order of their arrival."""
        hiccups = self.hiccups()
        return heapq.merge(*(self._of_sensor(m, hiccups) for m in self.modalities), key=lambda one: one.at_ns)

    def _of_sensor(self, modality: Sensor, hiccups: Hiccups) -> Iterator[Delivery]:
        """Messages of one sensor never overtake each other."""
        rng = np.random.default_rng([self.seed, 3, DEFAULT_SENSORS.index(modality)])
        latest_ns = 0
        for sent in self._sent(modality, rng):
            ready_ns = START_NS + round(sent.at_s * NS_PER_S) + self.transport.delay_ns(modality, rng)
            latest_ns = hiccups.after(max(ready_ns, latest_ns))
            yield Delivery(latest_ns, modality, sent.frame, sent.measured_s, sent.fault)

    def _sent(self, modality: Sensor, rng: Generator) -> Iterator[_Sent]:
        """What leaves the sensor, after its faults."""
        unreadable: list[_Sent] = []
        now_s = 0.0
        own = tuple(fault for fault in self.schedule.injections if fault.modality is modality)
        is_delayed = any(INJECTION_KINDS[fault.kind].stage is Stage.DELAY for fault in own)  # its stamps are true, then
        injector = Injector(
            InjectionSchedule(seed=self.schedule.seed, injections=own),
            lambda _frame, kind: unreadable.append(_Sent(now_s, now_s, None, MESSAGE_FAULTS[kind])),
        )
        for tick in range(self.ticks):
            now_s = tick / RATE_HZ
            injector.send(self._measured(tick, modality, rng), now_s)
            yield from unreadable
            unreadable.clear()
            for arrival in injector.arrivals(now_s + 1 / RATE_HZ - 1e-6, modality):
                at_s, frame = arrival.elapsed_s, arrival.item
                yield _Sent(at_s, (frame.stamp_ns - START_NS) / NS_PER_S if is_delayed else at_s, frame)

    def _measured(self, tick: int, modality: Sensor, rng: Generator) -> SensorFrame:
        frame = self.drive.frame(self.start_index + tick, modality)
        frame = with_fresh_noise(frame, rng) if self.fresh_noise else frame
        count = tick if modality is Sensor.EVENT else None  # event cameras number their packets
        return replace(frame, stamp_ns=START_NS + tick * PERIOD_NS, sequence=count)
