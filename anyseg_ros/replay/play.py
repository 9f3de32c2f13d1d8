"""`anyseg play`: a bag over DDS with its own timing, for machines without `ros2 bag` as well as with it.

Messages are published as the bytes they were recorded as, so playing costs no conversion. A topic whose message package
is not installed here cannot be published: it is skipped, and the count is told.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosReliability
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool, Trigger

from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_core.wording import counted
from anyseg_ros.bags.reader import BagError, BagReader
from anyseg_ros.messages.types import message_class
from anyseg_ros.process.node_process import run
from anyseg_ros.replay.play_clock import PlayClock

CLOCK_TOPIC = "/clock"
CLOCK_PERIOD_NS = 10_000_000
"""Of bag time between two messages on /clock, at a rate of 1."""
QUEUE_DEPTH = 10
ACKNOWLEDGE_TIMEOUT_S = 2.0
"""Time for the last messages to arrive before the publishers go."""
DISCOVERY_TIMEOUT_S = 60.0
DISCOVERY_PERIOD_S = 0.05
SETTLE_S = 0.5
"""After the last new subscriber: where some are waited for, those of /clock and of other topics come a little later."""
LATE_NS = 50_000_000
"""A message that is later than this is counted: reading or publishing does not keep up."""


@dataclass(frozen=True)
class PlayOptions:
    """What to play and how. Raises ValueError for an impossible rate."""

    bag: Path
    rate: float = 1.0
    loop: bool = False
    start_paused: bool = False
    clock: bool = False
    """Publish the bag's time on /clock."""
    topics: tuple[str, ...] = ()
    """Only these; all where empty."""
    await_topics: tuple[str, ...] = ()
    """Topics, named as they are published, that must have a subscriber before the first message is sent."""
    remap: Mapping[str, str] = field(default_factory=dict)
    """Recorded name -> published name."""

    def __post_init__(self) -> None:
        PlayClock(self.rate)


