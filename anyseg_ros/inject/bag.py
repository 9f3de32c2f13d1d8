"""Bag to bag: the same recording with broken sensors. No ROS.

What no fault touches is written as the very bytes that were read. A delayed message gets the later record time.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosbags.interfaces import Qos
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import TypesysError, get_types_from_msg
from rosbags.typesys.store import Typestore

from anyseg_core.injection import InjectionSchedule, InjectionScheduleError, ScheduledInjection
from anyseg_core.runtime.sensors import Sensor
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_ros.bags.files import bag_files, unpacked
from anyseg_ros.bags.reader import BagError, BagReader
from anyseg_ros.bags.topics import TopicChoice, find_topics
from anyseg_ros.inject.messages import MessageInjector, SensorMessage, sensor_types

STORAGES: Mapping[str, StoragePlugin] = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_NO_HASH = "RIHS01_" + 64 * "0"
"""Of a type whose definition nobody has: players then go by its name."""
_BAG_VERSION = 9


@dataclass
class BagReport:
    """What was done to a bag."""

    topics: Mapping[Sensor, TopicChoice]
    """The sensors that the scenario breaks."""
    hits: list[tuple[ScheduledInjection, int]] = field(default_factory=list)
    """Every fault that was played, and the messages that it changed, lost or delayed."""
    read: Counter[str] = field(default_factory=Counter)
    """Messages by topic, of every topic."""
    written: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    """Messages that a fault would have changed, but that could not be decoded, by reason: they are as they were."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with the bag that was read."""


@dataclass
class _Definition:
    """What a bag says of a topic beside its name and type."""

    text: str = ""
    digest: str = ""
    qos: list[Qos] = field(default_factory=list)


