"""Reading what is left of a damaged or unindexed storage file: from its start, record by record, without any index.

mcap: records of one byte of type, eight bytes of length, content (https://mcap.dev/spec); a chunk is a compressed
record that holds records. A damaged chunk is skipped; behind a record whose length is wrong nothing can be found, as
mcap has no marks to resynchronise at. sqlite3: rows in the order they were written, until a page is damaged.
"""

from __future__ import annotations

import heapq
import sqlite3
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

from lz4.frame import decompress as lz4_decompress

from anyseg_core.runtime.time_units import NS_PER_S

try:
    from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
except ImportError:
    from backports import zstd  # comes with rosbags

_MCAP_MAGIC = b"\x89MCAP0\r\n"
_FOOTER_BYTES = 1 + 8 + 20 + len(_MCAP_MAGIC)
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_LAST_OPCODE = 0x0F
_PRIVATE_OPCODES = 0x80
MAX_UNPACKED_BYTES = 1 << 30
"""Of a chunk or a message: no sensor sends a gigabyte at a time, a corrupt header may claim it."""
REORDER_NS = NS_PER_S
"""Messages that were written up to this much too late are put in order."""


class BagMessage(NamedTuple):
    """One message of a bag."""

    topic: str
    msgtype: str
    """As ROS 2 names it: `sensor_msgs/msg/Image`."""
    received_ns: int
    """When the recorder received it."""
    cdr: bytes | memoryview
    """The serialized message in ROS 2's form."""


