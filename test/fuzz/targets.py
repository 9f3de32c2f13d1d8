"""What the fuzzers call: bytes -> a message that a broken driver could send -> the robot's path, up to the engine.

Message -> conversion -> health -> network image. Each target takes a `ByteSource` and returns whether a message was
refused with the documented error; whatever else it raises is a bug.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from camera_infos import camera_info as camera_info_message

from anyseg_core.runtime.events.decoder import (
    ENCODINGS,
    EventAccumulator,
    EventArray,
    EventDecodeError,
    EventDecoder,
    EventPacket,
    Events,
    RawRecording,
)
from anyseg_core.runtime.events.stream import EventStream
from anyseg_core.runtime.geometry.projection import PinholeCamera, Rig
from anyseg_core.runtime.health.monitor import HealthConfig, HealthMonitor, State
from anyseg_core.runtime.input_images import encode_frame
from anyseg_core.runtime.model_card import DepthEncoding, EventEncoding, InputSpec, LidarEncoding, RgbEncoding
from anyseg_core.runtime.sensors import Sensor, SensorFrame
from anyseg_ros.messages import conversions
from anyseg_ros.messages.conversions import ConversionError
from fuzz.byte_source import ByteSource
from fuzz.pipeline_target import run_pipeline

RIG = Rig(PinholeCamera(32, 24, 16.0, 16.0, 15.5, 11.5))
NETWORK_SIZE = (16, 16)
SPECS: Mapping[Sensor, InputSpec] = {
    Sensor.CAMERA: InputSpec(modality=Sensor.CAMERA, encoding=RgbEncoding()),
    Sensor.DEPTH: InputSpec(modality=Sensor.DEPTH, encoding=DepthEncoding()),
    Sensor.EVENT: InputSpec(modality=Sensor.EVENT, encoding=EventEncoding()),
    Sensor.LIDAR: InputSpec(modality=Sensor.LIDAR, encoding=LidarEncoding()),
}
Target = Callable[[ByteSource], bool]
IMAGE_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC2", "16UC1", "32FC1", "8UC3", "mono16", "", "rgb8\0")
BYTES_PER_PIXEL = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC2": 2, "16UC1": 2, "32FC1": 4}
RAW_HEADER_LINES = (
    b"% evt 3.0\n",
    b"% format EVT3;height=48;width=64\n",
    b"% format EVT2\n",
    b"% geometry 64x48\n",
    b"% end\n",
)


def header(source: ByteSource) -> SimpleNamespace:
    """std_msgs/Header, times out of their range among them."""
    stamp = SimpleNamespace(sec=source.integer(-(2**31), 2**31 - 1), nanosec=source.integer(0, 2**32 - 1))
    return SimpleNamespace(stamp=stamp, frame_id=source.choice(("", "optical", "\0", "ß" * 9)))


def image_of(usual: Sequence[str], source: ByteSource) -> SimpleNamespace:
    """sensor_msgs/Image, mostly in one of the `usual` encodings."""
    encoding = source.choice(IMAGE_ENCODINGS) if source.chance(8) else source.choice(usual)
    width, height = source.integer(1, 9), source.integer(1, 9)
    step = width * BYTES_PER_PIXEL.get(encoding, 3) + source.choice((0, 0, 0, 1, 5))
    return SimpleNamespace(
        header=header(source),
        encoding=encoding,
        is_bigendian=source.choice((0, 0, 0, 1, 255)),
        width=source.near(width),
        height=source.near(height),
        step=source.near(step),
        data=source.payload(step * height),
    )


@cache
def pictures() -> tuple[bytes, ...]:
    """Small valid JPEGs and PNGs, to be damaged."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (12, 17, 3), np.uint8)
    millimetres = rng.integers(0, 9000, (12, 17), np.uint16)
    images = [(".jpg", color), (".png", color), (".png", color[..., 0]), (".png", millimetres)]
    return tuple(cv2.imencode(kind, pixels)[1].tobytes() for kind, pixels in images)