def inject_bag(
    source: Path,
    target: Path,
    schedule: InjectionSchedule,
    mapping: Mapping[str, str] | None = None,
    *,
    storage: str = "mcap",
    progress: Callable[[int, int], None] | None = None,
) -> BagReport:
    """Write the bag `source` to the new folder `target` with the faults of `schedule`.

    Times of the schedule count from the first message. Args:
        mapping: role to topic (`bags.topics.parse_mapping`) where types and names leave a choice.
        storage: a key of `STORAGES`.
        progress: called with the number of messages read, and that of all.

    Raises BagError for a bag that cannot be read, TopicError or InjectionScheduleError for topics that are absent,
    ambiguous or of a type that cannot break like that, FileExistsError for a target that exists. No target is left
    behind then.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already: a bag is written to a new folder")
    reader = BagReader(source)
    definitions = _definitions(source)
    sensors = _sensors(source, reader, schedule, mapping or {})
    store = _typestore(definitions)
    injector = MessageInjector(schedule, {m: choice.msgtype for m, choice in sensors.items()}, store)
    report = BagReport(sensors)
    try:
        with Writer(target, version=_BAG_VERSION, storage_plugin=STORAGES[storage]) as writer:
            copy = _Copy(writer, reader, injector, definitions, store, report)
            copy.run(progress or (lambda _done, _total: None))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    report.hits = [(e, n) for e, n in zip(schedule.injections, injector.hits(), strict=True) if e.modality in sensors]
    report.unreadable = injector.unreadable
    report.problems = [problem.text for problem in reader.problems]
    return report


def _sensors(
    source: Path, reader: BagReader, schedule: InjectionSchedule, mapping: Mapping[str, str]
) -> dict[Sensor, TopicChoice]:
    """The topics of the sensors that break."""
    connections = [(topic.topic, topic.msgtype) for topic in reader.topics]
    sensors = find_topics(connections, mapping, schedule.modalities)
    for modality in schedule.required:
        if modality not in sensors:
            listed = ", ".join(sorted(f"{topic} ({msgtype})" for topic, msgtype in connections)) or "none"
            raise InjectionScheduleError(
                f"the scenario breaks {modality}, and {source} has no such topic. Name it with "
                f"--map {modality}:=TOPIC, or take it out of the scenario. Topics there: {listed}"
            )
    return sensors


class _Copy:
    """One pass over the bag."""

    def __init__(
        self,
        writer: Writer,
        reader: BagReader,
        injector: MessageInjector,
        definitions: Mapping[TopicChoice, _Definition],
        store: Typestore,
        report: BagReport,
    ) -> None:
        self._writer, self._reader, self._injector, self._report = writer, reader, injector, report
        self._modality_of = {choice: modality for modality, choice in report.topics.items()}
        self._connections = {
            topic: _add_connection(writer, topic, definitions.get(topic, _Definition()), store)
            for topic in reader.topics
        }

    def run(self, progress: Callable[[int, int], None]) -> None:
        topics = [topic.topic for topic in self._reader.topics]
        total = self._reader.count(topics)
        for done, message in enumerate(self._reader.messages(topics), 1):
            self._report.read[message.topic] += 1
            self._copy(TopicChoice(message.topic, message.msgtype), message.received_ns, message.cdr)
            progress(done, total)
        self._write_arrived(math.inf)

    def _copy(self, topic: TopicChoice, received_ns: int, cdr: bytes | memoryview) -> None:
        elapsed_ns = received_ns - self._reader.start_ns
        modality = self._modality_of.get(topic)
        if modality is not None:
            self._injector.send(SensorMessage(modality, topic.msgtype, cdr, topic), elapsed_ns / NS_PER_S)
        self._write_arrived(elapsed_ns / NS_PER_S)
        if modality is None:
            self._write(topic, received_ns, cdr)

    def _write_arrived(self, until_s: float) -> None:
        for arrival in self._injector.arrivals(until_s):
            arrived_ns = self._reader.start_ns + round(arrival.elapsed_s * NS_PER_S)
            self._write(arrival.item.origin, arrived_ns, arrival.item.cdr)

    def _write(self, topic: TopicChoice, time_ns: int, cdr: bytes | memoryview) -> None:
        self._writer.write(self._connections[topic], time_ns, cdr)
        self._report.written[topic.topic] += 1


def _add_connection(writer: Writer, topic: TopicChoice, definition: _Definition, store: Typestore) -> Any:
    """The topic as the bag has it; a definition that the bag does not have comes from `sensor_types`."""
    is_known = topic.msgtype in store.fielddefs
    if not definition.text and is_known:
        return writer.add_connection(topic.topic, topic.msgtype, typestore=store, offered_qos_profiles=definition.qos)
    return writer.add_connection(
        topic.topic,
        topic.msgtype,
        msgdef=definition.text,
        rihs01=definition.digest or (store.hash_rihs01(topic.msgtype) if is_known else _NO_HASH),
        offered_qos_profiles=definition.qos,
    )


def _definitions(source: Path) -> dict[TopicChoice, _Definition]:
    """What a ROS 2 bag says of its topics; a damaged one says less."""
    definitions: dict[TopicChoice, _Definition] = {}
    if source.is_dir():
        _collect(source, definitions)  # a folder's metadata.yaml says more than the files
    listing = bag_files(source)
    for path in [*listing.files, *listing.unlisted]:
        _collect(path, definitions)
    return definitions


def _collect(path: Path, definitions: dict[TopicChoice, _Definition]) -> None:
    try:
        with unpacked(path) as plain, Reader(plain) as reader:
            for connection in reader.connections:
                known = definitions.setdefault(TopicChoice(connection.topic, connection.msgtype), _Definition())
                known.text = known.text or connection.msgdef.data
                known.digest = known.digest or connection.digest
                profiles: list[Qos] = getattr(connection.ext, "offered_qos_profiles", [])
                known.qos += [profile for profile in profiles if profile not in known.qos]
    except Exception:  # a parser meets damaged bytes with any exception; BagReader reports what is wrong
        return


def _typestore(definitions: Mapping[TopicChoice, _Definition]) -> Typestore:
    """The types of every sensor, and those that only the bag knows."""
    store = sensor_types()
    for topic, definition in definitions.items():
        if topic.msgtype in store.fielddefs or not definition.text or definition.text.startswith("====="):
            continue  # an IDL text: such a type can be copied, not changed
        try:
            types = get_types_from_msg(definition.text, topic.msgtype)
            store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})
        except TypesysError:  # a definition nobody can read: the same
            continue
    return store


__all__ = ["STORAGES", "BagError", "BagReport", "inject_bag"]
