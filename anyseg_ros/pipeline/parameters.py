"""The node's parameters: dataclasses <-> flat ROS parameter names, validated. No rclpy.

Every default is written once: here, or in the dataclass of the part that it configures. `config/vehicle.yaml` lists
them with comments, and a test holds it to these.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from anyseg_core.runtime.cross_examination.policy import CrossExaminationConfig
from anyseg_core.runtime.engines.open_engine import BACKENDS
from anyseg_core.runtime.engines.protocol import BuildOptions
from anyseg_core.runtime.geometry.projection import PinholeCamera
from anyseg_core.runtime.geometry.rigid_transform import rigid_transform
from anyseg_core.runtime.health.monitor import DEFAULT_CHECKS, CheckConfig, Fault, HealthConfig
from anyseg_core.runtime.health.thresholds import CHECKS, check_threshold
from anyseg_core.runtime.image_files import MAX_PIXELS
from anyseg_core.runtime.ranges import Range, Ranges, check_ranges
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, DEPTH, LIDAR, Sensor, SensorKind, in_order
from anyseg_core.runtime.strict_yaml import load_yaml_file
from anyseg_core.runtime.time_units import NS_PER_MS
from anyseg_core.runtime.user_paths import from_home
from anyseg_ros.messages.default_topics import DEFAULT_TOPICS, ODOMETRY, camera_info_topic
from anyseg_ros.messages.sensor_messages import default_topic
from anyseg_ros.pipeline.engine_recovery import FALLBACK, ON_ENGINE_FAILURE
from anyseg_ros.pipeline.output_parameters import (
    NAME_PREFIXES,
    ClassNames,
    GridParameters,
    ObstacleParameters,
    OutputParameters,
    PointParameters,
    class_names,
)
from anyseg_ros.pipeline.pipeline import SyncConfig

RELIABILITIES = ("best_effort", "reliable")
PRECISIONS = ("auto", "fp32")

Overrides = Mapping[tuple[Sensor, Fault], Mapping[str, Any]]
"""What one sensor's check has other than `faults.<check>`: field of `CheckConfig` -> value."""
_OVERRIDES_OF_KINDS: Mapping[tuple[SensorKind, Fault], Mapping[str, Any]] = MappingProxyType(
    {
        # Ranging is more exact than a camera's grey levels at night: clean stereo 0.016, LiDAR 0.006.
        (DEPTH, Fault.NOISY): {"threshold": 0.08},
        (LIDAR, Fault.NOISY): {"threshold": 0.08},
    }
)


def default_overrides(sensors: Collection[Sensor] = DEFAULT_SENSORS) -> Overrides:
    """What the checks of these sensors have other than `faults.<check>` unless something else is configured."""
    return {
        (sensor, fault): change
        for (kind, fault), change in _OVERRIDES_OF_KINDS.items()
        for sensor in sensors
        if sensor.kind.family is kind
    }


class ParameterError(ValueError):
    """Parameters that cannot be used: every mistake with its name and remedy, one a line."""


@dataclass(frozen=True)
class ModalityParameters:
    """Where one modality comes from and what is expected of it. Raises ValueError that names the field."""

    RANGES: ClassVar[Ranges] = {
        **HealthConfig.RANGES,
        "max_pixels": Range(1, MAX_PIXELS),
        "full_scale": Range(0.0, 1e10),
    }
    topic: str
    """A name that ends in /compressed or /compressedDepth is a CompressedImage."""
    enabled: bool = True
    """Whether the sensor is used; `~/set_<sensor>_enabled` changes it at run time."""
    expected_rate_hz: float = HealthConfig.expected_rate_hz
    max_age_ms: float = HealthConfig.max_age_ms
    startup_grace_s: float = HealthConfig.startup_grace_s
    min_quality: float = HealthConfig.min_quality
    """0, never, measured best with the bundled student (`anyseg bench quality`): even the camera of the simulated night
    (quality 0.14 to 0.25) and fog (0.44 to 0.58) does its masks more good than harm."""
    max_pixels: int = 1 << 24
    """Of a picture: a larger one is refused before it is decoded, which would cost time and memory for nothing."""
    full_scale: float = 0.0
    """Intensity that a LiDAR's strongest echo has (1, 255, ...), or white of a camera of 16 bits (4095 for 12); 0 =
    learnt. Students are given a share of it, as they were trained."""
    qos: str = "best_effort"
    """Reliability of the subscription, one of `RELIABILITIES`; depth 1, newest wins."""
    kind: str = ""
    """Of the sensor, one of `SENSOR_KINDS`; may be left empty where the sensor is named as its kind."""

    def __post_init__(self) -> None:
        if not self.topic:
            raise ValueError("topic must not be empty; to leave the modality out set enabled to false")
        if self.qos not in RELIABILITIES:
            raise ValueError(f"qos must be one of {', '.join(RELIABILITIES)}, not {self.qos!r}")
        check_ranges(self, self.RANGES)
        self.health({})

    def health(self, checks: Mapping[Fault, CheckConfig]) -> HealthConfig:
        """The limits that its monitor gets."""
        return HealthConfig(
            self.expected_rate_hz, self.max_age_ms, self.startup_grace_s, checks, min_quality=self.min_quality
        )


