"""Messages of a bag in the order of their times, whatever the bag is: ROS 2 (mcap, sqlite3; split, compressed, bare
files without metadata.yaml) or ROS 1. No ROS needed. Message definitions in the bag are not looked at, but for ROS 1.

What metadata, index and statistics promise is compared with what is delivered. What cannot be read, and what was done
about something odd, is said in `problems`; the rest is delivered. Memory does not grow with the bag: files of a split
bag are open one at a time, but where their times overlap, and messages are read as they are asked for.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rosbags.interfaces import Qos
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_core.wording import counted
from anyseg_ros.bags.files import (
    METADATA,
    READ_ENCODINGS,
    BagFile,
    BagListing,
    bag_files,
    described,
    open_storage,
    rosbags_reader,
    unpacked,
)
from anyseg_ros.bags.sqlite_file import journal_of
from anyseg_ros.bags.storage import (
    NO_TIME_NS,
    BagError,
    BagMessage,
    StoredMessage,
    decompressed,
    in_a_line,
    merged_by_time,
)
from anyseg_ros.bags.topics import TopicChoice

__all__ = ["BagError", "BagMessage", "BagReader", "Problem"]

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SAME_TIME_SHARE = 0.5
"""A file that metadata.yaml does not name and whose times are those of the named ones by more is a copy of them."""
_BLOCKS, _BLOCK_BYTES = 256, 1 << 16
"""What a fingerprint reads of each file at most: 16 MB."""
_MOST_NAMED = 5
"""Topics that a sentence lists."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with a bag, or what was done about something odd."""

    text: str
    lost: bool = False
    """Whether messages were lost by it."""
    fails: bool = False
    """Whether what was asked for has failed because of it."""


