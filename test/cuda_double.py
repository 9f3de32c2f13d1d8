"""A GPU that is not there: `cuda_device.Device` on the host's memory, for tests that say so in their names.

Work on a stream is done as late as CUDA's rules allow, so a forgotten wait gives old bytes, not a lucky pass.
test/gpu_stubs/test_driver.c is the same idea below real pycuda.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.engines.cuda.device import DeviceError, DeviceInfo


class DeviceDouble:
    """One GPU. `alive` counts what was made and not freed, `allocations` what was ever taken."""

    def __init__(self) -> None:
        self.info = DeviceInfo("Double", "8.7", "double 1.0")
        self.alive: dict[str, int] = {}
        self.allocations = 0
        self.lost = ""
        """A fault: every call fails with it until the device is opened again."""
        self.streams: dict[int, StreamDouble] = {}
        self.log: list[str] = []
        self._depth = threading.local()

    def reopened(self) -> DeviceDouble:
        """What `open_device` gives: the same device, in order again."""
        self.lost = ""
        self.made("context", 1)
        return self

    def check(self) -> None:
        if not getattr(self._depth, "value", 0):
            raise DeviceError("no currently active context")
        if self.lost:
            raise DeviceError(self.lost)

    def made(self, kind: str, change: int) -> None:
        self.alive[kind] = self.alive.get(kind, 0) + change

    @contextmanager
    def activated(self) -> Iterator[None]:
        self._depth.value = getattr(self._depth, "value", 0) + 1
        try:
            yield
        finally:
            self._depth.value -= 1

    def allocate(self, size: int) -> MemoryDouble:
        return MemoryDouble(self, "device", size)

    def allocate_pinned(self, size: int) -> MemoryDouble:
        return MemoryDouble(self, "pinned", size)

    def create_stream(self) -> StreamDouble:
        return StreamDouble(self)

    def create_event(self) -> EventDouble:
        return EventDouble(self)

    def copy_to_device(self, address: int, source: NDArray[np.uint8], stream: StreamDouble) -> None:
        stream.put("to device", lambda: ctypes.memmove(address, source.ctypes.data, source.nbytes))

    def copy_on_device(self, address: int, source: int, size: int, stream: StreamDouble) -> None:
        stream.put("on device", lambda: ctypes.memmove(address, source, size))

    def copy_to_host(self, target: NDArray[np.uint8], address: int, stream: StreamDouble) -> None:
        stream.put("to host", lambda: ctypes.memmove(target.ctypes.data, address, target.nbytes))

    def launch(self, handle: int, function: Callable[[], None]) -> None:
        """Put a computation on the stream, as a kernel would be."""
        self.streams[handle].put("kernel", function)

    def free_memory(self) -> tuple[int, int]:
        self.check()
        return 6 << 30, 8 << 30

    def close(self) -> None:
        self.made("context", -1)


class MemoryDouble:
    def __init__(self, device: DeviceDouble, kind: str, size: int) -> None:
        device.check()
        self._device, self._kind, self.size = device, kind, size
        self.array = np.full(size, 0xA5, np.uint8)  # nobody may count on zeros
        self.address = self.array.ctypes.data
        device.allocations += 1
        device.made(kind, 1)

    def free(self) -> None:
        self._device.made(self._kind, -1)


class EventDouble:
    def __init__(self, device: DeviceDouble) -> None:
        device.check()
        self._device = device
        self.stream: StreamDouble | None = None
        self.recorded = self.reached = 0
        device.made("event", 1)

    def wait(self) -> None:
        self._device.check()
        self.reach(self.recorded)

    def reach(self, ticket: int) -> None:
        while self.reached < ticket and self.stream is not None:
            self.stream.step()

    def done(self) -> bool:
        return self.reached == self.recorded

    def free(self) -> None:
        self._device.made("event", -1)


class StreamDouble:
    def __init__(self, device: DeviceDouble) -> None:
        device.check()
        self._device = device
        self._queue: deque[tuple[str, Callable[[], Any]]] = deque()
        self.handle = id(self)
        device.streams[self.handle] = self
        device.made("stream", 1)

    def put(self, name: str, action: Callable[[], Any]) -> None:
        self._device.check()
        self._queue.append((name, action))

    def wait_for(self, event: EventDouble) -> None:
        ticket = event.recorded
        self.put("wait", lambda: event.reach(ticket))

    def record(self, event: EventDouble) -> None:
        event.stream, event.recorded = self, event.recorded + 1
        ticket = event.recorded
        self.put("record", lambda: setattr(event, "reached", ticket))

    def step(self) -> None:
        """Do the next thing in the queue."""
        name, action = self._queue.popleft()
        self._device.log.append(name)
        action()

    def synchronize(self) -> None:
        self._device.check()
        while self._queue:
            self.step()

    def free(self) -> None:
        self._device.made("stream", -1)