class _SensorParameters(dict[Sensor, ModalityParameters]):
    """By sensor; one of a student's card of which nothing is configured has its defaults."""

    def __missing__(self, sensor: Sensor) -> ModalityParameters:
        return ModalityParameters(default_topic(sensor), kind=sensor.kind.name)


@dataclass(frozen=True)
class ModelParameters:
    """The student and how it runs. Raises ValueError that names the field."""

    RANGES: ClassVar[Ranges] = {"threads": Range(0, 1024), "open_timeout_s": Range(0.1, 86_400.0)}
    student: str = "vehicle_sim"
    """Name of a bundled student, or a folder with a model.json."""
    backend: str = "auto"
    """One of `engine.BACKENDS`."""
    precision: str = "auto"
    """One of `PRECISIONS`; auto is that of the network file."""
    engine_cache_dir: str = ""
    """Where engines that were built are kept; empty = ~/.cache/anyseg_ros/engines. onnxruntime builds nothing."""
    build_only: bool = False
    """Configure, which opens and warms up every network, and end the process."""
    threads: int = 0
    """Of the engine; 0 = every core this process may use."""
    on_engine_failure: str = FALLBACK
    """One of `ON_ENGINE_FAILURE`, see `EngineRecovery`."""
    open_timeout_s: float = 120.0
    """Seconds for opening and warming up the engines; one that has to be built first may take longer."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)} in this version, not {self.precision!r}"
            )
        if self.on_engine_failure not in ON_ENGINE_FAILURE:
            known = ", ".join(ON_ENGINE_FAILURE)
            raise ValueError(f"on_engine_failure must be one of {known}, not {self.on_engine_failure!r}")
        check_ranges(self, self.RANGES)

    def build_options(self) -> BuildOptions:
        """How an engine that has to be built is built."""
        cache = from_home(self.engine_cache_dir) if self.engine_cache_dir else None
        return BuildOptions(precision=self.precision, cache_dir=cache)


INFO_PARAMETERS: Mapping[Sensor, str] = MappingProxyType(
    {Sensor.CAMERA: "camera_info_topic", Sensor.DEPTH: "depth_info_topic", Sensor.EVENT: "event_info_topic"}
)
"""The parameter of `rig` that names a sensor's camera_info."""


