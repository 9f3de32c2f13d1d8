"""A CUDA device by pycuda."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.engines.cuda.device import DeviceError, DeviceInfo, Event, Stream
from anyseg_core.runtime.extras import pip_command

_Answer = TypeVar("_Answer")


class PycudaDevice:
    """The first GPU, on its primary context; see `cuda.device.Device`. Raises DeviceError."""

    def __init__(self) -> None:
        try:
            import pycuda
            import pycuda.driver as cuda
        except ModuleNotFoundError as error:
            raise DeviceError(f"{error.name} is not installed ({pip_command('gpu')})") from error
        except ImportError as error:
            raise DeviceError(f"pycuda cannot be loaded, most likely for want of an NVIDIA driver: {error}") from error
        self._cuda = cuda
        self._failures = (cuda.Error,)
        self._try(cuda.init)
        device = self._try(lambda: cuda.Device(0))
        major, minor = device.compute_capability()
        self.info = DeviceInfo(device.name(), f"{major}.{minor}", f"pycuda {pycuda.VERSION_TEXT}")
        # Not pycuda.autoinit: the primary context is the one that TensorRT's runtime uses.
        self._context = self._try(device.retain_primary_context)

    @contextmanager
    def activated(self) -> Iterator[None]:
        self._try(self._context.push)
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def allocate(self, size: int) -> _Memory:
        return _Memory(self._try(lambda: self._cuda.mem_alloc(size)), size)

    def allocate_pinned(self, size: int) -> _Pinned:
        return _Pinned(self._try(lambda: self._cuda.pagelocked_empty(size, np.uint8)))

    def create_stream(self) -> _Stream:
        return _Stream(self, self._try(self._cuda.Stream))

    def create_event(self) -> _Event:
        flags = self._cuda.event_flags
        return _Event(self, self._try(lambda: self._cuda.Event(flags.DISABLE_TIMING | flags.BLOCKING_SYNC)))

    def copy_to_device(self, address: int, source: NDArray[np.uint8], stream: Stream) -> None:
        self._try(lambda: self._cuda.memcpy_htod_async(address, source, _raw(stream)))

    def copy_on_device(self, address: int, source: int, size: int, stream: Stream) -> None:
        self._try(lambda: self._cuda.memcpy_dtod_async(address, source, size, _raw(stream)))

    def copy_to_host(self, target: NDArray[np.uint8], address: int, stream: Stream) -> None:
        self._try(lambda: self._cuda.memcpy_dtoh_async(target, address, _raw(stream)))

    def free_memory(self) -> tuple[int, int]:
        return self._try(self._cuda.mem_get_info)

    def close(self) -> None:
        self._context.detach()
        # pycuda takes it that releasing a primary context also takes it off the thread's stack; it does not.
        _driver_library().cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def _try(self, call: Callable[[], _Answer]) -> _Answer:
        try:
            return call()
        except self._failures as error:
            message = f"CUDA: {error}"
        # A traceback that still holds `call` would keep its stream or event alive beyond `free`, until no context is
        # current any more; pycuda then leaks it.
        del call
        raise DeviceError(message)


class _Memory:
    def __init__(self, allocation: Any, size: int) -> None:
        self._allocation = allocation
        self.address = int(allocation)
        self.size = size

    def free(self) -> None:
        self._allocation.free()


class _Pinned:
    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    def free(self) -> None:
        allocation: Any = self.array.base
        self.array = np.empty(0, np.uint8)
        allocation.free()


class _Event:
    def __init__(self, device: PycudaDevice, event: Any) -> None:
        self._device = device
        self.raw: Any = event

    def wait(self) -> None:
        self._device._try(self.raw.synchronize)

    def done(self) -> bool:
        return self._device._try(self.raw.query)

    def free(self) -> None:
        self.raw = None  # pycuda destroys it with its last reference, which is this


class _Stream:
    def __init__(self, device: PycudaDevice, stream: Any) -> None:
        self._device = device
        self.raw: Any = stream
        self.handle = int(stream.handle)

    def wait_for(self, event: Event) -> None:
        self._device._try(lambda: self.raw.wait_for_event(_raw(event)))

    def record(self, event: Event) -> None:
        self._device._try(lambda: _raw(event).record(self.raw))

    def synchronize(self) -> None:
        self._device._try(self.raw.synchronize)

    def free(self) -> None:
        self.raw = None


def _raw(wrapped: Stream | Event) -> Any:
    """pycuda's own object."""
    assert isinstance(wrapped, (_Stream, _Event))
    return wrapped.raw


def _driver_library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")