def compressed_image_of(usual: Sequence[int], source: ByteSource) -> SimpleNamespace:
    """sensor_msgs/CompressedImage: mostly one of the `usual` pictures, with some bytes changed, cut or inserted."""
    starts = (*pictures(), b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
    data = bytearray(source.choice(starts) if source.chance(8) else pictures()[source.choice(usual)])
    for _ in range(source.choice((0, 1, 1, 2, 6))):
        at = source.integer(0, 1023) % (len(data) + 1)
        data[at : at + source.choice((0, 1, 1, 1, 4))] = source.take(source.choice((0, 1, 1, 1, 4)))
    if source.chance(8):
        data = data[: source.integer(0, 1023)]
    prefix = source.take(12).ljust(12, b"\0") if source.chance(4) else b""
    name = source.choice(("jpeg", "png", "16UC1; compressedDepth png", "32FC1; compressedDepth", ""))
    return SimpleNamespace(header=header(source), format=name, data=prefix + bytes(data))


def point_cloud(source: ByteSource) -> SimpleNamespace:
    """sensor_msgs/PointCloud2."""
    fields, offset = [], 0
    for name in source.choice((("x", "y", "z", "intensity"), ("x", "y", "z"), ("z", "y", "x", "ring"), ("x", "x"), ())):
        datatype = source.integer(0, 9) if source.chance(8) else 7
        fields.append(SimpleNamespace(name=name, offset=source.near(offset), datatype=datatype, count=1))
        offset += {1: 1, 2: 1, 3: 2, 4: 2, 8: 8}.get(datatype, 4)
    width, height, point_step = source.integer(1, 9), source.integer(1, 3), offset + source.choice((0, 0, 4, 7))
    return SimpleNamespace(
        header=header(source),
        fields=fields,
        is_bigendian=source.choice((False, False, False, True)),
        width=source.near(width),
        height=source.near(height),
        point_step=source.near(point_step),
        row_step=source.near(point_step * width),
        is_dense=True,
        data=source.payload(point_step * width * height),
    )


def camera_info(source: ByteSource) -> bool:
    """sensor_msgs/CameraInfo -> intrinsics."""
    raw = source.take(72).ljust(72, b"\0")
    k = struct.unpack("<9d", raw) if source.chance(2) else tuple(float(byte) for byte in raw[:9])
    message = camera_info_message(width=source.near(32), height=source.near(24), k=k)
    try:
        camera = conversions.pinhole_camera(message)
    except ConversionError:
        return True
    Rig(camera.resized(*NETWORK_SIZE))
    return False


def along_the_robots_path(
    convert: Callable[[Any], SensorFrame], build: Callable[[ByteSource], Any], source: ByteSource
) -> bool:
    """Two messages of a sensor through its conversion, its monitor and the encoder."""
    monitor, refused = None, False
    for _ in range(2):
        try:
            frame = convert(build(source))
        except ConversionError:
            refused = True
            continue
        check_well_formed(frame)
        now_ns = max(frame.stamp_ns, 0)
        monitor = monitor or HealthMonitor(frame.modality, HealthConfig(), now_ns)
        received = monitor.status(now_ns).received
        monitor.on_frame(frame, now_ns)
        status = monitor.status(now_ns)
        assert status.received == received + 1, "a frame was lost"
        assert status.state in (State.ACTIVE, State.SUSPECT), "one or two frames fail no sensor"
        pixels = encode_frame(frame, SPECS[frame.modality], NETWORK_SIZE, RIG)
        assert (pixels.dtype, pixels.shape) == (np.uint8, (*NETWORK_SIZE, 3)), "not a network image"
    return refused


def check_well_formed(frame: SensorFrame) -> None:
    """The contract of `SensorFrame.data`."""
    dtype, ndim, channels = {
        Sensor.CAMERA: (np.uint8, 3, 3),
        Sensor.DEPTH: (np.float32, 2, None),
        Sensor.EVENT: (np.uint8, 3, 2),
        Sensor.LIDAR: (np.float32, 2, 4),
    }[frame.modality]
    assert frame.data.dtype == np.dtype(dtype), f"{frame.modality} is {frame.data.dtype}"
    assert frame.data.ndim == ndim, f"{frame.modality} has shape {frame.data.shape}"
    assert channels is None or frame.data.shape[-1] == channels, f"{frame.modality} has shape {frame.data.shape}"
    assert frame.data.size > 0 or frame.kind.is_points, f"{frame.modality} is empty"  # a scan may have seen nothing


def event_stream(source: ByteSource) -> bool:
    """Packets of a stream in any encoding -> events inside the sensor, in the order of time; everything is counted."""
    width, height = source.choice(((64, 48), (1280, 720), (1, 1), (2048, 2048)))
    decoder = EventDecoder(source.choice(ENCODINGS), width, height, source.chance(2))
    accumulator = EventAccumulator(width, height, 1 + source.integer(0, 10**8)) if width <= 64 else None
    seen = 0
    for packet in range(source.integer(1, 3)):
        data = source.take(source.integer(0, 255)) if packet else source.rest()[:4096]
        seen += check_events(decoder.decode(data, source.integer(0, 2**62 - 1)), width, height, accumulator)
    if accumulator is not None:
        accumulator.image()
    assert decoder.counts.events == seen, "events were lost or counted twice"
    return False


def check_events(events: Events, width: int, height: int, accumulator: EventAccumulator | None = None) -> int:
    """Inside the sensor and in order; returns how many."""
    if len(events):
        assert int(events.x.max()) < width, "an event is outside"
        assert int(events.y.max()) < height, "an event is outside"
        assert np.all(np.diff(events.t_ns) >= 0), "time runs backwards"
        if accumulator is not None:
            accumulator.add(events)
    return len(events)


def event_packet_cdr(source: ByteSource) -> bool:
    """A serialized event_camera_msgs/EventPacket -> the fields, then the events."""
    try:
        packet = EventPacket.from_cdr(cdr(source, _packet_body))
        decoder = EventDecoder.for_packet(packet)
        decoder.decode_packet(packet)
        decoder.decode_packet(packet)
    except EventDecodeError:
        return True
    return False


def event_packets(source: ByteSource) -> bool:
    """Packets as a live event camera sends them -> frames of counts at a steady rate."""
    stream = EventStream("event_camera_msgs/msg/EventPacket", 1 + source.integer(0, 10**9))
    refused = False
    for _ in range(source.integer(1, 5)):
        try:
            frame = stream.add(cdr(source, _packet_body))
        except EventDecodeError:
            refused = True
            continue
        if frame is not None:
            check_well_formed(frame)
    return refused


def event_array_cdr(source: ByteSource) -> bool:
    """A serialized dvs_msgs/EventArray -> its events."""
    try:
        found = EventArray.from_cdr(cdr(source, _array_body))
    except EventDecodeError:
        return True
    assert found.out_of_bounds >= 0
    check_events(found.events, found.width, found.height)
    return False


def cdr(source: ByteSource, body: Callable[[ByteSource, str], bytes]) -> bytes:
    """A CDR message, damaged now and then."""
    order, mark = source.choice((("<", b"\0\1\0\0"), ("<", b"\0\1\0\0"), (">", b"\0\0\0\0")))
    data = bytearray(mark + body(source, order))
    for _ in range(source.choice((0, 0, 1, 4))):
        data[source.integer(0, 1023) % len(data)] = source.integer(0, 255)
    return bytes(data[: source.near(len(data))])


def _start_of_body(source: ByteSource, order: str) -> bytes:
    """Header, height and width."""
    seconds, height, width = source.integer(0, 9), source.near(48), source.near(64)
    return struct.pack(f"{order}iII4sII", seconds, 7, 4, b"cam\0", height, width)


def _packet_body(source: ByteSource, order: str) -> bytes:
    events = source.take(64)
    start = _start_of_body(source, order)
    numbers = struct.pack(f"{order}QQ", source.integer(0, 2**64 - 1), source.integer(0, 2**63))
    name = source.choice(ENCODINGS).encode() + b"\0"
    start += b"\0" * (-len(start) % 8)
    text = struct.pack(f"{order}I", len(name)) + name + bytes([source.integer(0, 1)])
    body = start + numbers + text
    return body + b"\0" * (-len(body) % 4) + struct.pack(f"{order}I", source.near(len(events))) + events


def _array_body(source: ByteSource, order: str) -> bytes:
    start = _start_of_body(source, order)
    events = source.take(16 * source.integer(0, 6))
    return start + struct.pack(f"{order}I", source.near((len(events) + 3) // 16)) + events


def raw_recording(source: ByteSource) -> bool:
    """A Prophesee .raw file -> its events."""
    head = b"".join(source.choice(RAW_HEADER_LINES) for _ in range(source.integer(0, 4)))
    with tempfile.NamedTemporaryFile(suffix=".raw") as file:
        file.write(head + source.rest()[:2048])
        file.flush()
        try:
            recording = RawRecording(Path(file.name))
        except EventDecodeError:
            return True
        for events in recording:
            check_events(events, recording.decoder.width, recording.decoder.height)
    return False


def _sensor(convert: Callable[[Any], SensorFrame], build: Callable[[ByteSource], Any]) -> Target:
    return partial(along_the_robots_path, convert, build)


_COLOR = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")
TARGETS: Mapping[str, Target] = {
    "camera": _sensor(conversions.camera_frame, partial(image_of, _COLOR)),
    "compressed camera": _sensor(conversions.compressed_camera_frame, partial(compressed_image_of, (0, 1, 2))),
    "depth": _sensor(conversions.depth_frame, partial(image_of, ("16UC1", "32FC1"))),
    "compressed depth": _sensor(conversions.compressed_depth_frame, partial(compressed_image_of, (3,))),
    "event image": _sensor(conversions.event_frame, partial(image_of, ("rgb8", "bgr8", "8UC2"))),
    "points": _sensor(conversions.lidar_frame, point_cloud),
    "camera_info": camera_info,
    "event stream": event_stream,
    "event packet": event_packet_cdr,
    "event packets": event_packets,
    "event array": event_array_cdr,
    "raw recording": raw_recording,
    "pipeline": run_pipeline,
}


_OFTEN = (*[name for name in TARGETS if name != "pipeline"] * 4, "pipeline")
"""The pipeline takes twenty times as long as the others: it is called less often."""


def run_target(data: bytes) -> tuple[str, bool]:
    """Call the target that the first byte chooses with the rest; returns its name, and whether it refused a message."""
    source = ByteSource(data)
    name = source.choice(_OFTEN)
    return name, TARGETS[name](source)
