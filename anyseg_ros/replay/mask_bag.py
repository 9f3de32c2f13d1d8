"""The masks of a replay as a new bag: the topics of segmentation_node, written without ROS."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from anyseg_core.runtime.points.labelled import LabelledPoints
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.messages.clouds import packed_cloud
from anyseg_ros.pipeline.jobs import Result
from anyseg_ros.pipeline.parameters import Parameters
from anyseg_ros.pipeline.planner_products import OutputClasses, label_points
from anyseg_ros.pipeline.status_lines import StatusLine, mask_lines, status_name
from anyseg_ros.replay.mask_sinks import overlay_of
from anyseg_ros.replay.scenarios import ALL_SENSORS, Scenario

_NODE = "/segmentation_node"
_IMAGE, _STATUS = "sensor_msgs/msg/Image", "diagnostic_msgs/msg/DiagnosticArray"
_JPEG, _CLOUD = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2"
_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]


class MaskBag:
    """A bag that is being written; use it as a context manager. Masks are recorded at the time they were begun.

    Topics of the scenario with all sensors are the node's: `/segmentation_node/segmentation/mask`, `overlay/compressed`
    (JPEG), `points`, and `/segmentation_node/modality_status`; those of another one have its name behind the node's.
    The status is the node's (`status_lines`), under the name of the node whose topics they would be.
    """

    def __init__(self, folder: Path, classes: OutputClasses, parameters: Parameters) -> None:
        self._classes, self._parameters = classes, parameters
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._types: Mapping[str, Callable[..., Any]] = self._store.types  # type: ignore[assignment]
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> MaskBag:
        self._writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def on_mask(self, scenario: Scenario, result: Result) -> None:
        """Write a mask and its status."""
        job, node = result.job, _NODE
        if scenario.name != ALL_SENSORS:
            node += "/" + re.sub(r"\W", "_", scenario.name)
        anchor = job.anchor_frame
        header = self._header(anchor.stamp_ns, anchor.frame_id)
        mask = self._classes.published.of(result.segmentation.resized_labels(*result.mask_size))
        height, width = mask.shape
        image = self._types[_IMAGE](
            header=header,
            height=height,
            width=width,
            encoding="mono8",
            is_bigendian=0,
            step=width,
            data=np.ascontiguousarray(mask).ravel(),
        )
        self._put(f"{node}/segmentation/mask", _IMAGE, image, job.created_ns)
        self._put(f"{node}/segmentation/overlay/compressed", _JPEG, self._overlay(result, header), job.created_ns)
        cloud = label_points(result, self._parameters.points)
        if cloud is not None:
            self._put(f"{node}/segmentation/points", _CLOUD, self._points(cloud), job.created_ns)
        lines = [self._status(line, node) for line in mask_lines(result)]
        status = self._types[_STATUS](header=self._header(anchor.stamp_ns, ""), status=lines)
        self._put(f"{node}/modality_status", _STATUS, status, job.created_ns)

    def _put(self, topic: str, msgtype: str, message: Any, now_ns: int) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, msgtype, typestore=self._store)
        self._writer.write(self._connections[topic], now_ns, self._store.serialize_cdr(message, msgtype))

    def _overlay(self, result: Result, header: Any) -> Any:
        picture = overlay_of(result, self._classes, self._parameters.output.overlay_opacity)
        jpeg = cv2.imencode(".jpg", picture[..., ::-1], _JPEG_QUALITY)[1].ravel()
        return self._types[_JPEG](header=header, format="rgb8; jpeg compressed bgr8", data=jpeg)

    def _points(self, cloud: LabelledPoints) -> Any:
        packed = packed_cloud(cloud, self._classes.published)
        field, step = self._types["sensor_msgs/msg/PointField"], packed.points.dtype.itemsize
        return self._types[_CLOUD](
            header=self._header(cloud.stamp_ns, cloud.frame_id), height=packed.height, width=packed.width,
            fields=[field(name=f.name, offset=f.offset, datatype=f.datatype, count=1) for f in packed.fields],
            is_bigendian=False, point_step=step, row_step=step * packed.width,
            data=packed.points.view(np.uint8).ravel(), is_dense=False,
        )  # fmt: skip

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        time = self._types["builtin_interfaces/msg/Time"](sec=stamp_ns // NS_PER_S, nanosec=stamp_ns % NS_PER_S)
        return self._types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)

    def _status(self, line: StatusLine, node: str) -> Any:
        pair = self._types["diagnostic_msgs/msg/KeyValue"]
        return self._types["diagnostic_msgs/msg/DiagnosticStatus"](
            level=line.level,
            name=status_name(line.name, node),
            message=line.message,
            hardware_id=node,
            values=[pair(key=key, value=str(value)) for key, value in line.values.items()],
        )
