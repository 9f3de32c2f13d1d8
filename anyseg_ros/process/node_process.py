"""One node as a process: settings, spinning, and an end with exit code 0 and nothing left in shared memory."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from anyseg_ros.process.setup import set_up_process

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.node import Node

SPIN_TIMEOUT_S = 0.1
"""Between looks at whether a signal came."""

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
    from `create`, or of `fatal` from a callback, is the user's to mend: its message is printed, and the code is 1.
    `finished` is asked while it spins, and an exit code from it ends the process as well.
    """
    set_up_process()
    import rclpy  # deferred: Fast DDS and the allocator read their settings when they are loaded
    from rclpy.signals import SignalHandlerOptions

    asked_to_stop = _StopFlag()
    # rclpy's own handlers invalidate the context at once: nothing could then be ended in order.
    rclpy.init(args=ros_arguments(sys.argv), signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = create()
    except bad_input as error:
        print(f"error: {error}", file=sys.stderr)
        rclpy.shutdown()
        return 1
    executor = new_executor()
    executor.add_node(node)
    exit_code = start(node) if start is not None else None
    # What is loaded by now stays: looking through it again would stop every thread for 15 to 25 ms now and then.
    gc.collect()
    gc.freeze()
    try:
        while exit_code is None and not asked_to_stop.is_set:
            executor.spin_once(timeout_sec=SPIN_TIMEOUT_S)
            exit_code = finished(node) if finished is not None else None
    except fatal as error:
        print(f"error: {error}", file=sys.stderr)
        exit_code = 1
    gc.unfreeze()  # whatever holds on to the middleware is to be found now
    asked_to_stop.ignore_further_signals()
    executor.remove_node(node)
    node.destroy_node()
    executor.shutdown()
    rclpy.shutdown()
    return exit_code or 0


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
    """Set by SIGINT and SIGTERM, however often: a launch sends both, after the terminal has sent the first."""

    def __init__(self) -> None:
        self.is_set = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    @staticmethod
    def ignore_further_signals() -> None:
        """Until the process is gone: the interpreter drops handlers before it ends, but keeps to ignoring."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self.is_set = True
