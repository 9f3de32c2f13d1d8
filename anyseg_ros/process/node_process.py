"""One node as a process: settings, spinning, and an end with nothing left in shared memory.

The process always ends: on a signal in order and with code 0, after an unforeseen exception with its traceback and
code 1. What hangs then, in Python or in a library, is ended by faulthandler's own thread, which needs no lock of the
interpreter and prints where every thread was.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from anyseg_ros.process.namesakes import warn_of_namesakes
from anyseg_ros.process.ros_arguments import RosArgumentError, check_ros_arguments, ros_domain
from anyseg_ros.process.setup import set_up_process
from anyseg_ros.process.topic_names import named_refusal

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.node import Node

SPIN_TIMEOUT_S = 0.1
"""Between looks at whether a signal came."""
END_S = 8.0
"""For an end in order: the mask in work, the engine, the middleware. A launch kills what takes 10 s."""
END_AFTER_BUG_S = 1.5
"""The same, after an exception that nobody foresaw: what it left behind may never end by itself."""
MAX_STALE_EVENTS = 1000
"""Events in a row of things that are destroyed already; more is no race, but a fault."""

_Node = TypeVar("_Node", bound="Node")


def run(
    create: Callable[[], _Node],
    start: Callable[[_Node], int | None] | None = None,
    bad_input: tuple[type[Exception], ...] = (),
    fatal: tuple[type[Exception], ...] = (),
    finished: Callable[[_Node], int | None] | None = None,
) -> int:
    """Run a node until Ctrl-C or SIGTERM; returns the exit code.

    `start` is called with the node before it spins; an exit code from it ends the process. An exception of `bad_input`
    from `create`, or of `fatal` from a callback, is the user's to mend: its message is printed. The codes are those of
    the command line: 2 for bad input, and for names, arguments and environment variables that ROS 2 does not take; 1
    for what fails later.
    `finished` is asked while it spins, and an exit code from it ends the process as well.
    """
    set_up_process()
    import rclpy  # deferred: Fast DDS and the allocator read their settings when they are loaded
    from rclpy.exceptions import NameValidationException

    asked_to_stop = _StopFlag()
    try:
        _start_ros(ros_arguments(sys.argv))
    except RosArgumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        node = create()
    except bad_input as error:
        print(f"error: {error}", file=sys.stderr)
        rclpy.shutdown()
        return 2
    except NameValidationException as error:  # of namespace, node, or a topic below them: together they may be too long
        print(f"error: {named_refusal(error)}", file=sys.stderr)
        rclpy.shutdown()
        return 2
    warn_of_namesakes(node)
    executor = new_executor()
    executor.add_node(node)
    exit_code = 1
    try:
        exit_code = _spin(node, executor, asked_to_stop, start, finished)
    except fatal as error:
        print(f"error: {error}", file=sys.stderr)
        asked_to_stop.end_within(END_S)
    except Exception:
        asked_to_stop.end_within(END_AFTER_BUG_S)
        print(f"error: the node ends, by a bug:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
    asked_to_stop.ignore_further_signals()
    return _end(node, executor) or exit_code


def _start_ros(arguments: list[str]) -> None:
    """Start rclpy. Raises RosArgumentError where it does not take an argument or the environment."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    ros_domain()
    check_ros_arguments(arguments)
    try:
        # rclpy's own handlers invalidate the context at once: nothing could then be ended in order.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # classes of rclpy's own C++ part, different in each distribution
        reason = " ".join(str(error).split()).partition(", at /")[0]
        raise RosArgumentError(f"ROS 2 does not start: {reason}") from error


def _spin(
    node: _Node,
    executor: Executor,
    asked_to_stop: _StopFlag,
    start: Callable[[_Node], int | None] | None,
    finished: Callable[[_Node], int | None] | None,
) -> int:
    """Start the node and spin it until a signal comes or it has an exit code; returns that, 0 after a signal."""
    exit_code = start(node) if start is not None else None
    # What is loaded by now stays: looking through it again would stop every thread for 15 to 25 ms now and then.
    gc.collect()
    gc.freeze()
    try:
        while exit_code is None and not asked_to_stop.is_set:
            _spin_once(executor)
            exit_code = finished(node) if finished is not None else None
    finally:
        gc.unfreeze()  # whatever holds on to the middleware is to be found now
    asked_to_stop.end_within(END_S)
    return exit_code or 0


def _spin_once(executor: Executor) -> None:
    """One event. One of a subscription that was destroyed after the event came is none."""
    from rclpy.executors import InvalidHandle  # pyright: ignore[reportPrivateImportUsage]  # Humble has it there, too

    for _ in range(MAX_STALE_EVENTS):
        with suppress(InvalidHandle):
            executor.spin_once(timeout_sec=SPIN_TIMEOUT_S)
            return
    raise RuntimeError(f"{MAX_STALE_EVENTS} events in a row came for things that are destroyed")


def _end(node: Node, executor: Executor) -> int:
    """Destroy the node and leave the middleware; returns 1 where that raised, else 0."""
    import rclpy

    code = 0
    steps = (lambda: executor.remove_node(node), node.destroy_node, executor.shutdown, rclpy.shutdown)
    for step in steps:
        try:
            step()
        except Exception:
            traceback.print_exc()
            code = 1
    return code


def ros_arguments(command: Sequence[str]) -> list[str]:
    """The part of a command line that is ROS 2's. The rest may look like it: `anyseg play --remap /a:=/b` does."""
    return list(command[command.index("--ros-args") :]) if "--ros-args" in command else []


def new_executor() -> Executor:
    """The executor with the least time per message that this distribution has."""
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:  # before Kilted
        from rclpy.executors import SingleThreadedExecutor

        return SingleThreadedExecutor()
    return EventsExecutor()


class _StopFlag:
    """Set by SIGINT and SIGTERM, however often: a launch sends both, after the terminal has sent the first.

    A thread of its own watches for them as well: the system may hand a signal to any thread, and a main thread that
    waits for a lock does not wake up for it.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._read, write = socket.socketpair()
        write.setblocking(False)
        signal.set_wakeup_fd(write.detach(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    @staticmethod
    def ignore_further_signals() -> None:
        """Until the process is gone: the interpreter drops handlers before it ends, but keeps to ignoring."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    @staticmethod
    def end_within(seconds: float) -> None:
        """From now on the process has so long to end; then it is ended with code 1, whatever its threads do."""
        faulthandler.dump_traceback_later(seconds, exit=True)

    def _watch(self) -> None:
        while numbers := self._read.recv(64):
            if {signal.SIGINT, signal.SIGTERM} & set(numbers):
                self.end_within(END_S)
                self.is_set = True
                return

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self.is_set = True


@contextmanager
def ros(*, alone: bool = False) -> Iterator[None]:
    """rclpy, initialised and shut down; `alone`, its nodes find no other process, and no other finds them.

    Raises RosArgumentError where ROS_DOMAIN_ID is no domain.
    """
    import rclpy

    ros_domain()
    if alone:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "OFF"
        os.environ.pop("ROS_STATIC_PEERS", None)
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()
