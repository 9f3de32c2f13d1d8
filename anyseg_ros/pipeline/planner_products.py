"""What planners get of a mask, by the parameters `output.*`. No rclpy: the node and the replay make the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.class_groups import ClassNameError, Groups, PublishedClasses, class_table, published_classes
from anyseg_core.runtime.model_card import ModelCard
from anyseg_core.runtime.points.labelled import LabelledPoints, label_depth, label_scan
from anyseg_core.runtime.sensors import DEPTH, Sensor, point_sensor
from anyseg_ros.pipeline.jobs import Job, Result
from anyseg_ros.pipeline.output_parameters import GROUPS
from anyseg_ros.pipeline.parameters import ParameterError, Parameters, PointParameters

CARD_GROUPS = ("drivable", "ground", "obstacle")
SURFACES_UNKNOWN = "its card does not say which classes are ground: name them in {parameter}"


@dataclass(frozen=True, eq=False)
class OutputClasses:
    """Which of a student's labels are what, by the card and the parameters."""

    published: PublishedClasses
    masks: dict[str, NDArray[np.bool_]]
    """By name: bool [256], the student's labels that the mask of that name shows."""
    obstacles: NDArray[np.bool_] | str
    """bool [256], or why nobody knows which labels are obstacles."""
    drivable: NDArray[np.bool_] | str
    """bool [256], or why nobody knows where one can drive."""


def output_classes(card: ModelCard, parameters: Parameters) -> OutputClasses:
    """Raises ParameterError where a name is no class and no group of the student."""
    names, output = parameters.class_names, parameters.output
    groups = {**card_groups(card), **names.groups}
    try:
        published = published_classes(
            card, names.groups, as_groups=output.publish == GROUPS, ids=names.ids, colors=names.colors
        )
        masks = {name: class_table(card, groups, [name]) for name in output.class_masks if name}
        obstacles = _table(card, groups, parameters.obstacles.classes, "output.obstacles.classes")
        drivable = _table(card, groups, parameters.grid.drivable, "output.grid.drivable")
    except ClassNameError as error:
        raise ParameterError(f"output: {error}") from None
    return OutputClasses(published, masks, obstacles, drivable)


def card_groups(card: ModelCard) -> dict[str, tuple[str, ...]]:
    """CARD_GROUPS by what the card says of surfaces; none where it says nothing."""
    if not any(spec.surface for spec in card.classes):
        return {}
    drivable = tuple(spec.name for spec in card.classes if spec.surface == "drivable")
    ground = tuple(spec.name for spec in card.classes if spec.surface)
    obstacle = tuple(spec.name for spec in card.classes if not spec.surface)
    return dict(zip(CARD_GROUPS, (drivable, ground, obstacle), strict=True))


def _table(card: ModelCard, groups: Groups, names: tuple[str, ...], parameter: str) -> NDArray[np.bool_] | str:
    """bool [256]; words where a name is a group that this card does not know."""
    if set(names) & set(CARD_GROUPS) - set(groups):
        return SURFACES_UNKNOWN.format(parameter=parameter)
    return class_table(card, groups, [name for name in names if name])


def points_source(job: Job) -> Sensor | str:
    """Whose points a mask labels: LiDAR's where it is in it, else depth's; words where there are none."""
    if job.rig is None:
        return "none: camera intrinsics are not known"
    points = point_sensor(job.frames) or next((m for m in job.frames if m.kind is DEPTH), None)
    if points is not None:
        return points
    return "none: neither lidar nor depth is in this mask"


def label_points(result: Result, parameters: PointParameters) -> LabelledPoints | None:
    """The points of a mask with its labels; None where there are none, see `points_source`."""
    job = result.job
    source = points_source(job)
    if job.rig is None or not isinstance(source, Sensor):
        return None
    labels, confidence = result.segmentation.resized(*result.mask_size)
    if job.scan is not None:
        return label_scan(job.scan, labels, confidence, job.rig, parameters.occlusion())
    return label_depth(job.frames[source], labels, confidence, job.rig, parameters.depth_stride)
