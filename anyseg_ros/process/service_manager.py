"""Tells systemd that the node is ready and alive (sd_notify(3)): a datagram to the socket that systemd names."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

READY, WATCHDOG = "READY=1", "WATCHDOG=1"
ENVIRONMENT = "NOTIFY_SOCKET"


def notify(*lines: str) -> bool:
    """Send lines such as `READY`; returns whether there is a service manager that took them."""
    address = os.environ.get(ENVIRONMENT, "")
    if not address:
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        # An address that begins with @ is in Linux' abstract namespace, whose names begin with a zero byte.
        channel.sendto("\n".join(lines).encode(), "\0" + address[1:] if address.startswith("@") else address)
        return True
    return False
