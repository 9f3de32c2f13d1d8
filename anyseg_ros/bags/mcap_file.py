"""An mcap file (https://mcap.dev/spec), read by what is in it and not by its index.

The records of the data section are walked through once, from header to header. The chunks found so are read in the
order of their times. Index and statistics are promises: where the index leaves something out, the chunks are counted
instead, and what the statistics promise is compared with what is there. Behind a record whose length is wrong nothing
can be found by walking, as mcap has no marks to resynchronise at; there the index helps. A record that cannot be what
it says, or not where it is, may be a message with a changed byte: it is counted as damage.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

from lz4.frame import decompress as lz4_decompress

from anyseg_core.wording import counted
from anyseg_ros.bags.storage import (
    MAX_UNPACKED_BYTES,
    NO_TIME_NS,
    Channel,
    Contents,
    StoredMessage,
    merged_by_time,
    ros2_type,
    zstd,
)

_MAGIC = b"\x89MCAP0\r\n"
_RECORD_BYTES = 9
_FOOTER_BYTES = _RECORD_BYTES + 20 + len(_MAGIC)
_HEADER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX = 0x01, 0x03, 0x04, 0x05, 0x06, 0x07
_CHUNK_INDEX, _ATTACHMENT, _STATISTICS, _METADATA, _DATA_END, _LAST_OPCODE = 0x08, 0x09, 0x0B, 0x0C, 0x0F, 0x0F
_PRIVATE_OPCODES = 0x80
_SUMMARY_OPCODES = [bytes([opcode]) for opcode in (0x02, 0x03, 0x04, 0x08, 0x0A, 0x0B, 0x0D, 0x0E)]
"""Of the records that may follow the end of the data."""
_LEAST_BYTES = {_SCHEMA: 6, _CHANNEL: 8, _MESSAGE: 22, _CHUNK: 40, _CHUNK_INDEX: 64, _STATISTICS: 46}
_LOOKED_AT_BYTES = 1 << 16
"""So much of a record is read to see whether it is what it says: the head of the longest attachment."""
_UNKNOWN_TYPE = "unknown type (no schema)"


@dataclass
class _Extent:
    """A stretch of the file that is read as one: a chunk, or messages that follow one another outside of chunks."""

    start: int
    end: int
    first_ns: int
    last_ns: int
    is_chunk: bool


class _IndexEntry(NamedTuple):
    """What the index says of one chunk."""

    start: int
    end: int
    counts: dict[int, int]
    """Messages by channel; empty where the chunk has no message index."""


class McapFile:
    """The messages of an mcap file, complete, unindexed or damaged."""

    def __init__(self, path: Path) -> None:
        """Raises BagError where not a single record can be found."""
        self._path = path
        self._size = path.stat().st_size
        self._names = _Names()
        self._extents: list[_Extent] = []
        self._outside: Counter[int] = Counter()
        self._index: dict[int, _IndexEntry] = {}
        self._statistics: dict[int, int] | None = None
        self._promised_messages = 0
        self._private_records = 0
        self._summary_start = self._data_end = 0
        self._framing = ""
        self._met: Counter[str] = Counter()  # damage, while records were found and counted
        self.problems: Counter[str] = Counter()
        with path.open("rb") as file:
            damage, is_lossy = self._read_summary(file)
            self._walk(file)
            self._add_indexed_chunks()
            self.contents = self._described(file, damage, is_lossy)

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage]:
        self.problems = Counter()
        if self._framing:
            self.problems[self._framing] += 1
        with self._path.open("rb") as file:

            def opened(extent: _Extent) -> Iterator[StoredMessage]:
                return self._of_chunk(file, extent, topics) if extent.is_chunk else self._of_run(file, extent, topics)

            yield from merged_by_time([(e.first_ns, lambda e=e: opened(e)) for e in self._extents])

    # --- what the end of the file says -------------------------------------------------------------------------------

    def _read_summary(self, file: BinaryIO) -> tuple[str, bool]:
        """What is wrong with the file's beginning and end, and whether that can have cost messages."""
        if file.read(len(_MAGIC)) != _MAGIC:
            return "is damaged (it does not begin as an mcap file)", True
        file.seek(max(0, self._size - _FOOTER_BYTES))
        footer = file.read()
        if len(footer) < _FOOTER_BYTES or not footer.endswith(_MAGIC):
            return "is truncated (it does not end as an mcap file)", True
        start = int.from_bytes(footer[_RECORD_BYTES : _RECORD_BYTES + 8], "little")
        if start == 0:
            return "has no index", False
        end = self._size - _FOOTER_BYTES
        if start > end:
            return "is damaged (its footer points outside of the file)", True
        self._summary_start = start
        file.seek(start)
        promised_crc = int.from_bytes(footer[_RECORD_BYTES + 16 : _RECORD_BYTES + 20], "little")
        damage: Counter[str] = Counter()
        if promised_crc and crc32(file.read(end - start) + footer[: _RECORD_BYTES + 16]) != promised_crc:
            damage["its checksum is wrong"] += 1
        for opcode, content in _records(file, start, end, damage):
            self._names.take(opcode, content)
            if opcode == _CHUNK_INDEX and (entry := _index_entry(content)) is not None:
                self._index[entry.start] = entry
            elif opcode == _STATISTICS:
                (self._promised_messages,) = struct.unpack_from("<Q", content)
                self._statistics = _channel_counts(content, 42)
        if damage:
            return f"is damaged in its summary ({', '.join(damage)}): what it promises is not known", True
        return "", False

    # --- what is there -----------------------------------------------------------------------------------------------

    def _walk(self, file: BinaryIO) -> None:
        """Find the chunks and the messages outside of them."""
        at = len(_MAGIC)
        while at + _RECORD_BYTES <= self._size:
            file.seek(at)
            opcode, length = struct.unpack("<BQ", file.read(_RECORD_BYTES))
            if opcode == _DATA_END:
                self._data_end = min(at + _RECORD_BYTES + length, self._size)
                file.seek(self._data_end)
                if file.read(1) not in _SUMMARY_OPCODES or self._summary_start not in (0, self._data_end):
                    self._framing = f"the data end at byte {at}, before the end of the file"
                return
            if not (0 < opcode <= _LAST_OPCODE or opcode >= _PRIVATE_OPCODES):
                self._framing = f"no record at byte {at}"
                return
            end = at + _RECORD_BYTES + length
            if end > self._size:
                self._framing = "file ends inside a record"
                if opcode == _CHUNK:
                    self._found_chunk(file, at, self._size)
                return
            if length >= _LEAST_BYTES.get(opcode, 0):
                self._found(file, opcode, at, end)
            else:
                self._met["records that are too short"] += 1
            at = end

    def _found(self, file: BinaryIO, opcode: int, at: int, end: int) -> None:
        if opcode == _CHUNK:
            self._found_chunk(file, at, end)
        elif opcode == _MESSAGE:
            channel, _, time_ns = struct.unpack("<HIQ", file.read(14))
            self._outside[channel] += 1
            last = self._extents[-1] if self._extents else None
            if last is not None and not last.is_chunk and time_ns >= last.last_ns:
                last.end, last.last_ns = end, time_ns
            else:
                self._extents.append(_Extent(at, end, time_ns, time_ns, is_chunk=False))
        elif opcode in (_SCHEMA, _CHANNEL):
            if not self._names.take(opcode, file.read(end - at - _RECORD_BYTES)):
                self._met["a topic that is declared twice, in different ways"] += 1
        elif opcode >= _PRIVATE_OPCODES:
            self._private_records += 1
        elif not ((at == len(_MAGIC) and opcode == _HEADER) or _may_be(opcode, file, end - at - _RECORD_BYTES)):
            self._met[f"a record of kind 0x{opcode:02x} that is none, at byte {at}"] += 1

    def _found_chunk(self, file: BinaryIO, at: int, end: int) -> None:
        """A chunk, whole or cut off behind its times."""
        times = file.read(16)
        if len(times) == 16:
            first_ns, last_ns = struct.unpack("<QQ", times)
            self._extents.append(_Extent(at, end, first_ns, last_ns, is_chunk=True))

    def _add_indexed_chunks(self) -> None:
        """Where the walk was stopped by damage: the chunks behind it that the index knows."""
        if not self._framing:
            return
        known = {extent.start for extent in self._extents}
        with self._path.open("rb") as file:
            for entry in self._index.values():
                if entry.start in known or entry.end > self._size:
                    continue
                file.seek(entry.start)
                if file.read(_RECORD_BYTES)[:1] == bytes([_CHUNK]):
                    self._found_chunk(file, entry.start, entry.end)

    # --- counts ------------------------------------------------------------------------------------------------------

    def _described(self, file: BinaryIO, damage: str, is_lossy: bool) -> Contents:
        chunks = [extent for extent in self._extents if extent.is_chunk]
        unindexed = [chunk for chunk in chunks if not self._has_index(chunk)]
        inside = {c.start: self._counted(file, c) for c in unindexed}
        inside |= {c.start: Counter(self._index[c.start].counts) for c in chunks if c.start not in inside}
        total = +self._total(inside)
        is_contradicted = self._statistics is not None and total != +Counter(self._statistics)
        if is_contradicted or not self._names.know(total):  # what the end of the file leaves out is in the chunks
            inside = {c.start: self._counted(file, c) for c in chunks}
        timed = [e for e in self._extents if not e.is_chunk or inside[e.start]]
        counts = self._by_channel(self._total(inside))
        promised = self._by_channel(Counter(self._statistics or {})) or counts
        return Contents(
            counts={channel: counts[channel] for channel in (*self._names.channels(), *counts) if channel.topic},
            promised=_by_topic(promised),
            start_ns=min((extent.first_ns for extent in timed), default=NO_TIME_NS),
            end_ns=1 + max((extent.last_ns for extent in timed), default=-1),
            damage=damage or self._shortage(counts),
            is_lossy=is_lossy or not damage,
            notes=self._notes([chunk for chunk in unindexed if inside[chunk.start]]),
        )

    def _total(self, inside: dict[int, Counter[int]]) -> Counter[int]:
        """The messages of all chunks, and those outside, by channel."""
        total = self._outside.copy()
        for counts in inside.values():
            total.update(counts)
        return total

    def _by_channel(self, numbers: Counter[int]) -> Counter[Channel]:
        counts: Counter[Channel] = Counter()
        for number, messages in numbers.items():
            counts[self._names.channel(number)] += messages
        return +counts

    def _shortage(self, counts: Counter[Channel]) -> str:
        """What is missing although the file looks whole: messages without a topic, damaged chunks, promised ones."""
        if unknown := sum(messages for channel, messages in counts.items() if not channel.topic):
            return f"has {counted(unknown, 'message')} of topics that it does not name"
        if self._met:
            return f"is damaged ({', '.join(self._met)})"
        if self._framing:
            return f"is damaged ({self._framing})"
        if self._private_records and self._statistics is None:
            return f"has {self._private_records} private records that may have been messages, which it does not count"
        found = counts.total()
        lacking = found < self._promised_messages and not self._statistics
        return f"has {found} of the {self._promised_messages} messages that its statistics promise" if lacking else ""

    def _has_index(self, chunk: _Extent) -> bool:
        entry = self._index.get(chunk.start)
        return entry is not None and bool(entry.counts)

    def _counted(self, file: BinaryIO, chunk: _Extent) -> Counter[int]:
        """The messages of a chunk by channel; none of a damaged one."""
        return Counter(
            int.from_bytes(content[:2], "little")
            for opcode, content in self._records_of(file, chunk, self._met)
            if opcode == _MESSAGE
        )

    def _notes(self, unindexed: list[_Extent]) -> tuple[str, ...]:
        """What was done about an index that leaves something out."""
        notes = []
        if self._index and unindexed:
            notes.append(f"{len(unindexed)} chunks have no message index: they were searched instead")
        if self._index and self._outside:
            notes.append(
                f"{self._outside.total()} messages are outside of the chunks that its index knows, and are read"
            )
        return tuple(notes)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _of_chunk(self, file: BinaryIO, chunk: _Extent, topics: Collection[str]) -> Iterator[StoredMessage]:
        found = [
            message
            for opcode, content in self._records_of(file, chunk, self.problems)
            if opcode == _MESSAGE and (message := self._message(content, topics)) is not None
        ]
        yield from sorted(found, key=lambda message: message.received_ns)

    def _of_run(self, file: BinaryIO, run: _Extent, topics: Collection[str]) -> Iterator[StoredMessage]:
        for opcode, content in _records(file, run.start, run.end, self.problems):
            if opcode == _MESSAGE and (message := self._message(content, topics)) is not None:
                yield message

    def _message(self, content: bytes, topics: Collection[str]) -> StoredMessage | None:
        number, _, received_ns = struct.unpack_from("<HIQ", content)
        channel = self._names.channel(number)
        if not channel.topic:
            self.problems["messages of an unknown topic"] += 1
        return StoredMessage(channel, received_ns, content[22:]) if channel.topic in topics else None

    def _records_of(self, file: BinaryIO, chunk: _Extent, problems: Counter[str]) -> Iterator[tuple[int, bytes]]:
        file.seek(chunk.start + _RECORD_BYTES)
        try:
            inside = _unpacked(file.read(min(chunk.end - chunk.start - _RECORD_BYTES, MAX_UNPACKED_BYTES)))
        except Exception as error:  # damaged bytes make decompressors fail in any way
            problems[f"damaged chunks ({type(error).__name__})"] += 1
            return
        for opcode, content in _records(BytesIO(inside), 0, len(inside), problems):
            if opcode not in (_SCHEMA, _CHANNEL, _MESSAGE):
                problems[f"records of kind 0x{opcode:02x} inside of a chunk"] += 1
            elif not self._names.take(opcode, content):
                problems["a topic that is declared twice, in different ways"] += 1
            yield opcode, content


