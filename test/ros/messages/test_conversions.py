"""ROS messages <-> arrays, on plain objects with the messages' fields; and contracts with ROS' own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from camera_infos import camera_info
from hypothesis import given
from hypothesis import strategies as st

from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.messages import conversions
from anyseg_ros.messages.conversions import ConversionError

HEADER = SimpleNamespace(stamp=SimpleNamespace(sec=12, nanosec=34), frame_id="optical")
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
SEEDS = st.integers(0, 2**32 - 1)


def image(pixels: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Any:
    """An Image message of [h, w] or [h, w, c] with `padding` bytes behind each row."""
    height, width = pixels.shape[:2]
    ordered = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    rows = np.frombuffer(ordered.tobytes(), np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=170)
    return SimpleNamespace(
        header=HEADER, encoding=encoding, height=height, width=width, step=padded.shape[1],
        is_bigendian=int(big), data=padded.tobytes(),
    )  # fmt: skip


def compressed(data: bytes, kind: str = "jpeg") -> Any:
    return SimpleNamespace(header=HEADER, format=kind, data=data)


def random_pixels(size: Sequence[int], seed: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size, dtype, endpoint=True)


@given(SIZES, SEEDS, st.integers(0, 5))
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_camera_encodings(encoding: str, size: tuple[int, int], seed: int, padding: int) -> None:
    rgb = random_pixels((*size, 3), seed)
    alpha = np.full((*size, 1), 7, np.uint8)
    if encoding == "mono8":
        rgb = np.repeat(rgb[..., :1], 3, axis=-1)
    sent = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], axis=-1),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], axis=-1),
        "mono8": rgb[..., 0],
    }[encoding]
    frame = conversions.camera_frame(image(sent, encoding, padding))
    np.testing.assert_array_equal(frame.data, rgb)
    assert (frame.modality, frame.stamp_ns, frame.frame_id) == (Sensor.CAMERA, 12_000_000_034, "optical")


@given(SIZES, SEEDS, st.integers(0, 5), st.booleans())
def test_depth_encodings(size: tuple[int, int], seed: int, padding: int, big: bool) -> None:
    millimetres = random_pixels(size, seed, np.uint16)
    metres = (millimetres * 0.001).astype(np.float32)
    metres.flat[0] = np.nan
    read = conversions.depth_frame(image(millimetres, "16UC1", padding, big)).data
    np.testing.assert_allclose(read, millimetres * 0.001, rtol=1e-6)
    read = conversions.depth_frame(image(metres, "32FC1", padding, big)).data
    np.testing.assert_array_equal(read, metres)
    assert read.dtype == np.dtype("=f4")


@given(SIZES, SEEDS, st.integers(0, 5))
def test_event_encodings(size: tuple[int, int], seed: int, padding: int) -> None:
    counts = random_pixels((*size, 2), seed)
    rgb = np.concatenate([counts, np.zeros((*size, 1), np.uint8)], axis=-1)
    for sent, encoding in ((rgb, "rgb8"), (rgb[..., ::-1], "bgr8"), (counts, "8UC2")):
        np.testing.assert_array_equal(conversions.event_frame(image(sent, encoding, padding)).data, counts)


def test_common_encodings_are_not_copied() -> None:
    message = image(random_pixels((4, 6, 3), 0), "rgb8", padding=5)
    assert np.shares_memory(conversions.camera_frame(message).data, np.frombuffer(message.data, np.uint8))
    message = image(np.ones((4, 6), np.float32), "32FC1")
    assert np.shares_memory(conversions.depth_frame(message).data, np.frombuffer(message.data, np.uint8))
    message = cloud(np.ones(5, cloud_type(["x", "y", "z", "intensity"], "<f4")))
    assert np.shares_memory(conversions.lidar_frame(message).data, np.frombuffer(message.data, np.uint8))


IMAGE_FAULTS = [
    ({"encoding": "nv24"}, Fault.DECODE_ERROR, "encoding 'nv24' is not known"),
    ({"data": b"\0" * 71}, Fault.WRONG_SIZE, "71 bytes"),
    ({"step": 17}, Fault.WRONG_SIZE, "at least 18 bytes"),
    ({"height": 0}, Fault.WRONG_SIZE, "empty"),
    ({"width": 2**31, "height": 2**31, "step": 2**32 - 1}, Fault.WRONG_SIZE, "larger than any sensor's"),
]


@pytest.mark.parametrize(("changes", "fault", "words"), IMAGE_FAULTS)
def test_malformed_images_are_named(changes: dict[str, Any], fault: Fault, words: str) -> None:
    message = image(random_pixels((4, 6, 3), 0), "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ConversionError, match=words) as raised:
        conversions.camera_frame(message)
    assert raised.value.fault is fault


@given(
    st.sampled_from(["rgb8", "bgr8", "mono8", "16UC1", "32FC1", "8UC2", "jpeg", ""]),
    st.tuples(*[st.integers(0, 2**32 - 1) | st.integers(0, 8)] * 3),
    st.binary(max_size=64),
    st.integers(0, 255),
)
def test_any_image_gives_a_frame_or_a_conversion_error(
    encoding: str, grid: tuple[int, int, int], data: bytes, big: int
) -> None:
    height, width, step = grid
    message = SimpleNamespace(
        header=HEADER, encoding=encoding, height=height, width=width, step=step, is_bigendian=big, data=data
    )
    for convert in (conversions.camera_frame, conversions.depth_frame, conversions.event_frame):
        with contextlib.suppress(ConversionError):
            assert convert(message).data.shape[:2] == (height, width)


def encoded(kind: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(kind, pixels)[1].tobytes()


def smooth_image() -> np.ndarray:
    rows, cols = np.mgrid[:48, :64]
    return np.stack([rows * 5, cols * 3, rows + cols], axis=-1).astype(np.uint8)


def test_compressed_camera() -> None:
    rgb = smooth_image()
    png = conversions.compressed_camera_frame(compressed(encoded(".png", rgb[..., ::-1]), "png"))
    np.testing.assert_array_equal(png.data, rgb)
    jpeg = conversions.compressed_camera_frame(compressed(encoded(".jpg", rgb[..., ::-1]) + bytes(9)))
    assert np.abs(jpeg.data.astype(int) - rgb).mean() < 3


@pytest.mark.parametrize("kind", [".jpg", ".png"])
@given(fraction=st.floats(0, 0.999))
def test_truncated_pictures_are_refused(kind: str, fraction: float) -> None:
    data = encoded(kind, smooth_image())
    with pytest.raises(ConversionError) as raised:
        conversions.compressed_camera_frame(compressed(data[: int(len(data) * fraction)]))
    assert raised.value.fault is Fault.DECODE_ERROR


@pytest.mark.parametrize("kind", [".jpg", ".png"])
@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
def test_damaged_pictures_give_a_frame_or_a_conversion_error(kind: str, at: int, value: int) -> None:
    data = bytearray(encoded(kind, smooth_image()))
    data[at % len(data)] = value
    with contextlib.suppress(ConversionError):
        assert conversions.compressed_camera_frame(compressed(bytes(data))).data.shape[2] == 3


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded() -> None:
    data = bytearray(encoded(".png", smooth_image()))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(ConversionError, match="larger than any sensor's"):
        conversions.compressed_camera_frame(compressed(bytes(data)))


@pytest.mark.parametrize("header", [b"", bytes(12)], ids=["png", "compressedDepth"])
def test_compressed_depth(header: bytes) -> None:
    millimetres = random_pixels((5, 7), 3, np.uint16)
    frame = conversions.compressed_depth_frame(compressed(header + encoded(".png", millimetres), "16UC1; png"))
    np.testing.assert_allclose(frame.data, millimetres * 0.001, rtol=1e-6)


def test_compressed_depth_of_other_kinds_is_refused() -> None:
    with pytest.raises(ConversionError, match="16-bit grey PNG"):
        conversions.compressed_depth_frame(compressed(encoded(".png", smooth_image()), "png"))
    with pytest.raises(ConversionError, match="send 16UC1"):
        conversions.compressed_depth_frame(compressed(b"", "32FC1; compressedDepth png"))


DATATYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}


def cloud_type(names: Sequence[str], code: str, gap: int = 0) -> np.dtype:
    """A point's memory: the fields in this order, `gap` bytes before each."""
    size = np.dtype(code).itemsize
    offsets = [gap + i * (size + gap) for i in range(len(names))]
    return np.dtype(
        {"names": names, "formats": [code] * len(names), "offsets": offsets, "itemsize": offsets[-1] + size + gap}
    )


