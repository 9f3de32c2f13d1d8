"""A sqlite3 storage file: its rows in the order of their times, those of damaged files as far as they can be read.

The index over the times is a promise: the rows are counted without it, and the numbers of the rows, which a recorder
gives one after another, say how many there were.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_ros.bags.storage import NO_TIME_NS, BagError, Channel, Contents, StoredMessage, in_a_line, ros2_type

JOURNALS = ("-wal", "-journal")
"""Endings of the files in which SQLite keeps what is not in the database yet."""


def journal_of(path: Path) -> Path | None:
    """The journal beside a database that was not closed, None where there is none or it is empty."""
    journals = (path.with_name(path.name + ending) for ending in JOURNALS)
    return next((file for file in journals if file.is_file() and file.stat().st_size), None)


@contextmanager
def with_journal(path: Path, free_bytes: int) -> Iterator[Path]:
    """A copy of the database into which its journal has been written: the bag itself is never changed.

    Raises BagError where the copy does not fit beside `free_bytes`.
    """
    beside = [path, *(file for end in JOURNALS if (file := path.with_name(path.name + end)).is_file())]
    with tempfile.TemporaryDirectory(prefix="anyseg_bag_") as folder:
        if shutil.disk_usage(folder).free < free_bytes + sum(file.stat().st_size for file in beside):
            raise BagError(
                f"{path.name} has a journal and does not fit on the disk as a copy: set TMPDIR to a larger one"
            )
        for file in beside:
            shutil.copyfile(file, Path(folder) / file.name)
        copy = Path(folder) / path.name
        try:
            with closing(sqlite3.connect(copy)) as database:  # opening replays the journal, this keeps the result
                database.execute("PRAGMA journal_mode=DELETE").fetchall()
        except sqlite3.Error:  # the journal is damaged: what the database alone has is read
            pass
        yield copy


class SqliteFile:
    """The messages of a sqlite3 storage file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: Counter[str] = Counter()
        self._channels: dict[int, Channel] = {}
        self._has_index = True
        """Whether the rows can be had in the order of their times."""
        with closing(self._open()) as database:
            try:
                self._channels = _channels(database)
                self.contents = self._described(database)
            except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
                self._has_index = False
                self.contents = self._salvaged(database, f"is damaged ({in_a_line(error)})")

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage]:
        self.problems = Counter()
        wanted = {number: channel for number, channel in self._channels.items() if channel.topic in topics}
        delivered = 0
        with closing(self._open()) as database:
            if self._has_index:
                try:
                    for message in self._by_time(database, wanted):
                        yield message
                        delivered += 1
                    return
                except sqlite3.Error as error:
                    self.problems[f"is damaged after {delivered} messages ({in_a_line(error)})"] += 1
            yield from self._by_row(database, wanted, delivered)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(f"file:{self._path.absolute()}?immutable=1", uri=True)
        # SQLite refuses a file that is shorter than its header says, unless it is told that it may be damaged.
        database.execute("PRAGMA writable_schema=ON")
        return database

    # --- contents ----------------------------------------------------------------------------------------------------

    def _described(self, database: sqlite3.Connection) -> Contents:
        """Raises sqlite3.Error where the file is damaged."""
        rows = database.execute(
            "SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages NOT INDEXED GROUP BY 1"
        )
        found = {number: (count, first, last) for number, count, first, last in rows}
        if not all(isinstance(value, int) for times in found.values() for value in times):
            raise ValueError("a time in it is no number")
        total = sum(count for count, _, _ in found.values())
        (by_index,) = database.execute("SELECT count(*) FROM messages").fetchone()
        first_id, last_id = database.execute("SELECT min(id), max(id) FROM messages").fetchone()
        numbered = last_id - first_id + 1 if total else 0
        damage = ""
        if by_index != total:
            self._has_index = False
            damage = f"is damaged (its index has {by_index} rows, its table {total})"
        elif numbered > total:
            damage = f"has {total} of the {numbered} rows that were numbered"
        return self._contents(
            Counter({number: count for number, (count, _, _) in found.items()}),
            min((first for _, first, _ in found.values()), default=NO_TIME_NS),
            max((last for _, _, last in found.values()), default=-1),
            damage,
        )

    def _salvaged(self, database: sqlite3.Connection, damage: str) -> Contents:
        """Of a damaged file: what its rows give until they cannot be read."""
        rows = self._rows(database)
        counts = Counter(rows[:, 2].tolist())
        times = rows[:, 1]
        return self._contents(counts, int(times.min()) if len(rows) else NO_TIME_NS, int(times.max(initial=-1)), damage)

    def _contents(self, counts: Counter[int], start_ns: int, last_ns: int, damage: str) -> Contents:
        known = dict.fromkeys(self._channels.values(), 0)
        for number, channel in self._channels.items():
            known[channel] += counts[number]
        if (unknown := counts.total() - sum(known.values())) and not damage:
            damage = f"has {unknown} messages of topics that it does not name"
        return Contents(
            counts=known,
            promised={channel.topic: count for channel, count in known.items()},
            start_ns=start_ns,
            end_ns=last_ns + 1,
            damage=damage,
            is_lossy=bool(damage),
        )

    # --- messages ----------------------------------------------------------------------------------------------------

    def _by_time(self, database: sqlite3.Connection, wanted: dict[int, Channel]) -> Iterator[StoredMessage]:
        """Raises sqlite3.Error where the file turns out to be damaged."""
        which = f"topic_id IN ({_listed(wanted)})"
        rows = database.execute(f"SELECT topic_id, timestamp, data FROM messages WHERE {which} ORDER BY timestamp, id")
        for number, received_ns, data in rows:
            if not isinstance(received_ns, int):
                self.problems["rows whose time is no number"] += 1
                continue
            yield StoredMessage(wanted[number], received_ns, _bytes(data))

    def _by_row(self, database: sqlite3.Connection, wanted: dict[int, Channel], skip: int) -> Iterator[StoredMessage]:
        """Row by row, so that a damaged one costs no other; without the first `skip` ones."""
        rows = self._rows(database)
        rows = rows[np.isin(rows[:, 2], list(wanted))]
        for row, received_ns, number in rows[np.argsort(rows[:, 1], kind="stable")][skip:].tolist():
            try:
                (data,) = database.execute("SELECT data FROM messages WHERE id = ?", (row,)).fetchone()
            except (sqlite3.Error, TypeError) as error:  # TypeError: the row cannot be found again
                self.problems[f"rows that cannot be read ({in_a_line(error)})"] += 1
                continue
            yield StoredMessage(wanted[number], received_ns, _bytes(data))

    def _rows(self, database: sqlite3.Connection) -> NDArray[np.int64]:
        """[N, 3]: number, time and topic of each row that can be read."""
        found: list[tuple[int, int, int]] = []
        try:
            for row in database.execute("SELECT id, timestamp, topic_id FROM messages NOT INDEXED ORDER BY id"):
                if all(isinstance(value, int) for value in row):
                    found.append(row)
        except sqlite3.Error as error:
            self.problems[f"no more rows can be read ({error})"] += 1
        return np.array(found, np.int64).reshape(-1, 3)


def _channels(database: sqlite3.Connection) -> dict[int, Channel]:
    rows: Any = database.execute("SELECT id, name, type, serialization_format FROM topics")
    return {
        number: Channel(str(name), ros2_type(str(kind)), str(encoding))
        for number, name, kind, encoding in rows
        if isinstance(number, int)
    }


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)


def _bytes(data: Any) -> bytes:
    """The content of a cell, which a damaged file may have as text or number."""
    return data if isinstance(data, bytes) else str(data).encode()