@dataclass(frozen=True)
class RigParameters:
    """Calibration of camera and LiDAR, where no topic tells it. Raises ValueError that names the field."""

    RANGES: ClassVar[Ranges] = {"register_events_at_m": Range(0.0, 10_000.0)}
    use_tf: bool = True
    """Take the extrinsics from TF where tf2_ros is installed and the transform exists."""
    camera_from_lidar_translation_m: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Position of the LiDAR from the camera's lens, in the axes of its optical frame (x right, y down, z forward)."""
    camera_from_lidar_rotation_xyzw: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    """Quaternion of the LiDAR's axes in the optical frame; zeros = not known, and without TF the LiDAR is not used.
    (0.5, -0.5, 0.5, 0.5) is a LiDAR that looks where the camera does (x forward, y left, z up)."""
    intrinsics: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    """width, height, fx, fy, cx, cy in pixels, used until a camera_info arrives; zeros = none."""
    camera_info_topic: str = ""
    """Of the camera; empty = `camera_info` beside its image, as image_transport has it."""
    depth_info_topic: str = ""
    """The same of the depth camera."""
    stereo_offset: bool = True
    """Put the lens where `P[3]` of a rectified picture's camera_info says, beside its frame: the right camera of a
    stereo pair names the left one's. False for a driver that names the right camera's own, which is there already."""
    rectify: bool = False
    """Take the lens' distortion out of raw pictures of camera and depth camera, by their camera_info."""
    register_depth: bool = False
    """Bring depth into the camera's picture, by both camera_infos and TF, where its driver does not align it."""
    event_info_topic: str = ""
    """The same of the event camera."""
    register_events_at_m: float = 0.0
    """Bring events into the camera's picture as if all were so many metres ahead; 0 = they are of its view already."""
    odometry_topic: str = ODOMETRY
    """nav_msgs/Odometry of the vehicle."""
    compensate_motion: bool = True
    """Take the vehicle's own motion out of LiDAR scans where there is odometry."""
    base_from_lidar_translation_m: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Position of the LiDAR in the frame whose motion odometry tells, where TF does not."""
    base_from_lidar_rotation_xyzw: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0)
    """Quaternion of the LiDAR's axes there; the default is a LiDAR that looks ahead."""

    def __post_init__(self) -> None:
        for name, length in (
            ("camera_from_lidar_translation_m", 3),
            ("camera_from_lidar_rotation_xyzw", 4),
            ("intrinsics", 6),
            ("base_from_lidar_translation_m", 3),
            ("base_from_lidar_rotation_xyzw", 4),
        ):
            values = getattr(self, name)
            if len(values) != length or not np.isfinite(values).all():
                raise ValueError(f"{name} must be {length} finite numbers, not {list(values)}")
        for name in ("camera_from_lidar_rotation_xyzw", "base_from_lidar_rotation_xyzw"):
            norm = np.linalg.norm(getattr(self, name))
            is_unset = name.startswith("camera") and norm == 0
            if abs(norm - 1.0) > 0.01 and not is_unset:
                raise ValueError(f"{name} must be a unit quaternion (x, y, z, w)")
        if any(self.camera_from_lidar_translation_m) and not self.knows_extrinsics:
            raise ValueError("camera_from_lidar_translation_m needs camera_from_lidar_rotation_xyzw, which is not set")
        check_ranges(self, self.RANGES)
        self.camera()

    def info_topics(self, image_topics: Mapping[Sensor, str]) -> dict[Sensor, str]:
        """The topic of each sensor's camera_info: that of the parameter, else the one beside its images.

        Events beside the camera's images have no camera_info of their own there.
        """
        chosen = {
            sensor: getattr(self, name) or camera_info_topic(image_topics[sensor])
            for sensor, name in INFO_PARAMETERS.items()
            if sensor in image_topics
        }
        if not self.event_info_topic and chosen.get(Sensor.EVENT) == chosen.get(Sensor.CAMERA):
            chosen.pop(Sensor.EVENT, None)
        return chosen

    def camera(self) -> PinholeCamera | None:
        """The intrinsics, or None where they are left to camera_info."""
        if not any(self.intrinsics):
            return None
        width, height, fx, fy, cx, cy = self.intrinsics
        return PinholeCamera(int(width), int(height), fx, fy, cx, cy)

    @property
    def knows_extrinsics(self) -> bool:
        """Whether somebody has said where the LiDAR sits: there is no default that could be right."""
        return any(self.camera_from_lidar_rotation_xyzw)

    def camera_from_lidar(self) -> NDArray[np.float64]:
        """The extrinsics as a 4x4 transform, where they are known."""
        return rigid_transform(self.camera_from_lidar_translation_m, self.camera_from_lidar_rotation_xyzw)

    def base_from_lidar(self) -> NDArray[np.float64]:
        """From the LiDAR's frame to that of odometry, as a 4x4 transform."""
        return rigid_transform(self.base_from_lidar_translation_m, self.base_from_lidar_rotation_xyzw)

    @property
    def knows_base(self) -> bool:
        """Whether somebody has said where the LiDAR sits on the vehicle: the defaults do not."""
        names = ("base_from_lidar_translation_m", "base_from_lidar_rotation_xyzw")
        return any(getattr(self, name) != getattr(RigParameters, name) for name in names)

    def lidar_from_base(self) -> NDArray[np.float64]:
        """From the frame of odometry to the LiDAR's, as a 4x4 transform."""
        return np.asarray(np.linalg.inv(self.base_from_lidar()), np.float64)


@dataclass(frozen=True)
class EventParameters:
    """How single events (EventPacket, EventArray) become frames, at the event modality's `expected_rate_hz`.

    Raises ValueError that names the field.
    """

    RANGES: ClassVar[Ranges] = {"window_ms": Range(0.0, 10_000.0)}
    window_ms: float = 0.0
    """Events of so long a time are counted in a frame; 0 = since the last one."""

    def __post_init__(self) -> None:
        check_ranges(self, self.RANGES)

    @property
    def window_ns(self) -> int | None:
        """As `EventStream` takes it; None = since the last one."""
        return int(self.window_ms * NS_PER_MS) or None


