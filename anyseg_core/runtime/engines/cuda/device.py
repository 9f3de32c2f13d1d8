"""The little of CUDA that an engine needs, behind one interface with two libraries below it: pycuda, cuda.bindings.

One thread owns a device: whatever it makes is made, used and freed there while the device is activated. Nothing is
activated between calls, so no thread ends with a context on its stack, and libraries that share the device's primary
context (TensorRT does) find their own again.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.engines.protocol import EngineError


class DeviceError(EngineError):
    """The device is not there, or a call to it failed; the message has CUDA's own words."""


@dataclass(frozen=True)
class DeviceInfo:
    """Which GPU, through which library."""

    name: str
    compute_capability: str
    """Such as `8.7`."""
    library: str
    """Such as `pycuda 2026.1`."""


class DeviceMemory(Protocol):
    """Memory on the device."""

    address: int
    size: int

    def free(self) -> None:
        """Give it back; once."""


class PinnedMemory(Protocol):
    """Host memory that the device copies from and to by itself."""

    array: NDArray[np.uint8]
    """uint8 [size]"""

    def free(self) -> None:
        """Give it back; `array` must not be touched any more."""


class Event(Protocol):
    """A mark on a stream."""

    def wait(self) -> None:
        """Until everything before the last `record` is done; the thread sleeps meanwhile."""

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        ...

    def free(self) -> None:
        """Give it back."""


class Stream(Protocol):
    """A queue of work on the device."""

    handle: int

    def wait_for(self, event: Event) -> None:
        """Let what comes next on this stream wait for the event's last `record`."""

    def record(self, event: Event) -> None:
        """Mark this place with the event."""

    def synchronize(self) -> None:
        """Until all is done."""

    def free(self) -> None:
        """Give it back."""


class Device(Protocol):
    """One GPU. Every method raises DeviceError; all but `activated` and `close` need `activated`."""

    info: DeviceInfo

    def activated(self) -> AbstractContextManager[None]:
        """The device's context is current on this thread inside of the block."""
        ...

    def allocate(self, size: int) -> DeviceMemory:
        """`size` > 0 bytes, of unknown content."""
        ...

    def allocate_pinned(self, size: int) -> PinnedMemory:
        """`size` > 0 bytes, of unknown content."""
        ...

    def create_stream(self) -> Stream: ...

    def create_event(self) -> Event: ...

    def copy_to_device(self, address: int, source: NDArray[np.uint8], stream: Stream) -> None:
        """Put a copy from pinned memory on the stream."""

    def copy_on_device(self, address: int, source: int, size: int, stream: Stream) -> None:
        """Put a copy between two addresses of the device on the stream."""

    def copy_to_host(self, target: NDArray[np.uint8], address: int, stream: Stream) -> None:
        """Put a copy to pinned memory on the stream."""

    def free_memory(self) -> tuple[int, int]:
        """Bytes that are free, and that there are."""
        ...

    def close(self) -> None:
        """Release the primary context; everything that was made must be freed before."""
