"""`anyseg play`: timing of the clock without waiting for it, and a bag over real DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install anyseg_ros[ros], or source a ROS 2")

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_harness import SpunNodes
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from anyseg_ros.bags.reader import BagError
from anyseg_ros.replay.play import Player, PlayOptions, parse_remaps, publisher_qos
from anyseg_ros.replay.play_clock import PlayClock

MS = 1_000_000
START_NS = 1_700_000_000 * 10**9

# --- the clock, in a time of the test's own ---


class FakeTime:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.mark.parametrize("rate", [0.25, 1.0, 8.0])
def test_bag_time_passes_at_the_rate(rate: float) -> None:
    wall = FakeTime()
    clock = PlayClock(rate, monotonic_ns=wall)
    clock.start_at(START_NS)
    wall.now += 1000 * MS
    assert clock.now_ns() == START_NS + int(rate * 1000) * MS


def test_a_pause_stops_bag_time_and_a_loop_sets_it_back() -> None:
    wall = FakeTime()
    clock = PlayClock(2.0, monotonic_ns=wall)
    clock.start_at(0)
    wall.now += 10 * MS
    clock.set_paused(True)
    wall.now += 500 * MS
    assert clock.now_ns() == 20 * MS
    clock.set_paused(False)
    wall.now += 10 * MS
    assert clock.now_ns() == 40 * MS
    clock.start_at(0)
    assert clock.now_ns() == 0


def test_waiting_ends_at_the_time_at_the_limit_and_at_the_end() -> None:
    clock = PlayClock()
    clock.start_at(0)
    assert clock.wait_until(MS, 10.0)
    assert not clock.wait_until(3600 * 10**9, 0.01)
    clock.set_paused(True)
    assert not clock.wait_until(0, 0.01)
    threading.Timer(0.05, clock.stop).start()
    assert not clock.wait_until(0, 3600.0)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate must be"):
        PlayOptions(Path("bag"), rate=rate)


def test_remaps_are_parsed_or_refused() -> None:
    assert parse_remaps(["/a:=/b"]) == {"/a": "/b"}
    with pytest.raises(ValueError, match="/a=/b: it must be /recorded:=/published"):
        parse_remaps(["/a=/b"])


# --- QoS ---


def recorded_qos(reliability: QosReliability, durability: QosDurability, depth: int = 5) -> Qos:
    never = QosTime(0, 0)
    return Qos(
        QosHistory.KEEP_LAST, depth, reliability, durability, never, never, QosLiveliness.AUTOMATIC, never, False
    )


RELIABLE = recorded_qos(QosReliability.RELIABLE, QosDurability.VOLATILE, 50)
BEST_EFFORT = recorded_qos(QosReliability.BEST_EFFORT, QosDurability.VOLATILE)
LATCHED = recorded_qos(QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL)


@pytest.mark.parametrize(
    ("topic", "recorded", "reliable", "latched"),
    [
        ("/image", (), True, False),
        ("/tf_static", (), True, True),
        ("/image", (RELIABLE,), True, False),
        ("/image", (BEST_EFFORT,), False, False),
        ("/image", (RELIABLE, BEST_EFFORT), False, False),
        ("/map", (LATCHED,), True, True),
        ("/map", (LATCHED, RELIABLE), True, False),
    ],
)
def test_qos_is_that_of_the_recorded_publishers(
    topic: str, recorded: tuple[Qos, ...], reliable: bool, latched: bool
) -> None:
    qos = publisher_qos(topic, recorded)
    assert (qos.reliability is ReliabilityPolicy.RELIABLE) == reliable
    assert (qos.durability is DurabilityPolicy.TRANSIENT_LOCAL) == latched
    assert qos.depth == max([10, *(profile.depth for profile in recorded)])


# --- over DDS ---

NOWHERE = "nowhere_msgs/msg/Thing"
MESSAGES = 20
PERIOD_NS = 10 * MS


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Headers at 100 Hz on /header, an old clock, and a type that is installed nowhere."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg("uint8 value", NOWHERE))
    header, stamp = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    clock, thing = store.types["rosgraph_msgs/msg/Clock"], store.types[NOWHERE]
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        headers = writer.add_connection("/header", header.__msgtype__, typestore=store, offered_qos_profiles=[RELIABLE])
        clocks = writer.add_connection("/clock", clock.__msgtype__, typestore=store)
        unknown = writer.add_connection("/unknown", NOWHERE, typestore=store)
        for i in range(MESSAGES):
            t = START_NS + i * PERIOD_NS
            message = header(stamp(*divmod(t, 10**9)), f"frame {i}")
            writer.write(headers, t, store.serialize_cdr(message, header.__msgtype__))
            writer.write(clocks, t, store.serialize_cdr(clock(stamp(7, 7)), clock.__msgtype__))
            writer.write(unknown, t, store.serialize_cdr(thing(7), NOWHERE))
    return tmp_path / "bag"


class Audience(SpunNodes):
    """A player and a listener in one executor."""

    def __init__(self, options: PlayOptions, topic: str = "/header") -> None:
        self.player = Player(options)
        self.node = rclpy.create_node("audience")
        self.outputs: list[tuple[str, int]] = []
        self.clock: list[int] = []
        self.node.create_subscription(Header, topic, self._on_header, QoSProfile(depth=1000))
        self.node.create_subscription(Clock, "/clock", self._on_clock, QoSProfile(depth=1000))
        super().__init__(self.player, self.node)

    def _on_header(self, message: Header) -> None:
        self.outputs.append((message.frame_id, time.monotonic_ns()))

    def _on_clock(self, message: Clock) -> None:
        self.clock.append(message.clock.sec * 10**9 + message.clock.nanosec)


@pytest.fixture
def audience(ros: None, bag: Path) -> Iterator[Callable[..., Audience]]:
    made: list[Audience] = []

    def make(topic: str = "/header", **options: Any) -> Audience:
        made.append(Audience(PlayOptions(bag, await_topics=(topic,), **options), topic))
        return made[-1]

    yield make
    for each in made:
        each.destroy()


@pytest.mark.ros
def test_every_message_is_played_in_order_and_not_before_its_time(audience: Callable[..., Audience]) -> None:
    ours = audience(clock=True)
    ours.player.start()
    ours.spin_until(lambda: ours.player.ended and len(ours.outputs) == MESSAGES, "all messages")
    assert [name for name, _ in ours.outputs] == [f"frame {i}" for i in range(MESSAGES)]
    # The first may arrive late by its way through DDS, so the others may follow it more closely than recorded.
    assert ours.outputs[-1][1] - ours.outputs[0][1] > 0.5 * (MESSAGES - 1) * PERIOD_NS
    assert ours.player.counts.published == MESSAGES
    assert ours.player.counts.skipped == {f"/unknown ({NOWHERE})": MESSAGES}
    assert ours.player.failure is None


@pytest.mark.ros
def test_the_clock_is_the_bags_and_goes_on_between_messages(audience: Callable[..., Audience]) -> None:
    ours = audience(clock=True, rate=0.2)
    ours.spin_until(lambda: ours.node.count_publishers("/clock") > 0, "the clock's publisher")
    ours.player.start()
    ours.spin_until(lambda: ours.player.ended, "the end")
    ours.spin_until(lambda: ours.clock[-1] == START_NS + (MESSAGES - 1) * PERIOD_NS, "the last time")
    assert ours.clock == sorted(ours.clock)
    assert len(ours.clock) > 2 * MESSAGES  # also between messages, and none of the recorded 7 s


@pytest.mark.ros
def test_it_pauses_by_service_and_by_toggling(audience: Callable[..., Audience]) -> None:
    ours = audience(start_paused=True)
    ours.player.start()
    assert ours.call(SetBool, "set_paused", SetBool.Request(data=True)).message == "paused"
    assert ours.outputs == []
    assert ours.call(Trigger, "toggle_paused", Trigger.Request()).message == "playing"
    ours.spin_until(lambda: len(ours.outputs) > 1, "messages")
    ours.player.toggle_paused()
    assert ours.player.paused
    ours.player.toggle_paused()
    ours.spin_until(lambda: len(ours.outputs) == MESSAGES, "the rest")


@pytest.mark.ros
def test_it_loops_until_it_is_ended_and_remaps(audience: Callable[..., Audience]) -> None:
    ours = audience(topic="/other", loop=True, rate=20.0, remap={"/header": "/other"})
    ours.player.start()
    ours.spin_until(lambda: len(ours.outputs) >= 2 * MESSAGES, "two rounds")
    names = [name for name, _ in ours.outputs[: 2 * MESSAGES]]
    assert names == 2 * [f"frame {i}" for i in range(MESSAGES)]


@pytest.mark.ros
def test_what_cannot_be_played_is_refused_with_its_name(ros: None, bag: Path) -> None:
    with pytest.raises(BagError, match="no topic /header2; it has /clock, /header, /unknown"):
        Player(PlayOptions(bag, topics=("/header2",)))
    with pytest.raises(BagError, match=rf"topics without a package: /unknown \({NOWHERE}\)"):
        Player(PlayOptions(bag, topics=("/unknown",)))


@pytest.mark.ros
@pytest.mark.parametrize("end", [None, signal.SIGINT, signal.SIGTERM])
def test_the_command_plays_to_the_end_or_a_signal(bag: Path, end: signal.Signals | None) -> None:
    command = [sys.executable, "-m", "anyseg_ros.cli", "play", str(bag), *(["--loop"] if end else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        try:
            assert "not played: 20 messages of /unknown" in process.stdout.readline()
            if end:
                assert any("playing" in line for line in process.stdout)
                process.send_signal(end)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "messages played" in output


@pytest.mark.ros
@pytest.mark.parametrize(
    ("words", "says"), [(["none"], "no bag at none"), (["{bag}", "--topic", "/header2"], "no topic /header2")]
)
def test_the_command_refuses_what_it_cannot_play_in_one_line_with_2(bag: Path, words: list[str], says: str) -> None:
    command = [sys.executable, "-m", "anyseg_ros.cli", "play", *(word.format(bag=bag) for word in words)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert says in done.stderr
