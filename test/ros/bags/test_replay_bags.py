"""Reading bags: every storage gives the same messages; damaged ones give an error, or what is left and a count."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fuzz.damaged_bags import fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap_bytes import CHANNEL, MESSAGE, SCHEMA, STATISTICS, McapForm, record, record_starts, write_mcap
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

from anyseg_ros.bags.mcap_file import McapFile
from anyseg_ros.bags.reader import BagError, BagMessage, BagReader
from anyseg_ros.bags.sqlite_file import SqliteFile
from anyseg_ros.bags.storage import zstd

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


def test_a_file_that_metadata_lists_twice_is_read_once(tmp_path: Path, expected: list[tuple[str, int, bytes]]) -> None:
    bag = write_ros2(tmp_path / "bag", drive(FRAMES))
    about = yaml.safe_load((bag / "metadata.yaml").read_text())
    about["rosbag2_bagfile_information"]["relative_file_paths"] *= 2
    (bag / "metadata.yaml").write_text(yaml.safe_dump(about))
    messages, reader = read(bag)
    assert contents(messages) == expected
    assert [p.text for p in reader.problems] == ["bag.mcap is read once: metadata.yaml lists it more often"]


def test_a_missing_file_of_a_split_bag_is_a_loss(tmp_path: Path) -> None:
    bag = split_bag(tmp_path / "bag")
    names = ["bag_2.mcap", "bag_10.mcap"]
    about = {"relative_file_paths": names, "storage_identifier": "mcap"}
    (bag / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": about}))
    (bag / "bag_10.mcap").unlink()
    messages, reader = read(bag)
    assert 0 < len(messages) < len(ALL) * FRAMES
    assert [(p.text, p.lost) for p in reader.problems] == [("bag_10.mcap belongs to the bag and is not there", True)]


# --- what is promised and what is delivered --------------------------------------------------------------------------


FORMS: dict[str, tuple[McapForm, str]] = {
    "complete": (McapForm(), ""),
    "no profile": (McapForm(profile=""), ""),
    "type names of ROS 1": (McapForm(ros1_names=True), ""),
    "messages of ROS 1": (McapForm(profile="ros1", encoding="ros1", ros1_names=True), ""),
    "no chunks": (McapForm(is_chunked=False, has_chunk_index=False), ""),
    "no chunks, no statistics": (McapForm(is_chunked=False, has_chunk_index=False, has_statistics=False), ""),
    "no chunk index": (McapForm(has_chunk_index=False), ""),
    "no message index": (McapForm(has_message_index=False), "chunks have no message index: they were searched"),
    "no message index, no statistics": (
        McapForm(has_message_index=False, has_statistics=False),
        "have no message index",
    ),
    "messages outside of chunks": (McapForm(unchunked_tail=13), "13 messages are outside of the chunks"),
    "types and topics only in the chunks": (McapForm(repeats_topics=False, repeats_schemas=False), ""),
    "types only in the chunks": (McapForm(repeats_schemas=False), ""),
    "topics only in the chunks, no statistics": (McapForm(repeats_topics=False, has_statistics=False), ""),
    "records with something at their end": (McapForm(padding=b"\1\2\3"), ""),
    "outside, no statistics": (McapForm(unchunked_tail=13, has_statistics=False), "13 messages are outside"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_mcap_gives_all_messages(
    tmp_path: Path, name: str, expected: list[tuple[str, int, bytes]]
) -> None:
    form, said = FORMS[name]
    messages, reader = read(write_mcap(tmp_path / "a.mcap", drive(FRAMES), form))
    assert contents(messages) == expected
    assert {topic.msgtype for topic in reader.topics} == {m.msgtype for m in drive(FRAMES)}
    assert [m.received_ns for m in messages] == sorted(m.received_ns for m in messages)
    assert reader.count(ALL) == len(expected)
    assert (reader.start_ns, reader.end_ns - 1) == (START_NS, START_NS + (FRAMES - 1) * PERIOD_NS)
    assert [said in problem.text and not problem.lost for problem in reader.problems] == ([True] if said else [])


def test_statistics_that_promise_more_than_is_there(tmp_path: Path) -> None:
    form = McapForm(promised={CAMERA: FRAMES + 7})
    _, reader = read(write_mcap(tmp_path / "a.mcap", drive(FRAMES), form))
    (problem,) = reader.problems
    assert problem.lost
    assert f"61 of 68 messages are in a.mcap of those that its statistics promise: {CAMERA} 10 of 17" == problem.text


@pytest.mark.parametrize("form", [McapForm(is_chunked=False), McapForm(has_checksums=False)], ids=["bare", "chunks"])
@pytest.mark.parametrize("kind", [SCHEMA, CHANNEL, MESSAGE], ids=["schema", "channel", "message"])
def test_a_record_that_became_another_one_is_said(tmp_path: Path, form: McapForm, kind: int) -> None:
    """Without checksum and count only the record itself can show it, and whether it is where it may be."""
    path = write_mcap(tmp_path / "a.mcap", drive(2, {LABELS, LIDAR}), replace(form, has_statistics=False))
    expected, whole = contents(read(path)[0]), path.read_bytes()
    start = record_starts(whole, kind)[1]
    for opcode in {*range(0x12), *(kind ^ 1 << bit for bit in range(8))} - {kind}:
        damaged = whole[:start] + bytes([opcode]) + whole[start + 1 :]
        messages, reader, _ = read_or_error(_touched(tmp_path / "a.mcap", damaged))
        is_said = reader is None or any(problem.lost for problem in reader.problems)
        assert is_said or set(expected) <= set(contents(messages)), f"0x{opcode:02x}"


def test_a_damaged_summary_is_said(tmp_path: Path) -> None:
    """What it has promised can no longer be compared with what is there."""
    whole = write_mcap(tmp_path / "a.mcap", drive(2), McapForm(is_chunked=False)).read_bytes()
    (start,) = record_starts(whole, STATISTICS)
    messages, reader = read(_touched(tmp_path / "a.mcap", whole[: start + 4] + b"\1" + whole[start + 5 :]))
    assert len(messages) == 2 * len(ALL)
    assert "is damaged in its summary (a record is cut off): what it promises is not known" in reader.problems[0].text


@pytest.mark.parametrize("has_statistics", [True, False])
def test_records_of_other_programs_are_no_damage_where_the_messages_are_counted(
    tmp_path: Path, has_statistics: bool
) -> None:
    form = McapForm(is_chunked=False, has_statistics=has_statistics, foreign=record(0x90, b"anything"))
    messages, reader = read(write_mcap(tmp_path / "a.mcap", drive(2), form))
    assert len(messages) == 2 * len(ALL)
    assert [problem.lost for problem in reader.problems] == ([] if has_statistics else [True])


def test_an_encoding_that_is_not_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"61 messages are encoded as 'json', which is not read"):
        read(write_mcap(tmp_path / "a.mcap", drive(FRAMES), McapForm(encoding="json")))


def test_channels_without_a_schema_are_named(tmp_path: Path) -> None:
    reader = BagReader(write_mcap(tmp_path / "a.mcap", drive(FRAMES), McapForm(has_schemas=False)))
    assert {topic.msgtype for topic in reader.topics} == {"unknown type (no schema)"}


def three_splits(folder: Path, listed: int) -> Path:
    """A bag of three files, of which metadata.yaml lists so many."""
    folder.mkdir()
    written = list(drive(2 * FRAMES, ALL))
    for number in range(3):
        write_mcap(folder / f"bag_{number}.mcap", written[number * 33 : (number + 1) * 33])
    frames = sum(w.topic == CAMERA for w in written[: 33 * listed])
    counts = [{"topic_metadata": {"name": CAMERA}, "message_count": frames}]
    names = [f"bag_{number}.mcap" for number in range(listed)]
    about = {"relative_file_paths": names, "storage_identifier": "mcap", "topics_with_message_count": counts}
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": about}))
    return folder


def test_a_split_that_metadata_does_not_list_is_read_and_said(tmp_path: Path) -> None:
    messages, reader = read(three_splits(tmp_path / "bag", 2))
    assert len(messages) == 99
    assert [(p.text, p.lost) for p in reader.problems] == [
        ("bag_2.mcap is not listed in metadata.yaml, and is read as well", False)
    ]


def test_a_copy_that_metadata_does_not_list_is_not_read_twice(tmp_path: Path) -> None:
    bag = three_splits(tmp_path / "bag", 3)
    shutil.copy(bag / "bag_1.mcap", bag / "bag_1_copy.mcap")
    messages, reader = read(bag)
    assert len(messages) == 99
    assert [p.text for p in reader.problems] == [
        "bag_1_copy.mcap is left out: metadata.yaml does not list it, and its times are those of others"
    ]


def test_a_file_that_was_unpacked_beside_its_original_is_read_once(tmp_path: Path) -> None:
    bag = write_ros2(tmp_path / "bag", drive(FRAMES), "mcap", CompressionMode.FILE)
    packed = storage_file(bag)
    packed.with_suffix("").write_bytes(zstd.decompress(packed.read_bytes()))
    for _ in ("with metadata.yaml", "without"):
        messages, reader = read(bag)
        assert len(messages) == len(ALL) * FRAMES
        assert [p.text for p in reader.problems] == [f"{packed.name} is left out: it is there unpacked as well"]
        (bag / "metadata.yaml").unlink(missing_ok=True)


def test_messages_that_metadata_promises_and_the_files_have_not(tmp_path: Path) -> None:
    bag = three_splits(tmp_path / "bag", 3)
    (bag / "metadata.yaml").write_text(
        (bag / "metadata.yaml").read_text().replace("message_count: 20", "message_count: 30")
    )
    _, reader = read(bag)
    (problem,) = reader.problems
    assert problem.lost
    assert problem.text == f"20 of 30 messages are there of what metadata.yaml promises: {CAMERA} 20 of 30"


def test_split_files_that_overlap_are_merged_by_time(tmp_path: Path) -> None:
    folder = tmp_path / "bag"
    folder.mkdir()
    written = list(drive(FRAMES, ALL))
    write_mcap(
        folder / "bag_0.mcap", [w for w in written if w.topic != CAMERA and w.received_ns < START_NS + 6 * PERIOD_NS]
    )
    late = [w for w in written if w.topic == CAMERA or w.received_ns >= START_NS + 6 * PERIOD_NS]
    write_mcap(folder / "bag_1.mcap", [w for w in late if w.received_ns >= START_NS + 2 * PERIOD_NS])
    messages, reader = read(folder)
    assert len(messages) == len(written) - 2
    assert [m.received_ns for m in messages] == sorted(m.received_ns for m in messages)
    (problem,) = reader.problems
    assert problem.text == "bag_0.mcap and bag_1.mcap overlap by 0.3 s: their messages are merged by time"


@pytest.mark.parametrize("checkpointed", [0, 30])
def test_a_database_is_read_with_its_journal(tmp_path: Path, sqlite: Path, checkpointed: int) -> None:
    """As a killed recorder leaves it: rows in the database, the newest ones in the journal beside it."""
    bag = shutil.copytree(sqlite, tmp_path / "bag")
    original = storage_file(bag)
    with closing(sqlite3.connect(original)) as source:
        tables = [
            sql
            for (sql,) in source.execute(
                "SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql NOT NULL"
            )
        ]
        topics = source.execute("SELECT * FROM topics").fetchall()
        rows = source.execute("SELECT * FROM messages ORDER BY id").fetchall()
    live = tmp_path / "live.db3"
    with closing(sqlite3.connect(live)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA wal_autocheckpoint=0")
        for sql in tables:
            database.execute(sql)
        database.executemany(f"INSERT INTO topics VALUES ({','.join('?' * len(topics[0]))})", topics)
        for start, end in ((0, checkpointed), (checkpointed, len(rows))):
            database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows[start:end])
            database.commit()
            if end == checkpointed:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for ending in ("", "-wal"):
            shutil.copyfile(f"{live}{ending}", f"{original}{ending}")
    before = {file.name: file.read_bytes() for file in bag.iterdir()}
    messages, reader = read(bag)
    assert len(messages) == len(ALL) * FRAMES
    assert [p.text for p in reader.problems] == [
        f"{original.name} was not closed by its recorder: {original.name}-wal beside it is read as well"
    ]
    assert {file.name: file.read_bytes() for file in bag.iterdir()} == before  # a bag is never changed


def test_rows_that_are_missing_from_a_database_are_said(tmp_path: Path, sqlite: Path) -> None:
    bag = shutil.copytree(sqlite, tmp_path / "bag")
    with closing(sqlite3.connect(storage_file(bag))) as database:
        database.execute("DELETE FROM messages WHERE id % 10 = 5")
        database.commit()
    (bag / "metadata.yaml").unlink()
    messages, reader = read(bag)
    assert len(messages) < len(ALL) * FRAMES
    assert any("rows that were numbered" in problem.text and problem.lost for problem in reader.problems)


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
    assert len(messages) == reader.count(ALL)
    assert f"{sum(reader.topics.values())} messages" in "".join(p.text for p in reader.problems)


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_truncated_file_is_told_once_whichever_topics_are_read(tmp_path: Path, mcap: Path, share: float) -> None:
    reader = BagReader(damaged(tmp_path, mcap, lambda data: data[: int(share * len(data))]))
    every = {choice.topic for choice in reader.topics}
    for topics in ({CAMERA}, {CAMERA, DEPTH}, ALL, every):
        found = len(list(reader.messages(topics)))
    (problem,) = reader.problems
    assert f"{found} messages found" in problem.text


def test_what_is_missing_of_a_file_is_told_once_for_all_topics_that_were_read(tmp_path: Path, mcap: Path) -> None:
    def corrupt(content: bytearray) -> bytearray:
        start = chunk_starts(bytes(content))[0] + 9 + 44
        content[start : start + 64] = bytes(64)
        return content

    bag = write_ros2(tmp_path / "bag", drive(60), "mcap", CompressionMode.STORAGE)
    reader = BagReader(damaged(tmp_path, bag, corrupt))
    for topics in ({CAMERA}, {DEPTH}, {CAMERA, DEPTH}, ALL):
        list(reader.messages(topics))
    damage, shortage = (problem.text for problem in reader.problems)
    assert damage == "damaged.mcap: 1 x damaged chunks (ZstdError)"
    assert " of 300 messages could be read of damaged.mcap" in shortage


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


def test_a_clock_that_was_set_back_loses_nothing_and_times_are_in_order(tmp_path: Path) -> None:
    written = list(drive(30, {CAMERA}))
    bag = write_ros2(tmp_path / "bag", [*written[10:], *written[:10]])
    messages, reader = read(damaged(tmp_path, bag, without_index))
    assert [m.received_ns for m in messages] == [w.received_ns for w in written]
    assert not any(problem.lost for problem in reader.problems)


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
    if place == "index":
        assert contents(messages) == contents(read(mcap)[0])  # the index is not believed
    elif reader is None:
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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400))
def test_a_file_of_any_bytes_is_survived(content: bytes, tmp_path: Path) -> None:
    for file in (
        McapFile(_touched(tmp_path / "a.mcap", MCAP_MAGIC + content)),
        SqliteFile(_touched(tmp_path / "a.db3", content)),
    ):
        assert not file.contents.counts
        assert list(file.messages(ALL)) == []


def test_damaged_bags_are_refused_or_what_is_missing_is_said(tmp_path: Path) -> None:
    """Of every storage; `python test/fuzz/damaged_bags.py` does this a hundred thousand times."""
    outcomes, failures = fuzz(250, 4, tmp_path)
    assert not failures
    assert {outcome.split()[-1] for outcome in outcomes} == {"refused", "complete", "said"}


def test_lidar_is_read_as_it_was_written(mcap: Path) -> None:
    messages, _ = read(mcap, {LIDAR})
    assert len({bytes(m.cdr) for m in messages}) == FRAMES


def test_a_truncated_compressed_file_gives_what_is_before_the_end(tmp_path: Path) -> None:
    file = storage_file(write_ros2(tmp_path / "bag", drive(60), "mcap", CompressionMode.FILE))
    cut = _touched(tmp_path / "cut.mcap.zstd", file.read_bytes()[: file.stat().st_size // 2])
    messages, reader = read(cut)
    assert 0 < len(messages) < len(ALL) * 60
    assert any("truncated" in problem.text and problem.lost for problem in reader.problems)
