"""mcap files written byte by byte (https://mcap.dev/spec), with those parts left out that writers leave out."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from small_bags import STORE, Written

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS = 0x03, 0x04, 0x05, 0x06, 0x0B


@dataclass(frozen=True)
class McapForm:
    """What a writer does and leaves out."""

    profile: str = "ros2"
    encoding: str = "cdr"
    is_chunked: bool = True
    unchunked_tail: int = 0
    """So many of the last messages lie behind the chunks, outside of them."""
    has_chunk_index: bool = True
    has_message_index: bool = True
    has_statistics: bool = True
    has_schemas: bool = True
    repeats_topics: bool = True
    repeats_schemas: bool = True
    """Channels and schemas follow the data once more, as most writers do."""
    padding: bytes = b""
    """Behind what is known of each record, where a later version of the format may put more."""
    has_checksums: bool = True
    foreign: bytes = b""
    """A record among the data that this project does not write."""
    ros1_names: bool = False
    per_chunk: int = 8
    promised: dict[str, int] = field(default_factory=dict)
    """Counts that the statistics claim instead of the right ones."""


def write_mcap(path: Path, written: Iterable[Written], form: McapForm = McapForm()) -> Path:
    """Write the messages, in their order, eight to a chunk."""
    messages = list(written)
    path.write_bytes(_Writer(messages, form).file())
    return path


class _Writer:
    def __init__(self, messages: Sequence[Written], form: McapForm) -> None:
        self._messages, self._form = messages, form
        topics = dict.fromkeys((w.topic, w.msgtype) for w in messages)
        self._ids = {topic: number for number, (topic, _) in enumerate(topics, 1)}
        self._declared = b"".join(b"".join(self._schema_and_channel(topic, kind)) for topic, kind in topics)
        self._repeated = b"".join(
            (schema if form.repeats_schemas else b"") + (channel if form.repeats_topics else b"")
            for schema, channel in (self._schema_and_channel(topic, kind) for topic, kind in topics)
        )
        self._index = b""

    def file(self) -> bytes:
        data = MAGIC + self._record(0x01, _text(self._form.profile) + _text("test"))
        inside = len(self._messages) - self._form.unchunked_tail if self._form.is_chunked else 0
        if not self._form.is_chunked:
            data += self._declared
        for start in range(0, inside, self._form.per_chunk):
            data += self._chunk(
                self._messages[start : min(start + self._form.per_chunk, inside)], len(data), start == 0
            )
        data += b"".join(self._message(w) for w in self._messages[inside:])
        data += self._form.foreign + self._record(0x0F, bytes(4))
        summary = self._repeated + (self._statistics() if self._form.has_statistics else b"")
        summary += self._index if self._form.has_chunk_index else b""
        return data + summary + record(0x02, struct.pack("<QQI", len(data) if summary else 0, 0, 0)) + MAGIC

    def _schema_and_channel(self, topic: str, msgtype: str) -> tuple[bytes, bytes]:
        number = self._ids[topic]
        name = msgtype.replace("/msg/", "/") if self._form.ros1_names else msgtype
        schema = self._record(0x03, struct.pack("<H", number) + _text(name) + _text("ros2msg") + _text(""))
        refers = number if self._form.has_schemas else 0
        channel = struct.pack("<HH", number, refers) + _text(topic) + _text(self._form.encoding) + bytes(4)
        return (schema if self._form.has_schemas else b""), self._record(0x04, channel)

    def _message(self, w: Written) -> bytes:
        cdr = STORE.serialize_cdr(w.message, w.msgtype)
        data = STORE.cdr_to_ros1(cdr, w.msgtype) if self._form.encoding == "ros1" else cdr
        return record(0x05, struct.pack("<HIQQ", self._ids[w.topic], 0, w.received_ns, w.received_ns) + bytes(data))

    def _chunk(self, group: Sequence[Written], at: int, is_first: bool) -> bytes:
        inside, offsets = self._declared if is_first else b"", {}
        for w in group:
            offsets.setdefault(self._ids[w.topic], []).append((w.received_ns, len(inside)))
            inside += self._message(w)
        times = struct.pack("<QQ", min(w.received_ns for w in group), max(w.received_ns for w in group))
        head = times + struct.pack("<QI", len(inside), zlib.crc32(inside) * self._form.has_checksums) + _text("")
        chunk = self._record(0x06, head + struct.pack("<Q", len(inside)) + inside)
        indexes, places = b"", b""
        for number, entries in offsets.items() if self._form.has_message_index else ():
            places += struct.pack("<HQ", number, at + len(chunk) + len(indexes))
            body = b"".join(struct.pack("<QQ", *entry) for entry in entries)
            indexes += self._record(0x07, struct.pack("<HI", number, len(body)) + body)
        entry = times + struct.pack("<QQI", at, len(chunk), len(places)) + places
        entry += struct.pack("<Q", len(indexes)) + _text("") + struct.pack("<QQ", len(inside), len(inside))
        self._index += self._record(0x08, entry)
        return chunk + indexes

    def _record(self, opcode: int, content: bytes) -> bytes:
        return record(opcode, content + self._form.padding)

    def _statistics(self) -> bytes:
        counts = Counter(w.topic for w in self._messages) | Counter(self._form.promised)
        times = [w.received_ns for w in self._messages]
        pairs = b"".join(struct.pack("<HQ", self._ids[topic], count) for topic, count in counts.items())
        head = struct.pack("<QHIIII", counts.total(), len(counts), len(counts), 0, 0, 0)
        return self._record(0x0B, head + struct.pack("<QQI", min(times), max(times), len(pairs)) + pairs)


def record_starts(content: bytes, opcode: int) -> list[int]:
    """Where the records of this kind begin in a whole file, those inside of chunks (not compressed) included."""
    starts, at = [], len(MAGIC)
    while at < len(content) - len(MAGIC):
        found, length = struct.unpack_from("<BQ", content, at)
        starts += [at] if found == opcode else []
        at += 9 + (40 if found == CHUNK else length)
    return starts


def record(opcode: int, content: bytes) -> bytes:
    """One record of an mcap file."""
    return struct.pack("<BQ", opcode, len(content)) + content


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()
