"""Bags small enough to write in a test: four sensors, label images and calibration, in every storage there is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_typestore

HEIGHT, WIDTH = 48, 64
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 100_000_000
STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES: Any = STORE.types
CAMERA, DEPTH, EVENTS, LIDAR = "/camera/image_raw", "/depth/image_rect", "/events", "/lidar/points"
INFO, LABELS, TF = "/camera/camera_info", "/ground_truth/labels", "/tf_static"
SENSORS = (CAMERA, DEPTH, EVENTS, LIDAR)


class Written(NamedTuple):
    """A message and when the recorder received it."""

    topic: str
    received_ns: int
    message: Any

    @property
    def msgtype(self) -> str:
        return self.message.__msgtype__


def header(stamp_ns: int, frame_id: str = "camera_optical_frame") -> Any:
    time = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def image(pixels: NDArray[Any], encoding: str, stamp_ns: int) -> Any:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    return TYPES["sensor_msgs/msg/Image"](
        header=header(stamp_ns), height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, is_bigendian=0,
        step=rows.shape[1], data=rows.ravel(),
    )  # fmt: skip


def point_cloud(points: NDArray[np.float32], stamp_ns: int) -> Any:
    """Points [N, 4]: x, y, z, intensity."""
    field = TYPES["sensor_msgs/msg/PointField"]
    raw = np.ascontiguousarray(points, np.float32).view(np.uint8).ravel()
    return TYPES["sensor_msgs/msg/PointCloud2"](
        header=header(stamp_ns, "lidar"), height=1, width=len(points),
        fields=[field(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate(("x", "y", "z", "intensity"))],
        is_bigendian=False, point_step=16, row_step=len(raw), data=raw, is_dense=True,
    )  # fmt: skip


def camera_info(height: int, width: int, k: Iterable[float], stamp_ns: int) -> Any:
    k = np.array(list(k), float)
    return TYPES["sensor_msgs/msg/CameraInfo"](
        header=header(stamp_ns), height=height, width=width, distortion_model="plumb_bob", d=np.zeros(5), k=k,
        r=np.eye(3).ravel(), p=np.insert(k, (3, 6, 9), 0.0), binning_x=0, binning_y=0,
        roi=TYPES["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )  # fmt: skip


def transforms(parent: str, child: str, quaternion: tuple[float, ...], stamp_ns: int) -> Any:
    geometry = "geometry_msgs/msg/"
    stamped = TYPES[geometry + "TransformStamped"](
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=TYPES[geometry + "Transform"](
            translation=TYPES[geometry + "Vector3"](x=0.0, y=0.0, z=0.0),
            rotation=TYPES[geometry + "Quaternion"](**dict(zip("xyzw", quaternion, strict=True))),
        ),
    )
    return TYPES["tf2_msgs/msg/TFMessage"](transforms=[stamped])


def drive(frames: int = 10, topics: Collection[str] = (*SENSORS, INFO, LABELS, TF)) -> Iterator[Written]:
    """A smooth scene that moves, with a sensor's noise in it; all sensors at the same stamps. The labels are random."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    azimuth = np.linspace(-0.6, 0.6, 1000)
    if TF in topics:
        yield Written(TF, START_NS, transforms("camera_optical_frame", "lidar", (0.5, -0.5, 0.5, 0.5), START_NS))
    for index in range(frames):
        stamp = START_NS + index * PERIOD_NS
        waves = 120 + 80 * np.sin((cols + 3 * index) / 9) * np.cos(rows / 7)  # [H, W]
        rgb = waves[..., None] * [1.0, 0.8, 0.6] + rng.integers(0, 3, (HEIGHT, WIDTH, 3))
        depth = 5 + rows / 10 + cols / 20 + 0.1 * index + rng.normal(0, 0.01, (HEIGHT, WIDTH))
        counts = rng.random((HEIGHT, WIDTH, 3)) < 0.1 + 0.2 * (cols[..., None] > 32)
        reach = 10 + 0.1 * index + rng.normal(0, 0.01, len(azimuth))
        points = np.stack([reach * np.cos(azimuth), reach * np.sin(azimuth), 0 * azimuth, 60 + 0 * azimuth], axis=-1)
        messages = {
            CAMERA: image(rgb.astype(np.uint8), "rgb8", stamp),
            INFO: camera_info(HEIGHT, WIDTH, (50, 0, 32, 0, 50, 24, 0, 0, 1), stamp),
            DEPTH: image(depth.astype(np.float32), "32FC1", stamp),
            EVENTS: image(counts.astype(np.uint8), "rgb8", stamp),
            LIDAR: point_cloud(points.astype(np.float32), stamp),
            LABELS: image(rng.integers(0, 25, (HEIGHT, WIDTH), np.uint8), "mono8", stamp),
        }
        yield from (Written(topic, stamp, message) for topic, message in messages.items() if topic in topics)


def write_ros2(
    folder: Path, written: Iterable[Written], storage: str = "mcap", compression: CompressionMode | None = None
) -> Path:
    """A bag's folder."""
    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    writer = Ros2Writer(folder, version=9, storage_plugin=plugin)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        _write(writer, written, lambda w: STORE.serialize_cdr(w.message, w.msgtype))
    return folder


def write_ros1(path: Path, written: Iterable[Written]) -> Path:
    """A .bag file. camera_info has other names in ROS 1 and is left out."""
    store = get_typestore(Stores.ROS1_NOETIC)
    with Ros1Writer(path) as writer:
        connections: dict[str, Any] = {}
        for w in written:
            if w.topic not in connections:
                connections[w.topic] = writer.add_connection(w.topic, w.msgtype, typestore=store)
            cdr = STORE.serialize_cdr(w.message, w.msgtype)
            writer.write(connections[w.topic], w.received_ns, STORE.cdr_to_ros1(cdr, w.msgtype))
    return path


def _write(writer: Any, written: Iterable[Written], serialised: Callable[[Written], Any]) -> None:
    connections: dict[str, Any] = {}
    for w in written:
        if w.topic not in connections:
            connections[w.topic] = writer.add_connection(w.topic, w.msgtype, typestore=STORE)
        writer.write(connections[w.topic], w.received_ns, serialised(w))


def storage_file(folder: Path) -> Path:
    """The one storage file of a bag's folder."""
    (found,) = (p for p in folder.iterdir() if p.suffix != ".yaml")
    return found