@dataclass(frozen=True)
class Parameters:
    """All parameters of segmentation_node."""

    modalities: Mapping[Sensor, ModalityParameters] = field(
        default_factory=lambda: {
            sensor: ModalityParameters(topic, kind=sensor.kind.name) for sensor, topic in DEFAULT_TOPICS.items()
        }
    )
    faults: Mapping[Fault, CheckConfig] = field(default_factory=lambda: dict(DEFAULT_CHECKS))
    overrides: Overrides = field(default_factory=lambda: dict(default_overrides()))
    sync: SyncConfig = field(default_factory=SyncConfig)
    cross_examination: CrossExaminationConfig = field(default_factory=CrossExaminationConfig)
    model: ModelParameters = field(default_factory=ModelParameters)
    rig: RigParameters = field(default_factory=RigParameters)
    events: EventParameters = field(default_factory=EventParameters)
    output: OutputParameters = field(default_factory=OutputParameters)
    points: PointParameters = field(default_factory=PointParameters)
    obstacles: ObstacleParameters = field(default_factory=ObstacleParameters)
    grid: GridParameters = field(default_factory=GridParameters)
    class_names: ClassNames = field(default_factory=ClassNames)
    autostart: bool = False
    """Configure and activate at the start, without a lifecycle manager; a failure ends the node with exit code 1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", _SensorParameters(self.modalities))

    def health(self, modalities: Sequence[Sensor] = DEFAULT_SENSORS) -> dict[Sensor, HealthConfig]:
        """What the pipeline expects of these modalities."""
        return {modality: self.modalities[modality].health(self.checks_of(modality)) for modality in modalities}

    def checks_of(self, modality: Sensor) -> dict[Fault, CheckConfig]:
        """The checks of one modality, its overrides applied."""
        overrides = {**default_overrides([modality]), **self.overrides}
        return {
            fault: dataclasses.replace(check, **overrides.get((modality, fault), {}))
            for fault, check in self.faults.items()
        }


SECTIONS = {
    **{name: name for name in ("sync", "cross_examination", "model", "rig", "events", "output")},
    **{name: f"output.{name}" for name in ("points", "obstacles", "grid")},
}
"""Field of Parameters -> the prefix of its parameters."""
_DEFAULTS = Parameters()
_FIXED_OUTPUTS = ("output.publish", "output.class_masks")
_CHANGEABLE_FIELDS = ("enabled", "expected_rate_hz", "max_age_ms", "startup_grace_s", "min_quality")
_FOREIGN = ("use_sim_time", "qos_overrides.", "start_type_description_service", "simulated_vehicle.")
"""Names that rclpy declares itself, on every node."""


def to_values(parameters: Parameters = _DEFAULTS) -> dict[str, Any]:
    """Flat name -> value, as ROS takes it."""
    sections: dict[str, Any] = {f"modalities.{m}": part for m, part in parameters.modalities.items()}
    sections |= {f"faults.{fault}": check for fault, check in parameters.faults.items()}
    sections |= {prefix: getattr(parameters, name) for name, prefix in SECTIONS.items()}
    values = {
        f"{prefix}.{f.name}": _to_ros(getattr(part, f.name))
        for prefix, part in sections.items()
        for f in dataclasses.fields(part)
    }
    values |= {
        _override_name(modality, fault, name): value
        for (modality, fault), changes in parameters.overrides.items()
        for name, value in changes.items()
    }
    return {**values, **parameters.class_names.to_values(), "autostart": parameters.autostart}


def from_values(values: Mapping[str, Any]) -> Parameters:
    """Flat names -> Parameters; what is missing has its default, and so has an override that is None.

    Raises ParameterError that lists every unknown name, wrong type and impossible value with its remedy.
    """
    mistakes = unknown_names(values)
    defaults = defaults_for(values, mistakes)
    modalities = {m: _section(f"modalities.{m}", part, values, mistakes) for m, part in defaults.modalities.items()}
    faults = {fault: _section(f"faults.{fault}", check, values, mistakes) for fault, check in _DEFAULTS.faults.items()}
    for fault, check in faults.items():
        try:
            check_threshold(fault, check)
        except ValueError as error:
            mistakes.append(f"faults.{fault}: {error}")
    overrides = _overrides(defaults, faults, values, mistakes)
    sections = {name: _section(prefix, getattr(defaults, name), values, mistakes) for name, prefix in SECTIONS.items()}
    names = ClassNames()
    try:
        names = class_names(values)
    except (TypeError, ValueError) as error:
        mistakes.append(str(error))
    autostart = values.get("autostart", _DEFAULTS.autostart)
    if not isinstance(autostart, bool):
        mistakes.append(f"autostart: must be true or false, not {autostart!r}")
    if mistakes:
        raise ParameterError("\n".join(mistakes))
    return Parameters(modalities, faults, overrides, **sections, class_names=names, autostart=autostart)


def defaults_for(values: Mapping[str, Any], mistakes: list[str] | None = None) -> Parameters:
    """The defaults, with a block for each sensor that `values` give a kind (`modalities.thermal.kind: camera`), or
    that has one already.

    A name and a kind that do not fit go to `mistakes`.
    """
    sensors = set(DEFAULT_SENSORS)
    for name in dict.fromkeys(name.split(".")[1] for name in values if name.startswith("modalities.")):
        kind = str(values.get(f"modalities.{name}.kind") or "")
        try:
            sensors.add(Sensor(name, kind or None))
        except ValueError as error:
            if kind and mistakes is not None:
                mistakes.append(f"modalities.{name}.kind: {error}")
    return defaults_of(in_order(sensors))


@cache
def defaults_of(sensors: tuple[Sensor, ...]) -> Parameters:
    """The defaults of a vehicle with these sensors, each of which may be an anchor."""
    blocks = {sensor: _SensorParameters()[sensor] for sensor in sensors}
    return Parameters(blocks, overrides=default_overrides(sensors), sync=SyncConfig(anchor_order=sensors))


def load_parameters(path: Path, node: str = "") -> Parameters:
    """From a ROS parameter file, such as config/vehicle.yaml: what it says for a node.

    `node`: its full name, `/front/segmentation_node`; empty: whichever segmentation_node the file is for.

    Raises ParameterError that names the file and every mistake in it.
    """
    try:
        content = load_yaml_file(path)
        ours = [name for name in content if _is_for(f"/{name.lstrip('/')}", node)]
        if not ours:
            wanted = node.lstrip("/") or "segmentation_node"
            raise ValueError(f"no section is for {wanted} or /**, so nothing of it would be used")
        nodes = sorted({f"/{name.lstrip('/')}" for name in ours if "*" not in name})
        if len(nodes) > 1:
            raise ValueError(
                f"its sections are of several nodes ({', '.join(nodes)}): give one of them a file of its own"
            )
        if bare := [name for name in ours if "ros__parameters" not in content[name]]:
            raise ValueError(f"{bare[0]} needs `ros__parameters:` below it, and the parameters below that")
        sections = [content[name]["ros__parameters"] for name in ours]
        return from_values({name: value for section in sections for name, value in flattened(section).items()})
    except ParameterError as error:
        raise ParameterError(f"{path}: {error}") from None
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()) or repr(error)
        raise ParameterError(f"{path} is no ROS parameter file: {reason}; start from config/vehicle.yaml") from None


_NODE_NAMES = ("**", "segmentation_node")


def _is_for(section: str, node: str) -> bool:
    """Whether ROS 2 gives a section of a parameter file to a node: `*` is any one name, `/**` any number of them."""
    if not node:
        return section.rpartition("/")[2] in _NODE_NAMES
    pattern = re.escape(section).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")
    return re.fullmatch(pattern, node) is not None


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"sync": {"deadline_ms": 1}} -> {"sync.deadline_ms": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def unknown_names(values: Mapping[str, Any]) -> list[str]:
    """A line for every name that is no parameter, with the nearest one that is."""
    defaults = defaults_for(values)
    known = {*to_values(defaults), *_override_names(defaults.modalities)}
    lines = []
    for name in values:
        if name in known or name.startswith((*_FOREIGN, *NAME_PREFIXES)):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean {near[0]}?" if near else "config/vehicle.yaml lists all of them"
        if name.startswith("modalities.") and name.split(".")[1] not in defaults.modalities:
            remedy += f" Another sensor needs modalities.{name.split('.')[1]}.kind"
        lines.append(f"unknown parameter {name}: {remedy}")
    return lines


def changeable_at_run_time(name: str) -> bool:
    """Whether a configured node accepts a change of this parameter."""
    parts = name.split(".")
    if parts[0] == "modalities" and "faults" not in parts:
        return parts[-1] in _CHANGEABLE_FIELDS
    if name.startswith(NAME_PREFIXES) or name in _FIXED_OUTPUTS:
        return False
    return parts[0] in ("modalities", "faults", "sync", "cross_examination", "output") or name.startswith(_FOREIGN)


def topics_of(parameters: Parameters) -> dict[str, str]:
    """Every name of a topic that a user may set, by its parameter; those that are empty are left out."""
    rig = {f"rig.{name}": getattr(parameters.rig, name) for name in ("odometry_topic", *INFO_PARAMETERS.values())}
    named = {f"modalities.{m}.topic": one.topic for m, one in parameters.modalities.items()}
    return {name: topic for name, topic in (named | rig).items() if topic}


def may_change_to(name: str, before: Any, value: Any) -> bool:
    """Whether a configured node accepts this value: any that it has already, as in a dump of its own parameters."""
    return changeable_at_run_time(name) or (before == value and type(before) is type(value))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for every parameter of the node itself whose value differs: what decides which sensors are believed."""
    changed = {name for name in after if before.get(name) != after[name] and not name.startswith(_FOREIGN)}
    return [f"{name}: {before.get(name)} -> {after[name]}" for name in sorted(changed)]