@dataclass
class PlayCounts:
    """What happened so far."""

    published: int = 0
    late: int = 0
    """Published later than `LATE_NS` of wall time after they were due."""
    loops: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Messages of types that are not installed here, by `topic (type)`, as the bag counts them."""


class Player(Node):
    """The node that publishes a bag. `start` begins in a thread of its own, `ended` tells when it is through."""

    def __init__(self, options: PlayOptions) -> None:
        """Raises BagError where nothing of the bag can be read or published."""
        super().__init__("anyseg_player")
        self.counts = PlayCounts()
        self.failure: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._play, name="play", daemon=True)
        self._options = options
        self._play_clock = PlayClock(options.rate, paused=options.start_paused)  # `_clock` is rclpy's own
        self._reader = BagReader(options.bag)
        self._publishers_of = self._create_publishers()
        self._clock_publisher = self.create_publisher(Clock, CLOCK_TOPIC, QUEUE_DEPTH) if options.clock else None
        self._clock_sent_ns: int | None = None
        self.create_service(Trigger, "~/toggle_paused", self._on_toggle)
        self.create_service(SetBool, "~/set_paused", self._on_set_paused)

    def start(self) -> None:
        """Begin to play."""
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether everything was played, or playing failed (`failure`)."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def paused(self) -> bool:
        return self._play_clock.paused

    def toggle_paused(self) -> None:
        """Pause, or go on."""
        self._play_clock.set_paused(not self._play_clock.paused)
        self.get_logger().info("paused" if self.paused else "playing")

    def destroy_node(self) -> None:
        """Stop playing, and end the node."""
        self._stopping.set()
        self._play_clock.stop()
        if self._thread.ident is not None:
            self._thread.join()
        super().destroy_node()

    # --- publishers ----------------------------------------------------------------------------------------------

    def _create_publishers(self) -> dict[str, Any]:
        publishers: dict[str, Any] = {}
        profiles = self._reader.offered_qos()
        known = {choice.topic for choice in self._reader.topics}
        unknown = sorted(set(self._options.topics) - known)
        if unknown:
            raise BagError(f"{self._options.bag} has no topic {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        for choice, count in self._reader.topics.items():
            if self._options.topics and choice.topic not in self._options.topics:
                continue
            if choice.topic == CLOCK_TOPIC and self._options.clock:
                continue  # ours is the one that pauses and loops
            message_type = message_class(choice.msgtype)
            if message_type is None:
                self.counts.skipped[f"{choice.topic} ({choice.msgtype})"] = count
                continue
            name = self._options.remap.get(choice.topic, choice.topic)
            qos = publisher_qos(choice.topic, profiles.get(choice.topic, ()))
            publishers[choice.topic] = self.create_publisher(message_type, name, qos)
        if not publishers:
            skipped = ", ".join(self.counts.skipped) or "none"
            raise BagError(f"nothing of {self._options.bag} can be published here; topics without a package: {skipped}")
        return publishers

    # --- services ------------------------------------------------------------------------------------------------

    def _on_toggle(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.toggle_paused()
        response.success, response.message = True, "paused" if self.paused else "playing"
        return response

    def _on_set_paused(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._play_clock.set_paused(request.data)
        response.success, response.message = True, "paused" if self.paused else "playing"
        return response

    # --- the thread ----------------------------------------------------------------------------------------------

    def _play(self) -> None:
        try:
            self._await_subscribers()
            while not self._stopping.is_set():
                self._play_once()
                self.counts.loops += 1
                if not self._options.loop:
                    break
            if not self._stopping.is_set():
                self._await_acknowledgement()
        except Exception as error:
            # A daemon thread's exception would be printed and lost: the process must end with it.
            if not self._stopping.is_set():
                self.failure = error

    def _await_subscribers(self) -> None:
        """Until every awaited topic has a subscriber, and nobody new has come to any topic for a while."""
        names = {self.resolve_topic_name(name) for name in self._options.await_topics}
        awaited = [p for p in self._publishers_of.values() if p.topic_name in names]
        everyone = [*self._publishers_of.values(), *filter(None, [self._clock_publisher])]
        counts: list[int] = []
        changed = time.monotonic()
        deadline = changed + DISCOVERY_TIMEOUT_S
        while awaited and not self._stopping.wait(DISCOVERY_PERIOD_S):
            before, counts = counts, [publisher.get_subscription_count() for publisher in everyone]
            changed = time.monotonic() if counts != before else changed
            silent = [p.topic_name for p in awaited if not p.get_subscription_count()]
            if not silent and time.monotonic() > changed + SETTLE_S:
                return
            if silent and time.monotonic() > deadline:
                raise BagError(f"nobody subscribed to {', '.join(silent)} within {DISCOVERY_TIMEOUT_S:.0f} s")

    def _play_once(self) -> None:
        started = False
        for message in self._reader.messages(self._publishers_of):
            if not started:
                self._play_clock.start_at(message.received_ns)
                self._clock_sent_ns, started = None, True
            if not self._wait_until(message.received_ns):
                return
            late_ns = (self._play_clock.now_ns() - message.received_ns) / self._options.rate
            self.counts.late += late_ns > LATE_NS
            self._publishers_of[message.topic].publish(bytes(message.cdr))
            self.counts.published += 1

    def _wait_until(self, bag_ns: int) -> bool:
        """Wait, with the time told on /clock meanwhile; False where playing is to end."""
        step_s = CLOCK_PERIOD_NS / 1e9 if self._clock_publisher is not None else 1.0
        while not self._play_clock.wait_until(bag_ns, step_s):
            if self._stopping.is_set():
                return False
            if self._clock_publisher is not None:
                self._tell_time(min(self._play_clock.now_ns(), bag_ns))
        self._tell_time(bag_ns)
        return not self._stopping.is_set()

    def _tell_time(self, bag_ns: int) -> None:
        if self._clock_publisher is None or bag_ns == self._clock_sent_ns:
            return
        self._clock_sent_ns = bag_ns
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(bag_ns, NS_PER_S)
        self._clock_publisher.publish(message)

    def _await_acknowledgement(self) -> None:
        for publisher in self._publishers_of.values():
            publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_TIMEOUT_S))


def parse_remaps(texts: Iterable[str]) -> dict[str, str]:
    """`/recorded:=/published` -> names. Raises ValueError for anything else."""
    pairs = {text: text.partition(":=") for text in texts}
    for text, (recorded, _, published) in pairs.items():
        if not (recorded and published):
            raise ValueError(f"--remap {text}: it must be /recorded:=/published")
    return {recorded: published for recorded, _, published in pairs.values()}


def publisher_qos(topic: str, recorded: tuple[Qos, ...]) -> QoSProfile:
    """A QoS that serves whoever the recorded publishers served.

    Without a record: reliable, which serves best-effort subscribers as well; /tf_static stays for those who come late.
    Of several publishers on one topic the weakest promise counts: it is what subscribers were able to rely on.
    """
    reliable = all(qos.reliability is not QosReliability.BEST_EFFORT for qos in recorded)
    if recorded:
        latched = all(qos.durability is QosDurability.TRANSIENT_LOCAL for qos in recorded)
    else:
        latched = topic.endswith("/tf_static")
    return QoSProfile(
        depth=max([QUEUE_DEPTH, *(qos.depth for qos in recorded)]),
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def main(options: PlayOptions, say: Callable[[str], None]) -> int:
    """Play until the end or Ctrl-C; returns the exit code. With a terminal, the space key pauses."""
    player: list[Player] = []

    def create() -> Player:
        player.append(Player(options))
        return player[0]

    def start(node: Player) -> None:
        for skipped, count in node.counts.skipped.items():
            say(f"not played: {counted(count, 'message')} of {skipped}, whose package is not installed here")
        say(f"playing {options.bag} at {options.rate:g} x" + (", paused" if node.paused else ""))
        node.start()

    with _space_key(lambda: player[0].toggle_paused() if player else None):
        code = run(create, start, bad_input=(BagError,), finished=lambda node: 0 if node.ended else None)
    if not player:
        return code
    counts, failure = player[0].counts, player[0].failure
    if failure is not None:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    say(f"{counted(counts.published, 'message')} played" + (f", {counts.late} of them late" if counts.late else ""))
    return code


@contextmanager
def _space_key(on_press: Callable[[], None]) -> Iterator[None]:
    """Call it at each press of the space key, where there is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    import select
    import termios
    import tty

    ended, terminal = threading.Event(), sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def listen() -> None:
        while not ended.is_set():
            if select.select([terminal], [], [], 0.1)[0] and sys.stdin.read(1) == " ":
                on_press()

    thread = threading.Thread(target=listen, name="space_key", daemon=True)
    tty.setcbreak(terminal)  # Ctrl-C stays a signal
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