class Scan(ABC):
    """What is left of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: Counter[str] = Counter()
        """What was met by the last complete pass, and how often."""

    def messages(self, topics: Collection[str] | None) -> Iterator[BagMessage]:
        """In the order of their times; None = all topics."""
        self.problems = Counter()
        return in_time_order(self._written(topics), self.problems)

    @abstractmethod
    def _written(self, topics: Collection[str] | None) -> Iterator[BagMessage]:
        """In the order of the file."""


def scan_of(path: Path) -> Scan:
    """The scan for a .mcap or .db3 file."""
    return McapScan(path) if path.suffix == ".mcap" else SqliteScan(path)


def damage_of(path: Path) -> str:
    """Why a file must be scanned, as far as its first and last bytes tell; empty where nothing speaks against it."""
    if path.suffix != ".mcap":
        return ""
    with path.open("rb") as file:
        start = file.read(len(_MCAP_MAGIC))
        file.seek(max(0, path.stat().st_size - _FOOTER_BYTES))
        footer = file.read()
    if start != _MCAP_MAGIC:
        return "is damaged (it does not begin as an mcap file)"
    if len(footer) < _FOOTER_BYTES or not footer.endswith(_MCAP_MAGIC):
        return "is truncated (it does not end as an mcap file)"
    return "has no index" if footer[9:17] == bytes(8) else ""


def decompressed(data: bytes | memoryview) -> bytes:
    """A zstd frame, unpacked. Raises ValueError where it is damaged or larger than MAX_UNPACKED_BYTES."""
    decompressor = zstd.ZstdDecompressor()
    try:
        content = decompressor.decompress(data, MAX_UNPACKED_BYTES)
    except (zstd.ZstdError, MemoryError) as error:
        raise ValueError(f"zstd data is damaged: {error}") from None
    if not decompressor.eof:
        raise ValueError("zstd data is truncated, or claims more than a gigabyte")
    return content


def in_time_order(messages: Iterable[BagMessage], problems: Counter[str]) -> Iterator[BagMessage]:
    """Messages as they were written -> by the time they were received, looking REORDER_NS ahead.

    A message that is later than that is delivered where it stands and counted: its clock was set back.
    """
    waiting: list[tuple[int, int, BagMessage]] = []
    order = count()
    newest_ns = last_ns = -1
    for message in messages:
        if message.received_ns < last_ns:
            problems["messages written more than a second too late"] += 1
            yield from (heapq.heappop(waiting)[2] for _ in range(len(waiting)))
            newest_ns = last_ns = -1
        newest_ns = max(newest_ns, message.received_ns)
        heapq.heappush(waiting, (message.received_ns, next(order), message))
        while waiting[0][0] < newest_ns - REORDER_NS:
            last_ns = waiting[0][0]
            yield heapq.heappop(waiting)[2]
    yield from (heapq.heappop(waiting)[2] for _ in range(len(waiting)))


class McapScan(Scan):
    """The messages of an mcap file, record by record."""

    def _written(self, topics: Collection[str] | None) -> Iterator[BagMessage]:
        names = _Names()
        with self._path.open("rb") as file:
            for record in self._summary(file):
                names.take(*record)
            for opcode, content in self._data(file):
                names.take(opcode, content)
                if opcode == _MESSAGE:
                    channel, _, received_ns = struct.unpack_from("<HIQ", content)
                    topic, msgtype = names.channels.get(channel, ("", ""))
                    if topic and (topics is None or topic in topics):
                        yield BagMessage(topic, msgtype, received_ns, content[22:])
                    elif not topic:
                        self.problems["messages of an unknown topic"] += 1

    def _summary(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """Records of the summary, where the end of the file is there: the names in damaged chunks are in it again."""
        size = self._path.stat().st_size
        file.seek(max(0, size - _FOOTER_BYTES))
        footer = file.read()
        start = int.from_bytes(footer[9:17], "little")
        if footer.endswith(_MCAP_MAGIC) and 0 < start < size - _FOOTER_BYTES:
            file.seek(start)
            yield from self._records(file, size - _FOOTER_BYTES)
        self.problems.clear()

    def _data(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """Records of the data section, those in chunks too."""
        file.seek(len(_MCAP_MAGIC))
        for opcode, content in self._records(file, self._path.stat().st_size):
            if opcode == _DATA_END:
                return
            if opcode != _CHUNK:
                yield opcode, content
                continue
            try:
                inside = _unpacked_chunk(content)
            except Exception as error:  # damaged bytes make decompressors fail in any way
                self.problems[f"damaged chunks ({type(error).__name__})"] += 1
                continue
            yield from self._records(BytesIO(inside), len(inside))

    def _records(self, file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
        """Records until the file or chunk ends, or its framing makes no sense. Of a chunk that is cut off, the rest."""
        while file.tell() < size:
            start = file.tell()
            header = file.read(9)
            opcode, length = struct.unpack("<BQ", header.ljust(9, b"\0"))
            if len(header) == 9 and not (0 < opcode <= _LAST_OPCODE or opcode >= _PRIVATE_OPCODES):
                self.problems[f"no record at byte {start}: what follows is lost"] += 1
                return
            if len(header) < 9 or length > size - file.tell():
                self.problems["file ends inside a record"] += 1
                if opcode == _CHUNK and size - file.tell() <= MAX_UNPACKED_BYTES:
                    yield opcode, file.read()
                return
            yield from self._parsed(opcode, file.read(length))

    def _parsed(self, opcode: int, content: bytes) -> Iterator[tuple[int, bytes]]:
        """The record, where it is long enough to be one."""
        least = {_MESSAGE: 22, _SCHEMA: 6, _CHANNEL: 8}.get(opcode, 0)
        if len(content) < least:
            self.problems["records that are too short"] += 1
        else:
            yield opcode, content


class _Names:
    """What the records say about topics."""

    def __init__(self) -> None:
        self._types: dict[int, str] = {}  # schema id -> message type
        self.channels: dict[int, tuple[str, str]] = {}  # channel id -> topic, message type

    def take(self, opcode: int, content: bytes) -> None:
        """A schema or a channel; other records tell nothing."""
        if opcode == _SCHEMA:
            self._types[struct.unpack_from("<H", content)[0]] = _text(content, 2)
        elif opcode == _CHANNEL:
            channel, schema = struct.unpack_from("<HH", content)
            self.channels[channel] = _text(content, 4), self._types.get(schema, "")


def _unpacked_chunk(content: bytes) -> bytes:
    """The records of a chunk, of a truncated one its beginning; raises where it is damaged."""
    _, _, size, crc = struct.unpack_from("<QQQI", content)
    compression = _text(content, 28)
    at = 28 + 4 + len(compression)
    (length,) = struct.unpack_from("<Q", content, at)
    data = content[at + 8 :]
    if compression == "zstd":
        inside = zstd.ZstdDecompressor().decompress(data, MAX_UNPACKED_BYTES)
    else:
        inside = bytes(lz4_decompress(data)) if compression else data
    if len(data) == length and (len(inside) != size or (crc and crc32(inside) != crc)):
        raise ValueError("size or checksum is wrong")
    return inside


def _text(content: bytes, at: int) -> str:
    (length,) = struct.unpack_from("<I", content, at)
    return content[at + 4 : at + 4 + length].decode("utf-8", "replace")


class SqliteScan(Scan):
    """The messages of a sqlite3 storage file, row by row."""

    def _written(self, topics: Collection[str] | None) -> Iterator[BagMessage]:
        database = sqlite3.connect(f"file:{self._path.absolute()}?immutable=1", uri=True)
        try:
            # SQLite refuses a file that is shorter than its header says, unless it is told that it may be damaged.
            database.execute("PRAGMA writable_schema=ON")
            names: dict[int, tuple[str, str]] = {
                key: (name, kind) for key, name, kind in database.execute("SELECT id, name, type FROM topics")
            }
            rows: Iterable[Any] = database.execute("SELECT topic_id, timestamp, data FROM messages")
            for key, received_ns, data in rows:
                topic, msgtype = names.get(key, ("", ""))
                if topic and (topics is None or topic in topics):
                    yield BagMessage(topic, msgtype, received_ns, data)
        except sqlite3.Error as error:
            self.problems[f"no more rows can be read ({error})"] += 1
        finally:
            database.close()