class _Names:
    """What the records say about topics."""

    def __init__(self) -> None:
        self._schemas: dict[int, tuple[str, str]] = {}  # id -> message type, definition
        self._channels: dict[int, tuple[int, str, str]] = {}  # id -> schema, topic, encoding

    def take(self, opcode: int, content: bytes) -> bool:
        """Learn from a schema or a channel; False where another one of this number has said something else."""
        number = int.from_bytes(content[:2], "little")
        if opcode == _SCHEMA:
            name, _, definition = _texts(content, 2, 3)
            said = ros2_type(name), definition
            return self._schemas.setdefault(number, said) == said
        if opcode == _CHANNEL:
            topic, encoding = _texts(content, 4, 2)
            channel = int.from_bytes(content[2:4], "little"), topic, encoding
            return self._channels.setdefault(number, channel) == channel
        return True

    def channels(self) -> Collection[Channel]:
        """All that are known."""
        return [self.channel(number) for number in self._channels]

    def know(self, numbers: Collection[int]) -> bool:
        """Whether topic and type of all these channels have been said."""
        return all(n in self._channels and self._channels[n][0] in (0, *self._schemas) for n in numbers)

    def channel(self, number: int) -> Channel:
        """Without a topic where no record has said what it is."""
        if number not in self._channels:
            return Channel("", "")
        schema, topic, encoding = self._channels[number]
        msgtype, definition = self._schemas.get(schema, (_UNKNOWN_TYPE, ""))
        return Channel(topic, msgtype, encoding, definition)