def _override_name(modality: Sensor, fault: Fault, name: str) -> str:
    return f"modalities.{modality}.faults.{fault}.{name}"


def _override_names(sensors: Collection[Sensor]) -> dict[str, tuple[Sensor, Fault, str]]:
    """Every override that may be set; declared are only those that are."""
    return {
        _override_name(sensor, fault, f.name): (sensor, fault, f.name)
        for sensor in sensors
        for fault in DEFAULT_CHECKS
        if CHECKS[fault].applies_to(sensor.kind)
        for f in dataclasses.fields(CheckConfig)
    }


def _overrides(
    defaults: Parameters, faults: Mapping[Fault, CheckConfig], values: Mapping[str, Any], mistakes: list[str]
) -> Overrides:
    """The default overrides and those in `values`; each must make a check together with `faults.<check>`."""
    changes = {key: dict(change) for key, change in defaults.overrides.items()}
    for name, (modality, fault, field_name) in _override_names(defaults.modalities).items():
        if values.get(name) is None:
            continue
        try:
            value = _from_ros(values[name], getattr(faults[fault], field_name))
            check_threshold(fault, dataclasses.replace(faults[fault], **{field_name: value}))
        except ValueError as error:
            mistakes.append(f"{name}: {error}")
        else:
            changes.setdefault((modality, fault), {})[field_name] = value
    return changes


