"""The storage files of a bag: which they are, unpacked where they are compressed, and what each has and promises."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader

from anyseg_ros.bags.mcap_file import McapFile
from anyseg_ros.bags.ros1_file import Ros1File
from anyseg_ros.bags.sqlite_file import SqliteFile, journal_of, with_journal
from anyseg_ros.bags.storage import BagError, Contents, StorageFile, in_a_line, zstd
from anyseg_ros.bags.topics import TopicChoice

METADATA = "metadata.yaml"
SUFFIXES = (".mcap", ".db3", ".bag")
_COMPRESSED_SUFFIX = ".zstd"
_LEAST_FREE_BYTES = 1 << 30
"""Unpacking a compressed file stops before the disk is fuller than this."""
_CHUNK_BYTES = 1 << 22
READ_ENCODINGS = ("cdr", "ros1")
"""Encodings of messages that are read."""


@dataclass(frozen=True)
class BagFile:
    """One storage file, and what is known of it before its messages are read."""

    path: Path
    contents: Contents
    topics: Mapping[TopicChoice, int]
    """With the number of messages, as far as they are encoded in a way that is read."""


@dataclass
class BagListing:
    """The storage files of a bag, and what its metadata says of them."""

    files: list[Path]
    unlisted: list[Path] = field(default_factory=list)
    """Files of the same storage that metadata.yaml does not name: a split that was being written when it was."""
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is odd about the bag's folder."""
    promised: Counter[str] = field(default_factory=Counter)
    """Messages by topic, as metadata.yaml counts them."""


def bag_files(path: Path) -> BagListing:
    """The storage files of the bag at `path`. Raises BagError where there is no bag."""
    if path.is_file():
        if plain_suffix(path) not in SUFFIXES:
            raise BagError(f"{path} is no bag: its name must end in {', '.join(SUFFIXES)}, or in that and .zstd")
        return BagListing([path])
    if not path.is_dir():
        raise BagError(f"no bag at {path}: give a bag's folder, or a .mcap, .db3 or .bag file")
    found = sorted((p for p in path.iterdir() if p.is_file() and plain_suffix(p) in SUFFIXES), key=_natural_order)
    if not found:
        raise BagError(f"no bag in {path}: it has no .mcap, .db3 or .bag file")
    twice = [p for p in found if p.suffix == _COMPRESSED_SUFFIX and p.with_suffix("") in found]
    listing = _listed(path, [p for p in found if p not in twice])
    listing.notes += [f"{p.name} is left out: it is there unpacked as well" for p in twice]
    return listing


def _listed(folder: Path, found: list[Path]) -> BagListing:
    """As metadata.yaml lists them, where there is one that makes sense."""
    if not (folder / METADATA).is_file():
        return BagListing(found)
    try:
        content = yaml.safe_load((folder / METADATA).read_bytes())["rosbag2_bagfile_information"]
        names = [Path(name).name for name in content["relative_file_paths"]]
        if content["storage_identifier"] not in ("mcap", "sqlite3"):
            raise ValueError(f"storage_identifier is {content['storage_identifier']!r}")
        promised = _promised(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        return BagListing(found, notes=[f"{METADATA} is broken ({in_a_line(error)}): the files are read without it"])
    by_name = {file.name.removesuffix(_COMPRESSED_SUFFIX): file for file in found}
    names = [name.removesuffix(_COMPRESSED_SUFFIX) for name in names]
    twice = [name for name, times in Counter(names).items() if times > 1]
    names = list(dict.fromkeys(names))
    present = [by_name[name] for name in names if name in by_name]
    others = [file for file in found if file not in present]
    suffix = ".mcap" if content["storage_identifier"] == "mcap" else ".db3"
    return BagListing(
        present,
        unlisted=[file for file in others if plain_suffix(file) == suffix],
        missing=[name for name in names if name not in by_name],
        notes=[f"{f.name} is left out: {METADATA} says {suffix}" for f in others if plain_suffix(f) != suffix]
        + [f"{name} is read once: {METADATA} lists it more often" for name in twice],
        promised=promised,
    )


def _promised(content: Mapping[str, Any]) -> Counter[str]:
    """Messages by topic. Raises where metadata.yaml has another form."""
    promised: Counter[str] = Counter()
    for entry in content.get("topics_with_message_count") or ():
        promised[entry["topic_metadata"]["name"]] += int(entry["message_count"])
    return promised


def described(path: Path) -> BagFile:
    """What a storage file has and promises. Raises BagError where nothing can be read of it."""
    with unpacked(path) as plain:
        if plain.stat().st_size == 0:
            raise BagError(f"{path.name} is empty")
        contents = open_storage(plain).contents
    topics: Counter[TopicChoice] = Counter()
    for channel, messages in contents.counts.items():
        if channel.encoding in READ_ENCODINGS:
            topics[TopicChoice(channel.topic, channel.msgtype)] += messages
    if not topics.total() and contents.damage:
        raise BagError(f"{path.name} {contents.damage}, and no message can be found in it")
    return BagFile(path, contents, topics)


def open_storage(plain: Path) -> StorageFile:
    """The reader of an unpacked storage file. Raises BagError for a ROS 1 bag that cannot be read."""
    kinds = {".mcap": McapFile, ".db3": SqliteFile, ".bag": Ros1File}
    return kinds[plain.suffix](plain)


def rosbags_reader(plain: Path) -> Ros1Reader | Ros2Reader:
    """rosbags' reader of an unpacked storage file, which knows definitions and QoS; to be used as a context manager."""
    return Ros1Reader(plain) if plain.suffix == ".bag" else Ros2Reader(plain)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The file itself; of a .zstd file, its content in a temporary file; of a database, a copy with its journal in it.

    Raises BagError where that is impossible.
    """
    if path.suffix == ".db3" and journal_of(path) is not None:
        with with_journal(path, _LEAST_FREE_BYTES) as copy:
            yield copy
        return
    if path.suffix != _COMPRESSED_SUFFIX:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="anyseg_bag_") as folder:
        plain = Path(folder) / path.stem
        _unpack(path, plain)
        yield plain


def _unpack(path: Path, plain: Path) -> None:
    """Of a damaged file what is before the damage: a truncated bag, which is read as far as it goes."""
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
