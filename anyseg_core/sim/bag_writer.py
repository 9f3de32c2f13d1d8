"""A drive as a ROS 2 bag, written without ROS."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.geometry.rigid_transform import quaternion
from anyseg_core.runtime.points.label_files import SUFFIX, write_point_labels
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, SensorFrame
from anyseg_core.sim.drive import CAMERA_FRAME_ID, LIDAR_FRAME_ID, DriveFrame

TOPICS: dict[str, str] = {
    "/camera/image_raw": "sensor_msgs/msg/Image",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/depth/image_rect": "sensor_msgs/msg/Image",
    "/depth/camera_info": "sensor_msgs/msg/CameraInfo",
    "/events": "sensor_msgs/msg/Image",
    "/lidar/points": "sensor_msgs/msg/PointCloud2",
    "/ground_truth/labels": "sensor_msgs/msg/Image",
    "/tf_static": "tf2_msgs/msg/TFMessage",
}
_FLOAT32 = 7
"""sensor_msgs/PointField.FLOAT32"""


_OF_SENSORS = {
    "camera": ("/camera/image_raw", "/camera/camera_info"),
    "depth": ("/depth/image_rect", "/depth/camera_info"),
    "event": ("/events",),
    "lidar": ("/lidar/points", "/tf_static"),
}
"""The topics that a vehicle without the sensor lacks."""


class BagWriter:
    """Writes frames to a new bag folder; use as a context manager."""

    def __init__(
        self,
        folder: Path,
        rig: Rig,
        *,
        storage: str = "mcap",
        modalities: Collection[Sensor] = DEFAULT_SENSORS,
        labelled: bool = True,
    ) -> None:
        """Open the bag. `storage` is "mcap" or "sqlite3"; the folder must not exist.

        The bag has the topics of these `modalities`, and ground truth where `labelled`.
        """
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        plugins = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
        if storage not in plugins:
            raise ValueError(f"unknown bag storage {storage!r}: use {' or '.join(plugins)}")
        if folder.exists():
            raise FileExistsError(f"{folder} exists already: a bag is written to a new folder")
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._types: dict[str, Callable[..., Any]] = self._store.types  # type: ignore[assignment]
        self._rig = rig
        self._writer = Writer(folder, version=9, storage_plugin=plugins[storage])
        self._connections: dict[str, Any] = {}
        self._empty = True
        absent = {topic for m in DEFAULT_SENSORS if m not in modalities for topic in _OF_SENSORS[str(m)]}
        self._topics = {topic: kind for topic, kind in TOPICS.items() if topic not in absent}
        if not labelled:
            del self._topics["/ground_truth/labels"]

    def __enter__(self) -> BagWriter:
        self._writer.open()
        for topic, message_type in self._topics.items():
            profiles = [self._latched_profile()] if topic == "/tf_static" else []
            self._connections[topic] = self._writer.add_connection(
                topic, message_type, typestore=self._store, offered_qos_profiles=profiles
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, frame: DriveFrame) -> None:
        """Write all topics of one frame, stamped and timed with its acquisition time."""
        stamp = frame.stamp_ns
        if self._empty and "/tf_static" in self._topics:
            self._put("/tf_static", self._transforms(stamp), stamp)
        self._empty = False
        for topic, message in self._messages(frame):
            self._put(topic, message, stamp)

    def _messages(self, frame: DriveFrame) -> Iterator[tuple[str, Any]]:
        stamp = frame.stamp_ns
        data = {modality: sensor.data for modality, sensor in frame.frames.items()}
        if Sensor.CAMERA in data:
            yield "/camera/image_raw", self._image(data[Sensor.CAMERA], "rgb8", stamp)
            yield "/camera/camera_info", self._camera_info(stamp)
        if Sensor.DEPTH in data:
            yield "/depth/image_rect", self._image(data[Sensor.DEPTH], "32FC1", stamp)
            yield "/depth/camera_info", self._camera_info(stamp)
        if Sensor.EVENT in data:
            counts = data[Sensor.EVENT]
            event_image = np.concatenate(
                [counts, np.zeros_like(counts[..., :1])], axis=-1
            )  # red positive, green negative
            yield "/events", self._image(event_image, "rgb8", stamp)
        if Sensor.LIDAR in data:
            yield "/lidar/points", self._points(data[Sensor.LIDAR], stamp)
        for sensor in sorted(data.keys() - set(DEFAULT_SENSORS)):
            grey = data[sensor][..., 0] * np.uint16(257)  # as thermal cameras send it
            yield self._topic_of(sensor), self._image(grey, "mono16", stamp)
        if "/ground_truth/labels" in self._topics:
            yield "/ground_truth/labels", self._image(frame.labels, "mono8", stamp)

    def _topic_of(self, sensor: Sensor) -> str:
        """Of a grey camera beside the usual sensors, made with its first frame."""
        topic = f"/{sensor}/image_raw"
        if topic not in self._connections:
            image = TOPICS["/camera/image_raw"]
            self._connections[topic] = self._writer.add_connection(topic, image, typestore=self._store)
        return topic

    def _put(self, topic: str, message: Any, stamp_ns: int) -> None:
        connection = self._connections[topic]
        self._writer.write(connection, stamp_ns, self._store.serialize_cdr(message, connection.msgtype))

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        time = self._types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self._types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)

    def _image(self, array: NDArray, encoding: str, stamp_ns: int) -> Any:
        rows = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)  # [H, step]
        return self._types["sensor_msgs/msg/Image"](
            header=self._header(stamp_ns, CAMERA_FRAME_ID), height=array.shape[0], width=array.shape[1],
            encoding=encoding, is_bigendian=0, step=rows.shape[1], data=rows.ravel(),
        )  # fmt: skip

    def _points(self, points: NDArray, stamp_ns: int) -> Any:
        field = self._types["sensor_msgs/msg/PointField"]
        names = ("x", "y", "z", "intensity")
        raw = np.ascontiguousarray(points, np.float32).view(np.uint8).ravel()
        return self._types["sensor_msgs/msg/PointCloud2"](
            header=self._header(stamp_ns, LIDAR_FRAME_ID), height=1, width=len(points),
            fields=[field(name=n, offset=4 * i, datatype=_FLOAT32, count=1) for i, n in enumerate(names)],
            is_bigendian=False, point_step=16, row_step=len(raw), data=raw, is_dense=True,
        )  # fmt: skip

    def _camera_info(self, stamp_ns: int) -> Any:
        camera: PinholeCamera = self._rig.camera
        k = np.array([camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1.0])
        region = self._types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self._types["sensor_msgs/msg/CameraInfo"](
            header=self._header(stamp_ns, CAMERA_FRAME_ID), height=camera.height, width=camera.width,
            distortion_model="plumb_bob", d=np.zeros(5), k=k, r=np.eye(3).ravel(),
            p=np.insert(k, (3, 6, 9), 0.0), binning_x=0, binning_y=0, roi=region,
        )  # fmt: skip

    def _transforms(self, stamp_ns: int) -> Any:
        """camera_optical_frame -> lidar."""
        matrix = self._rig.camera_from_lidar
        x, y, z = (float(v) for v in matrix[:3, 3])
        qx, qy, qz, qw = quaternion(matrix[:3, :3])
        geometry = "geometry_msgs/msg/"
        transform = self._types[geometry + "TransformStamped"](
            header=self._header(stamp_ns, CAMERA_FRAME_ID), child_frame_id=LIDAR_FRAME_ID,
            transform=self._types[geometry + "Transform"](
                translation=self._types[geometry + "Vector3"](x=x, y=y, z=z),
                rotation=self._types[geometry + "Quaternion"](x=qx, y=qy, z=qz, w=qw),
            ),
        )  # fmt: skip
        return self._types["tf2_msgs/msg/TFMessage"](transforms=[transform])

    @staticmethod
    def _latched_profile() -> Any:
        from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

        forever = QosTime(2147483647, 4294967295)
        return Qos(
            QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, forever, forever,
            QosLiveliness.AUTOMATIC, forever, False,
        )  # fmt: skip


def write_bag(
    folder: Path, frames: Iterable[DriveFrame], rig: Rig, *, storage: str = "mcap", point_labels: Path | None = None
) -> int:
    """Write `frames` to a new bag folder; returns their number.

    Topics and types are `TOPICS`. Labels are DELIVER's classes, 255 = unlabelled; those of the LiDAR's points go to the
    folder `point_labels`, in the form of SemanticKITTI, a file a scan that is named by its stamp.
    """
    count = 0
    with BagWriter(folder, rig, storage=storage) as bag:
        for frame in frames:
            bag.write(frame)
            count += 1
            if point_labels is not None and frame.point_labels is not None:
                write_point_labels(point_labels / f"{frame.stamp_ns}{SUFFIX}", frame.point_labels)
    return count


def write_recording(
    folder: Path, moments: Iterable[tuple[int, dict[Sensor, SensorFrame]]], rig: Rig, *, storage: str = "mcap"
) -> int:
    """Write what a real vehicle recorded, stamp and frames of each moment, to a new bag folder; returns their number.

    The bag has the topics of the first moment's sensors, and no ground truth.
    """
    moments = iter(moments)
    first = next(moments, None)
    if first is None:
        return 0
    nothing = np.zeros((0, 0), np.uint8)
    count = 0
    with BagWriter(folder, rig, storage=storage, modalities=first[1].keys(), labelled=False) as bag:
        for stamp_ns, frames in chain([first], moments):
            bag.write(DriveFrame(stamp_ns, frames, nothing))
            count += 1
    return count
