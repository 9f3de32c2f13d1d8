"""A CUDA device by cuda.bindings (cuda-python), and CUDA graphs, which pycuda does not have."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyseg_core.runtime.engines.cuda.device import DeviceError, DeviceInfo, Event, Stream
from anyseg_core.runtime.extras import pip_command

NAME_BYTES = 256


class BindingsDevice:
    """The first GPU, on its primary context; see `cuda.device.Device`. Raises DeviceError."""

    def __init__(self) -> None:
        self._driver = driver = _load_driver()
        self._device = _checked(driver.cuDeviceGet(0))
        name = _checked(driver.cuDeviceGetName(NAME_BYTES, self._device))
        capability = driver.CUdevice_attribute
        major = capability.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        minor = capability.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
        self.info = DeviceInfo(
            name.split(b"\0")[0].decode(),
            ".".join(str(_checked(driver.cuDeviceGetAttribute(part, self._device))) for part in (major, minor)),
            f"cuda.bindings {_version()}",
        )
        self._context = _checked(driver.cuDevicePrimaryCtxRetain(self._device))

    @contextmanager
    def activated(self) -> Iterator[None]:
        _checked(self._driver.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent()

    def allocate(self, size: int) -> _Memory:
        return _Memory(self._driver, int(_checked(self._driver.cuMemAlloc(size))), size)

    def allocate_pinned(self, size: int) -> _Pinned:
        return _Pinned(self._driver, int(_checked(self._driver.cuMemHostAlloc(size, 0))), size)

    def create_stream(self) -> _Stream:
        return _Stream(self._driver, _checked(self._driver.cuStreamCreate(0)))

    def create_event(self) -> _Event:
        flags = self._driver.CUevent_flags
        asked = flags.CU_EVENT_DISABLE_TIMING.value | flags.CU_EVENT_BLOCKING_SYNC.value
        return _Event(self._driver, _checked(self._driver.cuEventCreate(asked)))

    def copy_to_device(self, address: int, source: NDArray[np.uint8], stream: Stream) -> None:
        _checked(self._driver.cuMemcpyHtoDAsync(address, source.ctypes.data, source.nbytes, stream.handle))

    def copy_on_device(self, address: int, source: int, size: int, stream: Stream) -> None:
        _checked(self._driver.cuMemcpyDtoDAsync(address, source, size, stream.handle))

    def copy_to_host(self, target: NDArray[np.uint8], address: int, stream: Stream) -> None:
        _checked(self._driver.cuMemcpyDtoHAsync(target.ctypes.data, address, target.nbytes, stream.handle))

    def free_memory(self) -> tuple[int, int]:
        free, total = _checked(self._driver.cuMemGetInfo())
        return int(free), int(total)

    def close(self) -> None:
        _checked(self._driver.cuDevicePrimaryCtxRelease(self._device))


class Graph:
    """What was put on a stream once, launched again and again with one call."""

    def __init__(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        """Record what `enqueue` puts on the stream, without doing it.

        Raises DeviceError where it cannot be recorded, or cuda.bindings is not there; and what `enqueue` raises.
        """
        self._driver = driver = _load_driver()
        self._stream = stream
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _checked(driver.cuStreamBeginCapture(stream.handle, mode))
        try:
            enqueue()
        finally:  # in any case: a stream that is being recorded runs nothing
            recorded = driver.cuStreamEndCapture(stream.handle)
        graph = _checked(recorded)
        try:
            self._executable = _checked(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Put it on the stream. Raises DeviceError."""
        _checked(self._driver.cuGraphLaunch(self._executable, self._stream.handle))

    def free(self) -> None:
        """Give it back."""
        _checked(self._driver.cuGraphExecDestroy(self._executable))


class _Memory:
    def __init__(self, driver: Any, address: int, size: int) -> None:
        self._driver = driver
        self.address = address
        self.size = size

    def free(self) -> None:
        _checked(self._driver.cuMemFree(self.address))


class _Pinned:
    def __init__(self, driver: Any, address: int, size: int) -> None:
        self._driver = driver
        self._address = address
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free(self) -> None:
        self.array = np.empty(0, np.uint8)
        _checked(self._driver.cuMemFreeHost(self._address))


class _Event:
    def __init__(self, driver: Any, event: Any) -> None:
        self._driver = driver
        self.raw = event

    def wait(self) -> None:
        _checked(self._driver.cuEventSynchronize(self.raw))

    def done(self) -> bool:
        answer = self._driver.cuEventQuery(self.raw)
        if answer[0] == self._driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        _checked(answer)
        return True

    def free(self) -> None:
        _checked(self._driver.cuEventDestroy(self.raw))


class _Stream:
    def __init__(self, driver: Any, stream: Any) -> None:
        self._driver = driver
        self.handle = int(stream)

    def wait_for(self, event: Event) -> None:
        assert isinstance(event, _Event)
        _checked(self._driver.cuStreamWaitEvent(self.handle, event.raw, 0))

    def record(self, event: Event) -> None:
        assert isinstance(event, _Event)
        _checked(self._driver.cuEventRecord(event.raw, self.handle))

    def synchronize(self) -> None:
        _checked(self._driver.cuStreamSynchronize(self.handle))

    def free(self) -> None:
        _checked(self._driver.cuStreamDestroy(self.handle))


def _load_driver() -> Any:
    """CUDA's driver interface, initialised; DeviceError where cuda.bindings or an NVIDIA driver is missing.

    torch's CUDA build brings cuda.bindings along, so it is often there without a driver: every call then raises a
    RuntimeError, of whatever class the version of cuda.bindings has for it.
    """
    try:
        from cuda.bindings import driver
    except ModuleNotFoundError as error:
        raise DeviceError(f"cuda.bindings is not installed ({pip_command('gpu')})") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise DeviceError(f"cuda.bindings cannot be loaded: {error}") from error
    try:
        _checked(driver.cuInit(0))
    except RuntimeError as error:
        raise DeviceError(f"cuda.bindings finds no NVIDIA driver: {error}") from error
    return driver


def _version() -> str:
    import cuda.bindings

    return cuda.bindings.__version__


def _checked(answer: tuple[Any, ...]) -> Any:
    """The results without the status before them. Raises DeviceError where that is an error."""
    status, *results = answer
    if status.value:
        raise DeviceError(f"CUDA: {status.name}")
    return results[0] if len(results) == 1 else tuple(results)
