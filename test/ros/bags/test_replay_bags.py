"""Reading bags: every storage gives the same messages; damaged ones give an error, or what is left and a count."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import CompressionMode
from small_bags import (
    CAMERA,
    DEPTH,
    LABELS,
    LIDAR,
    PERIOD_NS,
    SENSORS,
    START_NS,
    drive,
    storage_file,
    write_ros1,
    write_ros2,
)

from anyseg_ros.bags.damaged import McapScan, SqliteScan
from anyseg_ros.bags.reader import BagError, BagMessage, BagReader

FRAMES = 10
ALL = {*SENSORS, LABELS}
MCAP_MAGIC = b"\x89MCAP0\r\n"


def read(path: Path, topics: set[str] = ALL) -> tuple[list[BagMessage], BagReader]:
    reader = BagReader(path)
    return list(reader.messages(topics)), reader


def read_or_error(path: Path) -> tuple[list[BagMessage], BagReader | None, str]:
    """What is left of a damaged bag, or why nothing is."""
    try:
        return *read(path), ""
    except BagError as error:
        return [], None, str(error)


@pytest.fixture(scope="module")
def mcap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ros2(tmp_path_factory.mktemp("mcap") / "bag", drive(FRAMES))


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ros2(tmp_path_factory.mktemp("sqlite") / "bag", drive(FRAMES), "sqlite3")


@pytest.fixture(scope="module")
def expected(mcap: Path) -> list[tuple[str, int, bytes]]:
    """Topic, time and bytes of every message of the drive."""
    messages, reader = read(mcap)
    assert len(messages) == len(ALL) * FRAMES
    assert not reader.problems
    return sorted((m.topic, m.received_ns, bytes(m.cdr)) for m in messages)


def contents(messages: list[BagMessage]) -> list[tuple[str, int, bytes]]:
    return sorted((m.topic, m.received_ns, bytes(m.cdr)) for m in messages)


def split_bag(folder: Path) -> Path:
    """Two files of a folder, named so that their alphabetical order is the wrong one."""
    written = list(drive(FRAMES))
    folder.mkdir()
    for name, part in (("bag_10", written[30:]), ("bag_2", written[:30])):
        shutil.move(storage_file(write_ros2(folder / name, part)), folder / f"{name}.mcap")
        shutil.rmtree(folder / name)
    return folder


STORAGES: dict[str, Callable[[Path], Path]] = {
    "sqlite3": lambda t: write_ros2(t / "bag", drive(FRAMES), "sqlite3"),
    "mcap, chunks compressed": lambda t: write_ros2(t / "bag", drive(FRAMES), "mcap", CompressionMode.STORAGE),
    "mcap, file compressed": lambda t: write_ros2(t / "bag", drive(FRAMES), "mcap", CompressionMode.FILE),
    "mcap, messages compressed": lambda t: write_ros2(t / "bag", drive(FRAMES), "mcap", CompressionMode.MESSAGE),
    "sqlite3, file compressed": lambda t: write_ros2(t / "bag", drive(FRAMES), "sqlite3", CompressionMode.FILE),
    "sqlite3, messages compressed": lambda t: write_ros2(t / "bag", drive(FRAMES), "sqlite3", CompressionMode.MESSAGE),
    "bare mcap": lambda t: storage_file(write_ros2(t / "bag", drive(FRAMES))),
    "bare db3": lambda t: storage_file(write_ros2(t / "bag", drive(FRAMES), "sqlite3")),
    "bare compressed": lambda t: storage_file(write_ros2(t / "bag", drive(FRAMES), "mcap", CompressionMode.FILE)),
    "bare, messages compressed": lambda t: storage_file(
        write_ros2(t / "bag", drive(FRAMES), "mcap", CompressionMode.MESSAGE)
    ),
    "split": lambda t: split_bag(t / "split"),
    "ROS 1": lambda t: write_ros1(t / "drive.bag", drive(FRAMES, ALL)),
}


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_gives_the_same_messages(
    tmp_path: Path, storage: str, expected: list[tuple[str, int, bytes]]
) -> None:
    messages, reader = read(STORAGES[storage](tmp_path))
    assert contents(messages) == expected
    assert [m.received_ns for m in messages] == sorted(m.received_ns for m in messages)
    assert not reader.problems
    assert reader.count(ALL) == len(expected)
    assert (reader.start_ns, reader.end_ns - 1) == (START_NS, START_NS + (FRAMES - 1) * PERIOD_NS)


def test_only_the_topics_that_are_asked_for(mcap: Path) -> None:
    messages, reader = read(mcap, {CAMERA})
    assert {m.topic for m in messages} == {CAMERA}
    assert len(messages) == reader.count({CAMERA}) == FRAMES
    assert len(list(reader.messages({DEPTH}))) == FRAMES  # a reader can be used again


# --- no bag ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "nowhere", "no bag at"),
        (lambda p: p, "no .mcap, .db3 or .bag file"),
        (lambda p: _touched(p / "a.txt"), "is no bag"),
        (lambda p: _touched(p / "a.mcap"), "a.mcap is empty"),
        (lambda p: _touched(p / "a.db3"), "a.db3 is empty"),
        (lambda p: _touched(p / "a.bag"), "a.bag is empty"),
        (lambda p: _touched(p / "a.mcap", b"nonsense" * 100), "does not begin as an mcap file"),
        (lambda p: _touched(p / "a.db3", b"nonsense" * 100), "file is not a database"),
        (lambda p: _touched(p / "a.bag", b"nonsense" * 100), "rosbag reindex"),
        (lambda p: _touched(p / "a.mcap.zstd", b"nonsense" * 100), "cannot be unpacked"),
        (lambda p: _touched(p / "a.mcap", MCAP_MAGIC), "is truncated"),
    ],
)
def test_where_there_is_no_bag_the_error_says_so(tmp_path: Path, make: Callable[[Path], Path], says: str) -> None:
    with pytest.raises(BagError, match=says):
        BagReader(make(tmp_path))


def _touched(path: Path, content: bytes = b"") -> Path:
    path.write_bytes(content)
    return path


# --- metadata.yaml ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "rosbag2_bagfile_information: {}",
        "{{{",
        "rosbag2_bagfile_information:\n  relative_file_paths: 7",
        None,
    ],
)
def test_a_broken_metadata_file_is_told_and_does_without(
    tmp_path: Path, mcap: Path, content: str | None, expected: list[tuple[str, int, bytes]]
) -> None:
    bag = shutil.copytree(mcap, tmp_path / "bag")
    if content is None:  # as one of the recorded bags has it
        metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
        metadata["rosbag2_bagfile_information"] |= {"storage_identifier": "", "files": []}
        content = yaml.safe_dump(metadata)
    (bag / "metadata.yaml").write_text(content)
    messages, reader = read(bag)
    assert contents(messages) == expected
    (problem,) = reader.problems
    assert "metadata.yaml is broken" in problem.text
    assert not problem.lost


def test_a_missing_file_of_a_split_bag_is_a_loss(tmp_path: Path) -> None:
    bag = split_bag(tmp_path / "bag")
    names = ["bag_2.mcap", "bag_10.mcap"]
    about = {"relative_file_paths": names, "storage_identifier": "mcap"}
    (bag / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": about}))
    (bag / "bag_10.mcap").unlink()
    messages, reader = read(bag)
    assert 0 < len(messages) < len(ALL) * FRAMES
    assert [(p.text, p.lost) for p in reader.problems] == [("bag_10.mcap belongs to the bag and is not there", True)]


# --- damage ----------------------------------------------------------------------------------------------------------


def damaged(tmp_path: Path, bag: Path, change: Callable[[bytearray], bytes | bytearray]) -> Path:
    file = storage_file(bag)
    return _touched(tmp_path / f"damaged{file.suffix}", bytes(change(bytearray(file.read_bytes()))))


@pytest.mark.parametrize("share", [0.5, 0.7, 0.99])
@pytest.mark.parametrize("storage", ["mcap", "mcap, chunks compressed", "sqlite3"])
def test_a_truncated_file_gives_what_is_before_the_end(
    tmp_path: Path, storage: str, share: float, expected: list[tuple[str, int, bytes]], mcap: Path
) -> None:
    bag = mcap if storage == "mcap" else STORAGES[storage](tmp_path)
    path = damaged(tmp_path, bag, lambda data: data[: int(share * len(data))])
    messages, reader, error = read_or_error(path)
    assert reader is not None, error
    assert any(problem.lost for problem in reader.problems)
    assert set(contents(messages)) <= set(expected)
    assert messages
    assert f"{len(messages)} messages" in "".join(p.text for p in reader.problems)


def without_index(data: bytearray) -> bytearray:
    """The footer says that there is no summary."""
    data[-28:-20] = bytes(8)
    return data


def test_an_unindexed_file_loses_nothing(tmp_path: Path, mcap: Path, expected: list[tuple[str, int, bytes]]) -> None:
    messages, reader = read(damaged(tmp_path, mcap, without_index))
    assert contents(messages) == expected
    (problem,) = reader.problems
    assert "has no index" in problem.text
    assert not problem.lost


def test_a_file_that_was_written_out_of_order(tmp_path: Path) -> None:
    written = list(drive(FRAMES, {CAMERA}))
    shuffled = [written[i] for i in (3, 0, 2, 1, *range(4, FRAMES))]
    for name, change in (("indexed", lambda data: data), ("unindexed", without_index)):
        folder = tmp_path / name
        folder.mkdir()
        messages, _ = read(damaged(folder, write_ros2(folder / "bag", shuffled), change))
        assert [m.received_ns for m in messages] == [START_NS + i * PERIOD_NS for i in range(FRAMES)]


def test_a_clock_that_was_set_back_is_counted_and_nothing_lost(tmp_path: Path) -> None:
    written = list(drive(30, {CAMERA}))
    bag = write_ros2(tmp_path / "bag", [*written[10:], *written[:10]])
    messages, reader = read(damaged(tmp_path, bag, without_index))
    assert len(messages) == 30
    assert [m.received_ns for m in messages[:20]] == [w.received_ns for w in written[10:]]
    assert "more than a second too late" in reader.problems[0].text


@pytest.mark.parametrize("which", [0, 1])
def test_a_corrupt_chunk_costs_no_other(tmp_path: Path, which: int) -> None:
    frames = 60  # chunks are a megabyte, a frame of all sensors is 40 kB
    bag = write_ros2(tmp_path / "bag", drive(frames), "mcap", CompressionMode.STORAGE)
    chunks = chunk_starts(storage_file(bag).read_bytes())
    assert len(chunks) >= 3

    def corrupt(content: bytearray) -> bytearray:
        start = chunks[which] + 9 + 44  # the first bytes of what is compressed
        content[start : start + 64] = bytes(64)
        return content

    messages, reader = read(damaged(tmp_path, bag, corrupt))
    assert len(messages) > len(ALL) * frames / 3
    assert any("damaged chunk" in p.text and p.lost for p in reader.problems)
    assert messages[-1].received_ns == START_NS + (frames - 1) * PERIOD_NS  # the chunks behind it are read


def chunk_starts(data: bytes) -> list[int]:
    starts, at = [], len(MCAP_MAGIC)
    while at < len(data) - len(MCAP_MAGIC):
        opcode, length = struct.unpack_from("<BQ", data, at)
        starts += [at] if opcode == 0x06 else []
        at += 9 + length
    return starts


HUNDRED_GB = 100 * 10**9


@pytest.mark.parametrize("place", ["record", "compressed chunk", "index"])
def test_a_file_that_claims_a_hundred_gigabytes(tmp_path: Path, mcap: Path, place: str) -> None:
    bag = STORAGES["mcap, chunks compressed"](tmp_path) if place == "compressed chunk" else mcap

    def claim(data: bytearray) -> bytearray:
        chunk = chunk_starts(bytes(data))[0]
        # The record's length, the chunk's uncompressed size, or its compressed size as the index has it.
        at = {"record": chunk + 1, "compressed chunk": chunk + 9 + 16, "index": index_end(bytes(data)) - 16}[place]
        data[at : at + 8] = struct.pack("<Q", HUNDRED_GB)
        return data if place == "index" else data[:-10]  # without its end, the index is not believed

    messages, reader, error = read_or_error(damaged(tmp_path, bag, claim))
    if reader is None:
        assert "truncated" in error
    else:
        assert any(problem.lost for problem in reader.problems)
        assert len(messages) <= len(ALL) * FRAMES


def index_end(data: bytes) -> int:
    """Where the first chunk index record ends."""
    at = len(MCAP_MAGIC)
    while True:
        opcode, length = struct.unpack_from("<BQ", data, at)
        at += 9 + length
        if opcode == 0x08:
            return at


def test_a_sparse_file_of_a_hundred_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "huge.mcap"
    with path.open("wb") as file:
        file.write(MCAP_MAGIC)
        file.truncate(HUNDRED_GB)
    with pytest.raises(BagError, match="truncated"):
        BagReader(path)


def test_a_damaged_file_beside_a_good_one(tmp_path: Path) -> None:
    bag = split_bag(tmp_path / "bag")
    (bag / "bag_10.mcap").write_bytes(b"")
    messages, reader = read(bag)
    assert messages
    assert [p.text for p in reader.problems] == ["bag_10.mcap is empty"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("storage", ["mcap", "sqlite"])
def test_whatever_happens_to_its_bytes(
    storage: str, data: st.DataObject, tmp_path: Path, request: pytest.FixtureRequest, expected: list
) -> None:
    """Cut and changed bytes: an error that names the file, or messages, and what was lost is told."""
    file = storage_file(request.getfixturevalue(storage))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    path = _touched(tmp_path / f"any{file.suffix}", bytes(content))
    messages, reader, error = read_or_error(path)
    if reader is None:
        assert path.name in error
    elif len(messages) < len(expected) and {m.topic for m in messages} == ALL:
        assert any(problem.lost for problem in reader.problems)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400))
def test_a_scan_survives_any_bytes(content: bytes, tmp_path: Path) -> None:
    for scan in (
        McapScan(_touched(tmp_path / "a.mcap", MCAP_MAGIC + content)),
        SqliteScan(_touched(tmp_path / "a.db3", content)),
    ):
        assert list(scan.messages(None)) == []


def test_lidar_is_read_as_it_was_written(mcap: Path) -> None:
    messages, _ = read(mcap, {LIDAR})
    assert len({bytes(m.cdr) for m in messages}) == FRAMES


def test_a_truncated_compressed_file_gives_what_is_before_the_end(tmp_path: Path) -> None:
    file = storage_file(write_ros2(tmp_path / "bag", drive(60), "mcap", CompressionMode.FILE))
    cut = _touched(tmp_path / "cut.mcap.zstd", file.read_bytes()[: file.stat().st_size // 2])
    messages, reader = read(cut)
    assert 0 < len(messages) < len(ALL) * 60
    assert any("truncated" in problem.text and problem.lost for problem in reader.problems)
