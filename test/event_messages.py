"""Serialized event messages, written here or recorded."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

WIDTH, HEIGHT = 640, 480


Row = tuple[int, int, int, int]
"""x, y, polarity, time in nanoseconds."""


def as_bytes(words: list[int], code: str = "H", order: str = "<") -> bytes:
    return struct.pack(f"{order}{len(words)}{code}", *words)


def dvs_cdr(events: list[Row], order: str = "<", stamp: tuple[int, int] = (5, 6)) -> bytes:
    """A dvs_msgs/EventArray of 8 x 6 pixels, aligned field by field."""
    body = bytearray(struct.pack(f"{order}iII4s", *stamp, 4, b"cam\0") + struct.pack(f"{order}III", 6, 8, len(events)))
    for x, y, polarity, t_ns in events:
        body += b"\0" * (-len(body) % 2) + struct.pack(f"{order}HH", x, y)
        body += b"\0" * (-len(body) % 4) + struct.pack(f"{order}iI?", *divmod(t_ns, 10**9), polarity)
    return bytes((0, order == "<", 0, 0)) + bytes(body)


def recorded_messages(folder: Path) -> list[bytes]:
    """The serialized messages of a recorded bag, read from its file: the metadata of one of them is broken."""
    from rosbags.rosbag2.storage_mcap import McapReader
    from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

    paths = [path for path in folder.glob("*") if path.suffix in (".db3", ".mcap")]
    if not paths:
        pytest.skip(f"no recorded bag in {folder}")
    reader = (McapReader if paths[0].suffix == ".mcap" else Sqlite3Reader)(paths[0])
    reader.open()
    try:
        return [data for _, _, data in reader.messages(reader.connections)]
    finally:
        reader.close()


def packet_cdr(
    stamp_ns: int, seq: int, us: list[int], x: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT), encoding: str = "mono"
) -> bytes:
    """An EventPacket with a positive event at (x, 2) at each of the times, in microseconds of the stream's clock."""
    words = [1 << 63 | 2 << 48 | x << 32 | t * 1000 for t in us]
    name = encoding.encode() + b"\0"
    body = struct.pack("<iII4sIIQQI", *divmod(stamp_ns, 10**9), 4, b"cam\0", size[1], size[0], seq, 0, len(name))
    body += name + b"\0"  # little-endian
    body += b"\0" * (-len(body) % 4) + struct.pack("<I", 8 * len(words)) + as_bytes(words, "Q")
    return b"\0\1\0\0" + body
