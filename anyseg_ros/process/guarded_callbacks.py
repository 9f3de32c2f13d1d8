"""Callbacks of a node that cannot end it: an exception is logged and counted, and the node goes on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from traceback import format_exc
from typing import Any

LOG_PERIOD_S = 5.0
"""A message that comes 100 times a second must not fill the disk with the same traceback."""


class GuardedCallbacks:
    """Mixin before `rclpy.node.Node`: wraps the callback of every subscription, service and timer that is created.

    rclpy lets an exception of a callback end `spin`, and with it the node. No single message, request or parameter may
    do that: a request whose callback fails is answered with `success` false and the error as its `message`.
    """

    callback_errors = 0
    """Exceptions that callbacks raised since the node was created: each is a bug."""

    def create_subscription(self, msg_type: Any, topic: str, callback: Callable, *args: Any, **options: Any) -> Any:
        """As `Node.create_subscription`."""
        guarded = self.guarded(callback, f"the messages of {topic}")
        return super().create_subscription(msg_type, topic, guarded, *args, **options)  # type: ignore[misc]

    def create_timer(self, timer_period_sec: float, callback: Callable, *args: Any, **options: Any) -> Any:
        """As `Node.create_timer`."""
        guarded = self.guarded(callback, f"a timer of {timer_period_sec:g} s")
        return super().create_timer(timer_period_sec, guarded, *args, **options)  # type: ignore[misc]

    def create_service(self, srv_type: Any, srv_name: str, callback: Callable, **options: Any) -> Any:
        """As `Node.create_service`."""

        @functools.wraps(callback)
        def answered(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception as error:
                self.log_bug(f"service {srv_name}")
                return _refusal(response, error)

        return super().create_service(srv_type, srv_name, answered, **options)  # type: ignore[misc]

    def guarded(self, callback: Callable, what: str) -> Callable:
        """The callback without its exceptions; `what` names it in the log."""

        @functools.wraps(callback)
        def call(*args: Any) -> Any:
            try:
                return callback(*args)
            except Exception:
                self.log_bug(what)
                return None

        return call

    def log_bug(self, what: str) -> None:
        """Log the exception that is being handled, with its traceback."""
        self.callback_errors += 1
        message = f"a bug: the callback for {what} failed, and the node goes on: {format_exc()}"
        self.get_logger().error(message, throttle_duration_sec=LOG_PERIOD_S)  # type: ignore[attr-defined]


def _refusal(response: Any, error: Exception) -> Any:
    """A response that says so, as far as its type can."""
    for name, value in (("success", False), ("message", f"{type(error).__name__}: {error}")):
        if hasattr(response, name):
            setattr(response, name, value)
    return response