class BagReader:
    """A bag, open for reading as often as wanted.

    Raises BagError where there is no bag at `path`, or nothing of it can be read at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        """What is wrong with the bag, as far as it is known: reading it may add to the list."""
        self._met: defaultdict[Path, Counter[str]] = defaultdict(Counter)
        """Damage within each file, the most that a reading has met."""
        self._delivered: defaultdict[Path, Counter[str]] = defaultdict(Counter)
        """Messages of each file by topic, of the topics that were read to the end."""
        self._problem_of: dict[str, Problem] = {}
        """Those that say how a file was read: what a later reading knows better replaces them."""
        listing = bag_files(path)
        for oddity in listing.notes:
            self._note(oddity)
        for name in listing.missing:
            self._note(f"{name} belongs to the bag and is not there", lost=True)
        files = [file for each in listing.files if (file := self._described(each)) is not None]
        files += self._unlisted(listing, files)
        if not files:
            raise BagError(f"nothing can be read of {path}: {'; '.join(p.text for p in self.problems)}")
        self._files = sorted(files, key=lambda file: file.contents.start_ns)
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._check_contents(listing)
        if not self.topics and any(problem.lost for problem in self.problems):
            raise BagError(f"nothing can be read of {path}: {'; '.join(p.text for p in self.problems)}")

    @property
    def topics(self) -> dict[TopicChoice, int]:
        """Every topic with its type and the number of its messages."""
        counts: Counter[TopicChoice] = Counter()
        for file in self._files:
            counts.update(file.topics)
        return dict(counts)

    @property
    def start_ns(self) -> int:
        """When the first message was received; 0 in a bag without messages."""
        starts = (file.contents.start_ns for file in self._files)
        return min((start for start in starts if start < NO_TIME_NS), default=0)

    @property
    def end_ns(self) -> int:
        """When the last message was received; 0 in a bag without messages."""
        return max(file.contents.end_ns for file in self._files)

    def offered_qos(self) -> dict[str, tuple[Qos, ...]]:
        """The QoS of the recorded publishers by topic, of the files that rosbags reads; ROS 1 knows none."""
        profiles: dict[str, tuple[Qos, ...]] = {}
        for file in self._files:
            if file.contents.damage or file.path.suffix not in (".mcap", ".db3"):
                continue
            try:
                with rosbags_reader(file.path) as reader:
                    for connection in reader.connections:
                        recorded = getattr(connection.ext, "offered_qos_profiles", ())
                        profiles[connection.topic] = (*profiles.get(connection.topic, ()), *recorded)
            except Exception:  # a file that only this reader reads, with any exception: its topics get the usual QoS
                continue
        return profiles

    def count(self, topics: Collection[str]) -> int:
        """Messages on these topics."""
        return sum(count for topic, count in self.topics.items() if topic.topic in topics)

    def fingerprint(self) -> str:
        """Of the storage files' content: another recording of the same name and counts has another one.

        Of large files the size, and blocks that are spread evenly over it, count.
        """
        digest = hashlib.sha256()
        for file in sorted(self._files, key=lambda each: each.path.name):
            size = file.path.stat().st_size
            digest.update(f"{file.path.name}|{size}".encode())
            with file.path.open("rb") as content:
                for number in range(_BLOCKS):
                    content.seek(max(0, size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
                    digest.update(content.read(_BLOCK_BYTES))
        return digest.hexdigest()

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        """The messages on these topics in the order of their times. Damaged ones are left out, as `problems` says."""
        last_ns, late = -1, 0
        for message in merged_by_time([(file.contents.start_ns, self._opened(file, topics)) for file in self._files]):
            late += message.received_ns < last_ns
            last_ns = max(last_ns, message.received_ns)
            yield message
        if late:
            self._note(f"{late} messages are not in the order of their times: the times of a file or chunk are wrong")

    # --- before reading ----------------------------------------------------------------------------------------------

    def _described(self, path: Path) -> BagFile | None:
        try:
            return described(path)
        except BagError as error:
            self._note(str(error), lost=True)
            return None

    def _unlisted(self, listing: BagListing, listed: list[BagFile]) -> list[BagFile]:
        """The files that metadata.yaml does not name, but for copies of those that it names."""
        found = [file for each in listing.unlisted if (file := self._described(each)) is not None]
        copies = [file for file in found if _share_within(file, listed) > _SAME_TIME_SHARE]
        for file in found:
            if file in copies:
                self._note(
                    f"{file.path.name} is left out: {METADATA} does not list it, and its times are those of others"
                )
            else:
                self._note(f"{file.path.name} is not listed in {METADATA}, and is read as well")
        return [file for file in found if file not in copies]

    def _check_contents(self, listing: BagListing) -> None:
        """Say what was done about odd files, what is not read, and what is missing of what metadata.yaml promises."""
        for file in self._files:
            for note in file.contents.notes:
                self._note(f"{file.path.name}: {note}")
            there: Counter[str] = Counter()
            for channel, messages in file.contents.counts.items():
                there[channel.topic] += messages
            promised = Counter(file.contents.promised)
            self._note_shortage(promised, there, f"are in {file.path.name} of those that its statistics promise")
            if file.path.suffix == ".db3" and (journal := _journal_beside(file.path)):
                self._note(f"{file.path.name} was not closed by its recorder: {journal} beside it is read as well")
        self._note_unread()
        for before, after in pairwise(self._files):
            overlap_ns = before.contents.end_ns - 1 - after.contents.start_ns
            if overlap_ns > 0:
                names = f"{before.path.name} and {after.path.name}"
                self._note(f"{names} overlap by {overlap_ns / NS_PER_S:.3g} s: their messages are merged by time")
        if not listing.missing:
            there = Counter({topic.topic: count for topic, count in self.topics.items()})
            self._note_shortage(listing.promised, there, f"are there of what {METADATA} promises")

    def _note_unread(self) -> None:
        """Messages whose encoding is not read."""
        unread: Counter[tuple[str, str]] = Counter()
        for file in self._files:
            for channel, messages in file.contents.counts.items():
                if channel.encoding not in READ_ENCODINGS:
                    unread[channel.encoding, channel.topic] += messages
        for encoding in sorted({encoding for encoding, _ in unread}):
            topics = {topic: count for (name, topic), count in unread.items() if name == encoding}
            self._note(
                f"{sum(topics.values())} messages are encoded as {encoding!r}, which is not read ({_named(topics)}): "
                "record or convert them as ROS 2 messages (cdr)",
                lost=True,
            )

    def _note_shortage(self, promised: Counter[str], there: Counter[str], said: str) -> None:
        if shortage := _shortage(promised, there, said):
            self._note(shortage, lost=True)

    # --- reading -----------------------------------------------------------------------------------------------------

    def _opened(self, file: BagFile, topics: Collection[str]) -> Callable[[], Iterator[BagMessage]]:
        wanted = {topic.topic for topic in file.topics if topic.topic in topics}

        def messages() -> Iterator[BagMessage]:
            if wanted:
                with unpacked(file.path) as plain:
                    yield from self._messages_of(file, plain, wanted)

        return messages

    def _messages_of(self, file: BagFile, plain: Path, topics: set[str]) -> Iterator[BagMessage]:
        storage = open_storage(plain)
        delivered: Counter[str] = Counter()
        for stored in storage.messages(topics):
            if stored.channel.encoding in READ_ENCODINGS:
                delivered[stored.channel.topic] += 1
                message = self._from_ros1(stored) if stored.channel.encoding == "ros1" else self._from_ros2(stored)
                if message is not None:
                    yield message
        self._check_delivered(file, topics, storage.problems, delivered)

    def _check_delivered(
        self, file: BagFile, topics: set[str], problems: Counter[str], delivered: Counter[str]
    ) -> None:
        """Say what was met in a file, and compare what it has given with what was counted in it."""
        name, damage = file.path.name, file.contents.damage
        self._met[file.path] |= problems
        met = "; ".join(f"{number} x {problem}" for problem, number in self._met[file.path].items())
        if damage:
            lost, found = bool(met) or file.contents.is_lossy, sum(file.topics.values())
            self._note_again(
                f"{name} damage",
                f"{name} {damage}: {counted(found, 'message')} found" + (f"; {met}" if met else ""),
                lost,
            )
        elif met:
            self._note_again(f"{name} damage", f"{name}: {met}", lost=True)
        read = self._delivered[file.path]
        for topic in topics:
            read[topic] = max(read[topic], delivered[topic])
        expected: Counter[str] = Counter()
        for topic, messages in file.topics.items():
            if topic.topic in read:
                expected[topic.topic] += messages
        if shortage := _shortage(expected, read, f"could be read of {name}"):
            self._note_again(f"{name} shortage", shortage, lost=True)

    def _from_ros2(self, stored: StoredMessage) -> BagMessage | None:
        """The message, unpacked where the recorder compressed each message."""
        topic, msgtype = stored.channel.topic, stored.channel.msgtype
        if stored.data[:4] != _ZSTD_MAGIC:
            return BagMessage(topic, msgtype, stored.received_ns, stored.data)
        try:
            return BagMessage(topic, msgtype, stored.received_ns, decompressed(stored.data))
        except ValueError as error:
            self._note(f"compressed messages on {topic} are damaged ({in_a_line(error)})", lost=True)
            return None

    def _from_ros1(self, stored: StoredMessage) -> BagMessage | None:
        """The message in ROS 2's form: without the header's sequence number, aligned."""
        topic, msgtype, _, definition = stored.channel
        try:
            if msgtype not in self._store.fielddefs:
                types = get_types_from_msg(definition, msgtype)
                self._store.register({name: t for name, t in types.items() if name not in self._store.fielddefs})
            return BagMessage(topic, msgtype, stored.received_ns, self._store.ros1_to_cdr(stored.data, msgtype))
        except Exception as error:  # definition and bytes are the bag's own, and may be anything
            self._note(f"messages on {topic} are no {msgtype} ({in_a_line(error)})", lost=True)
            return None

    def _note(self, text: str, lost: bool = False) -> None:
        """A problem, said once however often the bag is read."""
        if all(problem.text != text for problem in self.problems):
            self.problems.append(Problem(text, lost))

    def _note_again(self, key: str, text: str, lost: bool) -> None:
        """A problem of which a later reading may know more: it is told once, as it is known last."""
        before, problem = self._problem_of.get(key), Problem(text, lost)
        self._problem_of[key] = problem
        if before in self.problems:
            self.problems[self.problems.index(before)] = problem
        else:
            self.problems.append(problem)


def _shortage(promised: Counter[str], there: Counter[str], said: str) -> str:
    """What is missing by topic; empty where nothing is."""
    lacking = {topic: count for topic, count in promised.items() if there[topic] < count}
    if not lacking:
        return ""
    listed = _named({t: f"{there[t]} of {c}" for t, c in lacking.items()})
    total, missing = sum(promised.values()), sum(count - there[topic] for topic, count in lacking.items())
    return f"{total - missing} of {total} messages {said}: {listed}"


def _share_within(file: BagFile, others: list[BagFile]) -> float:
    """Of a file's time: how much of it is the time of one of the others."""
    start, end = file.contents.start_ns, max(file.contents.end_ns, file.contents.start_ns + 1)
    shared = [min(end, o.contents.end_ns) - max(start, o.contents.start_ns) for o in others]
    return max(shared, default=0) / (end - start)


def _journal_beside(path: Path) -> str:
    journal = journal_of(path)
    return journal.name if journal else ""


def _named(values: Mapping[str, object]) -> str:
    """`/a 3, /b 4, and 2 more topics`."""
    listed = [f"{topic} {value}" for topic, value in sorted(values.items())]
    more = len(listed) - _MOST_NAMED
    return ", ".join(listed[:_MOST_NAMED]) + (f", and {more} more topics" if more > 0 else "")
