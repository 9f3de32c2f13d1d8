"""What every kind of storage file offers: its topics and counts, what it promises, and its messages in time order."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple, Protocol, TypeVar

try:
    from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
except ImportError:
    from backports import zstd  # comes with rosbags

NO_TIME_NS = 2**63 - 1
"""Start of a file without messages."""
MAX_UNPACKED_BYTES = 1 << 30
"""Of a chunk or a message: no sensor sends a gigabyte at a time, a corrupt header may claim it."""


class BagError(Exception):
    """A bag of which nothing can be read; the message names the file and the remedy."""


class BagMessage(NamedTuple):
    """One message of a bag."""

    topic: str
    msgtype: str
    """As ROS 2 names it: `sensor_msgs/msg/Image`."""
    received_ns: int
    """When the recorder received it."""
    cdr: bytes | memoryview
    """The serialized message in ROS 2's form."""


class Channel(NamedTuple):
    """Where messages come from, and what their bytes are."""

    topic: str
    msgtype: str
    encoding: str = "cdr"
    """`cdr`, `ros1`, or one that is not read, such as `json`."""
    definition: str = ""
    """Text of the message type, where the file has it."""


class StoredMessage(NamedTuple):
    """A message as the file has it."""

    channel: Channel
    received_ns: int
    data: bytes | memoryview


@dataclass
class Contents:
    """What is known of a storage file before its messages are read."""

    counts: dict[Channel, int] = field(default_factory=dict)
    """Messages that are there."""
    promised: Mapping[str, int] = field(default_factory=dict)
    """Messages by topic that index, statistics or rows promise."""
    start_ns: int = NO_TIME_NS
    end_ns: int = 0
    damage: str = ""
    """What is wrong with the file as a whole, as the end of a sentence that begins with its name."""
    is_lossy: bool = False
    """Whether that damage can have cost messages."""
    notes: tuple[str, ...] = ()
    """What was done about something that is odd and costs no message."""


class StorageFile(Protocol):
    """One storage file, unpacked."""

    contents: Contents
    problems: Counter[str]
    """What was met by the last pass over its messages, and how often."""

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage]:
        """Those of these topics, in the order of their times."""
        ...


Timed = TypeVar("Timed", StoredMessage, BagMessage)
Source = tuple[int, Callable[[], Iterator[Timed]]]
"""The time of the first message, and what opens the messages, which are in the order of their times."""


def merged_by_time(sources: Sequence[tuple[int, Callable[[], Iterator[Timed]]]]) -> Iterator[Timed]:
    """The messages of several sources in the order of their times; a source is opened when its time has come."""
    waiting = deque(sorted(sources, key=lambda source: source[0]))
    order = count()
    heads: list[tuple[int, int, Timed, Iterator[Timed]]] = []

    def push(number: int, stream: Iterator[Timed]) -> None:
        message = next(stream, None)
        if message is not None:
            heapq.heappush(heads, (message.received_ns, number, message, stream))

    while heads or waiting:
        while waiting and (not heads or waiting[0][0] <= heads[0][0]):
            push(next(order), waiting.popleft()[1]())
        if heads:
            _, number, message, stream = heapq.heappop(heads)
            yield message
            push(number, stream)


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


def ros2_type(name: str) -> str:
    """`sensor_msgs/Image`, the ROS 1 form of a type's name, as `sensor_msgs/msg/Image`; other names as they are."""
    package, separator, kind = name.partition("/")
    return f"{package}/msg/{kind}" if separator and "/" not in kind else name


def in_a_line(error: object) -> str:
    """The start of an error's text: parsers quote whole files."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."
