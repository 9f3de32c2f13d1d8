"""Messages of a bag in the order of their times, whatever the bag is: ROS 2 (mcap, sqlite3; split, compressed, bare
files without metadata.yaml) or ROS 1. No ROS needed. Message definitions in the bag are not looked at, but for ROS 1.

What cannot be read is said in `problems`, and the rest is delivered. Memory does not grow with the bag: one file of a
split bag is open at a time, and messages are read as they are asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Qos
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from anyseg_ros.bags.damaged import BagMessage, decompressed, scan_of
from anyseg_ros.bags.files import NO_TIME_NS, BagError, BagFile, bag_files, described, in_a_line, reader_of, unpacked
from anyseg_ros.bags.topics import TopicChoice

__all__ = ["BagError", "BagMessage", "BagReader", "Problem"]

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Problem:
    """Something wrong with a bag."""

    text: str
    lost: bool = False
    """Whether messages were lost by it."""


class BagReader:
    """A bag, open for reading as often as wanted.

    Raises BagError where there is no bag at `path`, or nothing of it can be read at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        """What is wrong with the bag, as far as it is known: reading it may add to the list."""
        paths, oddities, missing = bag_files(path)
        for oddity in oddities:
            self._note(oddity)
        for name in missing:
            self._note(f"{name} belongs to the bag and is not there", lost=True)
        files = [file for each in paths if (file := self._described(each)) is not None]
        if not files:
            raise BagError(f"nothing can be read of {path}: {'; '.join(p.text for p in self.problems)}")
        self._files = sorted(files, key=lambda file: file.start_ns)
        self._store = get_typestore(Stores.ROS2_HUMBLE)

    @property
    def topics(self) -> dict[TopicChoice, int]:
        """Every topic with its type and the number of its messages."""
        counts: dict[TopicChoice, int] = {}
        for file in self._files:
            for topic, count in file.topics.items():
                counts[topic] = counts.get(topic, 0) + count
        return counts

    @property
    def start_ns(self) -> int:
        """When the first message was received; 0 in a bag without messages."""
        return min((file.start_ns for file in self._files if file.start_ns < NO_TIME_NS), default=0)

    @property
    def end_ns(self) -> int:
        """When the last message was received; 0 in a bag without messages."""
        return max(file.end_ns for file in self._files)

    def offered_qos(self) -> dict[str, tuple[Qos, ...]]:
        """The QoS of the recorded publishers by topic, of the files that need no unpacking; ROS 1 knows none."""
        profiles: dict[str, tuple[Qos, ...]] = {}
        for file in self._files:
            if file.damage or file.path.suffix not in (".mcap", ".db3"):
                continue
            with reader_of(file.path) as reader:
                for connection in reader.connections:
                    recorded = getattr(connection.ext, "offered_qos_profiles", ())
                    profiles[connection.topic] = (*profiles.get(connection.topic, ()), *recorded)
        return profiles

    def count(self, topics: Collection[str]) -> int:
        """Messages on these topics, as the storage says."""
        return sum(count for topic, count in self.topics.items() if topic.topic in topics)

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """The messages on these topics. Damaged ones are left out, and told of in `problems`."""
        for file in self._files:
            wanted = {topic.topic for topic in file.topics if topic.topic in topics}
            if wanted:
                with unpacked(file.path) as plain:
                    yield from self._messages_of(file, plain, wanted)

    def _described(self, path: Path) -> BagFile | None:
        try:
            return described(path)
        except BagError as error:
            self._note(str(error), lost=True)
            return None

    def _messages_of(self, file: BagFile, plain: Path, topics: set[str]) -> Iterator[BagMessage]:
        if file.damage:
            yield from self._scanned(file, plain, topics, file.damage, after_ns=None)
            return
        last_ns, delivered = -1, 0
        try:
            for message in self._by_rosbags(plain, topics):
                yield message
                last_ns, delivered = message.received_ns, delivered + 1
        except GeneratorExit:
            raise
        except Exception as error:  # a parser meets damaged bytes with any exception
            expected = sum(count for topic, count in file.topics.items() if topic.topic in topics)
            damage = f"is damaged after {delivered} of {expected} messages ({in_a_line(error)})"
            if plain.suffix == ".bag":
                self._note(f"{file.path.name} {damage}", lost=True)
            else:
                yield from self._scanned(file, plain, topics, damage, after_ns=last_ns)

    def _by_rosbags(self, plain: Path, topics: set[str]) -> Iterator[BagMessage]:
        is_ros1 = plain.suffix == ".bag"
        with reader_of(plain) as reader:
            connections: list[Any] = [c for c in reader.connections if c.topic in topics]
            for connection, received_ns, raw in reader.messages(connections):
                stored = BagMessage(connection.topic, connection.msgtype, received_ns, raw)
                message = self._from_ros1(stored, connection) if is_ros1 else self._from_ros2(stored)
                if message is not None:
                    yield message

    def _scanned(
        self, file: BagFile, plain: Path, topics: set[str], damage: str, after_ns: int | None
    ) -> Iterator[BagMessage]:
        """What a scan finds of a damaged file; with `after_ns`, of what was received later."""
        scan = scan_of(plain)
        count = 0
        for stored in scan.messages(topics):
            if after_ns is not None and stored.received_ns <= after_ns:
                continue
            message = self._from_ros2(stored)
            if message is not None:
                yield message
                count += 1
        met = "; ".join(f"{number} x {problem}" for problem, number in scan.problems.items())
        lost = bool(met) or damage != "has no index"
        self._note(f"{file.path.name} {damage}: {count} messages found without it" + (f"; {met}" if met else ""), lost)

    def _from_ros2(self, stored: BagMessage) -> BagMessage | None:
        """The message, unpacked where the recorder compressed each message."""
        if stored.cdr[:4] != _ZSTD_MAGIC:
            return stored
        try:
            return stored._replace(cdr=decompressed(stored.cdr))
        except ValueError as error:
            self._note(f"compressed messages on {stored.topic} are damaged ({in_a_line(error)})", lost=True)
            return None

    def _from_ros1(self, stored: BagMessage, connection: Any) -> BagMessage | None:
        """The message in ROS 2's form: without the header's sequence number, aligned."""
        try:
            if stored.msgtype not in self._store.fielddefs:
                types = get_types_from_msg(connection.msgdef.data, stored.msgtype)
                self._store.register({name: t for name, t in types.items() if name not in self._store.fielddefs})
            return stored._replace(cdr=self._store.ros1_to_cdr(stored.cdr, stored.msgtype))
        except Exception as error:  # definition and bytes are the bag's own, and may be anything
            self._note(f"messages on {stored.topic} are no {stored.msgtype} ({in_a_line(error)})", lost=True)
            return None

    def _note(self, text: str, lost: bool = False) -> None:
        """A problem, told once however often the bag is read."""
        if all(problem.text != text for problem in self.problems):
            self.problems.append(Problem(text, lost))
