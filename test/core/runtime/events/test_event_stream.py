"""Messages of an event camera -> frames: rate, window, loss, restarts, bad input, and the recorded bags."""

from __future__ import annotations

import numpy as np
import pytest
from event_messages import HEIGHT, WIDTH, dvs_cdr, packet_cdr, recorded_messages

from anyseg_core.runtime.events.decoder import EventDecodeError
from anyseg_core.runtime.events.stream import EventStream
from anyseg_core.runtime.sensors import Sensor, SensorFrame

PACKET = "event_camera_msgs/msg/EventPacket"
DVS = "dvs_msgs/msg/EventArray"
MS = 1_000_000


def frames_of(stream: EventStream, messages: list[bytes]) -> list[SensorFrame]:
    return [frame for message in messages if (frame := stream.add(message)) is not None]


def test_a_frame_every_period_with_the_events_since_the_last_one() -> None:
    stream = EventStream(PACKET, 10 * MS)
    messages = [packet_cdr(4 * i * MS, i, [4000 * i]) for i in range(26)]  # an event every 4 ms
    frames = frames_of(stream, messages)
    assert [frame.stamp_ns // MS for frame in frames] == [12, 20, 32, 40, 52, 60, 72, 80, 92, 100]
    assert [int(frame.data[2, 3, 0]) for frame in frames] == [3, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    assert all(int(frame.data.sum()) == 3 for frame in frames)
    assert [frame.sequence for frame in frames] == list(range(1, 11))
    first = frames[0]
    assert (first.modality, first.frame_id, first.data.shape) == (Sensor.EVENT, "cam", (HEIGHT, WIDTH, 2))


def test_the_window_may_differ_from_the_period() -> None:
    stream = EventStream(PACKET, 10 * MS, window_ns=30 * MS)
    frames = frames_of(stream, [packet_cdr(i * MS, i, [1000 * i]) for i in range(61)])
    assert [int(frame.data.sum()) for frame in frames] == [11, 21, 30, 30, 30, 30]


def test_a_static_scene_gives_frames_without_events() -> None:
    stream = EventStream(PACKET, 10 * MS)
    messages = [packet_cdr(0, 0, [0]), packet_cdr(10 * MS, 1, [9000])]
    messages += [packet_cdr(i * 10 * MS, i, []) for i in range(2, 5)]
    assert [int(frame.data.sum()) for frame in frames_of(stream, messages)] == [2, 0, 0, 0]


def test_lost_packets_leave_a_gap_in_the_sequence() -> None:
    stream = EventStream(PACKET, 10 * MS)
    messages = [packet_cdr(i * 10 * MS, i, [i]) for i in range(8) if i not in (3, 4)]
    assert [frame.sequence for frame in frames_of(stream, messages)] == [1, 2, 5, 6, 7]
    assert stream.counts.lost_packets == 2


def test_a_bag_that_loops_and_a_sensor_that_restarts_begin_anew() -> None:
    stream = EventStream(PACKET, 10 * MS)
    drive = [packet_cdr(10**9 + i * 10 * MS, i, [10_000 * i]) for i in range(4)]
    frames = frames_of(stream, [*drive, *drive])
    assert [frame.stamp_ns for frame in frames] == 2 * [10**9 + i * 10 * MS for i in (1, 2, 3)]
    other = [packet_cdr(2 * 10**9 + i * 10 * MS, i, [10_000 * i], size=(320, 240)) for i in range(3)]
    assert [frame.data.shape for frame in frames_of(stream, other)] == 3 * [(240, 320, 2)]


def test_dvs_messages_give_the_same_kind_of_frame() -> None:
    stream = EventStream(DVS, 10 * MS)
    assert stream.add(dvs_cdr([(1, 2, 1, 5_000_000_000)])) is None
    frame = stream.add(dvs_cdr([(1, 2, 1, 5_010_000_000), (1, 2, 0, 5_010_000_000)], stamp=(5, 6 + 10 * MS)))
    assert frame is not None
    assert frame.data.shape == (6, 8, 2)
    assert frame.data[2, 1].tolist() == [1, 1]  # the first event is 10 ms old: outside the window


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\0\1\0\0garbage", "truncated"),
        (packet_cdr(20 * MS, 1, [1], encoding="evt9"), "unknown event encoding 'evt9'.*evt3"),
        (packet_cdr(20 * MS, 1, [1], size=(1 << 20, 4)), "1048576x4"),
        (packet_cdr(20 * MS, 1, [1], size=(32_000, 32_000)), "larger than any sensor"),
    ],
    ids=["no message", "encoding", "side", "area"],
)
def test_bad_messages_are_refused_and_the_next_ones_taken(message: bytes, problem: str) -> None:
    stream = EventStream(PACKET, 10 * MS)
    stream.add(packet_cdr(0, 0, [0]))
    with pytest.raises(EventDecodeError, match=problem):
        stream.add(message)
    frame = stream.add(packet_cdr(40 * MS, 2, [40_000]))
    assert frame is not None
    assert int(frame.data.sum()) == 1


def test_stamps_that_stand_still_are_refused_not_collected() -> None:
    stream = EventStream(PACKET, 10 * MS)
    message = packet_cdr(0, 0, [])
    with pytest.raises(EventDecodeError, match="stamps do not go on"):
        frames_of(stream, [message] * 20_000)


def test_other_types_are_refused() -> None:
    with pytest.raises(EventDecodeError, match="Image carries no events; event_camera_msgs/msg/EventPacket"):
        EventStream("sensor_msgs/msg/Image", 1)


@pytest.mark.parametrize(("name", "size"), [("test_events_1", (480, 640)), ("test_events_2", (260, 346))])
def test_recorded_bags(name: str, size: tuple[int, int], recorded_data) -> None:
    """Without saturation every event would be in exactly one frame; what saturates can only lower the sum."""
    messages = recorded_messages(recorded_data / "event_bags" / name)
    stream = EventStream(PACKET, 50 * MS)
    frames = frames_of(stream, messages)
    stamps = np.diff([frame.stamp_ns for frame in frames]) / MS
    assert {frame.data.shape[:2] for frame in frames} == {size}
    assert (np.abs(stamps - 50) < 11).all()  # the camera of the second one sends every 10 ms
    assert stream.counts.lost_packets == 0
    total = sum(int(frame.data.sum()) for frame in frames)
    assert 0.8 * stream.counts.events < total <= stream.counts.events