def _records(file: BinaryIO, start: int, end: int, problems: Counter[str]) -> Iterator[tuple[int, bytes]]:
    """Records until the end, or until their framing makes no sense. The file may be read elsewhere meanwhile."""
    at = start
    while at < end:
        file.seek(at)
        header = file.read(_RECORD_BYTES)
        opcode, length = struct.unpack("<BQ", header.ljust(_RECORD_BYTES, b"\0"))
        if not (0 < opcode <= _LAST_OPCODE or opcode >= _PRIVATE_OPCODES) and len(header) == _RECORD_BYTES:
            problems[f"no record at byte {at}: what follows is lost"] += 1
            return
        if len(header) < _RECORD_BYTES or length > end - at - _RECORD_BYTES:
            problems["a record is cut off"] += 1
            return
        content = file.read(length)
        if len(content) < _LEAST_BYTES.get(opcode, 0):
            problems["records that are too short"] += 1
        else:
            yield opcode, content
        at += _RECORD_BYTES + length


def _may_be(opcode: int, file: BinaryIO, length: int) -> bool:
    """Whether the record that the file is at may be among the data, and its lengths lie within it.

    Writers may add bytes at the end of a record, so lengths need not fill it.
    """
    head = file.read(min(length, _LOOKED_AT_BYTES))
    if opcode == _MESSAGE_INDEX:
        entries = int.from_bytes(head[2:6], "little")
        return entries % 16 == 0 and (6 + entries <= length if entries else length == 6)
    if opcode == _METADATA:
        name = 4 + int.from_bytes(head[:4], "little")
        return name + 4 + int.from_bytes(head[name : name + 4], "little") <= length
    if opcode == _ATTACHMENT:
        name = 16 + 4 + int.from_bytes(head[16:20], "little")
        kind = name + 4 + int.from_bytes(head[name : name + 4], "little")
        return kind + 8 + int.from_bytes(head[kind : kind + 8], "little") + 4 <= length
    return False


