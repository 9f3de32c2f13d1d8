"""A ROS 1 bag file, read by rosbags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag1 import Reader

from anyseg_ros.bags.storage import NO_TIME_NS, BagError, Channel, Contents, StoredMessage, in_a_line


class Ros1File:
    """The messages of a .bag file. Raises BagError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: Counter[str] = Counter()
        try:
            with Reader(path) as reader:
                self.contents = self._described(reader)
            self._compare_index()
        except Exception as error:  # a parser meets damaged bytes with any exception
            raise BagError(
                f"{path.name} is damaged ({in_a_line(error)}): repair it with `rosbag reindex` or `rosbag fix` of ROS 1"
            ) from None

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage]:
        self.problems = Counter()
        with Reader(self._path) as reader:
            wanted = [connection for connection in reader.connections if connection.topic in topics]
            if not wanted:
                return
            stream = iter(reader.messages(wanted))
            while True:
                try:
                    connection, received_ns, data = next(stream)
                except StopIteration:
                    return
                except Exception as error:  # as above
                    self.problems[f"is damaged ({in_a_line(error)})"] += 1
                    return
                yield StoredMessage(_channel(connection), received_ns, data)

    def _compare_index(self) -> None:
        """What rosbags found must be what the index records beside the chunks count."""
        indexed, found = sum(_indexed_messages(self._path)), sum(self.contents.counts.values())
        if found < indexed:
            self.contents.damage = f"is damaged ({found} of the {indexed} messages that its index counts are known)"
            self.contents.is_lossy = True

    @staticmethod
    def _described(reader: Reader) -> Contents:
        counts: Counter[Channel] = Counter()
        promised: Counter[str] = Counter()
        for connection in reader.connections:
            counts[_channel(connection)] += connection.msgcount
            promised[connection.topic] += connection.msgcount
        start_ns = reader.start_time if counts.total() else NO_TIME_NS
        return Contents(dict(counts), dict(promised), start_ns, reader.end_time)


def _indexed_messages(path: Path) -> Iterator[int]:
    """Messages that each index record (op 4 of the bag format 2.0) counts, from record to record."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.readline()  # #ROSBAG V2.0
        while file.tell() + 8 <= size:
            header = file.read(int.from_bytes(file.read(4), "little"))
            length = int.from_bytes(file.read(4), "little")
            if file.tell() + length > size:
                return
            if b"op=\x04" in header and (at := header.find(b"count=")) >= 0:
                yield int.from_bytes(header[at + 6 : at + 10], "little")
            file.seek(length, 1)


def _channel(connection: Connection) -> Channel:
    return Channel(connection.topic, connection.msgtype, "ros1", str(connection.msgdef.data))