def cloud(points: np.ndarray, padding: int = 0, big: bool = False) -> Any:
    """A PointCloud2 message of structured points [N] or [h, w]."""
    grid = np.atleast_2d(points)
    rows = np.frombuffer(grid.tobytes(), np.uint8).reshape(grid.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=170)
    dtype = points.dtype
    assert dtype.names is not None
    assert dtype.fields is not None
    fields = [
        SimpleNamespace(
            name=name, offset=dtype.fields[name][1], datatype=DATATYPES[dtype.fields[name][0].str[1:]], count=1
        )
        for name in dtype.names
    ]
    return SimpleNamespace(
        header=HEADER, height=grid.shape[0], width=grid.shape[1], fields=fields, is_bigendian=big, is_dense=False,
        point_step=dtype.itemsize, row_step=padded.shape[1], data=padded.tobytes(),
    )  # fmt: skip


@given(
    names=st.permutations(["x", "y", "z", "intensity", "ring"]),
    code=st.sampled_from(["f4", "f8", "i2", "u1"]),
    gap=st.integers(0, 3),
    size=SIZES,
    padding=st.integers(0, 5),
    big=st.booleans(),
    seed=SEEDS,
)
def test_points_of_any_layout(
    names: list[str], code: str, gap: int, size: tuple[int, int], padding: int, big: bool, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 100, (*size, 5)).astype(np.float32)
    if code.startswith("f"):
        values[0, 0, 0] = np.nan
    points = np.zeros(size, cloud_type(names, (">" if big else "<") + code, gap))
    for column, name in enumerate(["x", "y", "z", "intensity", "ring"]):
        points[name] = values[..., column]
    read = conversions.lidar_frame(cloud(points, padding if size[0] > 1 else 0, big))
    np.testing.assert_array_equal(read.data, values[..., :4].reshape(-1, 4))
    assert read.data.dtype == np.float32


