"""Labelled points -> bytes and fields of a sensor_msgs/PointCloud2, and the messages themselves."""

from __future__ import annotations

import array
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.class_groups import PublishedClasses
from anyseg_core.runtime.label_sets import UNLABELLED
from anyseg_core.runtime.points.ground_grid import Grid
from anyseg_core.runtime.points.labelled import LabelledPoints
from anyseg_ros.messages.conversions import byte_array

UNLABELLED_GREY = 90
"""Of points without a label, in all three colours."""
_DATATYPES: Mapping[str, int] = MappingProxyType({"<f4": 7, "|u1": 2})
_WITH_INTENSITY = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "rgb", "label", "confidence"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<f4", "u1", "u1"],
        "offsets": [0, 4, 8, 12, 16, 20, 21],
        "itemsize": 24,
    }
)
_WITHOUT = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "label", "confidence"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "u1", "u1"],
        "offsets": [0, 4, 8, 12, 16, 17],
        "itemsize": 20,
    }
)


class FieldSpec(NamedTuple):
    """A field of a PointCloud2."""

    name: str
    offset: int
    datatype: int


class PackedCloud(NamedTuple):
    """What a PointCloud2 is made of."""

    points: NDArray[np.void]
    """[N], structured."""
    height: int
    width: int

    @property
    def fields(self) -> list[FieldSpec]:
        fields = self.points.dtype.fields or {}
        return [FieldSpec(name, offset, _DATATYPES[dtype.str]) for name, (dtype, offset, *_) in fields.items()]


def packed_cloud(
    cloud: LabelledPoints, published: PublishedClasses, index: NDArray[np.int64] | None = None
) -> PackedCloud:
    """All points, organised as they came, or those of an index in one row. `rgb` is packed into a float as PCL does."""
    points, labels, confidence = cloud.points, published.of(cloud.labels), cloud.confidence
    height, width = cloud.shape
    if index is not None:
        points, labels, confidence = points.take(index, axis=0), labels.take(index), confidence.take(index)
        height, width = 1, len(index)
    packed = np.empty(len(points), _WITH_INTENSITY if cloud.has_intensity else _WITHOUT)
    for column, name in enumerate(("x", "y", "z", "intensity")[: points.shape[1]]):
        packed[name] = points[:, column]
    packed["rgb"] = _packed_colors(published).take(labels)
    packed["label"] = labels
    packed["confidence"] = confidence
    return PackedCloud(packed, height, width)


def _packed_colors(published: PublishedClasses) -> NDArray[np.float32]:
    """[256]: 0x00RRGGBB, seen as a float."""
    colors = published.palette.astype(np.uint32)  # [256, 3]
    colors[UNLABELLED] = UNLABELLED_GREY
    return (colors[:, 0] << 16 | colors[:, 1] << 8 | colors[:, 2]).view(np.float32)


def cloud_message(packed: PackedCloud, header: Any) -> Any:
    """sensor_msgs/PointCloud2 with that header."""
    from sensor_msgs.msg import PointCloud2, PointField  # deferred: packing needs no ROS

    step = packed.points.dtype.itemsize
    fields = [PointField(name=f.name, offset=f.offset, datatype=f.datatype, count=1) for f in packed.fields]
    message = PointCloud2(header=header, height=packed.height, width=packed.width, fields=fields)
    message.point_step, message.row_step = step, step * packed.width
    message.data = byte_array(packed.points.view(np.uint8))
    return message


def grid_message(grid: Grid, resolution_m: float, header: Any) -> Any:
    """nav_msgs/OccupancyGrid with that header; its cells are level with the header's frame."""
    from nav_msgs.msg import OccupancyGrid

    message = OccupancyGrid(header=header)
    message.info.map_load_time = header.stamp
    message.info.resolution = resolution_m
    message.info.height, message.info.width = grid.values.shape
    message.info.origin.position.x, message.info.origin.position.y = grid.origin_m
    message.info.origin.orientation.w = 1.0
    message.data = array.array("b", grid.values.tobytes())
    return message