def _unpacked(content: bytes) -> bytes:
    """The records of a chunk, of a truncated one its beginning; raises where it is damaged."""
    _, _, size, crc = struct.unpack_from("<QQQI", content)
    (compression,) = _texts(content, 28, 1)
    at = 28 + 4 + len(compression)
    (length,) = struct.unpack_from("<Q", content, at)
    data = content[at + 8 : at + 8 + length]
    if compression == "zstd":
        inside = zstd.ZstdDecompressor().decompress(data, MAX_UNPACKED_BYTES)
    elif compression == "lz4":
        inside = bytes(lz4_decompress(data))
    elif compression:
        raise ValueError(f"compression {compression!r} is not known")
    else:
        inside = data
    if len(data) == length and (len(inside) != size or (crc and crc32(inside) != crc)):
        raise ValueError("size or checksum is wrong")
    return inside


def _index_entry(content: bytes) -> _IndexEntry | None:
    """Of a chunk index record; None where it is damaged."""
    _, _, start, length, offset_bytes = struct.unpack_from("<QQQQI", content)
    if offset_bytes % 10 or 36 + offset_bytes + 8 > len(content):
        return None
    offsets = sorted((offset, number) for number, offset in struct.iter_unpack("<HQ", content[36 : 36 + offset_bytes]))
    (index_bytes,) = struct.unpack_from("<Q", content, 36 + offset_bytes)
    ends = [*(offset for offset, _ in offsets[1:]), start + length + index_bytes]
    # A message index is a record of 2 bytes of channel, 4 of length, and 16 for each message.
    counts = {n: (end - offset - _RECORD_BYTES - 6) // 16 for (offset, n), end in zip(offsets, ends, strict=False)}
    return _IndexEntry(start, start + length, {number: messages for number, messages in counts.items() if messages > 0})


def _channel_counts(content: bytes, at: int) -> dict[int, int]:
    (length,) = struct.unpack_from("<I", content, at)
    pairs = content[at + 4 : at + 4 + length // 10 * 10]
    return dict(struct.iter_unpack("<HQ", pairs[: len(pairs) // 10 * 10]))


def _by_topic(counts: Counter[Channel]) -> dict[str, int]:
    topics: Counter[str] = Counter()
    for channel, messages in counts.items():
        topics[channel.topic] += messages
    return dict(topics)


def _texts(content: bytes, at: int, number: int) -> list[str]:
    """So many texts that follow one another, each behind its length; empty ones where the content ends before."""
    texts = []
    for _ in range(number):
        length = int.from_bytes(content[at : at + 4], "little")
        texts.append(content[at + 4 : at + 4 + length].decode("utf-8", "replace"))
        at += 4 + length
    return texts