def test_points_without_intensity_have_zero() -> None:
    read = conversions.lidar_frame(cloud(np.ones(3, cloud_type(["x", "y", "z"], "<f4"))))
    np.testing.assert_array_equal(read.data, [[1, 1, 1, 0]] * 3)


CLOUD_FAULTS = [
    ({"fields": []}, Fault.DECODE_ERROR, "lacks x, y, z"),
    ({"data": b"\0" * 47}, Fault.WRONG_SIZE, "47 bytes"),
    ({"point_step": 8}, Fault.WRONG_SIZE, "does not fit into point_step 8"),
    ({"height": 2, "row_step": 24}, Fault.WRONG_SIZE, "row_step 24"),
]


def test_an_organised_cloud_says_its_rows_and_columns() -> None:
    points = np.zeros((4, 6), cloud_type(("x", "y", "z", "intensity"), "<f4"))
    frame = conversions.lidar_frame(cloud(points, padding=3))
    assert frame.cloud_shape == (4, 6)
    assert len(frame.data) == 24


@pytest.mark.parametrize(("changes", "fault", "words"), CLOUD_FAULTS)
def test_malformed_clouds_are_named(changes: dict[str, Any], fault: Fault, words: str) -> None:
    message = cloud(np.ones(3, cloud_type(["x", "y", "z", "intensity"], "<f4")))
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ConversionError, match=words) as raised:
        conversions.lidar_frame(message)
    assert raised.value.fault is fault


@given(
    st.tuples(*[st.integers(0, 2**32 - 1) | st.integers(0, 40)] * 4),
    st.lists(st.tuples(st.sampled_from("xyzi"), st.integers(0, 2**32 - 1) | st.integers(0, 20), st.integers(0, 12))),
    st.binary(max_size=64),
)
def test_any_cloud_gives_a_frame_or_a_conversion_error(
    grid: tuple[int, int, int, int], fields: list[tuple[str, int, int]], data: bytes
) -> None:
    height, width, point_step, row_step = grid
    message = SimpleNamespace(
        header=HEADER, height=height, width=width, point_step=point_step, row_step=row_step, data=data,
        is_bigendian=False, is_dense=True,
        fields=[SimpleNamespace(name=n, offset=o, datatype=d, count=1) for n, o, d in fields],
    )  # fmt: skip
    with contextlib.suppress(ConversionError):
        assert conversions.lidar_frame(message).data.shape == (height * width, 4)


def test_camera_info() -> None:
    k = [500.0, 0, 320, 0, 501, 240, 0, 0, 1]
    camera = conversions.pinhole_camera(camera_info(k=k))
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 501, 320, 240)
    for at, value in ((0, np.nan), (0, 0.0), (5, np.inf)):
        broken = [*k[:at], value, *k[at + 1 :]]
        with pytest.raises(ConversionError, match="camera_info"):
            conversions.pinhole_camera(camera_info(k=broken))


