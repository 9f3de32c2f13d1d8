"""injector_node: sits between the drivers and segmentation_node and breaks sensors as a schedule of injections says.

Messages travel through it serialized: what no fault touches leaves as the very bytes that came. A sensor is subscribed
to when somebody listens to its output. The scenario's time begins with the first message, or with the service
`~/start`; what is injected is told on `~/active_faults`.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Collection
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]  # where every distribution has it
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger

from anyseg_core.injection import INJECTION_KINDS, ActiveInjection, InjectionSchedule, InjectionScheduleError
from anyseg_core.runtime.clock_steps import clock_was_set
from anyseg_core.runtime.sensors import DEFAULT_SENSORS, Sensor, in_order
from anyseg_core.runtime.time_units import NS_PER_S
from anyseg_core.wording import counted
from anyseg_ros.inject.messages import MessageInjector, SensorMessage
from anyseg_ros.messages.headers import STATE_QOS, time_message
from anyseg_ros.messages.sensor_messages import SENSOR_MESSAGES, default_topic
from anyseg_ros.messages.types import install_command, message_class
from anyseg_ros.process.guarded_callbacks import GuardedCallbacks
from anyseg_ros.process.node_process import run
from anyseg_ros.process.start_parameters import refuse_changes, require_declared
from anyseg_ros.process.topic_names import full_topic_name

NAME = "injector"
INPUT_PREFIX = "in/"
QUEUE_DEPTH = 5
CONNECT_PERIOD_S = 0.2
"""Between looks for drivers and listeners of sensors that have none yet."""
STATUS_PERIOD_S = 0.1
REPEAT_PERIODS = 10
"""Of `STATUS_PERIOD_S`, between two messages on `~/active_faults` when nothing changes."""
RELEASE_PERIOD_S = 0.005
"""Between looks at delayed messages, while there are any."""


class InjectorNode(GuardedCallbacks, Node):
    """Relays the sensors' topics, broken as the parameter `injections` says.

    Raises InjectionScheduleError for a scenario that cannot be played, and ValueError for topics that cannot be used.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        self._start_ns: int | None = None
        self._last_ns = 0
        self._published: tuple[int, ...] | None = None
        self._periods = 0
        self._unreadable_logged = 0
        self._autostart = self.declare_parameter("autostart", True).value
        self._others = sensors_of(self.declare_parameter("sensors", "").value)
        self._injector = _injector_of(self.declare_parameter("injections", "").value, self._others)
        sensors = in_order({*DEFAULT_SENSORS, *self._others, *self._injector.schedule.declared})
        self._relays = [relay for sensor in sensors if (relay := self._relay(sensor)) is not None]
        require_declared(self)
        self._faults_publisher = self.create_publisher(DiagnosticArray, "~/active_faults", STATE_QOS)
        self.create_service(Trigger, "~/start", self._on_start)
        self.create_service(Trigger, "~/stop", self._on_stop)
        refuse_changes(self, may_change=("injections",))
        self.add_on_set_parameters_callback(self._on_parameters)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # /clock may stand still
        self.create_timer(CONNECT_PERIOD_S, self._connect, clock=steady)
        self.create_timer(STATUS_PERIOD_S, self._on_status_time, clock=steady)
        self._release_timer = self.create_timer(RELEASE_PERIOD_S, self._release, clock=steady)
        self._release_timer.cancel()
        routes = ", ".join(f"{source} (goes on as {target})" for source, target in self.routes) or "no topic"
        self.get_logger().info(f"waiting for drivers that publish {routes}")

    def _relay(self, modality: Sensor) -> _Relay | None:
        """The way of one sensor through this node; None where its topic is empty."""
        usual = default_topic(modality)
        source = self.declare_parameter(f"topics.{modality}.input", INPUT_PREFIX + usual).value
        target = self.declare_parameter(f"topics.{modality}.output", usual).value
        if not source or not target:
            return None
        heard = full_topic_name(self, f"topics.{modality}.input", source)
        if heard == full_topic_name(self, f"topics.{modality}.output", target):
            raise ValueError(f"topics.{modality}: input and output are both {source}; the node would hear itself")
        return _Relay(self, modality, source, target)

    @property
    def routes(self) -> list[tuple[str, str]]:
        """The full names of each sensor's topic before and behind this node, whether somebody uses them yet or not."""
        return [relay.route for relay in self._relays]

    def _connect(self) -> None:
        for relay in self._relays:
            if relay.find_driver():
                self._warn_of_unplayable(relay)
            relay.subscribe_when_needed()

    def _warn_of_unplayable(self, relay: _Relay) -> None:
        try:
            self._injector.require_playable(relay.modality, relay.msgtype)
        except InjectionScheduleError as error:
            self.get_logger().error(f"{error}; these messages will pass as they are")

    # --- messages

    def on_message(self, relay: _Relay, cdr: bytes) -> None:
        """A sensor's message, serialized, just come."""
        now_ns = self.get_clock().now().nanoseconds
        if self._start_ns is None:
            if not self._autostart:
                relay.publish(cdr)
                return
            self._begin(now_ns)
        elapsed_s = self._elapsed_s(now_ns)
        self._crash_where_due(elapsed_s)
        self._injector.send(SensorMessage(relay.modality, relay.msgtype, cdr, relay), elapsed_s)
        self._deliver(elapsed_s)

    def _deliver(self, elapsed_s: float) -> None:
        for arrival in self._injector.arrivals(elapsed_s):
            message = arrival.item
            if message.msgtype == message.origin.msgtype:  # else its driver has come back with another one meanwhile
                message.origin.publish(message.cdr)
        if self._injector.next_arrival_s() < math.inf:
            if self._release_timer.is_canceled():
                self._release_timer.reset()
        elif not self._release_timer.is_canceled():
            self._release_timer.cancel()

    def _release(self) -> None:
        """Deliver what was delayed and is due."""
        if self._start_ns is not None:
            self._deliver(self._elapsed_s(self.get_clock().now().nanoseconds))

    # --- the scenario's time

    def _begin(self, now_ns: int) -> None:
        self._autostart = True
        self._start_ns = self._last_ns = now_ns
        self._injector.reset()
        self.get_logger().info(f"the scenario starts: {counted(len(self._injector.schedule.injections), 'fault')}")

    def _elapsed_s(self, now_ns: int) -> float:
        """Seconds since the start; a clock that was set, by a bag that plays in a loop, begins the scenario anew."""
        if clock_was_set(self._last_ns, now_ns):
            self.get_logger().info("the clock was set")
            self._begin(now_ns)
        self._last_ns = max(self._last_ns, now_ns)
        return (self._last_ns - (self._start_ns or 0)) / NS_PER_S

    def _crash_where_due(self, elapsed_s: float) -> None:
        if self._injector.must_die(elapsed_s):
            self.get_logger().fatal("the scenario crashes this process")
            os.kill(os.getpid(), signal.SIGKILL)

    def _on_start(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        again = self._start_ns is not None
        self._stop()
        self._begin(self.get_clock().now().nanoseconds)
        response.success, response.message = True, "started anew" if again else "started"
        return response

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._start_ns is not None
        response.message = "stopped: messages pass as they are" if response.success else "was not running"
        self._stop()
        return response

    def _stop(self) -> None:
        """No faults from now on; what was delayed goes out."""
        self._deliver(math.inf)
        self._start_ns, self._autostart = None, False

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Another scenario starts at once, if one was running."""
        for parameter in parameters:
            if parameter.name != "injections":
                continue
            try:
                injector = _injector_of(parameter.value, self._others)
            except InjectionScheduleError as error:
                return SetParametersResult(successful=False, reason=str(error))
            self._deliver(math.inf)
            self._injector, self._unreadable_logged = injector, 0
            if self._start_ns is not None:
                self._begin(self.get_clock().now().nanoseconds)
            for relay in self._relays:
                if relay.msgtype:
                    self._warn_of_unplayable(relay)
        return SetParametersResult(successful=True)

    # --- ground truth

    def _on_status_time(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        active: list[ActiveInjection] = []
        if self._start_ns is not None:
            elapsed_s = self._elapsed_s(now_ns)
            self._crash_where_due(elapsed_s)
            active = self._injector.active(elapsed_s)
        present = tuple(id(fault.entry) for fault in active)
        self._periods += 1
        if present != self._published or self._periods >= REPEAT_PERIODS:
            self._published, self._periods = present, 0
            self._faults_publisher.publish(active_faults_message(active, now_ns, self._start_ns or 0))
        self._warn_of_unreadable()

    def _warn_of_unreadable(self) -> None:
        count = sum(self._injector.unreadable.values())
        if count > self._unreadable_logged:
            self._unreadable_logged = count
            reasons = "; ".join(f"{number} x {reason}" for reason, number in self._injector.unreadable.items())
            self.get_logger().warning(f"passed as they were: {reasons}", throttle_duration_sec=5.0)


class _Relay:
    """One sensor's way through the node. Its type is the driver's; it listens when it is listened to, so that the first
    message that it takes is heard."""

    def __init__(self, node: InjectorNode, modality: Sensor, source: str, target: str) -> None:
        self.modality = modality
        self.msgtype = ""
        """Empty until the driver is there."""
        self._node, self._source, self._target = node, source, target
        self._qos = QoSProfile(depth=QUEUE_DEPTH)
        self._publisher: Any = None
        self._subscription: Any = None
        self._complaint = ""

    @property
    def route(self) -> tuple[str, str]:
        """Full names of its input and its output."""
        return self._node.resolve_topic_name(self._source), self._node.resolve_topic_name(self._target)

    def publish(self, cdr: bytes | memoryview) -> None:
        """Send a serialized message on, unless its driver has gone meanwhile and another one is looked for."""
        if self._publisher is not None:
            self._publisher.publish(bytes(cdr))

    def find_driver(self) -> bool:
        """Whether one has just been found, or has come back as another one. The output, offered from now on, has the
        input's type and reliability."""
        publishers = self._node.get_publishers_info_by_topic(self._source)
        types = [publisher.topic_type for publisher in publishers]
        if not types:
            return False  # it may come back: who listens stays connected
        reliability = _heard_by_all([publisher.qos_profile for publisher in publishers])
        msgtype = self.msgtype if self.msgtype in types else types[0]
        if (msgtype, reliability) == (self.msgtype, self._qos.reliability):
            return False
        if self.msgtype:  # a topic has one type in a process until its old publisher is gone: on the next look
            self._end()
            return False
        message_type = message_class(msgtype)
        if message_type is None:
            remedy = install_command(msgtype.split("/")[0])
            self._complain(f"{self._source} is {msgtype}, which is not installed: {remedy}")
            return False
        if msgtype not in SENSOR_MESSAGES[self.modality.kind].types:
            self._complain(f"{self._source} is {msgtype}, unusual for {self.modality}: only its timing can be broken")
        self._qos = QoSProfile(depth=QUEUE_DEPTH, reliability=reliability)
        self.msgtype = msgtype
        self._publisher = self._node.create_publisher(message_type, self._target, self._qos)
        return True

    def _end(self) -> None:
        """Of the way for a driver that has come back as another one."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
        self._publisher = self._subscription = None
        self.msgtype = ""

    def subscribe_when_needed(self) -> None:
        """Take the driver's messages from the moment on that there is somebody to send them to."""
        publisher = self._publisher
        if publisher is None or self._subscription is not None or not publisher.get_subscription_count():
            return
        self._subscription = self._node.create_subscription(
            publisher.msg_type, self._source, lambda cdr: self._node.on_message(self, cdr), self._qos, raw=True
        )
        self._node.get_logger().info(f"{self.modality}: {self._source} -> {self._target} ({self.msgtype})")

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._node.get_logger().warning(complaint)
        self._complaint = complaint


def _heard_by_all(offers: list[QoSProfile]) -> ReliabilityPolicy:
    """The most that each of these publishers offers: who asks for more hears nothing, without an error."""
    are_reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
    return ReliabilityPolicy.RELIABLE if are_reliable else ReliabilityPolicy.BEST_EFFORT


def active_faults_message(active: list[ActiveInjection], now_ns: int, start_ns: int) -> DiagnosticArray:
    """The faults present now, one status each; times are those of the node's clock in nanoseconds."""
    array = DiagnosticArray(status=[_fault_status(fault, start_ns) for fault in active])
    array.header.stamp = time_message(now_ns)
    return array


def _fault_status(fault: ActiveInjection, start_ns: int) -> DiagnosticStatus:
    entry = fault.entry
    values = {
        "modality": str(entry.modality),
        "kind": entry.kind,
        "start_ns": start_ns + round(entry.start_s * NS_PER_S),
        "end_ns": start_ns + round(entry.end_s * NS_PER_S) if entry.end_s < math.inf else "",
        "strength": f"{fault.strength:.3f}",
        "probability": f"{entry.probability:g}",
        "hits": fault.hits,
        "expected": ",".join(INJECTION_KINDS[entry.kind].expected),
        **{f"parameters.{name}": f"{value:g}" for name, value in entry.parameters.items()},
    }
    return DiagnosticStatus(
        level=DiagnosticStatus.WARN,
        name=f"injector: {entry.modality} {entry.kind}",
        message=INJECTION_KINDS[entry.kind].imitates,
        hardware_id="injector",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def sensors_of(listed: str) -> list[Sensor]:
    """`thermal:camera,lidar_rear:lidar`, names and kinds -> those sensors. Raises ValueError."""
    return [Sensor(name, kind or None) for name, _, kind in (each.partition(":") for each in listed.split(",") if each)]


def _injector_of(schedule: str, others: Collection[Sensor]) -> MessageInjector:
    sensors = {*DEFAULT_SENSORS, *others}
    return MessageInjector(InjectionSchedule.load(schedule, sensors) if schedule else InjectionSchedule())


def main() -> None:
    """Entry point `injector_node`."""
    sys.exit(run(InjectorNode, bad_input=(ValueError, InvalidParameterTypeException)))


if __name__ == "__main__":
    main()
