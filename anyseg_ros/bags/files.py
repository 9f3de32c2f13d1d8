"""The storage files of a bag: which they are, unpacked where they are compressed, and what each says about itself."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import yaml
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader

from anyseg_ros.bags.damaged import Scan, damage_of, scan_of, zstd
from anyseg_ros.bags.topics import TopicChoice

METADATA = "metadata.yaml"
SUFFIXES = (".mcap", ".db3", ".bag")
_COMPRESSED_SUFFIX = ".zstd"
_LEAST_FREE_BYTES = 1 << 30
"""Unpacking a compressed file stops before the disk is fuller than this."""
_CHUNK_BYTES = 1 << 22
NO_TIME_NS = 2**63 - 1
"""Start of a file without messages."""


class BagError(Exception):
    """A bag of which nothing can be read; the message names the file and the remedy."""


@dataclass(frozen=True)
class BagFile:
    """One storage file, and what it says about itself."""

    path: Path
    topics: dict[TopicChoice, int]
    """With the number of messages."""
    start_ns: int
    end_ns: int
    damage: str = ""
    """Why only a scan can read it; empty where rosbags does."""


def bag_files(path: Path) -> tuple[list[Path], list[str], list[str]]:
    """The storage files of the bag at `path`; what is odd about it; and which files are missing.

    metadata.yaml is believed where it makes sense, else the files that are there are taken. Raises BagError where there
    is no bag.
    """
    if path.is_file():
        if plain_suffix(path) not in SUFFIXES:
            raise BagError(f"{path} is no bag: its name must end in {', '.join(SUFFIXES)}, or in that and .zstd")
        return [path], [], []
    if not path.is_dir():
        raise BagError(f"no bag at {path}: give a bag's folder, or a .mcap, .db3 or .bag file")
    found = sorted((p for p in path.iterdir() if p.is_file() and plain_suffix(p) in SUFFIXES), key=_natural_order)
    if not found:
        raise BagError(f"no bag in {path}: it has no .mcap, .db3 or .bag file")
    if not (path / METADATA).is_file():
        return found, [], []
    return _listed(path, found)


def _listed(folder: Path, found: list[Path]) -> tuple[list[Path], list[str], list[str]]:
    try:
        content = yaml.safe_load((folder / METADATA).read_bytes())["rosbag2_bagfile_information"]
        listed = [folder / Path(name).name for name in content["relative_file_paths"]]
        if content["storage_identifier"] not in ("mcap", "sqlite3"):
            raise ValueError(f"storage_identifier is {content['storage_identifier']!r}")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        return found, [f"{METADATA} is broken ({in_a_line(error)}): the files are read without it"], []
    present = [file for file in listed if file in found]
    return present or found, [], [file.name for file in listed if file not in found]


def described(path: Path) -> BagFile:
    """Topics and times of a storage file. Raises BagError where nothing can be read of it."""
    with unpacked(path) as plain:
        if plain.stat().st_size == 0:
            raise BagError(f"{path.name} is empty")
        damage = damage_of(plain)
        if not damage:
            try:
                return _described_by_rosbags(path, plain)
            except Exception as error:  # a parser meets damaged bytes with any exception
                damage = f"is damaged ({in_a_line(error)})"
        if plain.suffix == ".bag":
            raise BagError(f"{path.name} {damage}: repair it with `rosbag reindex` or `rosbag fix` of ROS 1")
        return _described_by_scan(path, scan_of(plain), damage)


def _described_by_rosbags(path: Path, plain: Path) -> BagFile:
    with reader_of(plain) as reader:
        topics: dict[TopicChoice, int] = {}
        for connection in reader.connections:
            topic = TopicChoice(connection.topic, connection.msgtype)
            topics[topic] = topics.get(topic, 0) + connection.msgcount
        return BagFile(path, topics, reader.start_time, reader.end_time)


def _described_by_scan(path: Path, scan: Scan, damage: str) -> BagFile:
    topics: dict[TopicChoice, int] = {}
    start_ns, end_ns = NO_TIME_NS, 0
    for message in scan.messages(None):
        topic = TopicChoice(message.topic, message.msgtype)
        topics[topic] = topics.get(topic, 0) + 1
        start_ns, end_ns = min(start_ns, message.received_ns), max(end_ns, message.received_ns)
    if not topics:
        raise BagError(f"{path.name} {damage}, and no message can be found in it")
    return BagFile(path, topics, start_ns, end_ns, damage)


def reader_of(plain: Path) -> Ros1Reader | Ros2Reader:
    """rosbags' reader of an unpacked storage file, to be used as a context manager."""
    return Ros1Reader(plain) if plain.suffix == ".bag" else Ros2Reader(plain)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The file itself; of a .zstd file, its content in a temporary file. Raises BagError where that is impossible."""
    if path.suffix != _COMPRESSED_SUFFIX:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="anyseg_bag_") as folder:
        plain = Path(folder) / path.stem
        _unpack(path, plain)
        yield plain


def _unpack(path: Path, plain: Path) -> None:
    """Of a damaged file what is before the damage: a truncated bag, which a scan can read."""
    try:
        with path.open("rb") as source, plain.open("wb") as target:
            for piece in _decompressed(source):
                if shutil.disk_usage(plain.parent).free < _LEAST_FREE_BYTES + len(piece):
                    raise BagError(f"{path.name} does not fit on the disk unpacked: set TMPDIR to a larger one")
                target.write(piece)
    except zstd.ZstdError as error:
        if plain.stat().st_size == 0:
            raise BagError(f"{path.name} cannot be unpacked ({in_a_line(error)}): copy the bag again") from None


def _decompressed(source: BinaryIO) -> Iterator[bytes]:
    """The content of one or more zstd frames, in pieces of limited size."""
    decompressor = zstd.ZstdDecompressor()
    while data := source.read(_CHUNK_BYTES):
        while data:
            yield decompressor.decompress(data, _CHUNK_BYTES)
            while not (decompressor.eof or decompressor.needs_input):
                yield decompressor.decompress(b"", _CHUNK_BYTES)
            data = decompressor.unused_data
            if decompressor.eof:
                decompressor = zstd.ZstdDecompressor()


def plain_suffix(path: Path) -> str:
    """`.mcap` of a.mcap and of a.mcap.zstd."""
    return Path(path.stem).suffix if path.suffix == _COMPRESSED_SUFFIX else path.suffix


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """bag_2 before bag_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def in_a_line(error: object) -> str:
    """The start of an error's text: parsers quote whole files."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."