# --- messages of rclpy -----------------------------------------------------------------------------------------------


def ros_frames() -> list[SensorFrame]:
    rng = np.random.default_rng(1)
    return [
        SensorFrame(Sensor.CAMERA, rng.integers(0, 255, (5, 7, 3), np.uint8), 5_000_000_006, "camera"),
        SensorFrame(Sensor.DEPTH, rng.uniform(0, 9, (5, 7)).astype(np.float32), 5_000_000_006, "depth"),
        SensorFrame(Sensor.EVENT, rng.integers(0, 9, (5, 7, 2), np.uint8), 5_000_000_006, "event"),
        SensorFrame(Sensor.LIDAR, rng.uniform(-9, 9, (11, 4)).astype(np.float32), 5_000_000_006, "lidar"),
    ]


@pytest.mark.ros
@pytest.mark.parametrize("frame", ros_frames(), ids=lambda frame: str(frame.modality))
def test_frames_survive_the_way_through_a_message(frame: SensorFrame) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    from rclpy.serialization import deserialize_message, serialize_message

    from anyseg_ros.vehicle import publisher as vp

    to_message = {"camera": vp.camera_message, "depth": vp.depth_message, "event": vp.event_message}
    from_message = {
        "camera": conversions.camera_frame,
        "depth": conversions.depth_frame,
        "event": conversions.event_frame,
    }
    name = str(frame.modality)
    message = to_message.get(name, vp.lidar_message)(frame)
    received = deserialize_message(serialize_message(message), type(message))
    read = from_message.get(name, conversions.lidar_frame)(received)
    np.testing.assert_array_equal(read.data, frame.data)
    assert (read.stamp_ns, read.frame_id) == (frame.stamp_ns, frame.frame_id)


@pytest.mark.ros
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_same_pixels_as_cv_bridge(encoding: str) -> None:
    cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge comes with a ROS 2 distribution")
    channels = {"mono8": 1, "rgba8": 4, "bgra8": 4}.get(encoding, 3)
    pixels = random_pixels((5, 7, channels), 2)
    message = cv_bridge.CvBridge().cv2_to_imgmsg(pixels if channels > 1 else pixels[..., 0], encoding)
    theirs = cv_bridge.CvBridge().imgmsg_to_cv2(message, "rgb8")
    np.testing.assert_array_equal(conversions.camera_frame(message).data, theirs)


@pytest.mark.ros
def test_same_points_as_sensor_msgs_py() -> None:
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS 2 distribution"
    )
    from anyseg_ros.vehicle.publisher import POINT_FIELDS, lidar_message

    message = lidar_message(ros_frames()[3])
    theirs = point_cloud2.read_points_numpy(message, field_names=POINT_FIELDS)
    np.testing.assert_array_equal(conversions.lidar_frame(message).data, theirs)


@pytest.mark.parametrize("changes", [{"width": 0, "data": b""}, {"height": 0, "width": 0, "data": b""}])
def test_a_cloud_without_points_is_a_scan_that_saw_nothing(changes: dict[str, Any]) -> None:
    message = cloud(np.ones(3, cloud_type(["x", "y", "z", "intensity"], "<f4")))
    for name, value in changes.items():
        setattr(message, name, value)
    assert conversions.lidar_frame(message).data.shape == (0, 4)


def test_columns_of_doubles_in_the_other_byte_order_are_read() -> None:
    """A cloud of one column, as a single sweep upwards is; what float32 cannot hold is infinitely far."""
    records = np.ones((5, 1), cloud_type(["z", "y", "x", "reflectivity"], ">f8", gap=3))
    records["x"] = np.array([[1.0], [2.0], [1e300], [-1e300], [np.nan]])
    frame = conversions.lidar_frame(cloud(records, padding=7, big=True))
    assert frame.cloud_shape == (5, 1)
    np.testing.assert_array_equal(frame.data[:, 0], [1, 2, np.inf, -np.inf, np.nan])
    assert (frame.data[:, 3] == 1).all()


def test_rays_without_a_return_are_no_points() -> None:
    records = np.ones(4, cloud_type(["x", "y", "z", "intensity"], "<f4"))
    for name in "xyz":
        records[name][[1, 3]] = 0
    data = conversions.lidar_frame(cloud(records)).data
    np.testing.assert_array_equal(np.isnan(data[:, :3]).all(axis=1), [False, True, False, True])
    assert (data[:, 3] == 1).all()
    assert not np.isnan(conversions.lidar_frame(cloud(records[[0, 2]])).data).any()