_Part = TypeVar("_Part")


def _section(prefix: str, default: _Part, values: Mapping[str, Any], mistakes: list[str]) -> _Part:
    """The dataclass of one section; what is wrong goes to `mistakes`, and the default is returned."""
    changes: dict[str, Any] = {}
    before = len(mistakes)
    for f in dataclasses.fields(default):  # type: ignore[arg-type]
        name = f"{prefix}.{f.name}"
        if name not in values:
            continue
        try:
            changes[f.name] = _from_ros(values[name], getattr(default, f.name))
        except ValueError as error:
            mistakes.append(f"{name}: {error}")
    if len(mistakes) > before:
        return default
    try:
        return dataclasses.replace(default, **changes)  # type: ignore[type-var]
    except ValueError as error:
        mistakes.append(f"{prefix}: {error}")
        return default


def _to_ros(value: Any) -> Any:
    if isinstance(value, tuple):
        return [str(item) if isinstance(item, Sensor) else item for item in value]
    return value


def _from_ros(value: Any, default: Any) -> Any:
    """The value in the type of `default`; an integer is a fine float. Raises ValueError."""
    if isinstance(default, tuple):
        return _tuple_from_ros(value, default)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ValueError(f"must be {_TYPE_NAMES[type(default)]}, not {value!r}")
    return value


def _tuple_from_ros(value: Any, default: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ValueError(f"must be a list, not {value!r}")
    if isinstance(default[0], Sensor):
        return tuple(Sensor(str(item)) for item in value)
    if isinstance(default[0], str):
        return tuple(_from_ros(item, "") for item in value)
    return tuple(_from_ros(item, 0.0) for item in value)


_TYPE_NAMES: Mapping[type, str] = MappingProxyType(
    {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
)
