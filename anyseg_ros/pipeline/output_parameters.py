"""The parameters `output.*`: which labels are published, and what planners get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from anyseg_core.runtime.points.ground_grid import GridLimits
from anyseg_core.runtime.points.obstacles import ObstacleLimits
from anyseg_core.runtime.points.occlusion import Occlusion
from anyseg_core.runtime.ranges import Range, Ranges, check_ranges

CLASSES, GROUPS = "classes", "groups"
NONE = ("",)
"""A list of no names: ROS has no type for an empty list."""


@dataclass(frozen=True)
class OutputParameters:
    """How results are drawn, and when they are too old. Raises ValueError that names the field."""

    RANGES: ClassVar[Ranges] = {
        "overlay_opacity": Range(0.0, 1.0),
        "max_mask_age_ms": Range(1.0, 60_000.0),
        "min_confidence": Range(0.0, 1.0),
    }
    overlay_opacity: float = 0.5
    """Of the colours over the camera image: 0 = invisible, 1 = opaque."""
    max_mask_age_ms: float = 500.0
    """A mask whose anchor frame is older than this when it is ready is not published. Frames of up to `max_age_ms` are
    used, and the engine takes its time: a slow computer needs more here, or a smaller student."""
    min_confidence: float = 0.0
    """A pixel whose confidence is below this is published as 255, which means "I don't know"; 0 labels every pixel. The
    student's card says how often which confidence is right (`training.metrics`)."""
    base_frame: str = "base_link"
    """The vehicle's base, z up, level with the ground, where odometry does not name it: heights count from it."""
    publish: str = CLASSES
    """`classes`, the student's, or `groups`, those of `output.class_groups`: other pixels are then 255."""
    class_masks: tuple[str, ...] = NONE
    """Classes and groups that have a mask of their own, on ~/segmentation/class_masks/NAME: 255 where it is, else 0."""

    def __post_init__(self) -> None:
        check_ranges(self, self.RANGES)
        if self.publish not in (CLASSES, GROUPS):
            raise ValueError(f"publish must be {CLASSES} or {GROUPS}, not {self.publish!r}")


@dataclass(frozen=True)
class PointParameters:
    """`output.points`: labelled points. Raises ValueError that names the field."""

    RANGES: ClassVar[Ranges] = {
        "occlusion_bound_m": Range(0.001, 1000.0),
        "camera_height_m": Range(0.001, 1000.0),
        "depth_stride": Range(1, 1000),
    }
    occlusion_bound_m: float = Occlusion.bound_m
    """A point this much behind the nearest one of its pixel's surroundings is hidden, and gets no label."""
    camera_height_m: float = Occlusion.camera_height_m
    """Of the camera above the ground, for points that it sees at a flat angle."""
    depth_stride: int = 4
    """Every so many pixels along and across a depth image make a point, where no LiDAR lives."""

    def __post_init__(self) -> None:
        check_ranges(self, self.RANGES)

    def occlusion(self) -> Occlusion:
        """When a point counts as hidden."""
        return Occlusion(self.occlusion_bound_m, self.camera_height_m)


@dataclass(frozen=True)
class ObstacleParameters(ObstacleLimits):
    """`output.obstacles`: which labelled points are obstacles. Raises ValueError that names the field."""

    classes: tuple[str, ...] = ("obstacle",)
    """Names of classes or groups; `obstacle`, `ground` and `drivable` are groups that the student's card knows."""


@dataclass(frozen=True)
class GridParameters(GridLimits):
    """`output.grid`: the map of where one can drive. Raises ValueError that names the field."""

    drivable: tuple[str, ...] = ("drivable",)
    """Names of classes or groups, as for the obstacles."""


@dataclass(frozen=True)
class ClassNames:
    """What a user calls classes; the names of these parameters are the user's own, too.

    Raises ValueError that names the parameter.
    """

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """`output.class_groups.NAME`: classes of the student."""
    ids: Mapping[str, int] = field(default_factory=dict)
    """`output.label_ids.NAME`: the published label of a class or group."""
    colors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """`output.colors.NAME`: RGB of a class or group."""

    def __post_init__(self) -> None:
        for name, label in self.ids.items():
            if not 0 <= label <= 255:
                raise ValueError(f"output.label_ids.{name} must be 0 to 255, not {label}")
        for name, color in self.colors.items():
            if len(color) != 3 or not all(0 <= part <= 255 for part in color):
                raise ValueError(f"output.colors.{name} must be three numbers of 0 to 255, not {list(color)}")

    def to_values(self) -> dict[str, Any]:
        """As parameters: name -> value."""
        parts = zip(NAME_PREFIXES, (self.groups, self.ids, self.colors), strict=True)
        return {
            prefix + name: list(value) if isinstance(value, tuple) else value
            for prefix, part in parts
            for name, value in part.items()
        }


NAME_PREFIXES = ("output.class_groups.", "output.label_ids.", "output.colors.")
"""Of the parameters whose names the user makes up."""


def class_names(values: Mapping[str, Any]) -> ClassNames:
    """Those among all parameters. Raises ValueError that names the parameter."""
    groups, ids, colors = ({n[len(p) :]: v for n, v in values.items() if n.startswith(p)} for p in NAME_PREFIXES)
    for name, members in groups.items():
        if isinstance(members, str) or not all(isinstance(member, str) for member in members) or not members:
            raise ValueError(f"output.class_groups.{name} must be a list of class names, not {members!r}")
    for name, label in ids.items():
        if not isinstance(label, int) or isinstance(label, bool):
            raise ValueError(f"output.label_ids.{name} must be an integer, not {label!r}")
    for name, color in colors.items():
        if isinstance(color, (str, bytes)) or not all(isinstance(part, int) for part in color):
            raise ValueError(f"output.colors.{name} must be three integers, not {color!r}")
    in_order = {name: tuple(groups[name]) for name in sorted(groups)}
    return ClassNames(in_order, ids, {n: tuple(v) for n, v in colors.items()})
