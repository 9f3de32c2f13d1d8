"""Faults on serialized messages: the same as on frames, in the message's own encoding; the rest keeps its bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from anyseg_core.injection import INJECTION_KINDS, InjectionSchedule, InjectionScheduleError, Stage, degrade
from anyseg_core.runtime.health.monitor import Fault
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor
from anyseg_ros.inject.messages import MessageInjector, SensorMessage
from anyseg_ros.messages import conversions
from anyseg_ros.messages.conversions import ConversionError
from anyseg_ros.messages.sensor_messages import COMPRESSED_IMAGE, EVENT_STREAMS, IMAGE, POINT_CLOUD

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES: Any = STORE.types
HEIGHT, WIDTH = 12, 16
RNG = np.random.default_rng(0)
RGB = RNG.integers(20, 200, (HEIGHT, WIDTH, 3), np.uint8)
DEPTH_M = RNG.uniform(1, 50, (HEIGHT, WIDTH)).astype(np.float32)


def header(frame_id: str = "optical") -> Any:
    return TYPES["std_msgs/msg/Header"](TYPES["builtin_interfaces/msg/Time"](1_700_000_000, 500_000_000), frame_id)


def image(encoding: str, pixels: NDArray[Any], padding: int = 0, bigendian: int = 0) -> Any:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(HEIGHT, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    return TYPES[IMAGE](header(), HEIGHT, WIDTH, encoding, bigendian, rows.shape[1], rows.ravel())


def compressed(suffix: str, pixels: NDArray[Any], name: str, before: bytes = b"") -> Any:
    data = np.frombuffer(before + cv2.imencode(suffix, pixels)[1].tobytes(), np.uint8)
    return TYPES[COMPRESSED_IMAGE](header(), name, data)


CLOUD_TYPE = np.dtype(
    {
        "names": ["ring", "z", "x", "y", "intensity", "t"],
        "formats": ["<u2", "<f4", "<f8", "<f4", "u1", "<u4"],
        "offsets": [0, 4, 8, 16, 20, 24],
        "itemsize": 32,
    }
)


def cloud(height: int = 1, width: int = 200) -> Any:
    points = np.zeros(height * width, CLOUD_TYPE)
    points["ring"], points["t"] = np.arange(len(points)) % 16, np.arange(len(points))
    for axis in ("x", "y", "z"):
        points[axis] = RNG.uniform(-20, 20, len(points))
    points["intensity"] = RNG.integers(0, 255, len(points))
    codes = {"<u2": 4, "<f4": 7, "<f8": 8, "u1": 2, "|u1": 2, "<u4": 6}
    fields = [
        TYPES["sensor_msgs/msg/PointField"](name, CLOUD_TYPE.fields[name][1], codes[CLOUD_TYPE.fields[name][0].str], 1)  # type: ignore[index]
        for name in CLOUD_TYPE.names or ()
    ]
    raw = points.view(np.uint8)
    return TYPES[POINT_CLOUD](header("lidar"), height, width, fields, False, 32, 32 * width, raw, True)


def points_of(message: Any) -> NDArray[Any]:
    return np.asarray(message.data).view(CLOUD_TYPE)


COUNTS = RNG.integers(0, 4, (HEIGHT, WIDTH, 3), np.uint8)
MILLIMETRES = np.rint(1000 * DEPTH_M).astype(np.uint16)
CAMERAS = {
    "rgb8": image("rgb8", RGB),
    "padded bgr8": image("bgr8", RGB, padding=5),
    "bgra8": image("bgra8", np.dstack([RGB, RGB[..., :1]])),
    "mono8": image("mono8", RGB[..., 0]),
    "mono16 of 12 bits": image("mono16", RGB[..., 0] * np.uint16(16)),
    "bgr16": image("bgr16", RGB * np.uint16(257)),
    "8UC3": image("8UC3", RGB),
}
DEPTHS = {
    "32FC1": image("32FC1", DEPTH_M),
    "16UC1": image("16UC1", MILLIMETRES),
    "big-endian 16UC1": image("16UC1", MILLIMETRES.astype(">u2"), bigendian=1),
}
EVENTS = {"rgb8": image("rgb8", COUNTS), "bgr8": image("bgr8", COUNTS), "8UC2": image("8UC2", COUNTS[..., :2])}
FRAME_OF = {
    (Sensor.CAMERA, IMAGE): conversions.camera_frame,
    (Sensor.CAMERA, COMPRESSED_IMAGE): conversions.compressed_camera_frame,
    (Sensor.DEPTH, IMAGE): conversions.depth_frame,
    (Sensor.DEPTH, COMPRESSED_IMAGE): conversions.compressed_depth_frame,
    (Sensor.EVENT, IMAGE): conversions.event_frame,
    (Sensor.LIDAR, POINT_CLOUD): conversions.lidar_frame,
}
PLAIN: dict[Sensor, Any] = {
    Sensor.CAMERA: CAMERAS["rgb8"],
    Sensor.DEPTH: DEPTHS["32FC1"],
    Sensor.EVENT: EVENTS["rgb8"],
    Sensor.LIDAR: cloud(),
}


def serialized(modality: Sensor, message: Any) -> SensorMessage:
    return SensorMessage(modality, message.__msgtype__, bytes(STORE.serialize_cdr(message, message.__msgtype__)))


def schedule(modality: Sensor, kind: str, **entry: Any) -> InjectionSchedule:
    parameters = {name: entry.pop(name) for name in list(entry) if name in INJECTION_KINDS[kind].parameters}
    fault = {"modality": modality, "kind": kind, "start_s": 1, "seed": 3, "parameters": parameters, **entry}
    return InjectionSchedule.parse({"injections": [fault]})


def injected(modality: Sensor, message: Any, kind: str, **entry: Any) -> Any:
    """The message, decoded, after the fault; None where nothing arrives."""
    sent = serialized(modality, message)
    injector = MessageInjector(schedule(modality, kind, **entry), {modality: sent.msgtype})
    arrived = injector.apply(sent, 1.5)
    assert not injector.unreadable
    return STORE.deserialize_cdr(arrived[0].cdr, sent.msgtype) if arrived else None


@pytest.mark.parametrize(
    ("kind", "modality"), [(k, m) for k, fault in INJECTION_KINDS.items() for m in fault.modalities]
)
def test_outside_its_time_a_message_is_the_very_same(kind: str, modality: Sensor) -> None:
    for other in DEFAULT_SENSORS:
        message = serialized(other, PLAIN[other])
        injector = MessageInjector(schedule(modality, kind, duration_s=1))
        for elapsed_s in (0.9, 2.0) if other is modality else (0.9, 1.5, 2.0):
            (arrived,) = injector.apply(message, elapsed_s)
            assert arrived is message


@pytest.mark.parametrize(
    ("kind", "modality"),
    [(k, m) for k, f in INJECTION_KINDS.items() for m in f.modalities if f.degradation and f.stage is Stage.CONTENT],
)
def test_a_fault_of_content_is_the_same_as_on_the_frame(kind: str, modality: Sensor) -> None:
    message = PLAIN[modality]
    convert = FRAME_OF[modality, message.__msgtype__]
    after = convert(injected(modality, message, kind)).data
    # The seed of an entry of its own, as the player makes it.
    rng = np.random.default_rng([3, DEFAULT_SENSORS.index(modality), 1])
    expected = degrade(convert(message), kind, rng).data
    if kind == "lidar_intensity":  # a byte holds no more
        expected[:, 3] = np.minimum(expected[:, 3], 255)
    if kind == "corrupt":  # on the wire it is pieces of the payload that break
        assert len(after) == len(expected)
        assert not np.array_equal(after, convert(message).data)
    else:
        np.testing.assert_allclose(after, expected, rtol=1e-6)  # intensities are bytes, x is a double: the same values


@pytest.mark.parametrize(("name", "message"), CAMERAS.items())
def test_the_camera_s_encoding_stays(name: str, message: Any) -> None:
    after = injected(Sensor.CAMERA, message, "black", light=0.5)
    assert (after.encoding, after.header) == (message.encoding, message.header)
    before = conversions.camera_frame(message).data
    np.testing.assert_allclose(conversions.camera_frame(after).data, before / 2, atol=1.5)


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "yuyv"])
def test_pictures_whose_pixels_share_colours_leave_as_rgb8(encoding: str) -> None:
    message = image(encoding, RGB[..., :2] if encoding == "yuyv" else RGB[..., 0])
    after = injected(Sensor.CAMERA, message, "black", light=0.5)
    assert after.encoding == "rgb8"
    before = conversions.camera_frame(message).data
    np.testing.assert_allclose(conversions.camera_frame(after).data, before / 2, atol=1.5)


def test_red_first_in_a_jpeg_stays_so() -> None:
    message = compressed(".jpg", np.full((32, 32, 3), (200, 60, 20), np.uint8), "rgb8; jpeg compressed rgb8")
    after = injected(Sensor.CAMERA, message, "black", light=0.5)
    np.testing.assert_allclose(conversions.compressed_camera_frame(after).data[4, 4], (100, 30, 10), atol=4)


@pytest.mark.parametrize(("name", "message"), DEPTHS.items())
def test_the_depth_s_encoding_stays(name: str, message: Any) -> None:
    after = injected(Sensor.DEPTH, message, "nan_depth", fraction=0.5)
    assert after.encoding == message.encoding
    depth = conversions.depth_frame(after).data
    lost = np.isnan(depth) if after.encoding == "32FC1" else depth == 0
    assert 0.3 < lost.mean() < 0.7
    np.testing.assert_allclose(depth[~lost], conversions.depth_frame(message).data[~lost], atol=1e-6)


@pytest.mark.parametrize(("name", "message"), EVENTS.items())
def test_the_event_image_keeps_its_encoding_and_its_third_channel(name: str, message: Any) -> None:
    after = injected(Sensor.EVENT, message, "event_flood", events_per_pixel=3)
    assert after.encoding == message.encoding
    before, now = (conversions.event_frame(m).data.astype(int) for m in (message, after))
    assert (now >= before).all()
    assert 2.4 < (now - before).mean() < 3.6
    if name != "8UC2":
        third = 0 if name == "bgr8" else 2
        was, stays = (np.asarray(m.data).reshape(HEIGHT, WIDTH, 3)[..., third] for m in (message, after))
        np.testing.assert_array_equal(was, stays)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_pictures_stay_what_they_are(suffix: str) -> None:
    message = compressed(suffix, cv2.GaussianBlur(RGB, (0, 0), 3), suffix[1:])
    after = injected(Sensor.CAMERA, message, "saturate", gain=1.5)
    assert (after.format, bytes(after.data[:2])) == (message.format, bytes(message.data[:2]))
    before = conversions.compressed_camera_frame(message).data
    np.testing.assert_allclose(conversions.compressed_camera_frame(after).data, np.clip(before * 1.5, 0, 255), atol=12)


@pytest.mark.parametrize("before", [b"", b"\0" * 12], ids=["plain", "compressedDepth"])
def test_compressed_depth_stays_a_png_with_its_header(before: bytes) -> None:
    message = compressed(".png", MILLIMETRES, "16UC1; compressedDepth png", before)
    after = injected(Sensor.DEPTH, message, "depth_scale", scale=0.5)
    assert bytes(after.data[: len(before) + 4]) == before + b"\x89PNG"
    depth = conversions.compressed_depth_frame(after).data
    np.testing.assert_allclose(depth, conversions.compressed_depth_frame(message).data / 2, atol=0.001)


@pytest.mark.parametrize("height", [1, 4])
@pytest.mark.parametrize("kind", ["sparse", "sector_loss", "dead_rows"])
def test_points_that_are_left_keep_all_their_fields(kind: str, height: int) -> None:
    message = cloud(height, 200 // height)
    after = injected(Sensor.LIDAR, message, kind)
    before, left = points_of(message), points_of(after)
    assert 0 < len(left) < len(before)
    assert (after.height, after.width, after.row_step) == (1, len(left), 32 * len(left))
    np.testing.assert_array_equal(left, before[left["t"]])
    assert after.fields == message.fields


def test_moved_points_keep_their_order_and_other_fields() -> None:
    message = cloud(4, 50)
    after = injected(Sensor.LIDAR, message, "noise", sigma=0.1)
    assert (after.height, after.width) == (4, 50)
    before, now = points_of(message), points_of(after)
    for same in ("ring", "t", "intensity"):
        np.testing.assert_array_equal(now[same], before[same])
    assert (now["x"] / before["x"]).std() == pytest.approx(0.1, rel=0.3)
    np.testing.assert_allclose(now["x"] / before["x"], now["y"] / before["y"], rtol=1e-4)


# -------------------------------------------------------------------------------------------- stamps and timing


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize(("offset_s", "seconds"), [(-1.0, 1_699_999_999), (2.25, 1_700_000_002)])
def test_a_stamp_is_patched_and_nothing_else(little_endian: bool, offset_s: float, seconds: int) -> None:
    message = PLAIN[Sensor.CAMERA]
    cdr = bytes(STORE.serialize_cdr(message, IMAGE, little_endian=little_endian))
    injector = MessageInjector(schedule(Sensor.CAMERA, "stamp_offset", offset_s=offset_s))
    (arrived,) = injector.apply(SensorMessage(Sensor.CAMERA, IMAGE, cdr), 1.5)
    assert cdr[:4] == arrived.cdr[:4]
    assert cdr[12:] == arrived.cdr[12:]
    stamp = STORE.deserialize_cdr(arrived.cdr, IMAGE).header.stamp  # type: ignore[attr-defined]
    assert (stamp.sec, stamp.nanosec) == (seconds, (500_000_000 + round(offset_s % 1 * 1e9)) % 10**9)


@pytest.mark.parametrize("stamp_ns", [-(10**18), 2**62, -1, 0])
def test_a_stamp_beyond_what_a_message_can_say_stops_at_the_limit(stamp_ns: int) -> None:
    injector = MessageInjector(InjectionSchedule())
    message = serialized(Sensor.LIDAR, PLAIN[Sensor.LIDAR])
    patched = injector.stamp_ns_of(injector.with_stamp(message, stamp_ns))
    assert abs(patched - min(max(stamp_ns, -(2**31) * 10**9), (2**31 - 1) * 10**9)) < 10**9


def test_a_frozen_message_has_the_first_content_and_the_new_stamp() -> None:
    injector = MessageInjector(schedule(Sensor.CAMERA, "freeze"))
    first, second = CAMERAS["rgb8"], replace(CAMERAS["bgra8"], header=replace(header(), frame_id="optical"))
    later = replace(second.header, stamp=replace(second.header.stamp, nanosec=600_000_000))
    injector.apply(serialized(Sensor.CAMERA, first), 1.1)
    (arrived,) = injector.apply(serialized(Sensor.CAMERA, replace(second, header=later)), 1.2)
    message: Any = STORE.deserialize_cdr(arrived.cdr, IMAGE)
    assert (message.encoding, message.header.stamp.nanosec) == ("rgb8", 600_000_000)
    np.testing.assert_array_equal(message.data, first.data)


def test_the_origin_comes_back_with_the_message() -> None:
    injector = MessageInjector(schedule(Sensor.CAMERA, "delay", delay_s=0.2))
    messages = [replace(serialized(Sensor.CAMERA, PLAIN[Sensor.CAMERA]), origin=i) for i in range(3)]
    for i, message in enumerate(messages):
        injector.send(message, 1.0 + i / 10)
    assert [(round(a.elapsed_s, 6), a.item.origin) for a in injector.arrivals()] == [(1.2, 0), (1.3, 1), (1.4, 2)]


# ------------------------------------------------------------------------------------------------- broken messages


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        *PLAIN.items(),
        (Sensor.CAMERA, compressed(".jpg", RGB, "jpeg")),
        (Sensor.DEPTH, compressed(".png", MILLIMETRES, "png")),
    ],
    ids=["camera", "depth", "event", "lidar", "jpeg", "png"],
)  # fmt: skip
@pytest.mark.parametrize(("kind", "faults"), [
    ("truncate", {Fault.WRONG_SIZE, Fault.DECODE_ERROR}),
    ("wrong_encoding", {Fault.DECODE_ERROR}),
])  # fmt: skip
def test_broken_messages_are_what_the_converters_call_broken(
    modality: Sensor, message: Any, kind: str, faults: set[Fault]
) -> None:
    with pytest.raises(ConversionError) as caught:
        FRAME_OF[modality, message.__msgtype__](injected(modality, message, kind))
    assert caught.value.fault in faults


def test_corruption_hits_its_share_of_whole_rows_and_keeps_the_size() -> None:
    message = image("rgb8", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    after = injected(Sensor.CAMERA, message, "corrupt", fraction=0.5)
    rows = np.asarray(after.data).reshape(HEIGHT, -1).any(axis=1)
    assert len(after.data) == len(message.data)
    assert 2 <= rows.sum() <= 10


def test_a_message_that_cannot_be_read_goes_through_and_is_counted() -> None:
    foreign = serialized(Sensor.CAMERA, image("nv24", RGB[..., 0]))
    torn = SensorMessage(Sensor.CAMERA, IMAGE, foreign.cdr[:30])
    injector = MessageInjector(schedule(Sensor.CAMERA, "noise"), {Sensor.CAMERA: IMAGE})
    assert [injector.apply(message, 1.5) for message in (foreign, torn)] == [[foreign], [torn]]
    assert sum(injector.unreadable.values()) == 2
    assert any("nv24" in reason for reason in injector.unreadable)


@given(st.binary(max_size=200), st.sampled_from(list(INJECTION_KINDS)))
@settings(max_examples=60)
def test_any_bytes_pass_every_fault(cdr: bytes, kind: str) -> None:
    for modality in INJECTION_KINDS[kind].modalities:
        msgtype = PLAIN[modality].__msgtype__
        injector = MessageInjector(schedule(modality, kind), {modality: msgtype})
        for elapsed_s in (1.0, 1.1):
            for arrived in injector.apply(SensorMessage(modality, msgtype, cdr), elapsed_s):
                assert isinstance(arrived.cdr, bytes)


# --------------------------------------------------------------------------------------------------- other types


@pytest.mark.parametrize("kind", ["drop", "delay", "jitter", "rate_cut", "freeze", "stamp_drift", "event_gap", "crash"])
def test_event_packets_can_have_faults_of_time_and_loss(kind: str) -> None:
    for msgtype in EVENT_STREAMS:
        MessageInjector(schedule(Sensor.EVENT, kind), {Sensor.EVENT: msgtype})


def test_lost_packets_of_events_leave_the_others_as_they_were() -> None:
    injector = MessageInjector(schedule(Sensor.EVENT, "event_gap"), {Sensor.EVENT: EVENT_STREAMS[0]})
    messages = [SensorMessage(Sensor.EVENT, EVENT_STREAMS[0], bytes([0, 1, 0, 0, i])) for i in range(100)]
    arrived = [one for i, message in enumerate(messages) for one in injector.apply(message, 1 + i / 100)]
    assert 30 < len(arrived) < 70
    assert all(any(one is message for message in messages) for one in arrived)


@pytest.mark.parametrize(
    ("modality", "kind", "msgtype", "named"),
    [
        (Sensor.EVENT, "event_flood", EVENT_STREAMS[0], "event_flood of event cannot be played: event_camera"),
        (Sensor.EVENT, "corrupt", EVENT_STREAMS[1], "has no bytes here"),
        (Sensor.LIDAR, "sparse", "velodyne_msgs/msg/VelodyneScan", "content that is not changed here"),
        (Sensor.LIDAR, "freeze", "std_msgs/msg/String", "has no header with a stamp"),
        (Sensor.CAMERA, "stamp_drift", "unknown_msgs/msg/Picture", "has no header with a stamp"),
    ],
)
def test_what_a_type_cannot_have_is_refused(modality: Sensor, kind: str, msgtype: str, named: str) -> None:
    with pytest.raises(InjectionScheduleError, match=named):
        MessageInjector(schedule(modality, kind), {modality: msgtype})
